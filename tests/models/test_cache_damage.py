"""A cache is a convenience: whatever stands in its place, values are right, and a line says what was done. Test of models/reference.py."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from finegrain.models import fingerprint
from finegrain.models.load import Policy, load_policy
from finegrain.models.probe import make_scorer
from finegrain.models.reference import ScoreCache
from finegrain.models.score import ComputeUsage, Precision, read_ragged, score_rows, write_ragged
from finegrain.models.scorer import Scorer
from finegrain.types import Ragged
from tests.tiny import examples, save_tiny

ROLES = ("chosen", "rejected")
HOW = Precision(nullcontext, "float32", 500)
ROWS = examples(6, seed=3)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Scorer, dict[str, Ragged]]:
    policy = load_policy(save_tiny(tmp_path_factory.mktemp("model")))
    scorer, _ = make_scorer(policy.model, longest=64)
    return policy, scorer, score_rows(scorer, ROWS, ROLES, HOW)


def asked(folder: Path, scored: tuple[Policy, Scorer, dict[str, Ragged]]) -> tuple[int, list[str]]:
    """Rows computed and what was said; the values are always right."""
    policy, scorer, right = scored
    usage, said = ComputeUsage(), list[str]()
    found = ScoreCache(folder, say=said.append).values(policy, scorer, ROWS, ROLES, HOW, usage)
    for role in ROLES:
        for one, other in zip(found[role], right[role], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
            assert one.dtype == other.dtype
    return usage.rows, said


def no_folder(folder: Path, file: Path) -> None:
    for one in folder.rglob("*"):
        if one.is_file():
            one.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file where the folder should be")


def a_folder(folder: Path, file: Path) -> None:
    file.unlink()
    file.mkdir()


def other_kind(kind: type) -> Callable[[Path, Path], None]:
    """The same numbers as another kind of number, whole and with its checksum."""

    def damage(folder: Path, file: Path) -> None:
        stored = read_ragged(file)
        assert stored is not None
        write_ragged(file, {role: [row.astype(kind) for row in rows] for role, rows in stored.items()})

    return damage


def other_lengths(folder: Path, file: Path) -> None:
    stored = read_ragged(file)
    assert stored is not None
    write_ragged(file, {role: [rows[0], *rows[:-1]] for role, rows in stored.items()})


def without_checksum(folder: Path, file: Path) -> None:
    save_file({"chosen": np.zeros(3, dtype=np.float32), "chosen.lengths": np.array([3])}, file)


DAMAGE: dict[str, Callable[[Path, Path], None]] = {
    "empty": lambda folder, file: file.write_bytes(b"") and None,
    "short": lambda folder, file: file.write_bytes(file.read_bytes()[:5]) and None,
    "text": lambda folder, file: file.write_text("hello there") and None,
    "another header": lambda folder, file: file.write_bytes((10).to_bytes(8, "little") + b'["a", "b"]') and None,
    "a huge header": lambda folder, file: file.write_bytes((2**62).to_bytes(8, "little") + b"{}") and None,
    "no checksum": without_checksum,
    "float64": other_kind(np.float64),
    "other rows": other_lengths,
    "a folder where the file should be": a_folder,
    "a file where the folder should be": no_folder,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_means_computing_again_and_saying_so(damage: str, scored: tuple[Policy, Scorer, dict[str, Ragged]], tmp_path: Path) -> None:
    assert asked(tmp_path, scored) == (6, [])
    assert asked(tmp_path, scored) == (0, [])
    (file,) = (tmp_path / "reference").glob("*.safetensors")
    DAMAGE[damage](tmp_path, file)
    rows, said = asked(tmp_path, scored)
    assert rows == 6
    assert said
    assert all(len(line.splitlines()) == 1 for line in said)
    if "should be" not in damage:
        assert asked(tmp_path, scored) == (0, []), "what was damaged is whole again"


def test_a_full_disk_costs_a_line(scored: tuple[Policy, Scorer, dict[str, Ragged]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    rows, said = asked(tmp_path, scored)
    assert rows == 6
    assert len(said) == 1
    assert "not cached" in said[0]
    assert "No space left" in said[0]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()], "no part is left"


@pytest.mark.parametrize("note", [b"", b"[]", b'{"sha256": 5}', b'{"sha256": "x"}', b"\xff", b"[" * 50_000])
def test_a_damaged_memory_of_hashes_is_hashed_again(note: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    right = fingerprint._hash_file(tmp_path / "file", tmp_path / "memory")
    (remembered,) = (tmp_path / "memory" / "hashes").iterdir()
    remembered.write_bytes(note)
    assert fingerprint._hash_file(tmp_path / "file", tmp_path / "memory") == right
    assert json.loads(remembered.read_text())["sha256"] == right


def test_a_file_changed_behind_its_times_is_hashed_again(tmp_path: Path) -> None:
    """Another content of the same size under the same modification time, as `cp -p` and `rsync -t` leave it."""
    file = tmp_path / "file"
    file.write_text("one")
    before, times = fingerprint._hash_file(file, tmp_path), file.stat()
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint._hash_file(file, tmp_path) != before
    (tmp_path / "hashes").rename(tmp_path / "away")
    (tmp_path / "hashes").write_text("a file where the folder should be")
    assert fingerprint._hash_file(file, tmp_path) != before


ORIGINAL = {"chosen": [np.array([-1.5, -0.25], dtype=np.float32), np.zeros(0, dtype=np.float32)], "rejected": [np.ones(3, dtype=np.float32)] * 2}


@settings(max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_are_the_values_or_none(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bytes changed, cut, put in or taken out anywhere: what is read is what was written, or nothing."""
    file = tmp_path_factory.mktemp("ragged", numbered=True) / "a.safetensors"
    write_ragged(file, ORIGINAL)
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, len(whole) - 1)))
        match data.draw(st.sampled_from(["change", "cut", "insert", "take"])):
            case "change":
                whole[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
            case "cut":
                del whole[place:]
            case "insert":
                whole[place:place] = data.draw(st.binary(min_size=1, max_size=9))
            case "take":
                del whole[place : place + data.draw(st.integers(1, 9))]
    file.write_bytes(bytes(whole))
    found = read_ragged(file)
    if found is not None:
        for role, rows in found.items():
            assert [row.tolist() for row in rows] == [row.tolist() for row in ORIGINAL[role]]
            assert all(row.dtype == np.float32 for row in rows)
