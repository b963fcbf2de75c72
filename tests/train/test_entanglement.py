"""Gradients of single pairs against real steps. Test of train/entanglement.py and train/diagnosis.py."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.diagnose.entanglement import IDEAL, Drift, name_case
from finegrain.errors import UsageError
from finegrain.objectives.ava_p import AvaP
from finegrain.objectives.dpo import DPO
from finegrain.objectives.nll import NLL
from finegrain.objectives.pngd import PNGD
from finegrain.ops.gradients import GradientPair
from finegrain.runs import RunDirectory
from finegrain.train.checkpoint import Checkpoints
from finegrain.train.diagnosis import MOST_PAIRS, Diagnosis, one_pair, summarise
from finegrain.train.entanglement import (
    MOST_TOKENS,
    MeasuredPair,
    check_pairwise,
    measure_pair,
    measure_tokens,
    most_entangled,
    sequence_logps,
    try_step,
)
from finegrain.train.loop import Trainer, step_statistics
from finegrain.train.read_contract import contract_of
from finegrain.train.run import Recorder, train
from finegrain.types import RowLoss, row_losses
from tests.train.harness import OBJECTIVES, How, build, weights

WIDE = How(dtype=torch.float64)
STEPPED = {
    **{name: OBJECTIVES[name]() for name in ("dpo", "cpo", "orpo", "aot", "a module and a table", "both directions of the KL")},
    "pngd": PNGD(),
}
"""Even and uneven pulls (the rows have credit), prompts, statistics, modules, a live reference, and a gradient rule."""


def moved(trainer: Trainer, place: int, statistics: Any, size: float) -> Drift:
    """The change of both log-probabilities per unit of a small step of plain gradient descent on one row; the parameters are as before."""
    parameters = trainer.parameters()
    pair = one_pair(trainer, place, statistics)
    losses = row_losses(trainer.contract.objective(pair))
    if isinstance(trainer.contract.objective, PNGD):
        by_rule = trainer.contract.objective.gradient(pair, {"loss": RowLoss(losses, torch.ones_like(losses))}, parameters)
        step = [-part for part in by_rule]
    else:
        found = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        step = [torch.zeros_like(p) if part is None else -part for p, part in zip(parameters, found, strict=True)]
    after = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, part in zip(parameters, step, strict=True):
                parameter.add_(part, alpha=sign * size)
            after.append(sequence_logps(one_pair(trainer, place, statistics)))
            for parameter, part in zip(parameters, step, strict=True):
                parameter.add_(part, alpha=-sign * size)
    return Drift(*(float((up - down).detach()) / (2 * size) for up, down in zip(*after, strict=True)))


@pytest.mark.parametrize("name", STEPPED)
def test_predictions_are_what_a_small_step_does(name: str) -> None:
    trainer, plan = build(STEPPED[name], WIDE)
    statistics = step_statistics(trainer, plan.step(0))
    for place in plan.step(0).rows[:3]:
        measured, _ = measure_pair(trainer.contract, one_pair(trainer, place, statistics), trainer.parameters(), place)
        assert measured.predicted == pytest.approx(moved(trainer, place, statistics, 1e-6), rel=1e-5, abs=1e-8)
        if name == "pngd" and trainer.data.token_columns["chosen"].weight[place] is None is trainer.data.token_columns["rejected"].weight[place]:
            assert name_case(measured.predicted) == IDEAL


def plain(trainer: Trainer) -> Trainer:
    """The trainer on the same rows without credit."""
    return replace(trainer, data=replace(trainer.data, token_columns={}))


def test_an_even_pull_takes_two_backward_passes_and_an_uneven_one_three(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, plan = build(DPO(), WIDE)
    passes: list[int] = []
    honest = torch.autograd.grad

    def counted(outputs: Any, inputs: Any, **named: Any) -> Any:
        passes.append(len(inputs))
        return honest(outputs, inputs, **named)

    place = next(row for row in plan.step(0).rows if trainer.data.token_columns["chosen"].weight[row] is not None)
    monkeypatch.setattr(torch.autograd, "grad", counted)
    for one, expected in ((plain(trainer), 2), (trainer, 3)):
        passes.clear()
        measure_pair(one.contract, one_pair(one, place, {}), one.parameters(), place)
        assert [count for count in passes if count > 2] == [len(one.parameters())] * expected


def test_a_trial_step_is_seen_and_undone() -> None:
    trainer, plan = build(DPO(), WIDE)
    trainer, before, agreed = plain(trainer), weights(trainer), []
    for place in plan.step(0).rows:
        measured, step = measure_pair(trainer.contract, one_pair(trainer, place, {}), trainer.parameters(), place)
        tried = try_step(measured, step, trainer.parameters(), lambda place=place: one_pair(trainer, place, {}))
        assert tried.observed is not None
        scale = 0.01 / max(map(abs, measured.predicted))
        assert tried.observed == pytest.approx([scale * change for change in measured.predicted], rel=0.05, abs=5e-4)
        agreed.append(name_case(tried.observed) == name_case(tried.predicted))
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
    assert all(parameter.grad is None for parameter in trainer.parameters())
    assert sum(agreed) >= len(agreed) - 1


def test_the_token_map_of_a_pair() -> None:
    trainer, plan = build(DPO(), WIDE)
    place = plan.step(0).rows[0]
    example = trainer.data.examples[place]
    measured, _ = measure_pair(trainer.contract, one_pair(trainer, place, {}), trainer.parameters(), place)
    found = measure_tokens(example, one_pair(trainer, place, {}), trainer.parameters())
    assert not found.cut
    assert found.gram.shape == (example.responses["chosen"].mask.sum(), example.responses["rejected"].mask.sum())
    assert float(found.gram.sum()) == pytest.approx(measured.gradients.inner, rel=1e-9)
    assert (len(found.chosen), len(found.rejected)) == found.gram.shape
    assert np.abs(found.cosines).max() <= 1 + 1e-9
    assert max(example.responses[role].mask.sum() for role in example.responses) <= MOST_TOKENS


def test_the_most_entangled_pair() -> None:
    pairs = [MeasuredPair(row, GradientPair(inner, 1.0, 2.0), 1.0, 1.0, Drift(0.0, 0.0)) for row, inner in enumerate((0.1, 1.5, -3.0))]
    assert most_entangled(pairs) == 1


def test_objectives_without_two_answers_or_with_balanced_terms_are_refused() -> None:
    for objective, words in ((NLL(), "which NLL does not train"), (AvaP(), "AvaP weighs its terms")):
        with pytest.raises(UsageError, match=words):
            check_pairwise(contract_of(objective))


def run(folder: Path, every: int, steps: int = 4) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Metrics, gradients and weights of a short run."""
    trainer, plan = build(DPO(), WIDE)
    folder.mkdir()
    directory = RunDirectory(folder)
    diagnosis = Diagnosis(every, "dpo", directory.append_gradients) if every else None
    recorder = Recorder(directory, Checkpoints(folder), lambda path: None, diagnosis=diagnosis)
    lines = train(trainer, replace(plan, max_steps=steps), recorder, resume=False)
    return lines, list(directory.gradients()), weights(trainer)


