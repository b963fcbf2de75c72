"""Models trained on halves of the pairs vote on the other halves, or on all of them; every row comes back with what they said."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from finegrain.commands.curate import CurateSettings
from finegrain.configure import to_json
from finegrain.curate.mpo import EASY, HARD, MPO, MarginSplit
from finegrain.curate.secrets_rm import Curated, SecretsRM
from finegrain.curate.votes import Linear, Whole
from finegrain.data.formats import Format
from finegrain.data.gate.keeper import convert
from finegrain.data.left_out import select_examples
from finegrain.data.questions import Questions
from finegrain.data.records import Example, Shape
from finegrain.data.store import ExampleStore, longest_row
from finegrain.data.text_file import is_utf8
from finegrain.errors import DataError
from finegrain.files import write_new
from finegrain.models.features import compute_last_features
from finegrain.models.load import master_dtype
from finegrain.models.reward_head import linear_head
from finegrain.models.score import compute_head_rows
from finegrain.models.scorer import Scorer
from finegrain.recipes.session import Session, hidden_size, load_data, open_session, prepare_scorer
from finegrain.recipes.training.reward_artifact import reward_metrics
from finegrain.recipes.training.stage_context import RunStage
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.train.collate import TrainingSet
from finegrain.train.fit import FitSettings, fit
from finegrain.train.optim import scaled_default
from finegrain.types import Json, of_other_side

ROLES = ("chosen", "rejected")
NEUTRAL = {"strength_mean": None, "strength_std": None, "member_margins": None, "flip": 0.0, "margin": 0.0, "label_prob": 1.0, "split_margin": None}
"""Columns of a row that was not voted on."""


def voted_rows(settings: CurateSettings, method: SecretsRM | MPO) -> dict[str, Any]:
    """The rows of the data in their order with the columns of the method, and the summary."""
    session = open_session(settings.model, settings, seed=settings.seed, micro_tokens=settings.micro_tokens)
    loaded = load_data(session, settings.data, Shape.PREFERENCE, limit=settings.limit, gate=settings.gate)
    examples = loaded.examples
    rows = [example.row for example in examples]
    if len(set(rows)) < len(rows):
        raise DataError(
            f"{settings.data}: a row holds several pairs, so columns cannot stand beside it; write one pair per row (prompt, chosen, rejected)"
        )
    prepare_scorer(session, longest_row(examples, ROLES))
    if isinstance(method, MPO) and method.reward:
        scores = RunStage(session, examples, trains=True).score(method.reward)
        margins = (scores["chosen"] - scores["rejected"])[None]
    else:
        margins = _margins(session, method, examples, method.trained(examples.prompt_keys, settings.seed))
    curated = method(margins)
    lines = list(_lines(settings, dict(zip(rows, range(len(rows)), strict=True)), curated))
    agreement = [float((own[np.isfinite(own)] > 0).mean()) for own in margins if np.isfinite(own).any()]
    summary: Json = {
        "out": str(settings.out),
        "rows": len(lines),
        "voted": len(rows),
        **curated.summary(),
        "member_agreement": {"lowest": min(agreement), "highest": max(agreement)} if agreement else {},
        "seconds": round(session.seconds(), 3),
    }
    if isinstance(curated, MarginSplit):
        summary["correlation_with_length"] = _length_correlation(examples, np.abs(curated.columns["split_margin"]))
        for name in (EASY, HARD):
            write_new(settings.part(name), _part(settings, dict(zip(rows, range(len(rows)), strict=True)), curated, name))
    write_new(settings.out, lines)
    write_new(settings.summary, [json.dumps({**summary, "settings": to_json(settings), "data": loaded.report}, indent=1) + "\n"])
    return summary


def _length_correlation(examples: ExampleStore, sizes: np.ndarray) -> float | None:
    """Of a margin's size with the difference of the answers' lengths: near 1, easy means one is longer. None without two different sizes."""
    lengths = np.abs(examples.answer_lengths("chosen").astype(float) - examples.answer_lengths("rejected"))
    known = np.isfinite(sizes)
    if known.sum() < 2 or not sizes[known].std() or not lengths[known].std():
        return None
    return float(np.corrcoef(sizes[known], lengths[known])[0, 1])


def _part(settings: CurateSettings, places: dict[int, int], split: MarginSplit, name: str) -> Iterator[str]:
    """The source's rows of one set, unchanged but for those whose answers are exchanged."""
    for number, (where, raw) in enumerate(Questions(settings.data, settings.limit).raw()):
        place = places.get(number)
        if place is None or split.sets[place] != name:
            continue
        row = dict(raw)
        if name == EASY and split.swapped[place]:
            if not {"chosen", "rejected"} <= row.keys():
                raise DataError(f"{where}: answers are exchanged in rows of prompt, chosen, rejected; or keep or drop them")
            row = {of_other_side(column): value for column, value in row.items()}
        line = json.dumps(row, ensure_ascii=False)
        yield (line if is_utf8(line) else json.dumps(row)) + "\n"


