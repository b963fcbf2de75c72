"""`finegrain inspect` from argv to a page, and the report every training run leaves; faults planted into really trained tiny runs."""

import json
import re
from pathlib import Path

import pytest

from finegrain.diagnose import coverage, displacement
from finegrain.report.pairs import read_pairs
from finegrain.types import CharSpan
from tests.recipes.command import Command
from tests.recipes.reward_folder import moved
from tests.tiny import save_tiny, write_rows

LIKELIHOOD = "Chosen and rejected log-probability"


def test_a_run_leaves_pairs_and_a_page(command: Command, tmp_path: Path) -> None:
    done = command.prefer("run", "objective:dpo", "credit:asr", "--samples", "1", "--epochs", "2", "--lr", "1e-3", "--holdout", "0.25")
    assert done.code == 0, done.error
    assert f"report: {tmp_path / 'run' / 'report.html'}" in done.error
    page = (tmp_path / "run" / "report.html").read_text()
    assert "with objective dpo and credit asr" in page
    pairs = read_pairs(tmp_path / "run")
    assert pairs is not None
    assert [pair.held_out for pair in pairs] == [True] * 6 + [False] * 18
    assert len({pair.row for pair in pairs}) == 24
    rewards = []
    for pair in pairs:
        for answer in pair.answers.values():
            assert answer.before is not None
            assert (answer.before[answer.mask] < 0).all()
            assert (answer.weight is None) == pair.held_out, "credit is made for training rows"
    held = [pair for pair in pairs if pair.held_out]
    rewards = [0.1 * pair.margin for pair in held]
    assert sum(rewards) / 6 == pytest.approx(command.record("run")["evaluation"]["eval_margin"]["mean"], abs=1e-3), "the evaluation's own margin"
    before = (tmp_path / "run" / "report.html").stat().st_mtime_ns
    again = command("inspect", tmp_path / "run")
    assert again.code == 0, again.error
    assert again.result["page"] == str(tmp_path / "run" / "report.html")
    assert (tmp_path / "run" / "report.html").stat().st_mtime_ns > before


def test_fewer_pairs_or_none(command: Command, tmp_path: Path) -> None:
    assert command.prefer("few", "--examined", "5", "--max-steps", "1").code == 0
    found = read_pairs(tmp_path / "few")
    assert found is not None
    assert [pair.held_out for pair in found] == [True, True, False, False, False]
    assert command.prefer("none", "--examined", "0", "--max-steps", "1").code == 0
    assert read_pairs(tmp_path / "none") is None
    assert "pairs.jsonl is absent" in (tmp_path / "none" / "report.html").read_text()


@pytest.mark.parametrize(("objective", "has_ratio"), [("simpo", True), ("kto", True), ("nll", True)])
def test_runs_without_reference_or_with_single_answers(objective: str, has_ratio: bool, command: Command, tmp_path: Path) -> None:
    name = "sft" if objective == "nll" else "prefer"
    done = command.prefer("run", f"objective:{objective}", "--max-steps", "2", "--lr", "1e-2", command=name)
    assert done.code == 0, done.error
    pairs = read_pairs(tmp_path / "run")
    assert pairs is not None
    assert all((answer.ratio is not None) is has_ratio for pair in pairs for answer in pair.answers.values())
    assert set(pairs[0].answers) == ({"chosen", "rejected"} if objective == "simpo" else {"answer"})
    assert command("inspect", tmp_path / "run").result["verdicts"][0].keys() >= {"run"}


def test_adapters_and_reward_models_have_a_page(command: Command, tmp_path: Path) -> None:
    assert command.prefer("lora", "--lora.rank", "2", "--max-steps", "2", "--lr", "1e-2").code == 0
    pairs = read_pairs(tmp_path / "lora")
    assert pairs is not None
    assert any(abs(pair.margin) > 1e-3 for pair in pairs)
    done = command("reward", "--model", command.model, "--data", command.data, "--out", tmp_path / "rm", "--batch-size", "4", "--max-steps", "2")
    assert done.code == 0, done.error
    page = (tmp_path / "rm" / "report.html").read_text()
    assert "with head token and loss bradley-terry" in page
    assert 'id="reward"' in page


def test_a_displaced_run_is_named(command: Command, tmp_path: Path) -> None:
    """An objective that lowers both answers, the rejected ones further, is what displacement looks like."""
    done = command.prefer("run", "objective:apo-down", "--lr", "3e-3", "--epochs", "3", "--objective.beta", "1")
    assert done.code == 0, done.error
    verdict = command("inspect", tmp_path / "run").result["verdicts"][0][LIKELIHOOD]
    pairs = read_pairs(tmp_path / "run") or []
    assert sum(pair.change("rejected") for pair in pairs) < sum(pair.change("chosen") for pair in pairs) < 0
    assert verdict == displacement.DISPLACED
    assert "Likelihood displacement" in (tmp_path / "run" / "report.html").read_text()


