"""Writes runs to one HTML file: self-contained, nothing is fetched, and only finegrain's own script runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finegrain import __version__
from finegrain.files import replace_file
from finegrain.report.compare import compare_runs
from finegrain.report.curves import draw_curves
from finegrain.report.entanglement import draw_tokens
from finegrain.report.facts import list_evaluation, list_findings, make_settings_table, write_summary
from finegrain.report.online_answers import pack_histories
from finegrain.report.online_curves import draw_online_curves
from finegrain.report.online_findings import count_alarms
from finegrain.report.online_numbers import ENDS
from finegrain.report.pack import BUDGET, pack_pairs
from finegrain.report.read import Run, read_run
from finegrain.report.reward_figures import make_reward_view
from finegrain.report.template import render_template
from finegrain.report.verdicts import make_blocks
from finegrain.report.visible import clip_text

FILE = "report.html"
MOST_SAMPLES = 20


def write_report(folder: Path) -> Path:
    """Writes report.html in a run directory."""
    return write_page([read_run(folder)], folder / FILE)


def write_page(runs: Sequence[Run], file: Path) -> Path:
    """Writes the page of these runs, complete or not at all."""
    replace_file(file, render(runs))
    return file


def is_page(file: Path) -> bool:
    """Whether a file is a finegrain page, which a new one may replace."""
    try:
        with file.open("rb") as stream:
            return b"<title>finegrain: " in stream.read(4096)
    except OSError:
        return False


def render(runs: Sequence[Run]) -> str:
    """The page as a string."""
    online = any(run.rollouts for run in runs)
    packed, left_out = pack_pairs([run.pairs or () for run in runs], BUDGET // 2 if online else BUDGET)
    if online:
        sampled, more = pack_histories([run.rollouts for run in runs], BUDGET // 2 if any(packed) else BUDGET)
        packed, left_out = [pairs + cards for pairs, cards in zip(packed, sampled, strict=True)], left_out + more
    data = {"runs": [{"name": clip_text(run.name, 60), "pairs": pairs} for run, pairs in zip(runs, packed, strict=True)]}
    views = [_view(run, place) for place, run in enumerate(runs)]
    return render_template(
        "page.html.jinja",
        css=["page.css"],
        script=["page.js"],
        data=data,
        names=[clip_text(run.name, 60) for run in runs],
        runs=views,
        any_reward=any(view["reward"] for view in views),
        comparison=compare_runs(runs),
        curves=draw_online_curves(runs) + draw_curves(runs),
        any_buffers=any(run.buffers is not None for run in runs),
        ends=ENDS,
        over_time=online,
        recurring=any(len({answer["n"].partition(",")[0] for answer in card["a"]}) > 1 for cards in packed for card in cards) if online else False,
        settings=make_settings_table(runs),
        any_samples=any(run.samples for run in runs),
        any_held=any(list_evaluation(run) for run in runs),
        pairs_shown=sum(map(len, packed)),
        left_out=left_out,
        version=__version__,
    )


def _view(run: Run, place: int) -> Mapping[str, Any]:
    """The template's values for one run."""
    return {
        "place": place,
        "name": clip_text(run.name, 60),
        "sentence": write_summary(run),
        "missing": run.missing,
        "blocks": make_blocks(run),
        "alarms": count_alarms(run),
        "reward": make_reward_view(run),
        "tokens": draw_tokens(run),
        "evaluation": list_evaluation(run),
        "findings": list_findings(run),
        "samples": [{key: clip_text(line.get(key, ""), 3000) for key in ("prompt", "before", "after")} for line in run.samples[:MOST_SAMPLES]],
        "samples_left": max(0, len(run.samples) - MOST_SAMPLES),
        "versions": run.record.versions if isinstance(run.record.versions, Mapping) else {},
        "machine": run.record.machine if isinstance(run.record.machine, Mapping) else {},
        "engine": run.record.engine if isinstance(run.record.engine, Mapping) else {},
    }
