"""`finegrain online` with a reward of several Gaussian heads: every aggregate, what is logged, two processes. Test of recipes/rollouts/members.py."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finegrain.cli import main
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from tests.recipes.command import Command
from tests.recipes.online_runs import COUNTS_E, online, write_reward
from tests.recipes.reward_folder import save_reward
from tests.recipes.test_online_processes import TOLERANCE, lines_of
from tests.tiny import save_tiny, write_rows
from tests.train.harness import largest_difference, largest_metric_difference
from tests.train.test_distributed import launch

MIX = ["aggregate:nominal-mix", "--aggregate.share", "0.4"]
PER_BATCH = [*MIX, "aggregate.worst:per-batch"]


@pytest.fixture
def judge(command: Command, model: Path) -> Path:
    return save_reward(model, command.folder / "heads", "gaussian-ensemble", GaussianEnsemble(members=3))


AGGREGATES = {"mean": [], "nominal": ["aggregate:nominal"], "mix": MIX, "per-batch": PER_BATCH, "least": ["aggregate:per-sample"]}


def test_a_run_logs_the_members(command: Command, judge: Path) -> None:
    """Gold is a function, which has no members and takes no aggregate."""
    gold = ["--gold", write_reward(command.folder, COUNTS_E)]
    done = online(command, "run", "--reward", judge, *PER_BATCH, *gold, "algorithm:grpo", "--max-steps", "1")
    assert done.code == 0, done.error
    line = json.loads((command.folder / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"spread/heads", "member_std/heads", "gold/reward/mean"} <= line.keys()
    assert sum(line[f"wins/heads/{member}"] for member in range(3)) == pytest.approx(1.0)
    assert json.loads((command.folder / "run" / "run.json").read_text())["evaluation_before"]["eval_rewards/heads"]["rows"] == 2


def test_every_aggregate_of_one_buffer(command: Command, judge: Path) -> None:
    """The first buffer has the same answers under every aggregate, and the same rewards wherever they stand."""

    def reward(*asked: str) -> float:
        done = online(command, "run", "--reward", judge, *asked, "algorithm:reinforce-pp", "--dry-run")
        assert done.code == 0, done.error
        return float(done.result["first_buffer"]["reward"])

    found = {name: reward(*aggregate) for name, aggregate in AGGREGATES.items()}
    assert found["mix"] == pytest.approx(0.4 * found["nominal"] + 0.6 * found["least"])
    assert found["least"] <= (found["per-batch"] - 0.4 * found["nominal"]) / 0.6 <= found["mean"] + 1e-9
    assert found["mix"] < found["per-batch"]
    assert reward(*PER_BATCH, "credit:uniform") == pytest.approx(found["per-batch"])


def test_a_function_has_no_members(command: Command) -> None:
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), *PER_BATCH, "algorithm:grpo")
    assert done.code != 0
    assert "a function of your own says one number" in done.error


@pytest.mark.slow
def test_two_processes_take_the_minimum_of_one_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    model = save_tiny(tmp_path / "model")
    judge = save_reward(model, tmp_path / "heads", "gaussian-ensemble", GaussianEnsemble(members=3))
    rows = [{"prompt": f"why {'so ' * (place % 3)}{place} ?"} for place in range(9)]
    data = write_rows(tmp_path / "prompts.jsonl", rows)
    reward = write_reward(tmp_path, COUNTS_E)
    samples = write_rows(tmp_path / "samples.jsonl", [{**row, "responses": ["eel", "the cat", "eee"]} for row in rows])
    assert main(["score", "baseline", "--reward", reward, "--data", str(samples), "--out", str(tmp_path / "baseline.jsonl")]) == 0
    arguments = ["online", "--model", str(model), "--data", str(data), "--reward", str(judge), reward, *PER_BATCH, "algorithm:grpo"]
    arguments += ["--baseline", str(tmp_path / "baseline.jsonl"), "--device", "cpu", "--dtype", "float64", "--samples", "1", "--prompts", "4"]
    arguments += ["--holdout", "0", "--lr", "1e-3", "--max-length", "48", "--sampling.answers", "3", "--sampling.max-new-tokens", "6"]
    launch("command", *arguments, "--out", str(tmp_path / "two"), cache=tmp_path / "cache")  # the last buffer has one prompt, the other process none
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert len(lines_of(one)) == 3
    assert largest_metric_difference(lines_of(one), lines_of(two)) < TOLERANCE
    assert largest_difference(load_file(one / "model.safetensors"), load_file(two / "model.safetensors")) < TOLERANCE
