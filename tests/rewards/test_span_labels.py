"""Learning from spans: every term by a loop in float64, unannotated answers, labels as they are prepared, and errors."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import DataError, UsageError
from finegrain.ops.readout import Mean, Sum
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.span_labels import Answers as SingleAnswers
from finegrain.rewards.span_labels import BalancedTokens, SpanLabels
from finegrain.rewards.span_targets import Graded, Merits
from finegrain.rewards.token import Token
from finegrain.types import Pair, Terms
from tests.laws.pairs import make_pair
from tests.rewards.answers import Answers

NAN = math.nan
ASPECTS = Token(readout=Mean(), aspects=("one", "two"), weights=(2.0, 0.5))
FITS = {
    "token": RewardFit(Token(), SpanLabels(pair_weight=0.7)),
    "mean": RewardFit(Token(readout=Mean()), SpanLabels()),
    "balanced": RewardFit(Token(), SpanLabels(weighting=BalancedTokens())),
    "aspects": RewardFit(ASPECTS, SpanLabels(weighting=BalancedTokens())),
    "gaussian": RewardFit(Gaussian(readout=Sum()), SpanLabels()),
    "answers": RewardFit(Token(), SpanLabels(rows=SingleAnswers())),
}


def step_loss(terms: Terms) -> Tensor:
    """As the loop has it: every term a quotient of sums over the step."""
    return torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in terms.values()]).sum()


def naive(fit: RewardFit, pair: Pair) -> float:
    """The loss by loops over rows, tokens and aspects, in plain Python floats."""
    head, loss = fit.head, fit.loss
    assert isinstance(loss, SpanLabels)
    aspects = len(head.aspects) if isinstance(head, Token) and head.aspects else 1
    sums: dict[tuple[int, str], list[float]] = {}
    scores: dict[str, list[float]] = {}
    for role, side in pair.sides.items():
        assert side.outputs is not None
        assert side.labels is not None
        for row, annotated in enumerate(pair.columns[f"annotated/{role}"].tolist()):
            tokens = []
            for place in range(side.mask.shape[1]):
                if not side.mask[row, place]:
                    continue
                out = side.outputs[row, place].tolist()
                tokens.append(2 * out[0] + 0.5 * out[1] if aspects == 2 else out[0])
                for aspect in range(aspects if annotated else 0):
                    label = float(side.labels[row, place, aspect])
                    bad, good = math.log1p(math.exp(out[aspect])), math.log1p(math.exp(-out[aspect]))
                    if isinstance(head, Gaussian):
                        std = math.exp(min(max(out[1], -5.0), 2.0))
                        bad = good = 0.5 * ((2 * label - 1 - out[0]) / std) ** 2 + math.log(std) + 0.5 * math.log(2 * math.pi)
                    weights = {"bad": (1 - label, bad), "good": (label, good)}
                    for name, (weight, value) in weights.items():
                        total = sums.setdefault((aspect, name if isinstance(loss.weighting, BalancedTokens) else ""), [0.0, 0.0])
                        total[0], total[1] = total[0] + weight * value, total[1] + weight
            combine = sum(tokens) / len(tokens) if tokens and isinstance(head.readout, Mean) else sum(tokens)
            scores.setdefault(role, []).append(combine)
    found = sum(value / weight / aspects * (0.5 if name else 1.0) for (_, name), (value, weight) in sums.items())
    if "chosen" in scores:
        differences = [a - b for a, b in zip(scores["chosen"], scores["rejected"], strict=True)]
        found += loss.pair_weight * sum(math.log1p(math.exp(-one)) for one in differences) / len(differences)
    return found


@pytest.mark.parametrize("name", FITS)
def test_against_loops_with_gradients(name: str) -> None:
    fit = FITS[name]
    pair = make_pair(fit)
    assert float(step_loss(fit(pair))) == pytest.approx(naive(fit, pair), rel=1e-12)
    role, side = next(iter(pair.sides.items()))
    assert side.outputs is not None
    live = side.outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(step_loss(fit(replace(pair, sides={**pair.sides, role: replace(side, outputs=live)}))), live)
    for place in [(0, 0, 0), (0, 2, 0), (2, 1, 0), (1, 0, live.shape[2] - 1), (4, 0, live.shape[2] - 1)]:
        shifted = []
        for step in (1e-5, -1e-5):
            moved = side.outputs.clone()
            moved[place] += step
            shifted.append(naive(fit, replace(pair, sides={**pair.sides, role: replace(side, outputs=moved)})))
        assert float(slope[place]) == pytest.approx((shifted[0] - shifted[1]) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("head", [Token(), Gaussian(readout=Sum())], ids=["token", "gaussian"])
def test_an_unannotated_answer_has_its_pair_alone(head: Any) -> None:
    fit = RewardFit(head, SpanLabels(pair_weight=0.3))
    pair = make_pair(fit)
    nobody = torch.zeros_like(pair.columns["row"])
    pair = replace(pair, columns={**pair.columns, "annotated/chosen": nobody, "annotated/rejected": nobody})
    terms = fit(pair)
    assert isinstance(terms, dict)
    assert not terms["tokens"].value.any()
    assert not terms["tokens"].count.any()
    expected = BradleyTerry()(head, pair)
    assert bool((terms["pairs"].value == expected).all())
    assert terms["pairs"].coefficient == 0.3
    outputs = pair.chosen.outputs
    assert outputs is not None

    def slope(loss: Callable[[Pair], Tensor]) -> Tensor:
        live = outputs.clone().requires_grad_()
        sides = {**pair.sides, "chosen": replace(pair.chosen, outputs=live)}
        (found,) = torch.autograd.grad(loss(replace(pair, sides=sides)), live)
        return found

    assert bool((slope(lambda own: sum_of(fit(own))) == slope(lambda own: BradleyTerry()(head, own).sum())).all())


def sum_of(terms: Any) -> Tensor:
    """Sum of the values, without denominators and coefficients."""
    return torch.stack([term.value.sum() for term in terms.values()]).sum()


def test_a_role_that_nobody_annotated_has_no_labels() -> None:
    fit = FITS["token"]
    pair = make_pair(fit)
    nobody = {"annotated/rejected": torch.zeros_like(pair.columns["row"])}
    bare = replace(pair, sides={**pair.sides, "rejected": replace(pair.rejected, labels=None)}, columns={**pair.columns, **nobody})
    labelled = replace(pair, columns={**pair.columns, **nobody})
    assert float(step_loss(fit(bare))) == float(step_loss(fit(labelled)))


def test_without_pair_weight_there_is_no_pair_term() -> None:
    fit = RewardFit(Token(), SpanLabels(pair_weight=0.0))
    assert list(fit(make_pair(fit))) == ["tokens"]
    assert set(RewardFit(ASPECTS, SpanLabels())(make_pair(FITS["aspects"]))) == {"tokens/one", "tokens/two", "pairs"}


def prepared(loss: SpanLabels, spans: dict[str, list[Any]], head: Any = None, *, trains: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Labels by role, and what is noted; every token trains but the last of each answer."""
    values = {role: [None if own is None else np.array(own, dtype=np.float32) for own in answers] for role, answers in spans.items()}
    length = {role: [3 if own is None else own.shape[1] for own in answers] for role, answers in values.items()}
    masks = {role: [np.arange(size) < size - 1 for size in sizes] for role, sizes in length.items()}
    answers = Answers(roles=tuple(spans), trains=trains, role_masks=masks, spans=values)
    return dict(RewardFit(head or Token(), loss).prepare(answers)), answers.noted


