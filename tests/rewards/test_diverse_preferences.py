"""Codes held near a prior: worked KL, weights, limits in phi, what contradicting labels do, and the linear proxy."""

import math

import pytest
import torch
from torch import Tensor

from finegrain.errors import ModelError, UsageError
from finegrain.ops.variational import gaussian_kl
from finegrain.rewards.bottleneck import ACTIVE, LARGEST_MEAN, Bottleneck, combine_weighted, confidence_weights
from finegrain.rewards.bradley_terry import BradleyTerry, bootstrap_weights, bradley_terry_loss
from finegrain.rewards.diverse_preferences import DiversePreferences, Latent, Softmax, member_parts
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.token import Token
from finegrain.types import Pair, Side
from tests.rewards.sides import pair, side

HIDDEN = 6


def module(head: Latent, seed: int = 0) -> Bottleneck:
    made = head.module(HIDDEN, torch.Generator().manual_seed(seed)).double()
    assert isinstance(made, Bottleneck)
    return made


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(head: Latent, net: Bottleneck, chosen: Tensor, rejected: Tensor, **columns: Tensor) -> Pair:
    """Pairs of one-token answers with these hidden states."""
    mask = torch.ones(len(chosen), 1, dtype=torch.bool)
    both = {"chosen": chosen, "rejected": rejected}
    sides = {name: Side(logp=torch.zeros(len(chosen), 1), mask=mask, outputs=net(states)[:, None]) for name, states in both.items()}
    return Pair(sides=sides, columns={"row": torch.arange(len(chosen)).double(), **columns})


def test_kl_is_worked_and_adds_up() -> None:
    assert gaussian_kl(torch.tensor(1.0), torch.tensor(0.0)).item() == 0.5
    assert gaussian_kl(torch.tensor(0.0), torch.tensor(0.5).log()).item() == pytest.approx(0.3181, abs=5e-5)
    net = module(Latent(members=2, latent=3))
    mean, log_std = net.codes(drawn(4, HIDDEN))
    outputs = net.eval()(drawn(4, HIDDEN))
    torch.testing.assert_close(outputs[:, 4:6].T, gaussian_kl(mean, log_std).sum(-1))
    assert (outputs[:, 4:6] > 0).all()


def test_collapsed_codes_are_refused_at_less_than_the_bound() -> None:
    head = Latent(latent=4)
    head.check({"confidence": 4 * ACTIVE})
    with pytest.raises(ModelError, match=r"collapsed onto the prior \(0.005 nats per dimension on held-out answers, below 0.01\)"):
        head.check({"confidence": 4 * 0.005})
    assert (ACTIVE, LARGEST_MEAN) == (0.01, 5.0)


