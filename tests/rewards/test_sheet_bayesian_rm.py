"""bayesian-rm, what must hold: without a price nothing changes, and what no pair can say costs an answer but not a comparison.

Test of rewards/laplace.py.
"""

import numpy as np
import torch

from finegrain.ops.aggregate import MinusStd, MinusVariance
from finegrain.ops.best_of_n import expected_best
from finegrain.rewards.laplace import FixedVariance, fit_posterior, pair_curvature
from finegrain.types import Scored


def test_without_a_price_best_of_n_is_the_plain_one() -> None:
    mean, std, gold = np.random.default_rng(0).normal(size=(3, 40))
    scored = Scored(torch.from_numpy(mean), torch.from_numpy(np.abs(std)))
    for best_of in (1, 3, 40):
        plain = expected_best(mean, gold, best_of)
        for aggregate in (MinusStd(k=0.0), MinusVariance(k=0.0)):
            assert expected_best(aggregate(scored).numpy(), gold, best_of) == plain
    assert expected_best(MinusStd(k=3.0)(scored).numpy(), gold, 40) == gold[np.argmax(mean - 3 * np.abs(std))]


def test_what_a_prompt_s_answers_share_changes_a_priced_ranking_and_no_difference() -> None:
    """The last feature is the same in both answers of every prompt: its size moves each std, and so the order of mean - k std."""
    draw = torch.Generator().manual_seed(0)
    differences = torch.randn(30, 3, generator=draw, dtype=torch.float64)
    differences[:, -1] = 0
    weight = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    posterior = fit_posterior(weight, pair_curvature(differences, differences @ weight), FixedVariance(variance=1.0))
    bold, timid = torch.tensor([[2.0, 2.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    common = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    def order(size: float, k: float) -> torch.Tensor:
        answers = torch.stack([bold, timid]) + size * common
        scored = Scored(answers @ weight, posterior.variance(answers).sqrt())
        return MinusStd(k=k)(scored).argsort()

    price = 1.05 * float((bold - timid) @ weight / (posterior.variance(bold).sqrt() - posterior.variance(timid).sqrt()))
    assert order(0.0, price).tolist() != order(50.0, price).tolist()
    for size in (0.0, 50.0):
        difference = (bold + size * common) - (timid + size * common)
        torch.testing.assert_close(posterior.variance(difference), posterior.variance(bold - timid), rtol=1e-9, atol=0)
