"""A run of online RL as the report reads it: metrics.jsonl by buffer, rollouts.jsonl by answer."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from finegrain.errors import CheckpointError
from finegrain.types import Json

ROLLOUTS = "rollouts.jsonl"
SUMMED = ("seconds/", "unjudged")
"""Beginnings of names of numbers that are added over the lines of a buffer; of all others the mean is taken."""
SKIPPED = "updates_skipped"
"""Logged as the count of the run so far, at the beginning of a buffer."""
OF_UPDATES = "approx_kl"
"""The distance of an update from the policy that sampled."""
OF_LOSS = "kl/answer"
"""The leash's term where it stands in the loss; every other `kl/NAME` is the distance from a reference."""
TINY = 1e-12
"""Smaller numbers are rounding."""
LOSS = "loss"
"""Logged for every update that was taken."""

Series = Float[np.ndarray, " N"]


@dataclass(frozen=True, kw_only=True)
class BufferNumbers:
    """What was logged, by buffer."""

    buffers: np.ndarray
    """(N,) numbers of the buffers, ascending."""
    values: Mapping[str, Series]
    """(N,) by logged name; NaN where a buffer has none."""
    taken: Series
    """(N,) updates taken on each."""
    skipped: Series
    """(N,) updates skipped on each; NaN where it was not counted."""

    def read(self, name: str) -> Series:
        """The series of a name, all NaN where it was never logged."""
        found = self.values.get(name)
        return np.full(len(self.buffers), np.nan) if found is None else found

    def has(self, name: str) -> bool:
        """Whether any buffer has a finite number of this name."""
        return bool(np.isfinite(self.read(name)).any())

    def names(self, start: str, end: str = "") -> list[str]:
        """Logged names that begin and end so, in their order."""
        return [name for name in self.values if name.startswith(start) and name.endswith(end) and len(name) > len(start) + len(end)]

    def references(self) -> list[str]:
        """Logged names of the distances from references, the leash's first."""
        return [name for name in ("kl", *self.names("kl/")) if name in self.values and name != OF_LOSS]

    def golds(self) -> dict[str, Series]:
        """Gold scores by name: of the training's answers, or of held-out ones where those alone were logged."""
        own = {name.removeprefix("gold/").removesuffix("/mean"): self.read(name) for name in self.names("gold/", "/mean")}
        return own or {name.removeprefix("eval_gold/"): self.read(name) for name in self.names("eval_gold/")}


def collect_buffers(metrics: Sequence[Json], skipped: object = None) -> BufferNumbers | None:
    """Numbers of the lines by buffer: a line without `buffer` belongs to the last one named, lines before the first to it. None without buffers.

    `skipped`: updates skipped in the whole run, where it is known.
    """
    found: dict[int, dict[str, list[float]]] = {}
    current, waiting = None, []
    for line in metrics:
        number = line.get("buffer")
        if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
            current = int(number)
        if current is None:
            waiting.append(line)
            continue
        own = found.setdefault(current, {})
        for each in (*waiting, line):
            _add(own, each)
        waiting = []
    if not found:
        return None
    buffers = sorted(found)
    names = dict.fromkeys(name for number in buffers for name in found[number])
    values = {name: np.array([_merge(name, found[number].get(name, [])) for number in buffers]) for name in names}
    taken = np.array([float(len(found[number].get(LOSS, []))) for number in buffers])
    return BufferNumbers(
        buffers=np.array(buffers), values=values, taken=taken, skipped=_skipped(values.get(SKIPPED, np.full(len(buffers), np.nan)), skipped)
    )


def _skipped(counted: Series, total: object) -> Series:
    """Of each buffer, from the counts so far: the next buffer's less its own; the last one's from the run's total."""
    last = float(total) if isinstance(total, (int, float)) else math.nan
    found: np.ndarray = np.diff(counted, append=last)
    return np.where(found < 0, np.nan, found)


