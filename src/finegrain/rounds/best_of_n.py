"""Iterative DPO: of n samples of the round's model, the best against the worst by a reward.

Source: Xiong et al. 2023, https://arxiv.org/abs/2312.11456; Yuan et al. 2024, https://arxiv.org/abs/2401.10020 (best and worst of n: memory).
Deviations: none known; numbers of samples and temperatures differ between authors, ours are [choice].
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from finegrain.checked import MOST, Range, checked
from finegrain.rounds.context import JudgedRounds, RoundContext, RoundRow


@dataclass(frozen=True, kw_only=True)
@checked
class BestOfN(JudgedRounds):
    """n samples per prompt; the answers of the data are not read."""

    per_prompt: Annotated[int, Range(2.0, MOST)] = 4
    """Answers per prompt."""

    def __call__(self, context: RoundContext) -> list[RoundRow]:
        """A pair per prompt of whose samples at least two have a score, not all the same; others are counted. Of equal ones the first counts."""
        drawn = context.sample(self.per_prompt, max_new_tokens=self.max_new_tokens, temperature=self.temperature)
        texts = [[one.text for one in own] for own in drawn]
        found = []
        for place, (own, scores) in enumerate(zip(texts, context.score(self.reward, texts), strict=True)):
            known = np.flatnonzero(np.isfinite(scores))
            context.note("samples_without_a_score", len(scores) - len(known))
            if len(known) < 2:
                context.leave_out("unscored")
                continue
            best, worst = (int(known[pick(scores[known])]) for pick in (np.argmax, np.argmin))
            if scores[best] == scores[worst] or own[best] == own[worst]:
                context.leave_out("tie")
                continue
            columns = {"reward_chosen": float(scores[best]), "reward_rejected": float(scores[worst])}
            found.append(RoundRow(place, {"chosen": own[best], "rejected": own[worst]}, columns))
        return found
