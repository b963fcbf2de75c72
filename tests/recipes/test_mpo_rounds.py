"""`finegrain iterate rounds:mpo`: its stages, its limits (all easy is DPO, all hard is PPO), and going on at the stage that was reached.

Test of rounds/mpo.py, recipes/iteration/stages.py, recipes/curation/voting.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finegrain.recipes.iteration import stages
from tests.recipes.command import Command, Outcome

REWARD = """
def vowels(prompts, completions, **columns):
    return [sum(text.count(letter) for letter in "aeiou") / 8 + len(text) / 1000 for text in completions]
"""
FAST = ("--device", "cpu", "--samples", "0", "--max-length", "64", "--batch-size", "4", "--examined", "0", "--holdout", "0", "--lr", "1e-3")
ONLINE = {"training": {"prompts": 2, "holdout": 0.0, "samples": 0}, "sampling": {"answers": 2}}


def mpo(command: Command, out: str, *arguments: str | Path) -> Outcome:
    (command.folder / "reward.py").write_text(REWARD)
    (command.folder / "stages.json").write_text(json.dumps({"online": ONLINE}))
    given = ("--model", command.model, "--data", command.data, "--out", command.folder / out, *FAST, "rounds:mpo")
    asked = ("--rounds.reward", f"{command.folder / 'reward.py'}:vowels", "--rounds.stages", command.folder / "stages.json")
    return command("iterate", *given, *asked, "--rounds.online-lr", "1e-3", "--rounds.max-new-tokens", "4", "--limit", "8", *arguments)


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_easy_pairs_then_the_prompts_of_hard_ones(command: Command) -> None:
    done = mpo(command, "run", "--rounds.contradicted", "keep")
    assert done.code == 0, done.error
    out, record = command.folder / "run", command.record("run")
    assert done.result["stages"] == ["split", "prefer", "online"]
    assert [line["stage"] for line in record["stages"]] == ["split", "prefer", "online"]
    easy, hard = (lines_of(out / "split" / f"rows.{name}.jsonl") for name in ("easy", "hard"))
    assert (len(easy), len(hard)) == (4, 4)
    rows = lines_of(out / "split" / "rows.jsonl")
    margins = {row["prompt"]: abs(row["split_margin"]) for row in rows}
    assert min(margins[row["prompt"]] for row in easy) > max(margins[row["prompt"]] for row in hard)
    online = command.record("run/online")
    assert online["settings"]["model"] == str(out / "prefer")
    first = command.lines("run/online")[0]
    assert first["kl"] == pytest.approx(0.0, abs=1e-7), "the leash is tied to the stage-1 model, where the policy starts"
    assert same_weights(out, out / "online")
    assert "| split | curate |" in (out / "README.md").read_text()


@pytest.mark.slow
def test_all_easy_is_dpo_and_all_hard_is_ppo(command: Command) -> None:
    """To the bit."""
    assert mpo(command, "easy", "--rounds.threshold", "0", "--rounds.contradicted", "keep").result["stages"] == ["split", "prefer"]
    command.first(8)
    plain = command("prefer", "--model", command.model, "--data", command.data, "--out", command.folder / "dpo", *FAST, "objective:dpo")
    assert plain.code == 0, plain.error
    assert same_weights(command.folder / "easy", command.folder / "dpo")
    assert mpo(command, "hard", "--rounds.hard", "1").result["stages"] == ["split", "online"]
    flags = ("--holdout", "0", "--samples", "0", "--prompts", "2", "--sampling.answers", "2", "--sampling.max-new-tokens", "4", "--max-length", "64")
    given = ("--model", command.model, "--data", command.data, "--out", command.folder / "ppo", "--lr", "1e-3", "--device", "cpu", *flags)
    ppo = command("online", *given, "algorithm:ppo", "--reward", f"{command.folder / 'reward.py'}:vowels")
    assert ppo.code == 0, ppo.error
    assert same_weights(command.folder / "hard", command.folder / "ppo")


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.slow
def test_a_stopped_recipe_goes_on_at_its_stage(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before and within each stage, it comes to the weights of the run that was not; what is finished is not run again."""
    assert mpo(command, "whole").code == 0
    honest = stages.run_command
    for at in ("curate", "prefer", "online"):
        ran: list[str] = []

        def dies(name: str, *given: Any, at: str = at, ran: list[str] = ran) -> Any:
            if name == at and at not in ran:
                ran.append(name)
                given[1].mkdir(parents=True)
                (given[1] / "half").write_text("") if name == "curate" else given[1].rmdir()
                raise Killed
            ran.append(name)
            return honest(name, *given)

        with monkeypatch.context() as patch:
            patch.setattr(stages, "run_command", dies)
            with pytest.raises(Killed):
                mpo(command, at)
        assert command.record(at)["status"] == "running"
        done = mpo(command, at, "--resume")
        assert done.code == 0, done.error
        assert same_weights(command.folder / at, command.folder / "whole")


@pytest.mark.slow
def test_its_own_reward(command: Command) -> None:
    """Trained on all pairs; the margins are those of models that did not train on the pair."""
    given = ("--model", command.model, "--data", command.data, "--out", command.folder / "run", *FAST, "--limit", "12", "rounds:mpo")
    (command.folder / "stages.json").write_text(json.dumps({"online": ONLINE, "reward": {"training": {"epochs": 2.0}}}))
    further = ("--rounds.votes", "linear", "--rounds.stages", command.folder / "stages.json", "--rounds.max-new-tokens", "4")
    done = command("iterate", *given, *further, "--rounds.contradicted", "keep")
    assert done.code == 0, done.error
    assert done.result["stages"] == ["reward", "split", "prefer", "online"]
    assert command.record("run/reward")["settings"]["training"]["epochs"] == 2.0
    found = lines_of(command.folder / "run" / "split" / "rows.jsonl")
    assert all([one is None for one in row["member_margins"]].count(True) == 1 for row in found if row["split_margin"] is not None)


def test_refused(command: Command) -> None:
    for arguments, words in (
        (("--rounds.threshold", "1", "--rounds.hard", "0.3"), "give one of them"),
        (("--round-lr", "0.1"), "--round-lr is for rounds"),
        (("--eval", command.data), "different data"),
        (("--rounds.stages", "nosuch.json"), "cannot read --rounds.stages"),
    ):
        done = mpo(command, "run", *arguments)
        assert done.code == 2, done.error
        assert words in done.error
        assert not (command.folder / "run").exists()