def _add(own: dict[str, list[float]], line: Json) -> None:
    for name, value in line.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in ("step", "buffer"):
            own.setdefault(name, []).append(_as_float(value))


def _as_float(value: float | int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _merge(name: str, values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan
    merged = sum(known) if name.startswith(SUMMED) else sum(known) / len(known)
    return 0.0 if abs(merged) < TINY else merged


class SampledAnswer(NamedTuple):
    """One answer of rollouts.jsonl."""

    buffer: int
    row: int
    sample: int
    prompt: str
    text: str
    ended: str
    """length, end_token or stop_string."""
    rewards: Mapping[str, float]
    gold: Mapping[str, float]
    advantage: float
    """Of the answer as a whole; NaN where it was not written."""
    spans: Sequence[tuple[int, int]]
    """Characters start..end-1 of each token."""
    signals: Mapping[str, np.ndarray]
    """By name (`reward`, `advantage`, `kl`), a number per token; NaN where unknown."""

    @property
    def reward(self) -> float:
        """Sum of the rewards that were given; NaN where none was."""
        known = [value for value in self.rewards.values() if math.isfinite(value)]
        return sum(known) if known else math.nan

    @property
    def dense(self) -> bool:
        """Whether a token before the last one has a reward."""
        early = self.signals["reward"][:-1]
        return bool((np.isfinite(early) & (early != 0)).any())


SIGNALS = ("reward", "advantage", "kl")


def read_rollouts(folder: Path) -> list[SampledAnswer]:
    """Answers of a run directory; of an answer that stands twice (a resumed run) the later one; [] where there is no file.

    A half-written last line is left out; any other damage is a CheckpointError.
    """
    file = folder / ROLLOUTS
    if not file.exists():
        return []
    found: dict[tuple[int, int, int], SampledAnswer] = {}
    *lines, rest = file.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines + [rest] * _is_whole(rest), 1):
        if not line.strip():
            continue
        try:
            answer = _answer(json.loads(line))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            told = f"{file}:{number} is not a sampled answer ({type(error).__name__}: {error})"
            raise CheckpointError(f"{told}; remove the file for a report without answers") from error
        found[answer.buffer, answer.row, answer.sample] = answer
    return list(found.values())


def _is_whole(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _answer(line: Json) -> SampledAnswer:
    text, spans = str(line["text"]), line.get("spans") or []
    places = [(int(span[0]), int(span[1])) for span in spans]
    if any(not 0 <= start <= end <= len(text) for start, end in places):
        raise ValueError(f"a span outside the {len(text)} characters of the text")
    signals = {name: np.array([_number(span[2 + place]) for span in spans], dtype=np.float64) for place, name in enumerate(SIGNALS)}
    return SampledAnswer(
        buffer=int(line["buffer"]),
        row=int(line["row"]),
        sample=int(line.get("sample", 0)),
        prompt=str(line["prompt"]),
        text=text,
        ended=str(line.get("ended", "")),
        rewards=_numbers(line.get("rewards")),
        gold=_numbers(line.get("gold")),
        advantage=_number(line.get("advantage")),
        spans=places,
        signals=signals,
    )


def _number(value: Any) -> float:
    return math.nan if value is None else _as_float(float(value))


def _numbers(given: Any) -> dict[str, float]:
    return {str(name): _number(value) for name, value in (given or {}).items()}


def distinct_shares(answers: Sequence[SampledAnswer]) -> Series:
    """By buffer with at least four sampled answers, oldest first, the share of their texts that differ from all others kept before."""
    texts: dict[int, list[str]] = {}
    for answer in answers:
        texts.setdefault(answer.buffer, []).append(answer.text)
    return np.array([len(set(own)) / len(own) for _, own in sorted(texts.items()) if len(own) >= FEWEST_TEXTS])


FEWEST_TEXTS = 4
"""Sampled answers of a buffer below which their share of distinct ones says nothing [choice]."""
