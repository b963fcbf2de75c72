"""Reward models from argv to a page: what a run leaves, a checkpoint looked at without training, a really trained love of length named.

Test of recipes/inspection/rewards.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from finegrain.diagnose import confidence, length
from finegrain.report.pairs import ExaminedPair, read_pairs
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.gaussian import Gaussian
from tests.recipes.command import Command
from tests.recipes.reward_folder import save_reward
from tests.tiny import TEXT, write_rows

LENGTH = "Length against score"


def train(command: Command, run: str, *arguments: str | Path, data: Path | None = None) -> list[ExaminedPair]:
    """What a reward model's run wrote of its examined pairs."""
    out = command.folder / run
    given = ["--model", command.model, "--data", data or command.data, "--out", out, "--batch-size", "4", "--device", "cpu"]
    done = command("reward", *given, *arguments)
    assert done.code == 0, done.error
    pairs = read_pairs(out)
    assert pairs is not None
    return pairs


def write_lengths(file: Path, *, chosen_longer: float, count: int = 48, seed: int = 0) -> Path:
    """Pairs of the same words; the longer answer is the chosen one in this share of them."""
    rng = np.random.default_rng(seed)
    words = TEXT.split()
    with file.open("w") as stream:
        for row in range(count):
            answers = [" " + " ".join(rng.choice(words, size)) for size in (int(rng.integers(2, 5)), int(rng.integers(8, 14)))]
            short, long = answers
            chosen, rejected = (long, short) if rng.random() < chosen_longer else (short, long)
            stream.write(json.dumps({"prompt": f"why {row} ?", "chosen": chosen, "rejected": rejected}) + "\n")
    return file


def test_a_run_leaves_scores_with_their_deviation(command: Command) -> None:
    """Held-out scores are those of the run's own evaluation, and a page of them needs no excuse."""
    pairs = train(command, "run", "head:gaussian", "--holdout", "0.25", "--max-steps", "4", "--lr", "1e-2")
    held = [pair for pair in pairs if pair.held_out]
    assert 0 < len(held) < len(pairs)
    right = np.mean([pair.reward_margin > 0 for pair in held])
    assert right == pytest.approx(command.record("run")["evaluation"]["eval_accuracy"]["mean"])
    for pair in pairs:
        for answer in pair.answers.values():
            assert answer.reward is not None
            assert answer.reward_std is not None
            assert answer.score == pytest.approx(answer.reward[answer.mask][-1], rel=1e-3), "the readout is the last token"
            assert answer.score_std == pytest.approx(answer.reward_std[answer.mask][-1], rel=1e-3)
            assert answer.before is None
    page = (command.folder / "run" / "report.html").read_text()
    assert 'id="reward"' in page
    assert "What this page cannot show" not in page


def test_segments_of_training_and_of_held_out_rows(command: Command) -> None:
    """A head of segments: an answer's score is the mean of its segments' scores, which are read at their ends."""
    pairs = train(command, "run", "head:segment", "--holdout", "0.25", "--max-steps", "2", "--lr", "1e-2")
    for pair in pairs:
        for answer in pair.answers.values():
            assert answer.segment is not None
            numbers = sorted(set(answer.segment[answer.segment >= 0].tolist()))
            shown = answer.segment_score
            assert shown is not None
            ends = [shown[answer.segment == number][0] for number in numbers]
            assert answer.score == pytest.approx(np.mean(ends), rel=1e-2, abs=1e-4)


def test_a_frozen_backbone_and_single_answers_leave_scores_too(command: Command, tmp_path: Path) -> None:
    """Ratings have one answer: scores and token scores, and no finding about pairs."""
    pairs = train(command, "frozen", "head:sequence", "--frozen", "--max-steps", "2", "--lr", "1e-2")
    assert all(np.isfinite(pair.reward_margin) for pair in pairs)
    data = tmp_path / "rated.jsonl"
    rows = [
        {
            "prompt": f"why {row} ?",
            "response": f" good people {row}",
            "helpfulness": row % 3 + 1,
            "correctness": 2,
            "coherence": 2,
            "complexity": 1,
            "verbosity": 1,
        }
        for row in range(12)
    ]
    write_rows(data, rows)
    rated = train(command, "rated", "head:rating", "loss:rating-labels", "--loss.attribute", "helpfulness", "--max-steps", "2", data=data)
    assert all(pair.answers["answer"].score is not None for pair in rated)
    page = (command.folder / "rated" / "report.html").read_text()
    assert "What this page cannot show" not in page
    assert 'id="reward"' not in page


@pytest.mark.parametrize(("method", "head"), [("gaussian", Gaussian()), ("ensemble", Ensemble(members=3))])
def test_a_reward_model_without_training(method: str, head: Gaussian | Ensemble, command: Command, tmp_path: Path) -> None:
    folder = save_reward(command.model, tmp_path / "rm", method, head)
    done = command("inspect", "--model", folder, "--data", command.data, "--out", tmp_path / "look.html")
    assert done.code == 0, done.error
    assert {"Pairs in order", "Confidence against accuracy", LENGTH, "Standard deviation against mistakes"} <= done.result["verdicts"][0].keys()
    page = (tmp_path / "look.html").read_text()
    assert "Nothing was trained" in page
    assert "it takes all as held out" in page
    refused = command("inspect", "--model", folder, "--data", command.data, "--reference", command.model, "--out", tmp_path / "look.html")
    assert refused.code == 2
    assert "is a reward model" in refused.error
    assert "drop --reference" in refused.error


@pytest.mark.slow
def test_a_reward_model_that_learned_length_is_named(command: Command, tmp_path: Path) -> None:
    """Trained where the longer answer is always the chosen one, looked at where it is chosen half the time."""
    longer = write_lengths(tmp_path / "long.jsonl", chosen_longer=1.0)
    train(command, "run", "head:token", "head.readout:sum", "--epochs", "4", "--lr", "1e-2", data=longer)
    data = write_lengths(tmp_path / "even.jsonl", chosen_longer=0.5, count=60, seed=1)
    done = command("inspect", "--model", tmp_path / "run", "--data", data, "--out", tmp_path / "look.html")
    assert done.code == 0, done.error
    found = done.result["verdicts"][0]
    assert found[LENGTH] == length.HACKED
    assert found["Pairs in order"] == confidence.GUESSES
    assert "Length hacking: the reward correlates strongly with length" in (tmp_path / "look.html").read_text()
