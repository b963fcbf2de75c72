"""irl-sft, what must hold: a policy that already writes like the data stays where it is. Test of rewards/irl_sft.py."""

import itertools

import pytest
import torch

from finegrain.objectives.irl_sft import IRLSFT, HingeLink, LinearLink, LogisticLink
from finegrain.types import Pair, Side


@pytest.mark.parametrize("link", [LogisticLink(), LinearLink(), HingeLink()], ids=lambda link: type(link).__name__)
def test_data_from_the_model_are_a_fixed_point(link: LogisticLink | LinearLink | HingeLink) -> None:
    """Demonstrations and samples of one distribution, the policy being it and its own opponent: the expected gradient is 0."""
    scores = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    log_p = scores.log_softmax(0)
    policy = log_p.detach().exp()
    demonstration, sample = (torch.tensor(places) for places in zip(*itertools.product(range(4), repeat=2), strict=True))

    def side(places: torch.Tensor) -> Side:
        return Side(logp=log_p[places][:, None], mask=torch.ones(16, 1, dtype=torch.bool), ref_logp=log_p.detach()[places][:, None])

    losses = IRLSFT(beta=0.4, link=link)(Pair(sides={"chosen": side(demonstration), "rejected": side(sample)}))
    (expected,) = torch.autograd.grad((policy[demonstration] * policy[sample] * losses).sum(), scores, retain_graph=True)
    assert expected.abs().max() < 1e-15
    (one_sided,) = torch.autograd.grad((policy.flip(0)[demonstration] * policy[sample] * losses).sum(), scores)
    assert one_sided.abs().max() > 1e-2, "other data do move it"
