"""One number of an answer's score for an optimiser: out of its mean, its members and their uncertainty."""

from finegrain.errors import UsageError
from finegrain.ops.aggregate import MeanReward, NominalMix, OfOneAnswer, PerBatch
from finegrain.types import Scored


def check_aggregate(aggregate: OfOneAnswer, *, of_function: bool) -> None:
    """Raises UsageError for an aggregate that one answer of one reward does not determine."""
    if isinstance(aggregate, NominalMix) and isinstance(aggregate.worst, PerBatch):
        raise UsageError("the least member of a batch depends on what stands in it, and answers are scored one by one: take per-sample")
    if of_function and not isinstance(aggregate, MeanReward):
        raise UsageError("aggregate: weighs what a reward model or several policies are unsure of; a function of your own says one number")


def aggregate_answer(aggregate: OfOneAnswer, answer: Scored) -> float:
    """The reward of one answer, given its score (); raises UsageError where the score lacks what the choice reads."""
    mean, std, members, member_std = (None if value is None else value[..., None] for value in answer)
    assert mean is not None
    return float(aggregate(Scored(mean, std, members, member_std))[0])
