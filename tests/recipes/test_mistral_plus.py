"""`finegrain iterate rounds:mistral-plus`: direct and both controls, on the same prompts; the three axes; what a dialogue keeps.

Test of rounds/mistral_plus.py, recipes/iteration/axes.py, recipes/iteration/dialogue.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.commands.settings import Common
from finegrain.errors import DataError
from finegrain.recipes.iteration.axes import cross_entropies, has_word, read_lines
from finegrain.recipes.iteration.dialogue import write_dialogues
from finegrain.recipes.session import open_session
from tests.recipes.command import Command, Outcome
from tests.tiny import write_rows

REWARD = """
def vowels(prompts, completions, **columns):
    return [sum(text.count(letter) for letter in "aeiou") / 8 for text in completions]
"""
ONLINE = {"training": {"prompts": 4, "samples": 0}, "sampling": {"answers": 2}}


def plus(command: Command, out: str, *arguments: str | Path) -> Outcome:
    (command.folder / "reward.py").write_text(REWARD)
    (command.folder / "text.txt").write_text("the cat sat on the mat\n\na dog ran after it\nand good people said yes\n")
    (command.folder / "words.txt").write_text("bad\nwords\n")
    (command.folder / "stages.json").write_text(json.dumps({"online": ONLINE}))
    given = ("--model", command.model, "--data", command.data, "--out", command.folder / out, "--device", "cpu", "--samples", "0")
    short = ("--max-length", "64", "--batch-size", "4", "--examined", "0", "--limit", "12", "--max-steps", "4", "--lr", "1e-3")
    files = ("--rounds.retention", command.folder / "text.txt", "--rounds.words", command.folder / "words.txt")
    reward = ("--rounds.reward", f"{command.folder / 'reward.py'}:vowels", "--rounds.stages", command.folder / "stages.json")
    held = ("--rounds.held-out", "0.25", "--rounds.max-new-tokens", "6")
    return command("iterate", *given, *short, "rounds:mistral-plus", *files, *reward, *held, *arguments)


def axes(command: Command, run: str) -> dict[str, dict[str, Any]]:
    return {line["stage"]: line["result"] for line in command.record(run)["stages"] if line["command"] == "axes"}


def test_direct(command: Command) -> None:
    done = plus(command, "run")
    assert done.code == 0, done.error
    assert done.result["stages"] == ["dialogue", "before", "online", "after"]
    found = axes(command, "run")
    for one in found.values():
        assert one["answers"] == one["judged"] == 3
        assert one["retention"]["rows"] == 3
        assert 0 <= one["bad_words"]["mean"] <= 1
    online = command.record("run/online")
    assert online["model"]["sha256"] == found["before"]["weights"] != found["after"]["weights"]
    assert online["settings"]["reference"] == {"choice": "start-model"}
    assert online["settings"]["sampling"]["stop"] == ["\n\nHuman:"]
    assert online["settings"]["algorithm"]["transforms"]["missing_end"] == 1.0
    assert command.lines("run/online")[0]["kl"] == pytest.approx(0.0, abs=1e-7)
    apart = {json.loads(line)["prompt"] for line in (command.folder / "run/dialogue/held-out.jsonl").read_text().splitlines()}
    trained = {json.loads(line)["prompt"] for line in (command.folder / "run/dialogue/pairs.jsonl").read_text().splitlines()}
    assert len(apart) == 3
    assert not apart & trained
    assert all(prompt.startswith("\n\nHuman: why") and prompt.endswith("\n\nAssistant:") for prompt in apart | trained)


@pytest.mark.slow
def test_controls(command: Command) -> None:
    """The same start on all axes; each path has its own stages; the online control begins from the fine-tuned model."""
    for path, stages in (("sft", ["dialogue", "before", "sft", "after"]), ("sft-online", ["dialogue", "before", "sft", "online", "after"])):
        done = plus(command, path, "--rounds.path", path, "--rounds.sft-lr", "1e-3")
        assert done.code == 0, done.error
        assert done.result["stages"] == stages
    assert axes(command, "sft")["before"] == axes(command, "sft-online")["before"]
    assert command.record("sft-online/online")["model"]["sha256"] == axes(command, "sft")["after"]["weights"]


def test_retention_is_the_cross_entropy(command: Command) -> None:
    session = open_session(str(command.model), Common(device="cpu"))
    text = "the cat sat on the mat"
    ids = torch.tensor([session.policy.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        want = torch.nn.functional.cross_entropy(session.policy.model(ids).logits[0, :-1], ids[0, 1:])
    np.testing.assert_allclose(cross_entropies(session, [text]), [float(want)], rtol=1e-5)


def test_words() -> None:
    assert has_word("You FOOL.", ["fool"])
    assert not has_word("foolish", ["fool"])
    assert has_word("c++ is", ["c++"])


def test_dialogues(tmp_path: Path) -> None:
    """Rows of one prompt stay together; several turns are left out and counted; a prompt with braces is a prompt."""
    rows = [{"prompt": f"q{place // 2} {{x}}", "chosen": f"a{place}", "rejected": f"b{place}"} for place in range(12)]
    data = write_rows(tmp_path / "given.jsonl", rows)
    found = write_dialogues(str(data), tmp_path, template="H: {prompt} A:", share=0.5, limit=None, seed=0)
    assert found == {"pairs": 6, "held_out_pairs": 6, "held_out_prompts": 3, "left_out": 0}
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert lines[0]["prompt"].startswith("H: q")
    assert lines[0]["chosen"].startswith(" a")
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}, {"role": "user", "content": "w"}]
    several = write_rows(tmp_path / "turns.jsonl", [{"prompt": turns, "chosen": [turns[1]], "rejected": [{**turns[1], "content": "z"}]}])
    with pytest.raises(DataError, match="1 have more turns"):
        write_dialogues(str(several), tmp_path, template="{prompt}", share=0.1, limit=None, seed=0)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="no line"):
        read_lines(str(tmp_path / "empty.txt"))
