"""Soft weights: the two limits, the shrinkage worked by hand, and what stops."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from finegrain.credit.asr import ASR
from finegrain.credit.confidence import Confidence, confidence_weight
from finegrain.credit.signals import Column, Implicit
from finegrain.credit.uncertainty import shrunk_std
from finegrain.errors import CreditError, UsageError
from finegrain.objectives.dpo import DPO
from finegrain.ops.segment_scores import Constant, Last, Mean, Sum
from finegrain.ops.segmenters import Tokens, Windows
from finegrain.types import Pair, Scored, Side
from tests.credit.fake import FakeContext

CHOSEN = [0.5, -0.02, 0.3, -1.1, -0.8, -0.9, 0.7, 0.6]
REJECTED = [-0.5, 0.4, 0.0]


def context(std: float | None = None, members: list[list[list[float]]] | None = None) -> FakeContext:
    means = {"chosen": torch.tensor(CHOSEN).double(), "rejected": torch.tensor(REJECTED).double()}
    judged = dict(zip(means, members or [None, None], strict=True))

    def scored(role: str) -> Scored:
        own = judged[role]
        return Scored(means[role], None if std is None else torch.full_like(means[role], std), None if own is None else torch.tensor(own).double())

    return FakeContext(
        signs={"chosen": np.ones(1), "rejected": -np.ones(1)},
        role_masks={role: [np.ones(len(mean), dtype=bool)] for role, mean in means.items()},
        implicit={role: [scored(role)] for role in means},
        table={role: [scored(role)] for role in means},
    )


def test_worked() -> None:
    columns = Confidence(segmenter=Tokens()).prepare(context(std=0.5))
    np.testing.assert_allclose(columns["chosen"].weight[0], norm.cdf(np.array(CHOSEN) / 0.5), rtol=1e-6)
    np.testing.assert_allclose(columns["rejected"].weight[0], norm.cdf(-np.array(REJECTED) / 0.5), rtol=1e-6)
    lifted = Confidence(segmenter=Tokens(), baseline=Constant(b=0.3)).prepare(context(std=0.5))
    np.testing.assert_allclose(lifted["chosen"].weight[0], norm.cdf((np.array(CHOSEN) - 0.3) / 0.5), rtol=1e-6)


def test_certainty_is_the_keep_mask_except_for_one_half_at_zero() -> None:
    for settings in ({}, {"segmenter": Tokens()}):
        soft, hard = Confidence(**settings).prepare(context(std=0.0)), ASR(**settings).prepare(context())
        np.testing.assert_array_equal(soft["chosen"].weight[0], hard["chosen"].weight[0])
    assert Confidence(segmenter=Tokens()).prepare(context(std=0.0))["rejected"].weight[0].tolist() == [1.0, 0.0, 0.5]
    nearly = Confidence(segmenter=Tokens()).prepare(context(std=1e-9))
    assert nearly["rejected"].weight[0].tolist() == [1.0, 0.0, 0.5]


def test_no_knowledge_is_dpo_with_half_the_beta() -> None:
    columns = Confidence().prepare(context(std=1e12))

    def pair(weighted: bool) -> Pair:
        generator = torch.Generator().manual_seed(1)
        sides = {}
        for role, column in columns.items():
            assert column.weight[0] is not None
            logp, ref = torch.randn(2, 1, len(column.weight[0]), generator=generator, dtype=torch.float64)
            weight = torch.from_numpy(column.weight[0])[None].double()
            sides[role] = Side(logp=logp, ref_logp=ref, mask=torch.ones_like(logp).bool(), weight=weight if weighted else None)
        return Pair(sides=sides)

    torch.testing.assert_close(DPO(beta=0.4)(pair(True)), DPO(beta=0.2)(pair(False)), rtol=0, atol=1e-10)
    assert not torch.equal(DPO(beta=0.4)(pair(False)), DPO(beta=0.2)(pair(False)))


def test_two_members_worked() -> None:
    """Differences 2 and 0 of four tokens: s^2 = 2, 2, 0, 0, pooled 1; n0 = 1 gives 1.5 and 0.5."""
    members = [torch.tensor([[1.0, 0.0, 3.0, 3.0], [3.0, 2.0, 3.0, 3.0]])]
    mask = [torch.ones(4, dtype=torch.bool)]
    assert shrunk_std(members, mask, n0=1.0)[0].square().tolist() == pytest.approx([1.5, 1.5, 0.5, 0.5])
    assert shrunk_std(members, mask, n0=0.0)[0].square().tolist() == pytest.approx([2.0, 2.0, 0.0, 0.0])
    assert shrunk_std(members, mask, n0=1e9)[0].square().tolist() == pytest.approx([1.0] * 4)
    half = [torch.tensor([True, True, False, False])]
    assert shrunk_std(members, half, n0=1e9)[0].square().tolist() == pytest.approx([2.0] * 4)
    three = [torch.tensor([[0.0], [1.0], [2.0]])]
    assert shrunk_std(three, [torch.ones(1, dtype=torch.bool)], n0=2.0)[0].square().tolist() == pytest.approx([1.0])


def test_members_are_compared_on_segments() -> None:
    """Judges that differ inside a segment and agree on its mean are sure of the segment."""
    there_and_back = [[1.0, 1.0, 0.0, -1.0, -1.0, -1.0, 1.0, 1.0], [1.0, 0.0, 1.0, -2.0, 0.0, -1.0, 1.0, 1.0]]
    columns = Confidence(segmenter=Windows(size=3), n0=0.0, max_kept=1.0).prepare(context(members=[there_and_back, [REJECTED, REJECTED]]))
    assert columns["chosen"].weight[0].tolist() == [1, 1, 1, 0, 0, 0, 1, 1]
    soft = Confidence(segmenter=Tokens(), n0=0.0, max_kept=1.0).prepare(context(members=[there_and_back, [REJECTED, REJECTED]]))
    d = np.abs(np.subtract(*there_and_back))
    np.testing.assert_allclose(soft["chosen"].weight[0][d > 0], norm.cdf(np.array(CHOSEN)[d > 0] / np.sqrt(d[d > 0] ** 2 / 2)), rtol=1e-6)


def test_std_of_a_segment_under_independence() -> None:
    std, ids = torch.tensor([[3.0, 4.0, 2.0, 0.0]]), torch.tensor([[0, 0, 1, -1]])
    assert Mean().std(std, ids).tolist() == [[2.5, 2.5, 2.0, 0.0]]
    assert Sum().std(std, ids).tolist() == [[5.0, 5.0, 2.0, 0.0]]
    assert Last().std(std, ids).tolist() == [[4.0, 4.0, 2.0, 0.0]]


def test_weight_is_between_0_and_1_and_0_off_the_mask() -> None:
    mean = torch.tensor([[torch.nan, 0.0, 3.0, -3.0]])
    std = torch.tensor([[torch.nan, 0.0, 1.0, 1.0]])
    mask = torch.tensor([[False, True, True, True]])
    up, down = (confidence_weight(mean, std, mask, torch.tensor([[positive]])) for positive in (True, False))
    torch.testing.assert_close(up + down, torch.tensor([[0.0, 1.0, 1.0, 1.0]]))
    assert up[0, 0] == 0
    assert up[0, 1] == 0.5


def test_what_stops() -> None:
    with pytest.raises(CreditError, match="the signal implicit has none"):
        Confidence(signal=Implicit(scorer="judge")).prepare(context())
    with pytest.raises(CreditError, match="keeps"):
        Confidence(segmenter=Tokens(), baseline=Constant(b=100.0)).prepare(context(std=0.1))
    with pytest.raises(UsageError, match="n0"):
        Confidence(n0=-1.0)
    for bad in ({"min_kept": 1.0}, {"min_kept": 0.5, "max_kept": 0.5}, {"min_kept": -0.1}, {"max_kept": 1.1}):
        with pytest.raises(UsageError, match="min_kept"):
            Confidence(**bad)
    with pytest.raises(UsageError, match="contradicts"):
        Confidence(scorer="judge", signal=Column())


def test_rewards_and_segments_are_written_beside_the_weights() -> None:
    columns = Confidence(segmenter=Windows(size=3), max_kept=1.0).prepare(context(std=0.5))
    np.testing.assert_allclose(columns["chosen"].reward[0], CHOSEN, rtol=1e-6)
    assert columns["chosen"].segment[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_a_single_member_says_nothing_about_uncertainty() -> None:
    with pytest.raises(CreditError, match="needs scores with an uncertainty"):
        Confidence().prepare(context(members=[[CHOSEN], [REJECTED]]))


def test_no_prior_is_a_setting() -> None:
    assert Confidence(n0=0.0).n0 == 0.0
