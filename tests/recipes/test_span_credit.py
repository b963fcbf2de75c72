"""Spans of several annotators through a run: credit, report.

Test of data/annotators.py, recipes/training/credit_context.py, recipes/inspection/pairs.py, report/pairs.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recipes.command import Command
from tests.tiny import write_rows


def annotated(count: int = 12, raters: int = 3) -> list[dict[str, Any]]:
    """Pairs whose rejected answer's first words several people marked as errors, not always the same people."""
    rows = []
    for number in range(count):
        mark = {"start": 0, "end": 9, "value": -1, "aspect": "factuality"}
        people = {f"rater{rater}": [mark] if (number + rater) % 3 else [] for rater in range(raters)}
        pair = {"prompt": f"Question {number}? ", "chosen": f"A good answer {number}.", "rejected": f"Wrong one, answer {number}."}
        rows.append({**pair, "rejected_spans_by_rater": people, "chosen_spans_by_rater": {name: [] for name in people}})
    return rows


def test_confidence_reads_the_annotators_mean_and_deviation(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "marked.jsonl", annotated())
    out = tmp_path / "run"
    flags = ("objective:dpo", "credit:confidence", "--holdout", "0")
    done = command("prefer", "--model", command.model, "--data", data, "--out", out, *flags)
    assert done.code == 0, done.error
    pairs = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    answer = pairs[0]["answers"]["rejected"]
    weights = np.array(answer["weight"])
    assert ((weights > 0) & (weights < 1)).any(), "an uncertain token has a weight between the two"
    assert np.array(answer["reward_std"]).max() > 0, "where the annotators differ"
    pulls = {role: np.array(own["pull"]) for role, own in pairs[-1]["answers"].items()}
    assert sum(np.abs(pull).sum() for pull in pulls.values()) == pytest.approx(1.0, abs=0.01)
    assert (pulls["chosen"] >= 0).all()
    assert (pulls["rejected"] <= 0).all()
    assert answer["annotators"] == ["rater0", "rater1", "rater2"]
    assert answer["spans"][0] == {"start": 0, "end": 9, "value": -1.0, "aspect": "factuality", "annotator": answer["spans"][0]["annotator"]}
    gate = json.loads((out / "gate.json").read_text())
    assert gate["agreement"]["answers_by_annotators"] == {"3": 24}
    assert "factuality" in (out / "report.html").read_text()


def test_one_annotator_has_no_deviation_and_is_told_so(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "marked.jsonl", annotated(raters=1))
    done = command("prefer", "--model", command.model, "--data", data, "--out", tmp_path / "run", "objective:dpo", "credit:confidence")
    assert done.code != 0
    assert "no answer has two annotators, and no span states a std" in done.error


def test_ranked_answers_and_corrections_train_a_plain_pairwise_objective(command: Command, tmp_path: Path) -> None:
    ranked = [{"prompt": f"q{n} ", "answers": ["good", "bad", "worse"], "ranks": [1, 2, 3]} for n in range(6)]
    corrected = [{"prompt": f"q{n} ", "original": "bad", "corrected": "good"} for n in range(6)]
    for name, rows, made in (("ranked", ranked, 18), ("corrections", corrected, 6)):
        data, out = write_rows(tmp_path / f"{name}.jsonl", rows), tmp_path / name
        done = command("prefer", "--model", command.model, "--data", data, "--out", out, "objective:dpo", "--holdout", "0", "--max-steps", "1")
        assert done.code == 0, done.error
        report = json.loads((out / "run.json").read_text())["data"]
        assert report["kept"] == made
        assert f"{made} preference examples made of {name}" in " ".join(report["messages"])


def test_check_data_shows_the_shapes(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "r.jsonl", [{"prompt": "q ", "answers": ["good", "bad", "bad"], "ranks": [1, 2, 2]}])
    done = command("check-data", "--data", data)
    assert done.result["shape"] == "ranked"
    assert "ranked answers: 1 rows, 1 ranked examples would be trained on" in done.error
    assert command("check-data", "--data", data, "--shape", "preference").result["examples_left"] == 1, "the repeated answer counts once"
    done = command("check-data", "--data", data, "--shape", "correction")
    assert "ranked answers has no corrections" in done.error


def test_a_run_says_that_it_does_not_learn_from_peoples_marks(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "marked.jsonl", annotated(raters=1))
    alone = [{"prompt": row["prompt"], "response": row["rejected"], "spans": [{"start": 0, "end": 9, "value": -1}]} for row in annotated()]
    single = write_rows(tmp_path / "single.jsonl", alone)
    common = ("--model", command.model, "--holdout", "0", "--max-steps", "1", "--samples", "0", "--examined", "0")
    for line, file, count, words in (
        (("prefer", "objective:dpo"), data, 24, "objective:token-distillation"),
        (("sft",), single, 12, "it trains on marked passages as on all others; add credit:asr"),
        (("reward", "head:token"), data, 24, "loss:span-labels"),
        (
            ("prefer", "objective:dpo", "credit:compose", "credit.signal:lexical", "credit.allocation:top-k"),
            data,
            24,
            "nor the credit of this run",
        ),
        (("reward", "head:segment", "head.segmenter:windows"), data, 24, "loss:span-labels"),
        (("prefer", "objective:token-distillation", "credit:token-reward"), data, 0, ""),
        (("sft", "credit:asr"), single, 0, ""),
        (("reward", "head:token", "loss:span-labels"), data, 0, ""),
    ):
        out = tmp_path / "-".join(line).replace(":", "-")
        done = command(line[0], *common, "--data", file, "--out", out, *line[1:])
        assert done.code == 0, done.error
        told = json.loads((out / "run.json").read_text()).get("unread_spans")
        assert (told is None) == (not count), line
        if count:
            assert told.startswith(f"spans: {count} answers are annotated")
            assert words in told
            assert told in done.error
