"""Token signals of examined answers compared with annotators' marks or the planted truth."""

import numpy as np

from finegrain.data.annotators import group_spans
from finegrain.data.spans import spans_to_tokens
from finegrain.diagnose.agreement import disagreement
from finegrain.report.pairs import ExaminedAnswer, ExaminedPair
from finegrain.types import CharSpan

SIGNALS = {"reward": "token reward", "ratio": "log-ratio", "weight": "credit weight (counted against the rejected answer)"}
MARKS = {"spans": "people's spans", "truth": "planted truth"}


def get_signal(answer: ExaminedAnswer, role: str, name: str) -> np.ndarray | None:
    """The signal, with its sign such that better tokens should have more of it: a weight counts against a rejected answer."""
    values: np.ndarray | None = getattr(answer, name)
    if values is None or (name == "weight" and (values == values[:1]).all()):
        return None
    return -values if name == "weight" and role == "rejected" else values


def answer_disagreement(answer: ExaminedAnswer, role: str, name: str, marks: tuple[CharSpan, ...] | None) -> float:
    """Chance that a better marked token has the lower signal; NaN where either is missing."""
    values = get_signal(answer, role, name)
    if values is None or not marks:
        return float("nan")
    own = [
        spans_to_tokens(group, answer.offsets, outside=0.0)
        for group in group_spans(marks, answer.annotators if marks is answer.spans else ()).values()
    ]
    return disagreement(np.asarray(values, dtype=np.float64), np.mean(own, axis=0), answer.mask)


def pair_disagreement(pair: ExaminedPair) -> float:
    """Mean over the pair's answers of the disagreement with the token reward if present, else with the log-ratio; by spans, else by the truth."""
    found = [
        answer_disagreement(answer, role, "reward" if answer.reward is not None else "ratio", answer.spans or answer.truth)
        for role, answer in pair.answers.items()
    ]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
