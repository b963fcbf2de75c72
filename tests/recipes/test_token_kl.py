"""tdpo, sparsepo and mapo from the command line. Test of objectives/tdpo2.py, objectives/sparsepo.py, objectives/mapo.py."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finegrain.objectives.mask_network import SimpleAll
from finegrain.recipes.training import watchers
from tests.recipes.command import Command
from tests.tiny import save_tiny

STEPS = ("--max-steps", "3", "--lr", "0.003", "--holdout", "0.25")


def test_tdpo2_starts_as_dpo_and_logs_the_kl_that_it_holds(command: Command) -> None:
    for run in ("tdpo2", "dpo"):
        done = command.prefer(run, f"objective:{run}", *STEPS)
        assert done.code == 0, done.error
    ours, theirs = command.lines("tdpo2"), command.lines("dpo")
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], abs=1e-6)
    assert ours[0]["kl/rejected"] == pytest.approx(0, abs=1e-6)
    assert ours[-1]["kl/rejected"] > 1e-3
    assert ours[-1]["score/accuracies"] > 0.5
    assert not any(name.startswith(("kl/", "score/")) for name in theirs[-1])
    evaluation = command.record("tdpo2")["evaluation"]
    assert evaluation["eval_kl/rejected"]["low"] > 0
    assert evaluation["eval_score/accuracies"]["rows"] == 6
    assert not (command.folder / "tdpo2/modules.safetensors").exists()


def test_sparsepo_trains_its_networks_and_leaves_them_beside_the_policy(command: Command, tmp_path: Path) -> None:
    """With dropout, the same again; a run with evaluations in between takes the same steps."""
    model = save_tiny(tmp_path / "deep", layers=3)
    given = ("objective:sparsepo", "objective.masks:independent", "--objective.network.dropout", "0.3", "--model", model, *STEPS)
    assert command.prefer("one", *given).code == 0
    made = load_file(command.folder / "one/modules.safetensors")
    start = SimpleAll().build(2, 3, 32, torch.Generator().manual_seed(0)).state_dict()
    assert made.keys() == {f"reader.{name}" for name in start}
    assert all(not torch.equal(made[f"reader.{name}"], value) for name, value in start.items())
    again = command("again", command.folder / "one/run.json", "--out", command.folder / "two")
    assert again.code == 0, again.error
    assert command.lines("two") == command.lines("one")
    assert all(torch.equal(value, made[name]) for name, value in load_file(command.folder / "two/modules.safetensors").items())
    assert command.prefer("often", *given, "--eval-every", "1").code == 0
    kept = [{name: value for name, value in line.items() if not name.startswith("eval_")} for line in command.lines("often")]
    assert kept == command.lines("one")
    last = command.lines("often")[-1]
    found = command.record("one")["evaluation"]
    assert found["eval_loss"]["mean"] == last["eval_loss"], "no dropout where it is measured"
    assert 0 < last["mask/zero_reward_chosen"] < 0.6, "dropped masks are 0"
    assert last["eval_mask/zero_reward_chosen"] == 0


@pytest.mark.parametrize("objective", ["tdpo2", "sparsepo", "mapo"])
def test_an_interrupted_run_goes_on_to_the_same_end(command: Command, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (f"objective:{objective}", "--max-steps", "4", "--lr", "0.003", "--holdout", "0")
    assert command.prefer("whole", *given).code == 0
    honest = watchers._facts

    def interrupting(line: dict[str, Any]) -> str:
        if line["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return honest(line)

    with monkeypatch.context() as patch:
        patch.setattr(watchers, "_facts", interrupting)
        assert command.prefer("run", *given).code == 130
    assert command.prefer("run", *given, "--resume").code == 0
    assert command.lines("run") == command.lines("whole")
    for name in ("model.safetensors", *(["modules.safetensors"] if objective == "sparsepo" else [])):
        whole = load_file(command.folder / "whole" / name)
        assert all(torch.equal(value, whole[key]) for key, value in load_file(command.folder / "run" / name).items())


@pytest.mark.parametrize("choice", [("objective.network:random-mask",), ("objective.network:two-layer-last", "objective.activation:min-max")])
def test_sparsepo_with_other_masks(command: Command, choice: tuple[str, ...]) -> None:
    done = command.prefer("run", "objective:sparsepo", *choice, *STEPS)
    assert done.code == 0, done.error
    assert command.lines("run")[-1]["loss"] < command.lines("run")[0]["loss"]
    assert (command.folder / "run/modules.safetensors").exists() is ("random" not in choice[0])


def test_mapo_makes_its_mask_once(command: Command) -> None:
    """Activations are cached, held-out answers have masks of their own, and a credit of weights contradicts them."""
    computed = []
    for run in ("first", "second"):
        done = command.prefer(run, "objective:mapo", *STEPS)
        assert done.code == 0, done.error
        computed.append(command.record(run)["beside_training"]["rows"])
    assert computed[0] > computed[1]
    assert command.lines("first") == command.lines("second")
    line = command.lines("first")[-1]
    assert 0.1 < line["credit/kept_chosen"] < 0.9
    assert line["kl/masked_rejected"] < line["kl/rejected"]
    evaluation = command.record("first")["evaluation"]
    assert evaluation["eval_kl/masked_rejected"]["mean"] < evaluation["eval_kl/rejected"]["mean"]
    refused = command.prefer("credit", "objective:mapo", "credit:asr", *STEPS)
    assert refused.code != 0
    assert "MaPO makes the token weights of its answers itself, and the credit makes others; drop the credit" in refused.error
    assert json.loads((command.folder / "second/run.json").read_text())["settings"]["objective"] == {"method": "mapo", "beta": 0.1}
