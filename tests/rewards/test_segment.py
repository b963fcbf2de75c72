"""Segments by entropy, their readout, and the gradient that reaches ends alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.ops.segmenters import ChangePoint, Dynamic, Sign, Threshold, Tokens, TopK, Whole, Windows
from finegrain.ops.segments import place_in_row, segment_ends
from finegrain.ops.text_segmenters import EntropyCutoff
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.segment import Segment, Segmenter, cut_segments
from finegrain.rewards.sequence import Sequence
from finegrain.types import Pair, Side
from tests.rewards.answers import Answers
from tests.rewards.sides import side

NO, YES = False, True


def ids_of(segmenter: Segmenter, predicting: list[float], mask: list[bool] | None = None) -> Tensor:
    """Segment ids by entropies that stand on the token they predict."""
    return cut_segments(segmenter, torch.tensor([predicting]), torch.tensor([mask or [True] * len(predicting)]))


def ends(segmenter: Segmenter, entropy: list[float], mask: list[bool] | None = None) -> list[int]:
    """Ends by entropies that stand on the token after which they were read, as in the authors' code."""
    return segment_ends(ids_of(segmenter, [0.0, *entropy[:-1]], mask))[0].nonzero()[:, 0].tolist()


def test_without_a_peak_the_answer_is_one_segment_before_its_end_token() -> None:
    assert ends(EntropyCutoff(), [0.5] * 7) == [5]
    assert ends(EntropyCutoff(cutoff=1e9), [9.0] * 7) == [5]


def test_a_cutoff_of_0_makes_every_token_a_segment() -> None:
    assert ends(EntropyCutoff(cutoff=0.0), [0.1] * 5) == [0, 1, 2, 3]


def test_end_rules() -> None:
    """By the authors' code: strictly above; an end at EOS moves one to the left, or is dropped where there is one already."""
    assert ends(EntropyCutoff(), [3.0, 2.0, 2.1, 0.0, 0.0, 0.0]) == [0, 2, 4]
    assert ends(EntropyCutoff(), [0.0, 0.0, 0.0, 9.0]) == [2]
    assert ends(EntropyCutoff(), [0.0, 0.0, 9.0, 9.0]) == [2]
    assert ends(EntropyCutoff(), [0.0]) == [0], "a lone token is its own segment"
    assert ends(EntropyCutoff(), [9.0]) == [0]
    assert ends(EntropyCutoff(), [9.0, 9.0]) == [0]


def test_turns_are_cut_apart_and_garbage_off_the_mask_says_nothing() -> None:
    nan = float("nan")
    mask = [YES, YES, YES, NO, YES, YES, NO]
    assert ends(EntropyCutoff(), [0.0, 9.0, 0.0, nan, 9.0, 0.0, nan], mask) == [1, 4]
    assert ends(Windows(size=1), [nan] * 7, mask) == [0, 1, 4]


def test_windows() -> None:
    assert ends(Windows(size=2), [0.0] * 6) == [1, 3, 4]


ENTROPIES = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0]
"""Entropy of predicting each of ten tokens; the mean is 1.8."""
OWN = {
    "cutoff": (EntropyCutoff(cutoff=2.0), [0, 0, 0, 1, 2, 3, 4, 4, 4, -1]),
    "dynamic": (Dynamic(), [0, 0, 0, 1, 1, 1, 1, 2, 2, -1]),
    "threshold": (Threshold(tau=1.0), [0, 0, 0, 1, 1, 1, 1, 2, 2, -1]),
    "top-k": (TopK(fraction=0.1), [0, 0, 0, 1, 1, 1, 1, 1, 1, -1]),
    "sign": (Sign(), [0, 0, 0, 1, 1, 1, 1, 2, 2, -1]),
    "change-point": (ChangePoint(), [0, 0, 0, 1, 1, 1, 1, 2, 2, -1]),
    "windows": (Windows(size=4), [0, 0, 0, 0, 1, 1, 1, 1, 2, -1]),
    "tokens": (Tokens(), [0, 1, 2, 3, 4, 5, 6, 7, 8, -1]),
    "whole": (Whole(), [0, 0, 0, 0, 0, 0, 0, 0, 0, -1]),
}


