"""Curvature of the pair likelihood over chosen weight matrices of a reward model (such as LoRA's), and the resulting variance of an answer's score.

Inputs and output gradients of a layer are recorded at every token that the score depends on; a pair is one packed row.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.errors import ModelError, UsageError
from finegrain.models.packing import Group
from finegrain.models.scorer import Request, Scorer
from finegrain.rewards.heads import RewardHead, sequence_score
from finegrain.rewards.kfac import Kronecker, Sketch, kronecker_variance
from finegrain.rewards.laplace import EvidenceVariance, Prior
from finegrain.types import Side

Layers = Mapping[str, nn.Linear]


class LabelledPair(NamedTuple):
    """A prompt with its chosen and its rejected answer, and the pair's columns: flip * difference - margin is its logit."""

    group: Group
    flip: float = 1.0
    margin: float = 0.0
    weight: float = 1.0


def find_layers(model: nn.Module, part: str = "lora_") -> dict[str, nn.Linear]:
    """Trainable linear layers whose dotted name contains `part`."""
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and part in name and layer.weight.requires_grad}
    if not found:
        raise ModelError(f"no trainable linear layer has {part!r} in its name; a merged adapter has none, so pass the model with its adapter")
    return found


@dataclass(frozen=True)
class DifferentiableScores:
    """Scores of a group's answers, with their graph and the inputs and outputs of each layer."""

    scores: Float[Tensor, " A"]
    """One score per answer."""
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def gradients(self, value: Tensor) -> dict[str, tuple[Float[Tensor, "N i"], Float[Tensor, "N o"]]]:
        """By layer: inputs and output gradients for a combination of the scores, at the tokens that it depends on; float64."""
        names = list(self.outputs)
        slopes = torch.autograd.grad(value, [self.outputs[name] for name in names], retain_graph=True, allow_unused=True)
        found = {}
        for name, slope in zip(names, slopes, strict=True):
            slope = torch.zeros_like(self.outputs[name]) if slope is None else slope
            rows = slope.flatten(0, -2)
            live = rows.abs().sum(-1) > 0
            found[name] = (self.inputs[name].flatten(0, -2)[live].cpu().double(), rows[live].cpu().double())
        return found

    def jacobian(self, value: Tensor) -> dict[str, Float[Tensor, "1 d r"]]:
        """By layer: the gradient of its weight, larger side first."""
        found = {}
        for name, (inputs, slopes) in self.gradients(value).items():
            large, small = _sides(inputs, slopes)
            found[name] = (large.T @ small)[None]
        return found


@dataclass(frozen=True)
class LayerPosterior:
    """A Gaussian over the weights of some layers."""

    factors: Mapping[str, Kronecker]
    prior_variance: float

    def variance(self, judged: DifferentiableScores, value: Tensor) -> float:
        """Variance of a score, or of any combination of the scores of one group (a difference of two answers), in squared units of the reward."""
        return float(kronecker_variance(dict(self.factors), judged.jacobian(value), self.prior_variance))


def score_group(scorer: Scorer, head: RewardHead, module: nn.Module, layers: Layers, group: Group) -> DifferentiableScores:
    """Scores the answers of one prompt; `head` interprets the outputs of `module`."""
    with torch.enable_grad(), _caught(layers) as (inputs, outputs):
        values = scorer((group,), Request(False, outputs=module)).outputs
        assert values is not None
        scores = []
        start = 0
        for branch in group.branches:
            count = int(branch.mask.sum())
            if not count:
                raise UsageError("an answer without a token has no score and no gradient")
            part = values[None, start : start + count]
            everywhere = torch.ones(part.shape[:2], dtype=torch.bool, device=part.device)
            scores.append(sequence_score(head, Side(logp=part[..., 0], mask=everywhere, outputs=part)).mean[0])
            start += count
    return DifferentiableScores(torch.stack(scores), inputs, outputs)


def fit_layers(
    scorer: Scorer,
    head: RewardHead,
    module: nn.Module,
    layers: Layers,
    pairs: Iterable[LabelledPair],
    *,
    rank: int = 10,
    prior: Prior | None = None,
) -> LayerPosterior:
    """Fits the posterior in one pass over training pairs; `rank` columns of each large factor are kept.

    The prior variance maximises the evidence by default.
    """
    large = {name: Sketch(rank) for name in layers}
    small: dict[str, Tensor] = {}
    tokens = dict.fromkeys(layers, 0)
    for pair in pairs:
        judged = score_group(scorer, head, module, layers, pair.group)
        difference = judged.scores[0] - judged.scores[1]
        logit = pair.flip * difference.detach() - pair.margin
        weight = pair.weight * float(torch.sigmoid(logit) * torch.sigmoid(-logit))
        for name, (inputs, slopes) in judged.gradients(difference).items():
            big, little = _sides(inputs, weight**0.5 * slopes)
            large[name].add(big)
            small[name] = small.get(name, torch.zeros(little.shape[1], little.shape[1], dtype=torch.float64)) + little.T @ little
            tokens[name] += len(inputs)
    if not any(tokens.values()):
        raise UsageError("no pair reached the chosen layers: the posterior needs at least one pair, and layers that the score depends on")
    factors = {name: Kronecker(_columns(large[name]), small[name] / max(1, tokens[name])) for name in layers if tokens[name]}
    curvature = torch.cat([factor.eigenvalues for factor in factors.values()])
    norm = sum(float(layers[name].weight.detach().cpu().double().square().sum()) for name in factors)
    return LayerPosterior(factors, (prior or EvidenceVariance())(curvature, norm))


def _columns(sketch: Sketch) -> Tensor:
    assert sketch.columns is not None
    return sketch.columns


def _sides(inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """(large, small) of a layer's two sides; where equal, the inputs are the large side."""
    return (inputs, slopes) if inputs.shape[1] >= slopes.shape[1] else (slopes, inputs)


@contextmanager
def _caught(layers: Layers) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Records inputs and outputs of the layers during one forward pass."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def catch(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            inputs[name], outputs[name] = given[0].detach(), result

        return hook

    handles = [layer.register_forward_hook(catch(name)) for name, layer in layers.items()]
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()
