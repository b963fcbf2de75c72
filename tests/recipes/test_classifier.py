"""`finegrain reward classifier`: piles of text, groups held out whole, what it says of length, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.recipes.command import Command
from tests.tiny import write_rows

HARD, EASY = ["physician", "administered", "medication", "prior", "subsequent"], ["doctor", "gave", "pill", "before", "next"]


def piles(folder: Path, *, pages: int = 12) -> Path:
    """Pages of three rows, each an original and a simple text."""
    rng = np.random.default_rng(0)
    text = lambda words: " ".join(["the", *rng.choice(words, 3), "to", *rng.choice([*words, "patient"], 2)])
    rows = [{"page": page, "original": text(HARD), "simple": text(EASY)} for page in range(pages) for _ in range(3)]
    return write_rows(folder / "piles.jsonl", rows)


def test_two_piles_become_a_reward(command: Command) -> None:
    data, out = piles(command.folder), command.folder / "simple"
    done = command("reward", "classifier", "--data", data, "--columns", "original", "simple", "--group", "page", "--out", out, "--form.clip", "9")
    assert done.code == 0, done.error
    held = done.result["held_out"]
    assert (done.result["groups"], held["groups"], held["texts"]) == (12, 2, 12)
    assert held["auroc"]["mean"] > 0.9
    assert held["auroc_length_only"]["mean"] == 0.5
    assert "by the number of words alone 0.500" in done.error
    assert done.result["reward"]["label"] == "simple"
    again = command.folder / "again"
    assert command("reward", "classifier", "--data", data, "--columns", "original", "simple", "--group", "page", "--out", again).code == 0
    assert (out / "weights.safetensors").read_bytes() == (again / "weights.safetensors").read_bytes()
    pair = {"prompt": "why ?", "chosen": "the doctor gave a pill", "rejected": "the physician administered"}
    pairs = write_rows(command.folder / "pairs.jsonl", [pair])
    scores = command.folder / "scores.jsonl"
    assert command("score", "--reward", f"classifier:{out}", "--data", pairs, "--out", scores).code == 0
    chosen, rejected = (json.loads(line)["score"]["mean"] for line in scores.read_text().splitlines())
    assert -9 <= rejected < chosen - 1
    baseline = command.folder / "baseline.jsonl"
    samples = write_rows(command.folder / "samples.jsonl", [{"prompt": "why ?", "responses": ["a pill", "the medication"]}])
    assert command("score", "baseline", "--reward", f"classifier:{out}", "--data", samples, "--out", baseline).code == 0
    assert json.loads(baseline.read_text().splitlines()[0])["baseline_of"]["weights"]


def test_rows_with_a_label_and_several_classes(command: Command) -> None:
    rows = [{"text": f"{word} {number}", "label": word, "n": number} for number in range(20) for word in ("apple", "pear", "plum")]
    rows += [{"text": None, "label": "plum", "n": 1}, {"text": "x", "label": None, "n": 1}]
    data, out = write_rows(command.folder / "rows.jsonl", rows), command.folder / "fruit"
    done = command("reward", "classifier", "--data", data, "--target", "pear", "--unit", "char", "--longest", "3", "--out", out)
    assert done.code == 0, done.error
    assert done.result["classes"] == {"apple": 20, "pear": 20, "plum": 20}
    assert done.result["held_out"]["accuracy"]["mean"] == 1.0
    assert done.result["findings"][0]["count"] == 2
    calibrated = command.folder / "plum.json"
    done = command("reward", "calibrate", "--model", out, "--data", data, "--target", "plum", "--out", calibrated, "--device", "cpu")
    assert done.code == 0, done.error
    assert done.result["classes"] == ["apple", "pear", "plum"]
    scores = command.folder / "scores.jsonl"
    asked = write_rows(command.folder / "asked.jsonl", [{"prompt": "?", "chosen": "plum 7", "rejected": "pear 7"}])
    assert command("score", "--reward", f"classifier:{calibrated}", "--data", asked, "--out", scores).code == 0
    chosen, rejected = (json.loads(line)["score"]["mean"] for line in scores.read_text().splitlines())
    assert chosen > rejected


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--columns", "original"], "names one class"),
        (["--columns", "original", "original"], "twice"),
        (["--columns", "original", "simple", "--target", "easy"], "none of --columns"),
        (["--columns", "original", "easy"], "no column easy"),
        (["--text", "simple", "--label", "page", "--target", "99"], "none of the classes"),
        (["--columns", "original", "simple", "--group", "site"], "no column site"),
    ],
)
def test_what_is_refused(command: Command, asked: list[str], words: str) -> None:
    done = command("reward", "classifier", "--data", piles(command.folder), "--out", command.folder / "out", *asked)
    assert done.code != 0
    assert words in done.error
    assert "Traceback" not in done.error
    assert not (command.folder / "out").exists()


def test_one_group_cannot_be_held_out(command: Command) -> None:
    data = piles(command.folder, pages=2)
    done = command("reward", "classifier", "--data", data, "--columns", "original", "simple", "--group", "page", "--out", command.folder / "out")
    assert done.code == 0, done.error
    assert done.result["held_out"] is None
    assert "calibrated on training texts" in done.error
    assert "was not tested" in done.error
