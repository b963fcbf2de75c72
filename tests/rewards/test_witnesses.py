"""laplace-torch computes the posterior of rewards/laplace.py by other code: curvature by autograd, the dense inverse, its own evidence.

Test of rewards/laplace.py.
"""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.data import DataLoader, TensorDataset

from finegrain.rewards.laplace import FixedVariance, fit_posterior, log_evidence, pair_curvature

pytestmark = pytest.mark.slow
PRIOR_VARIANCE = 0.7


class Linear(nn.Module):
    """Scores of answers (N, H), or of pairs (N, 2, H) as the two logits of a choice."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.score = nn.Linear(len(weight), 1, bias=False, dtype=weight.dtype)
        self.score.weight.data.copy_(weight)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.score(features)
        return scores[..., 0] if features.ndim == 3 else scores


def test_posterior_and_evidence_are_those_of_laplace_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, pairs, answers = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((6,), (40, 2, 6), (5, 6)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own and its dependencies' deprecations
        laplace = pytest.importorskip("laplace", reason="tests/witnesses.txt is not installed: `make slow` does it")
        other = laplace.Laplace(Linear(weight), "reward_modeling", "all", "full", prior_precision=1 / PRIOR_VARIANCE)
        other.fit(DataLoader(TensorDataset(pairs, torch.zeros(40, dtype=torch.long)), batch_size=8))
        variance, evidence = other._glm_predictive_distribution(answers)[1].flatten(), other.log_marginal_likelihood()
    difference = pairs[:, 0] - pairs[:, 1]
    logits = difference @ weight
    own = fit_posterior(weight, pair_curvature(difference, logits), FixedVariance(variance=PRIOR_VARIANCE))
    torch.testing.assert_close(own.variance(answers), variance)
    likelihood = float(logsigmoid(logits).sum())
    assert log_evidence(likelihood, own.curvature, float(weight.square().sum()), PRIOR_VARIANCE) == pytest.approx(float(evidence))
