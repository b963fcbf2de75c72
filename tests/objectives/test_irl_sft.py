"""irl-sft as an objective: its links are DPO, hinge and the raw gradient of inverse RL; on-policy, the linear one is SFT."""

import itertools
import math

import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.hinge import Hinge
from finegrain.objectives.irl_sft import IRLSFT, HingeLink, LinearLink, LogisticLink
from finegrain.types import Pair, Side
from tests.objectives.worked import close, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(IRLSFT()(worked_pair()), math.log1p(math.exp(-0.15)))
    close(IRLSFT(link=LinearLink())(worked_pair()), -0.15)
    close(IRLSFT(link=HingeLink())(worked_pair()), 0.85)


def test_same_as_dpo_and_hinge() -> None:
    pair = worked_pair()
    assert torch.equal(IRLSFT(beta=0.3, link=LogisticLink())(pair), DPO(beta=0.3)(pair))
    assert torch.equal(IRLSFT(beta=0.3, link=HingeLink())(pair), Hinge(beta=0.3)(pair))


def test_policy_equals_opponent() -> None:
    """Logistic log 2, linear 0; the logistic gradient is half of the linear one."""
    slopes = {}
    for link, value in ((LogisticLink(), math.log(2)), (LinearLink(), 0.0)):
        pair = scalar_pair((0.0,), (0.0,))
        loss = IRLSFT(link=link)(pair)
        close(loss, value)
        slopes[type(link)] = torch.autograd.grad(loss.sum(), [pair.chosen.logp, pair.rejected.logp])
    for half, whole in zip(slopes[LogisticLink], slopes[LinearLink], strict=True):
        torch.testing.assert_close(half, 0.5 * whole)


def test_a_sample_equal_to_its_demonstration_teaches_nothing() -> None:
    logp = torch.tensor([[-1.0, -0.3]], dtype=torch.float64, requires_grad=True)
    side = Side(logp=logp, mask=torch.ones(1, 2, dtype=torch.bool), ref_logp=torch.tensor([[-2.0, -0.1]], dtype=torch.float64))
    for link in (LogisticLink(), LinearLink(), HingeLink()):
        (slope,) = torch.autograd.grad(IRLSFT(link=link)(Pair(sides={"chosen": side, "rejected": side})).sum(), logp)
        assert not slope.any()


def test_on_policy_the_linear_link_is_sft() -> None:
    """Its gradient, expected over demonstrations and over the policy's own samples, is -beta times that of the demonstrations' log-likelihood."""
    scores = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    data = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    log_p = scores.log_softmax(0)
    policy = log_p.detach().exp()
    demonstration, sample = (torch.tensor(places) for places in zip(*itertools.product(range(3), repeat=2), strict=True))

    def side(places: torch.Tensor) -> Side:
        return Side(logp=log_p[places][:, None], mask=torch.ones(9, 1, dtype=torch.bool), ref_logp=log_p.detach()[places][:, None])

    losses = IRLSFT(beta=0.4, link=LinearLink())(Pair(sides={"chosen": side(demonstration), "rejected": side(sample)}))
    (got,) = torch.autograd.grad((data[demonstration] * policy[sample] * losses).sum(), scores, retain_graph=True)
    (sft,) = torch.autograd.grad(-(data * log_p).sum(), scores)
    torch.testing.assert_close(got, 0.4 * sft, atol=1e-15, rtol=1e-12)


def test_demonstrations_of_the_opponent_are_a_fixed_point() -> None:
    """Where the data are the opponent's own distribution, the expected gradient of every link is zero at the opponent, and only there."""
    opponent = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64).log_softmax(0)
    demonstration, sample = (torch.tensor(places) for places in zip(*itertools.product(range(3), repeat=2), strict=True))

    def gradient(link: LogisticLink | LinearLink | HingeLink, data: torch.Tensor) -> torch.Tensor:
        scores = opponent.clone().requires_grad_()
        log_p = scores.log_softmax(0)
        mask = torch.ones(9, 1, dtype=torch.bool)
        sides = {
            role: Side(logp=log_p[places][:, None], mask=mask, ref_logp=opponent[places][:, None])
            for role, places in (("chosen", demonstration), ("rejected", sample))
        }
        losses = IRLSFT(link=link)(Pair(sides=sides))
        (found,) = torch.autograd.grad((data[demonstration] * opponent.exp()[sample] * losses).sum(), scores)
        return found

    for link in (LogisticLink(), LinearLink(), HingeLink()):
        assert gradient(link, opponent.exp()).abs().max() < 1e-16
        assert gradient(link, torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)).abs().max() > 1e-3
