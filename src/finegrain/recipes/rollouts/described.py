"""A sampled answer as a line of rollouts.jsonl."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from finegrain.data.records import Example
from finegrain.online.rollout import Ended, Rollout
from finegrain.online.stages import Update
from finegrain.recipes.rollouts.rewards import ROLE
from finegrain.types import Json


def describe_answer(row: int, sample: int, example: Example, rollout: Rollout, update: Update, gold: Mapping[str, Tensor] | None) -> Json:
    """The text, and of every token its characters, reward, advantage and KL; rewards of the whole by name. `row`: its place in the buffer."""
    response = example.responses[ROLE]
    totals = rollout.tokens[row] @ torch.tensor(rollout.weights, dtype=rollout.tokens.dtype)
    kl = None if rollout.ref_logp is None else (rollout.old_logp - rollout.ref_logp)[row]
    spans = [
        [int(start), int(end), _number(totals[t]), _number(update.advantage[row, t]), None if kl is None else _number(kl[t])]
        for t, (start, end) in enumerate(response.offsets)
    ]
    line: Json = {
        "row": example.row,
        "sample": sample,
        "prompt": example.prompt_text,
        "text": response.text,
        "ended": Ended(int(rollout.ended[row])).name.lower(),
        "rewards": dict(zip(rollout.names, _scores(rollout, row), strict=True)),
        "advantage": _number(update.advantage[row][rollout.mask[row]].sum() / max(1, int(rollout.mask[row].sum()))),
        "spans": spans,
    }
    return line if gold is None else {**line, "gold": {name: _number(own[row]) for name, own in gold.items()}}


def _scores(rollout: Rollout, row: int) -> list[float | None]:
    return [_number(value) for value in rollout.totals[row]]


def _number(value: Any) -> float | None:
    number = float(value)
    return None if number != number else round(number, 6)
