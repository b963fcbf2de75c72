"""`finegrain inspect`: one HTML page of a run, of several side by side, or of a model on data without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.commands.inspect import InspectSettings
from finegrain.configure import to_json
from finegrain.data.shapes import TEXT_SHAPES
from finegrain.errors import CheckpointError, UsageError
from finegrain.models.load import load_policy, master_dtype
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import is_reward_model
from finegrain.models.score import score_rows
from finegrain.models.scorer import silence_dropout
from finegrain.recipes.inspection.pairs import inspect_row, truths
from finegrain.recipes.inspection.reward_page import scored_by_reward
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.session import Session, load_data, open_session, prepare_scorer, stamp
from finegrain.report.page import FILE, is_page, write_page
from finegrain.report.read import Run, read_run
from finegrain.report.verdicts import make_blocks
from finegrain.run_record import RunRecord


def run_inspect(settings: InspectSettings) -> dict[str, Any]:
    """Write the page; returns its path and its verdicts."""
    _check(settings)
    if settings.out is not None and settings.out.exists() and not is_page(settings.out):
        raise CheckpointError(f"{settings.out} already exists and is no report; give another --out")
    runs = [read_run(folder) for folder in settings.runs] or [score_untrained(settings)]
    first = settings.runs[0] if settings.runs else Path()
    out = settings.out or (first.parent if first.name == "run.json" else first) / FILE
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        page = write_page(runs, out)
    except OSError as error:
        raise CheckpointError(f"cannot write the page {out}: {error}") from error
    verdicts = [{"run": run.name, **{block.title: block.verdict for block in make_blocks(run)}} for run in runs]
    return {"page": str(page), "bytes": page.stat().st_size, "verdicts": verdicts}


def _check(settings: InspectSettings) -> None:
    if settings.runs and (settings.model or settings.data or settings.reference):
        raise UsageError("give run directories, or --model with --data, not both")
    if not settings.runs and not (settings.model and settings.data):
        raise UsageError("expected run directories, or --model M and --data D; found neither")
    if settings.out is None and len(settings.runs) != 1:
        raise UsageError("give --out PAGE.html: there is no single run directory to put the page into")
    if settings.out is not None and settings.out.is_dir():
        raise UsageError(f"--out {settings.out} is a folder; give the file name of the page")


def score_untrained(settings: InspectSettings) -> "Run":
    """A run that trained nothing: log-probabilities of the model on the data, and log-ratios if there is a reference."""
    assert settings.data is not None
    assert settings.model is not None
    quiet_transformers()
    if is_reward_model(settings.model):
        return scored_by_reward(settings)
    session = open_session(settings.model, settings, trust_remote_code=settings.trust_remote_code)
    loaded = load_data(session, settings.data, TEXT_SHAPES, limit=settings.limit)
    examples = [loaded.examples[index] for index in range(len(loaded.examples))]
    roles = tuple(examples[0].responses)
    longest = max(len(example.prompt) + max(len(side.ids) for side in example.responses.values()) for example in examples)
    after = score_rows(prepare_scorer(session, longest), examples, roles, session.precision)
    before = {} if settings.reference is None else _score_by_reference(session, settings.reference, examples, roles, longest)
    truth = truths(settings.data, [example.row for example in examples])
    pairs = [
        inspect_row(
            example,
            roles,
            held_out=True,
            before={role: before[role][index] for role in before},
            after={role: np.asarray(after[role][index]) for role in roles},
            credit={},
            truth=truth.get(example.row, {}),
            rewards={},
        )
        for index, example in enumerate(examples)
    ]
    facts = RunRecord(command="inspect", settings=to_json(settings), status="finished", data=loaded.report, rows=len(examples))
    missing = ["No curves and no answers before and after: nothing was trained."]
    if settings.reference is None:
        missing.append("No log-ratios, and so no verdict on displacement or length: give --reference M for them.")
    return Run(name=Path(str(settings.model)).name, record=stamp(session, facts), pairs=pairs, missing=missing)


def _score_by_reference(session: "Session", source: str, examples: Sequence[Any], roles: tuple[str, ...], longest: int) -> dict[str, list[Any]]:
    """Log-probabilities of the same rows under another model with the same tokenizer."""
    policy = load_policy(source, master=master_dtype(session.precision.name), trust_remote_code=session.trust_remote_code)
    if policy.tokenizer.get_vocab() != session.policy.tokenizer.get_vocab():
        raise UsageError(f"the reference {source} has another tokenizer than the model; log-ratios need the same tokens")
    silence_dropout(policy.model)
    policy.model.to(session.device)
    engine, _ = make_scorer(policy.model, longest=longest)
    return score_rows(engine, examples, roles, session.precision)
