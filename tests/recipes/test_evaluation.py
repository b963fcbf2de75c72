"""Held-out results are what an objective's declarations say: against sums over single rows, whatever the micro-batches.

Test of train/evaluation.py, recipes/inspection/pairs.py.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.models.score import score_rows
from finegrain.objectives.aot import AOT
from finegrain.objectives.cpo import CPO
from finegrain.objectives.dpo import DPO
from finegrain.objectives.kto import KTO
from finegrain.objectives.nll import NLL
from finegrain.objectives.orpo import ORPO
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.ops.stats import Interval
from finegrain.recipes.inspection import pairs
from finegrain.recipes.inspection.pairs import Chosen, PairSnapshot
from finegrain.train.collate import TrainingSet, collate
from finegrain.train.evaluation import as_record, evaluate
from finegrain.train.loop import Trainer
from tests.train.harness import HUGE, How, build


def trainer_and_rows(objective: Any, micro_tokens: int) -> tuple[Trainer, TrainingSet]:
    """A trainer in float64, and rows without credit whose reference is not the policy."""
    trainer, _ = build(objective, How(dtype=torch.float64, micro_tokens=micro_tokens))
    return trainer, replace(trainer.data, token_columns={})


def logps(trainer: Trainer, data: TrainingSet, role: str) -> list[tuple[float, float, int]]:
    """(log-probability, the reference's, tokens) of every answer, one by one."""
    found = []
    for row in range(len(data.examples)):
        with torch.no_grad():
            pair = trainer.pair(collate(data, [row], trainer.contract.roles), {}, scored=True)
        side = pair.sides[role]
        reference = 0.0 if side.ref_logp is None else float(side.ref_logp[side.mask].sum())
        found.append((float(side.logp[side.mask].sum()), reference, int(side.mask.sum())))
    return found


@pytest.mark.parametrize("objective", [CPO(), ORPO()], ids=lambda objective: type(objective).__name__)
def test_without_a_reference_answers_are_compared_per_token(objective: Any) -> None:
    trainer, data = trainer_and_rows(objective, 60)
    data = replace(data, reference={})
    found = evaluate(trainer, data)
    chosen, rejected = (logps(trainer, data, role) for role in ("chosen", "rejected"))
    margins = [c / n - r / m for (c, _, n), (r, _, m) in zip(chosen, rejected, strict=True)]
    assert found["eval_margin_per_token"]["mean"] == pytest.approx(float(np.mean(margins)), abs=1e-9)
    assert found["eval_accuracy"]["mean"] == pytest.approx(float(np.mean(np.array(margins) > 0)))
    assert found["eval_accuracy"]["low"] < found["eval_accuracy"]["mean"] < found["eval_accuracy"]["high"]
    assert "eval_margin" not in found
    assert not [name for name in found if "margins" in name and "per_token" not in name], "no sum over answers of unequal lengths"


def test_against_a_reference_answers_are_compared_by_reward() -> None:
    trainer, data = trainer_and_rows(DPO(beta=0.3), 60)
    found = evaluate(trainer, data)
    ratios = {role: [0.3 * (own - reference) for own, reference, _ in logps(trainer, data, role)] for role in ("chosen", "rejected")}
    margins = np.array(ratios["chosen"]) - np.array(ratios["rejected"])
    assert found["eval_margin"]["mean"] == pytest.approx(float(margins.mean()), abs=1e-6)
    assert found["eval_loss"]["mean"] == pytest.approx(float(np.log1p(np.exp(-margins)).mean()), abs=1e-6)
    assert found["eval_loss"]["low"] < found["eval_loss"]["mean"] < found["eval_loss"]["high"]
    assert "eval_margin_per_token" not in found


def test_kto_has_a_loss_with_the_reference_point_of_all_rows() -> None:
    trainer, data = trainer_and_rows(KTO(beta=0.3), 40)
    found = evaluate(trainer, data)
    own = [value - reference for value, reference, _ in logps(trainer, data, "answer")]
    wide = replace(trainer, contract=replace(trainer.contract, roles=("answer", "mismatched")))
    other = [value - reference for value, reference, _ in logps(wide, data, "mismatched")]
    z0 = max(0.0, float(np.mean(other)))
    labels = [example.columns["label"] > 0.5 for example in data.examples]
    losses = [1 / (1 + math.exp(0.3 * (ratio - z0) * (1 if good else -1))) for ratio, good in zip(own, labels, strict=True)]
    assert found["eval_loss"]["mean"] == pytest.approx(float(np.mean(losses)), abs=1e-6)
    assert found["eval_loss"]["low"] < found["eval_loss"]["mean"] < found["eval_loss"]["high"]
    good, bad = (np.mean([0.3 * ratio for ratio, label in zip(own, labels, strict=True) if label is kind]) for kind in (True, False))
    assert found["eval_margin"]["mean"] == pytest.approx(float(good - bad), abs=1e-6)
    assert found["eval_margin"]["low"] < found["eval_margin"]["mean"] < found["eval_margin"]["high"]
    assert 0 <= found["eval_auroc"]["mean"] <= 1


def test_kto_on_rows_of_one_prompt_says_why_it_has_no_loss() -> None:
    trainer, data = trainer_and_rows(KTO(), 40)
    lonely = [replace(example, responses={"answer": example.responses["answer"]}) for example in data.examples]
    loss = evaluate(trainer, replace(data, examples=lonely))["eval_loss"]
    assert loss["mean"] is None
    assert "mismatched" in loss["reason"]


@pytest.mark.parametrize("objective", [AOT(), KTO(), NLL(), ORPO()], ids=lambda objective: type(objective).__name__)
def test_micro_batches_do_not_matter(objective: Any) -> None:
    found = [evaluate(*trainer_and_rows(objective, tokens)) for tokens in (30, HUGE)]
    assert found[0].keys() == found[1].keys()
    for name, record in found[0].items():
        for part in ("mean", "low", "high"):
            assert record[part] == pytest.approx(found[1][name][part], abs=1e-6), name


def test_token_distillation_says_why_it_has_no_loss() -> None:
    found = evaluate(*trainer_and_rows(TokenDistillation(), 60))
    assert found["eval_loss"]["mean"] is None
    assert "token rewards" in found["eval_loss"]["reason"]
    assert found["eval_margin"]["mean"] is not None


def test_a_weight_column_plays_no_part() -> None:
    trainer, data = trainer_and_rows(DPO(), 60)
    weighted = [replace(example, columns={**example.columns, "weight": 1.0 + example.row}) for example in data.examples]
    assert evaluate(trainer, data) == evaluate(trainer, replace(data, examples=weighted))


def test_nothing_of_the_training_is_touched() -> None:
    """Neither the generators nor the mode of the model."""
    trainer, data = trainer_and_rows(DPO(), 60)
    before = torch.get_rng_state()
    trainer.scorer.train()
    evaluate(trainer, data)
    assert torch.equal(before, torch.get_rng_state())
    assert trainer.scorer.training


def test_a_record_without_an_interval_says_why() -> None:
    assert as_record(Interval(1.0, None, None, 1))["reason"] == "no interval: 1 rows are too few for one"
    assert as_record(Interval(math.nan, None, None, 4))["mean"] is None
    assert "reason" not in as_record(Interval(1.0, 0.5, 1.5, 9))


def test_inspected_rows_that_are_evaluated_are_not_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, data = trainer_and_rows(DPO(), 60)
    examples = data.examples
    rows = [Chosen(examples[place], place, held_out) for place, held_out in ((0, True), (3, True), (1, False), (2, True))]
    before = score_rows(trainer.scorer, [row.example for row in rows], trainer.contract.roles, trainer.precision)
    snapshot = PairSnapshot(rows, trainer.contract.roles, before, {}, {})
    evaluate(trainer, data, snapshot.read_held_out)
    scored: list[int] = []

    def count(scorer: Any, some: Sequence[Any], roles: Any, precision: Any) -> Any:
        scored.append(len(some))
        return score_rows(scorer, some, roles, precision)

    monkeypatch.setattr(pairs, "score_rows", count)
    after = snapshot.after(trainer.scorer, trainer.precision)
    assert scored == [1]
    for role in trainer.contract.roles:
        for one, other, row in zip(after[role], before[role], rows, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
            assert (one[~row.example.responses[role].mask] == 0).all()


def test_rows_that_no_evaluation_read_are_scored() -> None:
    trainer, data = trainer_and_rows(DPO(), 60)
    rows = [Chosen(data.examples[place], place, True) for place in (0, 1)]
    snapshot = PairSnapshot(rows, trainer.contract.roles, None, {}, {})
    evaluate(trainer, data, snapshot.read_held_out)
    assert not snapshot.held_out_logps
    after = snapshot.after(trainer.scorer, trainer.precision)
    assert [len(values) for values in after["chosen"]] == [len(row.example.responses["chosen"].ids) for row in rows]
