"""Measures of text as rewards: their columns, what they say, and the laws of rewards."""

import json
from collections.abc import Callable

import pytest

from finegrain.ops.readability import count_text, flesch_kincaid
from finegrain.scoring.opening import open_reward
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.sources import RewardOptions
from tests.recipes.command import Command
from tests.recipes.online_runs import online
from tests.scoring.laws import LAWS, Opened
from tests.tiny import write_rows

HARD, EASY = "The physician administered the medication immediately.", "The doctor gave the pill. Fast."
ROWS = [{"prompt": HARD, "chosen": EASY, "rejected": HARD, "original": HARD, "simple": [EASY, "The doctor gave it."]}]


def scored(command: Command, source: str) -> tuple[float | None, float | None]:
    """Of the chosen and of the rejected answer."""
    data, out = write_rows(command.folder / "rows.jsonl", ROWS), command.folder / "scores.jsonl"
    out.unlink(missing_ok=True)
    done = command("score", "--reward", source, "--data", data, "--out", out)
    assert done.code == 0, done.error
    chosen, rejected = (json.loads(line)["score"]["mean"] for line in out.read_text().splitlines())
    return chosen, rejected


def test_every_measure_tells_the_texts_apart(command: Command) -> None:
    easy, hard = scored(command, "measure:fkgl")
    assert easy == pytest.approx(flesch_kincaid(count_text(EASY)))
    assert easy < hard  # type: ignore[operator]
    easy, hard = scored(command, "measure:fre")
    assert easy > hard  # type: ignore[operator]
    for source in ("measure:similarity", "measure:similarity:prompt", "measure:similarity:original"):
        easy, hard = scored(command, source)
        assert (hard, 0 < easy < 1) == (pytest.approx(1.0), True)  # type: ignore[operator]
    assert scored(command, "measure:length:original") == (0.0, 0.0)
    for source in ("measure:sari:original:simple", "measure:sari:prompt:simple"):
        easy, hard = scored(command, source)
        assert easy > 0.5 > hard  # type: ignore[operator]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("measure:flesh", "measure"),
        ("measure:fkgl:original", "expected measure:fkgl"),
        ("measure:sari", "COLUMN_OF_SOURCE:COLUMN_OF_REFERENCES"),
        ("measure:sari:original", "COLUMN_OF_REFERENCES"),
        ("measure:similarity:", "expected"),
        ("measure:similarity:absent", "no column absent"),
        ("measure:similarity:simple", "holds list"),
        ("measure:sari:original:absent", "no column absent"),
    ],
)
def test_what_it_cannot_read(command: Command, source: str, words: str) -> None:
    data = write_rows(command.folder / "rows.jsonl", ROWS)
    done = command("score", "--reward", source, "--data", data, "--out", command.folder / "scores.jsonl")
    assert done.code != 0
    assert words in done.error
    assert "Traceback" not in done.error


def test_a_text_without_words_has_no_readability(command: Command) -> None:
    data, out = write_rows(command.folder / "rows.jsonl", [{"prompt": "why ?", "completion": "..."}]), command.folder / "scores.jsonl"
    assert command("score", "--reward", "measure:fkgl", "--data", data, "--out", out).code == 0
    assert json.loads(out.read_text())["score"]["mean"] is None


def test_in_online_training_by_weight_and_as_gold(command: Command) -> None:
    asked = ["--reward", "measure:similarity", "--reward", "measure:fre", "--reward-weights", "1", "0.01", "--gold", "measure:sari:prompt:answer"]
    done = online(command, "run", *asked, "algorithm:grpo", "--dry-run")
    assert done.code == 0, done.error
    first = done.result["first_buffer"]
    assert {"rewards/similarity/mean", "rewards/fre/mean", "gold/sari/mean"} <= first.keys()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("source", ["measure:fkgl", "measure:similarity"])
def test_laws(law: Callable[[Opened], None], source: str) -> None:
    options = RewardOptions(runtime=lambda: open_runtime("cpu", "float64"), max_length=64)
    law(lambda: open_reward(source, options))
