"""Where a step on single pairs would move both log-probabilities, measured by the gradients of a model, and where a step did move them.

Costs per pair one forward pass and two backward passes; one more backward pass for an objective that pulls the tokens of an answer unevenly or
makes its own gradient. Memory: three gradients of the trained parameters. Nothing of the training changes: no `.grad`, no random number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.data.records import Example, Response
from finegrain.diagnose.entanglement import Drift, predict_drift
from finegrain.errors import UsageError
from finegrain.ops.gradients import Gradient, GradientPair, compare_gradients, dot, gradient_of, score_slope, token_cosines, token_gram
from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import to_wide
from finegrain.train.contract import Contract
from finegrain.types import Json, Pair, RowLoss, Side, row_losses

ROLES = ("chosen", "rejected")
PLAIN = frozenset({"logp", "reference", "reward", "label"})
"""Needs through which the loss depends on the parameters by the answers' log-probabilities alone."""
MOVED = 0.01
"""Nats by which the answer that moves more is meant to move in a trial step."""
MOST_TOKENS = 24
"""Of either answer, in the matrix of tokens: it takes a backward pass for each."""


@dataclass(frozen=True)
class MeasuredPair:
    """One pair."""

    row: int
    """Of the data."""
    gradients: GradientPair
    """Of log pi(y|x), the sum over all tokens that train, whatever a credit keeps."""
    chosen_slope: float
    """d_w, minus the derivative of the pair's loss by the chosen answer's score; the loss as if the pair were a step of its own."""
    rejected_slope: float
    """d_l, the derivative by the rejected answer's score."""
    predicted: Drift
    """Change of both log-probabilities by a small step of plain gradient descent on this pair alone, per unit of the step size."""
    observed: Drift | None = None
    """Change by a step that was taken, nats."""

    def as_json(self) -> Json:
        """A line of gradients.jsonl, but for the step and the objective."""
        drifts = {"predicted": list(self.predicted)} | ({} if self.observed is None else {"observed": list(self.observed)})
        return {"row": self.row, "gradients": list(self.gradients), "slopes": [self.chosen_slope, self.rejected_slope], **drifts}


@dataclass(frozen=True)
class TokenMap:
    """The first tokens that train of both answers of a pair against one another."""

    row: int
    """Of the data."""
    chosen: tuple[str, ...]
    """Text of the W tokens."""
    rejected: tuple[str, ...]
    """Text of the L tokens."""
    gram: Float[np.ndarray, "W L"]
    """<grad log pi(y^w_i), grad log pi(y^l_j)>; uncut, it sums to the pair's inner product."""
    cosines: Float[np.ndarray, "W L"]
    cut: bool
    """Whether an answer has more tokens."""

    def as_json(self) -> Json:
        """A line of gradients.jsonl, but for the step and the objective."""
        numbers = {name: [[float(f"{value:.5g}") for value in line] for line in getattr(self, name).tolist()] for name in ("gram", "cosines")}
        return {"row": self.row, "chosen": list(self.chosen), "rejected": list(self.rejected), **numbers, "cut": self.cut}


def check_pairwise(contract: Contract) -> None:
    """Stop for an objective whose pull on two answers cannot be measured pair by pair."""
    if not set(ROLES) <= set(contract.roles) or "logp" not in contract.needs:
        raise UsageError(
            f"gradient entanglement is measured on the log-probabilities of chosen and rejected answers, which {contract.name} does not train"
        )
    if contract.balanced is not None:
        raise UsageError(f"{contract.name} weighs its terms over the whole step, so the gradient of one pair alone is not known")


