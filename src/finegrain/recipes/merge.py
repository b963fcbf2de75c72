"""`finegrain merge`: a checkpoint made of several, shard by shard, with the record of what it was made of.

Sources are opened and checked, the strength is searched where --data is given, the weights are written into a hidden folder, and the
folder appears under its name when it is complete.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch

from finegrain import catalog
from finegrain.commands.merge import MergeSettings
from finegrain.commands.settings import DType
from finegrain.configure import to_json
from finegrain.files import new_folder, replace_file
from finegrain.models.lora_weights import open_weights
from finegrain.models.merge import MergedFiles, Sources, write_merged
from finegrain.models.permissions import allow_readers
from finegrain.models.stock import read_config
from finegrain.recipes.merging.card import write_merge_card
from finegrain.recipes.merging.checks import check_sources, weigh
from finegrain.recipes.merging.search import search_strength
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.session import peak_rss_bytes, versions
from finegrain.run_record import RunRecord
from finegrain.runs import REPEATED, RunDirectory, changed_since, check_free
from finegrain.terminal import write_line
from finegrain.types import Json
from finegrain.weights.blocks import MergeMethod
from finegrain.weights.expo import Expo
from finegrain.weights.slerp import Slerp
from finegrain.weights.soup import Soup
from finegrain.weights.task_arithmetic import TaskArithmetic

GB = 10**9


def merge(
    models: list[str] | tuple[str, ...],
    out: str | Path,
    *,
    base: str | Path | None = None,
    method: Soup | Expo | Slerp | TaskArithmetic | None = None,
    save_dtype: Any = "source",
    shard_size: float = 5.0,
    data: str | Path | None = None,
    score_with: str | None = None,
    score_reference: str | Path | None = None,
    score_beta: float = 0.1,
    alphas: tuple[float, ...] = (),
    max_new_tokens: int = 128,
    limit: int | None = None,
    max_length: int = 1024,
    device: str = "auto",
    dtype: DType = "auto",
) -> dict[str, Any]:
    """Merge checkpoints; arguments as the settings of `finegrain merge` (`models` is its --model), result as its last line on stdout."""
    return run_merge(
        MergeSettings(
            model=tuple(str(one) for one in models),
            base=None if base is None else str(base),
            out=Path(out),
            method=method or Soup(),
            save_dtype=save_dtype,
            shard_size=shard_size,
            data=None if data is None else str(data),
            score_with=score_with,
            score_reference=None if score_reference is None else str(score_reference),
            score_beta=score_beta,
            alphas=alphas,
            max_new_tokens=max_new_tokens,
            limit=limit,
            max_length=max_length,
            device=device,
            dtype=dtype,
        )
    )


def run_merge(settings: MergeSettings) -> dict[str, Any]:
    """Write the merged model, complete or not at all; returns what is printed."""
    check_free(settings.out, settings.data or "")
    quiet_transformers()
    started = time.perf_counter()
    sources = Sources([open_weights(one) for one in settings.model], None if settings.base is None else open_weights(settings.base))
    tokenizer, described = check_sources(sources, settings.method)

    def build(method: MergeMethod, folder: Path) -> MergedFiles:
        """The merged model in a folder: its config comes last, so that nothing loads before."""
        dtype = None if settings.save_dtype == "source" else getattr(torch, settings.save_dtype)
        written = write_merged(method, sources, folder, dtype=dtype, shard_bytes=max(1, int(settings.shard_size * GB)))
        tokenizer.save_pretrained(folder)
        _write_configs(sources, settings.save_dtype, folder)
        return written

    method: MergeMethod = settings.method
    search = None
    with new_folder(settings.out) as folder:
        if settings.data is not None:
            method, search = search_strength(settings, tokenizer, build, folder)
        record = RunRecord(command="merge", settings=to_json(settings), versions=versions(), date=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        record.sources = [*weigh(described, method, len(settings.model))]
        record.search = search
        record.changed = _tell_changes(record) or None
        written = build(method, folder)
        record.merged = describe_merge(method, written, time.perf_counter() - started)
        record.status, record.peak_rss_bytes = "finished", peak_rss_bytes()
        write_merge_card(folder, settings.out.name, record)
        RunDirectory(folder).write_record(record)
        allow_readers(folder)
    moved = record.merged["weights_changed"]
    write_line(
        f"{settings.out}: {written.tensors} tensors merged into {written.shards} file(s), {moved:.1%} of the weights differ from the first model's"
    )
    return {"out": str(settings.out), "status": "finished", **record.merged}


def describe_merge(method: MergeMethod, written: MergedFiles, seconds: float) -> Json:
    """For run.json: the method as it was applied, and how far the result is from the first model."""
    change = written.change
    return {
        "method": {"name": catalog.get_name(method), **to_json(method)},
        "tensors": written.tensors,
        "copied_buffers": list(written.copied),
        "files": written.shards,
        "weights_changed": change.moved / max(1, change.elements),
        "relative_change": (change.distance / change.size) ** 0.5 if change.size else None,
        "seconds": round(seconds, 3),
    }


def _write_configs(sources: Sources, save_dtype: str, folder: Path) -> None:
    """The first model's generation_config.json and, last, its config.json, with the dtype of the result."""
    first = sources.models[0].folder
    if (first / "generation_config.json").is_file():
        replace_file(folder / "generation_config.json", (first / "generation_config.json").read_text(encoding="utf-8"))
    facts = {name: value for name, value in read_config(str(first)).items() if name not in ("finegrain", "_name_or_path")}
    if save_dtype != "source":
        facts.pop("torch_dtype", None)
        facts["dtype"] = save_dtype
        for part in facts.values():
            if isinstance(part, dict) and "dtype" in part:  # of a model with configs inside
                part["dtype"] = save_dtype
    replace_file(folder / "config.json", json.dumps(facts, indent=2) + "\n")


def _tell_changes(record: RunRecord) -> list[str]:
    """A line for what is otherwise than in the merge that `finegrain again` repeats."""
    before = REPEATED.get()
    if before is None:
        return []
    lines = changed_since(before, record)
    for then, now in zip(before.sources or [], record.sources or [], strict=False):
        if then.get("sha256") != now["sha256"]:
            lines.append(f"{now['source']} has other weights than then (sha256 {str(then.get('sha256'))[:12]} then, {now['sha256'][:12]} now)")
    for line in lines:
        write_line(f"again: {line}")
    return lines
