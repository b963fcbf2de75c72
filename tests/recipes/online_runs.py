"""Short runs of `finegrain online` for tests."""

from pathlib import Path

from tests.recipes.command import Command, Outcome
from tests.tiny import write_rows

COUNTS_E = """
def reward(completions, **columns):
    return [text.count("e") / 8 for text in completions]
"""

NOISY = """
import os, pathlib, random

def reward(completions, trainer_state, **columns):
    run = pathlib.Path(os.environ["RUN_OF_THE_TEST"])
    steps = [int(path.name.removeprefix("checkpoint-")) for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    if steps and max(steps) > trainer_state.global_step > 0:
        return [random.random() for _ in completions]
    return [text.count("e") / 8 for text in completions]
"""
"""Answers otherwise when it is asked again about a buffer that a checkpoint holds: who scores such answers twice ends elsewhere."""


def write_reward(folder: Path, code: str, name: str = "reward") -> str:
    """A file with a function `reward`, as --reward takes it."""
    file = folder / f"{name}.py"
    file.write_text(code)
    return f"{file}:reward"


def online(command: Command, run: str, *arguments: str | Path) -> Outcome:
    """A short run: two prompts of two or three tokens and four answers of at most six tokens to a buffer; what is given here may override it."""
    data = command.folder / "prompts.jsonl"
    if not data.exists():
        write_rows(data, [{"prompt": f"why {'so ' * (place % 3)}{place} ?", "answer": str(place)} for place in range(12)])
    usual = ["--model", command.model, "--data", data, "--device", "cpu", "--samples", "1", "--prompts", "2", "--holdout", "0.2", "--lr", "1e-3"]
    usual += ["--sampling.answers", "4", "--sampling.max-new-tokens", "6", "--max-length", "48", "--out", command.folder / run]
    return command("online", *usual, *arguments)
