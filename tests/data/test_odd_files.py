"""Files as people have them: folders, tables, compressed, with cells that cannot be read and columns that nobody reads.

Test of data/file_rows.py, data/reading.py.
"""

import csv
import gzip
import json

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from finegrain.data.load import Shape, Tokenise, check_rows, load_examples
from finegrain.data.read import read
from finegrain.errors import DataError
from tests.data.tiny import CHATML, byte_level

ROWS = [{"prompt": f"What is {n}?\n", "chosen": f"It is {n}.", "rejected": "Nobody knows."} for n in range(3)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def dicts(path):
    return [dict(row) for _, row in read(str(path)).rows]


def findings(path, tokenizer=None):
    """By kind: rows, action, words."""
    report = check_rows(str(path), tokenizer, settings=Tokenise())
    return report, {one["kind"]: (one["rows"], one["action"], one.get("example", "")) for one in report["findings"]}


def zst(path, text):
    with pyarrow.output_stream(str(path), compression="zstd") as stream:
        stream.write(text.encode())


def separated(rows, separator):
    return "".join(separator.join(f'"{cell}"' for cell in row) + "\n" for row in [list(rows[0]), *[row.values() for row in rows]])


@pytest.mark.parametrize("name", ["d.jsonl.zst", "d.json.zst", "d.csv.zst", "d.tsv", "d.tsv.gz", "d.tsv.zst", "d.ndjson"])
def test_other_names_of_text_files(tmp_path, name):
    rows = [{key: value.strip() for key, value in row.items()} for row in ROWS]
    text = separated(rows, "\t" if "tsv" in name else ",") if "sv" in name else lines(rows)
    if name.endswith(".zst"):
        zst(tmp_path / name, text)
    else:
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert dicts(tmp_path / name) == dicts(tmp_path) == rows


@pytest.mark.parametrize("cut", [0, 4, -7])
def test_a_broken_zst_file_is_named(tmp_path, cut):
    zst(tmp_path / "d.jsonl.zst", lines(ROWS * 50))
    whole = (tmp_path / "d.jsonl.zst").read_bytes()
    (tmp_path / "d.jsonl.zst").write_bytes(whole[:cut] if cut else b"no zst")
    with pytest.raises(DataError, match=r"(cannot read .*d\.jsonl\.zst|d\.jsonl\.zst has no rows|d\.jsonl\.zst:\d+: not JSON)"):
        dicts(tmp_path / "d.jsonl.zst")


def test_saved_data_sets_and_arrow_files(tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(tmp_path / "parts")
    datasets.DatasetDict({"only": table.select([2, 1])}).save_to_disk(tmp_path / "one")
    assert dicts(tmp_path / "saved") == dicts(tmp_path / "parts") == ROWS
    assert dicts(tmp_path / "parts" / "test") == ROWS[:1]
    assert dicts(tmp_path / "one") == [ROWS[2], ROWS[1]]
    assert dicts(next((tmp_path / "saved").glob("*.arrow"))) == ROWS
    with pyarrow.OSFile(str(tmp_path / "d.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.data.table.schema) as writer:
        writer.write_table(table.data.table)
    assert dicts(tmp_path / "d.arrow") == ROWS
    source = read(str(tmp_path / "saved"))
    assert source.sha256() == read(str(tmp_path / "saved"), 1).sha256() != read(str(tmp_path / "parts")).sha256()
    datasets.DatasetDict({"a": table, "b": table}).save_to_disk(tmp_path / "neither")
    with pytest.raises(DataError, match="the splits a, b but no split named train"):
        dicts(tmp_path / "neither")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(DataError, match="a folder that datasets' save_to_disk wrote"):
        dicts(tmp_path / "saved")


def test_metadata_and_hidden_files_are_not_rows(tmp_path):
    (tmp_path / "data").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data" / "train-00000-of-00001.parquet")
    for name in ("dataset_infos.json", "._pairs.jsonl", "_metadata.json", "data/.pairs.jsonl", "data/dataset_info.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "old.jsonl").write_text(lines(ROWS))
    assert dicts(tmp_path) == ROWS


def test_a_file_beside_its_compressed_copy_is_named(tmp_path):
    (tmp_path / "d.jsonl").write_text(lines(ROWS))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines(ROWS).encode()))
    with pytest.raises(DataError, match=r"d\.jsonl and d\.jsonl\.gz, whose names suggest the same rows twice"):
        read(str(tmp_path))


TABLES = {
    "lists": {name: [row[name] for row in ROWS] for name in ROWS[0]},
    "columns": {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]},
    "index": {str(n): row for n, row in enumerate(ROWS)},
    "split": {"columns": list(ROWS[0]), "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]},
    "table": {"schema": {"fields": []}, "data": ROWS},
    "data": {"version": "1", "data": ROWS},
    "viewer": {"features": [], "rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]},
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", TABLES)
def test_one_object_that_is_a_table(tmp_path, name, indent):
    (tmp_path / "d.json").write_text(json.dumps(TABLES[name], indent=indent))
    assert dicts(tmp_path / "d.json") == ROWS


def test_one_object_that_is_a_row(tmp_path):
    talk = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
    for row in (ROWS[0], talk, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}):
        for indent in (None, 2):
            (tmp_path / "d.json").write_text(json.dumps(row, indent=indent))
            assert dicts(tmp_path / "d.json") == [row]


DEEP = "[" * 100_000 + "]" * 100_000
CELLS = {
    "a number of 400 digits": ('"margin": ' + "9" * 400, "not_a_number"),
    "a number of 5,000 digits": ('"margin": -' + "9" * 5000, "not_a_number"),
    "1e400": ('"margin": 1e400', "not_a_number"),
    "infinity in a span": ('"chosen_spans": [[0, Infinity, 1]]', "not_a_number"),
    "a span of 400 digits": ('"chosen_spans": [[0, ' + "9" * 400 + ", 1]]", "not_a_number"),
    "a value beyond single precision": ('"chosen_spans": [[0, 2, 1e300]]', "not_a_number"),
    "a reward beyond single precision": ('"chosen_token_reward": [1e300]', "not_a_number"),
    "half a surrogate pair": ('"chosen": "\\ud83d"', "encoding"),
    "nested spans": ('"chosen_spans": ' + DEEP, "missing_column"),
    "a nested answer": ('"chosen": ' + DEEP, "missing_column"),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_bad_cell_is_a_finding_of_its_row(tmp_path, name, suffix):
    cell, kind = CELLS[name]
    bad = f'{{"prompt": "Where?\\n", "chosen": "Here.", "rejected": "There now.", {cell}}}'
    whole = [json.dumps(ROWS[0]), bad, json.dumps(ROWS[1])]
    (tmp_path / f"d{suffix}").write_text("[" + ",".join(whole) + "]" if suffix == ".json" else "\n".join(whole))
    report, found = findings(tmp_path / f"d{suffix}", byte_level())
    assert found[kind][0] == [1]
    assert report["rows"] == 3
    assert report["examples_left"] == 2


@pytest.mark.parametrize("value", [DEEP, "9" * 400, "1e999", '"\\ud83d"', '{"a": ' * 50_000 + "1" + "}" * 50_000])
def test_a_bad_cell_that_nobody_reads_stops_nothing(tmp_path, value):
    (tmp_path / "d.jsonl").write_text(f'{{"prompt": "Where?\\n", "chosen": "Here.", "rejected": "There now.", "meta": {{"a": {value}}}}}\n')
    report, found = findings(tmp_path / "d.jsonl", byte_level())
    assert report["examples_left"] == 1
    assert found == {"unread": ([0], "kept", "columns that are not read: meta")}


@pytest.mark.parametrize(("value", "place"), [("null", 0), ("null", 1), ("3", 0), ("3", 2), ('"x"', 0), ('"x"', 1), ("true", 1), ("[1]", 1)])
def test_a_line_that_is_no_object_is_a_finding_of_its_row(tmp_path, value, place):
    rows = [json.dumps(ROWS[0]), json.dumps(ROWS[1])]
    rows.insert(place, value)
    (tmp_path / "d.jsonl").write_text("\n".join(rows))
    report, found = findings(tmp_path / "d.jsonl", byte_level())
    assert (found["missing_column"][0], report["examples_left"]) == ([place], 2)


@pytest.mark.parametrize("value", ["9" * 5000, "9" * 300, "-1e999", "NaN", "Infinity"])
@pytest.mark.parametrize("name", ["id", "margin"])
def test_a_bad_number_drops_the_row_only_where_something_reads_it(tmp_path, name, value):
    (tmp_path / "d.jsonl").write_text(
        f'{json.dumps(ROWS[1])}\n{{"prompt": "Where?", "chosen": "Here.", "rejected": "There now.", "{name}": {value}}}\n'
    )
    report, found = findings(tmp_path / "d.jsonl", byte_level())
    finite = value == "9" * 300
    assert report["examples_left"] == (2 if name == "id" or finite else 1)
    assert found.get("not_a_number", ([], ""))[:2] == (([], "") if finite else ([1], "kept" if name == "id" else "dropped"))


def test_bytes_that_are_no_text_are_a_matter_of_their_row(tmp_path):
    text = lines(ROWS).encode()
    (tmp_path / "d.jsonl").write_bytes(text.replace(b"It is 1", b"It is \xff"))
    (tmp_path / "d.csv").write_bytes(separated(ROWS, ",").encode().replace(b"It is 1", b"It is \xff"))
    for name in ("d.jsonl", "d.csv"):
        report, found = findings(tmp_path / name, byte_level())
        assert (found["encoding"][0], found["encoding"][2], report["examples_left"]) == ([1], "bytes that are not UTF-8", 2)


def bad_parquet(path, column):
    """Three rows, the second with a cell that Python cannot have."""
    table = pyarrow.Table.from_pylist(ROWS)
    offsets = pyarrow.array([0, 2, 4, 6], pyarrow.int32()).buffers()[1]
    broken = pyarrow.StringArray.from_buffers(3, offsets, pyarrow.py_buffer(b"ab\xff\xfecd"))
    years = pyarrow.array([0, 2**60, 1], pyarrow.int64()).cast(pyarrow.timestamp("ms"))
    cells = {"text": broken, "year": years}[column[0]]
    table = table.drop_columns([column[1]]) if column[1] in table.column_names else table
    parquet.write_table(table.append_column(column[1], cells), path)


@pytest.mark.parametrize(("column", "kind", "left"), [
    (("text", "chosen"), "encoding", 2),
    (("year", "chosen"), "missing_column", 0),
    (("text", "note"), "unread", 3),
    (("year", "note"), "unread", 3),
])  # fmt: skip
def test_a_bad_cell_of_a_parquet_file(tmp_path, column, kind, left):
    bad_parquet(tmp_path / "d.parquet", column)
    report, found = findings(tmp_path / "d.parquet", byte_level())
    assert report["rows"] == 3
    assert report["examples_left"] == left
    assert 1 in found[kind][0]


def test_columns_that_nobody_reads_are_not_converted(tmp_path, monkeypatch):
    from finegrain.data import arrow_rows

    asked = []
    honest = arrow_rows._Batch.cells
    monkeypatch.setattr(arrow_rows._Batch, "cells", lambda self, name: asked.append(name) or honest(self, name))
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "image": b"x" * 100, "tags": []} for row in ROWS]), tmp_path / "d.parquet")
    _, found = findings(tmp_path / "d.parquet", byte_level())
    assert set(asked) == {"prompt", "chosen", "rejected", *asked} - {"image", "tags"}
    assert found == {"unread": ([0, 1, 2], "kept", "columns that are not read: image")}


TALK = {"prompt": [{"role": "user", "content": "hi"}], "chosen": [{"role": "assistant", "content": "hello"}], "rejected": "no, not so"}


@pytest.mark.parametrize(("more", "named"), [
    ({"images": ["a.png"]}, "images"),
    ({"history": [["a", "b"]], "videos": [], "note": "", "other": None}, "history"),
    ({"system": "Be brief."}, None),
    ({"rejected_response": "bye", "id": "x7"}, "rejected_response, id"),
    ({"meta": {"a": None, "b": []}, "margin": 2.0, "chosen_spans": [], "chosen_truth": [[0, 1, 1.0]]}, None),
])  # fmt: skip
def test_columns_that_nothing_reads_are_named(tmp_path, more, named):
    (tmp_path / "d.jsonl").write_text(lines([TALK, {**TALK, **more}, {**TALK, **more}]))
    loaded = load_examples(str(tmp_path / "d.jsonl"), byte_level(template=CHATML), shape=Shape.PREFERENCE, settings=Tokenise())
    found = {one["kind"]: (one["rows"], one["action"], one.get("example")) for one in loaded.report["findings"]}
    assert found.get("unread") == (None if named is None else ([1, 2], "kept", f"columns that are not read: {named}"))
    assert len(loaded.examples) == 3


def test_keys_and_columns_that_stand_twice_are_named(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"prompt": "p\\n", "chosen": "a", "rejected": "b", "chosen": "c"}\n' + lines(ROWS))
    _, found = findings(tmp_path / "d.jsonl")
    assert found["repeated_column"] == ([0], "the last one kept", "chosen")
    with (tmp_path / "d.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["prompt", "chosen", "rejected", "rejected"], ["p", "a", "b", "c"]])
    _, found = findings(tmp_path / "d.csv")
    assert found["repeated_column"] == ([0], "the last one kept", "rejected")
    table = pyarrow.table([["p"], ["a"], ["b"], ["c"]], names=["prompt", "chosen", "rejected", "chosen"])
    parquet.write_table(table, tmp_path / "d.parquet")
    _, found = findings(tmp_path / "d.parquet")
    assert found["repeated_column"] == ([0], "the last one kept", "chosen")
    nested = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "content": "c"}]}\n'
    (tmp_path / "d.json").write_text(nested)
    _, found = findings(tmp_path / "d.json")
    assert found["repeated_column"] == ([0], "the last one kept", "content")


def test_labels_of_one_kind_are_named(tmp_path):
    rows = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in ROWS]
    (tmp_path / "d.jsonl").write_text(lines(rows))
    _, found = findings(tmp_path / "d.jsonl")
    assert found["one_label"][:2] == ([], "kept")
    (tmp_path / "e.jsonl").write_text(lines([*rows, {**rows[0], "completion": "No.", "label": False}]))
    assert "one_label" not in findings(tmp_path / "e.jsonl")[1]
