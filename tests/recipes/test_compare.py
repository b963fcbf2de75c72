"""`finegrain eval compare` end to end: what equal, scaled, shuffled and flat rewards give, the null, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.evaluate.reward_comparison import MEASURES, UNIT_FREE, compare, reward_distance, seed_agreement
from finegrain.ops.bootstrap import Bootstrap
from tests.recipes.command import Command
from tests.tiny import write_rows

PAIRS, PROMPTS = 40, 10
QUICK = ("--resamples", "100")
Rewards = np.ndarray


def rows(scores: Any, pairs: int = PAIRS) -> list[dict[str, Any]]:
    """Lines of a score file: `pairs` pairs of answers to ten prompts."""
    names = [(row, side) for row in range(pairs) for side in ("chosen", "rejected")]
    texts = {"chosen": "yes, ", "rejected": "no, "}
    return [
        {
            "id": f"{row}/{side}",
            "prompt": f"prompt {row % PROMPTS}",
            "response": texts[side] * (1 + row % 7) + str(row),
            "score": {"mean": None if score is None else float(score), "std": None},
            "tokens": [],
            "segments": [],
            "truncated": False,
        }
        for (row, side), score in zip(names, scores, strict=True)
    ]


@pytest.fixture
def declared() -> Rewards:
    return np.random.default_rng(0).normal(size=2 * PAIRS)


@pytest.fixture
def first(declared: Rewards, tmp_path: Path) -> Path:
    """The file that others are compared with."""
    return write_rows(tmp_path / "declared.jsonl", rows(declared))


def test_equal_and_scaled_and_shuffled_and_opposite(command: Command, tmp_path: Path, first: Path, declared: Rewards) -> None:
    shuffled = np.random.default_rng(1).permutation(declared)
    others = {"equal": declared, "affine": 3 * declared + 2, "shuffled": shuffled, "opposite": -declared}
    files = [write_rows(tmp_path / f"{name}.jsonl", rows(scores)) for name, scores in others.items()]
    done = command("eval", "compare", first, *files, "--out", tmp_path / "report.json", *QUICK)
    assert done.code == 0, done.error
    equal, affine, random, opposite = done.result["compared"]
    assert [equal[name]["mean"] for name in UNIT_FREE] == pytest.approx([1, 1, 1])
    assert equal["euclidean"]["mean"] == 0
    assert equal["distance"] < 1e-6
    assert [affine[name]["mean"] for name in UNIT_FREE] == pytest.approx([1, 1, 1])
    assert affine["distance"] < 1e-6
    assert affine["euclidean"]["mean"] > 1
    assert random["spearman"]["low"] < 0 < random["spearman"]["high"]
    assert 0.5 < random["distance"] < 0.9
    assert opposite["distance"] == pytest.approx(1)
    table = done.result["agreement"]
    assert table["files"] == [str(file) for file in files]
    assert table["spearman"][0] == pytest.approx([1, 1, random["spearman"]["mean"], -1])
    assert table["distance"][0] == pytest.approx([0, 0, random["distance"], 1], abs=1e-6)
    assert any("declared.jsonl" in text and "equal.jsonl" in text and "same scores" in text for text in done.result["warnings"])
    written = json.loads((tmp_path / "report.json").read_text())
    assert {**written, "out": str(tmp_path / "report.json")} == done.result
    assert "the 4 others among themselves: spearman -1.000 to 1.000" in done.error
    assert "compared with declared.jsonl: 80 answers to 10 prompts" in done.error
    assert "│ shuffled.jsonl" in done.error


def test_the_numbers_are_those_of_the_functions(command: Command, tmp_path: Path, first: Path, declared: Rewards) -> None:
    noise = np.random.default_rng(2).normal(size=(2, len(declared)))
    seeds = declared + noise
    files = [write_rows(tmp_path / f"{seed}.jsonl", rows(scores)) for seed, scores in enumerate(seeds)]
    done = command("eval", "compare", first, *files, *QUICK, "--seed", "3")
    expected = compare(declared, seeds[1], Bootstrap(resamples=100, seed=3))
    assert {name: done.result["compared"][1][name] for name in MEASURES} == {name: share.as_json() for name, share in expected.items()}
    prompts = np.repeat(np.arange(PAIRS) % PROMPTS, 2)
    assert done.result["compared"][1]["distance"] == reward_distance(declared, seeds[1], prompts)
    np.testing.assert_array_equal(done.result["agreement"]["spearman"], seed_agreement(seeds))
    assert done.result["agreement"]["distance"][0][1] == reward_distance(seeds[0], seeds[1], prompts)
    assert (done.result["answers"], done.result["prompts"], done.result["out"]) == (2 * PAIRS, PROMPTS, None)


def test_answers_are_joined_by_name(command: Command, tmp_path: Path, first: Path, declared: Rewards) -> None:
    done = command("eval", "compare", first, write_rows(tmp_path / "other.jsonl", rows(declared)[::-1]), *QUICK)
    assert done.result["compared"][0]["euclidean"]["mean"] == 0
    assert done.result["agreement"] is None


def test_length_is_seen(command: Command, tmp_path: Path, first: Path, declared: Rewards) -> None:
    lengths = [len(row["response"]) for row in rows(declared)]
    done = command("eval", "compare", first, write_rows(tmp_path / "length.jsonl", rows(lengths)), *QUICK)
    plain, long = (one["length"]["mean"] for one in done.result["files"])
    assert long == pytest.approx(1)
    assert abs(plain) < 0.5


def test_the_null(command: Command, tmp_path: Path, first: Path, declared: Rewards) -> None:
    other = write_rows(tmp_path / "other.jsonl", rows(declared + 1))
    held = rows(np.random.default_rng(4).normal(size=400), 200)
    held[1]["response"] = held[0]["response"]
    held[2]["score"]["mean"] = None
    done = command("eval", "compare", first, other, "--null", write_rows(tmp_path / "held.jsonl", held), *QUICK)
    found = done.result["null"]
    assert found["holds"]
    assert (found["identical"], found["unscored"], found["accuracy"]["rows"]) == (1, 1, 198)
    assert "the null holds: " in done.error.replace("\n", " ")
    assert not any("null" in text for text in done.result["warnings"])
    biased = write_rows(tmp_path / "biased.jsonl", rows([1 + row % 2 for row in range(400)], 200))
    done = command("eval", "compare", first, other, "--null", biased, *QUICK)
    assert done.code == 0
    assert not done.result["null"]["holds"]
    assert done.result["null"]["accuracy"]["mean"] == 0
    assert "warning: the null does not hold" in done.error
    assert done.result["warnings"][-1] == done.result["null"]["sentence"]


def test_answers_without_a_score_are_left_out_and_counted(command: Command, tmp_path: Path, declared: Rewards) -> None:
    some = [None if place in (0, 5) else score for place, score in enumerate(declared)]
    cut = [{**row, "truncated": place < 3} for place, row in enumerate(rows([*declared[:-1], None]))]
    done = command("eval", "compare", write_rows(tmp_path / "a.jsonl", rows(some)), write_rows(tmp_path / "b.jsonl", cut), *QUICK)
    assert done.code == 0, done.error
    assert (done.result["answers"], done.result["left_out"]) == (2 * PAIRS - 3, 3)
    assert [one["unscored"] for one in done.result["files"]] == [2, 1]
    assert [one["truncated"] for one in done.result["files"]] == [0, 3]
    assert done.result["compared"][0]["pearson"]["rows"] == 2 * PAIRS - 3
    assert "3 answers lack a score" in done.error
    assert "3 answers were cut" in done.error


def test_what_does_not_exist_is_null(command: Command, tmp_path: Path, first: Path, declared: Rewards) -> None:
    one = [write_rows(tmp_path / f"one{value}.jsonl", rows([value, None], 1)) for value in (1, 2)]
    done = command("eval", "compare", *one, *QUICK)
    assert done.code == 0, done.error
    (found,) = done.result["compared"]
    assert found["spearman"] == {"mean": None, "low": None, "high": None, "rows": 1}
    assert found["distance"] is None
    assert found["euclidean"]["mean"] == 1
    flat = write_rows(tmp_path / "flat.jsonl", rows(np.ones_like(declared)))
    done = command("eval", "compare", first, flat, write_rows(tmp_path / "b.jsonl", rows(-declared)), *QUICK)
    assert done.code == 0
    assert [one["distance"] for one in done.result["compared"]] == [None, pytest.approx(1)]
    assert done.result["agreement"]["spearman"][0][1] is None
    assert "flat.jsonl has no distance" in done.error


def test_what_cannot_be_compared(command: Command, tmp_path: Path, first: Path, declared: Rewards) -> None:
    whole = rows(declared)
    same = write_rows(tmp_path / "same.jsonl", whole)
    (tmp_path / "text.jsonl").write_text("not json\n")
    (tmp_path / "open.jsonl").write_text('{"a":' * 100_000)
    (tmp_path / "deep.jsonl").write_text('{"id": "0/chosen", "prompt": "p", "response": "r", "score": ' + '{"a":' * 100_000 + "1" + "}" * 100_001)
    (tmp_path / "bytes.jsonl").write_bytes(b'{"id": "\xff"}\n')
    (tmp_path / "there.json").write_text("mine")

    def but(name: str, **changed: Any) -> Path:
        return write_rows(tmp_path / f"{name}.jsonl", [{**whole[0], **changed}, *whole[1:]])

    odd = [but(f"odd{place}", score={"mean": value}) for place, value in enumerate((float("nan"), float("inf"), "1", True, 10**400))]
    for code, words, arguments in (
        (2, "two score files or more", [first]),
        (2, "two score files or more", []),
        (2, "resamples must be a whole number of at least 100", [first, same, "--resamples", "3"]),
        (2, "is also compared", [first, same, "--null", same]),
        (3, "cannot read", [first, tmp_path / "none.jsonl"]),
        (3, "cannot read", [first, tmp_path]),
        (3, "not JSON", [first, tmp_path / "text.jsonl"]),
        (3, "not JSON", [first, tmp_path / "open.jsonl"]),
        (3, "nested too deeply", [first, tmp_path / "deep.jsonl"]),
        (3, "bytes that are not UTF-8", [tmp_path / "bytes.jsonl", first]),
        (3, "holds no answers", [first, write_rows(tmp_path / "empty.jsonl", [])]),
        (3, "id is int, score is list", [first, write_rows(tmp_path / "kinds.jsonl", [{"id": 3, "prompt": "p", "response": "a", "score": []}])]),
        (3, "score has no mean", [first, write_rows(tmp_path / "mean.jsonl", [{"id": "3", "prompt": "p", "response": "a", "score": {}}])]),
        (
            3,
            "as `finegrain score` writes them; found prompt, chosen, and no id and no response and no score",
            [first, write_rows(tmp_path / "foreign.jsonl", [{"prompt": "p", "chosen": "a"}])],
        ),
        (3, "expected an object with named columns, found a number", [first, write_rows(tmp_path / "numbers.jsonl", [1, 2])]),
        (3, "1 only in", [first, write_rows(tmp_path / "fewer.jsonl", whole[1:])]),
        (3, "0/chosen", [write_rows(tmp_path / "less.jsonl", whole[1:]), first]),
        (3, "1 answers of the same name differ", [first, but("other", response="another one")]),
        (3, "a second answer named '0/chosen'", [first, write_rows(tmp_path / "twice.jsonl", [*whole, whole[0]])]),
        *((3, "a score is a finite number", [first, file]) for file in odd),
        (
            3,
            "none of the 2 answers",
            [write_rows(tmp_path / "u.jsonl", rows([None, 1.0], 1)), write_rows(tmp_path / "v.jsonl", rows([1.0, None], 1))],
        ),
        (3, "is no answer of a pair", [first, same, "--null", but("lone", id="0/answer")]),
        (3, "one side only", [first, same, "--null", tmp_path / "fewer.jsonl"]),
        (3, "nothing says whether the null holds", [first, same, "--null", write_rows(tmp_path / "w.jsonl", rows([None, 1.0], 1))]),
        (3, "cannot read", [first, same, "--null", tmp_path / "none.jsonl"]),
        (7, "already exists", [first, same, "--out", tmp_path / "there.json"]),
        (7, "no folder", [first, same, "--out", tmp_path / "nowhere" / "report.json"]),
    ):
        done = command("eval", "compare", *arguments)
        assert done.code == code, (arguments, done.error)
        assert words in done.error, (words, done.error)
        assert "Traceback" not in done.error
        assert done.result == {}
    assert (tmp_path / "there.json").read_text() == "mine"


def test_files_of_score_are_read(command: Command, tmp_path: Path) -> None:
    """A function of one's own and a model's implicit reward name the same answers."""
    (tmp_path / "mine.py").write_text("def judge(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n")
    assert command("score", "--reward", f"{tmp_path / 'mine.py'}:judge", "--data", command.data, "--out", tmp_path / "a.jsonl").code == 0
    policy = ("--model", command.model, "--reference", command.model, "--device", "cpu")
    assert command("score", *policy, "--data", command.data, "--out", tmp_path / "b.jsonl").code == 0
    (tmp_path / "null.jsonl").write_text((tmp_path / "b.jsonl").read_text())
    done = command("eval", "compare", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--null", tmp_path / "null.jsonl", *QUICK)
    assert done.code == 0, done.error
    assert done.result["files"][0]["length"]["mean"] == pytest.approx(1)
    assert done.result["null"]["accuracy"]["mean"] == 0.5, "a policy that is its own reference ties every pair"
