"""A run's record as text of the page: the summary sentence, held-out results, findings in the data, settings."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from finegrain.report.numbers import Shown, format_number, format_recorded
from finegrain.report.read import Run
from finegrain.report.visible import clip_text
from finegrain.run_record import RunRecord
from finegrain.runs import flat

MOST_CHARACTERS = 400
"""Maximum number of characters of one setting or finding."""


def write_summary(run: Run) -> str:
    """What ran."""
    record, settings = run.record, _mapping(run.record.settings)
    model, data = _file_name(settings.get("model", "?")), " + ".join(_sources(record)) or _file_name(settings.get("data", "?"))
    if record.command == "inspect":
        reference = settings.get("reference")
        against = f" against the reference {clip_text(PurePath(str(reference)).name, 80)}" if reference else ", without a reference"
        return f"finegrain inspect scored {'?' if record.rows is None else record.rows} rows of {data} with {model}{against}. Nothing was trained."
    rows, kind = (record.rows, "prompts" if record.command == "online" else "rows") if record.pairs is None else (record.pairs, "pairs")
    named = [f"{family} {name}" for family in ("algorithm", "objective", "credit", "head", "loss") if (name := _method(settings.get(family)))]
    rows = rows if rows is not None or record.command != "online" else _mapping(record.data).get("prompts")
    parts = [
        f"finegrain {clip_text(record.command or '?', 40)} trained {model} on {'an unknown number of' if rows is None else rows} {kind} of {data}"
    ]
    if record.command == "online":
        named += [f"reward {clip_text(PurePath(str(source)).name, 60)}" for source in _sequence(settings.get("reward"))[:8]]
    if named:
        parts.append(f" with {' and '.join([', '.join(named[:-1]), named[-1]] if len(named) > 2 else named)}")
    if isinstance(record.steps, int):
        parts.append(f", {record.steps} steps")
    if isinstance(record.learning_rate, (int, float)):
        parts.append(f" at a peak learning rate of {format_number(float(record.learning_rate))}")
    if isinstance(record.train_seconds, (int, float)):
        parts.append(f", {float(record.train_seconds):.0f} s on {clip_text(_mapping(record.machine).get('device', '?'), 20)}")
    status = clip_text(record.status or "of unknown status", 40)
    return "".join(parts) + f". The run is {status}; {clip_text(record.date or 'date unknown', 40)}." + _kept(record)


def _file_name(path: Any) -> str:
    return clip_text(PurePath(str(path)).name or "?", 80)


def _sources(record: RunRecord) -> list[str]:
    """Names of the sources, where the data have several."""
    listed = _sequence(_mapping(record.data).get("sources"))
    return [_file_name(_mapping(one).get("source", "?")) for one in listed[:20]]


def _kept(record: RunRecord) -> str:
    """Which step's model was kept, and why training stopped early; empty where no step was selected."""
    kept, stopped = _mapping(record.kept), record.stopped
    words = ""
    if kept.get("keep") == "best":
        step, last, by = (clip_text(kept.get(name, "?"), 60) for name in ("step", "of", "by"))
        words = f" The model of step {step} of {last} was kept, the best of the evaluated ones by {by}."
    return words + (f" Training {clip_text(stopped, MOST_CHARACTERS)}." if isinstance(stopped, str) else "")


def list_evaluation(run: Run) -> list[Shown]:
    """Held-out results as recorded."""
    reason = "no interval: a mean over the held-out rows that was recorded without its standard deviation"
    return [format_recorded(clip_text(name, 80), value, reason) for name, value in _mapping(run.record.evaluation).items()]


class Found(NamedTuple):
    """The findings in the data before training."""

    facts: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, str, str, str]]
    """Kind, count, what was done, rows and example."""
    biases: Sequence[Shown]


FACTS = ("source", "format", "rows", "kept", "dropped", "prompt_truncated", "answer_truncated", "annotated", "sha256")


def list_findings(run: Run) -> Found:
    """The data report of run.json and the additional facts of gate.json."""
    data = _mapping(run.record.data)
    listed = _sequence(run.gate.get("findings")) or _sequence(data.get("findings"))
    biases = _mapping(run.gate.get("biases")) or _mapping(data.get("biases"))
    return Found(
        [(name, _said(data[name])) for name in FACTS if name in data] + [_of_source(_mapping(one)) for one in _sequence(data.get("sources"))[:50]],
        [_finding(line) for line in listed if isinstance(line, Mapping)],
        [_bias(clip_text(name, 80), value) for name, value in biases.items()],
    )


def _of_source(one: Mapping[str, Any]) -> tuple[str, str]:
    """A line for one of several sources."""
    told = ("format", "weight", "rows", "rows_left_over", "kept", "dropped", "findings")
    return clip_text(one.get("source", "?"), 80), _said({name: one[name] for name in told if name in one})


def _bias(name: str, value: Any) -> Shown:
    """How often a rule that does not read the prompt predicts the label, or a fact about that measurement."""
    facts = _mapping(value)
    if not facts:
        return Shown(name, _said(value), "no interval: a count or a setting")
    rest = "; ".join(f"{key} {_said(own)}" for key, own in facts.items() if key not in ("accuracy", "mean", "low", "high", "rows"))
    shown = format_recorded(name, {"mean": facts.get("accuracy", facts.get("mean")), **facts}, "")
    return shown._replace(interval=f"{shown.interval}; {rest}" if rest else shown.interval)


def _finding(line: Mapping[str, Any]) -> tuple[str, str, str, str]:
    rows = ", ".join(str(row) for row in _sequence(line.get("rows"))[:10])
    example = line.get("example", "")
    where = f"rows {rows}" if rows else "the file"
    if sources := _sequence(line.get("sources")):
        where = "; ".join(f"{_mapping(one).get('source', '?')} rows {_said(_sequence(_mapping(one).get('rows'))[:10])}" for one in sources[:20])
    return (
        clip_text(line.get("kind", "?"), 80),
        clip_text(line.get("count", "?"), 20),
        clip_text(line.get("action", "?"), 80),
        clip_text(f"{where}: {example}" if example else where, MOST_CHARACTERS),
    )


class Setting(NamedTuple):
    """One setting over the runs of the page."""

    name: str
    values: Sequence[str]
    differs: bool


def make_settings_table(runs: Sequence[Run]) -> list[Setting]:
    """Every setting with its value per run; those that differ first."""
    tables = [flat(_mapping(run.record.settings)) for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = [Setting(clip_text(name, 80), [_said(table[name]) if name in table else "not there" for table in tables], False) for name in names]
    marked = [row._replace(differs=len(set(row.values)) > 1) for row in rows]
    return sorted(marked, key=lambda row: not row.differs)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return clip_text("; ".join(f"{name}: {_said(own)}" for name, own in value.items()) or "none", MOST_CHARACTERS)
    if isinstance(value, (list, tuple)):
        return clip_text(", ".join(_said(own) for own in value[:20]) or "none", MOST_CHARACTERS)
    return clip_text("none" if value is None else value, MOST_CHARACTERS)


def _method(value: Any) -> str:
    """Name of a method or choice in the settings; empty where there is none."""
    return (
        clip_text(value.get("method", value.get("choice", "")), 60)
        if isinstance(value, Mapping)
        else clip_text(value, 60)
        if isinstance(value, str)
        else ""
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()
