"""Adaptive rejection sampling (ARJ): NLL of an accepted sample under the token credit, a mean per answer.

Source: the asr paper, https://arxiv.org/abs/2411.00809; the rule for rejection sampling follows from its abstract and the released masking code.
Deviations: the paper's body could not be obtained; formula and denominator are ours [OURS].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.ops.sequence import kept_weight, sequence_logp
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
class ARJ:
    """ARJ has no hyper-parameters of its own: the credit decides which tokens count."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    needs: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float] = 2e-5
    """That of supervised fine-tuning [choice], of which it is a masked form."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """-sum_t w_t log pi(y_t) / max(1, sum_t w_t) per row (B,), nats per token."""
        return -sequence_logp(pair.answer) / kept_weight(pair.answer).clamp(min=1)
