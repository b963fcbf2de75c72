"""kto: worked numbers, the reference point over a whole step, and steps of one class."""

from dataclasses import replace

import torch

from finegrain.objectives.kto import KTO, kto_loss, mismatch_statistics, reference_point
from finegrain.types import Pair
from tests.laws.drive import collect, take, with_statistics
from tests.objectives.worked import CHOSEN_RATIO, REJECTED_RATIO, close, real, scalar_side


def unpaired(ratios: tuple[float, ...], labels: tuple[float, ...], mismatched: tuple[float, ...]) -> Pair:
    return Pair(sides={"answer": scalar_side(*ratios), "mismatched": scalar_side(*mismatched)}, columns={"label": real(*labels)})


def test_worked_pair() -> None:
    z0 = torch.tensor(0.2, dtype=torch.float64)
    ratios, yes = real(CHOSEN_RATIO, REJECTED_RATIO), torch.tensor([True, False])
    close(kto_loss(ratios, yes, z0, beta=0.1), 0.480010660, 0.482507142)
    close(kto_loss(ratios, yes, z0, beta=0.1, weight=(2.0, 3.0)), 2 * 0.480010660, 3 * 0.482507142, tolerance=3e-9)


def test_the_reference_point_is_the_mean_of_the_mismatched_and_never_negative() -> None:
    pair = unpaired((1.0, -0.5), (1.0, 0.0), (0.7, -0.3))
    close(KTO()(with_statistics(KTO(), pair)), 0.480010660, 0.482507142)
    assert reference_point(torch.tensor(-3.0), torch.tensor(2.0)) == 0
    assert reference_point(torch.tensor(0.0), torch.tensor(0.0)) == 0


def test_the_mean_is_over_the_whole_step_before_the_clamp() -> None:
    pair = unpaired((0.0,) * 3, (1.0, 0.0, 1.0), (3.0, -2.0, 0.5))
    found = collect(KTO(), [take(pair, torch.tensor(rows)) for rows in ([0, 2], [1])])
    assert abs(float(reference_point(found["mismatched_log_ratio"], found["mismatched_rows"])) - 0.5) < 1e-12


def test_nothing_flows_into_the_mismatched_answers() -> None:
    pair = unpaired((0.3, 0.1), (1.0, 0.0), (2.0, 1.0))
    loss = KTO()(with_statistics(KTO(), pair)).sum()
    answer, mismatched = torch.autograd.grad(loss, [pair.answer.logp, pair.sides["mismatched"].logp], allow_unused=True)
    assert mismatched is None
    assert answer[0] < 0 < answer[1]


def test_a_step_of_one_class_at_the_reference_is_one_half() -> None:
    for label in (0.0, 1.0):
        pair = unpaired((0.0, 0.0), (label, label), (0.0, 0.0))
        close(KTO()(with_statistics(KTO(), pair)), 0.5, 0.5)


def test_a_row_without_a_mismatched_answer_does_not_count() -> None:
    pair = unpaired((1.0, -0.5), (1.0, 0.0), (3.0, 9.0))
    side = pair.sides["mismatched"]
    found = mismatch_statistics(replace(side, mask=torch.tensor([[True], [False]])))
    close(torch.stack([found["mismatched_log_ratio"].value, found["mismatched_rows"].value]), 3.0, 1.0)
    assert reference_point(torch.tensor(3.0), torch.tensor(1.0)) == 3.0


def test_default_and_given_weights_of_the_classes() -> None:
    pair = unpaired((1.0, -0.5), (1.0, 0.0), (0.7, -0.3))
    close(KTO(desirable_weight=2.0, undesirable_weight=3.0)(with_statistics(KTO(), pair)), 2 * 0.480010660, 3 * 0.482507142, tolerance=3e-9)
