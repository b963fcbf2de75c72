"""How well a rating head does on each rating of the held-out answers: accuracy, distance, size and spread of its logits, and their means."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from finegrain.evaluate.ratings import report_ratings
from finegrain.ops.stats import Interval
from finegrain.rewards.lort import logit_magnitude
from finegrain.rewards.rating import Rating
from finegrain.rewards.rating_labels import predict_ratings
from finegrain.types import Pair


def rating_measures(head: Rating, pairs: Sequence[Pair], training: Float[np.ndarray, " N"]) -> dict[str, Interval]:
    """eval_rating_* by name; `training`: places of the ratings that were trained on.

    Fractional ratings count as the nearest of the scale, and ratings nobody gave are left out.
    """
    logits, labels = predict_ratings(pairs)
    report = report_ratings(logits.argmax(1).numpy(), labels.numpy(), dict(enumerate(np.bincount(training.round().astype(int)).tolist())))
    magnitude, spread = (values.tolist() for values in logit_magnitude(logits, labels))
    found = {
        "eval_rating_balanced_accuracy": report.balanced_accuracy,
        "eval_rating_balanced_error": Interval(report.balanced_error, None, None, len(labels)),
        **{f"eval_rating_exact_of_{group}": accuracy for group, accuracy in report.groups.items()},
    }
    for place, accuracy in report.accuracy.items():
        rating = f"{head.lowest + place:g}"
        found[f"eval_rating_exact/{rating}"] = accuracy
        found[f"eval_rating_error_of_class/{rating}"] = report.absolute_error[place]
        if len(report.accuracy) > 1:
            found[f"eval_rating_magnitude/{rating}"] = Interval(magnitude[place], None, None, accuracy.rows)
            if magnitude[place] != 0:
                found[f"eval_rating_relative_std/{rating}"] = Interval(spread[place], None, None, accuracy.rows)
    return found
