"""Tests data/convert/ranked.py, the shapes ranked and correction, and rows of different numbers of answers in a store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.data.convert.ranked import rank_scores
from finegrain.data.formats import recognise
from finegrain.data.load import Gate, Tokenise, check_rows, load_examples
from finegrain.data.records import Row, Shape
from finegrain.data.shapes import find_own_shape, rows_of_shape
from finegrain.data.source_text import read_parses
from finegrain.errors import DataError
from finegrain.types import CharSpan
from tests.data.published import NECTAR, REWARD_BENCH_2
from tests.data.tiny import byte_level
from tests.tiny import write_rows

ROW = {"prompt": "Name a prime. ", "answers": ["9", "seven", "8"], "ranks": [2, 1, 2], "difficulty": 3}
CORRECTION = {"prompt": "2+2? ", "original": "It is 5.", "corrected": "It is 4.", "original_spans": [{"value": -1, "quote": "5"}]}
QA = {
    "question": "When?", "passages": [["t", "First."]], "gold": "in 1989", "preference": [1, 2, 0, 2, 0, 0],
    "feedback": {"errors": [{"start": 0, "end": 6, "error type": "Irrelevant"}], "corrected-prediction": "answer one"},
    **{f"prediction {n}": f"answer {n}" for n in range(1, 5)},
}  # fmt: skip


def load(tmp_path: Path, rows: list[dict[str, Any]], shape: Shape, **gate: Any) -> Any:
    return load_examples(str(write_rows(tmp_path / "rows.jsonl", rows)), byte_level(), shape=shape, settings=Tokenise(), gate=Gate(**gate))


def texts(row: Row) -> list[str]:
    return [one.content if isinstance(one.content, str) else one.content[-1].content for one in row.answers.values()]


def kinds(data: Any) -> dict[str, tuple[int, str]]:
    return {one["kind"]: (one["count"], one["action"]) for one in data.gate["findings"] if one["kind"] not in ("boundary_differs", "unread")}


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        {"prompt": ROW["prompt"], "responses": ROW["answers"], "scores": [0.1, 0.9, 0.1]},
        {"prompt": ROW["prompt"], "completions": [{"text": text, "rank": rank} for text, rank in zip(ROW["answers"], ROW["ranks"], strict=True)]},
        {"prompt": ROW["prompt"], "answers": [{"answer": text, "score": -rank} for text, rank in zip(ROW["answers"], ROW["ranks"], strict=True)]},
    ],
)
def test_answers_stand_in_the_order_of_their_ranks(row: dict[str, Any]) -> None:
    entry = recognise(row)
    assert (entry.name, find_own_shape(entry)) == ("ranked answers", Shape.RANKED)
    (made,) = rows_of_shape(entry, Shape.RANKED, row)
    assert list(made.answers) == ["answer-1", "answer-2", "answer-3"]
    assert texts(made) == ["seven", "9", "8"]
    assert [made.columns[f"rank/{role}"] for role in made.answers] == [1, 2, 2]


def test_answers_as_objects_keep_their_spans_and_name_what_is_not_read(tmp_path: Path) -> None:
    span = {"start": 0, "end": 4, "value": -1}
    answers = [{"answer": "fine", "rank": 1, "spans": [], "model": "m"}, {"answer": "evil", "rank": 2, "spans": [span]}, {"answer": "so", "rank": 3}]
    data = load(tmp_path, [{"prompt": "Which? ", "answers": answers}], Shape.RANKED)
    assert data.examples[0].spans == {"answer-1": [], "answer-2": [CharSpan(0, 4, -1.0)], "answer-3": None}
    (unread,) = (one for one in data.gate["findings"] if one["kind"] == "unread")
    assert "model of answers" in unread["example"]
    assert load(tmp_path, [{"prompt": "Which? ", "answers": answers}], Shape.PREFERENCE).examples[0].spans["rejected"] == [CharSpan(0, 4, -1.0)]


def test_answers_as_objects_keep_their_parses_in_pairs(tmp_path: Path) -> None:
    answers = [{"answer": "fine", "rank": 1, "answer_parse": "(S (JJ fine))"}, {"answer": "evil", "rank": 2, "answer_parse": "(S (NN evil))"}]
    data = load(tmp_path, [{"prompt": "Which? ", "answers": answers}], Shape.PREFERENCE)
    assert read_parses(data.examples[0]) == {"chosen": "(S (JJ fine))", "rejected": "(S (NN evil))"}
    assert "unread" not in kinds(data)


def test_pairs_of_ranked_answers_leave_ties_out_and_count_them(tmp_path: Path) -> None:
    scored = {"prompt": "Who? ", "answers": ["a", "b"], "scores": [1.5, 4.0]}
    data = load(tmp_path, [ROW], Shape.PREFERENCE)
    pairs = [[example.responses[role].text for role in ("chosen", "rejected")] for example in data.examples]
    assert pairs == [["seven", "9"], ["seven", "8"]]
    assert kinds(data) == {"no_preference": (1, "dropped"), "pairs_from": (2, "made")}
    assert "2 preference examples made of ranked" in " ".join(data.report["messages"])
    assert data.examples[0].columns == {"weight": 1 / 3, "difficulty": 3.0, "chosen_rank": 1.0, "rejected_rank": 2.0}
    (pair,) = load(tmp_path, [scored], Shape.PREFERENCE).examples
    assert pair.columns["margin"] == 2.5


def test_rows_of_different_numbers_of_answers_share_a_store(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{count} ", "answers": [f"answer {place} of {count}" for place in range(count)], "ranks": list(range(count))}
        for count in (2, 4, 3, 5, 2)
    ]
    examples = load(tmp_path, rows, Shape.RANKED).examples
    assert examples.roles == ("answer-1", "answer-2", "answer-3", "answer-4", "answer-5")
    for example, row in zip(examples, rows, strict=True):
        count = len(row["answers"])
        assert [one.text for one in example.responses.values()] == row["answers"]
        assert example.columns == {f"rank/answer-{place + 1}": float(place) for place in range(count)}
        assert example.spans == dict.fromkeys(example.responses)
    assert np.array_equal(examples.answer_lengths("answer-4") > 0, [False, True, False, True, False])
    assert examples.annotated("answer-5") == examples.rewarded("answer-5") == 0
    assert len(examples[1:4][0].responses) == 4


def test_the_same_text_twice_counts_once_and_with_two_ranks_drops_the_row(tmp_path: Path) -> None:
    twice = {"prompt": "a ", "answers": ["x", "x", "y"], "ranks": [1, 1, 2]}
    both = {"prompt": "b ", "answers": ["x", "x", "y"], "ranks": [1, 2, 2]}
    empty = {"prompt": "c ", "answers": ["x", " "], "ranks": [1, 2]}
    unknown = {"prompt": "d ", "answers": ["x", "y"], "ranks": [1, float("nan")]}
    alone = {"prompt": "e ", "answers": ["x", "x"], "ranks": [1, 1]}
    data = load(tmp_path, [twice, both, empty, unknown, alone], Shape.RANKED)
    wanted = {"repeated_answer": (1, "kept"), "identical": (1, "dropped"), "empty": (1, "dropped"), "not_a_number": (1, "dropped")}
    assert kinds(data) == {**wanted, "one_answer": (1, "dropped")}
    assert list(data.examples[0].responses) == ["answer-1", "answer-2"]
    pairs = load(tmp_path, [{**twice, "answers": ["x", "x", "y", "z"], "ranks": [1, 1, 2, 3]}], Shape.PREFERENCE)
    assert kinds(pairs) == {"repeated_answer": (1, "kept"), "pairs_from": (3, "made")}, "counted once, not by pair"


def test_a_long_ranked_row_is_cut_and_counted(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{**ROW, "answers": ["seven " * 60, "8 " * 90, "9"]}])
    report = check_rows(str(file), byte_level(), settings=Tokenise(max_length=40))
    assert {"over_length", "answer_truncated"} <= {one["kind"] for one in report["findings"]}
    assert report["shape"] == "ranked"


@pytest.mark.parametrize("change", [{"ranks": [1, 2]}, {"ranks": [1, 2, "x"]}, {"ranks": [1, 2, True]}, {"answers": ["a", 1, "b"]}])
def test_ranks_that_do_not_fit_are_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="column"):
        rows_of_shape(recognise(ROW), Shape.RANKED, {**ROW, **change})


def test_scores_become_ranks() -> None:
    assert rank_scores([3.0, 5.0, 3.0, -1.0]) == [2.0, 1.0, 2.0, 4.0]


def test_public_sets_are_ranked_too() -> None:
    (made,) = rows_of_shape(recognise(NECTAR), Shape.RANKED, NECTAR)
    by_rank = sorted(NECTAR["answers"], key=lambda one: one["rank"])
    assert texts(made) == [one["answer"] for one in by_rank]
    assert find_own_shape(recognise(NECTAR)) is Shape.PREFERENCE
    (made,) = rows_of_shape(recognise(REWARD_BENCH_2), Shape.RANKED, REWARD_BENCH_2)
    assert [made.columns[f"rank/{role}"] for role in made.answers] == [1.0] * len(REWARD_BENCH_2["chosen"]) + [2.0] * len(REWARD_BENCH_2["rejected"])


def test_qa_feedback_is_ranked_by_preferences_won_and_counts_circles() -> None:
    """1 beats 2, 3 beats 1, 3 beats 2: 3 has won two, 1 one and lost one, 4 has neither, 2 lost two."""
    (made,) = rows_of_shape(recognise(QA), Shape.RANKED, QA)
    assert texts(made) == ["answer 3", "answer 1", "answer 4", "answer 2"]
    assert [made.columns[f"score/{role}"] for role in made.answers] == [2.0, 0.0, 0.0, -2.0]
    assert made.columns["against_ranks"] == 0
    assert made.answers["answer-2"].spans == [CharSpan(0, 6, -1.0, aspect="Irrelevant")]
    circle = {**QA, "preference": [1, 2, 0, 1, 0, 0]}
    assert rows_of_shape(recognise(QA), Shape.RANKED, circle)[0].columns["against_ranks"] == 3


def test_corrections_are_read_and_become_pairs(tmp_path: Path) -> None:
    entry = recognise(CORRECTION)
    assert (entry.name, find_own_shape(entry)) == ("corrections", Shape.CORRECTION)
    same = {**CORRECTION, "prompt": "3+3? ", "corrected": "It is 5."}
    data = load(tmp_path, [CORRECTION, same, {**CORRECTION, "corrected": None}], Shape.CORRECTION)
    (example,) = data.examples
    assert {role: answer.text for role, answer in example.responses.items()} == {"corrected": "It is 4.", "original": "It is 5."}
    assert example.spans == {"corrected": None, "original": [CharSpan(6, 7, -1.0)]}
    assert kinds(data) == {"identical": (1, "dropped"), "no_correction": (1, "dropped")}
    (pair,) = load(tmp_path, [CORRECTION], Shape.PREFERENCE).examples
    assert pair.responses["chosen"].text == "It is 4."
    assert pair.spans["rejected"] == [CharSpan(6, 7, -1.0)]
    (good,) = load(tmp_path, [CORRECTION], Shape.DEMONSTRATION).examples
    assert good.responses["answer"].text == "It is 4."


def test_what_pairs_are_made_of_is_chosen_where_a_format_has_several(tmp_path: Path) -> None:
    pairs = {name: load(tmp_path, [QA], Shape.PREFERENCE, pairs_from=name) for name in ("auto", "pairs", "ranked", "corrections", "references")}
    chosen = {name: [example.responses["chosen"].text for example in data.examples] for name, data in pairs.items()}
    assert chosen["auto"] == chosen["pairs"] == ["answer 1", "answer 3", "answer 3"]
    assert chosen["ranked"] == ["answer 3", "answer 3", "answer 3", "answer 1", "answer 4"]
    assert chosen["corrections"] == ["answer one"]
    assert chosen["references"] == ["in 1989"] * 4
    assert "pairs_from" not in kinds(pairs["auto"])
    assert kinds(pairs["corrections"])["pairs_from"] == (1, "made")
    with pytest.raises(DataError, match="ranked answers has no corrections that pairs could be made of; it has ranked"):
        load(tmp_path, [ROW], Shape.PREFERENCE, pairs_from="corrections")
    with pytest.raises(DataError, match="preference pairs has no ranked answers"):
        load(tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}], Shape.RANKED)
