"""Buffers of ragged answers for tests of the stages: holes within answers, an answer that nobody judged, groups of unequal sizes, float64."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from finegrain.online.leash import Free, Leash
from finegrain.online.rollout import Rollout
from finegrain.online.stages import Advantage, Stages, Update, compute_update
from finegrain.online.whiten import Unwhitened, Whitening

GROUP = [0, 0, 0, 0, 1, 1, 2, 2, 2]
ANSWERS, PLACES = len(GROUP), 7
LENGTHS = [7, 3, 5, 1, 4, 6, 2, 7, 5]


def make_rollout(seed: int = 0, *, dense: bool = False, unjudged: bool = True, **known: Any) -> Rollout:
    """Answer 1 is not judged, answer 2 has a hole; cut are answers 0 and 7."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = torch.arange(PLACES) < torch.tensor(LENGTHS)[:, None]
    mask[2, 2] = False
    sequence = draw(ANSWERS, 1)
    if unjudged:
        sequence[1] = torch.nan
    tokens = draw(ANSWERS, PLACES, 1) if dense else torch.zeros(ANSWERS, PLACES, 1, dtype=torch.float64)
    made = Rollout(
        group=torch.tensor(GROUP),
        mask=mask,
        ended=torch.tensor([0, 1, 1, 2, 1, 1, 2, 0, 1]),
        old_logp=-draw(ANSWERS, PLACES).abs(),
        ref_logp=-draw(ANSWERS, PLACES).abs(),
        values=draw(ANSWERS, PLACES, 1),
        entropy=draw(ANSWERS, PLACES).abs(),
        sequence=sequence,
        tokens=torch.where(mask[..., None], tokens, 0.0),
        ids=torch.randint(0, 99, (ANSWERS, PLACES), generator=generator),
    )
    return replace(made, **known)


def by_token(rollout: Rollout) -> dict[str, Tensor]:
    """The fields with a number per token."""
    found = {field.name: getattr(rollout, field.name) for field in fields(rollout)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor) and value.ndim >= 2 and name not in ("mask", "sequence")}


def taken(rollout: Rollout, order: Tensor) -> Rollout:
    """The answers in another order."""
    rows = {field.name: getattr(rollout, field.name) for field in fields(rollout)}
    return replace(rollout, **{name: value[order] for name, value in rows.items() if isinstance(value, Tensor)})


def spoiled(rollout: Rollout, junk: float) -> Rollout:
    """Junk wherever the mask is False."""
    found = {}
    for name, value in by_token(rollout).items():
        mask = rollout.mask.reshape(rollout.mask.shape + (1,) * (value.ndim - 2))
        found[name] = torch.where(mask, value, -5 if not value.is_floating_point() else junk)
    return replace(rollout, **found)


def widened(rollout: Rollout, left: int, right: int) -> Rollout:
    """More padding on either side, full of NaN."""
    found = {}
    for name, value in {**by_token(rollout), "mask": rollout.mask}.items():
        fill = torch.nan if value.is_floating_point() else 0
        block = value.new_full((len(value), left + right, *value.shape[2:]), fill)
        found[name] = torch.cat([block[:, :left], value, block[:, left:]], 1)
    return replace(rollout, **found)


def update_of(rollout: Rollout, advantage: Advantage, leash: Leash | None = None, whitening: Whitening | None = None, **known: Any) -> Update:
    """All stages with one advantage."""
    greedy = known.pop("greedy", None)
    stages = Stages(
        advantage=advantage, leash=Free() if leash is None else leash, whitening=Unwhitened() if whitening is None else whitening, **known
    )
    return compute_update(rollout, stages, stages.start(), greedy=greedy)


def scalars(rewards: list[float], lengths: list[int] | None = None) -> Rollout:
    """One group of answers with these rewards at the end."""
    sizes = torch.tensor(lengths or [1] * len(rewards))
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    return Rollout(
        group=torch.zeros(len(rewards), dtype=torch.long),
        mask=mask,
        ended=torch.ones(len(rewards), dtype=torch.long),
        old_logp=zeros,
        sequence=torch.tensor(rewards, dtype=torch.float64)[:, None],
        tokens=zeros[..., None],
    )
