"""Annotated answers with the scores of their tokens, as `evaluate.marked_tokens` measures them."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit, ndtr
from torch import Tensor

from finegrain.data.records import Response
from finegrain.data.spans import aspect_values, list_aspects
from finegrain.evaluate.marked_tokens import MarkedAnswer
from finegrain.types import CharSpan, Scored

Aspects = Mapping[str, Tensor]


def join_marks(response: Response, spans: Sequence[CharSpan], tokens: Scored, aspects: Aspects) -> MarkedAnswer:
    """The tokens that train; `tokens` and `aspects` are scores (T,) of all tokens.

    The probability that a token is good is sigma(score), or that of a positive value where scores have a standard deviation.
    """
    kept = response.mask
    scores = tokens.mean.cpu().double().numpy()[kept]
    probability = expit(scores) if tokens.std is None else ndtr(scores / tokens.std.cpu().double().numpy()[kept])
    names = list_aspects([spans])
    by_aspect = aspect_values(spans, response.offsets, names)[kept] if names else np.zeros((len(scores), 0))
    return MarkedAnswer(
        scores=scores,
        values=aspect_values(spans, response.offsets, ())[kept, 0].astype(float),
        probabilities=probability,
        by_aspect={name: by_aspect[:, place].astype(float) for place, name in enumerate(names)},
        aspect_scores={name: values.cpu().double().numpy()[kept] for name, values in aspects.items()},
    )
