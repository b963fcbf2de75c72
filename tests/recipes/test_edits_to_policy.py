"""From corrections to a policy by the commands of docs/methods/fine-grained.md, on tiny models. Test of rewards/fine_grained.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from finegrain.ops.edits import least_edit
from tests.recipes.command import Command
from tests.tiny import write_rows

POLICIES = {
    "token-rewards": ["objective:token-distillation", "credit:token-reward"],
    "mask": ["objective:dpo", "credit:asr", "--credit.min-kept", "0", "--credit.max-kept", "1"],
}


def write_corrections(file: Path, count: int = 32) -> Path:
    """One word of the original is corrected, somewhere; every fifth correction is a rewrite."""
    rng = np.random.default_rng(0)
    rows = []
    for place in range(count):
        words = rng.choice(["people", "words", "yes", "said"], 6).tolist()
        at = int(rng.integers(6))
        corrected = ["some", "other", "answer"] if place % 5 == 4 else [*words[:at], "good", *words[at + 1 :]]
        original = [*words[:at], "bad", *words[at + 1 :]]
        rows.append({"prompt": f"why {place} ?", "original": " " + " ".join(original), "corrected": " " + " ".join(corrected)})
    return write_rows(file, rows)


def log_ratios(file: Path) -> dict[str, float]:
    """Mean log-ratio of what small edits removed, added and left alone."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found: dict[str, list[float]] = {"removed": [], "added": [], "unchanged": []}
    for corrected, original in zip(lines[::2], lines[1::2], strict=True):
        texts = [[line["response"][start:end] for start, end, *_ in line["tokens"]] for line in (original, corrected)]
        order = {text: place for place, text in enumerate(dict.fromkeys(text for own in texts for text in own))}
        edit = least_edit(*(np.array([order[text] for text in own]) for own in texts))
        if edit.distance > 2:
            continue
        worse, better = (np.array([token[2] for token in line["tokens"]]) for line in (original, corrected))
        for name, values in (("removed", worse[edit.first]), ("added", better[edit.second]), ("unchanged", worse[~edit.first])):
            found[name] += values.tolist()
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(POLICIES))
def test_corrections_to_a_policy(command: Command, tmp_path: Path, name: str) -> None:
    """The token model finds what was corrected in held-out answers; the policy learns it, and hardly touches the rest."""
    data = write_corrections(tmp_path / "corrections.jsonl")
    learn = ["--data", data, "--epochs", "5", "--lr", "0.01", "--holdout", "0.25"]
    done = command.prefer("token-model", *learn, "head:token", "head.readout:mean", "loss:fine-grained", command="reward")
    assert done.code == 0, done.error
    record = command.record("token-model")
    assert record["edits"]["rewrites_left_out"] > 0
    assert min(record["evaluation"][f"eval_{measure}"]["mean"] for measure in ("removed_auroc", "added_auroc", "edits_in_order")) > 0.8
    scorer = ["--credit.scorer", tmp_path / "token-model"]
    done = command.prefer("policy", *learn, *POLICIES[name], *scorer)
    assert done.code == 0, done.error
    out = tmp_path / "moved.jsonl"
    judged = ["--data", data, "--device", "cpu", "--model", tmp_path / "policy", "--reference", command.model, "--beta", "1", "--out", out]
    assert command("score", *judged).code == 0
    moved = log_ratios(out)
    assert moved["removed"] < moved["unchanged"] < moved["added"], moved
