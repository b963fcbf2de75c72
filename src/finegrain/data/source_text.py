"""A tokenised row as text again, for readers with their own tokenizer: the example keeps what the rendered texts do not contain."""

import json
from typing import Any

from finegrain.data.records import Answer, Example, Row, Text, Turn


def write_source(row: Row) -> str:
    """The turns, the glue and the tools of a row as JSON; empty for plain strings without glue, whose texts the example already has."""
    kept: dict[str, Any] = {name: value for name, value in (("glue", row.glue), ("tools", row.tools)) if value}
    if not isinstance(row.prompt, str):
        kept |= {"prompt": row.prompt, "answers": {role: answer.content for role, answer in row.answers.items()}}
    if parses := {role: answer.parse for role, answer in row.answers.items() if answer.parse}:
        kept["parses"] = parses
    return json.dumps(kept) if kept else ""


def read_parses(example: Example) -> dict[str, str]:
    """Bracketed parses of the answers that have one, by role."""
    parses: dict[str, str] = json.loads(example.source).get("parses", {}) if example.source else {}
    return parses


def read_source_row(example: Example) -> Row:
    """The row as text with its columns and spans; token rewards, which belong to the example's own tokens, are left out."""
    kept = json.loads(example.source) if example.source else {}
    turns = {role: _turns(answer) for role, answer in kept.get("answers", {}).items()}
    contents: dict[str, Text] = {role: response.text for role, response in example.responses.items()}
    if "prompt" in kept:
        contents = {role: turns.get(role, (Turn("assistant", str(text)),)) for role, text in contents.items()}
    return Row(
        prompt=_turns(kept["prompt"]) if "prompt" in kept else example.prompt_text,
        answers={
            role: Answer(content=content, spans=example.spans.get(role), annotators=example.annotators.get(role, ()))
            for role, content in contents.items()
        },
        columns=example.columns,
        tools=kept.get("tools", ""),
        glue=kept.get("glue", ""),
    )


def forget_answers(source: str) -> str:
    """A row's source without its answers: those that others take the place of are then read from their own text."""
    kept = json.loads(source) if source else {}
    kept.pop("answers", None)
    return json.dumps(kept) if kept else ""


def lend_answer(source: str, other: str, role: str, new: str) -> str:
    """The first row's source with the answer `role` of the other row as its answer `new`, where both are conversations."""
    kept, lent = (json.loads(one) if one else {} for one in (source, other))
    if "answers" not in kept or "answers" not in lent:
        return source
    kept["answers"][new] = lent["answers"][role]
    return json.dumps(kept)


def _turns(turns: list[list[str]]) -> tuple[Turn, ...]:
    return tuple(Turn(*turn) for turn in turns)
