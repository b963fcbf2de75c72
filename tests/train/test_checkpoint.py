"""A resumed run is the uninterrupted one, bit for bit, whatever the step and however it was stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finegrain.errors import CheckpointError, Interrupted
from finegrain.objectives.ava_p import AvaP
from finegrain.objectives.dpo import DPO
from finegrain.runs import RunDirectory
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.loop import run_step
from finegrain.train.run import Recorder, train
from tests.tiny import without_times
from tests.train.awkward import Gated, UnitGradients
from tests.train.harness import How, build, weights

ROOT = Path(__file__).parents[2]
STEPS = 9


def recorder(folder: Path, *, keep: int = 1, save_every: int = 1) -> Recorder:
    return Recorder(RunDirectory(folder), Checkpoints(folder, keep), lambda path: None, save_every)


def short_plan(plan: Any) -> Any:
    return replace(plan, max_steps=STEPS)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return without_times([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])


@pytest.mark.parametrize("objective", [DPO(), Gated(), UnitGradients(), AvaP()], ids=lambda objective: type(objective).__name__)
def test_resume_at_every_step_is_bit_identical(objective: Any, tmp_path: Path) -> None:
    """Weights, optimiser, a method's module and its table; metrics.jsonl without gap or repeat."""
    whole = tmp_path / "whole"
    whole.mkdir()
    trainer, plan = build(objective, How(micro_tokens=60))
    train(trainer, short_plan(plan), recorder(whole, keep=STEPS), resume=False)
    want = weights(trainer)
    lines = lines_of(whole)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for offset in range(1, STEPS) if isinstance(objective, Gated) else (1, 5, 8):  # the end of an epoch, and the last but one
        part = tmp_path / f"resumed-{offset}"
        part.mkdir()
        shutil.copytree(whole / f"checkpoint-{offset}", part / f"checkpoint-{offset}")
        written = (whole / "metrics.jsonl").read_text()
        (part / "metrics.jsonl").write_text(written[: len(written) * 9 // 10])  # later lines, the last one half-written
        torch.manual_seed(offset)
        again, plan = build(objective, How(micro_tokens=60))
        found = train(again, short_plan(plan), recorder(part), resume=True)
        got = weights(again)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[name], want[name]) for name in want), offset
        assert lines_of(part) == lines == without_times(found)


def test_resume_without_a_checkpoint_starts_at_the_beginning(tmp_path: Path) -> None:
    trainer, plan = build(DPO(), How())
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "lo')
    train(trainer, short_plan(plan), recorder(tmp_path, save_every=0), resume=True)
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, STEPS + 1))
    assert not list(tmp_path.glob("checkpoint-*"))


def cut(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def told(folder: Path, **parts: Any) -> None:
    record = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**record, **parts}))


def without(folder: Path, tensor: str) -> None:
    tensors = load_file(folder / "training.safetensors")
    save_file({name: value for name, value in tensors.items() if not name.startswith(tensor)}, folder / "training.safetensors")


def reshaped(folder: Path) -> None:
    tensors = load_file(folder / "training.safetensors")
    save_file({name: value[:1] if name.startswith("weight/") else value for name, value in tensors.items()}, folder / "training.safetensors")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "half the tensors": lambda folder: cut(folder / "training.safetensors", 0.5),
    "no tensors": lambda folder: cut(folder / "training.safetensors", 0.0),
    "no file of tensors": lambda folder: (folder / "training.safetensors").unlink(),
    "half the record": lambda folder: cut(folder / "training.json", 0.5),
    "a list": lambda folder: (folder / "training.json").write_text("[]") and None,
    "another step": lambda folder: told(folder, step=7),
    "no number": lambda folder: told(folder, step=None),
    "numbers are text": lambda folder: told(folder, numbers="x"),
    "no numbers": lambda folder: told(folder, numbers={}),
    "selection is a list": lambda folder: told(folder, selection=[1]),
    "no moments": lambda folder: without(folder, "optimizer/exp_avg/"),
    "no random state": lambda folder: without(folder, "random/"),
    "no table": lambda folder: without(folder, "table/"),
    "a weight less": lambda folder: without(folder, "weight/module"),
    "other shapes": reshaped,
}


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    trainer, plan = build(Gated(), How())
    (tmp_path / "run").mkdir()
    train(trainer, replace(plan, max_steps=3), recorder(tmp_path / "run"), resume=False)
    for name, damage in DAMAGE.items():
        folder = tmp_path / name
        shutil.copytree(tmp_path / "run", folder)
        damage(folder / "checkpoint-2")
        try:
            Checkpoints(folder).restore(trainer)
        except CheckpointError:
            continue
        pytest.fail(f"{name} was taken for whole")


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """Without its moments, or with another table, the resumed run is seen to differ."""
    trainer, plan = build(Gated(), How())
    train(trainer, short_plan(plan), recorder(tmp_path, keep=STEPS), resume=False)
    for spoil in ("moments", "table"):
        again, plan = build(Gated(), How())
        done = Checkpoints(tmp_path / "nowhere").restore(again)
        assert done == 0
        folder = tmp_path / spoil
        shutil.copytree(tmp_path / "checkpoint-4", folder / "checkpoint-4")
        assert Checkpoints(folder).restore(again) == 4
        if spoil == "moments":
            again.optimizer.state.clear()
        else:
            again.state["margin"] = again.state["margin"] + 1
        for index in range(4, STEPS):
            run_step(again, short_plan(plan).step(index))
        assert not torch.equal(weights(again)["gate.out.weight"], weights(trainer)["gate.out.weight"])


