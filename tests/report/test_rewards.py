"""Reward models on the page: verdicts on planted faults, the drawings by hand, the list of confident mistakes, what is written and read back.

Test of report/reward_findings.py, report/reward_figures.py.
"""

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.diagnose import confidence, length
from finegrain.report.page import render
from finegrain.report.pairs import ExaminedPair, read_pairs
from finegrain.report.read import Run, read_run
from finegrain.report.reward_figures import find_mistakes, make_reward_view
from finegrain.report.reward_findings import split_pairs
from finegrain.report.verdicts import make_blocks
from finegrain.run_record import RunRecord
from tests.report.rewards import scored
from tests.report.runs import pairs, write_run
from tests.report.test_page import data_of, decoded

ORDER, HONESTY, LENGTH, DOUBT = "Pairs in order", "Confidence against accuracy", "Length against score", "Standard deviation against mistakes"


def verdicts(examined: list[ExaminedPair]) -> dict[str, str]:
    return {block.title: block.verdict for block in make_blocks(Run(name="run", record=RunRecord(), pairs=examined))}


def with_margins(margins: list[float], **same: Any) -> list[ExaminedPair]:
    """Held-out pairs of these score differences."""
    made = []
    for pair, margin in zip(scored(len(margins)), margins, strict=True):
        answers = {role: replace(answer, score=margin if role == "chosen" else 0.0) for role, answer in pair.answers.items()}
        made.append(replace(pair, answers=answers, held_out=True, **same))
    return made


def test_a_reward_model_that_scores_length_is_named() -> None:
    found = verdicts(scored(per_token=1.0))
    assert found[LENGTH] == length.HACKED
    assert found[ORDER] == confidence.GUESSES, "length says nothing of these labels"
    assert found[HONESTY] == confidence.OVER


def test_an_honest_reward_model_is_not_accused() -> None:
    found = verdicts(scored(600))
    own = {ORDER: confidence.RANKS, HONESTY: confidence.HONEST, LENGTH: length.UNRELATED, DOUBT: confidence.UNDECIDED}
    assert {title: found[title] for title in own} == own
    tones = {block.title: block.tone for block in make_blocks(Run(name="run", record=RunRecord(), pairs=scored(600)))}
    assert "bad" not in tones.values()


@pytest.mark.parametrize(("claims", "verdict"), [(6.0, confidence.OVER), (0.05, confidence.UNDER)])
def test_too_sure_and_not_sure_enough(claims: float, verdict: str) -> None:
    assert verdicts(scored(600, claims=claims))[HONESTY] == verdict


def test_swapped_labels_are_named() -> None:
    assert verdicts(scored(200, claims=-1.0))[ORDER] == confidence.REVERSED


def test_a_deviation_that_finds_mistakes() -> None:
    """Wrong pairs doubt more; without deviations there is no such finding."""
    doubting = [
        replace(pair, answers={role: replace(answer, score_std=2.0 if pair.reward_margin < 0 else 0.5) for role, answer in pair.answers.items()})
        for pair in scored()
    ]
    assert verdicts(doubting)[DOUBT] == confidence.KNOWS
    assert DOUBT not in verdicts(scored(std=False))


def test_verdicts_are_those_of_the_held_out_pairs() -> None:
    """Training pairs all in order, held-out pairs all wrong: the verdict is of the latter, and both are shown."""
    held, trained = with_margins([-2.0] * 30), [replace(pair, row=pair.row + 30, held_out=False) for pair in with_margins([2.0] * 30)]
    block = next(block for block in make_blocks(Run(name="run", record=RunRecord(), pairs=held + trained)) if block.title == ORDER)
    assert block.verdict == confidence.REVERSED
    shown = {entry.name: entry.value for entry in block.numbers}
    assert (shown["held-out pairs in order"], shown["training pairs in order"]) == ("0 %", "100 %")
    only = next(block for block in make_blocks(Run(name="run", record=RunRecord(), pairs=trained)) if block.title == ORDER)
    assert only.verdict == confidence.RANKS
    assert only.words.startswith("On training pairs only")


def test_bins_and_error_by_hand() -> None:
    """ln 3 is a confidence of 3/4: three right of four is honest, error 0. The same all wrong: error 3/4."""
    sure = float(np.log(3))
    (part,) = split_pairs(Run(name="run", record=RunRecord(), pairs=with_margins([sure, sure, sure, -sure])))
    ((where, accuracy),) = part.bins
    assert (where, accuracy.mean, accuracy.rows) == (pytest.approx(0.75), 0.75, 4)
    assert (accuracy.low, accuracy.high) == (pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4)), "Wilson's interval of 3 of 4"
    for margins, error in (([sure, sure, sure, -sure], "0"), ([-sure] * 4, "0.75")):
        found = make_blocks(Run(name="run", record=RunRecord(), pairs=with_margins(margins)))
        numbers = {entry.name: entry.value for block in found for entry in block.numbers}
        assert numbers["expected calibration error, held-out"].removeprefix("−").startswith(error)


