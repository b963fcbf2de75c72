"""Every credit of the catalog under every law, and for each law methods that break it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from finegrain import catalog
from finegrain.credit.allocations import DynamicTopK, Mask, RandomQuantile, SoftWeight
from finegrain.credit.allocations import TopK as TopSegments
from finegrain.credit.asr import ASR
from finegrain.credit.compose import Compose
from finegrain.credit.confidence import Confidence
from finegrain.credit.context import CreditContext
from finegrain.credit.reward_allocations import ByLocation, Interpolate, Redistribute
from finegrain.credit.reward_signals import Attention, Head, PrefixDifference
from finegrain.credit.signals import Column, FunctionSpans, Implicit, Table
from finegrain.credit.text_signals import Entropy, LeastEdit, Lexical
from finegrain.credit.token_reward import TokenReward
from finegrain.ops.location import EndOnly
from finegrain.ops.segment_scores import BatchMean, Last, Quantile, ResponseMean, Sum
from finegrain.ops.segmenters import ChangePoint, Dynamic, Sign, Threshold, Tokens, TopK, Whole, Windows
from finegrain.ops.text_segmenters import BeforeRise, EntropyCutoff, Perplexity, RandomNGram, Sentences
from finegrain.types import Scored, TokenColumns
from tests.credit.fake import FakeContext, random_context
from tests.laws import credit as laws

OPEN = {"min_kept": 0.0, "max_kept": 1.0}
METHODS: dict[str, Any] = {
    **{name: catalog.load("credit", name)(**({"path": "f.py:f"} if name == "function" else {})) for name in catalog.names("credit")},
    "asr-column": ASR(signal=Column(), segmenter=Dynamic(window=3, q=-0.5), **OPEN),
    "asr-function": ASR(signal=FunctionSpans(path="f.py:f"), **OPEN),
    "asr-threshold-sum": ASR(signal=Implicit(scorer="judge"), segmenter=Threshold(tau=0.8), score=Sum(), **OPEN),
    "asr-topk-last": ASR(signal=Implicit(scorer="judge"), segmenter=TopK(), score=Last(), **OPEN),
    "asr-sign": ASR(signal=Implicit(scorer="judge"), segmenter=Sign(), **OPEN),
    "asr-change-point": ASR(signal=Implicit(scorer="judge"), segmenter=ChangePoint(), **OPEN),
    "asr-windows": ASR(signal=Implicit(scorer="judge"), segmenter=Windows(), **OPEN),
    "asr-whole": ASR(signal=Implicit(scorer="judge"), segmenter=Whole(), **OPEN),
    "asr-tokens": ASR(signal=Implicit(scorer="judge"), segmenter=Tokens(), **OPEN),
    "asr-response-mean": ASR(signal=Implicit(scorer="judge"), baseline=ResponseMean(), **OPEN),
    "asr-batch-mean": ASR(signal=Implicit(scorer="judge"), baseline=BatchMean(), **OPEN),
    "asr-quantile": ASR(signal=Implicit(scorer="judge"), baseline=Quantile(), **OPEN),
    "confidence": Confidence(signal=Implicit(scorer="judge")),
    "confidence-std": Confidence(signal=Implicit(scorer="judge"), score=Sum(), **OPEN),
    "token-reward-members": TokenReward(signal=Implicit(scorer="judge"), segmenter=ChangePoint()),
    "compose-mask": Compose(signal=Implicit(scorer="judge"), segmenter=Dynamic(), allocation=Mask(**OPEN)),
    "compose-soft": Compose(signal=Implicit(scorer="judge"), segmenter=EntropyCutoff(), allocation=SoftWeight(**OPEN)),
    "compose-table": Compose(signal=Table(), segmenter=Sentences(), allocation=Mask(score=Sum(), **OPEN)),
    "compose-top-k": Compose(scorer="rm", signal=Attention(), segmenter=Perplexity(), allocation=TopSegments()),
    "compose-peaks": Compose(signal=Entropy(), segmenter=RandomNGram(), allocation=DynamicTopK()),
    "compose-random": Compose(signal=LeastEdit(), segmenter=Sentences(), allocation=RandomQuantile()),
    "compose-lexical": Compose(signal=Lexical(), segmenter=Perplexity(start=BeforeRise()), allocation=Mask(baseline=ResponseMean(), **OPEN)),
    "compose-redistribute": Compose(scorer="rm", signal=PrefixDifference(), segmenter=Sentences(), allocation=Redistribute(within=EndOnly())),
    "compose-interpolate": Compose(scorer="rm", signal=Attention(), segmenter=Tokens(), allocation=Interpolate()),
    "compose-location": Compose(scorer="rm", signal=Head(), segmenter=EntropyCutoff(cutoff=1.0), allocation=ByLocation()),
}
POOLED = {
    "asr-batch-mean": "the baseline is the mean of all tokens",
    "asr-quantile": "the baseline is a quantile of all tokens",
    "confidence": "the members' variance is pooled over the data",
    "token-reward": "rewards are centred over the data",
    "token-reward-members": "rewards are centred over the data",
    "compose-soft": "the members' variance is pooled over the data",
    "compose-location": "the scale by place is fitted to the data",
}
"""Methods that depend on other rows, and through what."""
EXEMPT = {
    ("asr-threshold-sum", "unit_free"): "the threshold is in the units of the signal",
    ("asr-function", "unit_free"): "the values are the user's own, the law changes other signals",
    ("asr-function", "negation_swaps"): "likewise",
    ("asr-function", "settings_are_read"): "the fake context reads no path",
    ("asr-quantile", "negation_swaps"): "the median token itself is strictly on neither side",
    ("token-reward-members", "negation_swaps"): "its weights are certainties, not masks",
    **dict.fromkeys(
        [(f"compose-{name}", "settings_are_read") for name in ("top-k", "redistribute", "location")],
        "the fake context asks no reward model, and no score of a reward alone",
    ),
    **dict.fromkeys([(f"compose-{name}", "negation_swaps") for name in ("top-k", "peaks", "random", "lexical")], "it does not mask by sign"),
    ("function", "negation_swaps"): "weights are the user's own",
    ("asr-response-mean", "negation_swaps"): "an answer of one token equals its mean and is strictly on neither side",
    ("confidence-std", "settings_are_read"): "a scorer that knows its uncertainty needs no pooling",
    ("token-reward", "settings_are_read"): "the table's targets are shrunk already and have no certainty to pool",
}


def make(name: str, seed: int) -> FakeContext:
    context = random_context(seed)
    assert context.implicit is not None
    if name == "confidence-std":
        known = {role: [Scored(s.mean, s.mean.abs() + 0.1) for s in rows] for role, rows in context.implicit.items()}
        return replace(context, implicit=known)
    return context


def test_collected() -> None:
    print(f"{len(catalog.names('credit'))} credits of the catalog, {len(METHODS)} settings, {len(laws.LAWS)} laws")
    assert len(catalog.names("credit")) >= 4
    assert len(METHODS) >= 18
    assert set(POOLED) <= set(METHODS)
    assert {name for name, _ in EXEMPT} <= set(METHODS)


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_law(name: str, law: laws.Law) -> None:
    if (name, law.__name__) in EXEMPT:
        return
    if law is laws.rows_independent and name in POOLED:
        with pytest.raises(AssertionError):
            law(METHODS[name], partial(make, name))
        return
    law(METHODS[name], partial(make, name))


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A method of one fault, on the implicit signal."""

    scale: float = 1.0

    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return np.where(mask, mean > 0, 0)

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        scores = context.implicit_rewards("judge", self.scale)
        columns = {}
        every = np.concatenate([s.mean.detach().numpy()[m] for role in scores for s, m in zip(scores[role], context.masks(role), strict=True)])
        for role, sign in context.signs.items():
            rows = zip(scores[role], context.masks(role), strict=True)
            weight = [self.value(sign[row] * s.mean.detach().numpy(), m, every, row).astype(np.float32) for row, (s, m) in enumerate(rows)]
            columns[role] = TokenColumns(weight, [None] * len(weight), [None] * len(weight), [True] * len(weight))
        return columns


