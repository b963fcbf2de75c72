"""docs/architecture.md: its picture is drawn from the imports of now, and every file that it names is there."""

import importlib.util
import re

from tests.make_map import SOURCE
from tests.pages import ROOT

PAGE = ROOT / "docs" / "architecture.md"


def test_the_picture_is_current() -> None:
    spec = importlib.util.spec_from_file_location("house_picture", ROOT / "docs" / "house_picture.py")
    assert spec is not None
    assert spec.loader is not None
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    assert picture.PICTURE.read_text() == picture.drawing(picture.rooms()), "run `python docs/house_picture.py`"


def test_named_files_are_there() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", PAGE.read_text())
    assert len(named) > 20
    assert [name for name in named if not (SOURCE / name).exists() and not (ROOT / name).exists()] == []
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "?" in line]
    assert len(rows) == 10
