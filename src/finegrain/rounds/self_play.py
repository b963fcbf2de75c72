"""Demonstrations against the model's own samples: IRFT in rounds, and SPIN where a round is an epoch.

Source: Li et al. 2024, https://arxiv.org/abs/2405.17888, and the authors' code: slices of the data, one round each, whose reference is the
model that sampled.
Deviations: the slices are drawn at random [choice]; new samples within a round, by the authors' `generation_rate`, are not implemented.
"""

from dataclasses import dataclass
from typing import ClassVar

from finegrain.checked import checked
from finegrain.rounds.context import Given, RoundContext, RoundRow, RoundSettings


@dataclass(frozen=True, kw_only=True)
@checked
class SelfPlay(RoundSettings):
    """Each demonstration as chosen, one sample of the round's model as rejected."""

    objective: ClassVar[str] = "irl-sft"

    def __call__(self, context: RoundContext) -> list[RoundRow]:
        """A pair per prompt, but where the sample is the demonstration, which would have no gradient."""
        found = []
        drawn = context.sample(1, max_new_tokens=self.max_new_tokens, temperature=self.temperature)
        for place, (demonstration, (sample,)) in enumerate(zip(context.given("answer"), drawn, strict=True)):
            if sample.text == demonstration:
                context.leave_out("identical")
                continue
            found.append(RoundRow(place, {"chosen": Given("answer"), "rejected": sample.text}))
        return found
