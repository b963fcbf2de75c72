"""Rows longer than a model's learned positions, through the commands (case 7). Test of models/positions.py."""

import json

import pytest
import transformers

from tests.recipes.command import Command
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A GPT-2 of 64 positions, and rows that are longer."""
    folder = tmp_path_factory.mktemp("short")
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
    )
    save_tiny(folder / "gpt2", model)
    with (folder / "long.jsonl").open("w") as stream:
        for i in range(12):
            row = {"prompt": f"where is the house {i} " * 10, "chosen": f" in the sky {i} " * 9, "rejected": f" in the sea {i} " * 7}
            stream.write(json.dumps(row) + "\n")
    return str(folder / "gpt2"), str(folder / "long.jsonl")


def test_longer_rows_are_cut_and_counted_by_every_command(command: Command, short: tuple[str, str]) -> None:
    model, data = short
    said = "the model has 64 positions, so rows are cut to 64 tokens instead of 1024"
    checked = command("check-data", "--model", model, "--data", data)
    assert said in checked.error
    assert {finding["kind"]: finding["count"] for finding in checked.result["findings"]}["over_length"] == 12
    for name, arguments in {
        "prefer": ("objective:dpo", "--samples", "1"),
        "dry": ("objective:dpo", "--dry-run"),
        "sft": (),
        "reward": ("head:sequence",),
    }.items():
        done = command.prefer(name, *arguments, "--model", model, "--data", data, "--max-steps", "2", command="prefer" if name == "dry" else name)
        assert done.code == 0, done.error
        assert said in done.error
    assert command.record("prefer")["data"]["max_length"] == 64
    scored = command("score", "--model", command.folder / "reward", "--data", data, "--out", command.folder / "scores.jsonl", "--device", "cpu")
    assert scored.code == 0, scored.error
    assert command("eval", "--reward", command.folder / "reward", "--data", data, "--device", "cpu").code == 0
