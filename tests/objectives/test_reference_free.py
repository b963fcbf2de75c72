"""reference-free: worked number, and DPO with a uniform reference."""

from dataclasses import replace

import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.reference_free import ReferenceFree
from tests.objectives.worked import close, random_pair, worked_pair


def test_worked_pair() -> None:
    close(ReferenceFree()(worked_pair()), 0.598138869)


def test_is_dpo_with_a_reference_of_zero() -> None:
    pair = random_pair()
    flat = replace(pair, sides={role: replace(side, ref_logp=torch.zeros_like(side.logp)) for role, side in pair.sides.items()})
    torch.testing.assert_close(ReferenceFree(beta=0.3)(pair), DPO(beta=0.3)(flat), rtol=0, atol=1e-12)


def test_reads_no_reference() -> None:
    pair = random_pair()
    bare = replace(pair, sides={role: replace(side, ref_logp=None) for role, side in pair.sides.items()})
    assert torch.equal(ReferenceFree()(bare), ReferenceFree()(pair))
