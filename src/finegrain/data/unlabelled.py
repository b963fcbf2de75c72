"""Several unlabelled answers to one prompt, as tokens: samples of the current policy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finegrain.data.conversations import find_answer_turns, join_prompt_and_answers, read_turns
from finegrain.data.convert.build import make_assistant_turn
from finegrain.data.findings import Findings
from finegrain.data.gate.settings import Gate, Stopping
from finegrain.data.messages import parse_messages, to_messages
from finegrain.data.read import Source, read
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Example, FastTokenizer, Row, Text
from finegrain.data.tokenise import tokenise
from finegrain.data.truncate import Tokenise
from finegrain.errors import DataError
from finegrain.types import Json

FEWEST = 2
"""Minimum number of distinct answers of a prompt."""


@dataclass(frozen=True)
class Unlabelled:
    """Prompts with their answers, and what happened to the rows they came from."""

    examples: list[Example]
    """Roles sample-0, sample-1 ...; at least as many as requested."""
    report: Json
    """JSON: source, sha256, rows, prompts and samples kept, findings."""


def load_samples(
    source: str, tokenizer: FastTokenizer, *, settings: Tokenise, gate: Gate = Gate(), fewest: int = FEWEST, limit: int | None = None
) -> Unlabelled:
    """The rows {prompt, responses} of a file, folder or Hub name; prompts with fewer than `fewest` samples are left out and counted."""
    rows, findings = read(source, limit), Findings()
    kept = ((number, row) for number, _, row in read_sample_rows(rows, findings, fewest))
    examples = list(tokenise(kept, tokenizer, settings, findings, Stopping(gate)))
    if not examples:
        raise DataError(f"{source}: no prompt has at least {fewest} samples in {rows.count} rows; left out: {findings.in_words()}")
    samples = sum(len(example.responses) for example in examples)
    report = {
        "source": source,
        "sha256": rows.sha256(),
        "rows": rows.count,
        "prompts": len(examples),
        "samples": samples,
        "findings": findings.as_json(),
        "messages": [f"samples: {rows.count} rows, {len(examples)} prompts with {samples} samples kept", *findings.messages()],
    }
    return Unlabelled(examples, report)


def has_samples(raw: Mapping[str, Any]) -> bool:
    """Whether a row is {prompt, responses}."""
    return "prompt" in raw and "responses" in raw


def read_sample_rows(rows: Source, findings: Findings, fewest: int = FEWEST) -> Iterator[tuple[int, Mapping[str, Any], Row]]:
    """Source row number, the row, and its texts, for the prompts with at least `fewest` samples; the others are counted in the findings."""
    for number, (where, raw) in enumerate(rows.rows):
        try:
            row = _row(Reading(raw))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if row.notes:
            findings.drop(row.notes[0], number, "a sample that is a whole conversation begins with another prompt")
        elif len(row.answers) < fewest:
            findings.drop("fewer_than_two_samples" if fewest == FEWEST else "no_sample", number)
        else:
            yield number, raw, row


def _row(raw: Reading) -> Row:
    """Strings are used unchanged; after a prompt of messages an answer may be text or messages."""
    if missing := [name for name in ("prompt", "responses") if name not in raw]:
        raise DataError(f"missing {' and '.join(missing)}; samples are rows {{prompt, responses: [answer, answer, ...]}}, found: {', '.join(raw)}")
    prompt, answers = raw["prompt"], raw["responses"]
    if not isinstance(answers, list | tuple):
        raise DataError(f"column 'responses': expected a list of answers, found {type(answers).__name__}")
    if isinstance(prompt, str):
        if not all(isinstance(answer, str) for answer in answers):
            raise DataError("column 'responses': expected a list of texts, because the prompt is a text")
        return _with_answers(prompt, list(answers))
    given = [_messages(answer) for answer in answers]
    samples = {
        _role(place): make_assistant_turn(answer) if isinstance(answer, str) else find_answer_turns(answer, "responses")
        for place, answer in enumerate(given)
    }
    found = join_prompt_and_answers(read_turns(prompt, "prompt"), samples)
    return _with_answers(found.prompt, list(found.answers.values()), () if found.agrees else ("prompt_mismatch",))


def _messages(answer: Any) -> Any:
    """A sample of messages in their usual form."""
    messages = parse_messages(answer, "responses") if isinstance(answer, str) else to_messages(answer)
    return answer if messages is None else messages


def _with_answers(prompt: Text, contents: Sequence[Text], notes: tuple[str, ...] = ()) -> Row:
    return Row(prompt=prompt, answers={_role(place): Answer(content=content) for place, content in enumerate(contents)}, notes=notes)


def _role(place: int) -> str:
    return f"sample-{place}"
