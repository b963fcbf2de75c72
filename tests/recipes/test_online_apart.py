"""Several rewards kept apart, from the command line. Test of recipes/online.py, recipes/rollouts/, online/pama_update.py, train/output_gram.py."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finegrain.cli import main
from tests.recipes.command import Command
from tests.recipes.online_runs import online, write_reward
from tests.recipes.test_online_resume import lines_of, stop_after
from tests.tiny import save_tiny, write_rows
from tests.train.harness import largest_difference, largest_metric_difference
from tests.train.test_distributed import launch

MANY = """
def reward(completions, **columns):
    return [[(place, place + 1, 0.1) for place, letter in enumerate(text) if letter == "e"] or [(0, len(text), 0.0)] for text in completions]
"""
FEW = """
def reward(completions, **columns):
    return [None if len(text) % 5 == 0 else 1 - (text.count("e") + text.count("a")) / 8 for text in completions]
"""
"""Does not judge some answers."""
PAMA = ["algorithm:ppo", "algorithm.combination:pama"]
MOVING = [*PAMA, "algorithm.combination.average:moving-mean", "--algorithm.epochs", "2", "--algorithm.minibatches", "2"]


def rewards(folder: Path) -> list[str]:
    return ["--reward", write_reward(folder, MANY, "many"), write_reward(folder, FEW, "few")]


def test_what_was_pushed_is_logged_by_name(command: Command) -> None:
    """Each reward has a value of its own in the critic, and the report says how they were weighed."""
    done = online(command, "run", *rewards(command.folder), *PAMA, "--max-steps", "4")
    assert done.code == 0, done.error
    run = command.folder / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert {"pama/a/reward", "pama/a/reward-2", "pama/c/reward", "pama/c/reward-2", "pama/s", "pama/pushed"} <= line.keys()
        assert line["pama/c/reward"] + line["pama/c/reward-2"] == 1
        assert line["pama/s"] == pytest.approx(min(line["pama/a/reward"], line["pama/a/reward-2"]), abs=1e-6)
        assert line[f"pama/c/{['reward', 'reward-2'][int(line['pama/pushed'])]}"] == 1
    assert {"value/explained_variance/reward", "value/explained_variance/reward-2"} <= lines[0].keys()
    assert "Weights of the rewards (PAMA)" in (run / "report.html").read_text()


def test_weights_with_a_combination_that_finds_them_are_an_error(command: Command) -> None:
    done = online(command, "run", *rewards(command.folder), *PAMA, "--reward-weights", "0.9", "0.1")
    assert done.code != 0
    assert "leave them out" in done.error


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        ["algorithm:ppo", "algorithm.combination:mgda"],
        ["algorithm:ppo", "algorithm.combination:sum-advantages", "--reward-weights", "0.9", "0.1"],
        ["algorithm:ppo", "algorithm.combination:pama", "algorithm.critic:separate-critic", "--algorithm.combination.average.decay", "0.5"],
        ["algorithm:grpo", "algorithm.combination:pama", "algorithm.combination.ratio:to-reference"],
        ["algorithm:grpo", "algorithm.combination:pama", "algorithm.combination.reading:least-per-token", "advantage:group-norm"],
        ["algorithm:rloo", "algorithm.combination:mgda"],
        ["algorithm:reinforce-pp", "algorithm.combination:pama", "algorithm.combination.reading:one-scalar"],
        ["algorithm:ppo", "algorithm.combination:mgda", "advantage:macro-gae", "--lora.rank", "4"],
    ],
    ids=" ".join,
)
def test_every_choice_trains_and_is_repeated(command: Command, asked: list[str]) -> None:
    if "--algorithm.combination.average.decay" in asked:
        asked = ["algorithm.combination.average:moving-mean", *asked]
    assert online(command, "run", *rewards(command.folder), *asked, "--max-steps", "3").code == 0
    assert command("again", command.folder / "run" / "run.json", "--out", command.folder / "again", "--yes").code == 0
    name = "adapter_model.safetensors" if "--lora.rank" in asked else "model.safetensors"
    assert (command.folder / "run" / name).read_bytes() == (command.folder / "again" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [MOVING, [*MOVING, "algorithm.critic:separate-critic"]], ids=["shared critic", "separate critic"])
def test_a_run_goes_on_inside_a_buffer_with_its_moving_mean(command: Command, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    given = [*rewards(command.folder), *asked, "--save-every", "3", "--max-steps", "8"]
    assert online(command, "whole", *given).code == 0
    stop_after(command, "cut", monkeypatch, 3, *given)
    assert online(command, "cut", *given, "--resume").code == 0
    whole, cut = command.folder / "whole", command.folder / "cut"
    assert lines_of(whole) == lines_of(cut)
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [MOVING, ["algorithm:ppo", "algorithm.combination:mgda"]], ids=["pama", "mgda"])
def test_two_processes_learn_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    model = save_tiny(tmp_path / "model")
    data = write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"why {'so ' * (place % 3)}{place} ?"} for place in range(10)])
    arguments = ["online", "--model", str(model), "--data", str(data), *rewards(tmp_path), *asked, "--device", "cpu", "--dtype", "float64"]
    arguments += ["--samples", "1", "--prompts", "3", "--holdout", "0.2", "--lr", "1e-3", "--max-length", "48", "--max-steps", "4"]
    arguments += ["--sampling.answers", "3", "--sampling.max-new-tokens", "6"]
    launch("command", *arguments, "--out", str(tmp_path / "two"), cache=tmp_path / "cache")
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    one, two = (
        [{name: value for name, value in line.items() if name != "num_tokens"} for line in lines_of(tmp_path / run)] for run in ("one", "two")
    )
    assert largest_metric_difference(one, two) < 1e-6
    assert largest_difference(load_file(tmp_path / "one" / "model.safetensors"), load_file(tmp_path / "two" / "model.safetensors")) < 1e-6
