"""objective:alol from the command: what is dropped, a killed run, repeated runs, rewards by column and function, and bad input.

Test of recipes/training/stage_context.py, recipes/training/stage_file.py.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from finegrain.recipes.training.stage_file import Staged, read_stage, write_stage
from tests.recipes.command import Command
from tests.tiny import write_rows

REWARD = """
def letters(prompts, completions, **columns):
    return [sum(map(ord, text)) % 11 / 10 for text in completions]
"""
FITTED = ("objective:alol", "--objective.value.prompts", "6", "--objective.value.targets.max-new-tokens", "4", "--objective.value.epochs", "2")
BY_COLUMN = ("objective:alol", "objective.value:mean-reward", "--max-steps", "2")


def by_function(folder: Path) -> tuple[str, ...]:
    (folder / "judge.py").write_text(REWARD)
    return (*FITTED, "--objective.reward", f"{folder / 'judge.py'}:letters", "--holdout", "0.25")


def rewarded(folder: Path, count: int = 24) -> Path:
    """Demonstrations with a reward; two of three are poor."""
    rows = [{"prompt": f"why {n} ?", "completion": f" the cat said yes {n}", "reward": 0.9 if n % 3 == 0 else 0.1} for n in range(count)]
    return write_rows(folder / "rewarded.jsonl", rows)


def sft(command: Command, run: str, *arguments: str | Path) -> None:
    done = command.prefer(run, *arguments, command="sft")
    assert done.code == 0, done.error


@pytest.mark.slow
def test_what_is_dropped_is_the_negative_share(command: Command) -> None:
    asked = by_function(command.folder)
    sft(command, "run", *asked)
    record, kept = command.record("run"), load_file(command.folder / "run/stage.safetensors")
    rows, stage = record["rows"], record["stage"]
    assert stage["negative_share"] == record["reading"]["without_a_chance"] / rows == float((kept["train/advantage"] <= 0).mean())
    assert 0 < stage["negative_share"] < 1
    assert stage["numbers"] == ["advantage", "priority", "prompt_value", "scored_reward"]
    assert (stage["answers_sampled"], stage["answers_scored"]) == (6, 6 + 24)
    np.testing.assert_allclose(
        kept["train/scored_reward"] - kept["train/prompt_value"], kept["train/advantage"], atol=1e-7
    )  # rounding is no advantage
    assert kept["value_head/query"].shape == (32,)
    positive = int((kept["train/advantage"] > 0).sum())
    assert record["steps"] == -(-positive // 4), "steps go down with the share that is read"
    held = record["evaluation"]
    assert held["eval_nll/good"]["rows"] + held["eval_nll/poor"]["rows"] == 24 - rows
    assert record["stage"]["held_out_negative_share"] == held["eval_nll/poor"]["rows"] / (24 - rows)


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_run_and_repeats_no_stage(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (*by_function(command.folder), "--epochs", "4", "--max-steps", "4", "--save-every", "2")
    sft(command, "cut", *asked)
    shutil.copytree(command.folder / "cut", command.folder / "whole")
    (command.folder / "cut/model.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("finegrain.recipes.training.stage_context.RunStage.score", None)
        sft(command, "cut", *asked, "--resume")
    one, two = (load_file(command.folder / run / "model.safetensors") for run in ("whole", "cut"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert command.lines("whole") == command.lines("cut")
    assert command.record("whole")["stage"] == command.record("cut")["stage"]
    again = command("again", command.folder / "whole/run.json", "--out", command.folder / "again", "--yes")
    assert again.code == 0, again.error
    assert command.lines("whole") == command.lines("again")


@pytest.mark.slow
def test_an_edited_reward_is_noticed(command: Command) -> None:
    asked = (*by_function(command.folder), "--max-steps", "1", "--save-every", "1")
    sft(command, "run", *asked)
    (command.folder / "judge.py").write_text(REWARD.replace("11 / 10", "7 / 10"))
    done = command.prefer("run", *asked, "--resume", command="sft")
    assert done.code != 0
    assert "judge.py:letters is not the one that the run in" in done.error
    again = command("again", command.folder / "run/run.json", "--out", command.folder / "again", "--yes")
    assert again.code == 0, again.error
    assert "judge.py:letters is not the one of the earlier run" in again.error
    assert len(command.record("again")["stage"]["changed"]) == 1


@pytest.mark.slow
def test_a_lost_stage_is_made_again(command: Command) -> None:
    asked = (*by_function(command.folder), "--epochs", "4", "--max-steps", "4", "--save-every", "2")
    sft(command, "run", *asked)
    before = command.lines("run")
    (command.folder / "run/stage.safetensors").write_bytes(b"not this")
    (command.folder / "run/model.safetensors").unlink()
    done = command.prefer("run", *asked, "--resume", command="sft")
    assert done.code == 0, done.error
    assert "this run kept no whole stage.safetensors, so it is made again" in done.error
    assert command.lines("run") == before


def test_rewards_by_column(command: Command) -> None:
    data = rewarded(command.folder)
    sft(command, "run", *BY_COLUMN, "--data", data)
    kept = load_file(command.folder / "run/stage.safetensors")
    rewards = kept["train/scored_reward"]
    assert set(rewards.tolist()) == {0.9, 0.1}
    np.testing.assert_allclose(kept["train/prompt_value"], rewards.mean())
    done = command.prefer("sampled", "objective:alol", "--data", data, command="sft")
    assert done.code != 0
    assert "which column:reward cannot score" in done.error
    assert "objective.value:mean-reward" in done.error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r-lol", "wbc", "gold"])
def test_baselines_read_rewards(command: Command, name: str) -> None:
    sft(command, "run", f"objective:{name}", "--max-steps", "2", "--data", rewarded(command.folder))
    assert command.record("run")["stage"]["negative_share"] == 0
    assert command.record("run")["reading"]["by"] == "priority"


@pytest.mark.slow
def test_rejected_answers_take_part_in_all_priority(command: Command) -> None:
    sft(command, "run", *by_function(command.folder), "objective.sampling:all-priority", "--max-steps", "2")
    record = command.record("run")
    assert record["data"]["shape"] == "unpaired"
    assert record["rows"] == 36, "three quarters of 24 pairs, both answers"


def test_a_reward_may_stand_in_the_column_that_is_looked_for_first(command: Command) -> None:
    rows = [{"prompt": f"why {n} ?", "completion": f" yes {n}", "answer_reward": n / 8} for n in range(8)]
    sft(command, "run", *BY_COLUMN, "--data", write_rows(command.folder / "named.jsonl", rows))


def test_answers_of_pairs_have_the_rewards_of_their_columns(command: Command) -> None:
    rows = [{"prompt": f"why {n} ?", "chosen": f" yes {n}", "rejected": f" no {n}", "chosen_reward": 0.5 + n, "rejected_reward": n} for n in range(8)]
    data = write_rows(command.folder / "pairs.jsonl", rows)
    sft(command, "run", *BY_COLUMN, "objective.sampling:all-priority", "--holdout", "0", "--data", data)
    assert load_file(command.folder / "run/stage.safetensors")["train/scored_reward"].tolist() == [n + side for n in range(8) for side in (0.5, 0.0)]


def test_every_row_unclipped_can_be_asked_for(command: Command) -> None:
    asked = (*BY_COLUMN, "--data", rewarded(command.folder), "objective.sampling:every-row", "--objective.variant.clip", "None")
    done = command.prefer("run", *asked, "--dry-run", command="sft")
    assert done.code == 0, done.error


def test_rows_are_drawn_by_one_number(command: Command) -> None:
    asked = ("objective:wbc", "--sample-by", "reward", "--data", rewarded(command.folder))
    done = command.prefer("run", *asked, "--dry-run", command="sft")
    assert done.code == 2
    assert "WBC draws rows by priority, which it makes, and --sample-by asks for reward" in done.error
    assert command.prefer("run", *asked, "objective.sampling:every-row", "--dry-run", command="sft").code == 0


def test_bad_columns(command: Command) -> None:
    data = rewarded(command.folder)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    done = command.prefer("none", *BY_COLUMN, command="sft")
    assert done.code != 0
    assert "no column answer_reward or reward for the reward column:reward" in done.error
    done = command.prefer("own", *BY_COLUMN, "--data", write_rows(data, [{**row, "advantage": 1} for row in rows]), command="sft")
    assert done.code != 0
    assert "--data has a column advantage, which ALoL makes itself" in done.error
    rows[0]["reward"] = float("nan")
    done = command.prefer("nan", *BY_COLUMN, "--data", write_rows(data, rows), command="sft")
    assert done.code != 0
    assert "not_a_number: 1 kept (rows 0)" in done.error
    assert "some rows have no number in the column reward, which column:reward reads" in done.error


def test_a_file_of_a_stage_comes_back(tmp_path: Path) -> None:
    staged = Staged({"advantage": np.array([0.1, -1 / 3])}, {"advantage": np.array([2.0])}, {"seconds": 0.1})
    write_stage(tmp_path, staged, {"value_head/query": torch.ones(2).numpy()})
    found = read_stage(tmp_path, 2, 1)
    assert found is not None
    assert found.facts == staged.facts
    assert all(np.array_equal(found.train[name], values) for name, values in staged.train.items())
    assert found.held_out["advantage"].tolist() == [2.0]
    assert read_stage(tmp_path, 3, 1) is None, "of other rows"
    (tmp_path / "stage.safetensors").write_bytes(b"damaged")
    assert read_stage(tmp_path, 2, 1) is None
    assert read_stage(tmp_path / "none", 2, 1) is None