def _margins(session: Session, method: SecretsRM | MPO, examples: ExampleStore, trained: np.ndarray) -> np.ndarray:
    """(M, N) margins, NaN on the pairs that a member did not vote on."""
    assert session.scorer is not None
    if isinstance(method.votes, Linear):
        features = compute_last_features(session.scorer, examples, ROLES, session.precision)
        return method.votes((features["chosen"] - features["rejected"]).astype(np.float64), trained)
    margins = np.full(trained.shape, np.nan)
    seen = "it did not see" if method.train_on == "halves" else "it was trained on"
    for member, (rows, asked) in enumerate(zip(trained, method.voted(trained), strict=True)):
        margins[member, asked] = _whole(session, method.votes, examples, rows, asked, member)
        session.say(f"voting: model {member + 1} of {len(trained)} agrees with {np.nanmean(margins[member, asked] > 0):.1%} of the labels {seen}")
    return margins


def _whole(session: Session, votes: Whole, examples: ExampleStore, rows: np.ndarray, asked: np.ndarray, member: int) -> np.ndarray:
    """Margins of the pairs `asked` for under a reward model trained on `rows`; head and order of the pairs are the member's own."""
    assert session.scorer is not None
    objective = RewardFit(SequenceHead(), BradleyTerry())
    seed = session.seed * 1000 + member
    head = linear_head(hidden_size(session), 1, seed=seed, dtype=master_dtype(session.precision.name)).to(session.scorer.device)
    rate = votes.lr or scaled_default(objective.learning_rate, hidden_size(session))
    settings = FitSettings(rate=rate, batch_size=votes.batch_size, epochs=votes.epochs, seed=seed)
    start = Scorer(session.policy.model, session.scorer.path, head)
    metrics = lambda pair: reward_metrics(objective.head, pair)
    scorer = fit(start, TrainingSet(examples.take(rows)), objective, settings, session.precision, metrics=metrics).scorer
    others = examples.take(asked)
    outputs = compute_head_rows(scorer, others, ROLES, session.precision)
    last = {role: np.array([_last(values, example, role) for values, example in zip(outputs[role], others, strict=True)]) for role in ROLES}
    return np.asarray(last["chosen"] - last["rejected"])


def _last(values: np.ndarray, example: Example, role: str) -> float:
    """The head's output at the last token that counts; 0 of an answer without one."""
    own = values[example.responses[role].mask]
    return float(own[-1, 0]) if len(own) else 0.0


def _lines(settings: CurateSettings, places: dict[int, int], curated: Curated | MarginSplit) -> Iterator[str]:
    """Every row of the source with its columns; `places`: of its row number in the votes."""
    names = [*curated.columns, "member_margins"]
    questions = Questions(settings.data, settings.limit)
    for number, (where, raw) in enumerate(questions.raw()):
        if taken := sorted(raw.keys() & {*names, "curated"}):
            raise DataError(f"{where}: the row has a column {taken[0]} already; rename it, or curate the rows it was made from")
        place = places.get(number)
        if place is None:
            added: Json = {name: NEUTRAL[name] for name in names} | {"curated": "not voted on: the gate dropped it"}
        else:
            added = {name: None if np.isnan(values[place]) else float(values[place]) for name, values in curated.columns.items()}
            added |= {"member_margins": _spoken(curated.margins[:, place]), "curated": curated.reasons[place]}
            _check_read(questions.format, {**raw, **added}, added, where)
        line = json.dumps({**raw, **added}, ensure_ascii=False)
        yield (line if is_utf8(line) else json.dumps({**raw, **added})) + "\n"


def _spoken(margins: np.ndarray) -> list[float | None]:
    """Members' margins of a pair, None for those that did not vote."""
    return [None if np.isnan(margin) else float(margin) for margin in margins]


def _check_read(entry: Format, row: Json, added: Json, where: str) -> None:
    """Refuse a format whose reader would leave the columns out, or say something else under their names."""
    wanted = {name: value for name, value in added.items() if isinstance(value, float)}
    for found in select_examples(convert(entry, Shape.PREFERENCE, row)):
        if lost := [name for name, value in wanted.items() if found.columns.get(name) != value]:
            raise DataError(f"{where}: {entry.name} rows are read without the column {lost[0]}; write them as prompt, chosen, rejected first")