def test_measuring_changes_nothing_and_its_lines_are_those_of_the_steps(tmp_path: Path) -> None:
    lines, gradients, trained = run(tmp_path / "with", every=3)
    plain_lines, none, same = run(tmp_path / "without", every=0)
    assert none == []
    assert all(torch.equal(value, same[name]) for name, value in trained.items())
    assert [line["step"] for line in lines if "gradients/cosine" in line] == [1, 4]
    assert [line["loss"] for line in lines] == [line["loss"] for line in plain_lines]
    assert [line["step"] for line in gradients] == [1] + [1] * min(5, MOST_PAIRS) + [4] * min(5, MOST_PAIRS)
    assert [line["objective"] for line in gradients] == ["dpo"] * len(gradients)
    assert ["tokens" in line for line in gradients] == [True] + [False] * (len(gradients) - 1)
    assert {"gradients/as_wanted", "gradients/came_true_chosen", "gradients/came_true_rejected", "diagnose_seconds"} <= lines[0].keys()
    json.dumps(gradients, allow_nan=False)


def test_what_was_observed_is_the_change_by_the_step(tmp_path: Path) -> None:
    _, gradients, _ = run(tmp_path / "run", every=1, steps=1)
    trainer, plan = build(DPO(), WIDE)
    places = plan.step(0).rows
    before = [sequence_logps(one_pair(trainer, place, {})) for place in places]
    train(trainer, replace(plan, max_steps=1), Recorder(RunDirectory(tmp_path), Checkpoints(tmp_path), lambda path: None), resume=False)
    after = [sequence_logps(one_pair(trainer, place, {})) for place in places]
    for line, then, now in zip(gradients[1:], before, after, strict=True):
        assert line["observed"] == pytest.approx([float((b - a).detach()) for a, b in zip(then, now, strict=True)], abs=1e-12)
        assert line["row"] in {trainer.data.examples[place].row for place in places}


def test_a_resumed_run_writes_later_lines_again(tmp_path: Path) -> None:
    run(tmp_path / "run", every=1)
    directory = RunDirectory(tmp_path / "run")
    directory.cut_steps(2)
    assert sorted({line["step"] for line in directory.gradients()}) == [1, 2]
    assert [line["step"] for line in directory.metrics()] == [1, 2]


def test_shares_of_directions_that_came_true() -> None:
    pair = lambda predicted, observed: MeasuredPair(0, GradientPair(0.5, 1.0, 1.0), 1.0, 1.0, Drift(*predicted), Drift(*observed))
    found = summarise([pair((1.0, -1.0), (2.0, 1.0)), pair((-1.0, -1.0), (2.0, -1.0)), pair((0.0, 0.0), (1.0, 1.0))])
    assert found == {
        "gradients/cosine": 0.5,
        "gradients/as_wanted": 0.5,
        "gradients/came_true_chosen": 0.5,
        "gradients/came_true_rejected": 0.5,
    }
