"""The scores that pairwise losses compare: chosen minus rejected, with or without reference and length normalisation.

Every pairwise objective is one of these margins (or the two separate log-ratios) under a link. All of them use token
credit: sums are weighted by it, averages divide by the kept weight.
"""

from jaxtyping import Float
from torch import Tensor

from finegrain.ops.sequence import average_log_ratio, average_logp, log_ratio, sequence_logp
from finegrain.types import Pair


def log_ratio_margin(pair: Pair) -> Float[Tensor, " B"]:
    """log-ratio of the chosen minus log-ratio of the rejected answer, nats."""
    return log_ratio(pair.chosen) - log_ratio(pair.rejected)


def logp_margin(pair: Pair) -> Float[Tensor, " B"]:
    """log-probability of the chosen minus log-probability of the rejected answer, nats; no reference."""
    return sequence_logp(pair.chosen) - sequence_logp(pair.rejected)


def average_log_ratio_margin(pair: Pair) -> Float[Tensor, " B"]:
    """Difference of the log-ratios per kept token, nats per token."""
    return average_log_ratio(pair.chosen) - average_log_ratio(pair.rejected)


def average_logp_margin(pair: Pair) -> Float[Tensor, " B"]:
    """Difference of the log-probabilities per kept token, nats per token; no reference."""
    return average_logp(pair.chosen) - average_logp(pair.rejected)
