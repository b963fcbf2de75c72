"""Why a row, or one of the pairs it could give, gives no example. The value is the kind that the gate counts."""

from collections.abc import Callable, Sequence
from enum import Enum

from finegrain.data.records import Row


class LeftOut(Enum):
    """Reasons of converters; docs/guides/data.md describes each."""

    NO_PREFERENCE = "no_preference"
    """People preferred neither of two answers."""
    NO_RIGHT_ANSWER = "no_right_answer"
    """All answers are wrong."""
    NO_WRONG_ANSWER = "no_wrong_answer"
    """All answers are right."""
    NO_ANSWER = "no_answer"
    """There is no answer."""
    ONE_ANSWER = "one_answer"
    """Only one ranked answer, so there is nothing to compare it with."""
    NOT_ANNOTATED = "not_annotated"
    """Nobody finished marking the answer."""
    NO_CORRECTION = "no_correction"
    """Nobody corrected the answer."""
    UNEQUAL_TURNS = "unequal_turns"
    """The two sides have different numbers of turns."""
    EMPTY_TURN = "empty_turn"
    """A turn is empty."""
    BETTER_NOT_SAFER = "better_not_safer"
    """The better answer is not the safer one."""
    UNSAFE = "unsafe"
    """The better and safer answer is still unsafe."""
    LABELLED_BAD = "labelled_bad"
    """An answer with label 0 is not imitated."""
    UNDECIDED_STEPS = "undecided_steps"
    """No step is wrong, and not all steps are labelled, so the answer is neither right nor wrong."""
    QUALITY_CONTROL = "quality_control"
    """A quality-control question that tests the labeller."""
    SCREENING = "screening"
    """A screening question that was used to select labellers."""
    BAD_PROBLEM = "bad_problem"
    """The labeller marked the problem as bad."""
    NO_STEPS = "no_steps"
    """No step was labelled or written."""


Made = Row | LeftOut
"""What a converter returns: an example, or the reason why there is none."""


def select_examples(made: Sequence[Made]) -> list[Row]:
    """The examples without the reasons."""
    return [one for one in made if isinstance(one, Row)]


def convert_examples(made: Sequence[Made], turn: Callable[[Row], Sequence[Made]]) -> list[Made]:
    """Converts each example; reasons stay unchanged."""
    return [new for one in made for new in (turn(one) if isinstance(one, Row) else (one,))]
