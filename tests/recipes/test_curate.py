"""`finegrain curate` end to end on a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from finegrain.cli import main
from finegrain.rewards.sequence import Sequence
from finegrain.train.loop import Trainer
from finegrain.train.optim import FACTOR
from finegrain.train.trainer import make_trainer
from tests.recipes.command import Command, Outcome
from tests.recipes.reward_folder import save_reward
from tests.tiny import write_pairs, write_rows


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs, every eighth with its answers exchanged, and two rows that the gate drops."""
    tmp_path = tmp_path_factory.mktemp("noisy")
    lines = [json.loads(line) for line in write_pairs(tmp_path / "clean.jsonl", 40).read_text().splitlines()]
    for row in lines[::8]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    lines.insert(3, {"prompt": "why ?", "chosen": " same", "rejected": " same"})
    lines.append({"prompt": "why ?", "chosen": " ", "rejected": " empty"})
    file = tmp_path / "noisy.jsonl"
    write_rows(file, lines)
    return file


@pytest.fixture(scope="module")
def curated(model: Path, noisy: Path) -> Path:
    """Those pairs with their votes, the lowest exchanged and all with a margin."""
    file = noisy.parent / "curated.jsonl"
    given = ("--model", model, "--data", noisy, "--out", file, "--device", "cpu", "method:secrets-rm", "method.repair:flip-margin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINEGRAIN_CACHE", str(noisy.parent / "cache"))
        assert main(["curate", *map(str, given)]) == 0
    return file


def curate(command: Command, data: Path, out: str, *arguments: str) -> Outcome:
    return command("curate", "--model", command.model, "--data", data, "--out", command.folder / out, "--device", "cpu", *arguments)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_votes_find_exchanged_pairs_and_every_row_comes_back(command: Command, noisy: Path) -> None:
    done = curate(command, noisy, "out.jsonl", "method:secrets-rm", "method.repair:flip", "--method.repair.share", "0.125")
    assert done.code == 0, done.error
    before, after = rows_of(noisy), rows_of(command.folder / "out.jsonl")
    assert [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in after] == before
    assert set(after[0]) == {"prompt", "chosen", "rejected", "strength_mean", "strength_std", "member_margins", "flip", "curated"}
    for row in after:
        assert (row["member_margins"] is None) == (row["strength_mean"] is None)
        assert row["member_margins"] is None or [margin is None for margin in row["member_margins"]].count(True) == 5, "half of ten vote"
    flipped = [row for row in after if row["flip"]]
    assert len(flipped) == 5
    assert sum("bad words" in str(row["chosen"]) for row in flipped) >= 4
    assert all(str(row["curated"]).startswith("flipped") for row in flipped)
    dropped = [row for row in after if row["strength_mean"] is None]
    assert [row["chosen"] for row in dropped] == [" same", " "]
    assert all("not voted on" in str(row["curated"]) for row in dropped)
    assert done.result["rows"] == 42
    assert done.result["voted"] == 40
    assert done.result["changed"] == {"flip": 5}
    assert done.result["votes_per_pair"] == [5, 5]
    summary = json.loads((command.folder / "out.summary.json").read_text())
    assert summary["negative_share"] == done.result["negative_share"]
    assert summary["settings"]["method"]["repair"] == {"choice": "flip", "share": 0.125}


def test_reward_reads_what_curate_wrote(command: Command, noisy: Path, curated: Path) -> None:
    run = ["--data", curated, "--max-steps", "1", "--lr", "0"]
    plain = command.prefer("plain", "--data", noisy, *run[2:], command="reward")
    repaired = command.prefer("repaired", *run, command="reward")
    assert plain.code == 0, plain.error
    assert repaired.code == 0, repaired.error
    assert {"flip", "margin"} <= set(command.record("repaired")["data"]["columns"])
    assert command.lines("plain")[0]["loss"] != command.lines("repaired")[0]["loss"]


