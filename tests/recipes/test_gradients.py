"""`inspect --gradients` and `--diagnose-every` from argv to a page. Test of recipes/inspection/gradients.py and of what training does with it."""

import html
import json
from pathlib import Path

import pytest

from tests.recipes.command import Command


def test_inspect_measures_the_first_step_of_an_objective(command: Command, tmp_path: Path) -> None:
    page = tmp_path / "look.html"
    for objective, name in ((), "dpo"), (("objective:simpo",), "simpo"):
        done = command(
            "inspect",
            "--model",
            command.model,
            "--data",
            command.data,
            "--gradients",
            "--limit",
            "12",
            "--dtype",
            "float32",
            "--out",
            page,
            *objective,
        )
        assert done.code == 0, done.error
        assert "gradients: two or three backward and four forward passes per pair" in done.error
        assert "Gradient entanglement" in done.result["verdicts"][0]
        text = html.unescape(page.read_text())
        assert f"plain gradient descent on {name}'s loss of one pair at a time, observed by a trial step on each pair alone" in text
        assert "token against token" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "M", "--data", "D", "objective:dpo"), "an objective is read by --gradients alone"),
        (("--model", "M", "--data", "D", "--gradients", "objective:kto"), "which KTO does not train"),
        (("--model", "M", "--data", "D", "--gradients", "objective:aot"), "measure it while training, by `finegrain prefer --diagnose-every N`"),
        (("RUN", "--gradients"), "a run measures its own by --diagnose-every N"),
    ],
)
def test_what_cannot_be_measured_is_said_before_a_model_is_loaded(command: Command, arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    out = () if "RUN" in arguments else ("--out", tmp_path / "page.html")
    done = command("inspect", *arguments, *out)
    assert done.code != 0
    assert words in done.error


def test_rows_that_are_no_pairs_are_refused(command: Command, tmp_path: Path) -> None:
    rows = [{"prompt": "why ?", "completion": "the cat sat ."}] * 3
    (tmp_path / "single.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command("inspect", "--model", command.model, "--data", tmp_path / "single.jsonl", "--gradients", "--out", tmp_path / "page.html")
    assert done.code != 0
    assert "--gradients compares the answers of pairs" in done.error


def test_a_run_with_diagnosis_and_a_gradient_rule(command: Command, tmp_path: Path) -> None:
    flags = ("--max-steps", "3", "--batch-size", "4", "--samples", "0", "--micro-tokens", "1", "--lr", "1e-3")
    done = command.prefer("run", "objective:pngd", "objective.length:loss-length", "--diagnose-every", "2", *flags)
    assert done.code == 0, done.error
    assert "--diagnose-every 2: a measurement takes, for each of up to 8 pairs, two forward and two or three backward passes" in done.error
    assert "gradient rule of PNGD: two backward passes per pair" in done.error
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("gradients/as_wanted") for line in lines] == [1.0, None, 1.0], "the rule's own steps are always as wanted"
    text = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert "plain gradient descent on pngd's loss" in text
    assert "observed by the steps of training" in text
    assert "Gradient entanglement: share of pairs" in text


def test_single_answers_have_nothing_to_diagnose(command: Command) -> None:
    done = command.prefer("run", "objective:kto", "--diagnose-every", "1")
    assert done.code != 0
    assert "which KTO does not train" in done.error
    shard = command.prefer("run", "--diagnose-every", "1", "--shard")
    assert shard.code != 0
    assert "--shard splits" in shard.error
