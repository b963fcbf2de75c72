"""Spans of several annotators of one answer as token values: the mean over the annotators and its standard deviation.

Source: ours [OURS]; a few annotators estimate the variance of one token poorly, so it is shrunk towards the mean variance of the data.
Deviations: not from a paper; the weight of that mean variance (four observations) is a [choice].

Annotator a of n gives token t the value x_at: that of a's span, else `outside`. With m_t their mean, s_t^2 = sum_a (x_at - m_t)^2 / (n - 1), and
pooled = the mean of s_t^2 over all tokens of all answers with n >= 2 in the data (the prior variance, estimated from the data: empirical Bayes),

    std_t^2 = (N0 * pooled + (n - 1) * s_t^2) / ((N0 + n - 1) * n),    N0 = 4.

So one annotator of data that several annotated elsewhere has the standard deviation of one, sqrt(pooled), and n who agree have less than
sqrt(pooled / n). A span's own `std` adds std^2 / n^2 for each annotator; where annotators state them, a token in none of their spans has the root
mean square of all stated ones [choice].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int

from finegrain.data.spans import spans_to_tokens
from finegrain.types import CharSpan

N0 = 4.0
"""Weight of the pooled variance, in observations."""


class AnnotatedAnswer(NamedTuple):
    """The annotation of one answer."""

    spans: Sequence[CharSpan]
    annotators: Sequence[str]
    """Everybody who looked at it, where the data name them."""
    offsets: Int[np.ndarray, "T 2"]


class TokenMarks(NamedTuple):
    """An answer's annotation at its tokens."""

    value: Float32[np.ndarray, " T"]
    """Mean over the annotators."""
    std: Float32[np.ndarray, " T"] | None
    """Of that mean; None: nothing is known of it, since no answer of the data has two annotators and no span states one."""


def group_spans(spans: Sequence[CharSpan], annotators: Sequence[str]) -> dict[str, list[CharSpan]]:
    """The spans of each annotator; empty for those who marked nothing. Spans of nobody in particular are one annotator's, named ""."""
    found: dict[str, list[CharSpan]] = {name: [] for name in annotators}
    for span in spans:
        found.setdefault(span.annotator, []).append(span)
    return found or {"": []}


def annotator_values(answer: AnnotatedAnswer, outside: float) -> Float32[np.ndarray, "A T"]:
    """The value of each token by annotator."""
    own = group_spans(answer.spans, answer.annotators).values()
    return np.stack([spans_to_tokens(spans, answer.offsets, outside=outside) for spans in own])


def combine_annotators(answers: Sequence[AnnotatedAnswer | None], outside: float) -> list[TokenMarks | None]:
    """Token values of every annotated answer; the formula stands above."""
    values = [None if answer is None else annotator_values(answer, outside) for answer in answers]
    several = [own.var(axis=0, ddof=1, dtype=np.float64) for own in values if own is not None and len(own) > 1]
    pooled = float(np.concatenate(several).mean()) if sum(map(len, several)) else None
    stated = [span.std for answer in answers if answer is not None for span in answer.spans if span.std is not None]
    elsewhere = float(np.sqrt(np.mean(np.square(stated)))) if stated else 0.0
    found: list[TokenMarks | None] = []
    for answer, own in zip(answers, values, strict=True):
        if answer is None or own is None:
            found.append(None)
            continue
        mean = own.mean(axis=0, dtype=np.float64).astype(np.float32)
        variance = None if pooled is None else shrunk_variance(own, pooled)
        if any(span.std is not None for span in answer.spans):
            variance = (0.0 if variance is None else variance) + _stated_variance(answer, elsewhere)
        elif stated:
            variance = (0.0 if variance is None else variance) + np.full(len(mean), elsewhere**2 / len(own))
        found.append(TokenMarks(mean, None if variance is None else np.sqrt(variance).astype(np.float32)))
    return found


def shrunk_variance(values: Float32[np.ndarray, "A T"], pooled: float) -> Float64[np.ndarray, " T"]:
    """Of the mean over the annotators, at each token."""
    count = len(values)
    spread = np.square(values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)).sum(axis=0)
    found: Float64[np.ndarray, " T"] = (N0 * pooled + spread) / ((N0 + count - 1) * count)
    return found


def _stated_variance(answer: AnnotatedAnswer, elsewhere: float) -> Float64[np.ndarray, " T"]:
    """What the spans' own standard deviations add."""
    own = group_spans(answer.spans, answer.annotators).values()
    stds = [
        spans_to_tokens(
            [(span.start, span.end, elsewhere if span.std is None else span.std) for span in spans], answer.offsets, outside=elsewhere
        ).astype(np.float64)
        for spans in own
    ]
    found: Float64[np.ndarray, " T"] = np.square(stds).sum(axis=0) / len(stds) ** 2
    return found
