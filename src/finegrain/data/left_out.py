"""Why a row, or one of the pairs it could make, gives no example. The value is the kind that the gate counts."""

from collections.abc import Callable, Sequence
from enum import Enum

from finegrain.data.records import Row


class LeftOut(Enum):
    """Reasons of converters; every one is told in docs/guides/data.md."""

    NO_PREFERENCE = "no_preference"
    """People preferred neither of two answers."""
    NO_RIGHT_ANSWER = "no_right_answer"
    """All answers are wrong."""
    NO_WRONG_ANSWER = "no_wrong_answer"
    """All answers are right."""
    NO_ANSWER = "no_answer"
    """There is none."""
    ONE_ANSWER = "one_answer"
    """One ranked answer, which nothing stands beside."""
    UNEQUAL_TURNS = "unequal_turns"
    """The two sides have different numbers of turns."""
    EMPTY_TURN = "empty_turn"
    """A turn says nothing."""
    BETTER_NOT_SAFER = "better_not_safer"
    """The better answer is not the safer one."""
    UNSAFE = "unsafe"
    """The better and safer answer is unsafe all the same."""
    LABELLED_BAD = "labelled_bad"
    """An answer with label 0 is not imitated."""
    UNDECIDED_STEPS = "undecided_steps"
    """No step is wrong, and not all are labelled: the answer is neither right nor wrong."""
    QUALITY_CONTROL = "quality_control"
    """A question that tests the labeller."""
    SCREENING = "screening"
    """A question that chose the labellers."""
    BAD_PROBLEM = "bad_problem"
    """The labeller calls the problem bad."""
    NO_STEPS = "no_steps"
    """No step was labelled or written."""


Made = Row | LeftOut
"""What a converter makes: an example, or the reason why there is none."""


def examples(made: Sequence[Made]) -> list[Row]:
    """The examples alone."""
    return [one for one in made if isinstance(one, Row)]


def turned(made: Sequence[Made], turn: Callable[[Row], Sequence[Made]]) -> list[Made]:
    """What each example becomes, reasons untouched."""
    return [new for one in made for new in (turn(one) if isinstance(one, Row) else (one,))]
