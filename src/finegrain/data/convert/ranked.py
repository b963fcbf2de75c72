"""Sets of several ranked answers to a prompt, and of answers with a correction, and the pairs that follow from both.

Columns of ranked answers: `rank/<role>` (1 is best, equal ranks are a tie) and, where the set has them, `score/<role>`. The roles
answer-1 ... answer-K are in the order of the ranks, answers of equal rank in the order of the row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from numbers import Real
from typing import NamedTuple

from finegrain.data.annotations import read_answer
from finegrain.data.columns import read_list, read_number, read_numeric_columns, read_text, to_float
from finegrain.data.conversations import is_conversation, read_prompt
from finegrain.data.convert.build import make_assistant_turn
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row, Text
from finegrain.errors import DataError

ANSWERS = ("answers", "responses", "completions")
"""Columns with the answers to a prompt."""
OF_AN_ANSWER = ("spans", "spans_by_rater", "annotator", "annotators", "answer_token_reward", "answer_parse")
"""What an answer that is an object may have beside its text and its rank, as a row of one answer has it."""
RANK, SCORE = "rank/", "score/"
CORRECTED = ("corrected", "original")
"""Roles of a correction, the better one first, as in pairs."""


class Ranked(NamedTuple):
    """One answer among several."""

    answer: Answer
    rank: float
    score: float | None = None


def make_ranked(prompt: Text, answers: Sequence[Ranked], columns: Mapping[str, float] | None = None, glue: str = "") -> list[Made]:
    """One example of K answers, the best first; the same text with the same rank counts once (`repeated_answer`)."""
    if len(answers) < 2:
        return [LeftOut.ONE_ANSWER if answers else LeftOut.NO_ANSWER]
    kept: dict[tuple[object, float], Ranked] = {}
    for one in answers:
        kept.setdefault((one.answer.content, one.rank), one)
    repeated = ("repeated_answer",) * (len(answers) - len(kept))
    if len(kept) < 2:
        return [LeftOut.ONE_ANSWER]
    order = sorted(kept.values(), key=lambda one: math.inf if one.rank != one.rank else one.rank)
    named = {f"answer-{place}": one for place, one in enumerate(order, 1)}
    numbers = {f"{RANK}{role}": one.rank for role, one in named.items()}
    scores = {f"{SCORE}{role}": one.score for role, one in named.items() if one.score is not None}
    return [
        Row(
            prompt=prompt,
            answers={role: one.answer for role, one in named.items()},
            columns={**(columns or {}), **numbers, **scores},
            glue=glue,
            notes=repeated,
        )
    ]


def rank_scores(scores: Sequence[float]) -> list[float]:
    """Ranks of scores, 1 for the highest; equal scores share the best of their places."""
    return [1.0 + sum(other > score for other in scores) for score in scores]


def pairs_of_ranked(row: Row) -> list[Made]:
    """C(K,2) pairs, weight 1 / their number; of equal ranks neither is better, so they give none (`no_preference`)."""
    roles = list(row.answers)
    pairs = list(combinations(roles, 2))
    other = {name: value for name, value in row.columns.items() if not name.startswith((RANK, SCORE))}
    made = [_pair(row, better, worse, {"weight": 1 / len(pairs), **other}) for better, worse in pairs]
    first = next((place for place, one in enumerate(made) if isinstance(one, Row)), None)
    return [replace(one, notes=row.notes) if isinstance(one, Row) and place == first else one for place, one in enumerate(made)]


def _pair(row: Row, better: str, worse: str, columns: Mapping[str, float]) -> Made:
    ranks = {"chosen_rank": row.columns[RANK + better], "rejected_rank": row.columns[RANK + worse]}
    if ranks["chosen_rank"] == ranks["rejected_rank"]:
        return LeftOut.NO_PREFERENCE
    scores = [row.columns.get(SCORE + role) for role in (better, worse)]
    margin = {} if scores[0] is None or scores[1] is None else {"margin": abs(scores[0] - scores[1])}
    answers = {"chosen": row.answers[better], "rejected": row.answers[worse]}
    return Row(prompt=row.prompt, answers=answers, columns={**columns, **ranks, **margin}, tools=row.tools, glue=row.glue)


def pair_of_correction(row: Row) -> list[Made]:
    """The corrected answer as chosen, the original as rejected."""
    answers = {"chosen": row.answers["corrected"], "rejected": row.answers["original"]}
    return [Row(prompt=row.prompt, answers=answers, columns=row.columns, tools=row.tools, glue=row.glue, notes=row.notes)]


def ranked(row: Reading) -> list[Made]:
    """{prompt, answers: [text], ranks or scores: [number]}, or answers as objects with an answer, its rank or score, and its spans."""
    column = next(name for name in ANSWERS if name in row)
    cells = row[column]
    own: Sequence[Mapping[str, object]]
    if isinstance(cells, list) and cells and all(isinstance(one, dict) for one in cells):
        texts, numbers, by = _objects(row, cells, column)
        own = cells
    else:
        texts, by = read_list(row, column, str), "ranks" if row.get("ranks") is not None else "scores"
        own = [{}] * len(texts)
        numbers = [_number(value, by) for value in read_list(row, by, Real)]
    if len(numbers) != len(texts):
        raise DataError(f"column {by!r}: expected one number for each of {len(texts)} answers, found {len(numbers)}")
    ranks = numbers if by == "ranks" else rank_scores(numbers)
    scores: Sequence[float | None] = [None] * len(texts) if by == "ranks" else numbers
    prompt = row["prompt"]
    talks = is_conversation(prompt)
    turned: list[Text] = [make_assistant_turn(text) if talks else text for text in texts]
    read = [read_answer(one, "", text, "answer") for one, text in zip(own, turned, strict=True)]
    answers = [Ranked(answer, rank, score) for answer, rank, score in zip(read, ranks, scores, strict=True)]
    return make_ranked(read_prompt(prompt, "prompt") if talks else read_text(row, "prompt"), answers, read_numeric_columns(row))


def _objects(row: Reading, cells: Sequence[Mapping[str, object]], column: str) -> tuple[list[str], list[float], str]:
    """[{answer, rank or score, spans?}]; other keys are not read."""
    name = next((name for name in ("answer", "response", "text", "content", "completion") if name in cells[0]), None)
    by = next((by for by in ("rank", "score") if by in cells[0]), None)
    if name is None or by is None:
        raise DataError(f"column {column!r}: expected objects with answer (or response, text) and rank or score, found {', '.join(cells[0])}")
    row.ignored += [f"{key} of {column}" for key in dict.fromkeys(key for one in cells for key in one) if key not in (name, by, *OF_AN_ANSWER)]
    return [read_text(one, name) for one in cells], [read_number(one, by) for one in cells], f"{by}s"


def _number(value: object, column: str) -> float:
    if isinstance(value, bool):
        raise DataError(f"column {column!r}: expected numbers, found {value}")
    return to_float(value)


def correction(row: Reading) -> list[Made]:
    """{prompt, original, corrected}, with the columns `original_spans`, `corrected_spans`; a null or empty correction: nobody corrected it."""
    if row["corrected"] in (None, ""):
        return [LeftOut.NO_CORRECTION]
    prompt = row["prompt"]
    talks = is_conversation(prompt)
    contents: dict[str, Text] = {role: make_assistant_turn(read_text(row, role)) if talks else read_text(row, role) for role in CORRECTED}
    answers = {role: read_answer(row, role, content, role) for role, content in contents.items()}
    return [Row(prompt=read_prompt(prompt, "prompt") if talks else read_text(row, "prompt"), answers=answers, columns=read_numeric_columns(row))]
