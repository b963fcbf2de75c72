"""`finegrain iterate rounds:selm`: pairs of the data against the model's greedy answers, ranked by a reward, and the run that trains on them.

Test of rounds/selm.py, recipes/iterate.py.
"""

import json

import pytest

from tests.recipes.command import SHORT, Command, Outcome

REWARD = """
def vowels(prompts, completions, **columns):
    return [sum(text.count(letter) for letter in "aeiou") for text in completions]
"""


def run(command: Command, out: str, *arguments: str) -> Outcome:
    (command.folder / "reward.py").write_text(REWARD)
    asked = ("--model", command.model, "--data", command.data, "--out", command.folder / out, *SHORT, "--examined", "0", "--holdout", "0")
    rounds = ("rounds:selm", "--rounds.reward", f"{command.folder / 'reward.py'}:vowels", "--rounds.max-new-tokens", "6")
    return command("iterate", *asked, *rounds, "--max-length", "64", "--limit", "8", *arguments)


def vowels(text: str) -> int:
    return sum(text.count(letter) for letter in "aeiou")


def test_one_round(command: Command) -> None:
    done = run(command, "run", "--rounds.count", "1")
    assert done.code == 0, done.error
    record = command.record("run")
    assert record["settings"]["objective"]["method"] == "selm"
    given = [json.loads(line) for line in command.data.read_text().splitlines()]
    rows = [json.loads(line) for line in (command.folder / "run" / "round-1" / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        own = given[row["source_row"]]
        answers = [own["chosen"], row["generated"], own["rejected"]]
        assert row["chosen"] in answers
        assert row["rejected"] in answers
        assert vowels(row["chosen"]) == max(map(vowels, answers)) > min(map(vowels, answers)) == vowels(row["rejected"])
    line = record["rounds"][0]
    assert line["rows"] + sum(line["left_out"].values()) == 8
    assert line["trained"] == len(rows)
    assert "has no lowest value" in done.error, "the run says that its loss has no lower bound"


@pytest.mark.slow
def test_alpha_0_is_dpo_on_the_same_rows(command: Command) -> None:
    """To the bit, in the metrics of every step."""
    assert (
        run(command, "selm", "--rounds.count", "2", "objective:selm", "--objective.alpha", "0", "--objective.beta", "0.1", "--lr", "1e-3").code == 0
    )
    assert run(command, "dpo", "--rounds.count", "2", "objective:dpo", "--lr", "1e-3").code == 0
    for number in (1, 2):
        ours, theirs = ([line["loss"] for line in command.lines(f"{name}/round-{number}/run")] for name in ("selm", "dpo"))
        assert ours == theirs
        same = [(command.folder / name / f"round-{number}" / "rows.jsonl").read_text() for name in ("selm", "dpo")]
        assert same[0] == same[1]
