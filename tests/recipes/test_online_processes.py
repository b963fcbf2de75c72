"""Two processes gather what each of them sampled, measured and scored. Test of recipes/online.py, recipes/rollouts/buffer.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finegrain.cli import main
from tests.recipes.online_runs import COUNTS_E, write_reward
from tests.tiny import save_tiny, without_times, write_rows
from tests.train.harness import largest_difference, largest_metric_difference
from tests.train.test_distributed import launch

pytestmark = pytest.mark.slow

TOLERANCE = 1e-6
"""Stock norms round to float32 even in float64 runs, so sums in another order may differ by 1e-8."""


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Numbers of every update that the split may not change; a pass over several micro-batches computes a shared prompt again."""
    lines = without_times(json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "num_tokens"} for line in lines]


@pytest.mark.parametrize("algorithm", [["algorithm:ppo"], ["algorithm:ppo", "algorithm.critic:separate-critic"], ["algorithm:grpo", "leash:in-loss"]])
def test_two_processes_sample_and_learn_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: list[str]) -> None:
    """In float64 whole runs have the same tokens, since logits agree to the last bits that decide a draw."""
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    model = save_tiny(tmp_path / "model")
    data = write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"why {'so ' * (place % 3)}{place} ?"} for place in range(10)])
    arguments = ["online", "--model", str(model), "--data", str(data), "--reward", write_reward(tmp_path, COUNTS_E), *algorithm, "--device", "cpu"]
    arguments += [
        "--dtype",
        "float64",
        "--samples",
        "1",
        "--prompts",
        "3",
        "--holdout",
        "0.2",
        "--lr",
        "1e-3",
        "--max-length",
        "48",
        "--max-steps",
        "6",
    ]
    arguments += ["--sampling.answers", "3", "--sampling.max-new-tokens", "6", "--eval-every", "1"]
    launch("command", *arguments, "--out", str(tmp_path / "two"), cache=tmp_path / "cache")
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "rollouts.jsonl").read_text() == (two / "rollouts.jsonl").read_text()
    assert largest_metric_difference(lines_of(one), lines_of(two)) < TOLERANCE
    assert largest_difference(load_file(one / "model.safetensors"), load_file(two / "model.safetensors")) < TOLERANCE


def test_one_and_many_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    model = save_tiny(tmp_path / "model")
    data = write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"why {'so ' * (place % 3)}{place} ?"} for place in range(10)])
    arguments = [
        "online",
        "--model",
        str(model),
        "--data",
        str(data),
        "--reward",
        write_reward(tmp_path, COUNTS_E),
        "algorithm:ppo",
        "--device",
        "cpu",
    ]
    arguments += [
        "--dtype",
        "float64",
        "--samples",
        "0",
        "--prompts",
        "3",
        "--holdout",
        "0",
        "--lr",
        "1e-3",
        "--max-length",
        "48",
        "--max-steps",
        "6",
    ]
    arguments += ["--sampling.answers", "3", "--sampling.max-new-tokens", "6"]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "many"), "--micro-tokens", "20"]) == 0
    assert largest_metric_difference(lines_of(tmp_path / "one"), lines_of(tmp_path / "many")) < TOLERANCE
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "many")]
    assert largest_difference(*weights) < TOLERANCE
