"""Opens the sampler of a model: the engine where it gives the model's own log-probabilities, Hugging Face's generation elsewhere."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain.generate.engine import MEMORY, EngineSampler
from finegrain.generate.growing import find_context
from finegrain.generate.lanes import Lanes, on_lanes
from finegrain.generate.sampling import Sampling
from finegrain.generate.stock import StockSampler
from finegrain.models.packing import Group
from finegrain.models.probe import ROUGH, draw_groups
from finegrain.models.scorer import Request, causal_lm, output_head, plain
from finegrain.ops.logprobs import compute_logits

TOLERANCE = 1e-4
LONGEST = 2048
"""Tokens up to which windows are checked."""


def open_sampler(
    model: Any,
    tokenizer: Any,
    sampling: Sampling,
    *,
    seed: int,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    memory: int = MEMORY,
) -> EngineSampler | StockSampler:
    """The sampler of a policy, whose weights may change between its calls; `describe()` says which engine it is, and why."""
    with torch.no_grad(), autocast():
        reason = probe_lanes(model, longest=min(LONGEST, find_context(model)))
    if reason is None:
        return EngineSampler(model, tokenizer, sampling, seed=seed, autocast=autocast, memory=memory)
    return StockSampler(model, tokenizer, sampling, seed=seed, reason=reason, autocast=autocast)


def probe_lanes(model: Any, *, longest: int, tolerance: float | None = None) -> str | None:
    """Why the engine cannot be used for this model, a clause; None where its log-probabilities are those of the model's own attention.

    `longest`: windows beyond so many tokens are not checked.
    """
    groups = draw_groups(causal_lm(model).config.get_text_config(), longest)
    was_training = model.training
    model.eval()
    try:
        with on_lanes(model):
            found = score_on_lanes(model, groups)
        wanted = plain(model, groups, Request()).logp
    except Exception as error:  # an architecture may fail in any way; generation then samples instead
        return f"the engine does not run on {type(causal_lm(model)).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        model.train(was_training)
    if tolerance is None:
        half = next(model.parameters()).dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(wanted.device.type)
        tolerance = ROUGH if half else TOLERANCE
    difference = float((found - wanted).abs().max())
    if difference <= tolerance * max(1.0, float(wanted.abs().max())):
        return None
    return f"the engine's log-probabilities differ from the model's by {difference:.2g}"


def score_on_lanes(model: Any, groups: Sequence[Group], sizes: Sequence[int] = (1, 3, 2)) -> Tensor:
    """log-probabilities, nats, of all answer tokens, fed a few at a time among wrong tokens that are cut again; answers leave one by one.

    `sizes`: how many tokens an answer gets in a pass, in turn.
    """
    lanes, head = Lanes(model), output_head(model)
    stems = lanes.open([group.prompt for group in groups])
    ids = [branch.ids for group in groups for branch in group.branches]
    states: list[list[Tensor]] = [[stem.state] for stem, group in zip(stems, groups, strict=True) for _ in group.branches]
    grown = [lane for stem, group in zip(stems, groups, strict=True) for lane in lanes.fork(stem, len(group.branches))]
    turn = 0
    while live := [place for place, lane in enumerate(grown) if lane.slot >= 0]:
        counts = [min(sizes[(turn + place) % len(sizes)], len(ids[place]) - grown[place].length) for place in live]
        tokens = [np.append(ids[place][grown[place].length :][:count], ids[place][0]) for place, count in zip(live, counts, strict=True)]
        fed = lanes.feed([grown[place] for place in live], np.concatenate(tokens), np.array(counts) + 1)
        for place, count, own in zip(live, counts, fed.split([count + 1 for count in counts]), strict=True):  # type: ignore[no-untyped-call]
            states[place].extend(own[:count])
            lanes.cut(grown[place], grown[place].length - 1)
        lanes.drop([grown[place] for place in live if grown[place].length == len(ids[place])])
        turn += 1
    logits = compute_logits(torch.stack([state for own in states for state in own[:-1]]), head)
    targets = torch.from_numpy(np.concatenate(ids).astype(np.int64)).to(logits.device)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.log_softmax(logits.to(wide), -1).gather(1, targets[:, None])[:, 0]
