"""Bounds beside a reward model: `bounds.safetensors` holds them, `bounds.json` records what they were fitted on; scores then use clipped features."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from finegrain.errors import ModelError
from finegrain.models.reward_head import stock_rows
from finegrain.models.tensor_file import save_with_facts
from finegrain.ops.readout import Last
from finegrain.rewards.declarations import read_head
from finegrain.rewards.heads import Readout, RewardHead, sequence_score
from finegrain.rewards.mm_calibration import Bounds, clip_features, largest_score
from finegrain.types import Scored, Side

BOUNDS_FILE, BOUNDS_FACTS = "bounds.safetensors", "bounds.json"


class Guard(NamedTuple):
    """The bounds saved beside a checkpoint."""

    weight: Float[Tensor, " H"]
    """The weight of the score, float64: bounds are invalid for other weights."""
    bounds: Bounds
    threshold: float
    """Answers whose score falls by more than this through clipping are flagged, in units of the score."""

    @property
    def ceiling(self) -> float:
        """The largest possible score of an answer."""
        return float(largest_score(self.weight, self.bounds))


def score_row(head: Any, module: nn.Module) -> Float[Tensor, " H"]:
    """The weight of the score, for a head whose score is linear in the features of the answer's last token; an error for other heads."""
    name = type(head).__name__
    if not isinstance(module, nn.Linear):
        raise ModelError(f"bounds require a linear score; this {name} has a {type(module).__name__}, which is not linear")
    declared = read_head(head)
    if declared.read_positions is not None:
        raise ModelError(f"bounds require a score read at the answer's last token; this {name} reads ends of segments or steps")
    if declared.reads_whole_answer:
        raise ModelError(f"bounds require a score read at the answer's last token; this {name} weighs its tokens over the whole answer")
    if not isinstance(declared.readout, Last):
        how = type(declared.readout).__name__.lower()
        raise ModelError(f"bounds require a score read at the answer's last token; this model's score is the {how} of its tokens")
    rows = declared.stock(stock_rows(module))
    if len(rows) != 1:
        raise ModelError(f"bounds require a single score; this {name} has {len(rows)} logits per answer, whose score cannot leave the scale")
    return rows[0]


def save_guard(guard: Guard, facts: Mapping[str, Any], folder: Path) -> None:
    """Writes both files, complete or not at all."""
    tensors = {"weight": guard.weight, "low": guard.bounds.low, "high": guard.bounds.high}
    tensors["threshold"] = torch.tensor([guard.threshold], dtype=torch.float64)
    whole = {name: tensor.cpu().double().contiguous() for name, tensor in tensors.items()}
    save_with_facts(whole, folder / BOUNDS_FILE, facts, folder / BOUNDS_FACTS)


def load_guard(folder: Path) -> Guard | None:
    """Reads what `save_guard` wrote; None where no bounds were fitted."""
    file = folder / BOUNDS_FILE
    if not file.exists():
        return None
    try:
        found = load_file(file)
        guard = Guard(found["weight"], Bounds(found["low"], found["high"]), float(found["threshold"]))
        if not guard.weight.shape == guard.bounds.low.shape == guard.bounds.high.shape:
            raise ValueError("weight, low and high differ in size")
        if bool((guard.bounds.low > guard.bounds.high).any()) or any(bool(values.isnan().any()) for values in (guard.weight, *guard.bounds)):
            raise ValueError("low exceeds high, or a number is NaN")
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot read the bounds {file}: {error}; delete it, or fit it again") from error
    return guard


class ClippedStates(nn.Module):
    """A head's outputs for clipped hidden states, followed by the reduction of the score through clipping: exactly 0 inside the bounds."""

    def __init__(self, head: nn.Module, weight: Float[Tensor, " H"], bounds: Bounds) -> None:
        super().__init__()
        self.head = head
        like = next(head.parameters())
        for name, values in {"weight": weight, "low": bounds.low, "high": bounds.high}.items():
            self.register_buffer(name, values.detach().to(like).clone())

    weight: Tensor
    low: Tensor
    high: Tensor

    def forward(self, states: Float[Tensor, "... H"]) -> Float[Tensor, "... K1"]:
        """(K + 1) numbers per state."""
        clipped = clip_features(states, Bounds(self.low, self.high))
        gap = (states - clipped) @ self.weight
        outputs: Tensor = self.head(clipped)
        return torch.cat([outputs, gap[..., None]], -1)


@dataclass(frozen=True)
class WithBounds:
    """A head that reads clipped features, including std and members, and reports the reduction of the score."""

    head: Any
    guard: Guard

    @property
    def outputs(self) -> int:
        """The head's outputs, and the gap."""
        return int(self.head.outputs) + 1

    @property
    def readout(self) -> Readout:
        """The head's."""
        readout: Readout = self.head.readout
        return readout

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The head's stock weight: the stock class has no bounds."""
        rows: Tensor = self.head.stock(weight[: self.head.outputs])
        return rows

    def tokens(self, outputs: Float[Tensor, "B T K"]) -> Scored:
        """The head's scores of clipped features."""
        scored: Scored = self.head.tokens(outputs[..., :-1])
        return scored

    def answer(self, outputs: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"]) -> Scored:
        """The head's scores of clipped features."""
        return sequence_score(self.head, Side(logp=torch.zeros_like(outputs[..., 0]), mask=mask, outputs=outputs[..., :-1]))


def score_gap(outputs: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """The reduction of the scores through bounds, from the outputs of a `WithBounds`: the score without bounds minus the score with them."""
    return Last()(outputs[..., -1], mask)


def attach_bounds(head: RewardHead, module: nn.Module, folder: Path) -> tuple[WithBounds | None, nn.Module]:
    """Head and module of a checkpoint with its bounds; None and the unchanged module for a checkpoint without bounds.

    Raises ModelError where they are of other weights.
    """
    guard = load_guard(folder)
    if guard is None:
        return None, module
    weight = score_row(head, module)
    own = weight.cpu().double()
    if own.shape != guard.weight.shape or not torch.allclose(own, guard.weight, rtol=1e-4, atol=1e-8):
        raise ModelError(f"{BOUNDS_FILE} was fitted to weights other than this head's; delete it, or fit it again: `finegrain reward bound`")
    return WithBounds(head, guard), ClippedStates(module, weight, guard.bounds)
