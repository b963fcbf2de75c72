"""`finegrain iterate`: two rounds end to end, each on the model of the one before; a stop anywhere and --resume give the same bits."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import finegrain
from finegrain.commands.settings import Common
from finegrain.data.records import Shape
from finegrain.data.store import collect
from finegrain.errors import CheckpointError, DataError, UsageError
from finegrain.models.fingerprint import model_fingerprint
from finegrain.models.load import load_policy
from finegrain.recipes import iterate as job
from finegrain.recipes.iteration import sampling
from finegrain.recipes.iteration.round_rows import ModelRound, read_made
from finegrain.recipes.session import Session, load_data, open_session
from finegrain.recipes.training import stage_context
from finegrain.rounds.best_of_n import BestOfN
from finegrain.rounds.self_play import SelfPlay
from finegrain.scoring.records import Candidates
from finegrain.train.run import Recorder
from tests.recipes.command import SHORT, Command, Outcome
from tests.tiny import examples, write_rows

ROUNDS = ("rounds:self-play", "--rounds.count", "2", "--rounds.max-new-tokens", "6")
FAST = ("--lr", "0.001", "--examined", "0", "--holdout", "0", "--max-length", "64")


@pytest.fixture
def demonstrations(command: Command) -> Path:
    """Twelve of them."""
    rows = [json.loads(line) for line in command.data.read_text().splitlines()[:12]]
    return write_rows(command.folder / "demonstrations.jsonl", [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows])


def run(command: Command, out: str, data: Path, *arguments: str | Path) -> Outcome:
    return command("iterate", "--model", command.model, "--data", data, "--out", command.folder / out, *SHORT, *FAST, *ROUNDS, *arguments)


def rows_of(command: Command, out: str, number: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (command.folder / out / f"round-{number}" / "rows.jsonl").read_text().splitlines()]


def steps(command: Command, out: str, number: int) -> list[dict[str, Any]]:
    return command.lines(f"{out}/round-{number}/run")


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_two_rounds(command: Command, demonstrations: Path) -> None:
    done = run(command, "run", demonstrations)
    assert done.code == 0, done.error
    out = command.folder / "run"
    record = command.record("run")
    assert (record["status"], record["command"], record["settings"]["objective"]["method"]) == ("finished", "iterate", "irl-sft")
    assert [line["rows"] for line in record["rounds"]] == [6, 6]
    assert record["steps"] == sum(line["steps"] for line in record["rounds"]) == 4

    first, second = rows_of(command, "run", 1), rows_of(command, "run", 2)
    given = [json.loads(line) for line in demonstrations.read_text().splitlines()]
    assert sorted(row["source_row"] for row in first + second) == list(range(12)), "two slices, each row in one of them"
    for row in first + second:
        assert (row["prompt"], row["chosen"]) == (given[row["source_row"]]["prompt"], given[row["source_row"]]["completion"])
        assert row["rejected"] != row["chosen"]

    for number in (1, 2):
        line = steps(command, "run", number)[0]
        assert line["rewards/chosen"] == line["rewards/rejected"] == 0.0, "the first step of a round is at its reference"
        assert line["loss"] == pytest.approx(np.log(2))
    starts = [command.record(f"run/round-{number}/run")["model"] for number in (1, 2)]
    opponent = model_fingerprint(load_policy(str(out / "round-1" / "run")), command.folder)
    assert starts[1]["sha256"] == opponent != starts[0]["sha256"] == record["model"]["sha256"]
    assert record["rounds"][1]["drift"]["rows"] == 6
    assert "drift" not in record["rounds"][0]

    assert same_weights(out, out / "round-2" / "run")
    AutoModelForCausalLM.from_pretrained(out)
    AutoTokenizer.from_pretrained(out)
    assert "| 2 | 6 | 6 | 0 |" in (out / "README.md").read_text()
    page = (out / "report.html").read_text()
    assert "round 1" in page
    assert "round 2" in page


@pytest.mark.slow
def test_samples_are_of_the_rounds_model(command: Command, demonstrations: Path) -> None:
    """The recorded tokens have, under the round's start, the likelihood of samples: at temperature 0 they are its own most likely ones."""
    assert run(command, "run", demonstrations, "--rounds.temperature", "0", "--lr", "0.1").code == 0
    for number, start in ((1, command.model), (2, command.folder / "run" / "round-1" / "run")):
        policy = load_policy(str(start))
        lines = [json.loads(line) for line in (command.folder / "run" / f"round-{number}" / "samples.jsonl").read_text().splitlines()]
        drawn = [answer for line in lines for answer in line["answers"]]
        for row, (text, ids, ended) in zip(rows_of(command, "run", number), drawn, strict=True):
            assert row["rejected"] == text
            assert ended == (ids[-1] == policy.tokenizer.eos_token_id)
            prompt = [policy.tokenizer.bos_token_id, *policy.tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]]
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            assert logits.argmax(-1).tolist() == ids


