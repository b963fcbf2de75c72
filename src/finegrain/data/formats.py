"""The formats this house recognises, each a short entry: name, the columns it needs, and small functions from a row to examples.

Recognition looks at the first row, from the most particular format to the most general. A new public format is one entry in
FORMATS and one function per shape it can serve; the other shapes are derived (`rows_of_shape`): pairs give unpaired rows
(chosen 1, rejected 0) and demonstrations (the chosen side), unpaired rows give demonstrations (label 1).
Source: data cards and files of the named sets.
Deviations: see docs/guides/data.md.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, NamedTuple

from finegrain.data.columns import answer_of, label_of, numeric_columns, text_of
from finegrain.data.conversations import is_conversation, parse_transcript, read_turns, split_demonstration, split_pair
from finegrain.data.records import Answer, Row, Shape, Text, Turn
from finegrain.errors import DataError
from finegrain.types import CharSpan, Json

Convert = Callable[[Json], list[Row]]


def _any_row(row: Json) -> bool:
    return True


class Format(NamedTuple):
    """One recognised format."""

    name: str
    columns: frozenset[str]
    """Columns every row must have."""
    pairs: Convert | None = None
    """Rows with roles chosen and rejected."""
    answers: Convert | None = None
    """Rows with role answer and the column `label`."""
    demonstrations: Convert | None = None
    """Rows with role answer."""
    matches: Callable[[Json], bool] = _any_row
    """What else the first row must satisfy."""


def recognise(row: Json) -> Format:
    """The format of a first row; a DataError lists the columns found and those expected."""
    for candidate in FORMATS:
        if candidate.columns <= row.keys() and candidate.matches(row):
            return candidate
    expected = "; ".join(f"{entry.name} ({', '.join(sorted(entry.columns))})" for entry in FORMATS)
    raise DataError(f"columns found: {', '.join(row) or 'none'}; expected one of: {expected}")


def rows_of_shape(entry: Format, shape: Shape, row: Json) -> list[Row]:
    """The examples of one row in the wanted shape, without repeats."""
    if missing := sorted(entry.columns - row.keys()):
        raise DataError(f"missing columns {', '.join(missing)}; found: {', '.join(row)}; {entry.name} needs {', '.join(sorted(entry.columns))}")
    return _unique(_CONVERTERS[shape](entry, row))


def _pairs(entry: Format, row: Json) -> list[Row]:
    if entry.pairs is None:
        raise DataError(f"{entry.name} has no pairs of a chosen and a rejected answer")
    return entry.pairs(row)


def _unpaired(entry: Format, row: Json) -> list[Row]:
    if entry.answers is not None:
        return entry.answers(row)
    if entry.pairs is not None:
        return [_one_side(pair, role, label) for pair in entry.pairs(row) for role, label in (("chosen", 1.0), ("rejected", 0.0))]
    raise DataError(f"{entry.name} has neither labels nor pairs")


def _demonstrations(entry: Format, row: Json) -> list[Row]:
    if entry.demonstrations is not None:
        return entry.demonstrations(row)
    if entry.pairs is not None:
        return [_one_side(pair, "chosen", None) for pair in entry.pairs(row)]
    return [answer for answer in _unpaired(entry, row) if answer.columns["label"] == 1.0]


_CONVERTERS: Mapping[Shape, Callable[[Format, Json], list[Row]]] = {
    Shape.PREFERENCE: _pairs,
    Shape.UNPAIRED: _unpaired,
    Shape.DEMONSTRATION: _demonstrations,
}


def _one_side(pair: Row, role: str, label: float | None) -> Row:
    columns = pair.columns if label is None else {**pair.columns, "label": label}
    return pair_with(pair, {"answer": pair.answers[role]}, columns)


def pair_with(row: Row, answers: dict[str, Answer], columns: dict[str, float]) -> Row:
    """The same prompt with other answers and columns."""
    return Row(prompt=row.prompt, answers=answers, columns=columns, glue=row.glue, notes=row.notes)


def _unique(rows: list[Row]) -> list[Row]:
    seen: set[object] = set()
    kept = []
    for row in rows:
        key = (row.prompt, *((role, answer.content) for role, answer in row.answers.items()), row.columns.get("label"))
        if key not in seen:
            kept.append(row)
            seen.add(key)
    return kept


def preference_strings(row: Json) -> list[Row]:
    """{prompt, chosen, rejected} as strings, taken as they are."""
    answers = {role: answer_of(row, role, text_of(row, role), role) for role in ("chosen", "rejected")}
    return [Row(prompt=text_of(row, "prompt"), answers=answers, columns=numeric_columns(row))]


def preference_turns(row: Json) -> list[Row]:
    """{prompt, chosen, rejected} where at least one is a conversation; a prompt repeated at the start of the answers is not doubled."""
    if row.get("prompt") is None:
        return preference_implicit(row)
    prompt = read_turns(row["prompt"], "prompt") if is_conversation(row["prompt"]) else (Turn("user", text_of(row, "prompt")),)
    sides = {}
    for role in ("chosen", "rejected"):
        turns = read_turns(row[role], role) if is_conversation(row[role]) else (Turn("assistant", text_of(row, role)),)
        repeats = turns[: len(prompt)] == prompt or (turns[0].role in ("system", "user") and not is_conversation(row["prompt"]))
        sides[role] = turns if repeats else prompt + turns
    return _split(row, sides["chosen"], sides["rejected"])


def preference_implicit(row: Json) -> list[Row]:
    """{chosen, rejected} as whole conversations; the prompt is their common start."""
    return _split(row, read_turns(row["chosen"], "chosen"), read_turns(row["rejected"], "rejected"))


def hh_rlhf(row: Json) -> list[Row]:
    """{chosen, rejected} as transcripts "\\n\\nHuman: …\\n\\nAssistant: …"."""
    return _split(row, *(parse_transcript(text_of(row, role), role) for role in ("chosen", "rejected")))


def _split(row: Json, chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]) -> list[Row]:
    split = split_pair(chosen, rejected)
    answers = {"chosen": answer_of(row, "chosen", split.chosen, "chosen"), "rejected": answer_of(row, "rejected", split.rejected, "rejected")}
    notes = () if split.same_prompt else ("prompt_mismatch",)
    return [Row(prompt=split.prompt, answers=answers, columns=numeric_columns(row), notes=notes)]


def prompt_answer(row: Json) -> list[Row]:
    """{prompt, completion|response|answer} as strings or conversations; `label`, `spans` and the like where they are there."""
    column = next(name for name in ("completion", "response", "answer") if name in row)
    prompt, content = row["prompt"], row[column]
    if not is_conversation(prompt) and not is_conversation(content):
        return [_single(row, text_of(row, "prompt"), text_of(row, column))]
    turns = read_turns(prompt, "prompt") if is_conversation(prompt) else (Turn("user", text_of(row, "prompt")),)
    reply = read_turns(content, column) if is_conversation(content) else (Turn("assistant", text_of(row, column)),)
    return [_single(row, turns, reply)]


def labelled(row: Json) -> list[Row]:
    """`prompt_answer` with a label of 0 or 1."""
    label = label_of(row)
    return [pair_with(one, one.answers, {**one.columns, "label": label}) for one in prompt_answer(row)]


def messages(row: Json) -> list[Row]:
    """{messages}: the prompt ends before the assistant's first turn."""
    return [_single(row, *split_demonstration(read_turns(row["messages"], "messages")))]


