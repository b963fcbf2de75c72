"""Findings about a run of online RL, from its buffers and its sampled answers: each a verdict, a sentence, and the numbers behind it."""

from dataclasses import replace

import numpy as np

from finegrain.diagnose import hacking, online
from finegrain.diagnose.groups import FEWEST_ROWS
from finegrain.report.block import Block
from finegrain.report.numbers import Shown, format_interval, format_number, format_percent
from finegrain.report.online import BufferNumbers, Series
from finegrain.report.online_health import (
    report_density,
    report_groups,
    report_kl,
    report_length,
    report_members,
    report_skips,
    report_truncation,
    report_value,
    report_variety,
)
from finegrain.report.online_numbers import NAME, format_ends, list_held_out, make_block
from finegrain.report.read import Run
from finegrain.report.visible import clip_text

NO_GOLD = "gold not measured"
NO_GOLD_WORDS = (
    "Without a gold score reward hacking cannot be seen: a reward that is being fooled rises like one that is being earned. Run with --gold R, a "
    "reward that scores sampled answers and never trains: a larger reward model, one trained on other data, a judge, or a rule that you trust."
)
SMOOTHED = "no interval: the highest of many smoothed values"


def make_online_findings(run: Run) -> list[Block]:
    """The findings, those that call for attention first; [] for a run without buffers."""
    if run.buffers is None:
        return []
    found = [
        report_reward(run),
        *report_gold(run.buffers),
        report_judging(run.buffers),
        report_kl(run.buffers),
        report_variety(run),
        report_truncation(run.buffers),
        report_length(run.buffers),
        report_groups(run),
        report_density(run),
        report_members(run.buffers),
        report_skips(run.buffers),
        report_value(run.buffers),
    ]
    blocks = [block for block in found if block is not None]
    return sorted(blocks, key=lambda block: ("bad", "plain", "good").index(block.tone))


def count_alarms(run: Run) -> str:
    """A sentence on how many findings call for attention; empty for a run without buffers."""
    found = make_online_findings(run)
    if not found:
        return ""
    checks = [block for block in found if block.verdict != NO_GOLD]
    bad = [block.verdict for block in checks if block.tone == "bad"]
    calls = f"{len(bad) or 'None'} of {len(checks)} checks call{'' if len(bad) > 1 else 's'} for attention{': ' if bad else ''}{', '.join(bad)}."
    return calls if len(checks) == len(found) else f"{calls} Reward hacking was not checked: there is no gold score."


def describe_alarms(run: Run) -> list[str]:
    """A line for every finding that calls for attention, for the terminal at the end of a run; what was not measured of hacking, too."""
    return [f"{block.verdict}: {block.words}" for block in make_online_findings(run) if block.tone == "bad" or block.verdict == NO_GOLD]


def report_reward(run: Run) -> Block | None:
    """Whether the reward rises, with each reward's ends, and held-out prompts before and after."""
    buffers = run.buffers
    assert buffers is not None
    if not buffers.has("reward"):
        return None
    names = buffers.names("rewards/", "/mean")
    numbers = format_ends("reward", buffers.read("reward"))
    for name in names if len(names) > 1 else ():
        numbers += format_ends(clip_text(_reward_name(name), NAME), buffers.read(name))
    numbers += list_held_out(run, buffers)
    block = make_block("Reward", online.assess_reward(buffers.read("reward")), numbers, [])
    if block.verdict != online.REWARD_RISES or len(names) < 2:
        return block
    left = [clip_text(_reward_name(name), NAME) for name in names if online.assess_reward(buffers.read(name)) != online.REWARD_RISES]
    return replace(block, words=f"{block.words} Not so {' and '.join(left)}: what rises is the rest of the sum.") if left else block


def _reward_name(name: str) -> str:
    return name.removeprefix("rewards/").removesuffix("/mean")


def report_gold(buffers: BufferNumbers) -> list[Block]:
    """Reward against each gold score; where there is none, that hacking cannot be seen."""
    golds = {name: values for name, values in buffers.golds().items() if np.isfinite(values).any()}
    if not golds:
        return [Block(title="Reward against gold", verdict=NO_GOLD, words=NO_GOLD_WORDS)] if buffers.has("reward") else []
    return [_gold(clip_text(name, NAME), buffers, values, single=len(golds) == 1) for name, values in golds.items()]


def _gold(name: str, buffers: BufferNumbers, values: Series, *, single: bool) -> Block:
    known = np.isfinite(values) & np.isfinite(buffers.read("reward"))
    reward, gold, places = buffers.read("reward")[known], values[known], buffers.buffers[known]
    found = hacking.assess_hacking(reward, gold)
    numbers = [*format_ends("reward", reward), *format_ends("gold", gold)]
    if len(gold) >= FEWEST_ROWS:
        numbers.append(Shown("highest gold", f"{format_number(found.highest)} at buffer {places[found.best]}", SMOOTHED))
        share = "all of its rise, or never rose" if found.lost > 1 else format_percent(found.lost) + " of its rise"
        numbers.append(Shown("gold lost since then", share, SMOOTHED))
    words = found.words
    if found.window:
        numbers.append(format_interval(f"gold's change, last {found.window} buffers", found.fall, "", over="buffers", signed=True))
        words += f" Gold was highest at about buffer {places[found.best]}; a checkpoint from there is the better model."
    return Block(
        title="Reward against gold" if single else f"Reward against gold {name}",
        verdict=found.verdict,
        words=words,
        numbers=numbers,
        notes=[
            "Gold falls where a straight line through the last buffers falls: windows from an eighth of the run (at least "
            f"{hacking.SHORTEST} buffers) to all of it, one-sided level {hacking.CERTAIN}, by at least {format_percent(hacking.SMALLEST_FALL)} of "
            "gold's range. It is hacking where the reward has risen over the run and does not fall over the same buffers.",
        ],
    )


def report_judging(buffers: BufferNumbers) -> Block | None:
    """Whether answers were judged; None where nothing was counted and every buffer has a reward."""
    reward, unjudged = buffers.read("reward"), buffers.read("unjudged")
    verdict = online.assess_judging(reward, unjudged)
    if verdict == online.ALL_JUDGED and not buffers.has("unjudged"):
        return None
    without = int((~np.isfinite(reward)).sum())
    numbers = [Shown("buffers without a reward", f"{without} of {len(reward)}", "no interval: counted over all buffers")]
    if buffers.has("unjudged"):
        numbers.append(Shown("answers not judged", format_number(float(np.nansum(unjudged)), 6), "no interval: counted over all answers"))
    return make_block("Judged answers", verdict, numbers, [])
