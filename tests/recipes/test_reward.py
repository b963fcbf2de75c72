"""`finegrain reward` end to end on a tiny model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import finegrain
from finegrain.models.reward_models import load_reward_model
from finegrain.rewards.gaussian import Gaussian
from tests.recipes.command import Command, made_once
from tests.tiny import save_tiny


def reward(command: Command, run: str, *arguments: str | Path) -> Any:
    return command.prefer(run, "--max-length", "64", *arguments, command="reward")


@pytest.mark.parametrize(
    ("head", "loader", "rows"),
    [
        ("sequence", AutoModelForSequenceClassification, 1),
        ("token", AutoModelForTokenClassification, 1),
        ("gaussian", AutoModelForSequenceClassification, 2),
        ("ensemble", AutoModelForSequenceClassification, 5),
    ],
)
def test_a_head_learns_and_loads_stock(command: Command, head: str, loader: Any, rows: int) -> None:
    outcome = reward(command, "run", f"head:{head}", "--epochs", "6", "--lr", "0.003", "--holdout", "0.25")
    assert outcome.code == 0, outcome.error
    lines = command.lines("run")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"], "good against bad words is easy"
    assert lines[-1]["rewards/accuracies"] > 0.9
    evaluation = outcome.result["evaluation"]
    assert evaluation["eval_accuracy"]["mean"] > 0.6
    assert evaluation["eval_accuracy"]["low"] < evaluation["eval_accuracy"]["mean"]
    assert set(evaluation) >= {"eval_accuracy_length_only", "eval_ece", "eval_nll"}
    run = command.folder / "run"
    assert load_file(run / "reward_head.safetensors")["weight"].shape == (rows, 32)
    record = command.record("run")
    assert record["settings"]["head"]["method"] == json.loads((run / "reward_head.json").read_text())["head"]["method"] == head
    assert "rewards/std_chosen" in lines[-1] or head in ("sequence", "token")
    stock = loader.from_pretrained(run).eval()
    tokenizer = AutoTokenizer.from_pretrained(run)
    scores = [score(stock, tokenizer, text) for text in ("why a ? good people said yes", "why a ? bad words")]
    assert scores[0] > scores[1]
    assert loader.__name__ in (run / "README.md").read_text()


def score(stock: Any, tokenizer: Any, text: str) -> float:
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = stock(input_ids=torch.tensor([ids])).logits[0]
    return float(logits.mean())


def test_again_is_the_same_model(command: Command) -> None:
    assert reward(command, "one", "head:token", "head.readout:sum", "--max-steps", "3").code == 0
    again = command("again", command.folder / "one/run.json", "--out", command.folder / "two")
    assert again.code == 0, again.error
    one, two = (load_file(command.folder / run / "model.safetensors") for run in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert command.lines("one") == command.lines("two")
    assert command.record("two")["settings"]["head"]["readout"] == {"choice": "sum"}


def test_killed_and_resumed_is_the_same_run(command: Command) -> None:
    assert reward(command, "cut", "head:ensemble", "--max-steps", "4", "--save-every", "2").code == 0
    shutil.copytree(command.folder / "cut", command.folder / "whole")
    checkpoint = command.folder / "cut/checkpoint-2"
    assert checkpoint.exists()
    AutoModelForSequenceClassification.from_pretrained(checkpoint)
    for name in ("model.safetensors", "reward_head.safetensors"):
        (command.folder / "cut" / name).unlink()
    resumed = reward(command, "cut", "head:ensemble", "--max-steps", "4", "--save-every", "2", "--resume")
    assert resumed.code == 0, resumed.error
    one, two = (load_file(command.folder / run / "reward_head.safetensors") for run in ("whole", "cut"))
    assert torch.equal(one["weight"], two["weight"])
    assert command.lines("whole") == command.lines("cut")


def test_lora_trains_the_head_whole_and_saves_stock(command: Command) -> None:
    outcome = reward(command, "run", "head:sequence", "--lora.rank", "2", "--epochs", "4", "--lr", "0.01")
    assert outcome.code == 0, outcome.error
    run = command.folder / "run"
    base = load_file(command.model / "model.safetensors")
    merged = load_file(run / "model.safetensors")
    name = next(name for name in merged if "q_proj" in name)
    assert not torch.equal(base[name], merged[name]), "the adapter is merged"
    stock = AutoModelForSequenceClassification.from_pretrained(run)
    assert torch.equal(stock.score.weight.detach(), load_file(run / "reward_head.safetensors")["weight"])
    loaded = load_reward_model(run)
    assert loaded.head.weight.abs().max() > 1 / 33 * 0.1


def test_from_python(command: Command) -> None:
    common = finegrain.Common(max_steps=1, device="cpu")
    result = finegrain.train_reward_model(command.model, command.data, command.folder / "run", head=Gaussian(), common=common)
    assert result["status"] == "finished"


def rows(command: Command, change: dict[str, Any]) -> Path:
    """The pairs with more columns, half of them changed."""
    file = command.folder / "columns.jsonl"
    with file.open("w") as stream:
        for place, line in enumerate(command.data.read_text().splitlines()):
            values = {name: value(place) if callable(value) else value for name, value in change.items()}
            stream.write(json.dumps({**json.loads(line), **values}) + "\n")
    return file


STEPS = ("head:sequence", "--max-length", "64", "--max-steps", "2", "--lr", "0.01")


@pytest.fixture(scope="module")
def plain(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The last loss of a run on the pairs as they are."""
    run = made_once(tmp_path_factory.mktemp("plain"), "reward", *STEPS, "--model", model, "--data", data)
    return float(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["loss"])


@pytest.mark.parametrize(
    "change",
    [
        {"margin": 1.5},
        {"label_prob": 0.7},
        {"flip": lambda place: place % 2},
        {"tie": lambda place: place % 3 == 0},
        {"weight": lambda place: 1.0 + place},
    ],
    ids=lambda change: next(iter(change)),
)
def test_columns_are_read(command: Command, plain: float, change: dict[str, Any]) -> None:
    assert reward(command, "other", *STEPS, "--data", rows(command, change)).code == 0
    assert not np.isclose(plain, command.lines("other")[-1]["loss"], rtol=1e-6)


def test_bad_input(command: Command, tmp_path: Path) -> None:
    unknown = reward(command, "run", "head:tokens")
    assert unknown.code == 2
    assert "token" in unknown.error
    assert reward(command, "run", "head:sequence", "credit:asr").code == 2
    from tests.tiny import MODELS

    save_tiny(tmp_path / "granite", MODELS["granite, scaled logits"]())
    refused = reward(command, "run", "--model", tmp_path / "granite")
    assert refused.code == 4
    assert not (command.folder / "run").exists()
    assert reward(command, "run", "head:ensemble", "--head.members", "1").code == 2
    rateless = reward(command, "run", "head:sequence", "--optim.algorithm", "sgd")
    assert rateless.code == 2
    assert "--lr" in rateless.error
    rated = ("head:rating", "--head.classes", "3", "--head.lowest", "0", "loss:rating-labels", "--loss.attribute", "quality")
    unheld = reward(command, "run", *rated, "--holdout", "0", "--loss.calibrate")
    assert unheld.code == 2
    assert "fits a temperature on held-out rows, and --holdout 0 leaves none" in unheld.error
    assert not (command.folder / "run").exists()
