"""The answers of a data file as a reward reads them: gated and tokenised for one with a tokenizer, as they stand for one that reads text."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from finegrain.data.findings import Findings
from finegrain.data.gate.keeper import FIRST_ROWS
from finegrain.data.load import load_examples
from finegrain.data.questions import Questions
from finegrain.data.read import read
from finegrain.data.records import Row
from finegrain.data.tokenise import Tokenise
from finegrain.data.unlabelled import has_samples, load_samples, read_sample_rows
from finegrain.scoring.records import Candidates, Reward
from finegrain.scoring.tokens import make_candidates
from finegrain.types import Json

Tell = Callable[[Json], None]
"""Gets the report of the data (rows, format, dropped, findings, messages): before the first answer that is tokenised, after the last that is not."""


def are_samples(source: str, limit: int | None) -> bool:
    """Whether the rows are {prompt, responses}."""
    return any(has_samples(raw) for _, raw in islice(read(source, limit).rows, FIRST_ROWS))


def read_answers(questions: Questions, limit: int | None, reward: Reward, max_length: int, tell: Tell) -> Iterable[Candidates]:
    """Rows in the order of the data; for a reward that reads text nothing is dropped but what cannot be read."""
    if reward.tokenizer is None:
        return _as_text(questions, tell)
    data = load_examples(questions.source, reward.tokenizer, shape=questions.shape, settings=Tokenise(max_length=max_length), limit=limit)
    tell(data.report)
    return make_candidates(data.examples, reward.tokenizer)


def read_samples(source: str, limit: int | None, reward: Reward, max_length: int, tell: Tell) -> Iterable[Candidates]:
    """Rows {prompt, responses}: all answers of a prompt together."""
    if reward.tokenizer is None:
        return _samples_as_text(source, limit, tell)
    given = load_samples(source, reward.tokenizer, settings=Tokenise(max_length=max_length), fewest=1, limit=limit)
    tell(given.report)
    return make_candidates(given.examples, reward.tokenizer)


def _as_text(questions: Questions, tell: Tell) -> Iterator[Candidates]:
    for row, raw, made in questions():
        yield _candidates(row, raw, made)
    found = questions.findings
    report = {"rows": questions.rows, "dropped": found.dropped(), "format": questions.format.name, "findings": found.as_json()}
    tell({**report, "messages": found.messages(), "in_words": found.in_words()})


def _samples_as_text(source: str, limit: int | None, tell: Tell) -> Iterator[Candidates]:
    rows, findings = read(source, limit), Findings()
    for sampled in read_sample_rows(rows, findings, 1):
        yield _candidates(*sampled)
    tell({"rows": rows.count, "findings": findings.as_json(), "messages": findings.messages()})


def _candidates(row: int, raw: Mapping[str, Any], made: Row) -> Candidates:
    return Candidates(row=row, made=made, columns=raw)
