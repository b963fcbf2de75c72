"""`finegrain inspect`: one HTML page of a run, of several side by side, or of a model on data without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finegrain.commands.inspect import InspectSettings
from finegrain.configure import to_json
from finegrain.data.records import Example
from finegrain.data.shapes import TEXT_SHAPES
from finegrain.data.store import longest_row
from finegrain.errors import CheckpointError, UsageError
from finegrain.models.load import load_policy, master_dtype
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import is_reward_model
from finegrain.models.score import score_rows
from finegrain.models.scorer import silence_dropout
from finegrain.objectives.dpo import DPO
from finegrain.recipes.inspection.gradients import check_measurable, check_rows, measure_gradients
from finegrain.recipes.inspection.pairs import inspect_row, truths
from finegrain.recipes.inspection.rewards import AnswerReward, Segments, answer_rewards
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.session import Session, load_data, open_session, prepare_scorer, stamp
from finegrain.report.gradients import GradientFindings
from finegrain.report.page import FILE, is_page, write_page
from finegrain.report.read import Run, read_run
from finegrain.report.verdicts import make_blocks
from finegrain.run_record import RunRecord
from finegrain.scoring.reward_model import load_model_reward
from finegrain.scoring.runtime import open_runtime
from finegrain.types import Json, Ragged


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
    if settings.gradients and not settings.model:
        raise UsageError("--gradients measures a model on rows: --model M --data D; a run measures its own by --diagnose-every N")
    if settings.objective is not None and not settings.gradients:
        raise UsageError("an objective is read by --gradients alone; add it, or name none")
    if settings.out is None and len(settings.runs) != 1:
        raise UsageError("give --out PAGE.html: there is no single run directory to put the page into")
    if settings.out is not None and settings.out.is_dir():
        raise UsageError(f"--out {settings.out} is a folder; give the file name of the page")


def score_untrained(settings: InspectSettings) -> Run:
    """A run that trained nothing: log-probabilities of the model on the data, and log-ratios if there is a reference."""
    assert settings.data is not None
    assert settings.model is not None
    quiet_transformers()
    if settings.gradients:
        contract = check_measurable(settings.objective or DPO())
        if contract.live_reference and settings.reference is not None:
            raise UsageError(f"{contract.name} runs a reference beside the model, which --gradients takes to be the model itself; drop --reference")
    if is_reward_model(settings.model):
        return _score_by_reward(settings, settings.model, settings.data)
    session = open_session(settings.model, settings, trust_remote_code=settings.trust_remote_code)
    rows = _load_rows(session, settings.data, settings.limit)
    longest = longest_row(rows.examples, rows.roles)
    after = score_rows(prepare_scorer(session, longest), rows.examples, rows.roles, session.precision)
    before = {} if settings.reference is None else _score_by_reference(session, settings.reference, rows.examples, rows.roles, longest)
    gradients = None
    if settings.gradients:
        check_rows(rows.roles, settings.data)
        assert session.scorer is not None
        gradients = measure_gradients(session, session.scorer, settings.objective or DPO(), rows.examples, before or after)
    missing = ["No curves and no answers before and after: nothing was trained."]
    if settings.reference is None:
        missing.append("No log-ratios, and so no verdict on displacement or length: give --reference M for them.")
    return _make_run(session, settings, rows, missing, before=before, after=after, gradients=gradients)


def _score_by_reward(settings: InspectSettings, model: str, data: str) -> Run:
    """The same of a reward model: token scores, segments and the scores of whole answers."""
    if settings.reference is not None:
        raise UsageError(f"{model} is a reward model, which has no log-probabilities to compare; drop --reference")
    if settings.gradients:
        raise UsageError(f"{model} is a reward model, and --gradients measures what training does to a policy's answers; drop it")
    if settings.trust_remote_code:
        raise UsageError(f"{model} is a reward model; those are loaded in transformers' own classes only; drop --trust-remote-code")
    reward = load_model_reward(open_runtime(settings.device, settings.dtype), model, max_length=settings.max_length)
    session = open_session(reward.model.scorer.model, settings, tokenizer=reward.tokenizer)
    session.scorer = reward.model.scorer
    rows = _load_rows(session, data, settings.limit)
    segmentation = reward.model.segmentation
    segments: Segments = [{}] * len(rows.examples) if segmentation is None else segmentation(rows.examples, rows.roles, session.precision)
    for line in reward.describe():
        session.say(line)
    rewards = answer_rewards(reward.model.scorer, reward.model.head, rows.examples, rows.roles, segments, session.precision)
    missing = ["No curves: nothing was trained. The page cannot know which of these rows the reward model was trained on; it takes all as held out."]
    return _make_run(session, settings, rows, missing, rewards=rewards, other=reward.facts())


class _Rows(NamedTuple):
    """Every row of the data, and what is known of them."""

    examples: list[Example]
    roles: tuple[str, ...]
    report: Json
    truth: Mapping[int, Mapping[str, Any]]


def _load_rows(session: Session, source: str, limit: int | None) -> _Rows:
    loaded = load_data(session, source, TEXT_SHAPES, limit=limit)
    examples = [loaded.examples[index] for index in range(len(loaded.examples))]
    return _Rows(examples, tuple(examples[0].responses), loaded.report, truths(source, [example.row for example in examples]))


def _make_run(
    session: Session,
    settings: InspectSettings,
    rows: _Rows,
    missing: Sequence[str],
    *,
    before: Mapping[str, Ragged] = {},
    after: Mapping[str, Ragged] = {},
    rewards: Sequence[Mapping[str, AnswerReward]] = (),
    other: Json | None = None,
    gradients: GradientFindings | None = None,
) -> Run:
    pairs = [
        inspect_row(
            example,
            rows.roles,
            held_out=True,
            before={role: before[role][index] for role in before},
            after={role: np.asarray(after[role][index]) for role in after},
            credit={},
            truth=rows.truth.get(example.row, {}),
            rewards=rewards[index] if rewards else {},
            pull={},
        )
        for index, example in enumerate(rows.examples)
    ]
    facts = RunRecord(command="inspect", settings=to_json(settings), status="finished", data=rows.report, rows=len(pairs), other=other or {})
    return Run(name=Path(str(settings.model)).name, record=stamp(session, facts), pairs=pairs, gradients=gradients, missing=missing)


def _score_by_reference(session: Session, source: str, examples: Sequence[Any], roles: tuple[str, ...], longest: int) -> dict[str, list[Any]]:
    """Log-probabilities of the same rows under another model with the same tokenizer."""
    policy = load_policy(source, master=master_dtype(session.precision.name), trust_remote_code=session.trust_remote_code)
    if policy.tokenizer.get_vocab() != session.policy.tokenizer.get_vocab():
        raise UsageError(f"the reference {source} has another tokenizer than the model; log-ratios need the same tokens")
    silence_dropout(policy.model)
    policy.model.to(session.device)
    engine, _ = make_scorer(policy.model, longest=longest)
    return score_rows(engine, examples, roles, session.precision)
