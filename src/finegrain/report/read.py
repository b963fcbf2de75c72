"""A run directory as the report reads it: the available files, and a message for each missing one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.errors import CheckpointError
from finegrain.report.gradients import GradientFindings, read_gradients
from finegrain.report.online import ROLLOUTS, SKIPPED, BufferNumbers, SampledAnswer, collect_buffers, read_rollouts
from finegrain.report.pairs import ExaminedPair, read_pairs
from finegrain.run_record import RunRecord
from finegrain.runs import GRADIENTS, RunDirectory
from finegrain.types import Json


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, or one model inspected without training."""

    name: str
    record: RunRecord
    """run.json."""
    metrics: Sequence[Json] = ()
    samples: Sequence[Json] = ()
    pairs: Sequence[ExaminedPair] | None = None
    gradients: GradientFindings | None = None
    """Gradients of single pairs, where they were measured."""
    buffers: BufferNumbers | None = None
    """Of online RL, the metrics by buffer."""
    rollouts: Sequence[SampledAnswer] = ()
    """Of online RL, sampled answers."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """gate.json, where the data gate wrote one."""
    missing: Sequence[str] = ()
    """What the page cannot show, and why."""


def read_run(folder: Path) -> Run:
    """A run directory, or its run.json."""
    folder = folder.parent if folder.name == "run.json" else folder
    if not (folder / "run.json").exists():
        raise CheckpointError(f"{folder} holds no run; expected a folder with the run.json of a training command")
    directory = RunDirectory(folder)
    record = directory.read_record()
    metrics, pairs = [line for line in directory.metrics() if isinstance(line, dict)], read_pairs(folder)
    samples = [line for line in _lines(folder / "samples.jsonl") if "after" in line]  # a reward run's samples are scored rows, which the pairs show
    missing = []
    if record.status != "finished":
        missing.append(f"The run did not finish: its status is {record.status or 'not recorded'}. {record.reason or ''}".strip())
    if not metrics:
        missing.append("No curves: metrics.jsonl is absent or empty.")
    buffers, rollouts = (collect_buffers(metrics, _total_skipped(record)), read_rollouts(folder)) if record.command == "online" else (None, [])
    if record.command == "online":
        if metrics and buffers is None:
            missing.append("No findings: no line of metrics.jsonl names a buffer.")
        if not rollouts:
            missing.append(f"No answers over time: {ROLLOUTS} is absent or empty.")
    elif pairs is None:
        missing.append(
            "No token-level pairs, and therefore no verdict on displacement or length: pairs.jsonl is absent (--examined 0, or an older run)."
        )
    elif not any(answer.ratio is not None or answer.score is not None for pair in pairs for answer in pair.answers.values()):
        missing.append("No log-ratios or scores, and therefore no verdict on displacement or length (a reward model of an older run).")
    if not samples and record.command not in ("reward", "online"):
        missing.append("No sampled answers from before and after training: samples.jsonl is absent or empty (--samples 0).")
    name = folder.resolve().name
    gradients = read_gradients(directory.gradients(), str(folder / GRADIENTS))
    gate = _gate(folder / "gate.json")
    return Run(
        name=name,
        record=record,
        metrics=metrics,
        samples=samples,
        pairs=pairs,
        gradients=gradients,
        buffers=buffers,
        rollouts=rollouts,
        gate=gate,
        missing=missing,
    )


def _total_skipped(record: RunRecord) -> Any:
    return record.as_json().get(SKIPPED)  # a field of a later version of the record, among `other` of this one


def _lines(file: Path) -> list[Json]:
    if not file.exists():
        return []
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    return [line for line in lines if isinstance(line, dict)]


def _gate(file: Path) -> Json:
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    return found if isinstance(found, dict) else {}
