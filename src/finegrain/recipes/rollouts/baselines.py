"""What a fixed sampler's answers to the prompts of a run score, prompt by prompt, from files of `finegrain score baseline`."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.configure import to_json, to_kebab
from finegrain.credit.reward_signals import Head, PrefixDifference
from finegrain.data.findings import Findings
from finegrain.data.gate.texts import get_texts
from finegrain.errors import DataError, UsageError
from finegrain.ops.baseline import AboveOnly, Contrast
from finegrain.recipes.rollouts.prompts import Prompt
from finegrain.recipes.rollouts.rewards import OnlineReward, Rewards
from finegrain.recipes.score_files.baseline_table import BaselineTable, check_reward, identify_reward, list_differing, read_table
from finegrain.scoring.records import Candidates
from finegrain.scoring.sources import is_text_source
from finegrain.types import Json

NAMED = 3
"""Prompts without a baseline that an error shows."""


class BaselineRows(NamedTuple):
    """Of B answers and n rewards."""

    baseline: Float[Tensor, "B n"]
    """float64; NaN where a reward has no baseline."""
    baseline_scale: Float[Tensor, "B n"]
    """float64; 1 where it has none."""


@dataclass(frozen=True)
class PromptBaselines:
    """Baselines of every prompt of a run."""

    by_row: Mapping[int, Float[Tensor, "2 n"]]
    """By the prompt's row in the data: what is subtracted from each reward, and what the difference is divided by."""
    count: int
    """Rewards."""
    above_only: bool
    files: Sequence[Json]
    """What was read, for run.json: name, source, SHA-256 as `file`, counts, contrast."""

    def read(self, candidates: Sequence[Candidates]) -> BaselineRows:
        """Of the prompts that these answers belong to."""
        if not candidates:
            return BaselineRows(*torch.zeros(2, 0, self.count, dtype=torch.float64))
        return BaselineRows(*torch.stack([self.by_row[one.row] for one in candidates], 1))

    def describe(self) -> list[str]:
        """For a person."""
        return [f"{one['name']}: {one['scores']} scores of {one['prompts']} prompts ({one['source']})" for one in self.files]


def open_baselines(files: Sequence[Path], contrast: Contrast, rewards: Rewards, prompts: Sequence[Prompt], tokenizer: Any) -> PromptBaselines | None:
    """The baselines of these prompts; None without files.

    Raises UsageError for a table of another reward, for a scale that its scores do not determine and for a credit whose token rewards do not add
    up to the score; DataError for a prompt that is missing.
    """
    if not files:
        return None
    tables: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    facts: list[Json] = []
    for file in files:
        table = read_table(file)
        place = _find_reward(file, table, rewards)
        _check_credit(rewards.rewards[place], rewards)
        for prompt, scores in table.scores.items():
            tables[place][prompt] += scores
        counts = {"prompts": len(table.scores), "scores": sum(map(len, table.scores.values()))}
        hashed = hashlib.sha256(file.read_bytes()).hexdigest()
        facts.append({"name": f"baseline of {rewards.names[place]}", "source": str(file), "file": hashed, **counts, "contrast": _named(contrast)})
    given = [Candidates(row=one.example.row, tokens=one.example, tokenizer=tokenizer, columns=one.question.raw) for one in prompts]
    by_row = {one.row: _empty(len(rewards.names)) for one in given}
    for place, own in tables.items():
        for one, number in _compare_prompts(rewards.rewards[place], own, given, contrast):
            by_row[one.row][:, place] = number
    return PromptBaselines(by_row, len(rewards.names), isinstance(contrast, AboveOnly), facts)


def _compare_prompts(
    reward: OnlineReward, table: Mapping[str, Sequence[float]], given: Sequence[Candidates], contrast: Contrast
) -> Iterator[tuple[Candidates, Float[Tensor, " 2"]]]:
    """The prompts with what is subtracted and what divides."""
    missing = []
    for one, prompt in zip(given, _prompts_as_read(reward, given), strict=True):
        if prompt is None:
            raise DataError(f"row {one.row}: the reward {reward.name} cannot read the prompt, so that it has no baseline")
        if prompt not in table:
            missing.append(prompt)
            continue
        scores = torch.tensor(table[prompt], dtype=torch.float64)
        try:
            yield one, torch.stack([contrast.aggregate(scores), contrast.scale(scores)])
        except UsageError as error:
            raise UsageError(f"the prompt {prompt[:60]!r}: {error}") from error
    if missing:
        named = ", ".join(repr(prompt[:60]) for prompt in missing[:NAMED]) + (" ..." if len(missing) > NAMED else "")
        raise DataError(
            f"the baseline of the reward {reward.name} lacks {len(missing)} of {len(given)} prompts: {named}; sample answers to them too and make it "
            "again with `finegrain score baseline`"
        )


def _prompts_as_read(reward: OnlineReward, given: Sequence[Candidates]) -> list[str | None]:
    """As `finegrain score baseline` writes them: rendered for a reward with a tokenizer, else the words."""
    if reward.reward.tokenizer is None:
        return [get_texts(one.text).prompt for one in given]
    return [None if one is None else one.prompt_text for one in reward.reward.read(given, Findings())]


def _find_reward(file: Path, table: BaselineTable, rewards: Rewards) -> int:
    """Place of the reward that a table is of."""
    identities = [identify_reward(one.reward, one.aggregate) for one in rewards.rewards]
    for place, identity in enumerate(identities):
        if not list_differing(table.reward, identity):
            return place
    nearest = min(identities, key=lambda identity: (identity.get("kind") != table.reward.get("kind"), len(list_differing(table.reward, identity))))
    check_reward(file, table.reward, nearest)
    raise AssertionError("a table of a known reward")


def _check_credit(reward: OnlineReward, rewards: Rewards) -> None:
    if reward.on_tokens and not is_text_source(reward.source) and isinstance(rewards.credit, (Head, PrefixDifference)):
        name = to_kebab(type(rewards.credit).__name__)
        raise UsageError(
            f"under credit:{name} the rewards of an answer's tokens do not add up to the score that a baseline holds: take credit:terminal, uniform "
            f"or attention for {reward.name}, or leave out --baseline"
        )


def _empty(count: int) -> Float[Tensor, "2 n"]:
    """No baseline, and a divisor of 1."""
    return torch.stack([torch.full((count,), torch.nan, dtype=torch.float64), torch.ones(count, dtype=torch.float64)])


def _named(contrast: Contrast) -> Json:
    return {"method": to_kebab(type(contrast).__name__), **to_json(contrast)}
