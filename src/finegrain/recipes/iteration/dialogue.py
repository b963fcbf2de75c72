"""Pairs written as a dialogue for a model without a chat template, and the prompts that nothing trains on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.data.questions import Questions
from finegrain.data.records import Shape
from finegrain.errors import DataError
from finegrain.files import write_new
from finegrain.types import Json

PAIRS, HELD_OUT = "pairs.jsonl", "held-out.jsonl"
MOST = 64
"""Prompts held out [choice]."""


def write_dialogues(data: str, folder: Path, *, template: str, share: float, limit: int | None, seed: int) -> Json:
    """pairs.jsonl and held-out.jsonl: prompts as the template writes them, answers after a space; rows of one prompt stay together.

    Conversations have one turn of a user before the answers; others are left out and counted, and so are ties. DataError where no pair is left.
    """
    questions, rows, left_out = Questions(data, limit), [], 0
    for question in questions(Shape.PREFERENCE):
        prompt, answers = _as_text(question.made.prompt), {role: _as_text(answer.content) for role, answer in question.made.answers.items()}
        if prompt is None or None in answers.values() or question.made.columns.get("tie") == 1:
            left_out += 1
            continue
        texts = {role: f" {text.strip()}" for role, text in answers.items() if text is not None}
        rows.append({"prompt": template.replace("{prompt}", prompt.strip()), **texts, "source_row": question.row})
    if not rows:
        raise DataError(f"{data} has no pair of a single prompt and two answers; {left_out} have more turns, or are ties")
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    count = min(MOST, round(share * len(prompts)))
    apart = {prompts[place] for place in np.random.default_rng([seed, 2]).permutation(len(prompts))[:count]}
    for name, wanted in ((PAIRS, False), (HELD_OUT, True)):
        file = folder / name
        file.unlink(missing_ok=True)
        write_new(file, _lines([row for row in rows if (row["prompt"] in apart) == wanted]))
    kept = sum(row["prompt"] not in apart for row in rows)
    return {"pairs": kept, "held_out_pairs": len(rows) - kept, "held_out_prompts": count, "left_out": left_out}


def _as_text(content: Any) -> str | None:
    """A text, or the one turn of a conversation; None where it has several."""
    if isinstance(content, str):
        return content
    return str(content[0].content) if len(content) == 1 else None


def _lines(rows: list[Json]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
