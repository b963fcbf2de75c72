"""Compositions are the methods whose parts they name, parts that mean nothing together are refused, and the page's table is the code's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.configure import list_choices
from finegrain.credit.abc import ABC, HeadMean, LargestHead
from finegrain.credit.allocations import DynamicTopK, Mask, RandomQuantile, SoftWeight, TopK
from finegrain.credit.asr import ASR
from finegrain.credit.compose import Compose
from finegrain.credit.confidence import Confidence
from finegrain.credit.r3hf import R3HF, FromPrompt
from finegrain.credit.reward_allocations import ByLocation, Interpolate, Redistribute
from finegrain.credit.reward_signals import Attention, Head, PrefixDifference, SignalModel, Uniform
from finegrain.credit.signals import Column, Implicit, Spans, Table
from finegrain.credit.text_signals import Entropy, LeastEdit, Lexical
from finegrain.credit.token_reward import TokenReward
from finegrain.errors import CreditError, UsageError
from finegrain.objectives.dpo import DPO
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.ops.location import EndOnly
from finegrain.ops.segment_scores import BatchMean
from finegrain.ops.segmenters import Dynamic, Sign, Tokens, Whole, Windows
from finegrain.recipes.training.job import check_credit
from finegrain.train.read_contract import contract_of
from finegrain.types import AnswerScores, Scored, TokenColumns
from tests.credit.fake import FakeContext, pair_context, random_context
from tests.laws.credit import same

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "compose.md"
GOLDEN = Path(__file__).parents[1] / "golden"
OPEN = {"min_kept": 0.0, "max_kept": 1.0}


@dataclass(frozen=True)
class Model(SignalModel):
    """A reward model of given outputs, for one answer: what `scoring.outputs.LoadedRewardModel` computes from its network."""

    name: ClassVar[str] = "rm"
    segmentation: ClassVar[None] = None
    location: ClassVar[None] = None

    total: Tensor
    attention: Tensor | None = None
    values: Tensor | None = None
    empty: Tensor | None = None

    def attention_shares(self, examples: Sequence[Any], roles: Sequence[str], spread: ABC) -> Tensor:
        assert self.attention is not None
        return spread(self.attention, self.total, torch.ones(1, self.attention.shape[-1], dtype=torch.bool))[0]

    def prefix_differences(self, examples: Sequence[Any], roles: Sequence[str], spread: R3HF) -> Tensor:
        assert self.values is not None
        assert self.empty is not None
        return spread(self.values, self.empty, torch.ones(self.values.shape, dtype=torch.bool))[0]


@dataclass(frozen=True, kw_only=True)
class ModelContext(FakeContext):
    """A context that asks such models, one per answer."""

    models: dict[str, list[Model]]

    def reward_scores(self, scorer: str, signal: Any) -> dict[str, list[AnswerScores]]:
        return {role: [AnswerScores(Scored(signal(model, [], [])), float(model.total)) for model in own] for role, own in self.models.items()}


def of_models(*models: Model) -> ModelContext:
    lengths = [(model.attention if model.values is None else model.values).shape[-1] for model in models]  # type: ignore[union-attr]
    masks = {"chosen": [np.ones(length, dtype=bool) for length in lengths]}
    return ModelContext(signs={"chosen": np.ones(len(models))}, role_masks=masks, models={"chosen": list(models)})


def golden(slug: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((GOLDEN / f"{slug}.json").read_text())["cases"]
    return cases


def real(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_implicit_dynamic_and_mask_are_asr(seed: int) -> None:
    context = random_context(seed)
    parts = Compose(signal=Implicit(scorer="judge"), segmenter=Dynamic(), allocation=Mask(**OPEN)).prepare(context)
    same(parts, ASR(signal=Implicit(scorer="judge"), segmenter=Dynamic(), **OPEN).prepare(context))
    assert any(weight is not None and weight.any() for weight in parts["chosen"].weight)


def test_the_default_is_asr_on_spans_too() -> None:
    context = random_context(1)
    same(Compose(allocation=Mask(**OPEN)).prepare(context), ASR(**OPEN).prepare(context))


def test_soft_weights_are_those_of_confidence() -> None:
    context = random_context(2)
    parts = Compose(signal=Implicit(scorer="judge"), segmenter=Windows(), allocation=SoftWeight(n0=2.0, **OPEN)).prepare(context)
    same(parts, Confidence(signal=Implicit(scorer="judge"), segmenter=Windows(), n0=2.0, **OPEN).prepare(context))


def test_the_runs_own_scorer_composes_with_weights_and_rewards() -> None:
    context = random_context(3)
    parts = Compose(signal=Table(), allocation=SoftWeight(**OPEN)).prepare(context)
    same(parts, Confidence(signal=Table(), **OPEN).prepare(context))
    rewards = Compose(signal=Table(), allocation=Redistribute()).prepare(context)
    for role, column in rewards.items():
        for given, reward, mask in zip(context.table[role], column.reward, context.masks(role), strict=True):
            assert reward is None or np.allclose(reward[mask], given.mean[mask], rtol=1e-6)
    with pytest.raises(UsageError, match="contradicts the signal table"):
        Compose(scorer="rm", signal=Table())


@pytest.mark.parametrize("case", [case for case in golden("abc") if "rm_score" in case["inputs"]], ids=lambda case: case["name"])
def test_attention_tokens_and_interpolation_are_abc(case: dict[str, Any]) -> None:
    share, row = case["params"]["beta"], real([case["inputs"]["attention_last_layer"]])[:, :, -1, case["params"]["query_len"] :]
    model = Model(real([case["inputs"]["rm_score"]]), attention=row)
    method = Compose(scorer="rm", signal=Attention(), segmenter=Tokens(), allocation=Interpolate(share=share))
    column = method.prepare(of_models(model))["chosen"]
    np.testing.assert_allclose(column.reward[0], case["outputs"]["reward"], rtol=1e-5, atol=1e-6)
    assert column.weight == [None]


@pytest.mark.parametrize("heads", [HeadMean(), LargestHead()])
def test_of_abc_to_the_bit_with_the_share_of_signal_or_allocation(heads: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    models = [
        Model(torch.randn(1, generator=generator).double(), attention=torch.rand(1, 3, length, generator=generator).double()) for length in (1, 4, 9)
    ]
    context = of_models(*models)
    for share, signal, allocation in (
        (0.8, Attention(heads=heads), Interpolate()),
        (0.3, Attention(heads=heads, share=0.3), Interpolate()),
        (0.6, Attention(heads=heads), Interpolate(share=0.6)),
        (0.6, Attention(heads=heads, share=0.6), Interpolate(share=0.6)),
    ):
        column = Compose(scorer="rm", signal=signal, segmenter=Tokens(), allocation=allocation).prepare(context)["chosen"]
        for model, got in zip(models, column.reward, strict=True):
            want = ABC(share=share, heads=heads)(model.attention, model.total, torch.ones(1, model.attention.shape[-1], dtype=torch.bool))[0]
            assert np.array_equal(got, want.numpy().astype(np.float32))


def test_two_shares_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="both mix with the end: set one"):
        Compose(scorer="rm", signal=Attention(share=0.3), allocation=Interpolate(share=0.6)).check()
    with pytest.raises(UsageError, match="with the answer's end, for"):
        Compose(scorer="rm", signal=Attention(share=0.8), allocation=TopK()).check()


def test_top_k_of_attention_goes_by_its_size_and_not_by_the_end() -> None:
    attention = torch.tensor([[[0.1, 0.5, 0.3, 0.1]]], dtype=torch.float64)
    for total in (2.0, -2.0):
        method = Compose(scorer="rm", signal=Attention(), segmenter=Tokens(), allocation=TopK(fraction=0.5))
        assert method.prepare(of_models(Model(torch.tensor([total]).double(), attention=attention)))["chosen"].weight[0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("case", golden("r3hf"), ids=lambda case: case["name"])
def test_prefix_differences_and_redistribution_are_r3hf(case: dict[str, Any]) -> None:
    every, prompt = real(case["inputs"]["rm_scores_all_positions"]), case["params"]["prompt_len"]
    lengths = torch.tensor(case["inputs"]["response_mask"]).sum(1).tolist()
    models = [
        Model(row[prompt + n - 1][None], values=row[None, prompt : prompt + n], empty=row[None, prompt - 1])
        for row, n in zip(every, lengths, strict=True)
    ]
    signal = PrefixDifference(first=FromPrompt())
    dense = Compose(scorer="rm", signal=signal, segmenter=Tokens(), allocation=Redistribute()).prepare(of_models(*models))["chosen"]
    partly = Interpolate(share=case["params"]["beta_c"])
    mixed = Compose(scorer="rm", signal=signal, segmenter=Tokens(), allocation=partly).prepare(of_models(*models))
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(dense.reward[row], case["outputs"]["token_reward"][row][:n], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mixed["chosen"].reward[row], case["outputs"]["combined_reward"][row][:n], rtol=1e-5, atol=1e-6)
        exact = R3HF()(models[row].values, models[row].empty, torch.ones(1, n, dtype=torch.bool))[0]
        assert np.array_equal(dense.reward[row], exact.numpy().astype(np.float32))


@pytest.mark.parametrize("within", [Redistribute().within, EndOnly()])
@pytest.mark.parametrize("segmenter", [Tokens(), Windows(size=3), Whole(), Dynamic()])
def test_redistribution_keeps_the_sum_of_answer_and_segment(within: Any, segmenter: Any) -> None:
    context = random_context(3)
    columns = Compose(signal=Column(), segmenter=segmenter, allocation=Redistribute(within=within)).prepare(context)
    for role, column in columns.items():
        for given, reward, ids, mask in zip(context.column[role], column.reward, column.segment, context.masks(role), strict=True):
            if given is None or not mask.any():
                continue
            for number in range(ids.max() + 1):
                assert reward[ids == number].sum() == pytest.approx(given[ids == number].sum(), abs=1e-5)
                placed = np.unique(reward[ids == number]) if within == Redistribute().within else np.flatnonzero(ids == number)[:-1]
                assert len(placed) == 1 or (reward[placed] == 0).all()


def test_interpolation_without_a_reward_model_mixes_with_the_sum() -> None:
    context = pair_context([np.array([1.0, 3.0, 2.0])], [np.array([5.0])])
    columns = Compose(signal=Column(), segmenter=Tokens(), allocation=Interpolate(share=0.5)).prepare(context)
    assert columns["chosen"].reward[0].tolist() == [0.5, 1.5, 4.0]
    assert columns["rejected"].reward[0].tolist() == [5.0]
    spread = Compose(signal=Column(), segmenter=Whole(), allocation=Interpolate()).prepare(context)["chosen"].reward[0]
    np.testing.assert_allclose(spread, [1.6, 1.6, 2.8], rtol=1e-6)


def test_top_k_takes_what_deserves_the_label() -> None:
    values = np.array([3.0, -1.0, 2.0, 0.0])
    context = pair_context([values], [values])
    columns = Compose(signal=Column(), segmenter=Tokens(), allocation=TopK(fraction=0.5)).prepare(context)
    assert columns["chosen"].weight[0].tolist() == [1, 0, 1, 0]
    assert columns["rejected"].weight[0].tolist() == [0, 1, 0, 1]
    halves = Compose(signal=Column(), segmenter=Windows(size=2), allocation=TopK(fraction=0.5)).prepare(context)
    assert halves["chosen"].weight[0].tolist() == [1, 1, 0, 0]  # segments of equal mean: the earlier one


def test_top_k_of_a_signal_without_sign_takes_the_largest_on_both_sides() -> None:
    context = replace(pair_context([np.zeros(3)], [np.zeros(3)]), entropy={role: [np.array([0.1, 2.0, 0.5])] for role in ("chosen", "rejected")})
    columns = Compose(signal=Entropy(), segmenter=Tokens(), allocation=TopK(fraction=0.3)).prepare(context)
    assert [column.weight[0].tolist() for column in columns.values()] == [[0, 1, 0], [0, 1, 0]]


def test_dynamic_top_k_takes_peaks_of_segments() -> None:
    values = np.array([0.0, 0.0, 3.0, 3.0, 1.0, 1.0, 2.5, 2.0, 0.0])
    columns = Compose(signal=Column(), segmenter=Windows(size=2), allocation=DynamicTopK()).prepare(pair_context([values], [-values]))
    assert columns["chosen"].weight[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 1]  # means 0, 3, 1 and, with EOS, 1.5
    np.testing.assert_array_equal(columns["rejected"].weight[0], columns["chosen"].weight[0])


def test_random_weights_keep_their_share_follow_the_seed_and_ignore_the_signal() -> None:
    context = random_context(4)
    kept = []
    for seed in (0, 0, 1):
        columns = Compose(signal=Column(), segmenter=Tokens(), allocation=RandomQuantile(fraction=0.25, seed=seed)).prepare(context)
        kept.append(np.concatenate([w for column in columns.values() for w in column.weight if w is not None]))
        for role, column in columns.items():
            for weight, mask in zip(column.weight, context.masks(role), strict=True):
                assert weight is None or weight.sum() == np.ceil(0.25 * mask.sum())
    assert np.array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])
    changed = replace(context, column={role: [v if v is None else -v for v in rows] for role, rows in context.column.items()})
    again = Compose(signal=Column(), segmenter=Tokens(), allocation=RandomQuantile(fraction=0.25)).prepare(changed)
    assert np.array_equal(kept[0], np.concatenate([w for column in again.values() for w in column.weight if w is not None]))


def test_by_location_has_mean_zero_where_the_fit_is_exact_and_nothing_on_the_closing_token() -> None:
    generator = np.random.default_rng(0)
    rows = [np.repeat(np.array([1.0, 2.0, 3.0, 4.0]) + generator.normal(size=4), 3) for _ in range(400)]
    rows = [np.append(row, 9.0) for row in rows]
    method = Compose(signal=Column(), segmenter=Windows(size=3), allocation=ByLocation())
    found = np.stack(method.prepare(pair_context(rows, rows))["chosen"].reward)
    assert (found[:, -1] == 0).all()
    by_segment = found[:, :12].reshape(400, 4, 3).sum(2)
    assert np.abs(by_segment.mean(0)).max() < 0.5
    assert np.abs(by_segment.std(0) - 1).max() < 0.3


def test_by_location_of_too_few_segments_is_an_error() -> None:
    with pytest.raises(CreditError, match="too few"):
        Compose(signal=Column(), segmenter=Whole(), allocation=ByLocation()).prepare(pair_context([np.ones(3)], [np.ones(2)]))


REFUSED = {
    "attention keeps no label": (Compose(scorer="rm", signal=Attention()), "neither good nor bad, so nothing agrees"),
    "entropy keeps no label": (Compose(signal=Entropy()), "take credit:compose with credit.allocation:top-k"),
    "entropy is no target": (TokenReward(signal=Entropy()), "learns rewards, but of the signal entropy"),
    "asr is refused alike": (ASR(signal=Entropy()), "^credit:asr keeps what agrees"),
    "confidence is refused alike": (Confidence(scorer="rm", signal=Uniform()), "^credit:confidence keeps what agrees"),
    "words have no zero": (Compose(signal=Lexical()), "set a baseline: batch-mean, response-mean or quantile"),
    "edits have no uncertainty": (Compose(signal=LeastEdit(), allocation=SoftWeight()), "needs a standard deviation or several scorers"),
    "edits are no reward": (Compose(signal=LeastEdit(), allocation=Redistribute()), "gives no reward of the answer to keep"),
    "spans are no reward": (Compose(signal=Spans(), allocation=Interpolate()), "the signal spans gives no reward of the answer"),
    "a head's scores do not add up": (Compose(scorer="rm", signal=Head(), allocation=Redistribute()), "the signal head gives no reward"),
    "no level by place": (Compose(signal=Entropy(), allocation=ByLocation()), "above or below their place's mean"),
    "no scorer": (Compose(signal=Attention(), allocation=Interpolate()), "name one, --credit.scorer REWARD_MODEL"),
    "no scorer of implicit rewards": (Compose(signal=Implicit()), "signal:implicit needs a scorer"),
    "nor of asr's": (ASR(signal=Implicit()), "signal:implicit needs a scorer"),
    "nor of targets": (TokenReward(signal=Implicit()), "signal:implicit needs a scorer"),
    "sign of entropy": (Compose(signal=Entropy(), segmenter=Sign(), allocation=TopK()), "credit.segmenter:sign cuts where the signal changes sign"),
    "pivots of equal shares": (Compose(scorer="rm", signal=Uniform(), segmenter=Dynamic(), allocation=Interpolate()), "finds no border in it"),
    "peaks of equal shares": (Compose(scorer="rm", signal=Uniform(), allocation=DynamicTopK()), "gives all its tokens the same"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_means_nothing_is_refused_before_anything_is_read(name: str) -> None:
    method, words = REFUSED[name]
    with pytest.raises(UsageError, match=words):
        check_credit(method, contract_of(DPO()))
    with pytest.raises(UsageError, match=words):
        method.prepare(FakeContext(signs={}, role_masks={}))


def test_a_scorer_that_nothing_reads_is_refused() -> None:
    with pytest.raises(UsageError, match="contradicts the signal entropy"):
        Compose(scorer="rm", signal=Entropy())


@pytest.mark.parametrize(("allocation", "fits", "not_for"), [(TopK(), DPO(), TokenDistillation()), (Redistribute(), TokenDistillation(), DPO())])
def test_objectives_accept_by_what_the_allocation_writes(allocation: Any, fits: Any, not_for: Any) -> None:
    method = Compose(signal=Column(), allocation=allocation)
    check_credit(method, contract_of(fits))
    with pytest.raises(UsageError, match=r"credit:compose writes ") as refused:
        check_credit(method, contract_of(not_for))
    fitting = str(refused.value).partition("Fitting: ")[2]
    assert f"credit.allocation:{'redistribute' if isinstance(allocation, TopK) else 'top-k'}" in fitting
    assert f"credit.allocation:{'top-k' if isinstance(allocation, TopK) else 'redistribute'}" not in fitting


def test_an_answer_of_one_token_and_one_without_any() -> None:
    masks = {role: [np.ones(1, dtype=bool), np.zeros(2, dtype=bool)] for role in ("chosen", "rejected")}
    column = {"chosen": [np.array([1.0]), np.array([1.0, 1.0])], "rejected": [np.array([-1.0]), np.array([1.0, 1.0])]}
    context = FakeContext(signs={"chosen": np.ones(2), "rejected": -np.ones(2)}, role_masks=masks, column=column)
    with pytest.raises(CreditError, match="every token the weight 0"):  # one segment is no peak
        Compose(signal=Column(), allocation=DynamicTopK()).prepare(context)
    for allocation in (Mask(**OPEN), TopK(), RandomQuantile(), Redistribute(), Interpolate()):
        columns: dict[str, TokenColumns] = dict(Compose(signal=Column(), allocation=allocation).prepare(context))
        assert all(list(column.annotated) == [True, False] for column in columns.values())
        reward = columns["chosen"].reward[0]
        assert reward is not None
        assert reward.tolist() == [1.0]


def table() -> str:
    """Signals by allocations, as the methods' own checks have them."""
    signals, allocations = list_choices(Compose, "signal"), list_choices(Compose, "allocation")
    rows = [f"| signal | {' | '.join(f'`{name}`' for name in allocations)} |", f"| --- |{' --- |' * len(allocations)}"]
    for name, signal in signals.items():
        facts = signal.facts
        cells = []
        for allocation in allocations.values():
            cells.append("no")
            for settings, word in (({}, "yes"), ({"baseline": BatchMean()}, "with a baseline")):
                try:
                    allocation(**settings).check(facts)
                except (UsageError, TypeError):
                    continue
                cells[-1] = word
                break
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def test_the_page_has_the_table_of_what_composes_with_what() -> None:
    """Where this fails, the text it expected goes into the page in place of the old table."""
    assert table() in PAGE.read_text(), table()


def test_signals_are_named_as_on_the_command_line() -> None:
    assert {name: signal.facts.name for name, signal in list_choices(Compose, "signal").items()} == {n: n for n in list_choices(Compose, "signal")}
