"""AVA-p: identities, switches, and what the bound does."""

import math

import pytest
import torch

from finegrain.objectives.ava_p import AvaP
from finegrain.ops.bayesian_irl import Followed, Inference
from finegrain.ops.contrast import Literal, LogSigmoid, Sigmoid, Unlikelihood, WithoutNegative
from finegrain.types import Pair, Side
from tests.objectives.test_ava_d import answer, sums

CHOSEN = answer([[0.5, 0.25, 0.8]], [[0.3, -0.2, 0.4]], [[1.0, 0.5, 1.0]]).answer
REJECTED = answer([[0.1, 0.9]], [[1.0, -0.5]], [[1.0, 2.0]]).answer
PAIR = Pair(sides={"chosen": CHOSEN, "rejected": REJECTED})


def test_identical_answers_cancel_in_the_printed_form() -> None:
    same = Pair(sides={"chosen": CHOSEN, "rejected": CHOSEN})
    found = sums(AvaP(negative=Literal())(same))
    assert found["likelihood"] + found["negative"] == pytest.approx(0)
    assert found["cer"] == pytest.approx(-0.5)


def test_gradient_of_cer_at_a_tie_is_a_quarter() -> None:
    side = CHOSEN
    assert side.outputs is not None
    live = side.outputs.clone().requires_grad_()
    chosen = Side(logp=side.logp, mask=side.mask, outputs=live)
    terms = AvaP()(Pair(sides={"chosen": chosen, "rejected": side}))
    (gradient,) = torch.autograd.grad(-terms["cer"].value.sum(), live)
    assert gradient[0, 2, 0].item() == pytest.approx(0.25)
    assert not gradient[0, :2].any()


def test_terms_by_hand() -> None:
    found = sums(AvaP(inference=Inference(kl=0.0, td=0.0))(PAIR))
    assert found["likelihood"] == pytest.approx(-math.log(0.5 * 0.25 * 0.8))
    assert found["negative"] == pytest.approx(-math.log(0.9 * 0.1)), "-log(1 - p) of both tokens"
    assert found["cer"] == pytest.approx(-1 / (1 + math.exp(-(0.4 + 0.5))))
    assert sums(AvaP(negative=Literal())(PAIR))["negative"] == pytest.approx(math.log(0.1 * 0.9))
    assert sums(AvaP(negative=WithoutNegative())(PAIR))["negative"] == 0
    assert sums(AvaP(ranking=LogSigmoid())(PAIR))["cer"] == pytest.approx(math.log1p(math.exp(-0.9)))
    assert sums(AvaP(cer=0.0)(PAIR))["cer"] == 0


def test_both_answers_have_rewards() -> None:
    """KL and temporal differences are those of the single answers together."""
    from finegrain.objectives.ava_d import AvaD

    both = AvaP()(PAIR)
    alone = [AvaD()(Pair(sides={"answer": side})) for side in (CHOSEN, REJECTED)]
    for name in ("kl", "td"):
        assert both[name].value.item() == pytest.approx(sum(terms[name].value.item() for terms in alone))
        assert both[name].count.item() == 3


def test_literal_range() -> None:
    found = AvaP(inference=Inference(likelihood=Followed()))(PAIR)
    assert found["likelihood"].count.item() == 2
    assert found["negative"].count.item() == 1
    assert sums(found)["negative"] == pytest.approx(-math.log(0.9))


@pytest.mark.parametrize(("negative", "bounded"), [(Unlikelihood(), True), (Literal(), False)])
def test_the_printed_negative_term_diverges(negative: Unlikelihood | Literal, bounded: bool) -> None:
    logp = torch.tensor([[-500.0]], dtype=torch.float64)
    value = negative(logp, torch.ones(1, 1, dtype=torch.bool)).sum().item()
    assert (value >= 0) == bounded
    sure = negative(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool))
    assert bool(sure.isfinite().all()), "a certain token has a large, finite cost"


def test_the_printed_ranking_fades() -> None:
    """sigma's gradient at a badly mis-ordered pair vanishes, log sigma's does not."""
    d = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(ranking(d).sum(), d)[0].item() for ranking in (Sigmoid(), LogSigmoid())]
    assert abs(slopes[0]) < 1e-8
    assert slopes[1] == pytest.approx(-1)
