"""Scores of tokens: what stands in the file, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.recipes.command import Command


@pytest.fixture
def policy(model: Path, tmp_path: Path) -> Path:
    """The tiny model, moved a little."""
    lm = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in lm.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    folder = tmp_path / "policy"
    lm.save_pretrained(folder)
    for file in model.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_scores(command: Command, policy: Path, model: Path) -> None:
    """Two lines per pair; token means add up to the score; tokens cover the response in order; the scale is beta."""
    lines = {}
    for beta in ("0.1", "0.2"):
        out = command.folder / f"{beta}.jsonl"
        asked = ["--model", policy, "--reference", model, "--data", command.data, "--out", out, "--beta", beta, "--device", "cpu"]
        done = command("score", *asked)
        assert done.code == 0, done.error
        lines[beta] = [json.loads(line) for line in out.read_text().splitlines()]
        assert done.result["responses"] == len(lines[beta]) == 48
    assert [line["id"] for line in lines["0.1"][:2]] == ["0/chosen", "0/rejected"]
    for line, double in zip(lines["0.1"], lines["0.2"], strict=True):
        assert line["score"] == {"mean": pytest.approx(sum(token[2] for token in line["tokens"]), rel=1e-12), "std": None}
        assert line["score"]["mean"] != 0
        assert double["score"]["mean"] == pytest.approx(2 * line["score"]["mean"], rel=1e-12)
        assert not line["truncated"]
        assert "".join(line["response"][start:end] for start, end, _, _ in line["tokens"]).split() == line["response"].split()
        assert line["segments"][-1][1] == len(line["response"])
    again = command("score", "--model", policy, "--reference", model, "--data", command.data, "--out", command.folder / "0.1.jsonl")
    assert again.code == 7
    assert "there already" in again.error


def test_the_same_model_scores_zero(command: Command, model: Path) -> None:
    out = command.folder / "zero.jsonl"
    done = command("score", "--model", model, "--reference", model, "--data", command.data, "--out", out, "--device", "cpu", "--limit", "2")
    assert done.code == 0, done.error
    assert "the same model" in done.error
    assert {json.loads(line)["score"]["mean"] for line in out.read_text().splitlines()} == {0.0}


def test_a_bad_beta(command: Command, model: Path) -> None:
    done = command("score", "--model", model, "--reference", model, "--data", command.data, "--out", command.folder / "x.jsonl", "--beta", "0")
    assert done.code == 2
    assert "--beta" in done.error
