"""selm: DPO to the bit at alpha 0, a constant push on the generated answer alone, and the worked number."""

import math

import pytest
import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.selm import SELM
from finegrain.types import Pair, Side
from tests.objectives.worked import close, random_pair, scalar_side


def with_generated(pair: Pair, side: Side) -> Pair:
    return Pair(sides={**pair.sides, "generated": side}, columns=pair.columns)


def random_triple(seed: int) -> Pair:
    return with_generated(random_pair(seed), random_pair(seed + 100).chosen)


def slopes(method: SELM | DPO, pair: Pair) -> list[torch.Tensor | None]:
    return list(torch.autograd.grad(method(pair).sum(), [side.logp for side in pair.sides.values()], allow_unused=True))


def scalar_of(logp: torch.Tensor, reference: torch.Tensor) -> Side:
    """One answer of one token."""
    return Side(logp=logp.view(1, 1), ref_logp=reference.view(1, 1), mask=torch.ones(1, 1, dtype=torch.bool))


def test_worked_number() -> None:
    pair = Pair(sides={"chosen": scalar_side(1.5), "rejected": scalar_side(0.0), "generated": scalar_side(2.0)})
    close(SELM()(pair), 0.685695305)


@pytest.mark.parametrize("seed", range(3))
def test_alpha_0_is_dpo(seed: int) -> None:
    pair = random_triple(seed)
    ours, theirs = SELM(beta=0.3, alpha=0.0), DPO(beta=0.3)
    assert torch.equal(ours(pair), theirs(pair))
    for own, other in zip(slopes(ours, pair), slopes(theirs, pair), strict=True):
        assert (own is None and other is None) or (own is not None and other is not None and torch.equal(own, other))


def test_the_push_on_the_generated_answer_is_constant() -> None:
    """alpha beta per nat, whatever the pair; what the pair pushes is DPO's."""
    for seed in range(3):
        pair = random_triple(seed)
        generated = pair.sides["generated"]
        assert generated.weight is not None
        *own, push = slopes(SELM(beta=0.2, alpha=0.7), pair)
        assert push is not None
        torch.testing.assert_close(push, torch.where(generated.mask, 0.7 * 0.2 * generated.weight, 0.0))
        for one, other in zip(own, slopes(DPO(beta=0.2), pair), strict=False):
            assert torch.equal(one, other)


def test_at_the_reference() -> None:
    """log 2, and the expected push under the reference's own samples is none: only a policy that has moved, or a greedy answer, feels it."""
    at = Pair(sides={role: scalar_side(0.0, 0.0) for role in ("chosen", "rejected", "generated")})
    close(SELM(alpha=0.5)(at), math.log(2), math.log(2))
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)
    term = (logp.exp().detach() * (logp - logp.detach())).sum()
    (push,) = torch.autograd.grad(term, logits)
    torch.testing.assert_close(push, torch.zeros_like(push), rtol=0, atol=1e-12)


def test_a_generated_answer_that_is_chosen_still_rises() -> None:
    """While sigma(-beta h) is above alpha."""
    for alpha, sign in ((0.4, -1), (0.6, 1)):
        logp = torch.full((1, 1), -2.0, dtype=torch.float64, requires_grad=True)
        side = Side(logp=logp, ref_logp=logp.detach(), mask=torch.ones(1, 1, dtype=torch.bool))
        pair = Pair(sides={"chosen": side, "rejected": scalar_side(0.0), "generated": side})
        (slope,) = torch.autograd.grad(SELM(beta=0.1, alpha=alpha)(pair).sum(), logp)
        assert slope.item() * sign > 0


def test_the_optimum_moves_further_from_the_reference_with_alpha() -> None:
    """KL(reference || policy) at the optimum of three answers that are all compared, so that their log-ratios are bounded."""
    reference = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()

    def expected(logp: torch.Tensor, alpha: float) -> torch.Tensor:
        """The loss over y^g drawn from the reference; every answer wins against those behind it three times of four."""
        sides = [scalar_of(logp[place], reference[place]) for place in range(3)]
        total = logp.new_zeros(1)
        for one, two, share in ((0, 1, 0.75), (1, 0, 0.25), (0, 2, 0.75), (2, 0, 0.25), (1, 2, 0.75), (2, 1, 0.25)):
            for place, own in enumerate(sides):
                pair = Pair(sides={"chosen": sides[one], "rejected": sides[two], "generated": own})
                total = total + share * reference[place].exp() * SELM(beta=1.0, alpha=alpha)(pair)
        return total.sum()

    def kl_at_optimum(alpha: float) -> float:
        logits = reference.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([logits], max_iter=400, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimiser.zero_grad()
            loss = expected(logits.log_softmax(-1), alpha)
            loss.backward()
            return float(loss.detach())

        optimiser.step(closure)
        logp = logits.detach().log_softmax(-1)
        return float((reference.exp() * (reference - logp)).sum())

    found = [kl_at_optimum(alpha) for alpha in (0.0, 0.02, 0.05)]
    assert found[2] > found[1] > found[0]
