"""conserve: rewards keep their sum on other tokens of the same text, and their places on the same ones."""

import numpy as np
import pytest
import torch

from finegrain.data.records import Response
from finegrain.errors import UsageError
from finegrain.scoring.conserve import conserve_scores, divide
from finegrain.scoring.records import Scores
from finegrain.types import CharSpan, Scored


def cut(text: str, ends: list[int], *, first_id: int = 0, end: bool = True) -> Response:
    """The text in tokens that end there, then an end token."""
    places = [*zip([0, *ends[:-1]], ends, strict=True), *([(0, 0)] if end else [])]
    ids = np.arange(first_id, first_id + len(places), dtype=np.int32)
    return Response(ids, np.ones(len(ids), bool), np.array(places, dtype=np.int32).reshape(-1, 2), text)


def scores(values: list[float], response: Response) -> Scores:
    tokens = torch.tensor(values, dtype=torch.float64)
    return Scores(Scored(tokens.sum()), Scored(tokens), response)


def moved(values: list[float], response: Response, own: Response) -> list[float]:
    found = conserve_scores(scores(values, response), own)
    assert found is not None
    return found.tolist()


def test_same_tokens() -> None:
    one = cut("abcdef", [2, 3, 6])
    assert moved([0.1, -0.7, 0.3, 5.0], one, one) == [0.1, -0.7, 0.3, 5.0]


def test_in_proportion_to_characters() -> None:
    assert moved([6.0, 1.0, 9.0], cut("abcdef", [4, 6]), cut("abcdef", [1, 5, 6], first_id=9)) == pytest.approx([1.5, 5.0, 0.5, 9.0])


def test_sums_stay() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        length = int(rng.integers(1, 30))
        one, other = (
            cut("x" * length, sorted({*rng.integers(1, length + 1, 6).tolist(), length}), first_id=100 * place, end=bool(rng.random() < 0.5))
            for place in range(2)
        )
        values = rng.normal(size=len(one.ids))
        assert sum(moved(values.tolist(), one, other)) == pytest.approx(values.sum(), abs=1e-12)
        mask = rng.random(len(other.ids)) < 0.7
        mask[0] = True
        holes = Response(other.ids, mask, other.offsets, other.text)
        found = np.array(moved(values.tolist(), one, holes))
        assert found.sum() == pytest.approx(values.sum(), abs=1e-12)
        assert not found[~mask].any()


def test_end_tokens() -> None:
    text, ended, open_ended = "abcd", cut("abcd", [2, 4]), cut("abcd", [1, 4], first_id=9, end=False)
    assert moved([0.0, 0.0, 7.0], ended, cut(text, [1, 4], first_id=9)) == [0.0, 0.0, 7.0]
    assert moved([0.0, 0.0, 7.0], ended, open_ended) == [0.0, 7.0], "the last token has what the end token got"
    glue = Response(
        np.arange(4, dtype=np.int32), np.array([True, True, True, False]), np.array([(0, 2), (2, 4), (0, 0), (0, 0)], dtype=np.int32), text
    )
    assert moved([0.0, 0.0, 7.0, 0.0], glue, cut(text, [1, 4], first_id=9)) == [0.0, 0.0, 7.0]
    only_end = Response(np.array([2], dtype=np.int32), np.ones(1, bool), np.zeros((1, 2), dtype=np.int32), text)
    assert moved([1.0, 2.0, 3.0], ended, only_end) == [6.0]


def test_parts_of_a_character() -> None:
    """Three bytes of one character: by our tokenizer all cover it, by sampled tokens the last."""
    shared = Response(np.arange(3, dtype=np.int32), np.ones(3, bool), np.array([(0, 1), (0, 1), (0, 1)], dtype=np.int32), "é")
    late = Response(np.arange(9, 12, dtype=np.int32), np.ones(3, bool), np.array([(0, 0), (0, 0), (0, 1)], dtype=np.int32), "é")
    assert moved([1.0, 2.0, 3.0], shared, late) == [0.0, 0.0, 6.0]
    assert moved([1.0, 2.0, 3.0], late, shared) == [4.0, 1.0, 1.0]
    assert divide(np.array([3.0]), np.array([(0, 1)]), shared).tolist() == [1.0, 1.0, 1.0]


def test_spans() -> None:
    own = cut("ab cd", [2, 5])
    spans = (CharSpan(1, 4, 3.0), CharSpan(0, 5, -5.0))
    assert conserve_scores(Scores(Scored(torch.tensor(-2.0)), spans=spans), own).tolist() == pytest.approx([1.0 - 2.0, 2.0 - 3.0, 0.0])  # type: ignore[union-attr]
    gap = Response(np.arange(2, dtype=np.int32), np.ones(2, bool), np.array([(0, 2), (3, 5)], dtype=np.int32), "ab cd")
    assert divide(np.array([4.0]), np.array([(2, 3)]), gap).tolist() == [4.0, 0.0], "a blank of no token is the token's before it"


def test_numbers() -> None:
    own = cut("abcd", [2, 4])
    numbers = lambda *values: conserve_scores(Scores(Scored(torch.tensor(0.0)), numbers=values), own)
    assert numbers(1.0, 2.0, 3.0).tolist() == [1.0, 2.0, 3.0]  # type: ignore[union-attr]
    assert numbers(1.0, 2.0).tolist() == [1.0, 2.0, 0.0], "the end token gets none"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="4 rewards for an answer of 3 tokens"):
        numbers(1.0, 2.0, 3.0, 4.0)


def test_nothing_to_stand_on() -> None:
    empty = Response(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros((0, 2), np.int32), "")
    assert conserve_scores(scores([1.0, 2.0, 3.0], cut("abcd", [2, 4])), empty) is None
    assert conserve_scores(Scores(Scored(torch.tensor(1.0))), cut("abcd", [2, 4])) is None
