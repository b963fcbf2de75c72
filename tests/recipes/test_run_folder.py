"""Where a run may write, and what it leaves alone there. Test of runs.py, files.py."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from finegrain.errors import CheckpointError
from finegrain.files import lock_folder
from finegrain.runs import RunDirectory
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.loop import Trainer
from tests.recipes.command import Command


def linked(folder: Path) -> Path:
    (folder / "target").mkdir()
    (folder / "out").symlink_to(folder / "target")
    return folder / "out"


def foreign(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("mine")
    return folder / "out"


def within(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "run.json").write_text("{}")
    (folder / "out" / "metrics.jsonl").symlink_to(folder / "elsewhere")
    return folder / "out"


@pytest.mark.parametrize(("make", "words"), [(linked, "is a link to"), (foreign, "thesis.tex"), (within, "holds links (metrics.jsonl)")])
def test_directories_that_no_run_may_take(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    out = make(tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=words.replace("(", r"\(").replace(")", r"\)")):
        RunDirectory(out).check({}, resume=True)
    assert before == sorted(str(path) for path in tmp_path.rglob("*"))


def test_out_is_nothing_that_the_run_reads(command: Command, tmp_path: Path) -> None:
    model, data = tmp_path / "model", tmp_path / "data"
    shutil.copytree(command.model, model)
    data.mkdir()
    shutil.copy(command.data, data / "pairs.jsonl")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for option, out in (
        ("model", model),
        ("data", data),
        ("data", data / "run"),
        ("data", data / "pairs.jsonl"),
        ("model", tmp_path / "." / "model"),
    ):
        done = command("prefer", "--model", model, "--data", data, "--out", out, "--device", "cpu")
        assert done.code == 7, done.error
        assert f"--{option} reads" in done.error
        assert "Traceback" not in done.error
    assert before == sorted(path.name for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("arguments", [["--out", ""], ["--out="], ["--model", "", "--out", "x"]])
def test_an_empty_name_is_no_name(command: Command, arguments: list[str]) -> None:
    done = command("prefer", "--model", command.model, "--data", command.data, *arguments)
    assert done.code == 2
    assert "is empty" in done.error


def test_one_run_at_a_time(command: Command, tmp_path: Path) -> None:
    (command.folder / "run").mkdir()
    with lock_folder(command.folder / "run"):
        done = command.prefer("run", "--max-steps", "1")
        assert done.code == 7
        assert "another process is writing" in done.error
    assert command.prefer("run", "--max-steps", "1").code == 0
    assert not list((command.folder / "run").glob(".*")), "no lock and no part is left"


def checkpoint(folder: Path, step: int, kind: str) -> None:
    """A folder named as a checkpoint: ours, another program's, a link or an unfinished one."""
    path = folder / f"checkpoint-{step}"
    if kind == "link":
        path.symlink_to(folder / "elsewhere")
        return
    path.mkdir()
    (path / ("training.json" if kind == "own" else "trainer_state.json")).write_text(json.dumps({"step": step}))


def test_only_own_checkpoints_are_pruned(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for step, kind in ((1, "own"), (2, "other"), (3, "own"), (4, "link"), (5, "other")):
        checkpoint(tmp_path, step, kind)
    for name in ("checkpoint-7.part", "checkpoint-best.part", "checkpoint-best"):
        (tmp_path / name).mkdir()
    Checkpoints(tmp_path).prune()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-2", "checkpoint-3", "checkpoint-4", "checkpoint-5", "checkpoint-best", "checkpoint-best.part", "elsewhere",
    ]  # fmt: skip


def test_another_programs_checkpoint_is_not_taken_for_ours(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5, "other")
    with pytest.raises(CheckpointError, match="no checkpoint of this program"):
        Checkpoints(tmp_path).save(Trainer.__new__(Trainer), 5, lambda folder: None)


@pytest.mark.parametrize("text", ["[]", '{"settings": 3}', '{"settings": {}, "data": [1]}', "\x00", "[" * 100_000])
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)

    def gone_on_with(directory: RunDirectory) -> None:
        directory.check({}, resume=True)
        directory.check_data({"sha256": "a"})

    with pytest.raises(CheckpointError, match=r"run\.json"):
        gone_on_with(RunDirectory(tmp_path))


@pytest.mark.parametrize("tail", [b'{"step": 3, "lo', b"3\n", b'{"loss": 1}\n', b"\xff\xfe\n", b"[" * 100_000])
def test_damaged_metrics_end_before_the_damage(tail: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
    directory = RunDirectory(tmp_path)
    assert [line["step"] for line in directory.metrics()] == [1, 2]
    directory.cut_steps(1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
