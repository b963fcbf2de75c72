"""Every head under the pair loss unless it needs its own, and every loss of the catalog, under the laws of objectives."""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from finegrain import catalog
from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.ops.reward_weight import Attention, MeanOne, SumOne
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.brme import BRME, MeanSquaredSample, PreferenceGaussian
from finegrain.rewards.contrast import SimCSE, Swav
from finegrain.rewards.declarations import read_head, read_loss
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.irl_sft import IRLSFT, Aligned, Linear, Longer
from finegrain.rewards.secrets_rm import SecretsRM
from finegrain.rewards.span_labels import Answers, BalancedTokens, SpanLabels
from finegrain.rewards.token import Token
from finegrain.types import Pair, Scored
from tests.laws import objectives as laws
from tests.laws.pairs import make_pair

LAWS: tuple[laws.Law, ...] = (
    laws.shape_and_finiteness,
    laws.garbage_under_the_mask,
    laws.padding,
    laws.rows_independent,
    laws.permutation,
    laws.micro_batches,
    laws.gradient_is_right,
    laws.wide_arithmetic,
    laws.counts_from_masks,
)
FEWEST_HEADS, FEWEST_LOSSES = 4, 1


def heads() -> dict[str, Any]:
    """Every head of the catalog, with every readout where it has that setting."""
    found = {}
    for name in catalog.names("head"):
        head = small(catalog.load("head", name)())
        found[name] = head
        if "readout" in [field.name for field in fields(head)]:
            found |= {f"{name}-{type(readout).__name__.lower()}": replace(head, readout=readout) for readout in (Sum(), Mean(), Last(), Minimum())}
    return found


def fit_of(loss: Any) -> RewardFit:
    """The loss with a head that it fits."""
    kind = read_loss(loss).head_kind
    kind = kind[0] if isinstance(kind, tuple) else kind
    return RewardFit(small(Token() if kind is object else kind()), loss)


def small(head: Any) -> Any:
    """The head with two members where it has several: a law costs as much as there are outputs."""
    return replace(head, members=2) if "members" in [field.name for field in fields(head)] else head


FITS: dict[str, RewardFit] = {
    **{name: RewardFit(head, BradleyTerry(label_smoothing=0.1)) for name, head in heads().items() if read_head(head).loss_kind is object},
    **{f"{name} loss": fit_of(catalog.load("loss", name)()) for name in catalog.names("loss")},
    "brme loss, sampled": fit_of(BRME(fit=MeanSquaredSample())),
    "brme loss, pairs": fit_of(BRME(fit=PreferenceGaussian())),
    "secrets-rm loss, all terms": fit_of(SecretsRM(lm_factor=0.3, contrast=SimCSE(dropout=0.3))),
    "secrets-rm loss, answers": fit_of(SecretsRM(contrast=SimCSE(items="answers", dropout=0.3))),
    "secrets-rm loss, prototypes": fit_of(SecretsRM(contrast=Swav(prototypes=3, dropout=0.3))),
    "secrets-rm loss, prototypes of answers": fit_of(SecretsRM(contrast=Swav(prototypes=3, items="answers", dropout=0.3))),
    **{
        f"{name} loss, {scale.__name__}": RewardFit(Gaussian(reward_weight=Attention(width=2, scale=scale())), catalog.load("loss", name)())
        for name in ("ava-p", "ava-d")
        for scale in (MeanOne, SumOne)
    },
    "irl-sft loss, longer": RewardFit(Token(), IRLSFT(step=Aligned(positions=Longer()))),
    "irl-sft loss, linear": RewardFit(Token(), IRLSFT(step=Linear())),
    "gaussian, attention": RewardFit(Gaussian(readout=Sum(), reward_weight=Attention(width=2)), BradleyTerry()),
    "span-labels loss, balanced": RewardFit(Token(readout=Mean()), SpanLabels(weighting=BalancedTokens())),
    "span-labels loss, aspects": RewardFit(Token(aspects=("one", "two"), weights=(2.0, -1.0)), SpanLabels()),
    "span-labels loss, gaussian": RewardFit(Gaussian(), SpanLabels()),
    "span-labels loss, gaussian, attention": RewardFit(Gaussian(reward_weight=Attention(width=2)), SpanLabels(weighting=BalancedTokens())),
    "span-labels loss, answers": RewardFit(Token(), SpanLabels(rows=Answers())),
    "brme loss, one member": RewardFit(GaussianEnsemble(members=1), BRME()),
}


def test_collected() -> None:
    print(f"{len(catalog.names('head'))} heads, {len(catalog.names('loss'))} losses, {len(FITS)} fits, {len(LAWS)} laws")
    assert len(catalog.names("head")) >= FEWEST_HEADS
    assert len(catalog.names("loss")) >= FEWEST_LOSSES


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", FITS)
def test_law(name: str, law: laws.Law) -> None:
    law(FITS[name], partial(make_pair, FITS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_every_entry_of_the_gradient(name: str) -> None:
    laws.gradient_is_right(FITS[name], partial(make_pair, FITS[name]), every_entry=True)


class OverWidth:
    """A loss that multiplies by the mask and divides by the padded width."""

    roles = ("chosen", "rejected")

    def __call__(self, head: Token, pair: Pair) -> Tensor:
        assert pair.chosen.outputs is not None
        return (pair.chosen.outputs[..., 0] * pair.chosen.mask).mean(-1)


@dataclass(frozen=True, kw_only=True)
class Centred(Token):
    """Scores depend on the batch."""

    def tokens(self, outputs: Tensor) -> Scored:
        return Scored(outputs[..., 0] - outputs[..., 0].mean())


@dataclass(frozen=True, kw_only=True)
class OwnCodes(Swav):
    """Prototypes shared out among the rows at hand, whatever else is in the step."""

    def __call__(self, pair: Pair) -> Tensor:
        return super().__call__(replace(pair, statistics={name: found.value for name, found in self.statistics(pair).items()}))


@dataclass(frozen=True, kw_only=True)
class OverEverything(Attention):
    """Attention to padding too."""

    def weights(self, outputs: Tensor, mask: Tensor) -> Tensor:
        everywhere = torch.ones_like(mask)
        return super().weights(outputs.nan_to_num(0.0, 0.0, 0.0).clamp(-10, 10), everywhere)


@pytest.mark.parametrize(
    ("fit", "law"),
    [
        (RewardFit(Gaussian(reward_weight=OverEverything(width=2)), BradleyTerry()), laws.padding),
        (RewardFit(Token(), OverWidth()), laws.garbage_under_the_mask),
        (RewardFit(Token(), OverWidth()), laws.padding),
        (RewardFit(Centred(readout=Sum()), BradleyTerry()), laws.rows_independent),
        (RewardFit(Centred(readout=Sum()), BradleyTerry()), laws.micro_batches),
        (RewardFit(Token(), SecretsRM(contrast=OwnCodes(prototypes=3))), laws.micro_batches),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_head_breaks_the_law(fit: RewardFit, law: laws.Law) -> None:
    with pytest.raises(AssertionError):
        law(fit, partial(make_pair, fit))
