"""The pair loss with a floor and a language term."""

import math

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.rewards.bradley_terry import BradleyTerry, bradley_terry_loss
from finegrain.rewards.contrast import SimCSE
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.secrets_rm import SecretsRM, floored_loss
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.types import Pair
from tests.rewards.sides import pair
from tests.rewards.test_contrast import WIDTH, features, with_statistics
from tests.rewards.test_representation import draw


def value(z: float, **settings: float) -> tuple[float, float]:
    """Loss and slope at one difference."""
    at = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    loss = floored_loss(at, **{"epsilon": 1e-5, **settings})
    return float(loss.detach()), float(torch.autograd.grad(loss.sum(), at)[0])


def test_by_hand() -> None:
    assert value(0.0)[0] == pytest.approx(-math.log(0.5 + 1e-5), rel=1e-12)
    assert value(1.0, margin=0.25)[0] == pytest.approx(-math.log(1 / (1 + math.exp(-0.75)) + 1e-5), rel=1e-12)


def test_without_floor_it_is_bradley_terry() -> None:
    z = torch.linspace(-900, 900, 37, dtype=torch.float64)
    torch.testing.assert_close(floored_loss(z, epsilon=0.0), bradley_terry_loss(z), rtol=1e-12, atol=1e-12)


def test_the_floor_bounds_the_loss_and_silences_hopeless_pairs() -> None:
    """At most -log 1e-5 = 11.51; above sigma(z) = 1e-2 the floor changes the loss by less than 1e-3."""
    lost, slope = value(-60.0)
    assert lost == pytest.approx(11.5129, abs=1e-4)
    assert abs(slope) < 1e-15
    assert abs(value(-60.0, epsilon=0.0)[1] + 1) < 1e-12
    z = math.log(1e-2 / (1 - 1e-2))
    assert abs(value(z)[0] - value(z, epsilon=0.0)[0]) < 1.001e-3


def test_labels_are_those_of_the_pair_loss() -> None:
    given = pair([[[0.3]], [[1.0]], [[-1.0]]], [[[0.1]], [[2.0]], [[0.5]]], flip=[0, 1, 0], margin=[0.5, 0.0, -1.0], label_prob=[0.9, 1.0, 0.6])
    want = BradleyTerry()(Sequence(), given)
    torch.testing.assert_close(SecretsRM(epsilon=0.0)(Sequence(), given)["pair"].value, want, rtol=1e-12, atol=1e-12)


def test_language_term_is_a_mean_over_the_chosen_answers_tokens() -> None:
    """Without it no log-probabilities are asked for."""
    given = pair([[[0.0], [0.0], [0.0]], [[0.0]]], [[[0.0]], [[0.0]]])
    logp = torch.tensor([[-1.0, -2.0, -3.0], [-5.0, math.nan, math.nan]], dtype=torch.float64)
    sides = {role: side if role == "rejected" else type(side)(logp=logp, mask=side.mask, outputs=side.outputs) for role, side in given.sides.items()}
    terms = SecretsRM(lm_factor=0.5)(Token(), Pair(sides=sides, columns=given.columns))
    assert terms["lm"].value.tolist() == [6.0, 5.0]
    assert terms["lm"].count.tolist() == [3.0, 1.0]
    assert terms["lm"].coefficient == 0.5
    assert SecretsRM(lm_factor=0.5).needs == {"logp"}
    assert SecretsRM().needs == set()
    assert set(SecretsRM()(Token(), given)) == {"pair"}


def test_members_learn_from_their_own_weighting() -> None:
    """As under `loss:bradley-terry`, whose loss it is without a floor."""
    given = pair([[[1.0, 1.0]], [[0.5, 0.5]]], [[[0.0, 0.0]], [[2.0, 2.0]]])
    outputs = given.chosen.outputs
    assert outputs is not None
    head = Ensemble(members=2)
    loss = SecretsRM(epsilon=0.0)(head, given)["pair"].value
    torch.testing.assert_close(loss, BradleyTerry()(head, given))
    outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(SecretsRM()(head, given)["pair"].value.sum(), outputs)
    assert (gradient[..., 0] - gradient[..., 1]).abs().min() > 1e-3


def test_smoothing_weighs_the_floored_halves() -> None:
    z, a, epsilon = 1.0, 0.3, 0.1
    right, wrong = (math.log(1 / (1 + math.exp(-sign * z)) + epsilon) for sign in (1, -1))
    assert value(z, label_smoothing=a, epsilon=epsilon)[0] == pytest.approx(-(1 - a) * right - a * wrong, rel=1e-12)
    assert value(z, flip=-1.0, margin=0.5, epsilon=epsilon)[0] == pytest.approx(-math.log(1 / (1 + math.exp(1.5)) + epsilon), rel=1e-12)


def test_the_contrastive_term_is_a_mean_over_pairs_under_its_weight() -> None:
    term = SimCSE(weight=0.25, dropout=0.2)
    both = with_statistics(term, features([0, 1], draw(2, WIDTH), draw(2, WIDTH, seed=1)))
    sides = {role: type(own)(logp=own.logp, mask=own.mask, features=own.features, outputs=own.logp[..., None]) for role, own in both.sides.items()}
    given = Pair(sides=sides, columns=both.columns, statistics=both.statistics)
    loss = SecretsRM(contrast=term)
    terms = loss(Token(), given)
    assert set(terms) == {"pair", "contrast"}
    torch.testing.assert_close(terms["contrast"].value, term(given))
    assert (terms["contrast"].count.tolist(), terms["contrast"].coefficient) == ([1.0, 1.0], 0.25)
    assert (terms["pair"].count.tolist(), terms["pair"].coefficient) == ([1.0, 1.0], 1.0)
    assert loss.statistics == term.statistics
    assert SecretsRM().statistics is None
    assert SecretsRM(contrast=term, lm_factor=0.5).needs == {"features", "logp"}


def test_settings_at_their_bounds_are_taken() -> None:
    assert (SecretsRM(epsilon=0.0).epsilon, SecretsRM(lm_factor=0.0).lm_factor) == (0.0, 0.0)


def test_bad_settings() -> None:
    for settings in ({"epsilon": 1.0}, {"epsilon": -0.1}, {"lm_factor": -1.0}):
        with pytest.raises(UsageError):
            SecretsRM(**settings)
