"""Held-out prompts answered by the policy as it is, and what the rewards say of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finegrain.generate.sampling import Sampler, Sampling
from finegrain.online.rollout import Ended
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import mean_interval
from finegrain.recipes.rollouts.buffer import BufferMaker
from finegrain.recipes.rollouts.prompts import Prompt
from finegrain.recipes.rollouts.ragged import gather_ragged, gather_samples, stack_rows
from finegrain.recipes.rollouts.rewards import RewardColumns, Rewards
from finegrain.train.distributed import broadcast_names, rank, world
from finegrain.types import Json

BUFFER = 2**40
"""Stands for the buffer's number in the noise: the same draws at every evaluation."""


@dataclass(frozen=True)
class HeldOut:
    """One answer to every held-out prompt, greedy or drawn with the same noise each time."""

    prompts: Sequence[Prompt]
    sampler: Sampler
    sampling: Sampling
    maker: BufferMaker

    def __call__(self) -> dict[str, Any]:
        """Results by name, with intervals over prompts; {} without prompts."""
        if not self.prompts:
            return {}
        count, own = len(self.prompts), list(range(rank(), len(self.prompts), world()))
        device = self.maker.session.device
        mine = [self.prompts[place] for place in own]
        drawn = self.sampler([prompt.example.prompt for prompt in mine], [prompt.example.row for prompt in mine], BUFFER)
        answers = gather_samples([many[0] for many in drawn], own, count, device)
        examples = self.maker.read(self.prompts, answers)
        candidates, state = self.maker.candidates(self.prompts, examples, own), self.maker.progress(1)
        results: dict[str, Any] = {}
        totals = self._totals(self.maker.rewards, self.maker.rewards.score(candidates, state), own, count)
        results["eval_reward"] = interval(self.maker.rewards.weigh(torch.from_numpy(totals)).numpy())
        for place, name in enumerate(self.maker.rewards.names):
            results[f"eval_rewards/{name}"] = interval(totals[:, place])
        if self.maker.gold is not None:
            gold = self._totals(self.maker.gold, self.maker.gold.score(candidates, state), own, count)
            results |= {f"eval_gold/{name}": interval(gold[:, place]) for place, name in enumerate(self.maker.gold.names)}
        cut = np.array([answer.ended == Ended.LENGTH for answer in answers])
        results["eval_completions/mean_length"] = interval(np.array([len(answer.ids) for answer in answers], dtype=float))
        results["eval_completions/clipped_ratio"] = wilson(cut.astype(float)).as_json()
        return results

    def _totals(self, rewards: Rewards, columns: RewardColumns, own: Sequence[int], count: int) -> np.ndarray:
        """(P, n): the whole reward of every answer; a minimum over a batch is that over all held-out answers."""
        device = self.maker.session.device
        rows = stack_rows(gather_ragged(list(columns.totals.numpy()[:, None]), own, count, device))
        names = broadcast_names(columns.members, device)
        members = {name: np.stack(gather_ragged(list(columns.members.get(name, ())), own, count, device)) for name in names}
        return rewards.settle(rows, members).numpy()


def interval(values: np.ndarray) -> Json:
    """Mean with its interval over the answers that were judged."""
    given = values[~np.isnan(values)]
    if not len(given):
        return {"mean": None, "low": None, "high": None, "rows": 0, "reason": "no answer was judged"}
    found = mean_interval(given).as_json()
    return found if found["low"] is not None else {**found, "reason": "one answer has no interval"}
