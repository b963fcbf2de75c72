"""Run directories built in code, with whatever fault is wanted."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.report.pairs import ExaminedAnswer, ExaminedPair
from finegrain.types import CharSpan
from tests.tiny import write_rows

WORDS = [" the", " cat", " sat", " on", " mat", ".", " dogs", " ran", " yes", " no", " good", " bad", " sky", " blue"]


def answer(rng: np.random.Generator, tokens: int, shift: float, *, weight: float | None = None, marks: bool = False) -> ExaminedAnswer:
    """An answer of `tokens` words (and an end token) whose log-probability changes by about `shift` in sum."""
    words = [str(word) for word in rng.choice(WORDS, tokens)]
    ends = np.cumsum([len(word) for word in words])
    offsets = np.stack([ends - [len(word) for word in words], ends], 1)
    offsets = np.concatenate([offsets, [[ends[-1], ends[-1]]]])
    count = len(offsets)
    before = -rng.gamma(2.0, 1.0, count)
    change = rng.normal(0, 0.05, count)
    change += (shift - change.sum()) / count
    return ExaminedAnswer(
        text="".join(words),
        offsets=offsets,
        mask=np.ones(count, dtype=bool),
        before=before,
        after=before + change,
        weight=None if weight is None else np.full(count, weight),
        reward=rng.normal(size=count) if marks else None,
        spans=(CharSpan(0, len(words[0]), -1.0),) if marks else None,
        truth=(CharSpan(0, len(words[0]), -1.0), CharSpan(len(words[0]), int(ends[-1]), 1.0)) if marks else None,
    )


def pairs(
    count: int = 40,
    *,
    chosen: float = 1.0,
    rejected: float = -1.0,
    per_token: float = 0.0,
    weight: float | None = None,
    seed: int = 0,
    tokens: int = 24,
) -> list[ExaminedPair]:
    """Pairs whose answers change by about these nats, and by `per_token` for every token."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(count):
        sizes = rng.integers(max(2, tokens // 4), tokens, 2)
        shifts = [chosen + rng.normal(0, 0.3) + per_token * sizes[0], rejected + rng.normal(0, 0.3) + per_token * sizes[1]]
        answers = {
            role: answer(rng, int(size), shift, weight=weight, marks=row % 3 == 0)
            for role, size, shift in zip(("chosen", "rejected"), sizes, shifts, strict=True)
        }
        found.append(ExaminedPair(row=row, held_out=row % 4 == 0, prompt=f"why {row} ?", answers=answers))
    return found


def write_run(folder: Path, examined: list[ExaminedPair] | None, *, record: dict[str, Any] | None = None, prompt: str = "why ?") -> Path:
    """A finished run."""
    folder.mkdir(parents=True)
    facts = {
        "command": "prefer",
        "settings": {"model": "tiny", "data": "pairs.jsonl", "objective": {"method": "dpo", "beta": 0.1}, "credit": {"method": "asr"}},
        "versions": {"finegrain": "0.1.0", "python": "3.11"},
        "machine": {"device": "cpu"},
        "date": "2026-01-01T00:00:00",
        "status": "finished",
        "pairs": 30,
        "steps": 12,
        "learning_rate": 1e-4,
        "train_seconds": 3.2,
        "data": {"source": "pairs.jsonl", "findings": [{"kind": "duplicates", "count": 2, "rows": [3, 4], "action": "dropped"}]},
        "evaluation": {"eval_loss": 0.6, "eval_margin": {"mean": 0.2, "low": 0.1, "high": 0.3, "rows": 10}},
    }
    (folder / "run.json").write_text(json.dumps(facts | (record or {})))
    steps = range(1, 13)
    lines = [{"step": step, "loss": 0.7 - 0.01 * step, "logps/chosen": step - 50.0, "logps/rejected": -60.0, "learning_rate": 1e-4} for step in steps]
    write_rows(folder / "metrics.jsonl", lines)
    (folder / "samples.jsonl").write_text(json.dumps({"prompt": prompt, "before": prompt + "b", "after": prompt + "a"}) + "\n")
    if examined is not None:
        (folder / "pairs.jsonl").write_text("".join(json.dumps(pair.as_json(), ensure_ascii=False) + "\n" for pair in examined))
    return folder
