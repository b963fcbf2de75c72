"""Keep-masks: worked numbers, what must hold of every mask, and the stops before training."""

from math import inf, log

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.credit.asr import ASR
from finegrain.credit.signals import Auto, Column, FunctionSpans, Implicit, Spans
from finegrain.errors import CreditError, UsageError
from finegrain.objectives.dpo import DPO
from finegrain.ops.segment_scores import BatchMean, Constant, Last, Quantile, ResponseMean, Sum, keep_mask
from finegrain.ops.segmenters import ChangePoint, Dynamic, Sign, Threshold, Tokens, TopK, Whole, Windows
from finegrain.ops.segments import change_points, segments_from
from finegrain.types import Pair, Scored, Side, TokenColumns
from tests.credit.fake import FakeContext, pair_context, random_context

CHOSEN = np.array([0.5, -0.02, 0.3, -1.1, -0.8, -0.9, 0.7, 0.6])
REJECTED = np.array([-0.5, 0.4, -0.6])


def weights(column: TokenColumns) -> list[list[int] | None]:
    return [None if weight is None else weight.astype(int).tolist() for weight in column.weight]


def side(rho: list[float], weight: np.ndarray | None) -> Side:
    logp = torch.tensor([rho], dtype=torch.float64, requires_grad=True)
    credit = None if weight is None else torch.from_numpy(weight)[None].double()
    return Side(logp=logp, ref_logp=torch.zeros_like(logp), mask=torch.ones_like(logp).bool(), weight=credit)


