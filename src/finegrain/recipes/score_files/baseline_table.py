"""Baseline scores on disk: the identity of the reward that gave them in the first line, then one line per prompt."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.configure import to_json, to_kebab
from finegrain.errors import DataError, UsageError
from finegrain.ops.aggregate import MeanReward, OfOneAnswer
from finegrain.ops.stats import mean_interval
from finegrain.scoring.records import Reward
from finegrain.types import Json

HEADER = "baseline_of"
SHA256 = 64
"""Characters of a hash."""
NAMED = {"source"}
"""Entries of an identity that are for people: the same weights in another folder are the same reward."""


@dataclass(frozen=True)
class BaselineTable:
    """Scores by prompt, and whose they are."""

    reward: Json
    """What `reward_identity` says of the reward."""
    scores: Mapping[str, list[float]]
    """By the prompt as the reward reads it; rows of the same prompt are joined."""

    def spread(self) -> Json:
        """How far apart prompts are, which a baseline takes out, and the answers of one prompt, which it leaves."""
        centres = [sum(own) / len(own) for own in self.scores.values()]
        within = [_std(own) for own in self.scores.values() if len(own) > 1]
        return {
            "mean": mean_interval(centres).as_json(),
            "std_between_prompts": _std(centres) if len(centres) > 1 else None,
            "std_within_prompts": sum(within) / len(within) if within else None,
        }


def _std(values: list[float]) -> float:
    """Sample standard deviation of two values or more."""
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


def table_lines(table: BaselineTable) -> Iterator[str]:
    """The file, line by line."""
    yield json.dumps({HEADER: table.reward}, ensure_ascii=False) + "\n"
    for prompt, own in table.scores.items():
        std = _std(own) if len(own) > 1 else None
        line = {"prompt": prompt, "scores": own, "mean": sum(own) / len(own), "std": std, "count": len(own)}
        yield json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def read_table(file: Path) -> BaselineTable:
    """What `table_lines` wrote; raises DataError with the line that is something else."""
    try:
        with file.open(encoding="utf-8") as stream:
            found = [(number, _object(file, number, line)) for number, line in enumerate(stream, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the baseline {file}: {error}") from error
    if not found or not isinstance(found[0][1].get(HEADER), dict):
        raise DataError(f"{file} does not begin with the identity of its reward ({HEADER}): expected a file that `finegrain score baseline` wrote")
    scores: dict[str, list[float]] = {}
    for number, line in found[1:]:
        prompt, own = line.get("prompt"), line.get("scores")
        if not isinstance(prompt, str) or not isinstance(own, list) or not own or not all(_is_score(one) for one in own):
            raise DataError(f"{file}, line {number}: expected a prompt and its scores, one finite number or more")
        if prompt in scores:
            raise DataError(f"{file}, line {number}: a second line of the prompt {prompt[:60]!r}; join their scores")
        scores[prompt] = [float(one) for one in own]
    return BaselineTable(found[0][1][HEADER], scores)


def _object(file: Path, number: int, line: str) -> Json:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{file}, line {number}: no JSON ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{file}, line {number}: expected an object, found {type(found).__name__}")
    return found


def _is_score(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def identify_reward(reward: Reward, aggregate: OfOneAnswer) -> Json:
    """Of the numbers that a reward gives under an aggregate; of the mean it is the reward's own."""
    own = reward.identity()
    return own if isinstance(aggregate, MeanReward) else {**own, "aggregate": {"method": to_kebab(type(aggregate).__name__), **to_json(aggregate)}}


def list_differing(told: Json, now: Json) -> list[str]:
    """Entries in which two identities differ, but for those that are for people."""
    return [name for name in dict.fromkeys((*told, *now)) if name not in NAMED and told.get(name) != now.get(name)]


def check_reward(file: Path, told: Json, now: Json) -> None:
    """Raises UsageError, naming what differs, where a table's scores are another reward's: the bias would differ from prompt to prompt."""
    differing = list_differing(told, now)
    if not differing:
        return
    words = [_difference(name, told.get(name), now.get(name)) for name in differing]
    raise UsageError(
        f"{file} holds scores of another reward than {now['source']}: they differ in {', '.join(words)} (it was made by {told.get('source')}); "
        "make the baseline again with `finegrain score baseline` and this reward, or give the settings it was made with"
    )


def _difference(name: str, told: Any, now: Any) -> str:
    """The name alone where the values are hashes."""
    hashes = any(isinstance(value, str) and len(value) == SHA256 for value in (told, now))
    return name if hashes else f"{name} ({told} against {now})"
