"""Cross-entropy of every labelled step, read at the end of the step.

    L = - sum over counted steps of log sigma(z_k) where the step is right, of log sigma(-z_k) where it is wrong, over their number

Source: Lightman et al. 2023, https://arxiv.org/abs/2305.20050 (process supervision up to the first error); labels of all steps as in
Wang et al. 2023, https://arxiv.org/abs/2312.08935.
Deviations: the mean is over the steps of an optimiser step, not over answers [choice]; neutral steps count as wrong by default
[choice], as set where the data are read (`--gate.neutral-step`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import checked
from finegrain.ops.precision import to_widest
from finegrain.ops.sequence import to_wide
from finegrain.rewards.heads import find_segment_ends
from finegrain.rewards.step import Step
from finegrain.types import Pair, Side, Term, Terms

Labels = Float[Tensor, "B T"]
Counted = Bool[Tensor, "B T"]


@dataclass(frozen=True, kw_only=True)
class AllSteps:
    """Every labelled step counts."""

    def __call__(self, signs: Labels, ends: Counted) -> Counted:
        """Which ends count."""
        return ends & (signs != 0)


@dataclass(frozen=True, kw_only=True)
class UntilFirstError:
    """Steps after the first wrong one do not count, because they build on an error."""

    def __call__(self, signs: Labels, ends: Counted) -> Counted:
        """Which ends count, including the first wrong one."""
        wrong = (ends & (signs < 0)).long()
        return ends & (signs != 0) & (wrong.cumsum(1) - wrong == 0)


Supervision = AllSteps | UntilFirstError


@dataclass(frozen=True, kw_only=True)
@checked
class StepLabels:
    """Hyper-parameters of step supervision."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    shape: ClassVar[str] = "steps"
    head_kind: ClassVar[type] = Step
    proportion_metrics: ClassVar[frozenset[str]] = frozenset({"step_accuracy", "step_always_right", "first_error_found", "no_error_found"})
    """Measures in [0, 1]."""
    results: ClassVar[Mapping[str, bool]] = {"eval_step_accuracy": True, "eval_first_error_found": True, "eval_no_error_found": True}
    """Held-out results that show which of two models is better; True: higher is better."""

    supervision: Supervision = field(default_factory=AllSteps)
    """all-steps, or until-first-error."""

    def __call__(self, head: Step, pair: Pair) -> Terms:
        """One term, averaged over counted steps."""
        side = pair.answer
        signs, counted = self._labels(head, side)
        odds = _log_odds(head, side, counted)
        losses = torch.where(counted, -logsigmoid(torch.where(signs > 0, odds, -odds)), 0.0)
        return {"steps": Term(losses.sum(1), counted.to(losses.dtype).sum(1))}

    def _labels(self, head: Step, side: Side) -> tuple[Labels, Counted]:
        """Sign of the step that ends at each token (0: no label), and which of them count."""
        assert side.reward is not None, "labels of steps are columns made before training"
        ends = find_segment_ends(head, side)
        signs = torch.where(ends, side.reward, 0.0).sign()
        return signs, self.supervision(signs, ends)

    def measures(self, head: Step, pair: Pair) -> Mapping[str, Float[Tensor, " B"]]:
        """Per answer: accuracy over counted steps, share of right steps, whether its first error, or the absence of one, was found."""
        side = pair.answer
        signs, counted = self._labels(head, side)
        said = _log_odds(head, side, counted) > 0
        steps = to_widest(counted).sum(1)

        def share(events: Counted) -> Float[Tensor, " B"]:
            return torch.where(steps > 0, to_widest(events & counted).sum(1) / steps.clamp(min=1), torch.nan)

        wrong, called = counted & (signs < 0), counted & ~said
        exact = to_widest(_first(wrong) == _first(called))
        has_error = wrong.any(1)
        return {
            "step_accuracy": share(said == (signs > 0)),
            "step_always_right": share(signs > 0),
            "first_error_found": torch.where(has_error, exact, torch.nan),
            "no_error_found": torch.where((steps > 0) & ~has_error, exact, torch.nan),
        }


def _log_odds(head: Step, side: Side, counted: Counted) -> Labels:
    """The head's log-odds, 0 where no step counts."""
    assert side.outputs is not None
    return to_wide(head.tokens(torch.where(counted[..., None], side.outputs, 0.0)).mean)


def _first(events: Counted) -> Float[Tensor, " B"]:
    """Position of the first event of each row; the width where there is none."""
    place = torch.arange(events.shape[1], device=events.device).expand_as(events)
    return to_widest(torch.where(events, place, events.shape[1]).amin(1))
