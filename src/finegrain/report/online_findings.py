"""Findings about a run of online RL, from its buffers and its sampled answers: each a verdict, a sentence, and the numbers behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finegrain.diagnose import hacking, online
from finegrain.diagnose.groups import FEWEST_ROWS
from finegrain.diagnose.hacking import split_ends
from finegrain.ops.stats import mean_interval
from finegrain.report.block import Block
from finegrain.report.numbers import Shown, format_interval, format_number, format_percent, format_recorded
from finegrain.report.online import BufferNumbers, Series, distinct_shares
from finegrain.report.read import Run
from finegrain.report.visible import clip_text
from finegrain.runs import flat

NO_GOLD = "gold not measured"
NO_GOLD_WORDS = (
    "Without a gold score reward hacking cannot be seen: a reward that is being fooled rises like one that is being earned. Run with --gold R, a "
    "reward that scores sampled answers and never trains: a larger reward model, one trained on other data, a judge, or a rule that you trust."
)
ENDS = (
    "An arrow leads from the mean over the first fifth of the buffers to that over the last, and the interval is that of the change "
    "(Welch, buffers as observations); the verdicts' thresholds are ours."
)
COUNTED = "no interval: counted over all updates"
SMOOTHED = "no interval: the highest of many smoothed values"
TERMINAL = frozenset({"", "terminal"})
"""Settings of `credit` that put the reward on the last token."""
GROUPLESS = frozenset({"ppo", "reinforce-pp"})
"""Algorithms whose advantage compares an answer with more than its own group."""
ROUNDING = 1e-12
"""Share of a number below which its change is rounding."""
NAME = 40
"""Maximum number of characters of a reward's name."""


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
    bad = [block.verdict for block in found if block.tone == "bad"]
    if not bad:
        return f"None of {len(found)} checks of this run calls for attention."
    return f"{len(bad)} of {len(found)} checks call{'s' if len(bad) == 1 else ''} for attention: {', '.join(bad)}."


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
    numbers = _ends("reward", buffers.read("reward"))
    for name in names if len(names) > 1 else ():
        numbers += _ends(clip_text(name.removeprefix("rewards/").removesuffix("/mean"), NAME), buffers.read(name))
    numbers += _evaluations(run, buffers)
    return _block("Reward", online.assess_reward(buffers.read("reward")), numbers, [])


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
    numbers = [*_ends("reward", reward), *_ends("gold", gold)]
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
    return _block("Judged answers", verdict, numbers, [])


def report_kl(buffers: BufferNumbers) -> Block | None:
    """Distance to every reference that is watched."""
    names = buffers.references()
    if not names:
        return None
    series = buffers.read(names[0])
    numbers = [shown for name in names for shown in _ends(_kl_name(name), buffers.read(name))]
    if buffers.has("beta"):
        numbers += _ends("beta", buffers.read("beta"))
    rule = f"Runaway: at least {online.HIGH_KL:g} nat per token in the last third, which gained no less than the middle third; or not finite."
    return _block("KL to the reference", online.assess_kl(series), numbers, [rule])


def report_variety(run: Run) -> Block | None:
    """Entropy, and how many sampled answers differ."""
    assert run.buffers is not None
    entropy, distinct = run.buffers.read("entropy"), distinct_shares(run.rollouts)
    verdict = online.assess_variety(entropy, distinct)
    if verdict is None:
        return None
    numbers = _ends("entropy, nats per token", entropy) + _ends("distinct texts among sampled answers", distinct, share=True)
    rule = (
        f"Collapse: entropy below {online.LOW_ENTROPY} nats per token and below half of the start's, or at most half of a buffer's sampled answers "
        "distinct and at most half of the start's share. Narrowing: entropy below a quarter of the start's."
    )
    return _block("Entropy and variety", verdict, numbers, [rule])


def report_truncation(buffers: BufferNumbers) -> Block | None:
    """Answers that were cut."""
    if not buffers.has("completions/clipped_ratio"):
        return None
    cut = buffers.read("completions/clipped_ratio")
    numbers = _ends("cut at the largest length", cut, share=True)
    numbers += _ends("ended by a stop string", buffers.read("completions/stop_ratio"), share=True)
    return _block("Truncation", online.assess_truncation(cut), numbers, [_graded("last fifth's share of answers cut")])


def report_length(buffers: BufferNumbers) -> Block | None:
    """Mean length over the run."""
    if not buffers.has("completions/mean_length"):
        return None
    length = buffers.read("completions/mean_length")
    numbers = _ends("tokens", length) + _ends("tokens of answers that ended", buffers.read("completions/mean_terminated_length"))
    rule = f"Drift: the ends differ by a factor of {online.DRIFT:g} or more, either way, and the change's interval excludes 0."
    return _block("Length", online.assess_length(length), numbers, [rule])


