"""Several sources as one: shares, what is left over, formats, hashes, and what is told of each."""

from pathlib import Path
from typing import Any

import pytest

from finegrain.data.load import Gate, LoadedData, Shape, Tokenise, check_rows, load_examples
from finegrain.data.mixture import read_sources
from finegrain.data.read import read
from finegrain.data.sources import format_sources, parse_sources
from finegrain.errors import DataError, UsageError
from tests.data.tiny import CHATML, byte_level
from tests.tiny import write_rows


def pair(name: str, number: int) -> dict[str, Any]:
    return {"prompt": f"{name} {number}?\n", "chosen": f"the answer {number}", "rejected": "hello"}


def talk(name: str, number: int) -> dict[str, Any]:
    turns = {role: [{"role": "assistant", "content": text}] for role, text in (("chosen", f"good {number}"), ("rejected", "bad"))}
    return {"prompt": [{"role": "user", "content": f"{name} {number}?"}], **turns}


def save(file: Path, rows: list[dict[str, Any]]) -> str:
    return str(write_rows(file, rows))


def load(source: str, limit: int | None = None, shape: Shape = Shape.PREFERENCE, **gate: Any) -> LoadedData:
    return load_examples(source, byte_level(template=CHATML), shape=shape, settings=Tokenise(), limit=limit, gate=Gate(bias_rows=0, **gate))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return save(tmp_path / "a.jsonl", [pair("a", n) for n in range(20)]), save(tmp_path / "b.jsonl", [pair("b", n) for n in range(100)])


def names(source: str, limit: int | None = None) -> str:
    return "".join(row["prompt"][0] for _, row in read_sources(source, limit).rows)


def test_without_weights_all_rows_follow_one_another(files: tuple[str, str]) -> None:
    a, b = files
    assert names(f"{a} + {b}") == "a" * 20 + "b" * 100
    assert names(f"{a} + {b}", 25) == "a" * 20 + "b" * 5
    report = load(f"{b} + {a}").report
    assert [(one["source"], one["rows"], one["kept"]) for one in report["sources"]] == [(b, 100, 100), (a, 20, 20)]
    assert report["rows"] == report["kept"] == 120
    assert not report["findings"]
    assert not any("weight" in one or "rows_left_over" in one for one in report["sources"])


@pytest.mark.parametrize(("one", "other"), [("0.25", "0.75"), ("1", "3"), ("1e300", "3e300"), (".1", "3e-1")])
def test_weights_are_the_shares_of_every_beginning(files: tuple[str, str], one: str, other: str) -> None:
    a, b = files
    order = names(f"{a}={one} + {b}={other}")
    assert order == names(f"{a}={one} + {b}={other}"), "nothing is drawn"
    assert all(abs(order[:n].count("a") - n / 4) <= 1 for n in range(len(order) + 1))
    assert order.count("a") == 20, "the source that is used up ends it"
    assert 60 <= order.count("b") <= 63
    assert names(f"{a}={one} + {b}={other}", 8) == order[:8]


def test_every_row_of_a_source_stands_in_its_order(files: tuple[str, str]) -> None:
    a, b = files
    rows = [row["prompt"] for _, row in read_sources(f"{a}=1 + {b}=3").rows]
    assert [row for row in rows if row.startswith("a")] == [f"a {n}?\n" for n in range(20)]
    assert [row for row in rows if row.startswith("b")] == [f"b {n}?\n" for n in range(len(rows) - 20)]


def test_rows_that_are_left_over_are_counted_and_named(files: tuple[str, str]) -> None:
    a, b = files
    loaded = load(f"{b}=0.75 + {a}=0.25")
    first, second = loaded.report["sources"]
    assert (first["weight"], second["weight"]) == (0.75, 0.25)
    assert (second["rows"], second["rows_left_over"]) == (20, 0)
    assert first["rows"] + first["rows_left_over"] == 100
    words = f"{b}: {first['rows']} of 100 rows used"
    assert [(one["kind"], one["count"], one["action"], one["example"]) for one in loaded.report["findings"]] == [
        ("mixture", first["rows_left_over"], "left over", words)
    ]
    assert f"mixture: left over: {words}" in loaded.report["messages"]
    assert loaded.gate["findings"][0]["count"] == first["rows_left_over"]
    assert loaded.gate["sources"] == loaded.report["sources"]
    limited = load(f"{b}=0.75 + {a}=0.25", 8).report
    assert limited["rows"] == 8
    assert not limited["findings"], "a limit leaves rows unread as it does in one source"


def test_sources_of_different_formats(tmp_path: Path) -> None:
    a = save(tmp_path / "a.jsonl", [pair("a", n) for n in range(110)])
    b = save(tmp_path / "b.jsonl", [talk("b", n) for n in range(10)])
    report = load(f"{a} + {b}").report
    assert [one["format"] for one in report["sources"]] == ["preference pairs", "preference conversations"]
    assert report["format"] == "preference pairs, preference conversations"
    assert report["kept"] == 120
    single = save(tmp_path / "c.jsonl", [{"prompt": "p ", "completion": "hello"}])
    report = load(f"{b} + {single}", shape=Shape.DEMONSTRATION).report
    assert [one["kept"] for one in report["sources"]] == [10, 1]
    with pytest.raises(DataError, match=r"c\.jsonl demonstration"):
        check_rows(f"{b} + {single}", None, settings=Tokenise())
    with pytest.raises(DataError, match=r"c\.jsonl"):
        load(f"{b} + {single}")