class MaskMultiplies(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        with np.errstate(all="ignore"):
            return (mean * mask > 0) + 0.0 * mean * mask


class OffTheMask(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return mean > 0


class MeanOverWidth(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return np.where(mask, mean > np.where(mask, mean, 0.0).sum() / len(mask), 0)


class BatchCentred(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return np.where(mask, mean > abs(every.mean()), 0)


class ByRowNumber(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return np.where(mask, row % 2, 0)


class Thresholded(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return np.where(mask, mean > 0.5, 0)


class Generous(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return np.where(mask, mean > -0.5 * np.abs(np.where(mask, mean, 0)).max(), 0)


class Negative(Raw):
    def value(self, mean: np.ndarray, mask: np.ndarray, every: np.ndarray, row: int) -> np.ndarray:
        return np.where(mask, mean, 0)


class TrainsTheScorer(Raw):
    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        for rows in context.implicit_rewards("judge", self.scale).values():
            for score in rows:
                score.mean.square().sum().backward()
        return super().prepare(context)


class TooShort(Raw):
    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        columns = super().prepare(context)
        return {role: replace(column, weight=[None if w is None else w[1:] for w in column.weight]) for role, column in columns.items()}


@dataclass(frozen=True, kw_only=True)
class WritesToTheContext:
    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        columns = ASR(signal=Column(), **OPEN).prepare(context)
        for row in context.column_rewards("chosen"):
            if row is not None:
                row -= row.mean()
        return columns


@dataclass(frozen=True, kw_only=True)
class AcrossHoles:
    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        return {
            role: replace(column, segment=[s if s is None else np.where(s < 0, -1, 0).astype(np.int32) for s in column.segment])
            for role, column in ASR(signal=Column(), **OPEN).prepare(context).items()
        }


@dataclass(kw_only=True)
class Thawed:
    """Settings that can change after construction."""

    scale: float = 1.0

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        return Raw(scale=self.scale).prepare(context)


@dataclass(frozen=True, kw_only=True)
class UnreadNested:
    signal: Implicit = field(default_factory=lambda: Implicit(beta=0.3))

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        return ASR(signal=Implicit(scorer="judge"), **OPEN).prepare(context)


@dataclass(frozen=True, kw_only=True)
class UnreadSetting(Raw):
    temperature: float = 1.0


BROKEN: dict[laws.Law, list[Any]] = {
    laws.shape_and_finiteness: [OffTheMask(), Negative(), AcrossHoles(), TooShort()],
    laws.garbage_under_the_mask: [MaskMultiplies(), OffTheMask()],
    laws.padding: [MeanOverWidth()],
    laws.rows_independent: [BatchCentred(), ByRowNumber()],
    laws.permutation: [ByRowNumber()],
    laws.unit_free: [Thresholded(), Negative()],
    laws.negation_swaps: [Generous(), Thresholded()],
    laws.detached_and_pure: [TrainsTheScorer(), WritesToTheContext()],
    laws.settings_survive_json: [Thawed()],
    laws.settings_are_read: [UnreadSetting(), UnreadNested()],
}
CASES = [(law, method) for law, methods in BROKEN.items() for method in methods]


def test_every_law_has_a_broken_method() -> None:
    assert set(BROKEN) == set(laws.LAWS)


@pytest.mark.parametrize(("law", "method"), CASES, ids=[f"{law.__name__}-{type(method).__name__}" for law, method in CASES])
def test_broken_method_breaks_its_law(law: laws.Law, method: Any) -> None:
    with pytest.raises(AssertionError):
        law(method, partial(make, "broken"))


@pytest.mark.parametrize("law", [law for law in laws.LAWS if law is not laws.unit_free], ids=lambda law: law.__name__)
def test_the_sound_version_of_the_broken_methods_holds(law: laws.Law) -> None:
    law(Raw(), partial(make, "broken"))
