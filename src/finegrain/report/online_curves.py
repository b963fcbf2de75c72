"""The curves of online RL: one chart per quantity over the buffers of one or several runs, each line smoothed, and where the time went."""

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup, escape

from finegrain.diagnose import hacking
from finegrain.diagnose.hacking import assess_hacking, smooth_series
from finegrain.report.charts import HEIGHT, WIDTH, Chart, ChartMark, Series, draw_chart
from finegrain.report.numbers import format_number, format_percent
from finegrain.report.online import OF_UPDATES, SKIPPED, BufferNumbers
from finegrain.report.read import Run
from finegrain.report.visible import clip_text

FEWEST_TO_SMOOTH = 24
"""Shorter series are drawn as they are."""
COMPARABLE = 0.25
"""Reward and gold share an axis where each covers at least this part of it [choice]."""

CHARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("KL, nats per token", ("kl",)),
    ("KL of an update from the policy that sampled, nats per token", (OF_UPDATES,)),
    ("Entropy, nats per token", ("entropy",)),
    (
        "Length of answers, tokens",
        ("completions/mean_length", "completions/mean_terminated_length", "completions/max_length", "completions/min_length"),
    ),
    ("Share of answers by their end", ("completions/clipped_ratio", "completions/stop_ratio")),
    ("Share of groups without a difference", ("frac_reward_zero_std",)),
    ("Share of tokens outside the clip range", ("clip_ratio/region_mean", "clip_ratio/low_mean", "clip_ratio/high_mean")),
    ("Updates of each buffer", ("taken", SKIPPED)),
    ("Explained variance of returns", ("value/explained_variance",)),
    ("Value loss", ("value/loss", "loss/value")),
    ("Density of the advantage", ("advantage/density",)),
    ("Standard deviation of reward and advantage", ("reward_std", "advantage/std")),
    ("Answers not judged", ("unjudged",)),
    ("beta", ("beta",)),
    ("Seconds of each buffer", ("seconds/generate", "seconds/reward", "seconds/measure", "seconds/update")),
)
"""Title and logged names; `kl` stands for the KL to every reference."""
BY_REWARD = (
    ("Rewards by name", "rewards/", "/mean"),
    ("Weights of the rewards (PAMA)", "pama/c/", ""),
    ("Mean advantage that can still be gained, by reward (PAMA)", "pama/a/", ""),
    ("Weights of the rewards (MGDA)", "mgda/c/", ""),
)
"""Title, and the logged name before and behind that of the reward."""
WORDS = {
    "completions/mean_length": "mean",
    "completions/mean_terminated_length": "mean of those that ended",
    "completions/max_length": "longest",
    "completions/min_length": "shortest",
    "completions/clipped_ratio": "cut at the largest length",
    "completions/stop_ratio": "ended by a stop string",
    "clip_ratio/region_mean": "either side",
    "clip_ratio/low_mean": "below",
    "clip_ratio/high_mean": "above",
    "value/explained_variance": "share explained",
    "value/loss": "of a critic of its own",
    "loss/value": "of the policy's own value head",
    "advantage/density": "share within answers",
    "unjudged": "answers",
    "kl": "to the leash's reference",
    "taken": "taken",
    SKIPPED: "skipped",
    OF_UPDATES: "mean over a buffer's updates",
    "frac_reward_zero_std": "groups",
    "reward_std": "reward",
    "advantage/std": "advantage",
}
PARTS = (("generate", "sampling"), ("reward", "rewards"), ("measure", "log-probabilities and values"), ("update", "updates"))

Read = Callable[[BufferNumbers], np.ndarray]
Lines = Sequence[tuple[str, Read]]


def draw_online_curves(runs: Sequence[Run]) -> list[Chart]:
    """Every chart that any run has numbers for; [] where none has buffers."""
    known = [run for run in runs if run.buffers is not None]
    found = [_draw_reward(known), *_draw_evaluations(known), *(_draw_by_reward(known, *each) for each in BY_REWARD)]
    found += [_draw(known, title, _lines(known, names)) for title, names in CHARTS]
    found += [_draw_against_kl(known), *(_draw_time(run, len(known) > 1) for run in known)]
    return [drawn for drawn in found if drawn is not None]


