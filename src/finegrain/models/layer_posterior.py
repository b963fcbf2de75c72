"""A posterior over the matrices of a reward model's adapter, on disk and at work: `posterior_lora.safetensors`, `posterior_lora.json`.

It needs a gradient of every answer's score: a backward pass per answer, and no std of single tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from finegrain.errors import ModelError
from finegrain.models.curvature import LayerPosterior, Layers, judge, layers_named
from finegrain.models.finite import refuse_not_finite
from finegrain.models.packing import Group
from finegrain.models.posterior import refuse_parts
from finegrain.models.scorer import Scorer
from finegrain.models.tensor_file import save_with_facts
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.kfac import Kronecker

LAYERS_FILE, LAYERS_FACTS = "posterior_lora.safetensors", "posterior_lora.json"


def save_layers(posterior: LayerPosterior, layers: Layers, head: nn.Module, facts: Mapping[str, Any], folder: Path) -> None:
    """Both files, complete or absent."""
    tensors = {f"large.{name}": factor.large for name, factor in posterior.factors.items()}
    tensors |= {f"small.{name}": factor.small for name, factor in posterior.factors.items()}
    tensors |= {"prior_variance": torch.tensor([posterior.prior_variance], dtype=torch.float64), "norms": _norms(posterior, layers, head)}
    save_with_facts({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / LAYERS_FILE, facts, folder / LAYERS_FACTS)


def _norms(posterior: LayerPosterior, layers: Layers, head: nn.Module) -> Float[Tensor, " L"]:
    """What tells other weights apart: norms of the layers that the posterior is over, and of the head."""
    weights = [layers[name].weight for name in sorted(posterior.factors)] + list(head.parameters())
    return torch.stack([weight.detach().cpu().double().norm() for weight in weights])


def load_layers(folder: Path, layers: Layers, head: nn.Module) -> LayerPosterior:
    """What `save_layers` wrote; raises ModelError where it is of other weights than these."""
    file = folder / LAYERS_FILE
    try:
        found = load_file(file)
        names = [name.removeprefix("large.") for name in found if name.startswith("large.")]
        factors = {name: Kronecker(found[f"large.{name}"], found[f"small.{name}"]) for name in names}
        posterior, norms = LayerPosterior(factors, float(found["prior_variance"])), found["norms"]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot read the posterior {file}: {error}; delete it, or fit it again") from error
    refuse_not_finite(f"the posterior {file}", found.items())
    if not set(factors) <= set(layers) or not torch.allclose(_norms(posterior, layers, head), norms, rtol=1e-4, atol=1e-8):
        raise ModelError(f"{LAYERS_FILE} was fitted to other weights than this model has; delete it, or fit it again: `finegrain reward posterior`")
    return posterior


@dataclass(frozen=True)
class AnswerVariance:
    """How unsure the pairs leave an answer's score, through the adapter."""

    scorer: Scorer
    """Of the model with its adapter taken out."""
    head: RewardHead
    module: nn.Module
    layers: Layers
    posterior: LayerPosterior

    def __call__(self, group: Group) -> list[float]:
        """Of each answer of the group, in squared units of the reward."""
        judged = judge(self.scorer, self.head, self.module, self.layers, group)
        return [self.posterior.variance(judged, score) for score in judged.scores]


def answer_variance(folder: Path, scorer: Scorer, head: RewardHead, module: nn.Module) -> AnswerVariance:
    """By the posterior of the checkpoint whose model, its adapter taken out, the scorer has."""
    refuse_parts(head)
    layers = layers_named(scorer.model)
    return AnswerVariance(scorer, head, module, layers, load_layers(folder, layers, module))


def has_layer_posterior(folder: Path) -> bool:
    """Whether one lies beside a checkpoint."""
    return (folder / LAYERS_FILE).exists()
