"""The speed benchmark counts what it says it counts; its smoke run (slow) needs no TRL."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.utilisation import Lengths, linear_shapes, useful_flops

from tests.tiny import MODELS

ROOT = Path(__file__).parents[2]


def counted(pair: Lengths, model: Any) -> dict[str, float]:
    """One forward pass token by token."""
    config = model.config
    matrices = sum(shape.outputs * shape.inputs * shape.count for shape in linear_shapes(model))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    found = {"backbone": 0.0, "head": 0.0, "attention": 0.0}
    prompt_paths = [range(position + 1) for position in range(pair.prompt)]
    answer_paths = [range(pair.prompt + position + 1) for length in pair[1:] for position in range(length)]
    for visible in prompt_paths + answer_paths:
        found["backbone"] += 2 * matrices
        for _ in visible:  # a product with the key and one with the value, in every head and layer
            found["attention"] += 2 * 2 * head_dim * config.num_attention_heads * config.num_hidden_layers
    for _ in answer_paths:
        found["head"] += 2 * config.hidden_size * config.vocab_size
    return found


def test_useful_flops_are_four_forward_passes_counted_token_by_token() -> None:
    model = MODELS["llama"]()
    pairs = [Lengths(5, 3, 4), Lengths(1, 2, 7)]
    found = useful_flops(pairs, model)
    for name, total in found.items():
        assert total == 4 * sum(counted(pair, model)[name] for pair in pairs)


def test_matrices_of_the_backbone_are_its_linear_layers_without_head_and_embedding() -> None:
    model = MODELS["llama"]()
    matrices = sum(shape.outputs * shape.inputs * shape.count for shape in linear_shapes(model))
    assert matrices == sum(parameter.numel() for name, parameter in model.named_parameters() if ".layers." in name and parameter.ndim == 2)


@pytest.mark.slow
def test_smoke_run_without_trl(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--quick", "--without-trl", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    (result,) = json.loads((tmp_path / "speed.json").read_text())
    assert {"processor", "flags", "cores"} <= set(result)
    assert [len(row["runs"]["finegrain"]) for row in result["rows"]] == [1, 1, 1, 1]
    for row in result["rows"]:
        (run,) = row["runs"]["finegrain"]
        assert run["engine"]["path"] == "fused"
        assert "reward" in row["name"] or 0 < row["utilisation"] < 1, "counted for preference training alone"
        assert len(run["losses"]) == len(run["step_seconds"]) == 2
    assert len(result["growth"]["prompt_tokens"]["points"]) == 2