def test_one_round_is_prefer_on_its_rows(command: Command, demonstrations: Path) -> None:
    assert run(command, "run", demonstrations, "--rounds.count", "1").code == 0
    rows = command.folder / "run" / "round-1" / "rows.jsonl"
    assert command.prefer("plain", *FAST, "objective:irl-sft", "--data", rows).code == 0
    assert same_weights(command.folder / "run", command.folder / "plain")
    assert steps(command, "run", 1) == command.lines("plain")


class Killed(BaseException):
    """The process is gone."""


def kill_sampling(patch: pytest.MonkeyPatch) -> None:
    """Two batches of the second round are sampled, the third is not; its line is half-written."""
    honest, calls = sampling.SampleFile._sample, iter(range(99))

    def dies(self: sampling.SampleFile, *given: Any) -> Any:
        if next(calls) == 5:
            with self.path.open("a") as stream:
                stream.write('{"sample": 0, "first": 4, "ans')
            raise Killed
        return honest(self, *given)

    patch.setattr(sampling.SampleFile, "_sample", dies)


def kill_training(patch: pytest.MonkeyPatch) -> None:
    """The second round's checkpoint is written, and then nothing more."""
    honest = Recorder.save

    def dies(self: Recorder, *given: Any) -> None:
        honest(self, *given)
        if "round-2" in str(self.directory.path):
            raise Killed

    patch.setattr(Recorder, "save", dies)


def kill_between(patch: pytest.MonkeyPatch) -> None:
    """The first round is finished, the second one has not begun."""
    honest = job.Iteration._make

    def dies(self: job.Iteration, number: int) -> Any:
        if number == 2:
            raise Killed
        return honest(self, number)

    patch.setattr(job.Iteration, "_make", dies)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sampling, "AT_ONCE", 2)
    return None


@pytest.mark.slow
@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("lora", [(), ("--lora.rank", "2")], ids=["whole", "lora"])
def test_a_killed_run_goes_on_to_the_same_bits(
    command: Command, demonstrations: Path, monkeypatch: pytest.MonkeyPatch, lora: tuple[str, ...]
) -> None:
    asked = ("--save-every", "1", *lora)
    assert run(command, "whole", demonstrations, *asked).code == 0
    assert not list((command.folder / "whole").rglob("checkpoint-*")), "finished rounds keep no checkpoint"
    for kill in (kill_sampling, kill_training, kill_between):
        name = kill.__name__
        with monkeypatch.context() as patch:
            kill(patch)
            with pytest.raises(Killed):
                run(command, name, demonstrations, *asked)
        assert command.record(name)["status"] == "running"
        done = run(command, name, demonstrations, *asked, "--resume")
        assert done.code == 0, done.error
        for number in (1, 2):
            assert rows_of(command, name, number) == rows_of(command, "whole", number)
            assert steps(command, name, number) == steps(command, "whole", number)
        assert same_weights(command.folder / name, command.folder / "whole")
        timeless = [[{**line, **dict.fromkeys(TIMES)} for line in command.record(one)["rounds"]] for one in (name, "whole")]
        assert timeless[0] == timeless[1]
    assert run(command, "whole", demonstrations, *asked, "--resume").code == 0, "a finished run is finished again"


