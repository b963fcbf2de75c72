"""`finegrain reward` with heads and losses of segments, steps, ratings and edits, end to end on a tiny model.

Test of recipes/training/reward_artifact.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from finegrain.ops.proportions import wilson
from tests.recipes.command import Command
from tests.recipes.test_posterior import ready
from tests.tiny import write_rows


def reward(command: Command, run: str, *arguments: str | Path) -> Any:
    return command.prefer(run, "--max-length", "64", "--examined", "4", *arguments, command="reward")


def facts(command: Command, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((command.folder / run / "reward_head.json").read_text())
    return found


@pytest.mark.parametrize("choice", [["--head.segmenter.cutoff", "3.6"], ["head.segmenter:windows", "--head.segmenter.size", "3"]])
def test_segments_learn(command: Command, choice: list[str]) -> None:
    outcome = reward(command, "run", "head:segment", *choice, "--epochs", "4", "--lr", "0.01", "--holdout", "0.25")
    assert outcome.code == 0, outcome.error
    lines = command.lines("run")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert outcome.result["evaluation"]["eval_accuracy"]["mean"] > 0.6
    AutoModelForTokenClassification.from_pretrained(command.folder / "run")
    assert facts(command, "run")["location"].keys() == {"mean_slope", "std_slope", "mean_at_end", "std_at_end", "floor"}


def test_entropies_are_cached_and_a_second_run_is_the_same(command: Command, cache: Path) -> None:
    settings = ["head:segment", "--head.segmenter.cutoff", "3.6", "--max-steps", "2"]
    assert reward(command, "one", *settings).code == 0
    assert list((cache / "entropy").glob("*.safetensors"))
    assert reward(command, "two", *settings).code == 0
    assert any("entropy: read from the cache" in note for note in command.record("two")["beside_training"]["notes"])
    assert command.lines("one") == command.lines("two")
    one, two = (load_file(command.folder / run / "reward_head.safetensors")["weight"] for run in ("one", "two"))
    assert bool((one == two).all())


def test_a_vocabulary_head_of_its_own_weights_changes_nothing_and_is_not_trained(command: Command) -> None:
    """Entropies are read from it before training, which goes on without it: the same steps as where it shares the embeddings."""
    model, untied = AutoModelForCausalLM.from_pretrained(command.model), command.folder / "untied"
    assert model.config.tie_word_embeddings
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(untied)
    AutoTokenizer.from_pretrained(command.model).save_pretrained(untied)
    settings = ["head:segment", "--head.segmenter.cutoff", "3.6", "--max-steps", "3", "--lr", "0.01"]
    tied = reward(command, "tied", *settings)
    own = reward(command, "own", "--model", untied, *settings, "--save-every", "1")
    assert (tied.code, own.code) == (0, 0), own.error
    times = {"step_seconds", "tokens_per_second"}
    lines = [[{name: value for name, value in line.items() if name not in times} for line in command.lines(run)] for run in ("tied", "own")]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_the_cutoff_changes_what_is_learnt(command: Command) -> None:
    """A cut-off above every entropy leaves one segment; below every entropy, each token is one."""
    for run, cutoff in (("whole", "100"), ("tokens", "0")):
        outcome = reward(command, run, "head:segment", "--head.segmenter.cutoff", cutoff, "--max-steps", "2", "--lr", "0.01")
        assert outcome.code == 0, outcome.error
    assert not np.isclose(command.lines("whole")[-1]["loss"], command.lines("tokens")[-1]["loss"], rtol=1e-6)
    assert "location" not in facts(command, "whole"), "one place does not determine a line"


def stepwise(command: Command, label: Any = None) -> Path:
    """Steps that say good are right, steps that say bad are wrong."""
    rng = np.random.default_rng(0)
    rows = []
    for place in range(24):
        right = rng.random(rng.integers(1, 5)) < 0.6
        steps = ["good people said yes" if one else "bad words" for one in right]
        rows.append({"prompt": f"why {place} ?", "completions": steps, "labels": [bool(one) if label is None else label for one in right]})
    return write_rows(command.folder / "steps.jsonl", rows)


@pytest.mark.parametrize("supervision", [[], ["loss.supervision:until-first-error"]])
def test_steps_learn(command: Command, supervision: list[str]) -> None:
    data = stepwise(command)
    short = ["--epochs", "4", "--lr", "0.01", "--holdout", "0.3"]
    outcome = reward(command, "run", "head:step", "loss:step-labels", *supervision, "--data", data, *short)
    assert outcome.code == 0, outcome.error
    lines = command.lines("run")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    found = outcome.result["evaluation"]
    assert found["eval_step_accuracy"]["mean"] > max(0.8, found["eval_step_always_right"]["mean"])
    assert found["eval_step_accuracy"]["rows"] > 2
    assert command.record("run")["labelled_steps"]["cut_or_without_a_token"] == 0
    AutoModelForTokenClassification.from_pretrained(command.folder / "run")


def test_steps_that_are_cut_are_counted(command: Command) -> None:
    data = stepwise(command)
    outcome = reward(command, "run", "head:step", "loss:step-labels", "--data", data, "--max-length", "18", "--max-steps", "1")
    assert outcome.code == 0, outcome.error
    steps = command.record("run")["labelled_steps"]
    assert 0 < steps["cut_or_without_a_token"] < steps["read"]


def test_pairs_have_no_steps(command: Command) -> None:
    outcome = reward(command, "run", "head:step", "--max-steps", "1")
    assert outcome.code != 0
    assert "labelled step" in outcome.error
    wrong = reward(command, "other", "loss:step-labels", "--max-steps", "1")
    assert wrong.code == 2
    assert "Step head" in wrong.error


def rated(command: Command, lowest: int = 0) -> Path:
    """Answers of good words have the highest rating of three, of bad words the lowest."""
    words = ["bad words", "good words", "good people said yes"]
    rows = [
        {"prompt": f"why {place} ?", "response": f" {words[place % 3]}", "ratings": {"quality": lowest + place % 3, "noise": lowest}}
        for place in range(24)
    ]
    return write_rows(command.folder / "rated.jsonl", rows)


def test_ratings_learn(command: Command) -> None:
    scale = ["--head.classes", "3", "--head.lowest", "0", "--loss.attribute", "quality", "loss.weighting:balanced", "loss.target:ordinal-target"]
    scale.append("--loss.calibrate")
    outcome = reward(
        command, "run", "head:rating", "loss:rating-labels", *scale, "--data", rated(command), "--epochs", "5", "--lr", "0.01", "--holdout", "0.25"
    )
    assert outcome.code == 0, outcome.error
    found = outcome.result["evaluation"]
    assert found["eval_rating_error"]["mean"] < found["eval_rating_error_of_median"]["mean"]
    exact = found["eval_rating_exact"]
    right = round(exact["mean"] * exact["rows"])
    share = wilson([1.0] * right + [0.0] * (exact["rows"] - right))
    assert [exact["low"], exact["high"]] == pytest.approx([share.low, share.high]), "inside [0, 1] however few rows"
    temperature = facts(command, "run")["head"]["temperature"]
    assert 0 < temperature != 1, "fitted on the held-out rows"
    run = command.folder / "run"
    assert load_file(run / "reward_head.safetensors")["weight"].shape == (3, 32)
    stock = AutoModelForSequenceClassification.from_pretrained(run)
    assert stock.config.num_labels == 3


SCALE = ("--head.classes", "3", "--head.lowest", "0", "--loss.attribute", "quality")


@pytest.mark.slow
def test_a_rating_head_is_trained_again_on_a_trained_one(command: Command) -> None:
    """Stage 2 of lort: backbone bit for bit, the head from where stage 1 left it, towards another target."""
    data = ("--data", rated(command), "--lr", "0.01", "--holdout", "0.25")
    one = reward(command, "one", "head:rating", "loss:rating-labels", *SCALE, *data, "--epochs", "3")
    assert one.code == 0, one.error
    towards = ("loss.target:odds-target", "loss.weighting:balanced")
    again = ("head:rating", "loss:rating-labels", *towards, *SCALE, *data, "--model", command.folder / "one")
    two = reward(command, "two", *again, "--frozen", "--epochs", "3")
    assert two.code == 0, two.error
    still = reward(command, "still", *again, "--frozen", "--max-steps", "1", "--lr", "0")
    assert still.code == 0, still.error
    weights = {run: load_file(command.folder / run / "model.safetensors") for run in ("one", "two", "still")}
    heads = {run: load_file(command.folder / run / "reward_head.safetensors")["weight"] for run in weights}
    assert all(torch.equal(weights["one"][name], weights["two"][name]) for name in weights["one"] if "score" not in name)
    assert torch.equal(heads["still"], heads["one"]), "a rate of 0 leaves it where it began"
    assert not torch.allclose(heads["two"], heads["one"], atol=1e-4)
    assert command.record("two")["start_head"] == "trained"
    lines = command.lines("two")
    assert lines[-1]["loss"] < lines[0]["loss"]
    sgd = reward(command, "sgd", *again, "--frozen", "--epochs", "2", "--optim.algorithm", "sgd", "--optim.schedule", "cosine")
    assert sgd.code == 0, sgd.error
    moved = load_file(command.folder / "sgd/reward_head.safetensors")["weight"]
    assert not torch.equal(moved, heads["one"])


@pytest.mark.slow
def test_a_temperature_undoes_a_flat_target(command: Command) -> None:
    """Expected ratings of a flat target lie in the middle; the fitted temperature stands in the checkpoint, and scores are read with it."""
    data = ("--data", rated(command), "--lr", "0.01", "--holdout", "0.25", "--epochs", "5")
    flat = ("head:rating", "loss:rating-labels", "loss.target:odds-target", "--loss.target.odds", "1.5", *SCALE, *data)
    errors, spreads = {}, {}
    for name, more in {"plain": (), "calibrated": ("--loss.calibrate",)}.items():
        outcome = reward(command, name, *flat, *more)
        assert outcome.code == 0, outcome.error
        found = outcome.result["evaluation"]
        errors[name] = found["eval_rating_error"]["mean"]
        assert found["eval_rating_balanced_accuracy"]["rows"] == found["eval_rating_error"]["rows"]
        assert {"eval_rating_exact/0", "eval_rating_error_of_class/0", "eval_rating_magnitude/0", "eval_rating_relative_std/0"} <= set(found)
        assert found["eval_rating_exact_of_few"]["mean"] == pytest.approx(found["eval_rating_balanced_accuracy"]["mean"]), "24 rows, three ratings"
        assert not {"eval_rating_exact_of_many", "eval_rating_exact_of_medium"} & set(found)
        scores = command.folder / f"{name}.jsonl"
        assert command("score", "--model", str(command.folder / name), "--data", str(rated(command)), "--out", str(scores)).code == 0
        spreads[name] = np.std([json.loads(line)["score"]["mean"] for line in scores.read_text().splitlines()])
    assert errors["calibrated"] < errors["plain"]
    assert spreads["calibrated"] > 1.2 * spreads["plain"]
    facts = json.loads((command.folder / "calibrated/reward_head.json").read_text())
    assert facts["head"]["temperature"] < 1


def test_another_head_on_a_trained_backbone_begins_afresh(command: Command) -> None:
    ready(command, "one", "head:sequence", "--max-steps", "6")
    two = reward(command, "two", "head:ensemble", "--frozen", "--max-steps", "2", "--model", command.folder / "one")
    assert two.code == 0, two.error
    assert command.record("two")["start_head"] == "fresh"


def test_ratings_off_the_scale_stop_the_run(command: Command) -> None:
    outcome = reward(command, "run", "head:rating", "loss:rating-labels", "--loss.attribute", "quality", "--data", rated(command), "--max-steps", "1")
    assert outcome.code != 0
    assert "scale 1 .. 5" in outcome.error
    assert not (command.folder / "run/model.safetensors").exists()


def edits(command: Command) -> Path:
    """One word of the answer is changed from bad to good, somewhere; every fifth pair is a rewrite."""
    rng = np.random.default_rng(0)
    rows = []
    for place in range(24):
        words = rng.choice(["people", "words", "yes", "said"], 6).tolist()
        at = int(rng.integers(6))
        better = ["some", "other", "answer"] if place % 5 == 4 else [*words[:at], "good", *words[at + 1 :]]
        worse = [*words[:at], "bad", *words[at + 1 :]]
        rows.append({"prompt": f"why {place} ?", "chosen": " " + " ".join(better), "rejected": " " + " ".join(worse)})
    return write_rows(command.folder / "edits.jsonl", rows)


def test_edits_learn(command: Command) -> None:
    short = ["--epochs", "5", "--lr", "0.01", "--holdout", "0.25", "--loss.most-changed", "0.4"]
    outcome = reward(command, "run", "head:token", "loss:fine-grained", "--data", edits(command), *short)
    assert outcome.code == 0, outcome.error
    lines = command.lines("run")
    assert lines[-1]["loss/edits"] < 0.5 * lines[0]["loss/edits"]
    seen = command.record("run")["edits"]
    assert seen["pairs"] == 24
    assert 0 < seen["rewrites_left_out"] < 8
    found = command.record("run")["evaluation"]
    for name in ("edits_in_order", "removed_auroc", "added_auroc"):
        assert found[f"eval_{name}"]["mean"] > 0.8, "the word that was changed is found in held-out answers"
        assert found[f"eval_{name}"]["rows"] < 6, "rewrites say nothing"


def test_pairs_that_are_no_edits_are_refused_in_words(command: Command) -> None:
    outcome = reward(command, "run", "head:token", "loss:fine-grained", "--loss.most-changed", "0.1", "--max-steps", "1")
    assert outcome.code != 0
    assert "no pair is a small edit" in outcome.error