@pytest.mark.parametrize("name", OWN)
def test_every_segmenter_cuts_the_curve_of_entropies(name: str) -> None:
    """By hand: the curve jumps where token 3 and token 7 are predicted; those less the mean are its signs."""
    segmenter, expected = OWN[name]
    assert ids_of(segmenter, ENTROPIES).tolist() == [expected]


@pytest.mark.parametrize("name", OWN)
def test_segments_of_turns_are_numbered_on_and_skip_closing_tokens(name: str) -> None:
    """Two turns and a hole: ids 0, 1, ... without a gap, none on a closing token, none over the hole, whatever lies there."""
    nan = float("nan")
    mask = [YES] * 4 + [NO, NO] + [YES] * 5 + [NO]
    entropies = [1.0, 1.0, 4.0, 4.0, nan, nan, 4.0, 1.0, 1.0, 4.0, 1.0, nan]
    (ids,) = ids_of(OWN[name][0], entropies, mask).tolist()
    assert [place for place, own in enumerate(ids) if own < 0] == [3, 4, 5, 10, 11]
    inside = [own for own in ids if own >= 0]
    assert sorted(set(inside)) == list(range(max(inside) + 1))
    assert inside == sorted(inside)
    assert ids[2] != ids[6]


def test_a_closing_token_alone_is_a_segment() -> None:
    assert ids_of(Tokens(), [3.0, 1.0, 2.0], [YES, NO, YES]).tolist() == [[0, -1, 1]]


def test_the_model_is_asked_where_the_segmenter_reads_it() -> None:
    asks = {name: Segment(segmenter=own).reads_entropy for name, (own, _) in OWN.items()}
    assert [name for name, asked in asks.items() if not asked] == ["windows", "tokens", "whole"]
    for name, (own, expected) in OWN.items():
        blind = ids_of(own, [0.0] * 10).tolist() == [expected]
        assert blind is not asks[name] or expected == ids_of(Whole(), ENTROPIES)[0].tolist()


def test_segments_of_every_role_are_made_before_training() -> None:
    """By the entropies of the role's own answers, of unequal length; a segmenter that reads none asks for none."""
    masks = {"chosen": [np.ones(4, bool), np.ones(2, bool)], "rejected": [np.array([True, False, True])]}
    entropies = {"chosen": [np.array([0.0, 9.0, 0.0, 0.0], np.float32), np.array([0.0, 9.0], np.float32)], "rejected": [np.full(3, 9.0, np.float32)]}
    made = Segment().prepare(Answers(roles=("chosen", "rejected"), role_masks=masks, predicting=entropies))
    tolists = lambda role: [None if own is None else own.tolist() for own in made[role].segment]
    assert (tolists("chosen"), tolists("rejected")) == ([[0, 1, 1, -1], [0, -1]], [[0, -1, 1]])
    assert made["chosen"].weight == made["chosen"].reward == [None, None]
    blind = Segment(segmenter=Windows(size=2)).prepare(Answers(roles=("chosen",), role_masks=masks))
    assert [None if own is None else own.tolist() for own in blind["chosen"].segment] == [[0, 0, 1, -1], [0, -1]]


def naive_ends(entropy: list[float], cutoff: float) -> list[int]:
    """The authors' rule as it is written, one answer without holes."""
    found = [t for t, value in enumerate(entropy) if value > cutoff]
    last = len(entropy) - 1
    if last == 0:
        return [0]
    if not found:
        return [last - 1]
    if found[-1] == last:
        found.pop()
    return found if found and found[-1] == last - 1 else [*found, last - 1]


def test_against_the_rule_as_written() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        entropy = rng.gamma(2.0, 1.0, rng.integers(1, 12)).round(3).tolist()
        assert ends(EntropyCutoff(cutoff=1.5), entropy) == naive_ends(entropy, 1.5)


def with_segments(outputs: list[list[list[float]]], ids: list[list[int]]) -> Side:
    made = side(outputs)
    width = made.mask.shape[1]
    return replace(made, segment=torch.tensor([row + [-1] * (width - len(row)) for row in ids]))


