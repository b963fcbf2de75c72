"""`finegrain eval` on small copies of the benchmarks: numbers that follow from the scorer, and what is said about it."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

import finegrain
from finegrain.data.findings import Findings
from finegrain.data.load import load_examples
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from finegrain.evaluate.accuracy import TieShares
from finegrain.models.load import load_policy
from finegrain.models.probe import make_scorer
from finegrain.models.score import Precision, score_rows
from finegrain.recipes.evaluation.grades import in_other_batches
from finegrain.recipes.evaluation.problems import read_problems
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.scoring.reward_model import ModelReward, load_model_reward
from finegrain.scoring.runtime import open_runtime
from tests.recipes.command import Command, Outcome
from tests.recipes.reward_folder import save_reward
from tests.tiny import write_rows

FUNCTIONS = """
seen = []

def length(prompts, completions, **columns):
    return [float(len(one[0]["content"])) if isinstance(one, list) else float(len(one)) for one in completions]

def constant(prompts, completions, **columns):
    return [1.0] * len(completions)

def good(prompts, completions, **columns):
    return [float("good" in (one if isinstance(one, str) else one[0]["content"])) for one in completions]

def some(prompts, completions, subset, **columns):
    return [None if name == "donotanswer" else 1.0 * len(str(one)) for one, name in zip(completions, subset)]

def batch(prompts, completions, **columns):
    return [float(len(one)) + 10 * len(completions) for one in completions]
