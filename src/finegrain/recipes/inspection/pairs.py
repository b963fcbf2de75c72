"""Rows of a run looked at token by token: chosen and scored before training, scored again after it, written as pairs.jsonl."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from finegrain.data.mixture import read_sources
from finegrain.data.records import Example
from finegrain.data.sources import parse_sources
from finegrain.errors import DataError
from finegrain.models.score import Precision, count_computed_tokens, score_rows
from finegrain.models.scorer import Scorer
from finegrain.ops.sequence import to_wide
from finegrain.recipes.inspection.rewards import AnswerReward, answer_rewards
from finegrain.recipes.session import Session
from finegrain.report.pairs import FILE, ExaminedAnswer, ExaminedPair, shorten_prompt
from finegrain.rewards.heads import RewardHead
from finegrain.runs import RunDirectory
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.pull import token_pulls
from finegrain.types import CharSpan, Pair, Ragged, Side, TokenColumns

TRUTH = "_truth"
"""Suffix of a data column of spans that no method reads: the planted truth."""


class Chosen(NamedTuple):
    """One row to look at."""

    example: Example
    place: int
    """In its set."""
    held_out: bool


@dataclass(frozen=True)
class PairSnapshot:
    """The rows, and their values before the first step."""

    rows: Sequence[Chosen]
    roles: tuple[str, ...]
    before: Mapping[str, Ragged] | None
    """None where log-probabilities play no part in the run."""
    token_columns: Mapping[str, TokenColumns]
    held_token_columns: Mapping[str, TokenColumns]
    """What was made for the held-out rows: segments and steps that a reward model reads, no credit."""
    pulls: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """By place, of training rows, which tokens carry the gradient; empty where that is not known."""
    held_out_logps: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    """By place and role, log-probabilities of held-out rows after training, as the evaluation computed them."""

    def read_held_out(self, places: Sequence[int], pair: Pair) -> None:
        """Keep the log-probabilities of the rows that are inspected, on the way of their evaluation."""
        wanted = {row.place: row.example for row in self.rows if row.held_out}
        if self.before is None:
            return
        for index, place in enumerate(places):
            if place in wanted:
                self.held_out_logps[place] = {role: _own(pair.sides[role], index, wanted[place].responses[role].mask) for role in self.roles}

    def after(self, scorer: Scorer, precision: Precision) -> dict[str, Ragged]:
        """By role, log-probabilities of all rows under the trained model; those that no evaluation computed are computed now."""
        known = [self.held_out_logps.get(row.place) if row.held_out else None for row in self.rows]
        rest = score_rows(scorer, [row.example for row, own in zip(self.rows, known, strict=True) if own is None], self.roles, precision)
        scored = {role: iter(rest[role]) for role in self.roles}
        return {role: [next(scored[role]) if own is None else own[role] for own in known] for role in self.roles}


def choose_rows(trained: Sequence[int] | np.ndarray, train: TrainingSet, held: TrainingSet, most: int) -> list[Chosen]:
    """At most `most` rows, half of them held out where there are enough, evenly spread over each set."""
    held_count = min(len(held.examples), max(most // 2, most - len(trained)))
    train_count = min(len(trained), most - held_count)
    seen = [(train.examples[place], int(place), False) for place in _spread(trained, train_count)]
    unseen = [(held.examples[place], int(place), True) for place in _spread(range(len(held.examples)), held_count)]
    return [Chosen(*row) for row in [*unseen, *seen]]


def snapshot_before(
    session: Session, scorer: Scorer, rows: Sequence[Chosen], contract: Contract, train: TrainingSet, held: TrainingSet
) -> PairSnapshot:
    """Values of the rows under the start model: the reference's where the run has them, else scored. One process's work, no collective in it."""
    roles, reference = contract.roles, {False: train.reference, True: held.reference}
    if "logp" not in contract.needs:
        before = None
    elif all(role in reference[row.held_out] for row in rows for role in roles):
        before = {role: [reference[row.held_out][role][row.place] for row in rows] for role in roles}
    else:
        started = time.perf_counter()
        examples = [row.example for row in rows]
        before = score_rows(scorer, examples, roles, session.precision)
        session.usage.rows += len(examples)
        session.usage.tokens += count_computed_tokens(examples, roles, session.precision)
        session.usage.seconds += time.perf_counter() - started
    return PairSnapshot(rows, roles, before, train.token_columns, held.token_columns, _pulls(contract, train, rows, before))


def _pulls(
    contract: Contract, train: TrainingSet, rows: Sequence[Chosen], before: Mapping[str, Ragged] | None
) -> dict[int, Mapping[str, np.ndarray]]:
    if before is None:
        return {}
    trained = [index for index, row in enumerate(rows) if not row.held_out]
    places = [rows[index].place for index in trained]
    found = token_pulls(contract, train, places, {role: [values[index] for index in trained] for role, values in before.items()})
    return {} if found is None else dict(zip(places, found, strict=True))


def write_inspected_pairs(
    snapshot: PairSnapshot,
    session: Session,
    scorer: Scorer,
    directory: RunDirectory,
    source: str,
    held_source: str | None,
    head: RewardHead | None = None,
) -> None:
    """pairs.jsonl: the same rows under the trained model; `head` is what a reward model's outputs mean."""
    examples = [row.example for row in snapshot.rows]
    rewards = None if head is None else answer_rewards(scorer, head, examples, snapshot.roles, _segments(snapshot), session.precision)
    after = None if snapshot.before is None else snapshot.after(scorer, session.precision)
    truth = {False: truths(source, [row.example.row for row in snapshot.rows if not row.held_out or held_source is None])}
    truth[True] = truth[False] if held_source is None else truths(held_source, [row.example.row for row in snapshot.rows if row.held_out])
    pairs = [
        inspect_row(
            row.example,
            snapshot.roles,
            held_out=row.held_out,
            before=_nth(snapshot.before, index),
            after=_nth(after, index),
            credit={} if row.held_out else {role: (columns, row.place) for role, columns in snapshot.token_columns.items()},
            truth=truth[row.held_out].get(row.example.row, {}),
            rewards={} if rewards is None else rewards[index],
            pull=snapshot.pulls.get(row.place, {}) if not row.held_out else {},
        )
        for index, row in enumerate(snapshot.rows)
    ]
    directory.write_lines(FILE, [pair.as_json() for pair in pairs])


