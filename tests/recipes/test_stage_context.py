"""A stage before training: a value of the prompts is fitted to rewards of sampled answers, and rows are drawn by their advantage over it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import finegrain
from finegrain.errors import DataError, UsageError
from finegrain.ops.sequence import sequence_logp
from finegrain.rewards.columns import StageContext
from finegrain.train.loop import Trainer
from finegrain.types import Pair
from tests.tiny import save_tiny, write_pairs

REWARD = """
def vowels(prompts, completions, **columns):
    return [sum(text.count(letter) for letter in "aeiou") / (1 + len(text)) for text in completions]
"""


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """Weighted likelihood of the chosen answers in the form of https://arxiv.org/abs/2305.14718."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    sample_by: ClassVar[str] = "advantage"
    columns: ClassVar[tuple[str, ...]] = ()
    reward: str

    def stage(self, rows: StageContext) -> dict[str, np.ndarray]:
        states = rows.prompt_states().astype(np.float64)
        if rows.trains:
            sampled = np.stack(list(rows.score(self.reward, rows.sample(2, max_new_tokens=6)).values()), 1).mean(1)
            gram = states @ states.T + np.eye(len(states))
            rows.kept["value"] = states.T @ np.linalg.solve(gram, sampled)
        own = rows.score(self.reward)["chosen"]
        gain = own - states @ rows.kept["value"]
        floor = rows.kept.setdefault("floor", max(0.0, float(np.median(gain))))
        return {"advantage": np.maximum(gain - floor, 0.0), "gain": gain}

    def __call__(self, pair: Pair) -> Tensor:
        return -pair.columns["advantage"] * sequence_logp(pair.chosen)


@dataclass(frozen=True, kw_only=True)
class Misshapen(Advantage):
    def stage(self, rows: StageContext) -> dict[str, np.ndarray]:
        return {"advantage": np.full(len(rows.numbers) + 1, np.nan)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "cache"))
    save_tiny(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", 24)
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def run(folder: Path, name: str, objective: Any) -> dict[str, Any]:
    common = finegrain.Common(device="cpu", lr=1e-3, max_steps=6)
    training = finegrain.Training(batch_size=4, samples=0, holdout=0.2)
    paths = (str(folder / "model"), str(folder / "pairs.jsonl"), str(folder / name))
    finegrain.prefer(*paths, objective=objective, common=common, training=training)
    found: dict[str, Any] = json.loads((folder / name / "run.json").read_text())
    return found


def test_rows_are_drawn_by_what_the_stage_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    honest = Trainer.pair

    def watched(self: Trainer, *arguments: Any, **named: Any) -> Pair:
        pair = honest(self, *arguments, **named)
        if torch.is_grad_enabled():
            seen.append(pair.columns["advantage"])
            assert (pair.columns["gain"] >= pair.columns["advantage"]).all()
        return pair

    monkeypatch.setattr(Trainer, "pair", watched)
    objective = Advantage(reward=f"{folder / 'reward.py'}:vowels")
    first = run(folder, "one", objective)
    train, held = first["pairs"], 24 - first["pairs"]
    assert held > 0
    assert {name: first["stage"][name] for name in ("prompts_read", "answers_sampled", "numbers")} == {
        "prompts_read": 24,
        "answers_sampled": 2 * train,
        "numbers": ["advantage", "gain"],
    }
    assert first["stage"]["answers_scored"] == 2 * train + 2 * 24, "samples, and both answers of every row"
    assert first["stage"]["seconds"] <= first["beside_training"]["seconds"]
    assert first["reading"]["by"] == "advantage"
    assert 0 < first["reading"]["without_a_chance"] < train
    assert (torch.cat(seen) > 0).all(), "rows without an advantage are not read"
    assert first["evaluation"]["eval_loss"]["mean"] is not None, "held-out rows have the number too"
    again = run(folder, "two", objective)
    assert again["last"]["loss"] == first["last"]["loss"], "the same samples, the same value, the same rows"


class Idle(Advantage):
    def stage(self, rows: StageContext) -> dict[str, np.ndarray]:
        return {}


def test_a_stage_that_makes_nothing_to_draw_by_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="rows are to be drawn by the column advantage, which not every row has"):
        run(folder, "run", Idle(reward=""))


def test_a_number_of_the_wrong_shape_is_named(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"the stage of Misshapen gives advantage of shape \(\d+,\); \d+ rows need one finite number each"):
        run(folder, "run", Misshapen(reward=""))