def test_a_mask_that_drops_everything_is_refused_or_named(command: Command, tmp_path: Path) -> None:
    """Weights of 0 are refused before training; weights next to 0 train next to nothing, and the page says so."""
    (tmp_path / "mine.py").write_text(
        "def nothing(prompt, response, role, row):\n    return [(0, len(response), 0.0)]\n\n"
        "def little(prompt, response, role, row):\n    return [(0, len(response), 0.001)]\n"
    )
    refused = command.prefer("none", "credit:function", "--credit.path", f"{tmp_path / 'mine.py'}:nothing", "--max-steps", "2")
    assert refused.code == 5
    assert "no token would train" in refused.error
    done = command.prefer("run", "credit:function", "--credit.path", f"{tmp_path / 'mine.py'}:little", "--max-steps", "2")
    assert done.code == 0, done.error
    assert command("inspect", tmp_path / "run").result["verdicts"][0]["What the credit keeps"] == coverage.DROPS_ALL


def test_planted_truth_reaches_the_page(command: Command, tmp_path: Path) -> None:
    rows = [{"prompt": f"why {i} ?", "chosen": " good people said yes", "rejected": " bad words", "rejected_truth": [[1, 4, -1.0]]} for i in range(8)]
    done = command.prefer("run", "--data", write_rows(tmp_path / "truth.jsonl", rows), "--max-steps", "1")
    assert done.code == 0, done.error
    pairs = read_pairs(tmp_path / "run") or []
    assert {pair.answers["rejected"].truth for pair in pairs} == {(CharSpan(1, 4, -1.0),)}
    assert {pair.answers["chosen"].truth for pair in pairs} == {None}


def test_a_model_without_training(command: Command, tmp_path: Path) -> None:
    moved(command.model, tmp_path / "run", 1)
    rows = [{"prompt": "why ?", "chosen": " good", "rejected": " bad words", "chosen_spans": [[0, 5, 1.0]]} for _ in range(4)]
    data = write_rows(tmp_path / "own.jsonl", rows)
    page = tmp_path / "pages" / "one.html"
    alone = command("inspect", "--model", tmp_path / "run", "--data", data, "--out", page)
    assert alone.code == 0, alone.error
    assert "Nothing was trained" in page.read_text()
    assert "give --reference M" in page.read_text()
    against = command("inspect", "--model", tmp_path / "run", "--data", command.data, "--reference", command.model, "--limit", "10", "--out", page)
    assert against.code == 0, against.error
    assert LIKELIHOOD in against.result["verdicts"][0]
    assert "scored 10 rows" in page.read_text()


def test_side_by_side(command: Command, tmp_path: Path) -> None:
    command.first(8)
    assert command.prefer("one", "--max-steps", "1").code == 0
    assert command.prefer("two", "--max-steps", "1", "objective:ipo", "--lr", "1e-2").code == 0
    done = command("inspect", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both.html")
    assert done.code == 0, done.error
    page = (tmp_path / "both.html").read_text()
    assert "Side by side" in page
    assert re.search(r"\d+ shared pairs", page)
    assert "objective.method (differs)" in page


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "expected run directories, or --model M and --data D"),
        (["--model", "m"], 2, "expected run directories"),
        (["here", "--model", "m", "--data", "d"], 2, "not both"),
        (["--model", "m", "--data", "d"], 2, "--out PAGE.html"),
        (
            ["--model", "m", "--data", "d", "--limit", "0", "--out", "x.html"],
            2,
            "limit must be a whole number of at least 1, got 0 (a setting of InspectSettings)",
        ),
        (["nowhere"], 7, "nowhere holds no run"),
        (["nowhere", "--out", "."], 2, "is a folder"),
        (["--model", "nomodel", "--data", "d", "--out", "x.html"], 4, "no model at nomodel"),
    ],
)
def test_mistakes(arguments: list[str], code: int, words: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("inspect", *arguments)
    assert done.code == code
    assert words in done.error


def test_a_reference_with_another_tokenizer_is_refused(command: Command, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {("x" + token if token == "q" else token): place for token, place in tokenizer["model"]["vocab"].items()}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = command("inspect", "--model", command.model, "--data", command.data, "--reference", other, "--out", tmp_path / "x.html")
    assert done.code == 2, done.error
    assert "another tokenizer" in done.error
