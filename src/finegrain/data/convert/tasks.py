"""Questions with labelled answers: qa_feedback and gsm8k."""

from collections.abc import Mapping
from itertools import combinations

from finegrain.data.annotations import Mark, annotate
from finegrain.data.columns import read_numeric_columns, read_text
from finegrain.data.convert.build import replace_answers
from finegrain.data.convert.ranked import Ranked, make_ranked, rank_scores
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row
from finegrain.errors import DataError
from finegrain.types import Json

CORRECT, INCORRECT = 1.0, 2.0
"""Ranks of right and wrong solutions."""
QA_PAIRS = tuple(combinations(range(1, 5), 2))


def qa_feedback(row: Reading) -> list[Made]:
    """One pair per strict preference among the four predictions; error spans (value -1) on prediction 1, the only annotated one."""
    prompt, preference = _qa_prompt(row), _qa_preference(row)
    rows: list[Made] = []
    for (first, second), preferred in zip(QA_PAIRS, preference, strict=True):
        if preferred == 0:
            rows.append(LeftOut.NO_PREFERENCE)
            continue
        numbers = {"chosen": first, "rejected": second} if preferred == 1 else {"chosen": second, "rejected": first}
        answers = {role: _prediction(row, n) for role, n in numbers.items()}
        columns = {f"{role}_prediction": float(number) for role, number in numbers.items()}
        rows.append(Row(prompt=prompt, answers=answers, columns=columns, glue=" "))
    return rows


def qa_ranked(row: Reading) -> list[Made]:
    """The four predictions, ranked by preferences won less preferences lost [choice]; `score/<role>` is that number.

    Preferences that contradict the ranks, as a circle does, are counted in the column `against_ranks`.
    """
    preference = _qa_preference(row)
    wins = dict.fromkeys(range(1, 5), 0.0)
    for (first, second), preferred in zip(QA_PAIRS, preference, strict=True):
        if preferred:
            wins[first] += 1.0 if preferred == 1 else -1.0
            wins[second] -= 1.0 if preferred == 1 else -1.0
    ranks = dict(zip(wins, rank_scores(list(wins.values())), strict=True))
    won = [pair if preferred == 1 else pair[::-1] for pair, preferred in zip(QA_PAIRS, preference, strict=True) if preferred]
    against = sum(ranks[better] >= ranks[worse] for better, worse in won)
    answers = [Ranked(_prediction(row, n), ranks[n], wins[n]) for n in wins]
    return make_ranked(_qa_prompt(row), answers, {"against_ranks": float(against)}, glue=" ")


def qa_corrections(row: Reading) -> list[Made]:
    """Prediction 1 with its error spans, and the person's correction of it."""
    corrected = row["feedback"].get("corrected-prediction")
    if not corrected:
        return [LeftOut.NO_CORRECTION]
    answers = {"corrected": Answer(content=read_text(row["feedback"], "corrected-prediction")), "original": _prediction(row, 1)}
    return [Row(prompt=_qa_prompt(row), answers=answers, glue=" ")]


def qa_references(row: Reading) -> list[Made]:
    """The reference answer `gold` as chosen against every prediction, weight one over their number; nobody compared them."""
    gold, weight = Answer(content=read_text(row, "gold")), {"weight": 1 / 4}
    predictions = {n: _prediction(row, n) for n in range(1, 5)}
    return [
        Row(prompt=_qa_prompt(row), answers={"chosen": gold, "rejected": one}, columns={**weight, "rejected_prediction": float(n)}, glue=" ")
        for n, one in predictions.items()
    ]


def _qa_prompt(row: Reading) -> str:
    passages = "\n\n".join(" ".join(passage[1:]) for passage in row["passages"])
    return f"{passages}\n\nQuestion: {read_text(row, 'question')}\nAnswer:"


def _qa_preference(row: Reading) -> list[int]:
    if len(row["preference"]) != len(QA_PAIRS) or not set(row["preference"]) <= {0, 1, 2}:
        raise DataError(f"column 'preference': expected six numbers 0, 1 or 2, found {row['preference']}")
    return [int(one) for one in row["preference"]]


def _prediction(row: Reading, number: int) -> Answer:
    """A prediction, the first with its error spans (value -1): the only annotated one."""
    text = read_text(row, f"prediction {number}")
    return annotate(text, [_error(one) for one in row["feedback"]["errors"]] if number == 1 else None)


def _error(error: Json) -> Mark:
    aspect, quote = str(error.get("error type") or ""), str(error.get("text") or "")
    return Mark(int(error["start"]), int(error["end"]), -1.0, aspect=aspect, quote=quote)


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


def ranked_solutions(row: Reading) -> list[Made]:
    """All solutions, right ones with rank 1 and wrong ones with rank 2."""
    found = _solutions(row)
    answers = [Ranked(one.answers["answer"], CORRECT if one.columns["label"] == 1.0 else INCORRECT) for one in found]
    return make_ranked(found[0].prompt, answers, glue=" ") if found else [LeftOut.NO_ANSWER]


def solution_columns(row: Reading) -> list[str]:
    """The columns that hold one model's solution each, whatever their names."""
    return [name for name in row if isinstance(value := row.source[name], dict) and {"is_correct", "solution"} <= value.keys()]
