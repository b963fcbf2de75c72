"""What a run in rounds leaves in its folder: the last round's model, a card with the table of rounds, and their runs on one page."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from finegrain.files import new_folder, replace_file
from finegrain.models.hub_files import public_name
from finegrain.models.load import load_policy, master_dtype, save_policy
from finegrain.models.load_errors import explain_load_errors, one_line
from finegrain.recipes.training.publishing import publish_files
from finegrain.report.page import FILE, write_page
from finegrain.report.read import read_run
from finegrain.run_record import RunRecord
from finegrain.runs import GRADIENTS, METRICS, ROLLOUTS
from finegrain.train.checkpoint import Checkpoints
from finegrain.types import Json

OF_A_RUN = frozenset(
    {METRICS, GRADIENTS, ROLLOUTS, FILE, "README.md", "run.json", "gate.json", "gate-eval.json", "pairs.jsonl", "samples.jsonl", "nonfinite.json"}
)
"""Files of a run directory that are not its model's."""
COLUMNS = (
    ("round", "round"),
    ("prompts", "prompts"),
    ("rows", "rows"),
    ("left out", "left_out"),
    ("sampled tokens", "sampled_tokens"),
    ("cut", "cut"),
    ("drift at start, nats", "drift"),
    ("steps", "steps"),
    ("loss", "loss"),
    ("held-out loss", "eval_loss"),
    ("seconds", "seconds"),
)
TEMPLATE = """---
library_name: transformers
base_model: {{ base }}
tags:
- finegrain
- iterate
---

# {{ title }}

{{ base }} after {{ count }} rounds of `finegrain iterate`, rounds `{{ kind }}`, objective `{{ objective }}`: every round samples from the
model as it is then, which is also the round's reference.

{{ table }}

Drift is KL(model of the round's start || {{ base }}) per sampled answer. `round-N/rows.jsonl` holds what a round was trained on, `round-N/run`
the run itself.
Load it with `transformers.AutoModelForCausalLM.from_pretrained`. `run.json` beside this file holds all settings;
`finegrain again run.json --out OTHER` runs it once more.

```json
{{ settings }}
```
"""


OF_STAGES = """---
library_name: transformers
base_model: {{ base }}
tags:
- finegrain
- iterate
---

# {{ title }}

{{ base }} after the stages of `finegrain iterate rounds:{{ kind }}`, each of which is a folder beside this file:

{{ table }}

Load it with `transformers.AutoModelForCausalLM.from_pretrained`. `run.json` beside this file holds all settings;
`finegrain again run.json --out OTHER` runs it once more.

```json
{{ settings }}
```
"""


def merge_round(run: Path, folder: Path, *, dtype: str, trust_remote_code: bool) -> None:
    """The model of a round that trained an adapter, as a whole checkpoint: the next round starts from it, and has it as its reference."""
    policy = load_policy(str(run), master=master_dtype(dtype), trust_remote_code=trust_remote_code)
    with explain_load_errors(f"the adapter of {run} cannot be merged into its base, which the next round starts from"):
        merged = replace(policy, model=policy.model.merge_and_unload())
    with new_folder(folder) as part:
        save_policy(merged, part)


def drop_checkpoints(run: Path) -> None:
    """Delete what a finished round would have been resumed from: weights, moments and random state."""
    for checkpoint in Checkpoints(run).complete():
        shutil.rmtree(checkpoint, ignore_errors=True)


def publish_rounds(out: Path, last: Path, runs: Sequence[Path], record: RunRecord) -> Path:
    """The last round's model in the folder itself, the card, and the page; returns the page."""
    publish_files(lambda part: _copy_model(last, part), out)
    _write_card(out, record)
    return write_page([replace(read_run(run), name=f"round {number}") for number, run in enumerate(runs, start=1)], out / FILE)


def publish_stages(out: Path, last: Path | None, record: RunRecord) -> None:
    """The model of the last stage that trained a policy, and a card with the table of stages."""
    if last is not None:
        publish_files(lambda part: _copy_model(last, part), out)
    settings = record.settings or {}
    columns = ("stage", "command", "rows", "pairs", "answers", "steps", "train_seconds")
    table = [[*columns], ["---"] * len(columns), *([_cell(line, key) for key in columns] for line in record.stages or [])]
    text = jinja2.Template(OF_STAGES).render(
        base=public_name(str((record.model or {}).get("source", ""))),
        title=one_line(out.resolve().name),
        kind=settings["rounds"]["choice"],
        table="\n".join(f"| {' | '.join(row)} |" for row in table),
        settings=json.dumps(settings, indent=2, default=str),
    )
    replace_file(out / "README.md", text)


def _copy_model(last: Path, folder: Path) -> None:
    folder.mkdir()
    for file in sorted(last.iterdir()):
        if file.is_file() and file.name not in OF_A_RUN and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)


def _write_card(out: Path, record: RunRecord) -> None:
    settings, lines = record.settings or {}, record.rounds or []
    source = (record.model or {}).get("source", "")
    table = [[name for name, _ in COLUMNS], ["---"] * len(COLUMNS), *([_cell(line, key) for _, key in COLUMNS] for line in lines)]
    text = jinja2.Template(TEMPLATE).render(
        base=public_name(str(source)),
        title=one_line(out.resolve().name),
        kind=settings["rounds"]["choice"],
        objective=settings["objective"]["method"],
        count=len(lines),
        table="\n".join(f"| {' | '.join(row)} |" for row in table),
        settings=json.dumps(settings, indent=2, default=str),
    )
    replace_file(out / "README.md", text)


def _cell(line: Mapping[str, Any], key: str) -> str:
    found: Any = line.get(key)
    if key == "left_out":
        found = sum((found or {}).values())
    if key == "eval_loss":
        found = (line.get("evaluation") or {}).get(key)
    if isinstance(found, Mapping):
        found = found.get("mean")
    if found is None:
        return "-"
    return re.sub(r"[^\w. -]", "_", str(found)) if isinstance(found, str) else f"{found:.4g}" if isinstance(found, float) else str(found)


def describe_round(made: Json, run: RunRecord, number: int) -> Json:
    """A line of the table: what the round made, and what its training came to."""
    dropped, last = (run.data or {}).get("dropped", {}), run.last or {}
    return {
        "round": number,
        **made,
        "left_out": {**made["left_out"], **{f"by the gate: {kind}": count for kind, count in dropped.items()}},
        "trained": run.pairs if run.pairs is not None else run.rows,
        "steps": run.steps,
        "tokens": run.tokens,
        "learning_rate": run.learning_rate,
        "loss": last.get("loss"),
        "train_seconds": run.train_seconds,
        "seconds": round(made["sampling_seconds"] + (run.train_seconds or 0.0), 3),
        "evaluation": run.evaluation,
    }
