"""Curvature of LoRA matrices: gradients are autograd's, factors are those of a naive loop, and pairs only take variance away."""

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from finegrain.errors import ModelError, UsageError
from finegrain.models.curvature import LabelledPair, find_layers, fit_layers, score_group
from finegrain.models.packing import Branch, Group
from finegrain.models.probe import make_scorer
from finegrain.models.reward_head import linear_head
from finegrain.rewards.laplace import FixedVariance
from finegrain.rewards.sequence import Sequence
from tests.tiny import MODELS, VOCABULARY


@pytest.fixture(scope="module")
def parts() -> Any:
    """A tiny Llama with adapters that say something, a head, and a scorer; float64."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4.0, lora_dropout=0.0, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(MODELS["llama"](), config).double()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    module = linear_head(32, 1, seed=0, dtype=torch.float64)
    with torch.no_grad():
        module.weight.mul_(30)
    scorer, _ = make_scorer(model, longest=40)
    return scorer, Sequence(), module, find_layers(model)


def pairs(count: int, seed: int = 0) -> list[LabelledPair]:
    rng = np.random.default_rng(seed)
    draw = lambda length: rng.integers(3, VOCABULARY, length).astype(np.int32)
    branch = lambda length: Branch(draw(length), np.ones(length, dtype=bool))
    groups = [Group(draw(int(rng.integers(1, 9))), (branch(int(rng.integers(1, 9))), branch(int(rng.integers(1, 9))))) for _ in range(count)]
    return [LabelledPair(group) for group in groups]


def test_a_layer_s_gradient_is_autograd_s(parts: Any) -> None:
    """Of both matrices of every adapter, for one answer and for a difference; the filler of the packed row is left out."""
    layers = parts[3]
    assert len(layers) == 8
    judged = score_group(*parts, pairs(1)[0].group)
    for value in (judged.scores[0], judged.scores[0] - judged.scores[1]):
        found = judged.jacobian(value)
        for name, layer in layers.items():
            (want,) = torch.autograd.grad(value, layer.weight, retain_graph=True)
            got = found[name][0]
            torch.testing.assert_close(got if got.shape == want.shape else got.T, want)
            assert want.abs().max() > 0


def test_factors_are_those_of_a_loop(parts: Any) -> None:
    """Large factor: sum over tokens; small one: the mean; the pair's certainty on the gradients' side."""
    groups = pairs(3)
    fit = fit_layers(*parts, groups, rank=40, prior=FixedVariance(variance=0.5))
    name = next(name for name in parts[3] if "lora_A" in name and "down_proj" in name)
    large, small, count = torch.zeros(48, 48, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64), 0
    for group in groups:
        judged = score_group(*parts, group.group)
        difference = judged.scores[0] - judged.scores[1]
        certainty = torch.sigmoid(difference.detach()) * torch.sigmoid(-difference.detach())
        for read, slope in zip(*judged.gradients(difference)[name], strict=True):
            large += torch.outer(read, read)
            small += certainty * torch.outer(slope, slope)
            count += 1
    torch.testing.assert_close(fit.factors[name].large @ fit.factors[name].large.T, large)
    torch.testing.assert_close(fit.factors[name].small, small / count)


def test_pairs_take_variance_away(parts: Any) -> None:
    judged = score_group(*parts, pairs(1, seed=9)[0].group)
    value = judged.scores[0]
    norm = sum(float(one.square().sum()) for one in judged.jacobian(value).values())
    few = fit_layers(*parts, pairs(2), prior=FixedVariance(variance=0.5)).variance(judged, value)
    many = fit_layers(*parts, pairs(2) * 8, prior=FixedVariance(variance=0.5)).variance(judged, value)
    assert 0 < many < few < 0.5 * norm
    difference = judged.scores[0] - judged.scores[1]
    assert fit_layers(*parts, pairs(2), prior=FixedVariance(variance=0.5)).variance(judged, difference) > 0
    assert fit_layers(*parts, pairs(6)).prior_variance > 0, "by evidence"


def test_nothing_to_fit(parts: Any) -> None:
    with pytest.raises(ModelError, match="merged adapter"):
        find_layers(MODELS["llama"]())
    with pytest.raises(UsageError, match="at least one pair"):
        fit_layers(*parts, [])
    empty = Branch(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=bool))
    with pytest.raises(UsageError, match="without a token"):
        score_group(*parts, Group(np.ones(2, dtype=np.int32), (empty,)))
