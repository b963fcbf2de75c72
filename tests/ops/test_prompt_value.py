"""The value of prompts: padding is not read, it starts at the mean, is fitted, and what was held out chooses the epoch."""

from typing import Any

import numpy as np
import pytest
import torch

from finegrain.errors import UsageError
from finegrain.ops.prompt_value import PromptValue, apply_value, fit_value, pad_states

SETTINGS: dict[str, Any] = {"heads": 2, "max_value": 2.0, "learning_rate": 2e-2, "epochs": 30, "batch_size": 10, "held_out": 0.25, "seed": 0}


def prompts(count: int = 40, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Ragged states whose first number says the target."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0.2, 1.8, count)
    states = [rng.normal(size=(rng.integers(1, 9), 8)).astype(np.float32) for _ in range(count)]
    for own, target in zip(states, targets, strict=True):
        own[:, 0] = target
    return states, targets


def test_a_value_does_not_depend_on_the_batch() -> None:
    states, _ = prompts()
    torch.manual_seed(0)
    head = PromptValue(8, heads=2, max_value=1.0).double()
    wide = [own.astype(np.float64) for own in states]
    alone = np.concatenate([apply_value(head, [own]) for own in wide])
    np.testing.assert_allclose(apply_value(head, wide), alone, rtol=0, atol=1e-12)
    given, mask = pad_states(wide)
    torch.testing.assert_close(head(torch.where(mask[..., None], given, torch.nan), mask), torch.from_numpy(alone), rtol=0, atol=1e-12)


def test_it_is_fitted_better_than_the_mean() -> None:
    states, targets = prompts()
    head, facts = fit_value(states, targets, **SETTINGS)
    assert (facts["prompts_fitted"], facts["prompts_held_out"]) == (30, 10)
    assert facts["squared_error_held_out"] < 0.2 * facts["squared_error_held_out_of_the_mean"]
    assert facts["epoch_kept"] > 0
    new, wanted = prompts(seed=1)
    assert np.square(apply_value(head, new) - wanted).mean() < 0.2 * wanted.var()
    again = fit_value(states, targets, **SETTINGS)
    assert all(torch.equal(one, other) for one, other in zip(head.state_dict().values(), again.head.state_dict().values(), strict=True))


def test_what_cannot_be_learned_stays_the_mean() -> None:
    states, _ = prompts()
    noise = np.random.default_rng(3).uniform(0.2, 1.8, len(states))
    _, facts = fit_value(states, noise, **SETTINGS)
    assert facts["squared_error_held_out"] <= facts["squared_error_held_out_of_the_mean"] + 1e-6
    _, authors = fit_value(states, noise, **{**SETTINGS, "held_out": 0.0})
    assert "squared_error_held_out" not in authors
    assert authors["squared_error_fitted"] < facts["squared_error_fitted"], "chosen by the error on what was fitted"


def test_targets_at_the_ends_and_a_single_prompt() -> None:
    states, _ = prompts(2)
    head, _ = fit_value(states, np.zeros(2), **SETTINGS)
    assert np.isfinite(apply_value(head, states)).all()
    _, facts = fit_value(states[:1], np.ones(1), **SETTINGS)
    assert facts["prompts_held_out"] == 0


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match="3 heads of attention do not divide the model's 8 hidden numbers"):
        PromptValue(8, heads=3, max_value=1.0)
