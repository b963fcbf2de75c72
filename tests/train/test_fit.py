"""`train.fit`: a copy is trained as the loop trains, and what was passed stays as it is."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from finegrain.models.score import Precision
from finegrain.models.scorer import Scorer
from finegrain.objectives.dpo import DPO
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.sequence import Sequence
from finegrain.train.collate import TrainingSet
from finegrain.train.fit import FitSettings, fit
from finegrain.train.loop import run_step
from tests.train.harness import BATCH, HUGE, STEPS, How, build

SETTINGS = FitSettings(rate=3e-4, batch_size=BATCH, epochs=STEPS / 5, seed=7)
PRECISION = Precision(nullcontext, "float32", HUGE)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def start_and_rows() -> tuple[Scorer, TrainingSet]:
    trainer, _ = build(DPO(), How())
    return trainer.scorer, trainer.data


def test_the_copy_trains_as_the_loop_trains_and_the_start_stays() -> None:
    """With the harness's optimiser but for its decay, which is 0 here."""
    trainer, plan = build(DPO(), How())
    for group in trainer.optimizer.param_groups:
        group["weight_decay"] = 0.0
    start, before = Scorer(trainer.scorer.model, trainer.scorer.path), weights(trainer.scorer.model)
    fitted = fit(start, trainer.data, DPO(), SETTINGS, PRECISION)
    assert equal(weights(start.model), before)
    lines = [run_step(trainer, plan.step(index)) for index in range(len(plan))]
    assert fitted.lines == lines
    assert equal(weights(fitted.scorer.model), weights(trainer.scorer.model))
    assert fitted.tokens == int(trainer.data.packed_tokens(("chosen", "rejected")).sum())


def test_max_steps_end_the_schedule() -> None:
    """Three steps of a whole schedule, not the first three of a longer one."""
    start, rows = start_and_rows()
    whole = fit(start, rows, DPO(), SETTINGS, PRECISION)
    short = fit(start, rows, DPO(), FitSettings(rate=3e-4, batch_size=BATCH, epochs=STEPS / 5, seed=7, max_steps=3), PRECISION)
    assert len(short.lines) == 3 < len(whole.lines)
    assert [line["learning_rate"] for line in short.lines] != [line["learning_rate"] for line in whole.lines[:3]]


def test_a_head_is_copied_and_trained_with_its_model() -> None:
    """The head passed stays; the copy has no vocabulary head of its own weights, which nothing reads, and the model passed keeps its own."""
    start, rows = start_and_rows()
    head: Any = nn.Linear(start.model.config.hidden_size, 1, bias=False)
    objective = RewardFit(Sequence(), BradleyTerry())
    before = weights(head)
    fitted = fit(Scorer(start.model, start.path, head), TrainingSet(rows.examples), objective, SETTINGS, PRECISION, metrics=lambda pair: {})
    assert equal(weights(head), before)
    assert fitted.scorer.head is not None
    assert not equal(weights(fitted.scorer.head), before)
    assert start.model.get_output_embeddings().weight is not start.model.get_input_embeddings().weight
    assert fitted.scorer.model.get_output_embeddings() is None
