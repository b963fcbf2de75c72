"""Answers over time: which are chosen, what a card holds, and that every character is kept where it was."""

from pathlib import Path

import numpy as np
import pytest

from finegrain.report.online import SampledAnswer, read_rollouts
from finegrain.report.online_answers import choose_times, collect_histories, pack_histories, pack_history, spread
from finegrain.report.page import render
from finegrain.report.read import read_run
from finegrain.types import Json
from tests.report.online import answer, metrics, rollouts, write_online
from tests.report.test_page import data_of, decoded


def read(folder: Path, lines: list[Json]) -> list[SampledAnswer]:
    return read_rollouts(write_online(folder, metrics(12), lines))


def test_the_same_prompt_at_the_first_the_middle_and_the_last_buffer(tmp_path: Path) -> None:
    found = collect_histories(read(tmp_path / "run", rollouts(48)))
    assert len(found) == 5
    assert [each.buffer for each in choose_times(found[0])] == [0, 24, 47]
    card = pack_history(found[0])
    assert card["d"] == ["3 of its 13 buffers"]
    assert [side["n"] for side in card["a"]] == ["buffer 0", "buffer 24", "buffer 47"]
    assert card["k"][10] == pytest.approx(0.1)
    assert card["k"][12] == 47
    assert list(card["a"][0]["s"]) == ["reward", "advantage", "kl"]


def test_a_prompt_of_one_buffer_has_its_answers_side_by_side_and_buffers_are_spread(tmp_path: Path) -> None:
    lines = [{**answer(number, number, f"answer {sample} of {number}"), "sample": sample} for number in range(9) for sample in range(2)]
    cards, left_out = pack_histories([read(tmp_path / "run", lines)])
    assert left_out == 0
    assert [card["r"] for card in cards[0]] == [8, 0, 4, 2, 6, 1, 3, 5, 7]
    assert [side["n"] for side in cards[0][0]["a"]] == ["buffer 8", "buffer 8, sample 1"]
    assert cards[0][0]["k"][10] is None
    two_each = [answer(number, 10 * number + row, f"of {row}") for number in range(3) for row in range(2)]
    cards, _ = pack_histories([read(tmp_path / "two", two_each)])
    assert [card["r"] for card in cards[0]] == [20, 0, 10, 21, 1, 11], "one prompt of each buffer before the second of any"
    assert [card["k"][13] for card in cards[0]] == list(range(6))
    assert spread([]) == []
    assert spread([3]) == [3]
    assert sorted(spread(list(range(100)))) == list(range(100))


def test_signals_and_text_come_back(tmp_path: Path) -> None:
    """Astral characters are two units of JavaScript; a gap without a token stands alone and has no number; what follows is kept."""
    text = "a\U0001f600b[tool]c rest"
    spans = [[0, 1, 0.5, 1.0, 0.1], [1, 3, -0.5, None, 0.2], [9, 10, 0.0, -1.0, 0.3], [10, 10, 2.0, 0.0, 0.0]]
    line = {**answer(0, 1, "x"), "text": text, "spans": spans, "ended": "stop_string"}
    side = pack_history(read(tmp_path / "run", [line]))["a"][0]
    assert side["t"] + side["x"] == text
    assert side["m"] == "11011"
    rewards = decoded(side["s"]["reward"], 5)
    assert rewards[[0, 1, 3, 4]] == pytest.approx([0.5, -0.5, 0.0, 2.0], abs=0.01)
    assert np.isnan(rewards[2])
    assert np.isnan(decoded(side["s"]["advantage"], 5)[1])
    assert side["e"] == "ended by a stop string"
    assert not side["cut"]


def test_a_token_that_shares_its_character_with_the_one_before_has_none(tmp_path: Path) -> None:
    line = {**answer(0, 1, "x"), "text": "é!", "spans": [[0, 1, 0.1, 0, 0], [0, 1, 0.2, 0, 0], [1, 2, 0.3, 0, 0]]}
    side = pack_history(read(tmp_path / "run", [line]))["a"][0]
    assert side["t"] == "é!"
    assert "m" not in side
    assert decoded(side["s"]["reward"], 3) == pytest.approx([0.1, 0.2, 0.3], abs=0.001)


def test_the_page_holds_the_cards_within_its_budget(tmp_path: Path) -> None:
    run = read_run(write_online(tmp_path / "run", metrics(12), rollouts(12)))
    page = render([run])
    assert len(data_of(page)["runs"][0]["pairs"]) == 5
    assert "The same prompt at the first" in page
    packed, left_out = pack_histories([run.rollouts], budget=2500)
    assert 0 < len(packed[0]) < 5
    assert left_out == 5 - len(packed[0])
