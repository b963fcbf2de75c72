"""Gradient entanglement on the page: finding, map of tokens, sentence, damaged lines. Test of report/entanglement.py, report/gradients.py."""

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.diagnose.entanglement import BOTH_FALL, TANGLED, UNTANGLED, Drift
from finegrain.errors import CheckpointError
from finegrain.ops.gradients import GradientPair
from finegrain.report.entanglement import LOOSEN, describe_ties, draw_tokens, report_entanglement
from finegrain.report.gradients import read_gradients
from finegrain.report.page import write_report
from finegrain.report.read import read_run
from finegrain.train.entanglement import MeasuredPair, TokenMap
from tests.report.runs import pairs, write_run
from tests.report.test_page import HOSTILE

BAD = MeasuredPair(3, GradientPair(8.0, 2.0, 5.0), 0.05, 0.05, Drift(-0.2, -0.85), Drift(-0.1, -0.3))
GOOD = MeasuredPair(4, GradientPair(0.5, 2.0, 2.0), 0.05, 0.05, Drift(0.2, -0.2), Drift(0.1, 0.1))
GRAM = np.array([[4.0, 0.0, 0.5], [0.0, 3.0, 0.0], [0.0, 0.0, 0.5]])
MAP = TokenMap(3, (" the", " cat", ""), (" the", " cat", " dog"), GRAM, GRAM / 4 - 0.25, cut=False)


def lines(measured: list[MeasuredPair], tokens: TokenMap | None = MAP, step: int = 1) -> list[dict[str, Any]]:
    found = [{"step": step, "objective": "dpo", **pair.as_json()} for pair in measured]
    return found if tokens is None else [{"step": step, "objective": "dpo", "tokens": tokens.as_json()}, *found]


def write(folder: Path, found: list[dict[str, Any]]) -> Path:
    write_run(folder, pairs(4))
    (folder / "gradients.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    return folder


def test_lines_come_back() -> None:
    found = read_gradients(json.loads(json.dumps(lines([BAD, replace(GOOD, observed=None)], step=5))), "here")
    assert found is not None
    assert (found.objective, list(found.steps), found.pairs) == ("dpo", [5, 5], [BAD, replace(GOOD, observed=None)])
    assert found.tokens is not None
    np.testing.assert_allclose(found.tokens.gram, GRAM)
    assert (found.tokens.chosen, found.tokens.rejected, found.tokens.row, found.tokens.cut) == (MAP.chosen, MAP.rejected, 3, False)
    assert read_gradients([], "here") is None
    assert read_gradients(lines([replace(BAD, predicted=Drift(float("nan"), 0.0))], None), "here") is None


@pytest.mark.parametrize("spoil", [{"slopes": [1]}, {"gradients": "many"}, {"predicted": [1, 2, 3]}, {"row": None}])
def test_a_damaged_line_is_named(spoil: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"gradients\.jsonl:2 is not a measured pair"):
        read_gradients([lines([BAD], None)[0], lines([BAD], None)[0] | spoil], "gradients.jsonl")


def test_the_finding(tmp_path: Path) -> None:
    block = report_entanglement(read_run(write(tmp_path / "run", lines([BAD] * 25 + [GOOD]))))
    assert block is not None
    assert (block.verdict, block.tone) == (TANGLED, "bad")
    numbers = {shown.name: shown for shown in block.numbers}
    assert numbers["pairs whose step means: both fall"].value == "96.2 %"
    assert numbers["answers that moved as predicted"].value == "98.1 %"
    assert "26 pairs" in numbers["cosine of both gradients"].interval
    assert f"row 3 at step 1, condition ratio 2 ({BOTH_FALL})" in block.notes[0]
    good = report_entanglement(read_run(write(tmp_path / "good", lines([GOOD] * 60))))
    assert good is not None
    assert (good.verdict, good.tone) == (UNTANGLED, "good")
    assert report_entanglement(read_run(write_run(tmp_path / "none", pairs(4)))) is None


def test_the_sentence_names_the_tokens_that_tie_and_what_loosens() -> None:
    """Of 8 in sum the chosen " the" carries 4.5 and " cat" 3; the same token in both answers 7."""
    words = describe_ties(MAP, BAD)
    assert words.startswith("Row 3 (both fall: condition ratio 2): of the chosen answer's tokens “ the” (56.2 %), “ cat” (37.5 %)")
    assert "occurrences of one token in both answers account for 87.5 % of it. " + LOOSEN in words
    assert "The tie is too weak to turn a step around." in describe_ties(MAP, GOOD)
    assert "the first tokens of its answers" in describe_ties(replace(MAP, cut=True), BAD)
    assert (
        describe_ties(replace(MAP, gram=-GRAM), None)
        == "Row 3: the gradients of its two answers do not point the same way, so no tokens tie them together."
    )


def test_the_page_has_the_map_and_no_hostile_token(tmp_path: Path) -> None:
    hostile = replace(MAP, chosen=(" the", HOSTILE, ""), rejected=(" the", " cat", HOSTILE))
    folder = write(tmp_path / "run", lines([BAD, GOOD], hostile))
    page = write_report(folder).read_text()
    assert "<img" not in page
    assert page.count("<script") == 2
    text = html.unescape(page)
    assert "token against token" in text
    assert "Row 3 (both fall: condition ratio 2)" in text
    picture = draw_tokens(read_run(folder))
    assert picture is not None
    assert picture.cells[0][0] == ("p4", "+0.75")
    assert picture.cells[1][0] == ("n2", "−0.25")
    assert picture.chosen[2] == "(end or no characters)"
    assert '<td class="p4">+0.75</td>' in page
    assert draw_tokens(read_run(write(tmp_path / "bare", lines([BAD], None)))) is None
