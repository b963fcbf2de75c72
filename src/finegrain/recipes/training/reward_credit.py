"""A reward model's token scores on a run's own tokens: read by the reward model's tokenizer, brought over as character spans."""

import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain.data.gate.settings import Gate
from finegrain.data.load import load_examples
from finegrain.data.records import Example, Response, Shape
from finegrain.data.spans import spans_to_tokens, tokens_to_spans
from finegrain.data.tokenise import Tokenise
from finegrain.errors import CreditError
from finegrain.ops.readout import Last
from finegrain.recipes.session import Session
from finegrain.scoring.outputs import Asked
from finegrain.scoring.reward_model import RewardJudge, open_reward_model
from finegrain.scoring.signals import ByPlace, Head, PrefixDifference, RewardSignal
from finegrain.types import Scored

KEEP: dict[str, Any] = {name: "keep" for name, hint in typing.get_type_hints(Gate).items() if "keep" in typing.get_args(hint)}
EVERY_ROW = Gate(**KEEP)
"""What the run kept is not dropped here."""


def reward_scores(session: Session, source: str, examples: Sequence[Example], roles: Sequence[str]) -> dict[str, list[Scored]]:
    """By role, scores of every answer's tokens.

    The head's own; scores of segments or steps split evenly over theirs; prefix differences where the head reads the last token only.
    """
    longest = session.max_length
    judge = open_reward_model(replace(session.runtime, cache=None), source, longest=longest)
    signal, words = _signal(judge.asked)
    judge = RewardJudge(judge.asked, judge.tokenizer, signal)
    session.say(f"credit: scoring {len(examples)} rows with the reward model {source}, by {words}")
    read = _read(session, judge.tokenizer, examples, roles, source)
    found: dict[str, list[Scored]] = {role: [] for role in roles}
    for own, other, judged in zip(examples, read, judge(read, roles), strict=True):
        for role in roles:
            found[role].append(_moved(judged[role].tokens, other.responses[role], own.responses[role]))
    for line in judge.words():
        session.say(f"credit: {line}")
    return found


def _signal(asked: Asked) -> tuple[RewardSignal, str]:
    """What stands on the tokens, and its name for a person."""
    if asked.parts is not None:
        return (Head(), "segment or step") if asked.location is None else (Head(scale=ByPlace()), "segment, on one scale by place")
    return (PrefixDifference(), "differences along the answer") if isinstance(asked.head.readout, Last) else (Head(), "token")


def _read(session: Session, tokenizer: Any, examples: Sequence[Example], roles: Sequence[str], source: str) -> Sequence[Example]:
    """The same rows as the reward model reads them: the run's own examples where its tokenizer writes the same."""
    if _writes(tokenizer) == _writes(session.policy.tokenizer):
        return examples
    data = {"source": "", "shape": ""}  # replaced by the row as text, without a second read of the file
    settings = Tokenise(max_length=session.max_length)
    loaded = load_examples(data["source"], tokenizer, shape=Shape(data["shape"]), settings=settings, limit=None, gate=EVERY_ROW)
    places = {_key(example, roles): place for place, example in enumerate(loaded.examples)}
    wanted = [places.get(_key(example, roles)) for example in examples]
    if lost := [example.row for example, place in zip(examples, wanted, strict=True) if place is None]:
        dropped = ", ".join(f"{count} {kind}" for kind, count in loaded.report["dropped"].items())
        raise CreditError(f"{source} cannot read {len(lost)} of {len(examples)} rows, the first is row {lost[0]}; dropped were {dropped or 'none'}")
    return loaded.examples.take(np.array(wanted))


def _writes(tokenizer: Any) -> tuple[Any, ...]:
    """What decides about the tokens of a row; two tokenizers of one vocabulary may still cut a text differently."""
    return tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.bos_token_id, tokenizer.eos_token_id


def _key(example: Example, roles: Sequence[str]) -> tuple[int, int]:
    return example.row, hash(tuple(example.responses[role].text for role in roles))


def _moved(scored: Scored, response: Response, own: Response) -> Scored:
    """Scores of the reward model's tokens on the run's tokens of the same text."""
    members = None if scored.members is None else torch.stack([on_tokens(values, response, own) for values in scored.members])
    std = None if scored.std is None else on_tokens(scored.std, response, own)
    return Scored(on_tokens(scored.mean, response, own), std, members)


def on_tokens(values: Tensor, response: Response, own: Response) -> Tensor:
    """(T',) values of the tokens of one tokenizer as (T,) values of another's on the same text, 0 where the first had cut the answer.

    A token has the value of the characters it holds half of; the end token has the end token's.
    """
    if np.array_equal(response.ids, own.ids):
        return values
    spans = tokens_to_spans(np.where(response.mask, values.double().numpy(), 0.0), response.offsets)
    moved = spans_to_tokens(spans, own.offsets, outside=0.0).astype(np.float64)
    if _ends(response) and _ends(own):
        moved[-1] = float(values[-1])
    return torch.from_numpy(np.where(own.mask, moved, 0.0))


def _ends(response: Response) -> bool:
    """Whether the answer closes with a token without characters."""
    return len(response.ids) > 0 and bool(response.mask[-1]) and bool(response.offsets[-1, 0] == response.offsets[-1, 1])
