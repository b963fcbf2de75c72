"""Steps from a source that makes its rows: `train/source.py`, the loop of `train/run.py`, sampled columns of `train/collate.py`."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.models.score import Precision
from finegrain.models.scorer import Scorer, fused, use_branched_attention
from finegrain.runs import RunDirectory
from finegrain.train.batches import Plan, Step, split
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.collate import TrainingSet, collate
from finegrain.train.loop import Trainer
from finegrain.train.optim import Optim, make_optimizer
from finegrain.train.read_contract import contract_of
from finegrain.train.run import Recorder, train
from finegrain.train.source import SourceState, Taken
from finegrain.types import Pair
from tests.tiny import MODELS, examples


class Surrogate:
    """Advantage-weighted likelihood ratio, as small as an objective of sampled answers can be."""

    roles = ("answer",)
    needs = frozenset({"sampled", "logp"})

    def __call__(self, pair: Pair) -> Tensor:
        side = pair.answer
        assert side.sampled is not None
        ratio = torch.where(side.mask, (side.logp - side.sampled.old_logp).clamp(-5, 5).exp(), 0.0)
        return -(ratio * side.sampled.advantage).sum(-1)


def rows(seed: int, prompts: int = 3, each: int = 4) -> TrainingSet:
    """Answers to a few prompts, those of one prompt side by side."""
    rng = np.random.default_rng(seed)
    found = [
        replace(one, prompt=examples(prompts, seed=9)[place // each].prompt)
        for place, one in enumerate(examples(prompts * each, seed=seed, roles=("answer",)))
    ]
    lengths = [len(one.responses["answer"].ids) for one in found]
    numbers = lambda low, high: [rng.uniform(low, high, length) for length in lengths]
    return TrainingSet(found, sampled={"answer": {"old_logp": numbers(-5, -4), "advantage": numbers(-1, 1)}})


@dataclass
class Counting:
    """Two updates a buffer of rows drawn by the buffer's number; remembers a running sum of losses, which its rows depend on."""

    buffers: int = 4
    seen: float = 0.0
    asked: list[int] = field(default_factory=list)
    skip: frozenset[int] = frozenset()
    fails_at: int | None = None

    def __len__(self) -> int:
        return 2 * self.buffers

    def at(self, trainer: Trainer, index: int) -> Taken | None:
        self.asked.append(index)
        if index == self.fails_at:
            raise UsageError("a reward failed")
        if index in self.skip:
            return None
        data = rows(index // 2 + int(1000 * self.seen) % 7)
        half = tuple(range(len(data.examples)))[index % 2 :: 2]
        return Taken(replace(trainer, data=data), Step(index, 0.0, half, split([9] * len(half), 40, 1)), {"buffer": index // 2})

    def note(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        self.seen += float(line["loss"])
        return {"seen": self.seen}

    def beside(self) -> Mapping[str, Trainer]:
        return {}

    def state(self) -> SourceState:
        return SourceState({"seen": torch.tensor([self.seen], dtype=torch.float64)}, {"asked": len(self.asked)})

    def restore(self, state: SourceState, done: int) -> None:
        self.seen = float(state.tensors["seen"])


def make_trainer(steps: int = 8) -> Trainer:
    torch.manual_seed(0)
    model = MODELS["llama"](num_hidden_layers=1).train()
    use_branched_attention(model)
    scorer, optim = Scorer(model, fused), Optim()
    contract = contract_of(Surrogate())
    precision = Precision(nullcontext, "float32", 10**9)
    return Trainer(
        scorer, contract, TrainingSet([]), make_optimizer(scorer.parameters(), [], optim, 1e-2), optim, precision, lambda pair: {}, 1e-2, steps
    )


def recorder(folder: Path, every: int = 0) -> Recorder:
    folder.mkdir(exist_ok=True)
    return Recorder(RunDirectory(folder), Checkpoints(folder), lambda target: None, every)


def numbers(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in ("step_seconds", "tokens_per_second")} for line in lines]


def test_a_source_goes_on_where_its_checkpoint_was(tmp_path: Path) -> None:
    whole = train(make_trainer(), Counting(), recorder(tmp_path / "whole"), resume=False)
    assert [line["buffer"] for line in whole] == [0, 0, 1, 1, 2, 2, 3, 3]
    stopped = Counting(fails_at=5)
    with pytest.raises(UsageError):
        train(make_trainer(), stopped, recorder(tmp_path / "cut"), resume=False)
    resumed = Counting()
    lines = train(make_trainer(), resumed, recorder(tmp_path / "cut"), resume=True)
    assert resumed.asked == [5, 6, 7]
    assert numbers(lines) == numbers(whole)


def test_a_source_that_forgets_its_state_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(make_trainer(), Counting(), recorder(tmp_path / "whole"), resume=False)
    with pytest.raises(UsageError):
        train(make_trainer(), Counting(fails_at=5), recorder(tmp_path / "cut"), resume=False)
    monkeypatch.setattr(Counting, "restore", lambda self, state, done: None)
    assert numbers(train(make_trainer(), Counting(), recorder(tmp_path / "cut"), resume=True)) != numbers(whole)


def test_a_skipped_update_counts_and_logs_nothing(tmp_path: Path) -> None:
    source = Counting(skip=frozenset({3, 7}))
    lines = train(make_trainer(), source, recorder(tmp_path / "run"), resume=False)
    assert [line["step"] for line in lines] == [1, 2, 3, 5, 6, 7]
    assert source.asked == list(range(8))


def test_answers_of_one_prompt_share_it_and_nothing_else_changes() -> None:
    data, trainer = rows(1), make_trainer()
    whole = collate(data, range(len(data.examples)), ("answer",))
    assert len(whole.groups) == 3
    alone = collate(replace(data, sampled={}), range(len(data.examples)), ("answer",))
    assert len(alone.groups) == 12
    assert alone.tokens > whole.tokens
    one = trainer.pair(whole, {}, scored=True).answer
    with torch.no_grad():
        other = alone.pair(trainer.scorer(alone.groups)).answer
    torch.testing.assert_close(one.logp, other.logp, rtol=0, atol=2e-6)
    assert one.sampled is not None
    assert one.sampled.advantage.shape == one.logp.shape
    for row, advantage in enumerate(data.sampled["answer"]["advantage"]):
        np.testing.assert_allclose(one.sampled.advantage[row, : len(advantage)].numpy(), advantage, rtol=1e-6)


def test_a_plan_is_a_source(tmp_path: Path) -> None:
    data = rows(2)
    trainer = replace(make_trainer(), data=data)
    plan = Plan(data.packed_tokens(("answer",)), 4, 1.0, 0, 10**9)
    lines = train(trainer, plan, recorder(tmp_path / "run"), resume=False)
    assert [line["step"] for line in lines] == [1, 2, 3]
