"""A token is drawn from the model's probabilities, by its own uniform number; bad settings are errors with reasons."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from finegrain.errors import NonFiniteError, UsageError
from finegrain.generate.sampling import Sampling, draw_noise, pick


def drawn(logits: torch.Tensor, count: int, **cut: float) -> np.ndarray:
    """How often each token is drawn."""
    uniforms = torch.from_numpy(draw_noise(0, 0, 0, 0, count))
    return np.bincount(pick(logits.expand(count, -1), uniforms, **cut).tokens.numpy(), minlength=logits.shape[-1])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "temperature"), [(5, 1.0), (200, 0.7)])
def test_draws_have_the_probabilities(dtype: torch.dtype, size: int, temperature: float) -> None:
    """By chi-square; a slightly different temperature is seen."""
    logits = 2 * torch.randn(1, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    count = 20_000
    found = drawn(logits.to(dtype), count, temperature=temperature)
    expected, other = (count * torch.softmax(logits[0] / given, -1).numpy() for given in (temperature, 1.15 * temperature))
    many = expected > 5
    pool = lambda values: np.append(values[many], values[~many].sum() + 1e-9)
    assert chisquare(pool(found), pool(expected)).pvalue > 1e-3
    assert chisquare(pool(found), pool(other) * pool(found).sum() / pool(other).sum()).pvalue < 1e-6


@pytest.mark.parametrize("size", [7, 256, 1000])
def test_the_inverse_of_the_cumulative_distribution(size: int) -> None:
    """The plain definition, at numbers that fall near the borders too; tokens of no probability are never drawn."""
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits[:, ::3] = float("-inf")
    edges = torch.softmax(logits[0], -1).cumsum(-1)
    uniforms = torch.cat([torch.rand(500, dtype=torch.float64), edges[:-1] - 1e-9, edges[:-1] + 1e-9, torch.tensor([0.0, 1 - 2.0**-53])]).clamp(
        0, 1 - 2.0**-53
    )
    found = pick(logits.expand(len(uniforms), -1), uniforms)
    want = torch.searchsorted(edges / edges[-1], uniforms, right=True).clamp(max=size - 1)
    assert torch.equal(found.tokens[:-1], want[:-1])
    assert torch.softmax(logits[0], -1)[found.tokens].min() > 0
    assert (found.logp - torch.log_softmax(logits[0], -1)[found.tokens]).abs().max() <= 1e-12
    narrow = pick(logits.float().expand(len(uniforms), -1), uniforms)
    assert torch.softmax(logits[0], -1)[narrow.tokens].min() > 0
    assert (narrow.logp - torch.log_softmax(logits[0], -1)[narrow.tokens]).abs().max() <= 1e-5


def test_temperature_0_is_the_most_likely_token_and_cuts_renormalise() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]], dtype=torch.float64)
    uniforms = torch.from_numpy(draw_noise(1, 0, 0, 0, 300))
    greedy = pick(logits, uniforms[:1], 0.0)
    assert greedy.tokens.tolist() == [1]
    assert greedy.logp[0] == pytest.approx(float(torch.log_softmax(logits, -1)[0, 1]))
    p = torch.softmax(logits[0], -1)
    for cut, kept in (({"top_k": 2}, [1, 3]), ({"top_p": 0.9}, [1, 3, 2]), ({"top_p": float(p[1])}, [1]), ({"top_k": 3, "top_p": 0.75}, [1, 3])):
        found = pick(logits.expand(300, -1), uniforms, **cut)  # type: ignore[arg-type]
        assert set(found.tokens.tolist()) == set(kept)
        assert (found.logp - (p[found.tokens] / p[kept].sum()).log()).abs().max() <= 1e-12
    assert logits.tolist() == [[0.0, 3.0, 1.0, 2.0]]


def test_noise_belongs_to_its_place() -> None:
    one = draw_noise(1, 2, 3, 4, 6)
    assert np.array_equal(one[:3], draw_noise(1, 2, 3, 4, 3))
    assert len({tuple(draw_noise(*place, 6)) for place in ((1, 2, 3, 4), (0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0))}) == 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_stop(bad: float) -> None:
    with pytest.raises(NonFiniteError, match="not finite"):
        pick(torch.tensor([[0.0, bad, 1.0]]), torch.tensor([0.5], dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"top_p": 0.9}, "cut off"), ({"top_k": 5}, "top_k 5"), ({"temperature": 0.0}, "the same")],
    ids=str,
)
def test_training_refuses_what_biases_it(settings: dict[str, float], reason: str) -> None:
    Sampling().check_for_training()
    with pytest.raises(UsageError, match=reason):
        Sampling(**settings).check_for_training()  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"stop": ("",)}, {"top_p": 0.0}, {"answers": 0}, {"temperature": -1.0}], ids=str)
def test_settings_without_a_meaning_are_errors(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Sampling(**settings)  # type: ignore[arg-type]
