"""Test sets of reward models as prompts with right and wrong answers: plain pairs, RewardBench, RewardBench 2."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from finegrain.data.columns import read_list, read_text
from finegrain.data.conversations import read_prompt
from finegrain.data.convert.build import make_assistant_turn as turn_of
from finegrain.data.findings import Findings
from finegrain.data.gate.texts import get_texts
from finegrain.data.questions import Questions
from finegrain.data.records import Answer, Row, Shape
from finegrain.errors import DataError
from finegrain.evaluate.rewardbench import ROWS
from finegrain.evaluate.suites import TIES, Item, Suite, score_pairs, score_rewardbench_1, score_rewardbench_2

RIGHT, WRONG = "right {}", "wrong {}"


class Problem(NamedTuple):
    """One prompt and its answers."""

    item: Item
    row: int
    """Row number in the source."""
    made: Row
    """Its answers in order, the right ones first."""
    raw: Mapping[str, Any]
    prompt: str
    answers: tuple[str, ...]
    """Their words."""
    annotated: tuple[Answer, ...]
    """The same with what annotators marked in them."""


@dataclass(frozen=True)
class ProblemSet:
    """What a reward model is tested on."""

    name: str
    suite: Suite
    problems: list[Problem]
    findings: Findings


def read_problems(source: str, limit: int | None) -> ProblemSet:
    """The prompts of a file; what cannot be read is counted in the findings, and nothing else is left out but ties."""
    questions = Questions(source, limit)
    if questions.format.name == "RewardBench 2":
        findings = Findings()
        found, suite = list(_best_of(questions, findings)), score_rewardbench_2
    else:
        found, findings = list(_pairs(questions)), questions.findings
        suite = score_rewardbench_1 if any(one.item.subset in ROWS for one in found) else score_pairs
    if not found:
        raise DataError(f"{source}: nothing to compare in its rows ({questions.format.name}); {findings.in_words() or 'no rows'}")
    return ProblemSet(questions.format.name, suite, found, findings)


def _pairs(questions: Questions) -> Iterator[Problem]:
    for row, raw, made in questions(Shape.PREFERENCE):
        if made.columns.get("tie") == 1.0:
            questions.findings.drop("tie", row)
            continue
        subset, name = raw.get("subset"), raw.get("id")
        yield _problem(str(row if name is None else name), subset if isinstance(subset, str) else "", 1, row, raw, made)


def _best_of(questions: Questions, findings: Findings) -> Iterator[Problem]:
    for number, (where, raw) in enumerate(questions.raw()):
        try:
            right, wrong = read_list(raw, "chosen", str), read_list(raw, "rejected", str)
            subset = read_text(raw, "subset")
            if not right or not wrong or (len(right) > 1 and subset != TIES):
                raise DataError(f"expected one right and some wrong answers in {subset}, found {len(right)} and {len(wrong)}")
            answers = {RIGHT.format(place): Answer(content=turn_of(text)) for place, text in enumerate(right)}
            answers |= {WRONG.format(place): Answer(content=turn_of(text)) for place, text in enumerate(wrong)}
            made = Row(prompt=read_prompt(raw["prompt"], "prompt"), answers=answers)
            yield _problem(str(raw.get("id", number)), subset, len(right), number, raw, made)
        except (DataError, KeyError, TypeError, AttributeError) as error:
            findings.drop("unreadable", number, f"{where}: {error}")


def _problem(name: str, subset: str, right: int, row: int, raw: Mapping[str, Any], made: Row) -> Problem:
    texts = get_texts(made)
    answers = tuple(texts.answers.values())
    bare = replace(made, answers={role: Answer(content=answer.content) for role, answer in made.answers.items()})
    return Problem(
        Item(name, subset, right, tuple(map(len, answers))),
        row,
        bare,
        raw,
        texts.prompt,
        answers,
        tuple(made.answers.values()),
    )
