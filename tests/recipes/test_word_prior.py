"""`finegrain reward head:token head.prior:word-table`, end to end: the weight is chosen or given, and a run is the same again.

Test of recipes/training/prior_weight.py, recipes/training/own_scorer.py, rewards/word_prior.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finegrain.recipes.training.prior_weight import mean_pair_loss
from tests.recipes.command import Command, Outcome
from tests.tiny import TEXT, write_rows

PRIOR = ["head:token", "head.prior:word-table"]
WORDS = sorted({*TEXT.split()})


def planted_pairs(file: Path, count: int, seed: int) -> Path:
    """Random words; the answer with fewer bad dogs is the chosen one."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in range(count):
        one, other = (list(rng.choice(WORDS, 8)) for _ in range(2))
        chosen, rejected = sorted([one, other], key=lambda own: own.count("bad") + own.count("dog"))
        rows.append({"prompt": f"why {seed} {row} ?", "chosen": " " + " ".join(chosen), "rejected": " " + " ".join(rejected)})
    return write_rows(file, rows)


def test_pairs_held_out_count_by_their_weight_and_label() -> None:
    difference = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64)
    plain = -torch.nn.functional.logsigmoid(difference)
    assert mean_pair_loss(difference, {}) == pytest.approx(float(plain.mean()))
    assert mean_pair_loss(difference, {"weight": np.array([1.0, 3.0, 0.0])}) == pytest.approx(float(plain[0] + 3 * plain[1]) / 4)
    flipped = mean_pair_loss(difference, {"weight": np.array([0.0, 2.0, 0.0]), "label_prob": np.zeros(3)})
    assert flipped == pytest.approx(float(-torch.nn.functional.logsigmoid(torch.tensor(1.0))))
    assert mean_pair_loss(difference, {"weight": np.zeros(3)}) == 0


@pytest.fixture
def pairs(command: Command) -> Path:
    return planted_pairs(command.folder / "pairs.jsonl", 60, 0)


def reward(command: Command, run: str, data: Path, *arguments: str) -> Outcome:
    return command.prefer(run, "--data", data, "--max-length", "64", "--examined", "0", "--holdout", "0", *arguments, command="reward")


def weights(command: Command, run: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(command.folder / run / "model.safetensors")
    return found


@pytest.mark.slow
def test_the_weight_is_chosen_on_pairs_held_out_and_again_the_same(command: Command, pairs: Path) -> None:
    for run in ("one", "two"):
        outcome = reward(command, run, pairs, *PRIOR, "--max-steps", "8", "--lr", "0.01")
        assert outcome.code == 0, outcome.error
        assert "prior: weight " in outcome.error
    one, two = (command.record(run)["prior_weight"] for run in ("one", "two"))
    assert set(one["held_out_nll"]) == {"0", "1", "10", "100"}
    assert one["held_out_nll"] == two["held_out_nll"]
    assert one["held_out_nll"][f"{one['weight']:g}"] == min(one["held_out_nll"].values())
    assert one["weight"] > 0
    assert command.record("one")["word_table"]["knows"] is True
    assert all(bool((own == weights(command, "two")[name]).all()) for name, own in weights(command, "one").items())
    given = reward(command, "given", pairs, *PRIOR, "--head.prior.weight", f"{one['weight']:g}", "--max-steps", "8", "--lr", "0.01")
    assert given.code == 0, given.error
    assert "prior_weight" not in command.record("given")
    assert all(bool((own == weights(command, "given")[name]).all()) for name, own in weights(command, "one").items())


def test_a_heavy_prior_moves_token_scores(command: Command, pairs: Path) -> None:
    for run, weight in (("light", "1e-12"), ("heavy", "100")):
        outcome = reward(command, run, pairs, *PRIOR, "--head.prior.weight", weight, "--max-steps", "4", "--lr", "0.01")
        assert outcome.code == 0, outcome.error
    assert any(bool((own != weights(command, "heavy")[name]).any()) for name, own in weights(command, "light").items())


def test_single_answers_have_no_table(command: Command) -> None:
    rows = [{"prompt": f"why {row} ?", "response": " the bad dog", "spans": [{"start": 5, "end": 8, "value": -1.0}]} for row in range(20)]
    data = write_rows(command.folder / "answers.jsonl", rows)
    outcome = reward(command, "run", data, *PRIOR, "--head.prior.weight", "1", "loss:span-labels", "loss.rows:answers")
    assert outcome.code == 2
    assert "a table of words is fitted to pairs, and this loss reads answer; take a loss of pairs or drop --head.prior" in outcome.error


def test_too_few_pairs_are_an_error(command: Command) -> None:
    data = planted_pairs(command.folder / "few.jsonl", 6, 0)
    outcome = reward(command, "run", data, *PRIOR, "--head.prior.weight", "1")
    assert outcome.code != 0
    assert "6 pairs are too few to fit a table of words; drop --head.prior:word-table" in outcome.error
