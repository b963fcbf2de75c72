"""Annotated answers with the scores of their tokens, as `evaluate.marked_tokens` measures them."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import expit, ndtr
from torch import Tensor

from finegrain.data.annotators import AnnotatedAnswer
from finegrain.data.aspects import aspect_values, list_aspects
from finegrain.data.records import Response
from finegrain.evaluate.marked_tokens import MarkedAnswer
from finegrain.types import Scored

Aspects = Mapping[str, Tensor]


def join_marks(response: Response, answer: AnnotatedAnswer, tokens: Scored, aspects: Aspects) -> MarkedAnswer:
    """The tokens that train; `tokens` and `aspects` are scores (T,) of all tokens.

    The probability that a token is good is sigma(score), or that of a positive value where scores have a standard deviation.
    """
    kept = response.mask
    scores = _numbers(tokens.mean, kept)
    probability = expit(scores) if tokens.std is None else ndtr(scores / _numbers(tokens.std, kept))
    names = list_aspects(answer.spans)
    return MarkedAnswer(
        scores=scores,
        marks=_mean_sign(answer, ())[kept, 0],
        probabilities=probability,
        by_aspect=dict(zip(names, _mean_sign(answer, names)[kept].T, strict=True)) if names else {},
        aspect_scores={name: _numbers(values, kept) for name, values in aspects.items()},
    )


def _numbers(values: Tensor, kept: np.ndarray) -> np.ndarray:
    """Scores of the tokens that train."""
    return np.asarray(values.cpu().double().numpy()[kept])


def _mean_sign(answer: AnnotatedAnswer, aspects: Sequence[str]) -> Float[np.ndarray, "T K"]:
    """How the annotators marked each token, on average: -1 all as bad, 1 all as good, 0 none."""
    return np.asarray(np.nan_to_num(np.sign(aspect_values(answer, aspects)), nan=0.0).mean(0), dtype=float)