def test_worked_masks() -> None:
    columns = ASR().prepare(pair_context([CHOSEN], [CHOSEN]))
    assert weights(columns["chosen"]) == [[1, 1, 1, 0, 0, 0, 1, 1]]
    assert weights(columns["rejected"]) == [[0, 0, 0, 1, 1, 1, 0, 0]]
    assert columns["chosen"].segment[0] is not None
    assert columns["chosen"].segment[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    np.testing.assert_allclose(columns["chosen"].reward[0], CHOSEN, rtol=1e-6)
    tokens = ASR(segmenter=Tokens()).prepare(pair_context([CHOSEN], [REJECTED]))
    assert weights(tokens["chosen"]) == [[1, 0, 1, 0, 0, 0, 1, 1]]
    assert weights(tokens["rejected"]) == [[1, 0, 1]]


def test_worked_loss() -> None:
    """Chosen mask of segments, rejected mask token-wise: z = .08, loss .6539470; unmasked z = .09, loss .6491593."""
    chosen = ASR().prepare(pair_context([CHOSEN], [CHOSEN]))["chosen"].weight[0]
    rejected = ASR(segmenter=Tokens()).prepare(pair_context([CHOSEN], [REJECTED]))["rejected"].weight[0]
    rho_w, rho_l = [0.2, -0.1, 0.3, 0.4, -0.2, 0.1, 0.05, 0.15], [-0.3, 0.2, 0.1]
    good, bad = side(rho_w, chosen), side(rho_l, rejected)
    loss = DPO()(Pair(sides={"chosen": good, "rejected": bad}))
    assert float(loss[0].detach()) == pytest.approx(0.6539470, abs=5e-8)
    grad_w, grad_l = torch.autograd.grad(loss.sum(), [good.logp, bad.logp])
    assert [(v > 0) - (v < 0) for v in grad_w[0].tolist()] == [-1, -1, -1, 0, 0, 0, -1, -1]
    assert [(v > 0) - (v < 0) for v in grad_l[0].tolist()] == [1, 0, 1]
    assert float(DPO()(Pair(sides={"chosen": side(rho_w, None), "rejected": side(rho_l, None)}))[0].detach()) == pytest.approx(0.6491593, abs=5e-8)


def test_full_mask_is_dpo_and_empty_mask_is_ln_2() -> None:
    rho_w, rho_l = [0.2, -0.1, 0.3], [-0.3, 0.2, 0.1]
    plain = DPO()(Pair(sides={"chosen": side(rho_w, None), "rejected": side(rho_l, None)}))
    full = DPO()(Pair(sides={"chosen": side(rho_w, np.ones(3)), "rejected": side(rho_l, np.ones(3))}))
    torch.testing.assert_close(full, plain, rtol=0, atol=1e-12)
    empty = Pair(sides={"chosen": side(rho_w, np.zeros(3)), "rejected": side(rho_l, np.zeros(3))})
    loss = DPO()(empty)
    assert float(loss[0].detach()) == pytest.approx(log(2), abs=1e-12)
    assert torch.autograd.grad(loss.sum(), empty.chosen.logp)[0].eq(0).all()


def test_keep_mask_is_strict_and_reads_the_baseline() -> None:
    scores, mask = torch.tensor([[0.0, 1.0, -1.0, 2.0]]), torch.tensor([[True, True, True, False]])
    yes, no = torch.tensor([[True]]), torch.tensor([[False]])
    assert keep_mask(scores, mask, yes).tolist() == [[False, True, False, False]]
    assert keep_mask(scores, mask, no).tolist() == [[False, False, True, False]]
    assert keep_mask(scores, mask, yes, 1.0).tolist() == [[False, False, False, False]]
    assert keep_mask(scores, mask, yes, -inf).equal(mask)
    assert keep_mask(scores, mask, no, inf).equal(mask)
    per_token = torch.tensor([[True, False, True, True]])
    assert keep_mask(scores, mask, per_token, torch.tensor([[2.0]])).tolist() == [[False, True, False, False]]


def test_negation_swaps_kept_and_dropped() -> None:
    generator = np.random.default_rng(0)
    rows = [np.round(generator.normal(size=length), 1) for length in (5, 9, 14)]
    kept = ASR(segmenter=Tokens()).prepare(pair_context(rows, rows))["chosen"].weight
    other = ASR(segmenter=Tokens()).prepare(pair_context([-row for row in rows], [-row for row in rows]))["chosen"].weight
    for row, first, second in zip(rows, kept, other, strict=True):
        assert first is not None
        assert second is not None
        assert ((first + second) == (row != 0)).all()


def test_one_segment_keeps_or_drops_the_whole_response() -> None:
    rows = [np.array([3.0, -1.0, -1.0]), np.array([-3.0, 1.0, 1.0])]
    assert weights(ASR(segmenter=Whole()).prepare(pair_context(rows, rows))["chosen"]) == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("segmenter", [Dynamic(window=2), Threshold(tau=0.5), TopK(), Sign(), ChangePoint(), Windows(), Tokens(), Whole()])
@pytest.mark.parametrize("score", [Sum(), Last()])
def test_every_choice_has_an_effect_of_its_own(segmenter: Dynamic, score: Sum) -> None:
    context = random_context(3)
    plain = ASR(signal=Column(), segmenter=Windows(size=3)).prepare(context)
    other = ASR(signal=Column(), segmenter=segmenter, score=score).prepare(context)
    assert any(not np.array_equal(a, b) for a, b in zip(plain["chosen"].weight, other["chosen"].weight, strict=True))


def test_baselines() -> None:
    rows = [torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0, 9.0])]
    assert Constant(b=2.0)(rows) == [2.0, 2.0]
    assert ResponseMean()(rows) == [2.0, 7.0]
    assert BatchMean()(rows) == [5.0, 5.0]
    assert Quantile(q=0.5)(rows) == [5.0, 5.0]
    assert Quantile(q=0.3)(rows) == pytest.approx([torch.quantile(torch.cat(rows), 0.3).item()] * 2)
    shifted = [row + 100 for row in (CHOSEN, REJECTED)]
    with pytest.raises(CreditError, match="arbitrary"):
        ASR(segmenter=Tokens()).prepare(pair_context(shifted[:1], shifted[1:]))
    kept = ASR(segmenter=Tokens(), baseline=Constant(b=100.0)).prepare(pair_context(shifted[:1], shifted[1:]))
    assert weights(kept["chosen"]) == [[1, 0, 1, 0, 0, 0, 1, 1]]
    mean = ASR(segmenter=Tokens(), baseline=BatchMean()).prepare(pair_context(shifted[:1], shifted[1:]))
    assert weights(mean["rejected"]) == [[1, 0, 1]]


def test_an_answer_without_signal_trains_unmasked_and_does_not_count() -> None:
    context = pair_context([CHOSEN, None], [None, None])
    columns = ASR().prepare(context)
    assert columns["chosen"].weight[1] is columns["chosen"].reward[1] is columns["chosen"].segment[1] is None
    assert columns["chosen"].annotated == [True, False]
    assert columns["rejected"].annotated == [False, False]
    with pytest.raises(CreditError, match="no answer has a signal"):
        ASR().prepare(pair_context([None], [None]))


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        (
            -np.ones(40),
            CHOSEN,
            r"keeps 0.0% of the tokens of chosen answers .1 answers.*, below min_kept, 5%: nearly all .* contradict .* would train\. The usual",
        ),
        (CHOSEN, np.ones(40), "keeps 0.0% of the tokens of rejected answers .*contradict the label"),
        (CHOSEN, np.zeros(40), "keeps 0.0% of the tokens of rejected answers .*: all its token scores are 0, which agrees with no label"),
        (
            np.ones(40),
            -np.ones(40),
            r"keeps 100.0% of the tokens of chosen answers .1 with a signal., 100.0% of the tokens of rejected .*, above max_kept, 95%: "
            "nearly all .* agree .* or spans that mark nothing",
        ),
    ],
)
def test_a_credit_that_keeps_nothing_or_everything_stops(chosen: np.ndarray, rejected: np.ndarray, message: str) -> None:
    context = pair_context([chosen, None], [rejected, None])
    with pytest.raises(CreditError, match=message):
        ASR(segmenter=Tokens()).prepare(context)
    assert ASR(segmenter=Tokens(), min_kept=0.0, max_kept=1.0).prepare(context)["chosen"].annotated == [True, False]