@pytest.mark.slow
def test_what_was_edited_deleted_or_moved(command: Command, demonstrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples and rows are made again to the same bits or the run says what is wrong; under another name the folder goes on."""
    kept = command.folder / "kept"
    with monkeypatch.context() as patch:
        kill_training(patch)
        with pytest.raises(Killed):
            run(command, "kept", demonstrations, "--save-every", "1")
    rows, samples, made = (kept / "round-2" / name for name in ("rows.jsonl", "samples.jsonl", "made.json"))
    want = {file: file.read_text() for file in (rows, samples, made)}
    answers = json.loads(want[samples])["answers"]
    for line in (
        {"seconds": None},
        {"answers": ["x", *answers[1:]]},
        {"answers": [[answers[0][0], [9999], True], *answers[1:]]},
        {"answers": [["evil", *answers[0][1:]], *answers[1:]]},
    ):
        made.unlink(missing_ok=True)
        samples.write_text(json.dumps({**json.loads(want[samples]), **line}) + "\n")
        session = open_session(str(kept / "round-1" / "run"), Common(device="cpu"))
        prompts = load_data(session, str(demonstrations), Shape.DEMONSTRATION, limit=None).examples.take(job.split_rows(12, SelfPlay(count=2), 0)[1])
        ModelRound(session, prompts, 2, kept / "round-2").sample(1, max_new_tokens=6)
        assert json.loads(samples.read_text())["answers"] == answers
    for text in ("{}", "[1]", "{"):
        made.write_text(text)
        with pytest.raises(CheckpointError, match=r"cannot read .*made.json"):
            read_made(kept / "round-2")
    made.write_text(want[made])
    rows.write_text(want[rows].replace("good", "bad"))
    with pytest.raises(CheckpointError, match=r"rows.jsonl is not what the round made"):
        read_made(kept / "round-2")
    rows.unlink()
    kept.rename(command.folder / "moved")
    done = run(command, "moved", demonstrations, "--save-every", "1", "--resume")
    assert done.code == 0, done.error
    assert (command.folder / "moved" / "round-2" / "rows.jsonl").read_text() == want[rows]


TIMES = ("sampling_seconds", "making_seconds", "train_seconds", "seconds")


@pytest.mark.slow
def test_ctrl_c_and_again(command: Command, demonstrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "sample_answers", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = run(command, "run", demonstrations)
    assert stopped.code == 130
    assert "stopped while sampling; 0 of 6 answers are kept; go on with the same command and --resume" in stopped.error
    assert command.record("run")["status"] == "interrupted"
    assert run(command, "run", demonstrations, "--resume").code == 0
    assert "reason" not in command.record("run")
    record = command.record("run")
    (command.folder / "run" / "run.json").write_text(json.dumps({**record, "engine": {"float32_products_on_cpu": "MKL"}}))
    other = command("again", command.folder / "run", "--out", command.folder / "told", "--rounds.count", "1", "--max-steps", "1")
    assert other.error.count("again: float32 products by other libraries than the earlier run's (MKL then") == 1
    (command.folder / "run" / "run.json").write_text(json.dumps(record))
    again = command("again", command.folder / "run", "--out", command.folder / "other")
    assert again.code == 0, again.error
    assert "again:" not in again.error, "nothing is otherwise"
    assert same_weights(command.folder / "run", command.folder / "other")


@pytest.mark.slow
def test_an_adapter_is_merged_into_the_next_reference(command: Command, demonstrations: Path) -> None:
    """Each round trains a fresh adapter on the whole model of the round before, not on the first base."""
    done = run(command, "run", demonstrations, "--lora.rank", "2")
    assert done.code == 0, done.error
    out = command.folder / "run"
    configs = [json.loads((out / f"round-{number}" / "run" / "adapter_config.json").read_text()) for number in (1, 2)]
    assert [one["base_model_name_or_path"] for one in configs] == [str(command.model), str(out / "round-1" / "model")]
    trained = load_policy(str(out / "round-1" / "run")).model.merge_and_unload().state_dict()
    merged = load_policy(str(out / "round-1" / "model")).model.state_dict()
    base = load_policy(str(command.model)).model.state_dict()
    assert all(torch.equal(trained[name], merged[name]) for name in merged)
    assert any(not torch.equal(base[name], merged[name]) for name in merged)
    line = steps(command, "run", 2)[0]
    assert line["rewards/chosen"] == line["rewards/rejected"] == 0.0
    assert same_weights(out, out / "round-2" / "model")
    assert not (out / "adapter_config.json").exists()
    AutoModelForCausalLM.from_pretrained(out)


@pytest.mark.slow
def test_a_model_that_is_an_adapter_goes_on_as_one(command: Command, demonstrations: Path) -> None:
    assert command.prefer("adapter", *FAST, "--max-steps", "1", "--lora.rank", "2").code == 0
    asked = ("--model", command.folder / "adapter")
    done = run(command, "run", demonstrations, *asked)
    assert done.code == 0, done.error
    assert (command.folder / "run" / "adapter_model.safetensors").exists()
    assert steps(command, "run", 2)[0]["rewards/chosen"] == 0.0
    refused = run(command, "other", demonstrations, *asked, "--lora.rank", "2")
    assert refused.code == 2
    assert "has an adapter" in refused.error


@pytest.mark.slow
def test_conversations_stay_messages(command: Command) -> None:
    turns = lambda text: [{"role": "user", "content": text}, {"role": "assistant", "content": "good people said yes"}]
    data = write_rows(command.folder / "chats.jsonl", [{"messages": turns(f"why {number} ?")} for number in range(6)])
    assert run(command, "run", data, "--rounds.count", "1").code == 0
    for row in rows_of(command, "run", 1):
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        assert row["chosen"] == [{"role": "assistant", "content": "good people said yes"}]
        assert [turn["role"] for turn in row["rejected"]] == ["assistant"]


REWARD = """
def vowels(prompts, completions, **columns):
    return [sum(text.count(letter) for letter in "aeiou") if "?" not in text else None for text in completions]
"""


@pytest.mark.slow
def test_best_of_n(command: Command, demonstrations: Path) -> None:
    (command.folder / "reward.py").write_text(REWARD)
    reward = ("rounds:best-of-n", "--rounds.reward", command.folder / "reward.py:vowels")
    done = run(command, "run", demonstrations, *reward, "--rounds.per-prompt", "3", "--rounds.rows", "all", "--round-lr", "0.001", "0.0005")
    assert done.code == 2, "--lr is in the way"
    fast = [one for one in FAST if one not in ("--lr", "0.001")]
    asked = ("--model", command.model, "--data", demonstrations, "--out", command.folder / "run", *SHORT, *fast, *ROUNDS, *reward)
    done = command("iterate", *asked, "--rounds.per-prompt", "3", "--rounds.rows", "all", "--round-lr", "0.001", "0.0005")
    assert done.code == 0, done.error
    record = command.record("run")
    assert record["settings"]["objective"]["method"] == "dpo"
    assert [line["learning_rate"] for line in record["rounds"]] == [0.001, 0.0005]
    for number, line in enumerate(record["rounds"], start=1):
        assert line["sampled"] == 36
        assert line["rows"] + sum(count for name, count in line["left_out"].items() if "gate" not in name) == line["prompts"] == 12
        for row in rows_of(command, "run", number):
            assert row["reward_chosen"] > row["reward_rejected"]
            assert sum(row["chosen"].count(letter) for letter in "aeiou") == row["reward_chosen"]


def test_refused(command: Command, demonstrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, code, words in (
        (("--rounds.count", "13"), 3, "12 rows have no part for each round"),
        (("rounds:best-of-n",), 2, "needs a reward"),
        (("rounds:best-of-n", "--rounds.reward", "column:score"), 2, "knows only the answers of the data"),
        (("rounds:best-of-n", "--rounds.reward", "nosuch.py:f"), 2, "no file nosuch.py"),
        (("--eval", demonstrations), 3, "has no pairs"),
        (("objective:dpo", "credit:token-reward"), 2, "writes"),
        (("--round-lr", "0.1"), 2, "--round-lr has 1 numbers for --rounds.count 2"),
        (("--shard",), 2, "rounds run in one"),
        (("--lora.rank", "2", "--lora.base", "nf4"), 2, "4 bits do not allow"),
        (("--data", write_rows(command.folder / "rated.jsonl", [{"prompt": "a", "response": "b", "ratings": {"x": 1}}])), 3, "demonstration"),
    ):
        done = run(command, "run", demonstrations, *arguments)
        assert done.code == code, done.error
        assert words in done.error
        assert not (command.folder / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = run(command, "run", demonstrations)
    assert (done.code, "runs in one process" in done.error) == (2, True)


@pytest.mark.slow
def test_a_reward_that_changes_between_rounds(command: Command, demonstrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = command.folder / "reward.py"
    reward.write_text(REWARD)
    asked = ("rounds:best-of-n", "--rounds.reward", f"{reward}:vowels", "--rounds.per-prompt", "2")
    with monkeypatch.context() as patch:
        kill_between(patch)
        with pytest.raises(Killed):
            run(command, "run", demonstrations, *asked)
    assert command.record("run")["reward"]["name"] == "vowels"
    reward.write_text(REWARD.replace("aeiou", "xyz"))
    done = run(command, "run", demonstrations, *asked, "--resume")
    assert (done.code, "the reward of the run in" in done.error) == (7, True)


def test_all_samples_are_the_demonstrations(command: Command, demonstrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing can be learnt, and the run says so; with another seed or other settings it does not go on in its folder."""
    drawn = lambda self, count, **named: [[sampling.Drawn(text, [1], True)] for text in self.given("answer")]
    monkeypatch.setattr(ModelRound, "sample", drawn)
    done = run(command, "run", demonstrations)
    assert done.code == 3
    assert "round 1 made no row to train on of 6 prompts (6 identical)" in done.error
    assert command.record("run")["status"] == "failed"
    done = run(command, "run", demonstrations)
    assert (done.code, "already holds a run" in done.error) == (7, True)
    done = run(command, "run", demonstrations, "--resume", "--seed", "3")
    assert (done.code, "common.seed was 0 and is 3" in done.error) == (7, True)
    other = write_rows(command.folder / "other.jsonl", [{"prompt": "a", "completion": "b"}] * 3)
    done = run(command, "run", other, "--resume")
    assert (done.code, "data was" in done.error) == (7, True)


def test_dry_run(command: Command, demonstrations: Path) -> None:
    done = run(command, "run", demonstrations, "--dry-run", "--limit", "9")
    assert done.result == {"status": "dry run", "prompts": [5, 4], "answers": [5, 4], "most_sampled_tokens": 54}
    assert not (command.folder / "run").exists()


def test_parts() -> None:
    parts = job.split_rows(11, SelfPlay(count=3), 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(11))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert all((np.diff(part) > 0).all() for part in parts)
    assert parts[0].tolist() != job.split_rows(11, SelfPlay(count=3), 1)[0].tolist()
    assert [part.tolist() for part in job.split_rows(2, SelfPlay(count=3, rows="all"), 0)] == [[0, 1]] * 3
    with pytest.raises(DataError, match="2 rows have no part"):
        job.split_rows(2, SelfPlay(count=3), 0)


def test_from_python(command: Command) -> None:
    with pytest.raises(UsageError, match="needs a reward"):
        finegrain.iterate(command.model, "d.jsonl", "out", rounds=BestOfN())


def test_a_sample_is_scored_as_it_follows_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It brings its own space; the data's answers are joined to the prompt by the glue of their row."""
    example = replace(examples(1)[0], source='{"glue": " "}')
    asked: list[Candidates] = []
    reward = SimpleNamespace(score=lambda candidates: [asked.append(one) or {} for one in candidates])
    monkeypatch.setattr(stage_context.RunStage, "open", lambda *given: reward)
    session = object.__new__(Session)
    session.max_length = 9
    stage = stage_context.RunStage(session, collect([example]), trains=True)
    stage.score("model", [[" yes"]])
    assert (asked[0].made.glue, asked[0].made.answers["0"].content) == ("", " yes")
