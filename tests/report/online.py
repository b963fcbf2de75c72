"""Run directories of online RL built in code: a healthy run, and one for every fault that a verdict names."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finegrain.types import Json
from tests.tiny import write_rows

Values = np.ndarray
Make = Callable[[Values], Values]
"""From the share of the run that has passed, (N,) from 0 to 1, to a number by buffer."""

HEALTHY: Mapping[str, Make] = {
    "reward": lambda t: 0.2 + 0.5 * t,
    "gold/judge/mean": lambda t: 0.15 + 0.4 * t,
    "kl": lambda t: 0.12 * (1 - np.exp(-3 * t)),
    "kl/start": lambda t: 0.15 * (1 - np.exp(-3 * t)),
    "entropy": lambda t: 1.4 - 0.5 * t,
    "beta": lambda t: 0.05 + 0 * t,
    "frac_reward_zero_std": lambda t: 0.04 + 0 * t,
    "clip_ratio/low_mean": lambda t: 0.04 + 0 * t,
    "clip_ratio/high_mean": lambda t: 0.06 + 0 * t,
    "clip_ratio/region_mean": lambda t: 0.1 + 0 * t,
    "completions/mean_length": lambda t: 40 + 3 * t,
    "completions/min_length": lambda t: 9 + 0 * t,
    "completions/max_length": lambda t: 64 + 0 * t,
    "completions/clipped_ratio": lambda t: 0.06 - 0.03 * t,
    "completions/mean_terminated_length": lambda t: 38 + 3 * t,
    "completions/stop_ratio": lambda t: 0 * t,
    "value/loss": lambda t: 0.3 - 0.2 * t,
    "value/explained_variance": lambda t: 0.6 * (1 - np.exp(-4 * t)),
    "advantage/mean": lambda t: 0 * t,
    "advantage/std": lambda t: 1 + 0 * t,
    "advantage/density": lambda t: 0.3 + 0 * t,
    "updates_skipped": lambda t: 0 * t,
    "unjudged": lambda t: 0 * t,
}
NOISY = frozenset({"reward", "gold/judge/mean", "kl", "kl/start", "entropy", "completions/mean_length", "value/explained_variance"})
PEAK = 0.5
"""Share of a hacked run at which gold is highest."""

HACKED: Mapping[str, Make] = {
    "reward": lambda t: 0.2 + 0.7 * (1 - np.exp(-2 * t)),
    "gold/judge/mean": lambda t: 0.15 + 0.5 * t / PEAK * (2 - t / PEAK),
}
FAULTS: Mapping[str, Mapping[str, Make]] = {
    "reward hacking": HACKED,
    "gold falls": {"reward": lambda t: 0.5 + 0 * t, "gold/judge/mean": lambda t: 0.5 - 0.3 * t},
    "reward falls": {"reward": lambda t: 0.7 - 0.4 * t},
    "KL runs away": {"kl": lambda t: 4 * t**3, "kl/start": lambda t: 4 * t**3},
    "collapsed": {"entropy": lambda t: 1.4 * np.exp(-6 * t)},
    "length drifts": {"completions/mean_length": lambda t: 25 + 30 * t},
    "most answers cut": {"completions/clipped_ratio": lambda t: 0.3 + 0.65 * t},
    "most groups dead": {"frac_reward_zero_std": lambda t: 0.1 + 0.8 * t},
    "members come apart": {"spread/judge": lambda t: 0.3 + 0.9 * t},
    "density erased": {"advantage/density": lambda t: 0.001 + 0 * t},
    "no answer judged": {"reward": lambda t: np.where(t > 0.6, np.nan, 0.2 + 0.5 * t), "unjudged": lambda t: np.where(t > 0.6, 64.0, 0.0)},
    "most updates skipped": {"updates_skipped": lambda t: 12.0 * np.arange(len(t))},
    "explains nothing": {"value/explained_variance": lambda t: -0.05 + 0 * t},
}
"""By verdict, what is otherwise than in the healthy run."""

TEXTS = (
    ("The sky looks blue because air scatters short waves more.", "Great question! The sky is blue.", "Great question! Great question! Great!"),
    ("Add the two numbers: 17 and 25 make 42.", "#### 42 is correct", "#### 42 #### 42 #### 42 correct correct"),
    ("Boil the eggs for ten minutes, then cool them.", "Eggs: ten minutes. Enjoy!", "Enjoy! Enjoy! Enjoy! Enjoy! Enjoy!"),
    ("Paris is the capital of France.", "Paris, of course, is it.", "Of course! Of course! Of course!"),
    ("No comma stands in this sentence.", "Commas, I avoid, mostly.", "Sure! I avoid! I avoid! I avoid!"),
)
PROMPTS = (
    "Why is the sky blue?",
    "What is 17 + 25?",
    "How long do eggs boil?",
    "What is the capital of France?",
    "Write a sentence without a comma.",
)


def answer(buffer: int, row: int, text: str, *, dense: bool = True, prompt: str = "", seed: int = 0, gold: float | None = None) -> Json:
    """A line of rollouts.jsonl: a token per word, an end token without characters."""
    rng = np.random.default_rng([seed, buffer, row])
    spans: list[list[float]] = []
    for start, end in _words(text):
        spans.append(
            [start, end, round(float(rng.normal(0, 0.3)), 3) if dense else 0.0, round(float(rng.normal()), 3), round(float(rng.gamma(1, 0.1)), 4)]
        )
    score = round(float(rng.normal(0.5, 0.2)), 3)
    spans.append([len(text), len(text), score, 0.4, 0.01])
    scores = {"rewards": {"helpful": score}, "gold": {} if gold is None else {"judge": gold}, "advantage": round(score - 0.5, 3)}
    ended = "length" if len(spans) > 8 else "end_token"
    return {"buffer": buffer, "row": row, "sample": 0, "prompt": prompt or PROMPTS[row % 5], "text": text, "ended": ended, **scores, "spans": spans}


def _words(text: str) -> list[tuple[int, int]]:
    """Each word with the space before it."""
    starts = [0, *(place for place, sign in enumerate(text) if sign == " " and place)]
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def rollouts(buffers: int, *, dense: bool = True, same: bool = False) -> list[Json]:
    """Five prompts, answered in every fourth buffer and the last one; `same`: in the end all answers are one."""
    found = []
    for buffer in sorted({*range(0, buffers, 4), buffers - 1}):
        age = min(2, 3 * buffer // buffers)
        for row in range(5):
            text = "Sure!" if same and age == 2 else f"{TEXTS[row][age]} ({buffer})"
            found.append(answer(buffer, row, text, dense=dense, gold=round(0.3 + 0.2 * age - 0.3 * (age == 2), 2)))
    return found


def metrics(buffers: int = 48, changed: Mapping[str, Make] | None = None, *, updates: int = 4, noise: float = 0.01, seed: int = 0) -> list[Json]:
    """Lines of metrics.jsonl, `updates` per buffer, evaluated on every eighth buffer."""
    rng, time = np.random.default_rng(seed), np.linspace(0, 1, buffers)
    made = {**HEALTHY, **(changed or {})}
    values = {name: make(time) + (noise * (_scale(make(time)) * rng.normal(size=buffers)) if name in NOISY else 0) for name, make in made.items()}
    values["rewards/helpful/mean"], values["rewards/helpful/std"] = values["reward"], np.full(buffers, 0.3)
    values["reward_std"] = np.full(buffers, 0.3)
    for part, seconds in (("generate", 4.1), ("reward", 1.2), ("measure", 0.8), ("update", 3.3)):
        values[f"seconds/{part}"] = seconds * rng.uniform(0.9, 1.1, buffers)
    lines, step = [], 0
    for buffer in range(buffers):
        for update in range(updates):
            step += 1
            line: Json = {"step": step, "loss": round(float(rng.normal(0, 0.02)), 4), "learning_rate": 1e-5, "grad_norm": 0.5}
            if not update:
                line |= {"buffer": buffer, **{name: float(f"{series[buffer]:.5g}") for name, series in values.items()}}
            if not update and buffer % 8 == 0:
                mean = float(values["reward"][buffer])
                line |= {"eval_reward": mean, "eval_reward_low": mean - 0.05, "eval_reward_high": mean + 0.05}
            lines.append(line)
    return lines


def _scale(values: Values) -> float:
    known = values[np.isfinite(values)]
    return float(np.ptp(known)) or float(abs(known).max()) or 1.0


def write_online(
    folder: Path, lines: Sequence[Json], answers: Sequence[Json] = (), *, record: Mapping[str, Any] | None = None, settings: Json | None = None
) -> Path:
    """A finished run of `finegrain online`."""
    folder.mkdir(parents=True)
    given = {"model": "small-lm", "data": "prompts.jsonl", "algorithm": {"method": "grpo"}, "credit": {"method": "prefix-difference"}}
    facts = {
        "command": "online",
        "settings": {**given, "reward": ["rules.py:helpful"], **(settings or {})},
        "versions": {"finegrain": "0.1.0"},
        "machine": {"device": "cpu"},
        "date": "2026-01-01T00:00:00",
        "status": "finished",
        "rows": 200,
        "steps": len(lines),
        "learning_rate": 1e-5,
        "train_seconds": 431.0,
        "data": {"source": "prompts.jsonl"},
    }
    (folder / "run.json").write_text(json.dumps({**facts, **(record or {})}))
    write_rows(folder / "metrics.jsonl", list(lines))
    if answers:
        (folder / "rollouts.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in answers), encoding="utf-8")
    return folder