def test_one_side_may_be_kept_whole() -> None:
    """Of people's marks of errors: most chosen answers have none."""
    kept = ASR(segmenter=Tokens()).prepare(pair_context([np.ones(40), np.ones(8)], [CHOSEN, CHOSEN]))
    assert all(weight.all() for weight in kept["chosen"].weight)
    assert not all(weight.all() for weight in kept["rejected"].weight)
    ASR(segmenter=Tokens()).prepare(pair_context([CHOSEN], [-np.ones(40)]))


def test_the_guard_counts_tokens_not_answers_and_includes_its_bounds() -> None:
    chosen, rejected = [np.where(np.arange(20) < 19, 1.0, -1.0)], [-np.ones(40)]
    ASR(segmenter=Tokens()).prepare(pair_context(chosen, rejected))
    with pytest.raises(CreditError, match=r"95\.2%"):
        ASR(segmenter=Tokens()).prepare(pair_context([*chosen, np.array([1.0])], [*rejected, -np.ones(1)]))


def test_unpaired_answers_are_two_sides() -> None:
    signs = {"answer": np.array([1.0, -1.0])}
    masks = {"answer": [np.ones(8, dtype=bool), np.ones(8, dtype=bool)]}
    context = FakeContext(signs=signs, role_masks=masks, column={"answer": [CHOSEN, CHOSEN]})
    assert weights(ASR().prepare(context)["answer"]) == [[1, 1, 1, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0]]
    bad = FakeContext(signs=signs, role_masks=masks, column={"answer": [CHOSEN, np.ones(8)]})
    with pytest.raises(CreditError, match="of answer, undesirable answers"):
        ASR().prepare(bad)
    worse = FakeContext(signs=signs, role_masks=masks, column={"answer": [-np.ones(8), CHOSEN]})
    with pytest.raises(CreditError, match="of answer, desirable answers"):
        ASR().prepare(worse)


def test_spans_are_kept_to_the_token() -> None:
    """A single marked token, and a mark that ends the answer, are not washed out by their neighbours."""
    marks = np.array([1.0, 1, -1, 1, 1, 1, -1])
    context = pair_context([marks], [marks], spans={"chosen": [marks], "rejected": [marks]})
    columns = ASR().prepare(context)
    assert weights(columns["chosen"]) == [[1, 1, 0, 1, 1, 1, 0]]
    assert weights(columns["rejected"]) == [[0, 0, 1, 0, 0, 0, 1]]


def test_auto_takes_spans_of_all_then_a_column_then_the_runs_own_scorer() -> None:
    marks = np.array([1.0, -1.0, 1.0])
    spans = {"chosen": [marks], "rejected": [marks]}
    column = {"chosen": [-marks], "rejected": [-marks]}
    implicit = {role: [Scored(torch.tensor([1.0, 1.0, -1.0]))] for role in spans}
    masks = {role: [np.ones(3, dtype=bool)] for role in spans}
    signs = {"chosen": np.ones(1), "rejected": -np.ones(1)}

    def chosen(settings: ASR, **signals: object) -> tuple[list[int] | None, FakeContext]:
        context = FakeContext(signs=signs, role_masks=masks, implicit=implicit, table=implicit, **signals)
        return weights(settings.prepare(context)["chosen"])[0], context

    def settings(**more: object) -> ASR:
        return ASR(min_kept=0.0, max_kept=1.0, **more)

    assert chosen(settings(), spans=spans, column=column)[0] == [1, 0, 1]
    assert chosen(settings(), column=column)[0] == [0, 0, 0]  # the closing token belongs to the segment before it, of mean 0
    assert chosen(settings(segmenter=Tokens()), column=column)[0] == [0, 1, 0]
    kept, context = chosen(settings(segmenter=Tokens()))
    assert (kept, context.asked) == ([1, 1, 0], [("table", 0.0)])
    part = {"chosen": [marks], "rejected": [None]}
    kept, context = chosen(settings(), spans=part, column=column)
    assert (kept, context.asked) == ([1, 1, 0], [("table", 0.0)]), "spans on a part of the answers are what the run's own scorer learns from"
    assert chosen(settings(signal=Spans()), spans=part)[0] == [1, 0, 1]
    kept, context = chosen(settings(segmenter=Tokens(), scorer="judge"), spans=spans, column=column)
    assert (kept, context.asked) == ([1, 1, 0], [("judge", 0.1)])
    kept, context = chosen(settings(segmenter=Tokens(), scorer="judge", signal=Implicit(beta=0.5)))
    assert context.asked == [("judge", 0.5)]
    kept, _ = chosen(settings(signal=FunctionSpans(path="f.py:f")), functions={"chosen": [[(1, 2, 1.0)]], "rejected": [[(0, 1, -1.0)]]})
    assert kept == [0, 1, 0]


