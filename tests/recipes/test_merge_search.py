"""Search of the strength: what is scored, which value is kept, and what is told. Test of recipes/merging/search.py, recipes/prompts.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finegrain.errors import DataError
from finegrain.recipes.merging import search
from finegrain.recipes.merging.search import choose, describe, find_unscored
from finegrain.weights.blocks import MergeMethod
from finegrain.weights.expo import Expo
from finegrain.weights.slerp import Slerp
from finegrain.weights.soup import Soup
from finegrain.weights.task_arithmetic import TaskArithmetic
from tests.models.related import same_weights, save_family
from tests.recipes.command import Command
from tests.tiny import write_rows


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and a fine-tune."""
    return save_family(tmp_path_factory.mktemp("family"), 2)


def own_margin(folder: Path, row: dict[str, str]) -> float:
    """log pi(chosen) - log pi(rejected) by stock transformers, of the answers with their end tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    sums = []
    for side in ("chosen", "rejected"):
        prompt = [tokenizer.bos_token_id, *tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]]
        answer = [*tokenizer(row[side], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logp = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        sums.append(sum(float(logp[len(prompt) + place - 1, token]) for place, token in enumerate(answer)))
    return sums[0] - sums[1]


def test_margins_choose(command: Command, family: list[Path]) -> None:
    """The table holds every alpha and the start; the written model is the one of the largest mean margin."""
    command.first(8)
    expo = ["--model", family[1], "--base", family[0], "method:expo"]
    done = command("merge", *expo, "--data", command.data, "--alphas", "2", "-0.5", "--out", command.folder / "out")
    assert done.code == 0, done.error
    found = command.record("out")["search"]
    tried = {line["alpha"]: line for line in found["tried"]}
    assert list(tried) == [-0.5, 0.0, 2.0]
    best = max(tried, key=lambda alpha: tried[alpha]["margin"]["mean"])
    assert (found["best"], found["start"], found["strength"]) == (best, 0.0, "alpha")
    assert done.result["method"] == {"name": "expo", "alpha": best}
    assert tried[0.0]["against_start"]["mean"] == 0
    assert tried[2.0]["margin"]["rows"] == 8
    assert tried[2.0]["against_start"]["mean"] == pytest.approx(tried[2.0]["margin"]["mean"] - tried[0.0]["margin"]["mean"])
    assert [one["weight"] for one in command.record("out")["sources"]] == pytest.approx([1 + best, -best])
    assert command("merge", *expo, "--method.alpha", str(best), "--out", command.folder / "plain").code == 0
    assert same_weights(command.folder / "out", command.folder / "plain")
    card = (command.folder / "out" / "README.md").read_text()
    assert "How the strength was chosen" in card
    assert not (command.folder / "out" / "trial").exists()
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    margins = [own_margin(command.folder / "out", row) for row in rows]
    assert tried[best]["margin"]["mean"] == pytest.approx(float(np.mean(margins)), abs=1e-3)


def test_a_reward_chooses(command: Command, family: list[Path]) -> None:
    """Of generated answers: the reward function sees them, and a reward of shortness takes the strength of the shortest."""
    command.first(6)
    (command.folder / "short.py").write_text("def short(prompts, completions, **columns):\n    return [-float(len(text)) for text in completions]\n")
    arguments = ["--data", command.data, "--score-with", f"{command.folder / 'short.py'}:short", "--max-new-tokens", "6"]
    done = command("merge", "--model", family[1], family[0], *arguments, "--alphas", "0", "0.5", "--out", command.folder / "out")
    assert done.code == 0, done.error
    found = command.record("out")["search"]
    tried = {line["alpha"]: line for line in found["tried"]}
    assert list(tried) == [0.0, 0.5, 1.0]
    assert all(line["reward"]["mean"] == -line["characters"]["mean"] for line in tried.values())
    assert found["best"] == max(tried, key=lambda alpha: (tried[alpha]["reward"]["mean"], -abs(alpha - 1)))
    assert found["prompts"] == 6
    assert found["reward"]["kind"] == "function"
    assert command.record("out")["merged"]["method"]["weights"] == pytest.approx([found["best"], 1 - found["best"]])


def test_rows_without_a_usable_prompt_are_counted(command: Command, family: list[Path]) -> None:
    """A prompt that stands twice, one that is no text, one without an answer, and one that is too long."""
    good = {"prompt": "why ?", "completion": " so ."}
    rows = [good, {**good, "completion": " no ."}, {**good, "prompt": "who \ud800 ?"}, {"prompt": "who ?"}, {**good, "prompt": "when " * 40}]
    data = write_rows(command.folder / "prompts.jsonl", rows)
    (command.folder / "short.py").write_text("def short(prompts, completions, **columns):\n    return [-float(len(text)) for text in completions]\n")
    arguments = ["--data", data, "--score-with", f"{command.folder / 'short.py'}:short", "--max-new-tokens", "2", "--max-length", "30"]
    done = command("merge", "--model", *family, *arguments, "--alphas", "1", "--out", command.folder / "out")
    assert done.code == 0, done.error
    found = command.record("out")["search"]["data"]
    assert (found["rows"], found["prompts"], found["repeated"]) == (5, 2, 1)
    assert found["dropped"] == {"encoding": 1, "unreadable": 1}
    assert sum((found["prompts"], found["repeated"], *found["dropped"].values())) == found["rows"]
    assert done.error.count("prompts: encoding: 1 dropped (rows 2)") == 1, "once, however many strengths are tried"
    assert "prompts: prompt_truncated: 1 cut (rows 4)" in done.error


def test_a_reward_model_chooses(command: Command, family: list[Path]) -> None:
    """And an implicit reward, by the model it was trained from."""
    command.first(4)
    slerp = ["--model", *family, "method:slerp", "--alphas", "0.5", "--data", command.data, "--max-new-tokens", "4"]
    done = command("merge", *slerp, "--score-with", family[1], "--score-reference", family[0], "--out", command.folder / "out")
    assert done.code == 0, done.error
    assert command.record("out")["search"]["reward"]["kind"] == "implicit reward"
    done = command("merge", *slerp, "--score-with", family[1], "--out", command.folder / "two")
    assert done.code == 4
    assert "not a reward model" in done.error
    assert "give --score-reference" in done.error


def test_data_without_pairs(command: Command, family: list[Path]) -> None:
    data = write_rows(command.folder / "prompts.jsonl", [{"prompt": "why ?", "completion": "so ."}] * 3)
    done = command("merge", "--model", *family, "--data", data, "--out", command.folder / "out")
    assert done.code == 3, done.error
    assert not (command.folder / "out").exists()


def test_a_strength_beyond_the_range_of_numbers_is_left_out(command: Command, family: list[Path]) -> None:
    command.first(3)
    expo = ["--model", family[1], "--base", family[0], "method:expo", "--save-dtype", "float16"]
    done = command("merge", *expo, "--data", command.data, "--alphas", "0.5", "1e9", "--out", command.folder / "out")
    assert done.code == 0, done.error
    found = command.record("out")["search"]
    assert [line["alpha"] for line in found["tried"]] == [0.0, 0.5]
    assert [line["alpha"] for line in found["not_finite"]] == [1e9]
    assert "alpha 1e+09 is left out" in done.error


HALF = """
CALLS = []