def inspect_row(
    example: Example,
    roles: Sequence[str],
    *,
    held_out: bool,
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    credit: Mapping[str, tuple[TokenColumns, int]],
    truth: Mapping[str, Any],
    rewards: Mapping[str, AnswerReward],
    pull: Mapping[str, np.ndarray],
) -> ExaminedPair:
    """One row as the report reads it."""
    answers = {}
    for role in roles:
        response = example.responses[role]
        columns, place = credit.get(role, (None, 0))
        spans = example.spans.get(role)
        answers[role] = ExaminedAnswer(
            text=response.text,
            offsets=response.offsets,
            mask=response.mask,
            before=before.get(role),
            after=after.get(role),
            weight=None if columns is None else columns.weight[place],
            reward=example.token_rewards.get(role) if columns is None else columns.reward[place],
            reward_std=None if columns is None or columns.reward_std is None else columns.reward_std[place],
            pull=pull.get(role),
            spans=None if spans is None else tuple(spans),
            truth=_marks(truth.get(role), len(response.text)),
            annotators=example.annotators.get(role, ()),
        )
        if role in rewards:
            answers[role] = replace(answers[role], **rewards[role])
    prompt, columns_of_row = shorten_prompt(example.prompt_text), example.columns
    tie = columns_of_row.get("tie") == 1
    return ExaminedPair(row=example.row, held_out=held_out, prompt=prompt, answers=answers, label=columns_of_row.get("label"), tie=tie)


def _own(side: Side, index: int, mask: np.ndarray) -> np.ndarray:
    """(T,) log-probabilities of one row, 0 where the mask is False."""
    logp: np.ndarray = to_wide(side.logp[index, : len(mask)]).cpu().numpy()
    return np.where(mask, logp, logp.dtype.type(0))


def _segments(snapshot: PairSnapshot) -> list[dict[str, np.ndarray | None]]:
    """By row and role, the segments that were made before training."""
    columns = {False: snapshot.token_columns, True: snapshot.held_token_columns}
    return [{role: own.segment[row.place] for role, own in columns[row.held_out].items()} for row in snapshot.rows]


def truths(source: str, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """By row and role, the planted truth of those rows; empty where the data have none."""
    if not rows:
        return {}
    try:
        firsts = [next(read_sources(one.source, 1).rows)[1] for one in parse_sources(source)]
        if not any(name.endswith(TRUTH) for first in firsts for name in first):
            return {}
        wanted = set(rows)
        raw = {number: row for number, (_, row) in enumerate(read_sources(source, max(rows) + 1).rows) if number in wanted}
    except DataError:  # the data went away during the run: the report then has no truth to show
        return {}
    return {row: {name.removesuffix(TRUTH): value for name, value in raw[row].items() if name.endswith(TRUTH)} for row in rows if row in raw}


def _marks(spans: Any, length: int) -> tuple[CharSpan, ...] | None:
    """Spans inside the text; None for a column that holds none."""
    if not isinstance(spans, list):
        return None
    try:
        marks = [CharSpan(max(0, int(start)), min(int(end), length), float(value)) for start, end, value in spans]
    except (TypeError, ValueError):
        return None
    return tuple(mark for mark in marks if mark.start < mark.end)


def _nth(values: Mapping[str, Ragged] | None, index: int) -> dict[str, np.ndarray]:
    return {} if values is None else {role: rows[index] for role, rows in values.items()}


def _spread(places: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """`count` of the places, evenly spaced."""
    if count <= 0:
        return []
    return [int(places[index]) for index in np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))]