def _lines(runs: Sequence[Run], names: Sequence[str]) -> Lines:
    if names == ("kl",):
        names = list(dict.fromkeys(name for run in runs if run.buffers is not None for name in run.buffers.references()))
    if SKIPPED in names and not any(run.buffers is not None and np.isfinite(run.buffers.skipped).any() for run in runs):
        return []
    return [(WORDS.get(name, clip_text(name.removeprefix("seconds/").removeprefix("kl/"), 40)), _reader(name)) for name in names]


def _reader(name: str) -> Read:
    if name in ("taken", SKIPPED):
        return lambda buffers: buffers.taken if name == "taken" else buffers.skipped
    return lambda buffers: buffers.read(name)


def _draw(runs: Sequence[Run], title: str, lines: Lines, marks: Sequence[ChartMark] = ()) -> Chart | None:
    """None where every number is 0: the findings say so in fewer words."""
    series = [line for place, run in enumerate(runs) for line in _of_run(runs, place, run, lines)]
    return draw_chart(title, series, unit="buffer", marks=marks) if any(any(line.values) for line in series) else None


def _of_run(runs: Sequence[Run], place: int, run: Run, lines: Lines) -> list[Series]:
    """Names of one run differ by colour; runs differ by colour, and then names by dash."""
    assert run.buffers is not None
    found = []
    for index, (name, read) in enumerate(lines):
        values = read(run.buffers)
        known = np.isfinite(values)
        if known.any():
            label = name if len(runs) == 1 else f"{clip_text(run.name, 40)}: {name}"
            colour = index if len(runs) == 1 else place
            found.append(_smoothed(label, run.buffers.buffers[known], values[known], colour % 6, index % 3))
    return found


def _smoothed(label: str, x: np.ndarray, y: np.ndarray, colour: int, dash: int) -> Series:
    if len(y) < FEWEST_TO_SMOOTH or not np.ptp(y):
        return Series(label, x.tolist(), y.tolist(), colour, dash)
    return Series(label, x.tolist(), smooth_series(y).tolist(), colour, dash, raw=(x.tolist(), y.tolist()))


def _draw_reward(runs: Sequence[Run]) -> Chart | None:
    """Reward and gold together: as they are where one axis fits both, else each by its largest move from its start."""
    golds = list(dict.fromkeys(name for run in runs if run.buffers is not None for name in run.buffers.golds()))
    lines: Lines = [("reward", _reader("reward")), *((clip_text(f"gold {name}", 40), _gold_reader(name)) for name in golds)]
    marks = [mark for run in runs for mark in _turning(run)] if len(runs) == 1 else []
    if not golds or _one_axis(runs, lines):
        return _draw(runs, "Reward and gold" if golds else "Reward", lines, marks)
    return _draw(runs, "Reward and gold, each 0 at its start and 1 at its largest move", [(name, _rescaled(read)) for name, read in lines], marks)


def _gold_reader(name: str) -> Read:
    return lambda buffers: buffers.golds().get(name, np.full(len(buffers.buffers), np.nan))


def _one_axis(runs: Sequence[Run], lines: Lines) -> bool:
    spans = []
    for _, read in lines:
        values = np.concatenate([read(run.buffers) for run in runs if run.buffers is not None])
        values = values[np.isfinite(values)]
        if len(values):
            spans.append((float(values.min()), float(values.max())))
    whole = max(high for _, high in spans) - min(low for low, _ in spans) if spans else 0.0
    return all(high - low >= COMPARABLE * whole for low, high in spans)


def _rescaled(read: Read) -> Read:
    def read_rescaled(buffers: BufferNumbers) -> np.ndarray:
        values = read(buffers)
        known = values[np.isfinite(values)]
        if not len(known):
            return values
        smooth = smooth_series(known)
        found: np.ndarray = (values - smooth[0]) / (float(abs(smooth - smooth[0]).max()) or 1.0)
        return found

    return read_rescaled


