"""`finegrain online --filters`: how well the reward tells the true score of what each selection draws, on answers of the start model."""

from dataclasses import asdict

import torch

from finegrain.commands.online import OnlineSettings
from finegrain.configure import to_json, to_kebab
from finegrain.errors import DataError
from finegrain.online.combine import Apart, sum_rewards
from finegrain.online.contrast import contrast_rewards
from finegrain.online.filter_r2 import FILTERS, FilterFit, best_filter, compare_filters
from finegrain.online.select import KeepAll, RewardFilter
from finegrain.online.stages import answer_totals, masked_answers
from finegrain.recipes.rollouts.source import OnlineSource
from finegrain.terminal import write_line
from finegrain.train.distributed import rank
from finegrain.types import Json


def rank_filters(asked: OnlineSettings, source: OnlineSource) -> Json:
    """R2 of every filter by name, and the one with the largest; raises DataError where gold judged no answer.

    Prompts come in the order of the run's buffers. Filters that need a threshold are among them where --selection names one.
    """
    filters = dict(FILTERS)
    if not isinstance(asked.selection, KeepAll) and asked.selection not in filters.values():
        filters["selection"] = asked.selection
    rewards, golds, groups, takes_part = [], [], [], []
    buffers = min(asked.filter_buffers, len(source.plan))
    for number in range(buffers):
        places = [int(place) for place in source.plan.rows(number)]
        plain, gold = source.maker.judge(number, places)
        rollout = contrast_rewards(plain)
        stages = source.maker.stages
        combined = sum_rewards(rollout) if isinstance(stages.combination, Apart) else stages.combination(rollout)
        totals = answer_totals(stages.transforms.of_answers(combined, rollout), rollout)
        rewards.append(totals)
        golds.append(gold)
        groups.append(rollout.group + number * asked.training.prompts)
        takes_part.append(~totals.isnan() & ~masked_answers(rollout, stages))
    reward, truth, group, trains = (torch.cat(own) for own in (rewards, golds, groups, takes_part))
    judged = int((trains & ~truth.isnan()).sum())
    if not judged:
        raise DataError(f"none of {len(reward)} answers has both a reward and a number of --gold")
    fits = compare_filters(filters, reward, truth, group, trains)
    chosen = best_filter(fits)
    if rank() == 0:
        _tell(fits, chosen, judged)
    return {
        "status": "filters",
        "answers": len(reward),
        "judged": judged,
        "buffers": buffers,
        "filters": {name: {**_settings(one), **asdict(fits[name])} for name, one in filters.items()},
        "largest": chosen,
    }


def _settings(one: RewardFilter) -> Json:
    return {"selection": {"choice": to_kebab(type(one).__name__), **to_json(one)}}


def _tell(fits: dict[str, FilterFit], chosen: str | None, judged: int) -> None:
    write_line(f"R2 of true score on reward, over groups of similar reward among what each filter draws of {judged} answers of the start model:")
    for name, fit in fits.items():
        number = f"R2 {fit.r2:.3f}, slope {fit.slope:+.3f}" if fit.r2 is not None else f"undefined: {fit.reason}"
        write_line(f"  {name:12} {number}, {fit.groups} groups{'  <- largest' if name == chosen else ''}")
    if chosen is None:
        write_line("none of the filters has a reward that rises with the true score")