def measure_pair(contract: Contract, pair: Pair, parameters: list[nn.Parameter], row: int) -> tuple[MeasuredPair, list[Tensor]]:
    """A pair (B = 1, with its graph), and the direction of its step: minus the gradient of its loss, or what its gradient rule makes of it."""
    losses = row_losses(contract.objective(pair))
    chosen, rejected = (gradient_of(score[0], parameters) for score in sequence_logps(pair))
    gradients = compare_gradients(chosen, rejected)
    sides = pair.chosen, pair.rejected
    found = torch.autograd.grad(losses.sum(), [side.logp for side in sides], retain_graph=True, allow_unused=True)
    slopes = [torch.zeros_like(side.logp) if slope is None else slope for side, slope in zip(sides, found, strict=True)]
    up, down = -float(score_slope(slopes[0], pair.chosen)), float(score_slope(slopes[1], pair.rejected))
    if contract.gradient is not None:
        by_rule = contract.gradient(pair, {"loss": RowLoss(losses, torch.ones_like(losses))}, parameters)
        step = [-part for part in by_rule]
    elif (
        contract.needs - PLAIN
        or contract.outputs
        or contract.modules
        or any(side.weight is not None for side in sides)
        or not all(map(_is_even, slopes, sides))
    ):
        step = [-part for part in gradient_of(losses.sum(), parameters)]
    else:
        step = [up * good - down * bad for good, bad in zip(chosen, rejected, strict=True)]
        return MeasuredPair(row, gradients, up, down, predict_drift(gradients, up, down)), step
    return MeasuredPair(row, gradients, up, down, Drift(dot(chosen, step), dot(rejected, step))), step


def try_step(measured: MeasuredPair, step: Gradient, parameters: list[nn.Parameter], score: Callable[[], Pair]) -> MeasuredPair:
    """The pair with what a real step of `MOVED` nats on it alone changes; the parameters are as before afterwards. `score`: the pair anew."""
    size = max(abs(change) for change in measured.predicted)
    if size == 0:
        return measured
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        before = sequence_logps(score())
        for parameter, part in zip(parameters, step, strict=True):
            parameter.add_(part, alpha=MOVED / size)
        try:
            after = sequence_logps(score())
        finally:
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
    return replace(measured, observed=Drift(*(float(now - then) for now, then in zip(after, before, strict=True))))


def measure_tokens(example: Example, pair: Pair, parameters: list[nn.Parameter]) -> TokenMap:
    """The matrix of the first `MOST_TOKENS` tokens that train of either answer of a pair (B = 1)."""
    chosen, rejected = (np.flatnonzero(example.responses[role].mask)[:MOST_TOKENS].tolist() for role in ROLES)
    scores = pair.chosen.logp[0, chosen], pair.rejected.logp[0, rejected]
    gram, norms, other_norms = token_gram(scores[0], scores[1], parameters)
    return TokenMap(
        row=example.row,
        chosen=tuple(_text(example.responses["chosen"], place) for place in chosen),
        rejected=tuple(_text(example.responses["rejected"], place) for place in rejected),
        gram=gram.numpy(),
        cosines=token_cosines(gram, norms, other_norms).numpy(),
        cut=any(example.responses[role].mask.sum() > MOST_TOKENS for role in ROLES),
    )


def _text(response: Response, place: int) -> str:
    start, end = response.offsets[place].tolist()
    return response.text[start:end]


def most_entangled(pairs: Sequence[MeasuredPair]) -> int:
    """Place of the pair with the largest condition ratio: the one to look at token by token."""
    return max(range(len(pairs)), key=lambda place: pairs[place].gradients.condition_ratio)


def sequence_logps(pair: Pair) -> list[Float[Tensor, " B"]]:
    """log pi(y|x) of the chosen and the rejected answer, nats, without token weights."""
    return [masked_sum(to_wide(pair.sides[role].logp), pair.sides[role].mask) for role in ROLES]


def _is_even(slope: Float[Tensor, "B T"], side: Side) -> bool:
    """Whether all tokens that train have one slope, up to round-off."""
    on = slope[side.mask]
    return not len(on) or bool((on - on[0]).abs().max() <= 1e-5 * on.abs().max())