def test_contradictions_and_missing_signals() -> None:
    for signal in (Spans(), Column(), FunctionSpans(path="f.py:f")):
        with pytest.raises(UsageError, match="contradicts"):
            ASR(scorer="judge", signal=signal)
    with pytest.raises(UsageError, match="two scorers"):
        ASR(scorer="judge", signal=Implicit(scorer="other"))
    assert ASR(scorer="judge", signal=Implicit(scorer="judge")).scorer == "judge"
    assert ASR(scorer="judge", signal=Auto()).signal == Auto()
    empty = FakeContext(signs={}, role_masks={})
    with pytest.raises(UsageError, match="needs a scorer"):
        ASR(signal=Implicit()).prepare(empty)
    with pytest.raises(UsageError, match=r"^the signal function-spans needs your function: --credit\.signal\.path file\.py:name$"):
        ASR(signal=FunctionSpans()).prepare(empty)
    with pytest.raises(CreditError, match="span annotations"):
        ASR(signal=Spans()).prepare(empty)
    with pytest.raises(CreditError, match="token_reward columns"):
        ASR(signal=Column()).prepare(empty)
    for bad in ({"min_kept": 0.5, "max_kept": 0.5}, {"min_kept": -0.1}, {"max_kept": 1.1}):
        with pytest.raises(UsageError, match="min_kept"):
            ASR(**bad)


@pytest.mark.parametrize(
    ("choice", "settings"),
    [(Dynamic, {"window": 0}), (Threshold, {"tau": -1.0}), (Threshold, {"tau": 1.0, "window": 0}), (TopK, {"fraction": 0.0}), (TopK, {"window": 0}),
     (TopK, {"fraction": 1.1}), (Windows, {"size": 0}), (Quantile, {"q": 0.0}), (Quantile, {"q": 1.0})],
)  # fmt: skip
def test_settings_out_of_range(choice: type, settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="got"):
        choice(**settings)


def test_broken_signals_name_their_row() -> None:
    with pytest.raises(CreditError, match="row 1, rejected: the signal is not finite"):
        ASR().prepare(pair_context([CHOSEN, CHOSEN], [REJECTED, np.array([1.0, np.nan])]))
    short = pair_context([CHOSEN], [REJECTED])
    short.role_masks["chosen"][0] = np.ones(9, dtype=bool)
    with pytest.raises(CreditError, match="row 0, chosen: the signal has 8 values, but the answer has 9 tokens"):
        ASR().prepare(short)


def test_nothing_flows_into_the_scorer() -> None:
    values = torch.from_numpy(CHOSEN).clone().requires_grad_()
    context = pair_context([CHOSEN], [CHOSEN], column=None, table={role: [Scored(values)] for role in ("chosen", "rejected")})
    columns = ASR().prepare(context)
    assert isinstance(columns["chosen"].weight[0], np.ndarray)
    assert values.grad is None


def test_segmenters_worked() -> None:
    values, mask = torch.from_numpy(CHOSEN)[None], torch.ones(1, 8, dtype=torch.bool)

    def ids(choice: Dynamic | TopK | Sign | Threshold) -> list[int]:
        got: Tensor = choice(values, mask)
        return got[0].tolist()

    assert ids(Threshold(tau=0.5)) == [0, 1, 1, 2, 2, 2, 3, 3]
    assert ids(Threshold(tau=0.52)) == ids(Dynamic())
    assert ids(TopK(fraction=0.125)) == [0, 0, 0, 0, 0, 0, 1, 1]
    assert ids(TopK(fraction=0.126)) == ids(Dynamic())
    assert ids(Sign()) == [0, 1, 2, 3, 3, 3, 4, 4]
    assert ids(Dynamic(q=-1.5)) == [0, 0, 0, 0, 0, 0, 1, 1]
    flat = torch.zeros(1, 8, dtype=torch.float64)
    for choice in (Dynamic(), Threshold(tau=0.0), TopK(), Sign(), ChangePoint()):
        assert choice(flat, mask).eq(0).all(), choice