def test_the_authors_loss_trains_with_all_its_terms(command: Command, noisy: Path) -> None:
    """Micro-batches change nothing but round-off, though the contrastive term sees the whole step."""
    terms = ["loss:secrets-rm", "loss.contrast:sim-cse", "--loss.lm-factor", "0.1", "--data", noisy, "--limit", "16", "--max-steps", "2"]
    for run, budget in (("whole", "4096"), ("cut", "64")):
        done = command.prefer(run, *terms, "--micro-tokens", budget, command="reward")
        assert done.code == 0, done.error
    whole, cut = command.lines("whole"), command.lines("cut")
    assert {"loss/pair", "loss/lm", "loss/contrast"} <= set(whole[0])
    assert whole[0]["loss/contrast"] > 0
    for one, other in zip(whole, cut, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["loss/contrast"] == pytest.approx(other["loss/contrast"], rel=1e-3, abs=1e-5)


def test_the_same_seed_writes_the_same_file(command: Command, noisy: Path) -> None:
    for out, seed in (("a.jsonl", "1"), ("b.jsonl", "1"), ("c.jsonl", "2")):
        assert curate(command, noisy, out, "--seed", seed, "--limit", "16").code == 0
    texts = [(command.folder / f"{name}.jsonl").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_whole_models_vote(command: Command, noisy: Path) -> None:
    done = curate(
        command, noisy, "out.jsonl", "method.votes:whole", "--method.splits", "1", "--method.votes.lr", "0.003", "--method.votes.epochs", "6",
        "--method.votes.batch-size", "4",
    )  # fmt: skip
    assert done.code == 0, done.error
    assert done.result["votes_per_pair"] == [1, 1]
    strengths = [
        (row["strength_mean"], "bad words" in str(row["chosen"])) for row in rows_of(command.folder / "out.jsonl") if row["strength_mean"] is not None
    ]
    worst = sorted(strengths)[:5]
    assert sum(wrong for _, wrong in worst) >= 4
    assert {row["strength_std"] for row in rows_of(command.folder / "out.jsonl")} == {0.0, None}


def test_whole_models_of_all_pairs_vote(command: Command, noisy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model votes on every pair; they differ by their order and their head; embeddings have a reward model's rate; training reads the rows."""
    fits: list[Trainer] = []

    def noted(*arguments: Any, **named: Any) -> Trainer:
        fits.append(make_trainer(*arguments, **named))
        return fits[-1]

    monkeypatch.setattr("finegrain.train.fit.make_trainer", noted)
    whole = ["method.votes:whole", "--method.splits", "1", "--method.votes.lr", "0.0001"]
    done = curate(command, noisy, "out.jsonl", *whole, "--method.train-on", "all")
    assert done.code == 0, done.error
    assert done.result["votes_per_pair"] == [2, 2]
    margins = [row["member_margins"] for row in rows_of(command.folder / "out.jsonl") if row["member_margins"] is not None]
    assert len(margins) == 40
    assert all(isinstance(pair, list) and pair[0] != pair[1] for pair in margins)
    assert [len(trainer.data.examples) for trainer in fits] == [40, 40]
    for trainer in fits:
        factors = [group[FACTOR] for group in trainer.optimizer.param_groups]
        assert max(factors) == pytest.approx(10.0)
        assert min(factors) == 1.0
    trained = command.prefer("run", "--data", command.folder / "out.jsonl", "--max-steps", "1", command="reward")
    assert trained.code == 0, trained.error
    assert "margin" in command.record("run")["data"]["columns"]
    linear = curate(command, noisy, "linear.jsonl", "--method.train-on", "all")
    assert linear.code == 2
    assert "method.votes:whole" in linear.error


@pytest.mark.slow
def test_memorised_labels_vote_for_themselves(command: Command, noisy: Path) -> None:
    """After many epochs models of all pairs no longer doubt exchanged pairs that models of the other half still find."""
    found = {}
    for on in ("halves", "all"):
        whole = [
            "method.votes:whole",
            "--method.splits",
            "1",
            "--method.votes.lr",
            "0.003",
            "--method.votes.epochs",
            "20",
            "--method.votes.batch-size",
            "4",
        ]
        assert curate(command, noisy, f"{on}.jsonl", *whole, "--method.train-on", on).code == 0
        rows = [row for row in rows_of(command.folder / f"{on}.jsonl") if row["strength_mean"] is not None]
        found[on] = sum(row["strength_mean"] < 0 for row in rows if "bad words" in row["chosen"])
    assert found["all"] < found["halves"] == 5


def test_a_curated_file_is_not_curated_again(command: Command, noisy: Path, curated: Path) -> None:
    again = curate(command, curated, "again.jsonl")
    assert again.code == 3
    assert "column curated already" in again.error
    taken = curate(command, noisy, str(curated))
    assert taken.code == 7
    assert "already exists" in taken.error


def test_columns_that_a_format_would_not_read_are_refused(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "shp.jsonl"
    row = {"human_ref_A": " good people said yes", "human_ref_B": " bad words", "labels": 1, "score_ratio": 2.0}
    write_rows(file, ({"history": f"why {k} ?", **row, "human_ref_A": f" good {k} yes"} for k in range(8)))
    done = curate(command, file, "out.jsonl")
    assert done.code == 3
    assert "SHP rows are read without the column" in done.error


def test_pairs_from_trees(command: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def longer(prompts, completions, **columns):\n    return [float(len(one)) for one in completions]\n")
    short = ["--method.segment-tokens", "6", "--method.first-tokens", "2", "--method.max-new-tokens", "16", "--method.depth", "2", "--limit", "3"]
    done = curate(command, data, "tree.jsonl", "method:tree-rm", "--method.reward", f"{tmp_path / 'mine.py'}:longer", *short)
    assert done.code == 0, done.error
    rows = rows_of(command.folder / "tree.jsonl")
    assert done.result["trees"] == 3
    assert done.result["pairs"] == len(rows) > 3
    assert {row["tree_id"] for row in rows} == {0, 1, 2}
    assert {row["lca_depth"] for row in rows} == {0, 1}
    for row in rows:
        chosen, rejected = str(row["chosen"]), str(row["rejected"])
        shared = row["prefix_chars"]
        assert isinstance(shared, int)
        assert chosen[:shared] == rejected[:shared]
        assert len(chosen) - len(rejected) == row["score_difference"] >= 0
        assert (row["lca_depth"] == 0) or row["prefix_tokens"]
    again = curate(command, data, "again.jsonl", "method:tree-rm", "--method.reward", f"{tmp_path / 'mine.py'}:longer", *short)
    assert again.code == 0
    assert (command.folder / "again.jsonl").read_text() == (command.folder / "tree.jsonl").read_text()
    unlabelled = curate(command, data, "none.jsonl", "method:tree-rm")
    assert unlabelled.code == 2
    assert "--method.reward" in unlabelled.error
    trained = command.prefer("run", "--data", command.folder / "tree.jsonl", "--max-steps", "1", command="reward")
    assert trained.code == 0, trained.error


def test_a_reward_model_labels_leaves(command: Command, data: Path) -> None:
    save_reward(command.model, command.folder / "judge", "sequence", Sequence())
    short = ["--method.segment-tokens", "6", "--method.first-tokens", "2", "--method.max-new-tokens", "12", "--method.depth", "1", "--limit", "1"]
    done = curate(command, data, "tree.jsonl", "method:tree-rm", "--method.reward", str(command.folder / "judge"), *short)
    assert done.code == 0, done.error
    assert done.result["lca_depths"] == {"0": done.result["pairs"]}
    assert done.result["prompts"] == {"rows": 1, "prompts": 1, "repeated": 0, "dropped": {}, "findings": []}
    none = curate(command, data, "none.jsonl", "method:tree-rm", "--method.reward", str(command.folder / "judge"), *short, "--method.branching", "1")
    assert none.code == 3
    assert "no tree" in none.error
    assert not (command.folder / "none.jsonl").exists()
