"""Findings about how a run of online RL fares: KL, variety, truncation, length, groups, density, skipped updates, the value function."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finegrain.diagnose import online
from finegrain.report.block import Block
from finegrain.report.numbers import Shown, format_percent
from finegrain.report.online import BufferNumbers, distinct_shares
from finegrain.report.online_numbers import NAME, format_ends, make_block
from finegrain.report.read import Run
from finegrain.report.visible import clip_text
from finegrain.runs import flat

COUNTED = "no interval: counted over all updates"
TERMINAL = frozenset({"", "terminal"})
"""Settings of `credit` that put the reward on the last token."""
GROUPLESS = frozenset({"ppo", "reinforce-pp"})
"""Algorithms whose advantage compares an answer with more than its own group."""


def report_kl(buffers: BufferNumbers) -> Block | None:
    """Distance to every reference that is watched."""
    names = buffers.references()
    if not names:
        return None
    series = buffers.read(names[0])
    numbers = [shown for name in names for shown in format_ends(_kl_name(name), buffers.read(name))]
    if buffers.has("beta"):
        numbers += format_ends("beta", buffers.read("beta"))
    rule = f"Runaway: at least {online.HIGH_KL:g} nat per token in the last third, which gained no less than the middle third; or not finite."
    return make_block("KL to the reference", online.assess_kl(series), numbers, [rule])


def report_variety(run: Run) -> Block | None:
    """Entropy, and how many sampled answers differ."""
    assert run.buffers is not None
    entropy, distinct = run.buffers.read("entropy"), distinct_shares(run.rollouts)
    verdict = online.assess_variety(entropy, distinct)
    if verdict is None:
        return None
    numbers = format_ends("entropy, nats per token", entropy) + format_ends("distinct texts among sampled answers", distinct, share=True)
    rule = (
        f"Collapse: entropy below {online.LOW_ENTROPY} nats per token and below half of the start's, or at most half of a buffer's sampled answers "
        "distinct and at most half of the start's share. Narrowing: entropy below a quarter of the start's."
    )
    return make_block("Entropy and variety", verdict, numbers, [rule])


def report_truncation(buffers: BufferNumbers) -> Block | None:
    """Answers that were cut."""
    if not buffers.has("completions/clipped_ratio"):
        return None
    cut = buffers.read("completions/clipped_ratio")
    numbers = format_ends("cut at the largest length", cut, share=True)
    numbers += format_ends("ended by a stop string", buffers.read("completions/stop_ratio"), share=True)
    return make_block("Truncation", online.assess_truncation(cut), numbers, [_graded("last fifth's share of answers cut")])


def report_length(buffers: BufferNumbers) -> Block | None:
    """Mean length over the run."""
    if not buffers.has("completions/mean_length"):
        return None
    length = buffers.read("completions/mean_length")
    numbers = format_ends("tokens", length) + format_ends("tokens of answers that ended", buffers.read("completions/mean_terminated_length"))
    rule = f"Drift: the ends differ by a factor of {online.DRIFT:g} or more, either way, and the change's interval excludes 0."
    return make_block("Length", online.assess_length(length), numbers, [rule])


def report_groups(run: Run) -> Block | None:
    """Groups without a difference; a bad sign only for an algorithm that compares within groups."""
    assert run.buffers is not None
    if not run.buffers.has("frac_reward_zero_std"):
        return None
    dead = run.buffers.read("frac_reward_zero_std")
    verdict, notes = online.assess_groups(dead), [_graded("last fifth's share of groups")]
    numbers = format_ends("groups without a difference", dead, share=True)
    algorithm = _setting(run, "algorithm")
    if verdict == online.MOST_DEAD and algorithm in GROUPLESS:
        words = f"In most groups all answers have the same reward. They still teach something: {algorithm} compares answers of different prompts too."
        return Block(title="Groups without a difference", verdict=online.SOME_DEAD, words=words, numbers=numbers, notes=notes)
    return make_block("Groups without a difference", verdict, numbers, notes)


def report_density(run: Run) -> Block | None:
    """Whether a dense reward reaches the advantages."""
    assert run.buffers is not None
    if not run.buffers.has("advantage/density"):
        return None
    density = run.buffers.read("advantage/density")
    dense = any(answer.dense for answer in run.rollouts) if run.rollouts else _setting(run, "credit") not in TERMINAL
    rule = f"Density: the share of the advantage's variance that lies within answers; erased below {format_percent(online.LITTLE_DENSITY)}."
    return make_block("Density of the advantage", online.assess_density(density, dense), format_ends("density", density, share=True), [rule])


def report_skips(buffers: BufferNumbers) -> Block | None:
    """Skipped updates."""
    skipped, taken = buffers.skipped, buffers.taken
    if not np.isfinite(skipped).any():
        return None
    share = online.skipped_share(skipped, taken)
    numbers = [
        Shown("updates skipped", f"{np.nansum(skipped):.0f} of {np.nansum(skipped) + taken.sum():.0f} ({format_percent(share)})", COUNTED),
        *format_ends("share outside the clip range", buffers.read("clip_ratio/region_mean"), share=True),
    ]
    return make_block("Updates", online.assess_skips(skipped, taken), numbers, [_graded("share of all updates that was skipped")])


def report_members(buffers: BufferNumbers) -> Block | None:
    """Whether the members of rewards come apart."""
    names = buffers.names("spread/")
    if not names:
        return None
    verdicts = [online.assess_spread(buffers.read(name)) for name in names]
    verdict = next(one for one in (online.COME_APART, online.TOGETHER, online.TOO_FEW) if one in verdicts)
    numbers = [shown for name in names for shown in format_ends(f"spread of {clip_text(name.removeprefix('spread/'), NAME)}", buffers.read(name))]
    rule = f"Spread: the largest less the smallest member's reward. Apart: {online.APART:g} times the start's, and the change is not scatter."
    return make_block("Members of the reward", verdict, numbers, [rule])


def report_value(buffers: BufferNumbers) -> Block | None:
    """The critic."""
    if not buffers.has("value/explained_variance"):
        return None
    explained = buffers.read("value/explained_variance")
    numbers = format_ends("explained variance of returns", explained) + format_ends("value loss", buffers.read("value/loss"))
    rule = f"It explains nothing below {online.NO_VALUE}, little below {online.LITTLE_VALUE}, in the last fifth of the buffers."
    return make_block("Value function", online.assess_value(explained), numbers, [rule])


def _kl_name(name: str) -> str:
    return "KL, nats per token" if name == "kl" else f"KL to {clip_text(name.removeprefix('kl/'), NAME)}"


def _graded(what: str) -> str:
    return f"By the {what}: most from {format_percent(online.MOST)}, some from {format_percent(online.SOME)}."


def _setting(run: Run, name: str) -> str:
    """Name of the method that a setting selects; empty where there is none."""
    settings: Mapping[str, Any] = run.record.settings if isinstance(run.record.settings, Mapping) else {}
    table = flat(settings)
    return next((str(table[key]) for key in (name, f"{name}.method", f"{name}.choice") if table.get(key) is not None), "")