def _turning(run: Run) -> list[ChartMark]:
    """Where gold was highest, if it falls since."""
    assert run.buffers is not None
    marks = []
    for values in run.buffers.golds().values():
        known = np.isfinite(values) & np.isfinite(run.buffers.read("reward"))
        found = assess_hacking(run.buffers.read("reward")[known], values[known])
        if found.verdict in (hacking.HACKS, hacking.GOLD_FALLS):
            marks.append(ChartMark(float(run.buffers.buffers[known][found.best]), "gold highest"))
    return marks


def _draw_evaluations(runs: Sequence[Run]) -> list[Chart | None]:
    """Reward on held-out prompts, with its interval where one was recorded."""
    series = []
    for place, run in enumerate(runs):
        assert run.buffers is not None
        values, low, high = (run.buffers.read(f"eval_reward{end}") for end in ("", "_low", "_high"))
        known = np.isfinite(values)
        if known.any():
            bounded = bool(np.isfinite(low[known]).all() and np.isfinite(high[known]).all())
            name = "reward" if len(runs) == 1 else clip_text(run.name, 40)
            band = (low[known].tolist(), high[known].tolist()) if bounded else ((), ())
            series.append(Series(name, run.buffers.buffers[known].tolist(), values[known].tolist(), place % 6, 0, band=band))
    return [draw_chart("Reward on held-out prompts, with its interval", series, unit="buffer")]


def _draw_by_reward(runs: Sequence[Run], title: str, start: str, end: str) -> Chart | None:
    """A number of each reward by name, where there are several."""
    names = list(dict.fromkeys(name for run in runs if run.buffers is not None for name in run.buffers.names(start, end)))
    lines = [(clip_text(name.removeprefix(start).removesuffix(end), 40), _reader(name)) for name in names]
    return _draw(runs, title, lines) if len(names) > 1 else None


def _draw_against_kl(runs: Sequence[Run]) -> Chart | None:
    """What a distance from the reference buys: reward and gold against KL, both smoothed, in the order of the buffers."""
    series = []
    for place, run in enumerate(runs):
        assert run.buffers is not None
        lines = {"reward": run.buffers.read("reward"), **{f"gold {name}": values for name, values in run.buffers.golds().items()}}
        for index, (name, values) in enumerate(lines.items()):
            known = np.isfinite(values) & np.isfinite(run.buffers.read("kl"))
            if known.sum() > 1:
                label = clip_text(name if len(runs) == 1 else f"{run.name}: {name}", 60)
                x, y = (smooth_series(each[known]).tolist() for each in (run.buffers.read("kl"), values))
                series.append(Series(label, x, y, (index if len(runs) == 1 else place) % 6, index % 3))
    return draw_chart("Reward against KL", series, unit="KL")


def _draw_time(run: Run, named: bool) -> Chart | None:
    """One bar: which part of a run's seconds went where."""
    assert run.buffers is not None
    spent = [(words, float(np.nansum(run.buffers.read(f"seconds/{name}")))) for name, words in PARTS]
    whole = sum(seconds for _, seconds in spent)
    if not 0 < whole < float("inf"):
        return None
    title = f"Where {format_number(whole)} seconds went" + (f", {clip_text(run.name, 40)}" if named else "")
    legend, drawn, left = [], [], 0.0
    for colour, (words, seconds) in enumerate(spent):
        width = seconds / whole * WIDTH
        drawn.append(f'<rect class="part c{colour}" x="{left:.1f}" y="10" width="{width:.1f}" height="34"/>')
        if width > 44:
            drawn.append(f'<text class="within" x="{left + width / 2:.1f}" y="31" text-anchor="middle">{format_percent(seconds / whole)}</text>')
        left += width
        legend.append((words, colour, 0, f"{format_number(seconds)} s, {format_percent(seconds / whole)}", ""))
    said = escape(title + ": " + "; ".join(f"{name} {value}" for name, _, _, value, _ in legend))
    return Chart(title, Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT // 3}" role="img" aria-label="{said}">{"".join(drawn)}</svg>'), legend)