JUDGED = with_segments([[[1.0], [2.0], [7.0], [-6.0], [50.0]], [[0.5]]], [[0, 0, 1, 1, -1], [0]])


@pytest.mark.parametrize(("readout", "expected"), [(Mean(), [-2.0, 0.5]), (Sum(), [-4.0, 0.5]), (Last(), [-6.0, 0.5]), (Minimum(), [-6.0, 0.5])])
def test_ends_are_read_and_the_end_token_is_not(readout: Mean | Sum | Last | Minimum, expected: list[float]) -> None:
    assert sequence_score(Segment(readout=readout), JUDGED).mean.tolist() == expected


def test_one_segment_up_to_the_end_token_is_the_sequence_head() -> None:
    whole = with_segments([[[1.0], [2.0], [7.0]], [[0.5]]], [[0, 0, 0], [0]])
    torch.testing.assert_close(sequence_score(Segment(), whole).mean, sequence_score(Sequence(), whole).mean, rtol=0, atol=1e-12)


def test_the_gradient_reaches_ends_alone() -> None:
    chosen, rejected = JUDGED, with_segments([[[0.0], [1.0], [3.0]], [[2.0], [4.0]]], [[0, 1, 1], [0, -1]])
    live = [each.outputs.clone().requires_grad_() for each in (chosen, rejected) if each.outputs is not None]
    judged = Pair(sides={"chosen": replace(chosen, outputs=live[0]), "rejected": replace(rejected, outputs=live[1])})
    losses = BradleyTerry()(Segment(), judged)
    grads = [grad.nan_to_num(0.0)[..., 0] for grad in torch.autograd.grad(losses.sum(), live)]
    d = [-2.0 - 1.5, 0.5 - 2.0]
    s = [1 / (1 + math.exp(x)) for x in d]  # 1 - sigma(d)
    torch.testing.assert_close(grads[0], real([[0, -s[0] / 2, 0, -s[0] / 2, 0], [-s[1], 0, 0, 0, 0]]))
    torch.testing.assert_close(grads[1], real([[s[0] / 2, 0, s[0] / 2], [s[1], 0, 0]]))


def real(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_places() -> None:
    assert place_in_row(torch.tensor([[0, 0, 1, -1], [0, 1, 2, 3]])).tolist() == [[0.5, 0.5, 1.0, 0.0], [0.25, 0.5, 0.75, 1.0]]


def test_the_normaliser_is_fitted_to_scores_where_segments_end() -> None:
    """Four answers of two segments, at 1/2 and at 1: means 2 and 6, standard deviations 1 and 2; a line in log p goes through both."""
    tokens = [[[99.0], [half], [99.0], [end]] for half, end in ((1.0, 4.0), (3.0, 8.0), (1.0, 8.0), (3.0, 4.0))]
    sides = [with_segments(tokens[:2], [[0, 0, 1, 1]] * 2), with_segments(tokens[2:], [[0, 0, 1, 1]] * 2)]
    found = Segment().fitted(sides)["location"]
    assert set(found) == {"mean_slope", "std_slope", "mean_at_end", "std_at_end", "floor"}
    assert found["mean_at_end"] == pytest.approx(6.0, abs=1e-2)
    assert found["std_at_end"] == pytest.approx(2.0, abs=1e-2)
    assert found["mean_slope"] == pytest.approx(4.0 / math.log(2), abs=2e-2)
    assert found["std_slope"] == pytest.approx(1.0 / math.log(2), abs=2e-2)
    assert Segment().fitted([with_segments(tokens[:1], [[0, 0, 1, 1]])]) == {}, "one answer has no spread anywhere"


def test_answers_without_segments_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="ends of segments"):
        sequence_score(Segment(), side([[[1.0]]]))


@pytest.mark.parametrize("made", [lambda: EntropyCutoff(cutoff=-1.0), lambda: EntropyCutoff(cutoff=math.nan), lambda: Windows(size=0)])
def test_bad_settings(made: object) -> None:
    with pytest.raises(UsageError):
        made()  # type: ignore[operator]