def report_groups(run: Run) -> Block | None:
    """Groups without a difference; a bad sign only for an algorithm that compares within groups."""
    assert run.buffers is not None
    if not run.buffers.has("frac_reward_zero_std"):
        return None
    dead = run.buffers.read("frac_reward_zero_std")
    verdict, notes = online.assess_groups(dead), [_graded("last fifth's share of groups")]
    numbers = _ends("groups without a difference", dead, share=True)
    algorithm = _setting(run, "algorithm")
    if verdict == online.MOST_DEAD and algorithm in GROUPLESS:
        words = f"In most groups all answers have the same reward. They still teach something: {algorithm} compares answers of different prompts too."
        return Block(title="Groups without a difference", verdict=online.SOME_DEAD, words=words, numbers=numbers, notes=notes)
    return _block("Groups without a difference", verdict, numbers, notes)


def report_density(run: Run) -> Block | None:
    """Whether a dense reward reaches the advantages."""
    assert run.buffers is not None
    if not run.buffers.has("advantage/density"):
        return None
    density = run.buffers.read("advantage/density")
    dense = any(answer.dense for answer in run.rollouts) if run.rollouts else _setting(run, "credit") not in TERMINAL
    rule = f"Density: the share of the advantage's variance that lies within answers; erased below {format_percent(online.LITTLE_DENSITY)}."
    return _block("Density of the advantage", online.assess_density(density, dense), _ends("density", density, share=True), [rule])


def report_skips(buffers: BufferNumbers) -> Block | None:
    """Skipped updates."""
    skipped, taken = buffers.skipped, buffers.taken
    if not np.isfinite(skipped).any():
        return None
    share = online.skipped_share(skipped, taken)
    numbers = [
        Shown("updates skipped", f"{np.nansum(skipped):.0f} of {np.nansum(skipped) + taken.sum():.0f} ({format_percent(share)})", COUNTED),
        *_ends("share outside the clip range", buffers.read("clip_ratio/region_mean"), share=True),
    ]
    return _block("Updates", online.assess_skips(skipped, taken), numbers, [_graded("share of all updates that was skipped")])


def report_value(buffers: BufferNumbers) -> Block | None:
    """The critic."""
    if not buffers.has("value/explained_variance"):
        return None
    explained = buffers.read("value/explained_variance")
    numbers = _ends("explained variance of returns", explained) + _ends("value loss", buffers.read("value/loss"))
    rule = f"It explains nothing below {online.NO_VALUE}, little below {online.LITTLE_VALUE}, in the last fifth of the buffers."
    return _block("Value function", online.assess_value(explained), numbers, [rule])


def _block(title: str, verdict: str, numbers: Sequence[Shown], notes: Sequence[str]) -> Block:
    return Block(title=title, verdict=verdict, words=online.WORDS[verdict], numbers=numbers, notes=notes)


def _ends(name: str, values: Series, *, share: bool = False) -> list[Shown]:
    """A series' first and last fifth and the interval of their difference; one mean where there are too few buffers, nothing where there are none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    if len(known) < FEWEST_ROWS:
        return [format_interval(f"{name}, mean", mean_interval(known), "", over="buffers", share=share)]
    first, last = (float(part.mean()) for part in split_ends(known))
    write = format_percent if share else format_number
    change = online.compare_ends(known)
    assert change is not None
    low, high = (0.0 if bound is None or abs(bound) < ROUNDING * max(abs(first), abs(last)) else bound for bound in (change.low, change.high))
    scale, unit = (100.0, " points") if share else (1.0, "")
    bounds = f"{format_number(scale * low, signed=True)} to {format_number(scale * high, signed=True)}{unit}"
    return [Shown(name, f"{write(first)} → {write(last)}", f"change {bounds}, {len(known)} buffers")]


def _evaluations(run: Run, buffers: BufferNumbers) -> list[Shown]:
    """Held-out prompts before and after training, as recorded; of a run that recorded neither, its first and last evaluation."""
    other = run.record.as_json()
    recorded = [("before", other.get("evaluation_before")), ("after", other.get("evaluation"))]
    results = [(which, own["eval_reward"]) for which, own in recorded if isinstance(own, Mapping) and "eval_reward" in own]
    if results:
        return [format_recorded(f"held-out prompts, {which}", value, "no interval recorded") for which, value in results]
    places = np.flatnonzero(np.isfinite(buffers.read("eval_reward")))
    shown = []
    for place, which in dict.fromkeys(((int(places[0]), "first"), (int(places[-1]), "last"))) if len(places) else ():
        mean, low, high = (float(buffers.read(f"eval_reward{end}")[place]) for end in ("", "_low", "_high"))
        bounded = np.isfinite(low) and np.isfinite(high)
        interval = f"{format_number(low)} to {format_number(high)}, as recorded" if bounded else "no interval recorded"
        shown.append(Shown(f"held-out prompts, {which}: buffer {buffers.buffers[place]}", format_number(mean), interval))
    return shown


def _kl_name(name: str) -> str:
    return "KL, nats per token" if name == "kl" else f"KL to {clip_text(name.removeprefix('kl/'), NAME)}"


def _graded(what: str) -> str:
    return f"By the {what}: most from {format_percent(online.MOST)}, some from {format_percent(online.SOME)}."


def _setting(run: Run, name: str) -> str:
    """Name of the method that a setting selects; empty where there is none."""
    settings: Mapping[str, Any] = run.record.settings if isinstance(run.record.settings, Mapping) else {}
    table = flat(settings)
    return next((str(table[key]) for key in (name, f"{name}.method", f"{name}.choice") if table.get(key) is not None), "")