def test_confident_mistakes_are_listed_worst_first() -> None:
    """Only pairs in the wrong order, five at most; ties of the labels are no mistakes."""
    (part,) = split_pairs(Run(name="run", record=RunRecord(), pairs=with_margins([-1.0, 3.0, -4.0, -2.0, -0.5, -0.1, -0.2, 0.0])))
    assert [line.row for line in find_mistakes(part)] == [2, 3, 0, 4, 6]
    assert find_mistakes(part)[0].chance == "1.8 %", "sigma(-4)"
    assert find_mistakes(part)[0].kind == "held-out"
    assert split_pairs(Run(name="run", record=RunRecord(), pairs=with_margins([-4.0], tie=True))) == []
    assert make_reward_view(Run(name="run", record=RunRecord(), pairs=with_margins([-4.0], tie=True))) is None


def test_what_stands_on_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", scored(), record={"command": "reward"})
    (folder / "samples.jsonl").unlink()
    page = html.unescape(render([read_run(folder)]))
    for words in (HONESTY + ", held-out pairs", HONESTY + ", training pairs", "Most confidently wrong", "expected calibration error, held-out"):
        assert words in page
    assert "What this page cannot show" not in page
    assert page.count('class="whisker"') > 4
    cells = re.findall(r'<td>([^<]*)</td><td class="interval">([^<]*)</td>', page)
    assert [cell for cell in cells if not re.search(r"\d( %)? to |no interval|recorded", cell[1])] == []
    pair = data_of(page)["runs"][0]["pairs"][0]
    worst = min(scored(), key=lambda own: own.reward_margin)
    assert pair["r"] == worst.row
    assert pair["k"][5] == pytest.approx(worst.reward_margin, abs=1e-3)
    side, answer = pair["a"][0], worst.answers["chosen"]
    assert decoded(side["s"]["std"], len(answer.mask)) == pytest.approx(answer.reward_std, abs=0.01)
    assert side["g"].startswith("0000100010")
    ends = decoded(side["s"]["segment"], len(answer.mask))
    assert answer.reward is not None
    assert ends[:4] == pytest.approx(np.full(4, answer.reward[3]), abs=0.01), "a segment's score is read at its end"


def test_a_policy_run_has_no_reward_section(tmp_path: Path) -> None:
    page = render([read_run(write_run(tmp_path / "run", pairs()))])
    assert 'id="reward"' not in page
    assert ORDER not in page


def test_scores_survive_their_file(tmp_path: Path) -> None:
    made = [replace(pair, tie=pair.row == 1) for pair in scored(3)]
    back = read_pairs(write_run(tmp_path / "run", made))
    assert back is not None
    assert [pair.tie for pair in back] == [False, True, False]
    for old, new in zip(made, back, strict=True):
        assert new.reward_margin == pytest.approx(old.reward_margin, rel=1e-4)
        assert new.reward_margin_std == pytest.approx(old.reward_margin_std, rel=1e-4)
        assert new.as_json() == old.as_json()


def test_segment_scores_skip_what_does_not_train() -> None:
    """Ids -1 have no score; a segment whose last token is masked is read at its last scored token."""
    answer = replace(
        scored(1)[0].answers["chosen"],
        reward=np.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        segment=np.array([0, 0, -1, 1, 1]),
        mask=np.array([True, True, False, True, False]),
    )
    found = answer.segment_score
    assert found is not None
    assert found[[0, 1, 3, 4]].tolist() == [2.0, 2.0, 4.0, 4.0]
    assert np.isnan(found[2])


def test_reward_models_side_by_side(tmp_path: Path) -> None:
    """The share in order is compared pair by pair: all right against three of four right is a quarter less."""
    one = write_run(tmp_path / "one", with_margins([1.0] * 20))
    two = write_run(tmp_path / "two", with_margins([1.0, 2.0, 3.0, -1.0] * 5))
    page = html.unescape(render([read_run(one), read_run(two)]))
    line = page[page.index(">Differences, paired by row<") :]
    assert "pairs in order, share" in line
    row = re.search(r"<b>(−[^<]*)</b><span class=\"interval\">([^<]*)", line)
    assert row is not None
    assert row[1].strip() == "−0.25"
    assert row[2].endswith("20 shared pairs")
    assert "chosen answers, change" not in line
