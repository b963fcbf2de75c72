"""A tokenised row as text again, for readers with a tokenizer of their own: what the rendered texts do not tell travels with the example."""

import json
from typing import Any

from finegrain.data.records import Answer, Example, Row, Text, Turn


def write_source(row: Row) -> str:
    """The turns, the glue and the tools of a row as JSON; empty for plain strings without glue, whose texts the example has anyway."""
    told: dict[str, Any] = {name: value for name, value in (("glue", row.glue), ("tools", row.tools)) if value}
    if not isinstance(row.prompt, str):
        told |= {"prompt": row.prompt, "answers": {role: answer.content for role, answer in row.answers.items()}}
    return json.dumps(told) if told else ""


def read_source_row(example: Example) -> Row:
    """The row as text with its columns and spans; token rewards, which belong to the example's own tokens, are left out."""
    told = json.loads(example.source) if example.source else {}
    turns = {role: _turns(answer) for role, answer in told.get("answers", {}).items()}
    contents: dict[str, Text] = {role: response.text for role, response in example.responses.items()}
    if "prompt" in told:
        contents = {role: turns.get(role, (Turn("assistant", str(text)),)) for role, text in contents.items()}
    return Row(
        prompt=_turns(told["prompt"]) if "prompt" in told else example.prompt_text,
        answers={role: Answer(content=content, spans=example.spans.get(role)) for role, content in contents.items()},
        columns=example.columns,
        tools=told.get("tools", ""),
        glue=told.get("glue", ""),
    )


def lend_answer(source: str, other: str, role: str, new: str) -> str:
    """The first row's source with the answer `role` of the other row as its answer `new`, where both are conversations."""
    told, lent = (json.loads(one) if one else {} for one in (source, other))
    if "answers" not in told or "answers" not in lent:
        return source
    told["answers"][new] = lent["answers"][role]
    return json.dumps(told)


def _turns(turns: list[list[str]]) -> tuple[Turn, ...]:
    return tuple(Turn(*turn) for turn in turns)
