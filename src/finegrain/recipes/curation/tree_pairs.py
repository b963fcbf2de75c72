"""Preference rows from trees: grow one per prompt, score its leaves, pair them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finegrain.commands.curate import CurateSettings
from finegrain.commands.settings import Common
from finegrain.configure import to_json
from finegrain.curate.tree import make_preference_row, saved_share
from finegrain.curate.tree_rm import TreeRM
from finegrain.data.records import Text, Turn
from finegrain.errors import DataError, UsageError
from finegrain.files import write_new
from finegrain.generate.tree import Grower
from finegrain.models.load import Policy, load_policy, master_dtype
from finegrain.models.scorer import silence_dropout
from finegrain.ops.stats import mean_interval
from finegrain.recipes.prompts import DistinctPrompts, score_answers
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Reward
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.sources import RewardOptions
from finegrain.terminal import write_line
from finegrain.types import Json


@dataclass
class TreeCounts:
    """What the summary says."""

    trees: int = 0
    leaves: int = 0
    unjudged: int = 0
    without_pairs: int = 0
    depths: dict[int, int] = field(default_factory=dict)
    saved: list[float] = field(default_factory=list)

    def as_json(self) -> Json:
        """Counts, pairs by depth, and the share of tokens that need not be read twice."""
        pairs = sum(self.depths.values())
        saved = mean_interval(self.saved) if self.saved else None
        found = {"trees": self.trees, "leaves": self.leaves, "unjudged": self.unjudged, "without_pairs": self.without_pairs, "pairs": pairs}
        return {**found, "lca_depths": dict(sorted(self.depths.items())), "shared_tokens": None if saved is None else saved.as_json()}


def tree_pairs(settings: CurateSettings, method: TreeRM) -> dict[str, Any]:
    """Rows of labelled pairs, and the summary."""
    if not method.reward:
        raise UsageError("nothing to label the leaves with: give --method.reward REWARD_MODEL or --method.reward file.py:name")
    common = Common(seed=settings.seed, max_length=settings.max_length, device=settings.device, dtype=settings.dtype)
    runtime = open_runtime(common.device, common.dtype)
    policy = load_policy(settings.model, master=master_dtype(runtime.precision.name))
    silence_dropout(policy.model)
    policy.model.to(runtime.device)
    reward = open_reward(method.reward, RewardOptions(runtime=lambda: runtime, max_length=common.max_length))
    counts, prompts = TreeCounts(), DistinctPrompts(settings, policy.tokenizer)
    write_new(settings.out, (json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(settings, method, policy, reward, counts, prompts)))
    for line in prompts.messages():
        write_line(line)
    summary = {"out": str(settings.out), **counts.as_json(), "prompts": prompts.facts()}
    write_new(settings.summary, [json.dumps({**summary, "settings": to_json(settings)}, indent=1) + "\n"])
    return summary


def _rows(settings: CurateSettings, method: TreeRM, policy: Policy, reward: Reward, counts: TreeCounts, prompts: DistinctPrompts) -> Iterator[Json]:
    for question, example in prompts():
        tree = counts.trees
        counts.trees += 1
        grown = method.grow(Grower(policy.model, policy.tokenizer, example.prompt, method), settings.seed * 1_000_003 + tree)
        texts = {policy.tokenizer.decode(leaf, skip_special_tokens=True): leaf for leaf in grown}
        told = [text for text in texts if text.strip()]
        scores = dict(zip(told, score_answers(reward, [(question, text) for text in told]), strict=True)) if told else {}
        kept = [text for text in told if scores[text] is not None]
        counts.leaves += len(told)
        counts.unjudged += len(told) - len(kept)
        leaves, judged = [texts[text] for text in kept], [float(scores[text] or 0.0) for text in kept]
        pairs = method(leaves, np.random.default_rng([settings.seed, tree]))
        counts.without_pairs += not pairs
        for pair in pairs:
            counts.depths[pair.lca_depth] = counts.depths.get(pair.lca_depth, 0) + 1
            counts.saved.append(saved_share(pair, leaves))
            yield _as_asked(make_preference_row("", kept, pair, judged, tree=tree), question.made.prompt)
    if not counts.trees:
        raise DataError(f"{settings.data}: no row has a prompt that can be used: {prompts.findings.in_words() or 'there are no rows'}")
    if not counts.depths:
        raise DataError(f"{settings.data}: no tree of {counts.trees} has two different answers that were judged; is the temperature too low?")


def _as_asked(row: Json, prompt: Text) -> Json:
    """The row with the prompt in the form it came in: a string, or a conversation with answers that are turns."""
    if isinstance(prompt, str):
        return {**row, "prompt": prompt}
    turns = {role: [Turn("assistant", row[role]).message()] for role in ("chosen", "rejected")}
    return {**row, "prompt": [one.message() for one in prompt], **turns}
