"""SELM's rounds: the model's greedy answer beside a pair of the data, best and worst of the three by a reward; the answer stays as a third column.

Source: Zhang et al. 2024, https://arxiv.org/abs/2405.19332, and the authors' code, which ranks by PairRM.
Deviations: any reward ranks. Of answers with one score the data's order decides: chosen first, rejected last [choice]. A row whose best and worst
answer are the same, in text or in score, is left out and counted; the authors train on it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from finegrain.checked import NonNegativeFloat, PositiveInt, checked
from finegrain.rounds.context import Given, JudgedRounds, RoundContext, RoundRow

ORDER = ("chosen", "generated", "rejected")


@dataclass(frozen=True, kw_only=True)
@checked
class Selm(JudgedRounds):
    """One answer per prompt is ranked with the two of the data."""

    shape: ClassVar[str] = "preference"
    objective: ClassVar[str] = "selm"

    count: PositiveInt = 3
    """How many rounds of sampling and training (the authors' for Llama-3 and Phi-3)."""
    max_new_tokens: PositiveInt = 1024
    """Longest answer that is sampled (the authors'); longer ones are cut there, and counted."""
    temperature: NonNegativeFloat = 0.0
    """Of sampling, from the whole vocabulary; 0, the authors', takes the most likely token."""

    def __call__(self, context: RoundContext) -> list[RoundRow]:
        """A pair per prompt with the generated answer beside it; prompts without two scores or with one best and worst answer are counted."""
        drawn = context.sample(1, max_new_tokens=self.max_new_tokens, temperature=self.temperature)
        given = zip(context.given("chosen"), drawn, context.given("rejected"), strict=True)
        texts = [[chosen, sample.text, rejected] for chosen, (sample,), rejected in given]
        found = []
        for place, (own, scores) in enumerate(zip(texts, context.score(self.reward, texts), strict=True)):
            known = np.flatnonzero(np.isfinite(scores))
            context.note("answers_without_a_score", len(scores) - len(known))
            if len(known) < 2:
                context.leave_out("unscored")
                continue
            best, worst = int(known[scores[known].argmax()]), int(known[::-1][scores[known[::-1]].argmin()])
            if scores[best] == scores[worst] or own[best] == own[worst]:
                context.leave_out("identical")
                continue
            context.note("generated_best", ORDER[best] == "generated")
            context.note("generated_worst", ORDER[worst] == "generated")
            answers = {"chosen": _answer(ORDER[best], own[best]), "rejected": _answer(ORDER[worst], own[worst]), "generated": own[1]}
            columns = {"reward_chosen": float(scores[best]), "reward_rejected": float(scores[worst])}
            found.append(RoundRow(place, answers, columns))
        return found


def _answer(role: str, text: str) -> str | Given:
    return text if role == "generated" else Given(role)