def text(row: Json) -> list[Row]:
    """{text}: everything is the answer."""
    return [_single(row, "", text_of(row, "text"))]


def _single(row: Json, prompt: Text, content: Text) -> Row:
    return Row(prompt=prompt, answers={"answer": answer_of(row, "", content, "answer")}, columns=numeric_columns(row))


QA_PAIRS = tuple(combinations(range(1, 5), 2))


def qa_feedback(row: Json) -> list[Row]:
    """One pair per strict preference among the four predictions; error spans (value -1) on prediction 1, the only annotated one."""
    passages = "\n\n".join(" ".join(passage[1:]) for passage in row["passages"])
    prompt = f"{passages}\n\nQuestion: {text_of(row, 'question')}\nAnswer:"
    errors: list[CharSpan] = [(int(error["start"]), int(error["end"]), -1.0) for error in row["feedback"]["errors"]]
    if len(row["preference"]) != len(QA_PAIRS) or not set(row["preference"]) <= {0, 1, 2}:
        raise DataError(f"column 'preference': expected six numbers 0, 1 or 2, found {row['preference']}")
    rows = []
    for (first, second), preferred in zip(QA_PAIRS, row["preference"], strict=True):
        if preferred == 0:
            continue
        numbers = {"chosen": first, "rejected": second} if preferred == 1 else {"chosen": second, "rejected": first}
        answers = {role: Answer(content=text_of(row, f"prediction {n}"), spans=errors if n == 1 else None) for role, n in numbers.items()}
        columns = {f"{role}_prediction": float(number) for role, number in numbers.items()}
        rows.append(Row(prompt=prompt, answers=answers, columns=columns, glue=" "))
    return rows