def test_the_module_by_hand() -> None:
    """One member, one dimension, one unit: the hidden state (3, 1) is normalised to (1, -1), so the code's mean is 2 and its log sd -1.

    The reward is 3 (tanh(2 / 2 + 1/4) - tanh(1/4)), and the linear proxy's error is its own score less that.
    """
    net = Bottleneck(2, 1, 1, 1, torch.Generator().manual_seed(0), confidence_weights).double().eval()
    with torch.no_grad():
        net.encoder.copy_(torch.tensor([[[1.5, 0.0], [-0.5, 1.0]]]))
        net.decoder_in.fill_(0.5)
        net.decoder_bias.fill_(0.25)
        net.decoder_out.fill_(3.0)
        net.linear_proxy.weight.copy_(torch.tensor([[0.5, 1.0]]))
    hidden = torch.tensor([[3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    reward = 3 * (math.tanh(1.25) - math.tanh(0.25))
    kl = 0.5 * (4 + math.exp(-2) - 1) + 1
    found = net(hidden)
    assert found.shape == (1, 5)
    assert found[0].tolist() == pytest.approx([reward, reward, kl, 1.0, 2.5 - reward], rel=1e-4)  # the normalisation has an epsilon
    assert not torch.autograd.grad(found[0, 4], hidden)[0].any(), "the linear proxy touches no backbone"
    net.train()
    torch.manual_seed(0)
    sampled = net(hidden)[0]
    torch.manual_seed(0)
    code = 2 + math.exp(-1) * float(torch.randn(1, 1, 1, dtype=torch.float64))
    assert sampled[0].item() == pytest.approx(reward, rel=1e-4)
    assert sampled[1].item() == pytest.approx(3 * (math.tanh(0.5 * code + 0.25) - math.tanh(0.25)), rel=1e-4)


def test_what_a_module_starts_from() -> None:
    """Every matrix is drawn at the root of its inputs, and the linear proxy starts at 0."""
    net = Bottleneck(400, 2, 25, 100, torch.Generator().manual_seed(0), confidence_weights)
    assert (net.encoder.shape, net.decoder_in.shape) == ((2, 400, 50), (2, 25, 100))
    assert (net.decoder_bias.shape, net.decoder_out.shape) == ((2, 100), (2, 100))
    spreads = [part.detach().std().item() for part in (net.encoder, net.decoder_in, net.decoder_bias, net.decoder_out)]
    assert spreads == pytest.approx([1 / 20, 1 / 5, 1 / 5, 1 / 10], rel=0.2)
    assert not net.linear_proxy.weight.any()
    assert (net.linear_proxy.weight.shape, net.linear_proxy.bias) == ((1, 400), None)


def test_a_module_is_drawn_from_its_generator_alone() -> None:
    one, same, other = (module(Latent(), seed).state_dict() for seed in (0, 0, 1))
    assert [name for name in one if not torch.equal(one[name], same[name])] == []
    assert [name for name in one if torch.equal(one[name], other[name])] == ["linear_proxy.weight"]


def test_shares_of_active_dimensions_are_of_the_answer_s_own() -> None:
    """Two dimensions, of which one has left the prior, for the first answer alone."""
    net = Bottleneck(2, 1, 2, 1, torch.Generator().manual_seed(0), confidence_weights).double().eval()
    with torch.no_grad():
        net.encoder.zero_()
        net.encoder[0, 0, 0] = 0.1
    active = net(torch.tensor([[3.0, 1.0], [1.0, 1.0]], dtype=torch.float64))[:, -2]
    assert active.tolist() == [0.0, 0.0], "a mean of 0.1 is 0.005 nats"
    with torch.no_grad():
        net.encoder[0, 0, 0] = 0.2
    assert net(torch.tensor([[3.0, 1.0], [1.0, 1.0]], dtype=torch.float64))[:, -2].tolist() == [0.5, 0.0]


def test_a_dimension_exactly_at_the_bound_is_not_active(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean of 1 at the prior's spread is half a nat."""
    net = module(Latent(members=1, latent=1)).eval()
    ones = torch.ones(1, 1, 1, dtype=torch.float64)
    monkeypatch.setattr(net, "codes", lambda hidden: (ones, 0 * ones))
    for bound, active in ((0.5, 0.0), (0.49, 1.0)):
        monkeypatch.setattr("finegrain.rewards.bottleneck.ACTIVE", bound)
        assert net(drawn(1, HIDDEN))[0, -2].item() == active


def test_weights_by_hand() -> None:
    assert confidence_weights(torch.tensor([[3.0, 0.0, -1.0], [1.0, 0.0, 2.0]])).tolist() == [[0.75, 0.5, 0.0], [0.25, 0.5, 1.0]]
    assert combine_weighted(torch.tensor([[4.0], [8.0]]), torch.tensor([[0.75], [0.25]])).tolist() == [5.0]


def test_codes_are_bounded() -> None:
    """A hidden state far from the data, or a grown encoder, makes no member infinitely confident: |mean| <= 5, log sd in [-5, 2]."""
    net = module(Latent(members=2, latent=3))
    with torch.no_grad():
        net.encoder *= 1e3
    mean, log_std = net.codes(drawn(50, HIDDEN))
    assert (mean.min().item(), mean.max().item()) == (-5.0, 5.0)
    assert (log_std.min().item(), log_std.max().item()) == (-5.0, 2.0)


def test_weights() -> None:
    kl = torch.tensor([[1.0, 0.0, 2.0, 0.0], [3.0, 0.5, 2.0, 0.0]])
    assert confidence_weights(kl).tolist() == [[0.25, 0.0, 0.5, 0.5], [0.75, 1.0, 0.5, 0.5]]


def test_score_weighs_members_by_confidence() -> None:
    """Rewards 2 and -2, KL 1 and 3: -1, between the two, with the weighted deviation sqrt(3); the last token decides."""
    head = Latent(members=2)
    row = side([[[9.0] * 8, [2.0, -2.0, 7.0, 7.0, 1.0, 3.0, 0.5, 0.0]], [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    score = sequence_score(head, row)
    assert score.std is not None
    assert score.mean.tolist() == pytest.approx([-1.0, 1.0])
    assert score.std[0].item() == pytest.approx(3**0.5)
    assert row.outputs is not None
    facts = head.facts(torch.where(row.mask[..., None], row.outputs, 0.0), row.mask)
    assert facts["confidence"].tolist() == [2.0, 0.0]
    assert facts["active"].tolist() == [0.5, 0.0]


def test_the_spread_of_members_that_nearly_agree() -> None:
    """Rewards 1/2 and -1/2 at equal KL: 1/2; where they agree, the square root of the least variance; one member has none."""
    two = Latent(members=2).tokens(torch.tensor([[[0.5, -0.5, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]]])).std
    assert two is not None
    assert two.tolist() == [pytest.approx([0.5, 1e-6])]
    one = sequence_score(Latent(members=1), side([[[2.0, 0.0, 1.0, 0.0, 0.0]]]))
    assert (one.mean.tolist(), one.std) == ([2.0], None)


def test_parts_of_four_members() -> None:
    parts = member_parts(torch.arange(14.0)[None, None], 4)
    assert [part[:, 0, 0].tolist() for part in parts] == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]


def test_softmax_weights() -> None:
    """Weights 1/4 and 3/4 at a difference of log 3; equal ones at equal KL and, nearly, at a large tau; the linear proxy follows the same score."""
    row = torch.tensor([[[2.0, -2.0, 0.0, 0.0, 0.0, 2 * math.log(3), 0.5, 0.0]]])
    assert Softmax()(torch.tensor([0.7, 0.7])).tolist() == [0.5, 0.5]
    soft = Latent(members=2, weighting=Softmax(tau=2.0)).tokens(row)
    assert soft.mean.item() == pytest.approx(-1.0)
    assert soft.std is not None
    assert soft.std.item() == pytest.approx(3**0.5)
    assert Latent(members=2, weighting=Softmax(tau=1e6)).tokens(row).mean.item() == pytest.approx(0.0, abs=1e-5)
    head = Latent(members=3, weighting=Softmax(tau=0.3))
    net, states = module(head).eval(), drawn(4, HIDDEN)
    outputs = net(states)
    torch.testing.assert_close(net.linear_proxy(states)[:, 0] - outputs[:, -1], head.tokens(outputs[:, None]).mean[:, 0])
    with pytest.raises(UsageError, match="tau"):
        Softmax(tau=0.0)


def test_loss_worked() -> None:
    """One member: -log sigma of the sampled difference 1, KL (2 + 4) / 2, linear proxy error (0.5 - 0.2)^2."""
    terms = DiversePreferences(phi=7.0)(Latent(members=1), pair([[[9.0, 1.5, 2.0, 1.0, 0.5]]], [[[9.0, 0.5, 4.0, 1.0, 0.2]]]))
    assert terms["preference"].value.item() == pytest.approx(0.3132617)
    assert (terms["kl"].value.item(), terms["kl"].coefficient) == (3.0, 7.0)
    assert terms["linear_proxy"].value.item() == pytest.approx(0.09)


@pytest.mark.parametrize("members", [2, 3])
def test_without_price_and_without_noise_it_is_a_pair_loss_ensemble(members: int) -> None:
    head = Latent(members=members)
    net = module(head).eval()
    row = of(head, net, drawn(5, HIDDEN), drawn(5, HIDDEN, seed=1), label_prob=torch.full((5,), 0.8, dtype=torch.float64))
    good, bad = (sequence_score(head, row.sides[name]).members for name in ("chosen", "rejected"))
    assert good is not None
    assert bad is not None
    want = (bradley_terry_loss(good - bad, label_smoothing=torch.full((5,), 0.2)) * bootstrap_weights(torch.arange(5.0), members)).mean(0)
    torch.testing.assert_close(DiversePreferences(phi=0.0)(head, row)["preference"].value, want)


def test_swapping_pair_and_label_changes_nothing() -> None:
    head = Latent()
    net = module(head).eval()
    row = of(head, net, drawn(5, HIDDEN), drawn(5, HIDDEN, seed=1))
    swapped = Pair(sides=row.swapped().sides, columns={**row.columns, "flip": torch.ones(5, dtype=torch.float64)})
    one, two = (DiversePreferences()(head, each) for each in (row, swapped))
    for name in one:
        torch.testing.assert_close(one[name].value, two[name].value)


def trained(phi: float, chosen: Tensor, rejected: Tensor, steps: int = 400) -> tuple[Latent, Bottleneck, dict[str, float]]:
    head = Latent(members=1, latent=2, width=4)
    torch.manual_seed(0)
    net = module(head).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        terms = DiversePreferences(phi=phi)(head, of(head, net, chosen, rejected))
        torch.stack([term.coefficient * term.value.mean() for term in terms.values()]).sum().backward()
        optimiser.step()
    return head, net.eval(), {name: float(term.value.detach().mean()) for name, term in terms.items()}


@pytest.mark.slow
def test_a_high_price_leaves_nothing_and_a_low_one_learns() -> None:
    chosen, rejected = drawn(40, HIDDEN) + 1.0 * torch.eye(HIDDEN, dtype=torch.float64)[0], drawn(40, HIDDEN, seed=1)
    _, net, terms = trained(0.0, chosen, rejected)
    assert terms["preference"] < 0.4
    head, net, terms = trained(300.0, chosen, rejected)
    assert terms["preference"] == pytest.approx(0.6931, abs=2e-3), "log 2"
    assert terms["kl"] < 1e-3
    with torch.no_grad():
        assert net(chosen)[:, 0].abs().max() < 0.05, "every answer scores 0"
    facts = {name: float(values.mean()) for name, values in head.facts(net(chosen)[:, None].detach(), torch.ones(40, 1, dtype=torch.bool)).items()}
    with pytest.raises(ModelError, match=r"lower --loss\.phi"):
        head.check(facts)
    head.check({"active": 0.0, "confidence": 0.021})
    with pytest.raises(ModelError, match="collapsed"):
        head.check({"active": 0.5, "confidence": 0.019})


def test_contradicting_labels_have_no_gradient_but_the_price() -> None:
    """The same pair under both labels at P = 1/2: the two gradients of the preference cancel."""
    head = Latent(members=1)
    outputs = torch.zeros(2, 1, head.outputs, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 1, dtype=torch.bool)
    sides = {name: Side(logp=torch.zeros(2, 1), mask=mask, outputs=outputs) for name in ("chosen", "rejected")}
    columns = {"row": torch.zeros(2), "flip": torch.tensor([0.0, 1.0])}
    terms = DiversePreferences()(head, Pair(sides=sides, columns=columns))
    (slope,) = torch.autograd.grad(terms["preference"].value.sum(), outputs, retain_graph=True)
    assert slope.sum(0).abs().max() == 0
    (slope,) = torch.autograd.grad(terms["kl"].value.sum(), outputs)
    assert slope[..., 2].tolist() == [[1.0], [1.0]]


def test_codes_shrink_in_proportion() -> None:
    """The slope of KL with respect to a code's mean is the mean."""
    mean = drawn(5).requires_grad_()
    (slope,) = torch.autograd.grad(gaussian_kl(mean, torch.zeros(5)).sum(), mean)
    torch.testing.assert_close(slope, mean.detach())


def test_noise_in_training_alone() -> None:
    net = module(Latent())
    states = drawn(4, HIDDEN)
    assert torch.equal(net.eval()(states), net(states))
    noisy = net.train()(states)
    assert torch.equal(noisy[:, :3], net.eval()(states)[:, :3]), "the score is read at the mean codes"
    assert not torch.equal(noisy[:, 3:6], noisy[:, :3])


def test_the_linear_proxy_follows_the_score_and_moves_nothing() -> None:
    net = module(Latent()).eval()
    states = drawn(4, HIDDEN).requires_grad_()
    gradients = torch.autograd.grad(net(states)[:, -1].square().sum(), [states, *net.parameters()], allow_unused=True)
    named = dict(zip(["states", *(name for name, _ in net.named_parameters())], gradients, strict=True))
    assert {name for name, slope in named.items() if slope is not None and slope.any()} == {"linear_proxy.weight"}


def test_far_away_is_bounded() -> None:
    """A state a million times as large has the same code: the encoder sees it normalised, its mean clamped."""
    net = module(Latent()).eval()
    states = drawn(4, HIDDEN)
    torch.testing.assert_close(net(1e6 * states)[:, :9], net(states)[:, :9], rtol=1e-3, atol=1e-3)


def test_settings() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Latent(members=0)
    with pytest.raises(UsageError, match="phi"):
        DiversePreferences(phi=-1.0)
    with pytest.raises(UsageError, match="Latent"):
        RewardFit(Token(), DiversePreferences())
    with pytest.raises(UsageError, match="only DiversePreferences fits every part"):
        RewardFit(Latent(), BradleyTerry())