def test_only_the_newest_checkpoint_stays_and_unfinished_ones_go(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3.part").mkdir()
    (tmp_path / "checkpoint-3.part" / "training.safetensors").write_bytes(b"half")
    trainer, plan = build(DPO(), How())
    train(trainer, short_plan(plan), recorder(tmp_path, save_every=3), resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-6", "metrics.jsonl"]


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path: Path) -> None:
    trainer, plan = build(Gated(), How())
    train(trainer, short_plan(plan), recorder(tmp_path), resume=False)
    other, plan = build(DPO(), How())
    with pytest.raises(CheckpointError, match="other parameters"):
        train(other, short_plan(plan), recorder(tmp_path), resume=True)


def test_a_spoilt_checkpoint_is_named(tmp_path: Path) -> None:
    trainer, plan = build(DPO(), How())
    train(trainer, short_plan(plan), recorder(tmp_path), resume=False)
    (file,) = tmp_path.glob("checkpoint-*/training.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    again, plan = build(DPO(), How())
    with pytest.raises(CheckpointError, match=r"cannot read .*checkpoint-8"):
        train(again, short_plan(plan), recorder(tmp_path), resume=True)


def test_an_interrupt_ends_after_the_step_and_saves_it(tmp_path: Path) -> None:
    trainer, plan = build(Gated(), How())
    plan = short_plan(plan)
    whole, _ = build(Gated(), How())
    (tmp_path / "none").mkdir()
    train(whole, plan, recorder(tmp_path / "none", save_every=0), resume=False)
    stopping = recorder(tmp_path, save_every=0)
    stopping.watchers.append(lambda line: os.kill(os.getpid(), signal.SIGINT) if line["step"] == 5 else None)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"after step 5 of 9.*--resume"):
        train(trainer, plan, stopping, resume=False)
    assert signal.getsignal(signal.SIGINT) is before
    again, _ = build(Gated(), How())
    train(again, plan, recorder(tmp_path, save_every=0), resume=True)
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(again).items())
    assert lines_of(tmp_path) == lines_of(tmp_path / "none")


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """kill -9 at random steps and in the set-up; three while a checkpoint is written, one between rename and prune."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "tests/train/kill_driver.py", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    output = tmp_path / "output.txt"
    assert done.returncode == 0, done.stderr[-2000:] + (output.read_text()[-2000:] if output.exists() else "")
    kills = json.loads(done.stdout.splitlines()[-1])["kills"]
    assert all(one["killed"] for one in kills)
    assert Counter(one["kind"] for one in kills) == {"steps": 12, "anywhere": 4, "slow_write": 3, "slow_prune": 1}
    for one in kills:
        if one["kind"] == "slow_write":
            (part,) = one["parts"]
            assert one["bytes"][part] < 0.6 * max(one["bytes"].values())
        if one["kind"] == "slow_prune":
            assert len(one["checkpoints"]) == 2
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    assert lines_of(whole) == lines_of(killed)
    assert [line["step"] for line in lines_of(killed)] == list(range(1, len(lines_of(killed)) + 1))
