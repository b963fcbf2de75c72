"""Two processes with uneven work end where one ends: the loop by itself, and a whole run from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finegrain.cli import main
from tests.tiny import save_tiny, without_times, write_pairs
from tests.train.harness import OBJECTIVES, How, build, can_be_sharded, largest_difference, largest_metric_difference, train, weights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-7}


def launch(*arguments: str, cache: Path) -> str:
    """Two processes by torch's own launcher, which asserts nothing: the worker does. Returns stdout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FINEGRAIN_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "tests/train/process_worker.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-20000:]
    return done.stdout


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks found."""
    out = tmp_path_factory.mktemp("two")
    launch("split", str(out), cache=out / "cache")
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_end_where_one_ends(two: list[dict[str, Any]], name: str, dtype: torch.dtype) -> None:
    first, second = (rank[f"{name} {dtype}"] for rank in two)
    for key, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][key]), f"the ranks differ in {key}"
    assert first["lines"] == second["lines"]
    trainer, plan = build(OBJECTIVES[name](), How(dtype=dtype))
    lines = train(trainer, plan)
    assert largest_difference(first["weights"], weights(trainer)) <= TOLERANCE[dtype]
    assert largest_metric_difference(first["lines"], lines) <= TOLERANCE[dtype]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What sharded training found."""
    out = tmp_path_factory.mktemp("shards")
    launch("sharded", str(out), cache=out / "cache")
    found: dict[str, Any] = torch.load(out / "rank0.pt", weights_only=True)
    return found


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", [name for name, make in OBJECTIVES.items() if can_be_sharded(make())])
def test_sharded_training_ends_where_one_process_ends(shards: dict[str, Any], name: str, dtype: torch.dtype) -> None:
    trainer, plan = build(OBJECTIVES[name](), How(dtype=dtype))
    lines = train(trainer, plan)
    found = shards[f"{name} {dtype}"]
    assert largest_difference(found["weights"], weights(trainer)) <= TOLERANCE[dtype]
    assert largest_metric_difference(found["lines"], lines) <= TOLERANCE[dtype]


@pytest.mark.parametrize("arguments", [[], ["--lora.rank", "2"]], ids=["full", "lora"])
def test_a_sharded_run_exports_a_stock_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    model, data = save_tiny(tmp_path / "model"), write_pairs(tmp_path / "pairs.jsonl", 21)
    common = ["prefer", "--model", str(model), "--data", str(data), "objective:dpo", "credit:asr", "--batch-size", "5", "--micro-tokens", "60"]
    common += ["--device", "cpu", "--samples", "1", "--lr", "1e-3", *arguments]
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache-one"))
    assert main([*common, "--out", str(tmp_path / "one")]) == 0
    launch("command", *common, "--shard", "--out", str(tmp_path / "two"), cache=tmp_path / "cache-two")
    file = "adapter_model.safetensors" if arguments else "model.safetensors"
    one, two = (load_file(tmp_path / run / file) for run in ("one", "two"))
    assert largest_difference(one, two) <= 5e-6
    evaluations = [json.loads((tmp_path / run / "run.json").read_text())["evaluation"]["eval_margin"]["mean"] for run in ("one", "two")]
    assert evaluations[0] == pytest.approx(evaluations[1], abs=1e-4)


def test_the_whole_recipe_in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference shares, own scorer, checkpoints by the first rank only, one result line; weights and metrics of one process."""
    model, data = save_tiny(tmp_path / "model"), write_pairs(tmp_path / "pairs.jsonl", 22)
    common = ["prefer", "--model", str(model), "--data", str(data), "objective:dpo", "credit:asr", "--epochs", "2", "--batch-size", "4"]
    common += ["--save-every", "3", "--micro-tokens", "60", "--device", "cpu", "--samples", "1", "--lr", "1e-3"]
    common += ["--eval-every", "2", "--keep", "best", "--keep-by", "eval_rewards/chosen"]
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache-one"))
    assert main([*common, "--out", str(tmp_path / "one")]) == 0
    capsys.readouterr()
    stdout = launch("command", *common, "--out", str(tmp_path / "two"), cache=tmp_path / "cache-two")
    (result,) = [line for line in stdout.splitlines() if line.startswith("{")]
    assert json.loads(result)["status"] == "finished"
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    assert largest_difference(one, two) <= 5e-6
    lines = [[json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()] for run in ("one", "two")]
    stripped = [without_times(run) for run in lines]
    assert largest_metric_difference(*stripped) <= 2e-5
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["machine"]["processes"] == 2
    assert not list((tmp_path / "two").glob("*.part")) + list((tmp_path / "cache-two" / "reference").glob("*rank*"))
    assert [path.name for path in (tmp_path / "two").glob("checkpoint-*")] == [path.name for path in (tmp_path / "one").glob("checkpoint-*")]


BY_RANK = """
import os
def judge(prompts, completions, **columns):
    here = int(os.environ["RANK"])
    return [0.5 + 0.4 * (sum(map(ord, text)) % (5 + 2 * here) > 1 + here) for text in completions]
"""


def test_processes_draw_rows_by_the_first_ones_rewards(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    (tmp_path / "reward.py").write_text(BY_RANK)
    data, settings = write_pairs(tmp_path / "pairs.jsonl", 12), ["--batch-size", "2", "--device", "cpu", "--samples", "0", "--max-steps", "3"]
    objective = ["objective:alol", "objective.value:mean-reward", "--objective.reward", f"{tmp_path / 'reward.py'}:judge"]
    asked = ["sft", "--model", str(tmp_path / "model"), "--data", str(data), "--out", str(tmp_path / "run"), *settings, *objective]
    launch("command", *asked, cache=tmp_path / "cache")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished", "each by its own rewards would wait for the other for ever"
