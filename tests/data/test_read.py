import csv
import gzip
import json

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from finegrain.data.read import read
from finegrain.errors import DataError

ROWS = [{"prompt": "a é", "chosen": "b", "rejected": "c", "margin": 1.5}, {"prompt": "d", "chosen": "7", "rejected": "", "margin": None}]


def write(path, text):
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def dicts(source):
    return [row for _, row in source.rows]


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json"])
def test_objects_line_by_line(tmp_path, name):
    path = write(tmp_path / name, "\n" + lines(ROWS))
    assert dicts(read(path)) == ROWS
    assert dicts(read(path, 1)) == ROWS[:1]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list(tmp_path, indent):
    assert dicts(read(write(tmp_path / "d.json", json.dumps(ROWS, indent=indent)))) == ROWS


def test_parquet(tmp_path):
    rows = [{**row, "chosen_spans": [{"start": 0, "end": 1, "value": -1.0}]} for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    assert dicts(read(str(tmp_path / "d.parquet"))) == rows


def test_csv_types_by_column(tmp_path):
    path = tmp_path / "d.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "chosen", "rejected", "margin", "good", "chosen_spans", "id"])
        writer.writerow(["line\none, é", "7", "8", "1.5", "true", "[[0, 1, -1]]", "a1"])
        writer.writerow(["x" * 200_000, "9", "10", "", "False", "", "2"])
    before = csv.field_size_limit()
    first, second = dicts(read(str(path)))
    assert csv.field_size_limit() == before
    assert first == {
        "prompt": "line\none, é", "chosen": "7", "rejected": "8", "margin": 1.5, "good": True, "chosen_spans": [[0, 1, -1]], "id": "a1",
    }  # fmt: skip
    assert (second["chosen"], second["margin"], second["good"], second["chosen_spans"], second["id"]) == ("9", None, False, None, "2")


def test_csv_conversations(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with (tmp_path / "d.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["chosen", "rejected"], [json.dumps(turns), json.dumps(turns)]])
    assert dicts(read(str(tmp_path / "d.csv")))[0]["chosen"] == turns


def test_a_folder_is_its_files_in_order(tmp_path):
    write(tmp_path / "b.jsonl", lines(ROWS[1:]))
    write(tmp_path / "a.jsonl.gz", lines(ROWS[:1]))
    write(tmp_path / "README.md", "no data")
    source = read(str(tmp_path))
    assert dicts(source) == ROWS
    assert source.files == ["a.jsonl.gz", "b.jsonl"]
    assert source.sha256() != read(str(tmp_path / "b.jsonl")).sha256()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("train", "test"), "test and training"),
        (("pairs", "pairs_dev"), "dev and training"),
        (("a", "b", "val-0001"), "val and training"),
        (("training", "testing"), "testing and training"),
        (("data_trainset", "heldout"), "heldout and training"),
        (("a", "hold-out", "evaluation"), "evaluation, hold-out and training"),
        (("test", "validation"), "test, validation"),
        (("train", "more"), None),
        (("test", "test-2"), None),
        (("contest", "latest"), None),
    ],
)
def test_a_folder_of_training_and_held_out_files_is_refused(tmp_path, names, found):
    for name in names:
        write(tmp_path / f"{name}.jsonl", lines(ROWS))
    if found:
        with pytest.raises(DataError, match=f"mixes {found} files"):
            read(str(tmp_path))
    else:
        assert len(read(str(tmp_path)).files) == len(names)


def test_the_hash_is_of_the_content_whatever_the_limit(tmp_path):
    one, other = write(tmp_path / "a.jsonl", lines(ROWS)), write(tmp_path / "b.jsonl", lines(ROWS))
    assert read(one).sha256() == read(other, 1).sha256()
    assert read(one).sha256() != read(write(tmp_path / "c.jsonl", lines(ROWS) + "\n")).sha256()


def test_a_missing_path_names_near_files(tmp_path):
    write(tmp_path / "pairs.jsonl", lines(ROWS))
    with pytest.raises(DataError, match=r"similar names: pairs\.jsonl"):
        read(str(tmp_path / "pair.jsonl"))
    with pytest.raises(DataError, match="there is no folder"):
        read(str(tmp_path / "nowhere" / "pairs.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"a": 1}\n{"a": \n', r"d\.jsonl:2: not JSON"),
        ("d.jsonl", b'{"a": 1}\n{"a": "\xff}\n', r"d\.jsonl:2: not UTF-8"),
        ("d.json", b'[{"a": 1},\n{"a": }]', r"d\.json:2: not JSON"),
        ("d.jsonl.gz", b"no gzip", r"cannot read .*d\.jsonl\.gz"),
        ("d.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], r"cannot read .*d\.jsonl\.gz"),
        ("d.parquet", b"no parquet", r"cannot read .*d\.parquet"),
        ("d.csv", b"a,b\n1,2\n1\n", r"d\.csv:3: expected 2 cells"),
        ("d.csv", b'a,b\n1,"2\n', r"d\.csv:\d: not CSV"),
        ("d.jsonl", b"\n", "has no rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        dicts(read(str(tmp_path / name)))


def test_hub_names(monkeypatch):
    asked = []

    def load_dataset(name, config, *, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = read("owner/set")
    assert dicts(source) == ROWS
    assert dicts(read("owner/set:test_prefs", 1)) == ROWS[:1]
    read("owner/set:config:test")
    assert asked == [("owner/set", None, "train"), ("owner/set", None, "test_prefs"), ("owner/set", "config", "test")]
    again = read("owner/set")
    assert dicts(again) == ROWS
    assert source.sha256() == again.sha256()


def test_a_hub_failure_is_a_data_error(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"cannot load owner/set .* from the Hub: offline"):
        read("owner/set")
