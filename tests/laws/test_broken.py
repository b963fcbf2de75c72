"""Each law has deliberately broken objectives, and each of them must break it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from finegrain.objectives.dpo import DPO, dpo_loss
from finegrain.objectives.margins import log_ratio_margin
from finegrain.ops.sequence import kept_weight, log_ratio, sequence_logp
from finegrain.types import Pair, Summed, Term, Terms
from tests.laws import objectives as laws
from tests.laws.pairs import make_pair


@dataclass(frozen=True, kw_only=True)
class Broken:
    """DPO with a fault in its loss, given as a function of the pair."""

    fault: ClassVar[Callable[[Pair], Any]]
    beta: float = 0.1

    def __call__(self, pair: Pair) -> Any:
        return type(self).fault(pair)


def broken(fault: Callable[[Pair], Any]) -> Broken:
    return type(fault.__name__, (Broken,), {"fault": staticmethod(fault)})()


def batch_mean(pair: Pair) -> Tensor:
    return dpo_loss(log_ratio_margin(pair), beta=0.1).mean()


def unguarded_average(pair: Pair) -> Tensor:
    return log_ratio(pair.chosen) / kept_weight(pair.chosen)


def exponential(pair: Pair) -> Tensor:
    return torch.exp(-9 * log_ratio_margin(pair).abs()) / (1 - torch.tanh(log_ratio_margin(pair).abs()))


def mask_multiplies(pair: Pair) -> Tensor:
    return (pair.chosen.logp * pair.chosen.mask).sum(-1)


def gradient_under_mask(pair: Pair) -> Tensor:
    leak = 0.0 * torch.where(pair.chosen.mask, 0.0, pair.chosen.logp).nan_to_num().clamp(-1, 1).sum(-1)
    return log_ratio_margin(pair) + leak + torch.where(pair.chosen.mask, 0.0, 1e-9 * pair.chosen.logp.nan_to_num().tanh()).sum(-1)


def mean_over_width(pair: Pair) -> Tensor:
    return torch.where(pair.chosen.mask, pair.chosen.logp, 0.0).mean(-1)


def position_in_padding(pair: Pair) -> Tensor:
    return torch.where(pair.chosen.mask, pair.chosen.logp * torch.arange(pair.chosen.mask.shape[1]), 0.0).sum(-1)


def centred_on_batch(pair: Pair) -> Tensor:
    margin = log_ratio_margin(pair)
    return dpo_loss(margin - margin.mean(), beta=0.1)


def weight_by_order(pair: Pair) -> Tensor:
    margin = log_ratio_margin(pair)
    return margin * torch.arange(len(margin))


def detached_part(pair: Pair) -> Tensor:
    return log_ratio(pair.chosen).detach() - log_ratio(pair.rejected)


def half_precision(pair: Pair) -> Tensor:
    return torch.where(pair.chosen.mask, pair.chosen.logp, 0.0).sum(-1)


def half_precision_widened_late(pair: Pair) -> Tensor:
    return torch.where(pair.chosen.mask, pair.chosen.logp, 0.0).sum(-1).float()


def count_of_likely_tokens(pair: Pair) -> Terms:
    likely = (torch.where(pair.chosen.mask, pair.chosen.logp, -9.0) > -1).sum(-1).to(pair.chosen.logp.dtype)
    return {"nll": Term(-sequence_logp(pair.chosen), likely)}


def count_with_gradient(pair: Pair) -> Terms:
    return {"nll": Term(-sequence_logp(pair.chosen), kept_weight(pair.chosen) + 0.0 * sequence_logp(pair.chosen))}


def bonus_for_credit(pair: Pair) -> Tensor:
    return log_ratio_margin(pair) + (0.0 if pair.chosen.weight is None else 1.0)


def ignores_credit(pair: Pair) -> Tensor:
    return torch.where(pair.chosen.mask, pair.chosen.logp, 0.0).sum(-1) - torch.where(pair.rejected.mask, pair.rejected.logp, 0.0).sum(-1)


def credit_on_one_side(pair: Pair) -> Tensor:
    return log_ratio(pair.chosen) - log_ratio(replace(pair.rejected, weight=None))


def undeclared_column(pair: Pair) -> Tensor:
    return log_ratio_margin(pair) * (1 + pair.columns["label"])


def late_count_with_gradient(pair: Pair) -> Terms:
    return {"nll": Term(-sequence_logp(pair.chosen), kept_weight(pair.chosen) + 0.0 * sequence_logp(pair.chosen), late=True)}


@dataclass(frozen=True, kw_only=True)
class ColumnsOfThePass(DPO):
    """Declared as one of columns, a statistic of log-probabilities."""

    def column_statistics(self, pair: Pair) -> dict[str, Summed]:
        return {"margin": Summed(log_ratio_margin(pair).sum())}


@dataclass(frozen=True, kw_only=True)
class MeasureOfPadding(DPO):
    """Logs a number of whatever stands in the padding."""

    def measures(self, pair: Pair) -> Terms:
        total = pair.chosen.logp.sum(-1)
        return {"total": Term(total, torch.ones_like(total))}


@dataclass(frozen=True, kw_only=True)
class MeanAsSum:
    """A statistic that is a mean, declared as a sum."""

    def statistics(self, pair: Pair) -> dict[str, Summed]:
        return {"mean": Summed(log_ratio_margin(pair).mean())}

    def __call__(self, pair: Pair) -> Tensor:
        return dpo_loss(log_ratio_margin(pair) - pair.statistics["mean"], beta=0.1)


@dataclass(frozen=True, kw_only=True)
class NumberedSetting(DPO):
    """JSON gives strings back for the numbers that are keys."""

    table: dict[int, float] = field(default_factory=lambda: {1: 0.5})


@dataclass(kw_only=True)
class Thawed:
    """Settings that can change after construction."""

    beta: float = 0.1


@dataclass(frozen=True, kw_only=True)
class UnreadSetting(DPO):
    """An option nobody reads."""

    temperature: float = 1.0


BROKEN: dict[laws.Law, list[Any]] = {
    laws.shape_and_finiteness: [broken(batch_mean), broken(unguarded_average), broken(exponential)],
    laws.garbage_under_the_mask: [broken(mask_multiplies), broken(gradient_under_mask)],
    laws.padding: [broken(mean_over_width), broken(position_in_padding)],
    laws.rows_independent: [broken(centred_on_batch)],
    laws.permutation: [broken(weight_by_order)],
    laws.micro_batches: [MeanAsSum(), broken(centred_on_batch)],
    laws.gradient_is_right: [broken(detached_part)],
    laws.wide_arithmetic: [broken(half_precision), broken(half_precision_widened_late)],
    laws.settings_survive_json: [NumberedSetting(), Thawed()],
    laws.settings_are_read: [UnreadSetting()],
    laws.counts_from_masks: [broken(count_of_likely_tokens), broken(count_with_gradient), broken(late_count_with_gradient)],
    laws.measures_are_of_the_tokens: [MeasureOfPadding()],
    laws.weights_of_one: [broken(bonus_for_credit)],
    laws.column_statistics_need_no_pass: [ColumnsOfThePass()],
    laws.columns_are_declared: [broken(undeclared_column)],
    laws.credit_is_read: [broken(ignores_credit), broken(credit_on_one_side)],
}
CASES = [(law, method) for law, methods in BROKEN.items() for method in methods]


def test_every_law_has_a_broken_method() -> None:
    print(f"{len(CASES)} broken methods for {len(laws.LAWS)} laws")
    assert set(BROKEN) == set(laws.LAWS)
    assert len(CASES) >= 20


@pytest.mark.parametrize(("law", "method"), CASES, ids=[f"{law.__name__}-{type(method).__name__}" for law, method in CASES])
def test_broken_method_breaks_its_law(law: laws.Law, method: Any) -> None:
    with pytest.raises(AssertionError):
        law(method, partial(make_pair, method))
