"""Drafts by look-up, and the counts of EMS-SD: its own example, and what they are when drafts are all right or all wrong."""

import pytest

from finegrain.generate.lookup import LookUp, count_accepted, pad_all


def test_the_papers_example() -> None:
    """Inputs and predictions of four answers in one packed pass; a finished one has no input."""
    inputs, predictions = [0, 0, 4, 4, 1, 1, 4, 2, 1, 4, 1], [2, 3, 4, 0, 0, 4, 3, 1, 2, 4, 1]
    assert count_accepted([2, 2, 3, 4], inputs, predictions, {99}) == [1, 2, 1, 2]
    assert count_accepted([2, 2, 0, 3, 4], inputs, predictions, {99}) == [1, 2, 0, 1, 2]
    assert (pad_all([1, 4, 2]), sum([1, 4, 2])) == (12, 7)
    assert pad_all([]) == 0


def test_an_end_token_stops_the_drafts_behind_it() -> None:
    assert count_accepted([4], [5, 6, 2, 7], [6, 2, 7, 8], {99}) == [4]
    assert count_accepted([4], [5, 6, 2, 7], [6, 2, 7, 8], {2}) == [2]
    assert count_accepted([1, 1], [5, 6], [9, 9], {2}) == [1, 1]


@pytest.mark.parametrize(
    ("answer", "most", "want"),
    [
        ([], 9, [9, 8, 9]),
        ([1], 9, []),
        ([1, 2], 3, [3, 8, 9]),
        ([1, 2, 3, 1, 2], 2, [3, 1]),
        ([7, 8, 7, 8, 7], 9, [8, 7]),
        ([2, 3], 0, []),
    ],
)
def test_what_followed_the_last_tokens_is_proposed(answer: list[int], most: int, want: list[int]) -> None:
    """The latest place wins, that of the answer before that of the prompt, whose last tokens count too."""
    prompt = LookUp(2, [1, 2, 3, 1, 2, 3, 8, 9, 9, 8, 9])
    own = LookUp(2, prompt=prompt)
    for token in answer:
        own.add(token)
    assert own.propose(most) == want
    assert prompt.propose(2) == [9, 8], "an answer adds nothing to its prompt"
