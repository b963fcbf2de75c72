"""A pair with a generated answer: the third answer may be one of the two, and must be there.

Test of data/convert/own.py, data/shapes.py, data/records.py.
"""

from pathlib import Path
from typing import Any

import pytest

from finegrain.data.gate.settings import Gate
from finegrain.data.load import LoadedData, Tokenise, load_examples
from finegrain.data.records import Shape
from finegrain.errors import DataError
from tests.data.tiny import CHATML, byte_level
from tests.tiny import write_rows

PAIR = {"prompt": "Which? ", "chosen": "this", "rejected": "that", "generated": "those"}


def load(folder: Path, rows: list[dict[str, Any]], shape: Shape = Shape.EXPLORED) -> LoadedData:
    return load_examples(str(write_rows(folder / "rows.jsonl", rows)), byte_level(), shape=shape, settings=Tokenise(), gate=Gate())


def texts(data: LoadedData) -> list[dict[str, str]]:
    return [{role: one.text for role, one in example.responses.items()} for example in data.examples]


def test_three_answers(tmp_path: Path) -> None:
    rows = [PAIR, {**PAIR, "prompt": "Or? ", "generated": "this"}, {**PAIR, "prompt": "Not? ", "rejected": "this"}]
    assert texts(load(tmp_path, rows)) == [
        {"chosen": "this", "rejected": "that", "generated": "those"},
        {"chosen": "this", "rejected": "that", "generated": "this"},
    ], "a generated answer may be the chosen one; a rejected one may not"


def test_pairs_do_not_read_it(tmp_path: Path) -> None:
    assert texts(load(tmp_path, [PAIR], Shape.PREFERENCE)) == [{"chosen": "this", "rejected": "that"}]


def test_conversations(tmp_path: Path) -> None:
    turn = lambda text: [{"role": "assistant", "content": text}]
    row = {"prompt": [{"role": "user", "content": "Which?"}], "chosen": turn("this"), "rejected": turn("that"), "generated": turn("those")}
    file = str(write_rows(tmp_path / "turns.jsonl", [row]))
    (found,) = load_examples(file, byte_level(template=CHATML), shape=Shape.EXPLORED, settings=Tokenise(), gate=Gate()).examples
    assert "those" in found.responses["generated"].text


def test_it_is_needed(tmp_path: Path) -> None:
    row = dict(PAIR)
    del row["generated"]
    with pytest.raises(DataError, match="missing column generated"):
        load(tmp_path, [row])
