"""cpo: worked number, no NLL is reference-free DPO, and both denominators over a step."""

import torch

from finegrain.objectives.cpo import CPO
from finegrain.objectives.reference_free import ReferenceFree
from tests.laws.drive import step_loss, take
from tests.objectives.worked import close, random_pair, worked_pair


def test_worked_pair() -> None:
    terms = CPO()(worked_pair())
    close(terms["preference"].value, 0.598138869)
    close(terms["nll"].value / terms["nll"].count, 2.0)


def test_without_nll_it_is_reference_free_dpo() -> None:
    pair = random_pair()
    torch.testing.assert_close(step_loss(CPO(nll=0.0), [pair]), ReferenceFree()(pair).mean(), rtol=0, atol=1e-12)


def test_nll_is_a_mean_over_the_tokens_of_the_whole_step() -> None:
    pair = random_pair(4)
    total = kept = 0.0
    logp = pair.chosen.logp.detach()
    assert pair.chosen.weight is not None
    for row in range(5):
        for t in range(6):
            if pair.chosen.mask[row, t]:
                total -= float(pair.chosen.weight[row, t] * logp[row, t])
                kept += float(pair.chosen.weight[row, t])
    want = ReferenceFree()(pair).mean() + 0.7 * total / kept
    cuts = [take(pair, torch.tensor(rows)) for rows in ([0, 3, 4], [1], [2])]
    torch.testing.assert_close(step_loss(CPO(nll=0.7), cuts), want, rtol=0, atol=1e-12)
