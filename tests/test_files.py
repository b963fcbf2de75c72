"""Whole files and held folders: no half of anything under its name, no second writer, nothing left of a dead one."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finegrain import files
from finegrain.errors import CheckpointError
from finegrain.files import LOCK, lock_folder, new_folder, replace_file, write_new
from finegrain.runs import check_free

HOLD = """
import sys, time
from pathlib import Path
from finegrain.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("code", [None, errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_new_files_with_and_without_hard_links(code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        assert code is not None
        raise OSError(code, os.strerror(code))

    if code is not None:
        monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "scores.jsonl"
    write_new(file, ["a\n", "\ud800\n"])
    assert file.read_text() == "a\n\\ud800\n"
    with pytest.raises(CheckpointError, match="already exists"):
        write_new(file, ["b"])
    assert file.read_text() == "a\n\\ud800\n"
    assert os.listdir(tmp_path) == ["scores.jsonl"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts() -> Iterator[str]:
        yield "half"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        write_new(tmp_path / "a", parts())

    def full(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(CheckpointError, match="Input/output"):
        write_new(tmp_path / "b", ["whole"])
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / f".a{files.PART}").write_text("of a process that was killed, and longer than the new text")
    (tmp_path / f".b{files.PART}").symlink_to(tmp_path / "elsewhere")
    write_new(tmp_path / "a", ["new"])
    write_new(tmp_path / "b", ["new"])
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "new"


def test_two_writers_of_one_name(tmp_path: Path) -> None:
    def parts() -> Iterator[str]:
        yield "first"
        with pytest.raises(CheckpointError, match="another process is writing"):
            write_new(tmp_path / "a", ["second"])

    write_new(tmp_path / "a", parts())
    assert (tmp_path / "a").read_text() == "first"


def test_replace_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.json"
    replace_file(file, "one")
    replace_file(file, "two")
    assert file.read_text() == "two"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(file, "three")
    assert file.read_text() == "two"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_held_folder_has_one_writer(tmp_path: Path) -> None:
    (tmp_path / f".run.json.123{files.PART}").write_text("half")
    with lock_folder(tmp_path):
        assert os.listdir(tmp_path) == [LOCK], "what a killed process left is gone"
        with pytest.raises(CheckpointError, match="another process is writing"), lock_folder(tmp_path):
            raise AssertionError("never held twice")
    assert os.listdir(tmp_path) == []
    with lock_folder(tmp_path):
        pass


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="another process is writing"), lock_folder(tmp_path):
            raise AssertionError("never held twice")
        other.send_signal(signal.SIGKILL)
    assert (tmp_path / LOCK).exists(), "a killed process takes nothing away"
    with lock_folder(tmp_path):
        pass


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    out, part = tmp_path / "out", tmp_path / ".out.finegrain-part"
    part.mkdir()
    (part / "old.bin").write_text("of a killed process")
    (part / "deep").mkdir()
    with new_folder(out) as folder:
        assert not out.exists()
        assert [file.name for file in folder.iterdir()] == [LOCK]
        (folder / "new.bin").write_text("x")
        with pytest.raises(CheckpointError, match="another process"), new_folder(out):
            pass
    assert [file.name for file in out.iterdir()] == ["new.bin"]
    assert not part.exists()
    with pytest.raises(CheckpointError, match=r"cannot write .*failed"), new_folder(tmp_path / "failed") as folder:
        (folder / "new.bin").write_text((tmp_path / "missing").read_text())
    with pytest.raises(CheckpointError, match="out already exists"), new_folder(out) as folder:
        (folder / "other.bin").write_text("x")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert [file.name for file in out.iterdir()] == ["new.bin"]


def test_a_result_is_not_written_among_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "part").mkdir(parents=True)
    for out in (data / "scores.jsonl", data / "part" / "scores.jsonl", tmp_path / "data" / "part" / ".." / "scores.jsonl"):
        with pytest.raises(CheckpointError, match="inside the folder that --data reads"):
            check_free(out, str(data))
    check_free(tmp_path / "scores.jsonl", str(data))
    check_free(data / "scores.jsonl", "owner/data")