def half(prompts, completions, **columns):
    CALLS.append(1)
    return [None if len(CALLS) == 2 and place % 2 else float(place) for place in range(len(completions))]
"""


def test_a_strength_that_the_reward_cannot_judge_is_left_out(command: Command, family: list[Path]) -> None:
    """It is named, and takes no rows away from the other ones."""
    command.first(4)
    (command.folder / "half.py").write_text(HALF)
    arguments = ["--data", command.data, "--score-with", f"{command.folder / 'half.py'}:half", "--max-new-tokens", "2"]
    done = command("merge", "--model", *family, "method:slerp", *arguments, "--alphas", "0.5", "1", "--out", command.folder / "out")
    assert done.code == 0, done.error
    found = command.record("out")["search"]
    assert [(line["alpha"], line["reward"]["rows"]) for line in found["tried"]] == [(0.0, 4), (1.0, 4)]
    assert found["not_finite"] == [{"alpha": 0.5, "reason": "2 of the 4 rows that are scored at 0 have a score"}]
    assert "t 0.5 is left out" in done.error


def test_a_margin_that_is_no_number_is_an_error(command: Command, family: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every strength but the start, which is left out with its reason."""
    command.first(3)
    real, calls = search.policy_logps, []

    def spoilt(*arguments: Any) -> Any:
        calls.append(1)
        found = real(*arguments)
        if len(calls) == 2:
            found["chosen"][1][0] = np.nan
        return found

    monkeypatch.setattr(search, "policy_logps", spoilt)
    expo = ["--model", family[1], "--base", family[0], "method:expo", "--data", command.data, "--alphas", "0.5", "1"]
    done = command("merge", *expo, "--out", command.folder / "out")
    assert done.code == 0, done.error
    found = command.record("out")["search"]
    assert [(line["alpha"], line["margin"]["rows"]) for line in found["tried"]] == [(0.0, 3), (1.0, 3)]
    assert found["not_finite"] == [{"alpha": 0.5, "reason": "the margins of 1 of 3 pairs are NaN or infinite; try --dtype float32"}]


