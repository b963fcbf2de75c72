"""A reward model as scorer of a credit: its token scores on the run's tokens, by any tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.types import Scored
from tests.recipes.command import Command
from tests.recipes.reward_folder import save_reward
from tests.tiny import write_rows


def bytes_only(folder: Path) -> Path:
    """The same model with a tokenizer that knows no merges."""
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["model"]["merges"] = []
    file.write_text(json.dumps(settings))
    return folder


def captured(command: Command, monkeypatch: pytest.MonkeyPatch, scorer: str) -> tuple[Any, dict[str, list[Scored]]]:
    """The session's rows and what the credit was given."""
    from finegrain.recipes.training.credit_context import RunCredit

    found: list[Any] = []
    before = RunCredit.implicit_rewards

    def spy(self: RunCredit, name: str | None, beta: float) -> dict[str, list[Scored]]:
        away = command.data.rename(command.folder / "away")  # the rows are in memory by now
        found.append((self.examples, before(self, name, beta)))
        away.rename(command.data)
        return found[-1][1]

    monkeypatch.setattr(RunCredit, "implicit_rewards", spy)
    credit = ("credit:token-reward", "objective:token-distillation", "--credit.scorer", scorer)
    done = command.prefer("run", *credit, "--max-steps", "1", "--holdout", "0")
    assert done.code == 0, done.error
    examples, scores = found[0]
    return examples, scores


@pytest.mark.parametrize(
    ("method", "head", "signal"),
    [("token", Token(), "head"), ("sequence", Sequence(), "prefix-difference"), ("ensemble", Ensemble(members=3), "prefix-difference")],
)
def test_the_credit_is_what_score_says(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch, method: str, head: Any, signal: str) -> None:
    folder = save_reward(model, command.folder / "rm", method, head)
    out = command.folder / "scores.jsonl"
    assert command("score", "--model", folder, "--data", command.data, "--out", out, "--device", "cpu", f"signal:{signal}").code == 0
    want = [json.loads(line) for line in out.read_text().splitlines()]
    examples, scores = captured(command, monkeypatch, str(folder))
    for place, example in enumerate(examples):
        for side, role in enumerate(("chosen", "rejected")):
            line, one = want[2 * example.row + side], scores[role][place]
            assert one.mean.tolist() == pytest.approx([token[2] for token in line["tokens"]], abs=1e-5)
            assert (one.std is None) == (line["tokens"][0][3] is None)
            if one.members is not None:
                assert one.members.shape == (3, len(line["tokens"]))


def test_a_reward_model_of_other_tokens(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte: every token of the policy has the score of the characters it holds, by people's rule for spans."""
    folder = bytes_only(save_reward(model, command.folder / "rm", "token", Token()))
    out = command.folder / "scores.jsonl"
    assert command("score", "--model", folder, "--data", command.data, "--out", out, "--device", "cpu").code == 0
    want = [json.loads(line) for line in out.read_text().splitlines()]
    examples, scores = captured(command, monkeypatch, str(folder))
    example, line = examples[0], want[2 * examples[0].row]
    assert len(line["tokens"]) == len(line["response"]) + 1 > len(example.responses["chosen"].ids)
    letters = [token[2] for token in line["tokens"]]
    for value, (start, end) in zip(scores["chosen"][0].mean.tolist(), example.responses["chosen"].offsets.tolist(), strict=True):
        if end - start == 1:
            assert value == pytest.approx(letters[start], rel=1e-6)
        elif end - start == 2:
            assert value == pytest.approx(letters[start + 1], rel=1e-6), "of two halves the later wins"
    assert scores["chosen"][0].mean[-1].item() == pytest.approx(letters[-1])


def test_a_reward_model_reads_a_conversation_by_its_own_template(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns, not the text that the policy's tokenizer made of them: the end token, which has no characters, has the score that `score` writes."""
    folder = bytes_only(save_reward(model, command.folder / "rm", "token", Token()))
    file = folder / "tokenizer_config.json"
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}|{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    asked = {"role": "user", "content": "why ?"}
    sides = {"chosen": "good people said yes", "rejected": "bad words"}
    rows = [{side: [asked, {"role": "assistant", "content": text + " so" * place}] for side, text in sides.items()} for place in range(6)]
    command.data, out = write_rows(command.folder / "turns.jsonl", rows), command.folder / "scores.jsonl"
    assert command("score", "--model", folder, "--data", command.data, "--out", out, "--device", "cpu").code == 0
    want = [json.loads(line) for line in out.read_text().splitlines()]
    assert want[0]["prompt"] == "[user] why ?|[assistant] "
    examples, scores = captured(command, monkeypatch, str(folder))
    assert len(examples) == 6
    for example, chosen, rejected in zip(examples, scores["chosen"], scores["rejected"], strict=True):
        assert "[user]" not in example.prompt_text
        for place, one in enumerate((chosen, rejected)):
            assert one.mean[-1].item() == pytest.approx(want[2 * example.row + place]["tokens"][-1][2], rel=1e-6)


def test_two_kinds_of_scorer_have_two_units(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "rm", "token", Token())
    done = command.prefer("run", "credit:asr", "--credit.scorer", f"{folder},{model}")
    assert done.code == 5
    assert "their units differ" in done.error
