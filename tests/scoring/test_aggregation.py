"""`aggregate:` of `finegrain score` and `eval`: what an optimiser would be shown of a reward that knows its uncertainty.

Test of scoring/adapters.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.sequence import Sequence
from tests.recipes.command import Command, Outcome
from tests.recipes.reward_folder import save_reward


@pytest.fixture
def judges(command: Command, model: Path) -> Path:
    """Untrained reward models: their members differ by their start."""
    heads = {"ensemble": ("ensemble", Ensemble()), "gaussians": ("gaussian-ensemble", GaussianEnsemble()), "plain": ("sequence", Sequence())}
    for name, (method, head) in heads.items():
        save_reward(model, command.folder / name, method, head)
    return command.folder


def score(command: Command, judge: Path, *choice: str) -> Outcome:
    out = command.folder / "scores.jsonl"
    out.unlink(missing_ok=True)
    return command("score", "--model", judge, "--data", command.data, "--out", out, "--device", "cpu", *choice)


def said(command: Command, judge: Path, *choice: str) -> list[dict[str, Any]]:
    outcome = score(command, judge, *choice)
    assert outcome.code == 0, outcome.error
    return [json.loads(line)["score"] for line in (command.folder / "scores.jsonl").read_text().splitlines()]


def test_lines_say_the_reward(command: Command, judges: Path) -> None:
    plain = said(command, judges / "ensemble")
    assert all("reward" not in one for one in plain)
    for one, before in zip(said(command, judges / "ensemble", "aggregate:minus-std", "--aggregate.k", "2"), plain, strict=True):
        assert one["mean"] == before["mean"]
        assert one["reward"] == pytest.approx(one["mean"] - 2 * one["std"], rel=1e-5)
    for one in said(command, judges / "ensemble", "aggregate:minus-variance"):
        assert one["reward"] == pytest.approx(one["mean"] - one["std"] ** 2, rel=1e-5, abs=1e-7)
    assert all(one["reward"] < one["mean"] for one in said(command, judges / "ensemble", "aggregate:per-sample"))


def test_members_that_know_their_own(command: Command, judges: Path) -> None:
    worst = said(command, judges / "gaussians", "aggregate:per-sample")
    surest = said(command, judges / "gaussians", "aggregate:nominal")
    mixed = said(command, judges / "gaussians", "aggregate:nominal-mix", "--aggregate.share", "0.25")
    for least, nominal, both in zip(worst, surest, mixed, strict=True):
        assert least["reward"] <= nominal["reward"]
        assert both["reward"] == pytest.approx(0.25 * nominal["reward"] + 0.75 * least["reward"], rel=1e-5, abs=1e-7)
    assert all(one["reward"] < one["mean"] for one in said(command, judges / "gaussians", "aggregate:mean-of-penalties"))


@pytest.mark.parametrize(
    ("judge", "choice", "words"),
    [
        ("plain", ("aggregate:minus-std",), "penalty for uncertainty"),
        ("plain", ("aggregate:per-sample",), "several members"),
        ("ensemble", ("aggregate:nominal",), "gaussian-ensemble"),
        ("gaussians", ("aggregate:nominal-mix", "aggregate.worst:per-batch"), "one by one"),
    ],
)
def test_what_cannot_be_said(command: Command, judges: Path, judge: str, choice: tuple[str, ...], words: str) -> None:
    outcome = score(command, judges / judge, *choice)
    assert outcome.code == 2
    assert words in outcome.error
    assert not (command.folder / "scores.jsonl").exists()


def test_functions_say_one_number(command: Command) -> None:
    (command.folder / "mine.py").write_text("def one(completions, **rest):\n    return [1.0] * len(completions)\n")
    function = f"{command.folder / 'mine.py'}:one"
    for arguments in (("score", "--reward", function, "--out", command.folder / "x.jsonl"), ("eval", "--reward", function)):
        outcome = command(*arguments, "--data", command.data, "aggregate:minus-std")
        assert outcome.code == 2
        assert "function of your own" in outcome.error


def test_eval_grades_it(command: Command, judges: Path) -> None:
    """The scores that `eval` writes are those that `score` calls the reward."""
    want = [one["reward"] for one in said(command, judges / "ensemble", "aggregate:minus-std", "--aggregate.k", "3")]
    out = command.folder / "eval.json"
    done = command(
        "eval", "--reward", judges / "ensemble", "--data", command.data, "--out", out, "--device", "cpu", "aggregate:minus-std", "--aggregate.k", "3"
    )
    assert done.code == 0, done.error
    found = json.loads(out.read_text())["scores"]
    assert done.result["aggregate"] == {"choice": "minus-std", "k": 3.0}
    numbers = [score for row in found for score in row["scores"]]
    assert numbers == pytest.approx(want, rel=1e-4, abs=1e-6)
