"""Score files read back, and the same answers joined under several rewards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from finegrain.data.file_rows import read_file_rows
from finegrain.data.source_rows import BadCell, SourceRow
from finegrain.data.text_file import find_invalid_text
from finegrain.errors import DataError
from finegrain.evaluate.accuracy import length_scores

LARGEST = 1e100
"""[choice] Of a score: its square is still a number."""
NAMED = 3
"""Answers that a message names."""


class ScoredAnswer(NamedTuple):
    """What a line of a score file says."""

    prompt: str
    response: str
    score: float | None
    """None where the reward did not score the answer."""
    truncated: bool


@dataclass(frozen=True)
class JoinedScores:
    """The answers that every file has a score of."""

    rewards: Float[np.ndarray, "M N"]
    """By file, in their order."""
    prompts: Int[np.ndarray, " N"]
    """The number of each answer's prompt, as the first file writes it."""
    lengths: Float[np.ndarray, " N"]
    """Characters of each answer."""
    left_out: int
    """Answers that lack a score in a file."""


def read_scores(file: Path) -> dict[str, ScoredAnswer]:
    """Answers by name; raises DataError with the line that no score file has."""
    found: dict[str, ScoredAnswer] = {}
    for where, row in read_file_rows(file):
        name, answer = _answer(where, row)
        if name in found:
            raise DataError(f"{where}: a second answer named {name!r}; answers are told apart by their names (finegrain score --id)")
        found[name] = answer
    if not found:
        raise DataError(f"{file} holds no answers: expected a file that `finegrain score` wrote")
    return found


def _answer(where: str, row: Mapping[str, Any]) -> tuple[str, ScoredAnswer]:
    name, prompt, response, score = (row.get(key) for key in ("id", "prompt", "response", "score"))
    texts = isinstance(name, str) and isinstance(prompt, str) and isinstance(response, str)
    if not texts or not isinstance(score, dict) or "mean" not in score:
        found = next(_faults(row), None) or _other_kinds(row)
        raise DataError(f"{where}: expected id, prompt, response and score, as `finegrain score` writes them; {found}")
    mean = score["mean"]
    if mean is not None and not _is_score(mean):
        raise DataError(f"{where}: a score is a finite number, or null where there is none; {name!r} has {str(mean)[:40]}")
    return str(name), ScoredAnswer(str(prompt), str(response), None if mean is None else float(mean), row.get("truncated") is True)


def _faults(value: Any) -> Iterator[str]:
    """Why cells, or what lies in them, cannot be read."""
    if isinstance(value, BadCell):
        yield value.words
    elif isinstance(value, str) and find_invalid_text(value):
        yield find_invalid_text(value)
    elif isinstance(value, Mapping):
        for name, cell in value.items():
            yield from _faults((value.fault(name) or cell) if isinstance(value, SourceRow) else cell)


def _other_kinds(row: Mapping[str, Any]) -> str:
    """Which of the entries are missing, or hold something else."""
    wanted = {"id": str, "prompt": str, "response": str, "score": dict}
    if missing := sorted(wanted.keys() - row.keys()):
        return f"found {', '.join(row) or 'nothing'}, and no {' and no '.join(missing)}"
    odd = [f"{name} is {type(row[name]).__name__}" for name, kind in wanted.items() if not isinstance(row[name], kind)]
    return ", ".join(odd) or "score has no mean"


def _is_score(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def join(files: Sequence[Path], answers: Sequence[Mapping[str, ScoredAnswer]]) -> JoinedScores:
    """By name, in the order of the first file; raises DataError where another file has other answers."""
    first = answers[0]
    for file, other in zip(files[1:], answers[1:], strict=True):
        _same_answers(files[0], first, file, other)
    rows = [[one[name].score for one in answers] for name in first]
    kept = [place for place, row in enumerate(rows) if None not in row]
    if not kept:
        raise DataError(f"none of the {len(first)} answers has a score in every file: nothing can be compared")
    own = [list(first.values())[place] for place in kept]
    number = {prompt: place for place, prompt in enumerate(dict.fromkeys(one.prompt for one in own))}
    return JoinedScores(
        rewards=np.array([rows[place] for place in kept], dtype=float).T,
        prompts=np.array([number[one.prompt] for one in own]),
        lengths=length_scores([one.response for one in own]),
        left_out=len(first) - len(kept),
    )


def _same_answers(file: Path, first: Mapping[str, ScoredAnswer], other_file: Path, other: Mapping[str, ScoredAnswer]) -> None:
    missing, more = [name for name in first if name not in other], [name for name in other if name not in first]
    if missing or more:
        parts = [f"{len(names)} only in {where} ({few(names)})" for where, names in ((file, missing), (other_file, more)) if names]
        raise DataError(f"{file} and {other_file} name different answers: {', '.join(parts)}; score the same --data, whole, with both rewards")
    changed = [name for name in first if first[name].response != other[name].response]
    if changed:
        raise DataError(f"{len(changed)} answers of the same name differ between {file} and {other_file} ({few(changed)}); score the same --data")


def few(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(name[:60] for name in names[:NAMED]) + (" …" if len(names) > NAMED else "")