def test_strengths_with_too_few_scores() -> None:
    """None at all, or fewer than nine tenths of the start's; one row less of eleven is within it, and the start itself never fails."""
    known, bare = np.arange(11.0), np.full(11, np.nan)
    fewer = {missing: np.where(np.arange(11) < missing, np.nan, known) for missing in (1, 2)}
    trials = {0.0: {"reward": known}, 1.0: {"reward": fewer[1]}, 2.0: {"reward": fewer[2]}, 3.0: {"reward": bare}}
    assert list(find_unscored(trials, 0.0)) == [2.0, 3.0]
    assert find_unscored({0.0: {"reward": bare}, 1.0: {"reward": known}}, 0.0) == {}


ROWS = np.arange(6, dtype=float)


def test_the_largest_mean_of_common_rows_is_kept() -> None:
    """A row without a score at one strength counts at none; equal means go to the strength nearest to the start."""
    holed = np.array([np.nan, 9, 1, 1, 1, 1])
    trials = {0.0: {"reward": np.array([100.0, 1, 1, 1, 1, 1])}, 0.5: {"reward": holed}, 2.0: {"reward": np.array([0.0, 9, 1, 1, 1, 1])}}
    best, lines = choose(trials, 0.0, "d")
    assert best == 0.5
    assert [line["left_out"] for line in lines] == [1, 1, 1]
    assert lines[0]["reward"]["mean"] == 1
    assert lines[1]["against_start"]["mean"] == pytest.approx(8 / 5)
    with pytest.raises(DataError, match="no row has a score"):
        choose({0.0: {"reward": np.full(3, np.nan)}}, 0.0, "d")


def told(start: np.ndarray, **columns: np.ndarray) -> str:
    trials = {0.0: {"reward": start, "characters": np.full(6, 10.0)}, 1.0: {"reward": columns["reward"], "characters": columns["characters"]}}
    best, lines = choose(trials, 0.0, "d")
    return " | ".join(describe(Expo(), best, lines, [0.0, 0.5, 1.0]))


def test_what_is_told_of_the_choice() -> None:
    same, longer = np.full(6, 10.0), np.full(6, 25.0)
    better = told(ROWS, reward=ROWS + 1 + ROWS / 10, characters=same)
    assert "kept: alpha 1" in better
    assert "95 % interval" in better
    assert "may be chance" not in better
    assert "at the end of what was tried" in better
    assert "times as long" not in better
    assert "may be chance" in told(ROWS, reward=ROWS + np.array([5, -5, 5, -5, 5, -4.0]), characters=same)
    assert "2.5 times as long" in told(ROWS, reward=ROWS + 1, characters=longer)
    assert "the result is the start itself" in told(ROWS, reward=ROWS - 1, characters=same)


@pytest.mark.parametrize(
    ("method", "values", "words"),
    [
        (Expo(), [0.0, 0.5, 1.0], "may rise further beyond it"),
        (TaskArithmetic(), [0.0, 0.5, 1.0], "may rise further beyond it"),
        (Slerp(), [0.0, 0.25, 0.5], "may rise further beyond it"),
        (Slerp(), [0.0, 0.5, 1.0], "1 is the second model itself, and no mixture scored higher; method:expo goes further"),
        (Soup(), [0.0, 0.5, 1.0], "0 is the second model itself, and no mixture scored higher; method:expo goes further"),
        (Soup(), [0.25, 0.5, 1.0], "may rise further beyond it"),
        (Expo(), [0.0, 1.0], None),
        (Soup(), [0.0, 1.0], None),
    ],
)
def test_what_is_told_at_an_end(method: MergeMethod, values: list[float], words: str | None) -> None:
    """Nothing lies beyond the second model on its own, and one value alone is no end."""
    trials = {value: {"reward": ROWS + abs(value - method.start)} for value in values}
    best, lines = choose(trials, method.start, "d")
    found = " | ".join(describe(method, best, lines, values))
    assert words in found if words else "further" not in found