def test_findings_name_source_and_row(tmp_path: Path) -> None:
    same = pair("same", 0)
    a = save(tmp_path / "a.jsonl", [pair("a", 0), {**pair("a", 1), "chosen": ""}, same, pair("a", 3)])
    b = save(tmp_path / "b.jsonl", [pair("b", 0), same, {**pair("b", 2), "rejected": " "}, {**pair("b", 3), "chosen": ""}])
    for source, global_rows, later in ((f"{a} + {b}", [1, 6, 7], (b, 1)), (f"{a}=1 + {b}=1", [2, 5, 7], (a, 2))):
        loaded = load(source)
        empty = next(one for one in loaded.gate["findings"] if one["kind"] == "empty")
        assert empty["rows"] == global_rows
        assert empty["sources"] == [{"source": a, "count": 1, "rows": [1]}, {"source": b, "count": 2, "rows": [2, 3]}]
        (twice,) = [one for one in loaded.report["findings"] if one["kind"] == "duplicate"]
        assert twice["sources"] == [{"source": later[0], "count": 1, "rows": [later[1]]}]
        assert f"empty: 3 dropped ({a} rows 1; {b} rows 2, 3)" in loaded.report["messages"]
        told = [(one["rows"], one["kept"], one["dropped"], one["findings"].get("empty")) for one in loaded.report["sources"]]
        assert told == [(4, 3, {"empty": 1}, 1), (4, 2, {"empty": 2}, 2)]
        assert [one["findings"].get("duplicate", 0) for one in loaded.report["sources"]] == [later[0] == a, later[0] == b]
        checked = check_rows(source, None, settings=Tokenise(), gate=Gate(bias_rows=0))
        assert [one["kept"] for one in checked["sources"]] == [3, 2]
    with pytest.raises(DataError, match=r"b\.jsonl:3"):
        load(f"{b} + {save(tmp_path / 'c.jsonl', [pair('c', 0)])}", empty="error")


def test_the_hash_covers_every_source_and_the_weights(tmp_path: Path, files: tuple[str, str]) -> None:
    a, b = files
    told = [f"{a} + {b}", f"{b} + {a}", f"{a}=1 + {b}=1", f"{a}=1 + {b}=2", a, b]
    before = [read_sources(text).sha256() for text in told]
    assert len(set(before)) == len(told)
    assert before == [read_sources(text, 3).sha256() for text in told], "whatever the limit"
    assert before[-2] == read(a).sha256(), "one source has its own"
    save(tmp_path / "b.jsonl", [pair("b", 1)])
    assert [one == other for one, other in zip(before, (read_sources(text).sha256() for text in told), strict=True)] == [False] * 4 + [True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{a}=x + {b}=1", "must be a number above 0, got 'x'"),
        ("{a}= + {b}=1", "must be a number above 0, got ''"),
        ("{a}=0 + {b}=1", "must be a finite number above 0, got 0"),
        ("{a}=-1 + {b}=1", "must be a finite number above 0, got -1"),
        ("{a}=nan + {b}=1", "must be a finite number above 0, got nan"),
        ("{a}=1 + {b}=inf", "must be a finite number above 0, got inf"),
        ("{a}=1 + {b}", "but not to .*b.jsonl; give every source a weight"),
        ("{a} + {b} + {a}", "a.jsonl twice"),
        ("{a}=1 + {folder}/../{name}/a.jsonl=2", "twice .as .*a.jsonl too"),
        ("owner/set + owner/set", "owner/set twice"),
        ("=1 + {b}=1", "a weight but no source"),
    ],
)
def test_what_is_no_mixture(files: tuple[str, str], tmp_path: Path, text: str, words: str) -> None:
    a, b = files
    with pytest.raises(UsageError, match=words):
        parse_sources(text.format(a=a, b=b, folder=tmp_path, name=tmp_path.name))


def test_paths_with_signs_of_their_own(tmp_path: Path) -> None:
    whole = save(tmp_path / "x=1 + y=2.jsonl", [pair("a", 0)])
    assert parse_sources(whole) == [(whole, None)]
    assert len(list(read_sources(whole).rows)) == 1
    (tmp_path / "part=3").mkdir()
    inside, beside = save(tmp_path / "part=3" / "a.jsonl", [pair("a", 0)]), save(tmp_path / "z=0.5", [pair("z", 0)])
    assert parse_sources(f"{inside} + {beside}") == [(inside, None), (beside, None)]
    assert parse_sources(f"{inside}=2 + owner/set:train=1") == [(inside, 2.0), ("owner/set:train", 1.0)]
    assert parse_sources("nowhere/part=3/a.jsonl + b") == [("nowhere/part=3/a.jsonl", None), ("b", None)]


def test_what_cannot_be_read(files: tuple[str, str], tmp_path: Path) -> None:
    a, _ = files
    with pytest.raises(DataError, match=r"no file .*c\.jsonl"):
        read_sources(f"{a} + {tmp_path}/c.jsonl")
    with pytest.raises(DataError, match=r"e\.jsonl has no rows"):
        load(f"{a} + {save(tmp_path / 'e.jsonl', [])}")
    with pytest.raises(UsageError, match="names 2 sources, but only one can be read"):
        read(f"{a} + b")


def test_what_python_takes(tmp_path: Path) -> None:
    assert format_sources(tmp_path) == format_sources(str(tmp_path)) == format_sources([tmp_path]) == str(tmp_path)
    assert parse_sources(format_sources({"a.jsonl": 0.7, Path("b.jsonl"): 3})) == [("a.jsonl", 0.7), ("b.jsonl", 3.0)]
    assert parse_sources(format_sources(["a.jsonl", Path("b.jsonl")])) == [("a.jsonl", None), ("b.jsonl", None)]