def test_change_point_finds_exact_levels_and_ignores_the_unit() -> None:
    level = torch.tensor([[1.0] * 7 + [-1.0] * 5 + [0.5] * 9 + [-1.5] * 6], dtype=torch.float64)
    mask = torch.ones_like(level).bool()
    want = [0] * 7 + [1] * 5 + [2] * 9 + [3] * 6
    noise = 0.2 * torch.randn(level.shape, dtype=torch.float64)
    assert ChangePoint()(level, mask)[0].tolist() == want
    assert ChangePoint()(level + noise, mask)[0].tolist() == want
    assert ChangePoint()(1e-6 * (level + noise), mask)[0].tolist() == want
    assert ChangePoint(centre=10.0)(level + noise + 10, mask)[0].tolist() == want
    assert ChangePoint(k=1e4)(level + noise, mask).eq(0).all()


def test_ends_of_the_quantiles() -> None:
    rows = [torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0, 9.0])]
    assert Quantile(q=0.9)(rows) == pytest.approx([8.2, 8.2])
    assert Quantile(q=0.3)([torch.tensor([4.0])]) == [4.0]


def test_an_answer_without_scores_has_baseline_0() -> None:
    assert ResponseMean()([torch.tensor([]), torch.tensor([2.0, 4.0])]) == [0.0, 3.0]


def test_top_changes_are_changes_and_of_equal_ones_the_earlier() -> None:
    mask = torch.ones(1, 60, dtype=torch.bool)
    stairs = torch.arange(60.0, dtype=torch.float64)[None]
    assert TopK(fraction=0.05)(stairs, mask)[0].tolist() == [0, 1, 2] + [3] * 57
    step = torch.where(torch.arange(60) < 30, 0.0, 1.0).double()[None]
    assert TopK(fraction=1.0)(step, mask)[0].tolist() == [0] * 30 + [1] * 30


def test_zero_is_a_sign_of_its_own() -> None:
    values = torch.tensor([[2.0, 0.0, 0.0, 3.0, -1.0, -2.0]])
    assert Sign()(values, torch.ones(1, 6, dtype=torch.bool))[0].tolist() == [0, 1, 1, 2, 3, 3]


def test_settings_at_their_bounds() -> None:
    assert (TopK(fraction=1.0).fraction, Windows(size=1).size, Dynamic(window=1).window, Threshold(tau=0.0).tau) == (1.0, 1, 1, 0.0)


def test_change_point_estimates_noise_and_levels_about_its_centre() -> None:
    """By a loop over rows: noise^2 from first differences, at least 1e-8 of the power; levels get what remains, at least a twentieth."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor([30, 25, 12, 5, 1] * 8)
    mask = torch.arange(30) < lengths[:, None]
    levels = torch.randn(40, 10, generator=generator, dtype=torch.float64).repeat_interleave(3, 1)
    values = torch.where(mask, 0.4 + 0.6 * levels + 0.7 * torch.randn(40, 30, generator=generator, dtype=torch.float64), torch.nan)
    values[-5:] = torch.where(mask[-5:], values[-5:].nan_to_num().mul(1e-7).add(0.4), torch.nan)
    values[0, :30] = torch.tensor([0.4, 1.4]).double().repeat(15)
    centred = (values - 0.4).masked_fill(~mask, 0.0)
    noise, level = torch.ones(40, dtype=torch.float64), torch.ones(40, dtype=torch.float64)
    for row, length in enumerate(lengths.tolist()):
        own = centred[row, :length]
        power = float(own.square().mean())
        jumps = own.diff().abs()
        scale = float(jumps.median()) / (0.6744897501960817 * 2**0.5) if length > 1 else 0.0
        noise[row] = max(scale**2, 1e-8 * power)
        level[row] = max(power - noise[row], 0.05 * noise[row])
    want = segments_from(change_points(centred, mask, noise, level, 0.7), mask)
    assert ChangePoint(centre=0.4)(values, mask).equal(want)
    assert 40 < int((want.max(1).values + 1).sum()) < int(lengths.sum())