def test_labels_of_errors_and_merits() -> None:
    spans = {"chosen": [[[[NAN], [-5.0], [-0.1], [2.0]]], None], "rejected": [None, [[[NAN], [NAN], [NAN]]]]}
    columns, noted = prepared(SpanLabels(), spans)
    assert columns["chosen"].labels[0].tolist() == [[1.0], [0.0], [0.0], [1.0]]
    assert columns["chosen"].labels[1] is None
    assert columns["rejected"].labels[1].tolist() == [[1.0], [1.0], [1.0]]
    assert columns["chosen"].annotated == [True, False]
    assert noted["span_labels"] == {"answers": 4, "annotated_answers": 2, "tokens_of_annotated_answers": 5, "marked_tokens": 2}
    graded, _ = prepared(SpanLabels(grade=Graded(full=5.0)), spans)
    np.testing.assert_allclose(graded["chosen"].labels[0], [[1.0], [0.0], [0.98], [1.0]], rtol=1e-6)
    merits, _ = prepared(SpanLabels(meaning=Merits(), grade=Graded(full=4.0)), {"chosen": [[[[NAN], [-5.0], [2.0], [9.0]]]], "rejected": [None]})
    assert merits["chosen"].labels[0].tolist() == [[0.0], [0.0], [0.5], [1.0]]


def test_labels_of_several_annotators_are_their_mean() -> None:
    columns, _ = prepared(SpanLabels(), {"chosen": [[[[NAN], [-1.0], [-1.0]], [[NAN], [NAN], [-1.0]]]], "rejected": [None]})
    assert columns["chosen"].labels[0].tolist() == [[1.0], [0.5], [0.0]]


def test_training_answers_must_teach_something() -> None:
    nothing = {"chosen": [None], "rejected": [None]}
    with pytest.raises(DataError, match="none of the 2 training answers is annotated"):
        prepared(SpanLabels(), nothing)
    assert prepared(SpanLabels(), nothing, trains=False)[0]["chosen"].annotated == [False]
    unmarked = {"chosen": [[[[1.0], [NAN], [-1.0]]]], "rejected": [None]}  # the error is on a token that does not train
    with pytest.raises(DataError, match=r"no token of the 1 annotated training answers is marked.*need loss.meaning:merits"):
        prepared(SpanLabels(), unmarked)
    assert prepared(SpanLabels(meaning=Merits()), unmarked)[1]["span_labels"]["marked_tokens"] == 1
    with pytest.raises(DataError, match="is marked with two:"):
        prepared(SpanLabels(), {"chosen": [[[[-1.0, NAN], [NAN, NAN]]]], "rejected": [None]}, ASPECTS)


def test_aspects_need_this_loss() -> None:
    with pytest.raises(UsageError, match="only SpanLoss fits every part of a Token head, found BradleyTerry"):
        RewardFit(ASPECTS, BradleyTerry())
    for wrong in ({"aspects": ("a", "a")}, {"aspects": ("a",), "weights": (1.0, 2.0)}, {"aspects": ("a",), "weights": (0.0,)}):
        with pytest.raises(UsageError, match=r"--head\."):
            Token(**wrong)


def test_token_nll_is_the_mean_over_an_answers_tokens() -> None:
    fit = FITS["token"]
    pair = make_pair(fit)
    assert isinstance(fit.loss, SpanLabels)
    found = fit.loss.measures(Token(), pair)["token_nll"]
    terms = fit(pair)
    assert isinstance(terms, dict)
    known = terms["tokens"].count > 0
    assert bool(found[~known].isnan().all())
    torch.testing.assert_close(found[known], (terms["tokens"].value / terms["tokens"].count)[known], rtol=1e-12, atol=0.0)