"""


@pytest.fixture
def mine(command: Command) -> Path:
    file = command.folder / "mine.py"
    file.write_text(FUNCTIONS)
    return file


@pytest.fixture
def bench(command: Command) -> Path:
    """RewardBench in its published form: longer answers are right in Chat, shorter ones in Safety, and one row in four is the other way."""
    rows: list[dict[str, Any]] = []
    for subset, long in (("alpacaeval-easy", True), ("donotanswer", False)):
        for number in range(8):
            sides = ("a good and long answer", "short")[:: 1 if long == (number % 4 > 0) else -1]
            row = {"prompt": f"why {number} ?", "chosen": sides[0], "chosen_model": "a", "rejected": sides[1], "rejected_model": "b"}
            rows.append({**row, "subset": subset, "id": len(rows)})
    return write_rows(command.folder / "rewardbench.jsonl", rows)


def asked(command: Command, reward: str | Path, data: Path, *arguments: str | Path) -> Outcome:
    done = command("eval", "--reward", reward, *arguments, "--data", data, "--device", "cpu")
    assert done.code == 0, done.error
    return done


def named(result: dict[str, Any]) -> dict[str, Any]:
    return {line["name"].strip(): line for line in result["lines"]}


def test_a_function_on_rewardbench(command: Command, bench: Path, mine: Path) -> None:
    """Length is right in three of four rows of Chat and one of four of Safety; so is the baseline of length, which is the same scorer."""
    done = asked(command, f"{mine}:length", bench, "--out", command.folder / "eval.json")
    found = named(done.result)
    assert done.result["format"] == "RewardBench"
    assert (found["Chat"]["accuracy"]["mean"], found["Safety"]["accuracy"]["mean"], found["score"]["accuracy"]["mean"]) == (0.75, 0.25, 0.5)
    for line in done.result["lines"]:
        assert line["length_only"] == line["accuracy"]
        assert line["accuracy"]["low"] < line["accuracy"]["mean"] < line["accuracy"]["high"] or line["accuracy"]["mean"] in (0.0, 1.0)
        assert "fewer than" in line["prompt_blind"], "eight prompts are too few to fit words"
    assert "incomplete" in found["score"]["note"]
    assert "0.750 [" in done.error
    assert "the number of characters alone reach" in " ".join(done.result["warnings"])
    whole = json.loads((command.folder / "eval.json").read_text())
    assert len(whole["scores"]) == 16
    assert whole["scores"][0] == {"id": "0", "subset": "alpacaeval-easy", "right": 1, "scores": [5.0, 22.0]}
    assert {name: whole[name] for name in ("lines", "calibration")} == {name: done.result[name] for name in ("lines", "calibration")}


def test_a_constant_loses_every_row(command: Command, bench: Path, mine: Path) -> None:
    done = asked(command, f"{mine}:constant", bench)
    assert named(done.result)["score"]["accuracy"]["mean"] == 0.0
    assert done.result["tied"] == 16
    assert "every answer has the same score" in done.result["warnings"][0]
    shared = asked(command, f"{mine}:constant", bench, "ties:tie-shares")
    assert named(shared.result)["score"]["accuracy"]["mean"] == 0.5
    assert done.result["calibration"]["ece"]["mean"] == 0.0, "half sure and half right"


def test_policy_equal_to_its_reference_scores_nothing(command: Command, bench: Path, model: Path) -> None:
    """The classic trap: every log-ratio is 0, every row a tie, the accuracy 0."""
    done = asked(command, model, bench, "--reference", model)
    assert named(done.result)["score"]["accuracy"]["mean"] == 0.0
    assert "are they the same model" in done.result["warnings"][0]


def test_a_policy_against_its_reference(command: Command, bench: Path, model: Path) -> None:
    """The accuracy is that of the scores that `finegrain score` gives the same rows, and beta changes calibration alone."""
    lm = AutoModelForCausalLM.from_pretrained(model)
    for weight in lm.parameters():
        weight.data.mul_(1.1)
    policy = command.folder / "policy"
    lm.save_pretrained(policy)
    for file in model.glob("*token*"):
        (policy / file.name).write_bytes(file.read_bytes())
    out = command.folder / "eval.json"
    done = asked(command, policy, bench, "--reference", model, "--out", out)
    scores = command.folder / "scores.jsonl"
    given = ("--model", policy, "--reference", model, "--data", bench, "--out", scores, "--device", "cpu")
    assert command("score", *given, "--max-length", "2048").code == 0
    lines = [json.loads(line)["score"]["mean"] for line in scores.read_text().splitlines()]
    told = [value for row in json.loads(out.read_text())["scores"] for value in row["scores"]]
    assert told == pytest.approx(lines, abs=1e-6)
    wins = np.array(lines[::2]) > np.array(lines[1::2])
    assert named(done.result)["all rows"]["accuracy"]["mean"] == wins.mean()
    louder = asked(command, policy, bench, "--reference", model, "--beta", "1")
    assert louder.result["lines"] == done.result["lines"]
    assert louder.result["calibration"]["nll"] != done.result["calibration"]["nll"]


def test_a_policy_without_a_reference(command: Command, bench: Path, model: Path) -> None:
    """By hand from the policy's log-probabilities, in the benchmark's three modes."""
    found = {}
    for mode in ("norm", "avg", "sum"):
        out = command.folder / f"{mode}.json"
        done = asked(command, model, bench, "--reference-free", mode, "--out", out)
        assert done.code == 0, done.error
        found[mode] = [value for row in json.loads(out.read_text())["scores"] for value in row["scores"]]
    policy = load_policy(str(model))
    examples = load_examples(str(bench), policy.tokenizer, shape=Shape.PREFERENCE, settings=Tokenise(max_length=2048)).examples
    scorer, _ = make_scorer(policy.model, longest=128)
    logps = score_rows(scorer.eval(), examples, ("chosen", "rejected"), Precision(nullcontext, "float32", 512))
    both = [logps[role][place].astype(np.float64) for place in range(len(examples)) for role in ("chosen", "rejected")]
    assert found["sum"] == pytest.approx([one.sum() for one in both], rel=1e-5)
    assert found["avg"] == pytest.approx([one.mean() for one in both], rel=1e-5)
    assert found["norm"] == pytest.approx([-np.linalg.norm(one) for one in both], rel=1e-5)
    refused = command("eval", "--reward", model, "--data", bench, "--reference-free", "avg", "--reference", model)
    assert refused.code == 2
    assert "--reference-free" in refused.error


@pytest.mark.parametrize(("method", "head"), [("sequence", Sequence()), ("token", Token()), ("gaussian", Gaussian())])
def test_reward_models(command: Command, bench: Path, model: Path, method: str, head: Any) -> None:
    folder = save_reward(model, command.folder / method, method, head)
    done = asked(command, folder, bench)
    assert 0 <= named(done.result)["score"]["accuracy"]["mean"] <= 1
    assert done.result["batches"]["problems"] == 16
    assert done.result["batches"]["largest_difference"] < 1e-5
    assert (done.result["mistakes_auroc"] is not None) == (method == "gaussian")


def test_other_batches_are_other_batches(command: Command, bench: Path, mine: Path, model: Path) -> None:
    """A reward that depends on its batch is told; a model is scored with one answer at a time and with many."""
    data = write_rows(command.folder / "strings.jsonl", [{"prompt": f"{n}", "chosen": "aa", "rejected": "b"} for n in range(3)])
    done = asked(command, f"{mine}:batch", data)
    assert done.result["batches"]["largest_difference"] == 50.0
    assert "depend on the batch" in " ".join(done.result["warnings"])
    budgets = []
    folder = save_reward(model, command.folder / "rm", "sequence", Sequence())
    for other in in_other_batches(load_model_reward(open_runtime("cpu", "auto"), str(folder), max_length=64)):
        assert isinstance(other, ModelReward)
        budgets.append(other.model.precision.micro_tokens)
    assert budgets == [1, 512, 8192]


def test_plain_pairs_with_words_that_give_them_away(command: Command, mine: Path) -> None:
    """Sixty pairs: the right answer says good. A scorer that sees it is right always, and so are words without prompts, which is told."""
    rows = [{"prompt": f"why {n} ?", "chosen": "good " * (1 + n % 3), "rejected": "bad words " * (1 + n % 2)} for n in range(60)]
    data = write_rows(command.folder / "pairs.jsonl", rows)
    done = asked(command, f"{mine}:good", data)
    line = done.result["lines"][0]
    assert (line["name"], line["accuracy"]["mean"], line["prompt_blind"]["mean"]) == ("all rows", 1.0, 1.0)
    assert line["length_only"]["mean"] == pytest.approx(np.mean([len(row["chosen"]) > len(row["rejected"]) for row in rows]))
    assert any("words without their prompts" in text for text in done.result["warnings"])


def test_rewardbench_2(command: Command, mine: Path) -> None:
    """Best of four by hand, Ties by the id; what is unreadable is counted."""
    row = {"num_correct": 1, "total_completions": 4}
    rows = [
        {**row, "id": "0", "subset": "Math", "prompt": "one ?", "chosen": ["good"], "rejected": ["a", "b", "c"]},
        {**row, "id": "1", "subset": "Math", "prompt": "two ?", "chosen": ["good"], "rejected": ["good too", "b", "c"]},
        {**row, "id": "2", "subset": "Math", "prompt": "three ?", "chosen": [], "rejected": ["b"]},
        {**row, "id": "tied:0", "subset": "Ties", "prompt": "many ?", "chosen": ["good 1", "good 2"], "rejected": ["b"]},
        {**row, "id": "ref:0", "subset": "Ties", "prompt": "only ?", "chosen": ["good"], "rejected": ["b", "c"]},
    ]
    done = asked(command, f"{mine}:good", write_rows(command.folder / "two.jsonl", rows))
    found = named(done.result)
    assert done.result["format"] == "RewardBench 2"
    assert found["Math"]["accuracy"]["mean"] == 0.75
    assert found["Ties"]["accuracy"]["mean"] == pytest.approx(0.3 + 0.3 + 0.2 + 0.2 + 0.01)
    assert done.result["dropped"] == {"unreadable": 1}
    assert done.result["compared"] == 6


def test_answers_without_a_score_are_counted(command: Command, bench: Path, mine: Path) -> None:
    done = asked(command, f"{mine}:some", bench)
    assert done.result["problems"] == 8
    assert done.result["dropped"] == {"not_judged": 8}
    assert "not scored: 8 not_judged" in " ".join(done.result["warnings"])


def test_several_rewards_are_combined(command: Command, bench: Path, mine: Path) -> None:
    """Standardised first, so that a constant, which has no unit, is refused."""
    done = command("eval", "--reward", f"{mine}:length", f"{mine}:good", "--data", bench, "--device", "cpu", "combiner:member-minimum")
    assert done.code == 0, done.error
    assert named(done.result)["score"]["accuracy"]["mean"] == 0.5
    refused = command("eval", "--reward", f"{mine}:length", f"{mine}:constant", "--data", bench, "--device", "cpu")
    assert refused.code == 3
    assert "member 1 gives every answer the same score" in refused.error


def test_truncation_is_counted_and_ties_in_the_data_left_out(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "rm", "sequence", Sequence())
    answer = {"answer": "x", "model": "m"}
    rows = [{"prompt": "why", "chosen": " said yes " * 30, "rejected": " no " * 30}]
    done = asked(command, folder, write_rows(command.folder / "long.jsonl", rows), "--max-length", "16")
    assert done.result["truncated"] == 2
    ranked = [{**answer, "rank": 1.0}, {**answer, "answer": "y", "rank": 1.0}, {**answer, "answer": "z", "rank": 2.0}]
    nectar = [{"prompt": "\n\nHuman: why\n\nAssistant: ", "answers": ranked, "turns": 1, "num_responses": 3}]
    done = asked(command, folder, write_rows(command.folder / "nectar.jsonl", nectar))
    assert done.result["dropped"] == {"tie": 1}
    assert done.result["problems"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--reward", "{model}"], 4, "not a reward model"),
        (["--reward", "{mine}:length", "--reference", "{model}"], 2, "has none"),
        (["--reward", "{mine}:length", "--beta", "-1"], 2, "beta must be a finite number above 0, got -1.0 (a setting of EvalSettings)"),
        (["--reward", "{mine}:nothing"], 2, "no function"),
        (["--reward", "{mine}:length", "ties:maybe"], 2, "tie-loses"),
    ],
)
def test_what_is_refused(command: Command, bench: Path, model: Path, mine: Path, arguments: list[str], code: int, words: str) -> None:
    given = [one.format(model=model, mine=mine) for one in arguments]
    done = command("eval", *given, "--data", bench, "--device", "cpu")
    assert done.code == code, done.error
    assert words in done.error


def test_data_without_pairs(command: Command, mine: Path) -> None:
    data = write_rows(command.folder / "demonstrations.jsonl", [{"prompt": "a", "completion": "b"}])
    done = command("eval", "--reward", f"{mine}:length", "--data", data)
    assert done.code == 3
    assert "no pairs" in done.error


def test_scores_that_are_no_numbers(command: Command, bench: Path, model: Path) -> None:
    broken = save_reward(model, command.folder / "broken", "sequence", Sequence(), scale=1e38)
    done = command("eval", "--reward", broken, "--data", bench, "--device", "cpu")
    assert done.code == 6
    assert "NaN" in done.error


def test_from_python(command: Command, bench: Path, mine: Path) -> None:
    found = finegrain.evaluate_reward(f"{mine}:constant", bench, ties=TieShares(), device="cpu")
    assert named(found)["score"]["accuracy"]["mean"] == 0.5


def test_problems_are_read_as_they_are(bench: Path) -> None:
    """No gate: equal answers, short ones and repeats all count."""
    rows = [json.loads(line) for line in bench.read_text().splitlines()]
    rows += [rows[0], {**rows[1], "rejected": rows[1]["chosen"]}]
    write_rows(bench, rows)
    found = read_problems(str(bench), None)
    assert len(found.problems) == 18
    assert found.findings.dropped() == Findings().dropped()
    assert [one.item.subset for one in found.problems][:2] == ["alpacaeval-easy"] * 2
