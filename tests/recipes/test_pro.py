"""objective:pro from the command: ragged ranked answers, ranks and scores, and bad input; figa on its own rows meets the same metrics.

Test of recipes/training/data.py, train/metrics.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.recipes.command import Command
from tests.tiny import TEXT, write_rows

SHORT = ("objective:pro", "--max-steps", "2", "--holdout", "0.25")


def ranked_rows(folder: Path, *, scores: bool = False, most: int = 4, count: int = 16) -> Path:
    """Rows of 2 to `most` answers."""
    rng, words = np.random.default_rng(0), TEXT.split()
    rows = []
    for place in range(count):
        answers = [" " + " ".join(rng.choice(words, rng.integers(2, 8))) + f" {number}" for number in range(2 + place % (most - 1))]
        ranks = list(range(1, len(answers) + 1))
        rows.append({"prompt": f"why {place} ?", "answers": answers, **({"scores": [5.0 - 2 * r for r in ranks]} if scores else {"ranks": ranks})})
    return write_rows(folder / "ranked.jsonl", rows)


def test_rows_may_differ_in_their_number_of_answers(command: Command) -> None:
    done = command.prefer("run", *SHORT, "--data", ranked_rows(command.folder), "--micro-tokens", "64")
    assert done.code == 0, done.error
    record = command.record("run")
    found = record["ranked_answers"]
    assert (found["read"], found["rows_with_more"], found["scored"]) == (4, 0, False)
    assert sum(found["rows_by_answers"].values()) == record["rows"] == 12
    assert set(found["rows_by_answers"]) == {"2", "3", "4"}
    assert record["evaluation"]["eval_loss"]["mean"] > 0
    assert 0 <= record["evaluation"]["eval_ranks/accuracies"]["mean"] <= 1
    assert record["evaluation"]["eval_logp_per_token/answer-4"]["rows"] < record["evaluation"]["eval_logp_per_token/answer-1"]["rows"]
    whole = command.prefer("whole", *SHORT, "--data", command.folder / "ranked.jsonl")
    assert whole.code == 0, whole.error
    split, one = (command.lines(name)[0]["loss"] for name in ("run", "whole"))
    assert split == pytest.approx(one, rel=1e-5), "however rows are split into micro-batches"


@pytest.mark.slow
def test_scores_are_rewards_where_there_are_any(command: Command) -> None:
    data = ranked_rows(command.folder, scores=True)
    losses = {}
    for name, more in (("scores", ()), ("ranks", ("objective.rewards:by-rank",))):
        done = command.prefer(name, *SHORT, "--data", data, *more)
        assert done.code == 0, done.error
        losses[name] = command.lines(name)[0]["loss"]
    assert command.record("scores")["ranked_answers"]["scored"]
    assert losses["scores"] != losses["ranks"], "scores differ by 2, ranks by 1"
    assert "held_out_scored" not in command.record("scores")["ranked_answers"]
    (command.folder / "ranks-alone").mkdir()
    done = command.prefer("other", *SHORT[:3], "--data", data, "--eval", ranked_rows(command.folder / "ranks-alone"))
    assert done.code == 0, done.error
    assert "held-out rows have ranks alone, so their loss has another scale" in done.error
    assert not command.record("other")["ranked_answers"]["held_out_scored"]


@pytest.mark.slow
def test_more_answers_than_are_read_are_counted(command: Command) -> None:
    done = command.prefer("run", *SHORT, "--objective.answers", "2", "--data", ranked_rows(command.folder))
    assert done.code == 0, done.error
    assert command.record("run")["ranked_answers"]["rows_with_more"] == 8
    assert "8 of 12 rows have more than the 2 that PRO reads, the best first" in done.error


def test_a_single_answer_is_counted_and_alone_an_error(command: Command) -> None:
    data = ranked_rows(command.folder)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[0]["answers"], rows[0]["ranks"] = rows[0]["answers"][:1], [1]
    write_rows(data, rows)
    done = command.prefer("run", *SHORT, "--max-steps", "1", "--data", data)
    assert done.code == 0, done.error
    assert command.record("run")["data"]["dropped"] == {"one_answer": 1}
    done = command.prefer("none", *SHORT, "--data", write_rows(command.folder / "one.jsonl", rows[:1]))
    assert done.code != 0
    assert "one_answer" in done.error


def test_pairs_are_no_ranked_answers(command: Command) -> None:
    done = command.prefer("run", *SHORT)
    assert done.code != 0
    assert "has no ranked answers" in done.error
