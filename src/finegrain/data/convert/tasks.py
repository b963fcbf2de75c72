"""Questions with labelled answers: qa_feedback and gsm8k."""

from collections.abc import Mapping
from itertools import combinations

from finegrain.data.annotations import Mark, annotate
from finegrain.data.columns import read_numeric_columns, read_text
from finegrain.data.convert.build import replace_answers
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row
from finegrain.errors import DataError

QA_PAIRS = tuple(combinations(range(1, 5), 2))


def qa_feedback(row: Reading) -> list[Made]:
    """One pair per strict preference among the four predictions; error spans (value -1) on prediction 1, the only annotated one."""
    passages = "\n\n".join(" ".join(passage[1:]) for passage in row["passages"])
    prompt = f"{passages}\n\nQuestion: {read_text(row, 'question')}\nAnswer:"
    errors = [
        Mark(int(one["start"]), int(one["end"]), -1.0, aspect=str(one.get("error type") or ""), quote=str(one.get("text") or ""))
        for one in row["feedback"]["errors"]
    ]
    if len(row["preference"]) != len(QA_PAIRS) or not set(row["preference"]) <= {0, 1, 2}:
        raise DataError(f"column 'preference': expected six numbers 0, 1 or 2, found {row['preference']}")
    rows: list[Made] = []
    for (first, second), preferred in zip(QA_PAIRS, row["preference"], strict=True):
        if preferred == 0:
            rows.append(LeftOut.NO_PREFERENCE)
            continue
        numbers = {"chosen": first, "rejected": second} if preferred == 1 else {"chosen": second, "rejected": first}
        answers = {role: annotate(read_text(row, f"prediction {n}"), errors if n == 1 else None) for role, n in numbers.items()}
        columns = {f"{role}_prediction": float(number) for role, number in numbers.items()}
        rows.append(Row(prompt=prompt, answers=answers, columns=columns, glue=" "))
    return rows


def _question(row: Reading, answer: str, columns: Mapping[str, float]) -> Row:
    return Row(prompt=f"Question: {read_text(row, 'question')}\nAnswer:", answers={"answer": Answer(content=answer)}, columns=dict(columns), glue=" ")


def gsm8k(row: Reading) -> list[Row]:
    """{question, answer}."""
    return [_question(row, read_text(row, "answer"), read_numeric_columns(row))]


def solutions(row: Reading) -> list[Made]:
    """Every model's solution to one problem, label 1 where it is right."""
    return [*_solutions(row)] or [LeftOut.NO_ANSWER]


def _solutions(row: Reading) -> list[Row]:
    found = [row[name] for name in solution_columns(row)]
    return [_question(row, read_text(value, "solution"), {"label": float(value["is_correct"])}) for value in found]


def solution_pairs(row: Reading) -> list[Made]:
    """Every right solution against every wrong one; left out where all are right or all are wrong."""
    by_label: dict[float, list[Row]] = {0.0: [], 1.0: []}
    for solution in _solutions(row):
        by_label[solution.columns["label"]].append(solution)
    if not by_label[0.0] or not by_label[1.0]:
        return [LeftOut.NO_WRONG_ANSWER if by_label[1.0] else LeftOut.NO_RIGHT_ANSWER if by_label[0.0] else LeftOut.NO_ANSWER]
    return [
        replace_answers(right, {"chosen": right.answers["answer"], "rejected": wrong.answers["answer"]}, {})
        for right in by_label[1.0]
        for wrong in by_label[0.0]
    ]


def solution_columns(row: Reading) -> list[str]:
    """The columns that hold one model's solution each, whatever their names."""
    return [name for name in row if isinstance(value := row.source[name], dict) and {"is_correct", "solution"} <= value.keys()]
