"""Values of an annotated answer's tokens by annotator and by the aspect that spans are about."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from finegrain.data.annotators import AnnotatedAnswer, group_spans
from finegrain.data.records import Example
from finegrain.data.spans import spans_to_tokens
from finegrain.types import CharSpan


def annotation_of(example: Example, role: str) -> AnnotatedAnswer | None:
    """The annotation of an answer; None where nobody looked at it."""
    spans = example.spans.get(role)
    return None if spans is None else AnnotatedAnswer(spans, example.annotators.get(role, ()), example.responses[role].offsets)


def list_aspects(spans: Sequence[CharSpan]) -> list[str]:
    """The aspects that the spans name, sorted."""
    return sorted({span.aspect for span in spans} - {""})


def aspect_values(answer: AnnotatedAnswer, aspects: Sequence[str]) -> Float32[np.ndarray, "A T K"]:
    """The value of each token under the spans of each annotator and aspect, NaN in none; without aspects, one column for all spans."""
    own = group_spans(answer.spans, answer.annotators).values()
    return np.stack([np.stack([_values(spans, answer, aspect) for aspect in aspects or (None,)], 1) for spans in own])


def _values(spans: Sequence[CharSpan], answer: AnnotatedAnswer, aspect: str | None) -> Float32[np.ndarray, " T"]:
    """Of the spans of one aspect; None: of all."""
    return spans_to_tokens([span for span in spans if aspect is None or span.aspect == aspect], answer.offsets, outside=np.nan)