def _question(row: Json, answer: str, columns: Mapping[str, float]) -> Row:
    return Row(prompt=f"Question: {text_of(row, 'question')}\nAnswer:", answers={"answer": Answer(content=answer)}, columns=dict(columns), glue=" ")


def gsm8k(row: Json) -> list[Row]:
    """{question, answer}."""
    return [_question(row, text_of(row, "answer"), numeric_columns(row))]


def solutions(row: Json) -> list[Row]:
    """Every model's solution to one problem, label 1 where it is right."""
    found = [value for value in row.values() if _is_solution(value)]
    return [_question(row, text_of(value, "solution"), {"label": float(value["is_correct"])}) for value in found]


def solution_pairs(row: Json) -> list[Row]:
    """Every right solution against every wrong one; none where all are right or all are wrong."""
    by_label: dict[float, list[Row]] = {0.0: [], 1.0: []}
    for solution in solutions(row):
        by_label[solution.columns["label"]].append(solution)
    return [
        pair_with(right, {"chosen": right.answers["answer"], "rejected": wrong.answers["answer"]}, {})
        for right in by_label[1.0]
        for wrong in by_label[0.0]
    ]


def _is_solution(value: Any) -> bool:
    return isinstance(value, dict) and {"is_correct", "solution"} <= value.keys()


def _has(*names: str) -> frozenset[str]:
    return frozenset(names)


def _transcripts(row: Json) -> bool:
    return row.get("prompt") is None and all(isinstance(row[role], str) and "Assistant:" in row[role] for role in ("chosen", "rejected"))


def _conversations(row: Json) -> bool:
    return is_conversation(row["chosen"])


def _strings(row: Json) -> bool:
    return all(isinstance(row[column], str) for column in ("prompt", "chosen", "rejected"))


FORMATS: tuple[Format, ...] = (
    Format("qa_feedback", _has("question", "passages", *(f"prediction {n}" for n in range(1, 5)), "feedback", "preference"), qa_feedback),
    Format(
        "gsm8k model solutions",
        _has("question", "ground_truth"),
        solution_pairs,
        solutions,
        matches=lambda row: any(map(_is_solution, row.values())),
    ),
    Format("gsm8k", _has("question", "answer"), demonstrations=gsm8k),
    Format("hh-rlhf", _has("chosen", "rejected"), hh_rlhf, matches=_transcripts),
    Format("preference pairs", _has("prompt", "chosen", "rejected"), preference_strings, matches=_strings),
    Format("preference conversations", _has("prompt", "chosen", "rejected"), preference_turns),
    Format("preference conversations, implicit prompt", _has("chosen", "rejected"), preference_implicit, matches=_conversations),
    Format("unpaired answers", _has("prompt", "completion", "label"), answers=labelled),
    Format("unpaired answers", _has("prompt", "response", "label"), answers=labelled),
    Format("unpaired answers", _has("prompt", "answer", "label"), answers=labelled),
    Format("demonstrations", _has("prompt", "completion"), demonstrations=prompt_answer),
    Format("demonstrations", _has("prompt", "response"), demonstrations=prompt_answer),
    Format("demonstrations", _has("prompt", "answer"), demonstrations=prompt_answer),
    Format("demonstration conversations", _has("messages"), demonstrations=messages),
    Format("text", _has("text"), demonstrations=text),
)
