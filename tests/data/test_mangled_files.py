"""Damaged files: whatever the bytes are, reading ends with a DataError, or every row is an example or a finding that names it.

Test of data/file_rows.py, data/arrow_rows.py, data/csv_rows.py.
"""

import csv
import gzip
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.data.gate.settings import Gate
from finegrain.data.load import Tokenise, check_rows
from finegrain.errors import DataError

SPANS = [[0.0, 3.0, -1.0]]
PROMPT = "what is this? é😀"
ROWS: list[dict[str, Any]] = [
    {"prompt": f"{PROMPT} {n}", "chosen": f'it is "{n}",\n of course', "rejected": "nobody", "margin": n / 4, "rejected_spans": SPANS}
    for n in range(6)
]


@cache
def whole(name: str) -> bytes:
    """A file without damage."""
    if name.endswith(".gz"):
        return gzip.compress(whole(name.removesuffix(".gz")), mtime=0)
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row, ensure_ascii=row["margin"] < 1) + "\n" for row in ROWS).encode()
    if name.endswith(".json"):
        return json.dumps(ROWS, indent=1).encode()
    if name.endswith((".csv", ".tsv")):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(ROWS[0]), delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writeheader()
        writer.writerows({**row, "rejected_spans": json.dumps(SPANS)} for row in ROWS)
        return text.getvalue().encode()
    sink, table = io.BytesIO(), pa.Table.from_pylist(ROWS)
    if name.endswith(".parquet"):
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


NAMES = ("d.jsonl", "d.json", "d.csv", "d.tsv", "d.jsonl.gz", "d.parquet", "d.arrow")
ODD = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\xbd",
    b"\\ud83d",
    b'"',
    b"{",
    b"[",
    b"}",
    b"\n",
    b"\r",
    b"\t",
    b",",
    b"\\",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"null",
)
DAMAGE = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 40), st.sampled_from(ODD) | st.binary(max_size=3))
"""Where, how many bytes go, and what comes instead."""


def damaged(name: str, changes: list[tuple[float, int, bytes]], length: float) -> bytes:
    found = whole(name)
    for where, gone, new in changes:
        place = int(where * len(found))
        found = found[:place] + new + found[place + gone :]
    return found[: int(length * len(found)) + 1]


def check(file: Path) -> tuple[int, int, set[int]]:
    """Rows, examples, and the rows that a finding says give none."""
    report = check_rows(str(file), None, settings=Tokenise(), gate=Gate(bias_rows=0))
    lost = {row for finding in report["findings"] if {"dropped", "error"} & set(finding["action"].split()) for row in finding["rows"]}
    return report["rows"], report["examples_left"], lost


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_damage_is_all_examples(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(whole(name))
    assert check(tmp_path / name) == (6, 6, set())


@given(name=st.sampled_from(NAMES), changes=st.lists(DAMAGE, min_size=1, max_size=3), length=st.just(1.0) | st.floats(0, 1))
@settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_no_damage_is_more_than_a_data_error(name: str, changes: list[tuple[float, int, bytes]], length: float, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(damaged(name, changes, length))
    try:
        rows, examples, lost = check(file)
    except DataError:
        return
    assert examples + len(lost) >= rows


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.list_(pa.int32())])
def test_an_offset_beyond_an_arrow_file_is_an_error(kind: Any, tmp_path: Path) -> None:
    cells: list[Any] = [[n] * 3 for n in range(4)] if pa.types.is_list(kind) else ["abc"] * 4
    sink, table = io.BytesIO(), pa.table({"prompt": ["p"] * 4, "chosen": ["yes"] * 4, "rejected": pa.array(cells, kind)})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    width = "<i8" if pa.types.is_large_string(kind) else "<i4"
    right, wrong = (np.array(offsets, width).tobytes() for offsets in ([0, 3, 6, 9, 12], [0, 3, 2**30, 9, 12]))
    file = tmp_path / "d.arrow"
    file.write_bytes(sink.getvalue()[::-1].replace(right[::-1], wrong[::-1], 1)[::-1])
    assert file.read_bytes() != sink.getvalue()
    with pytest.raises(DataError, match=r"cannot read .*d\.arrow"):
        check_rows(str(file), None, settings=Tokenise(), gate=Gate(bias_rows=0))
