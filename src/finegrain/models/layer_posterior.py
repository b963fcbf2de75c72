"""A posterior over the matrices of a reward model's adapter, saved and applied: `posterior_lora.safetensors`, `posterior_lora.json`.

It needs the gradient of every answer's score: one backward pass per answer. It gives no std of single tokens.
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
from finegrain.models.curvature import LayerPosterior, Layers, find_layers, score_group
from finegrain.models.finite import refuse_not_finite
from finegrain.models.packing import Group
from finegrain.models.posterior import refuse_parts
from finegrain.models.scorer import Scorer
from finegrain.models.tensor_file import save_with_facts
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.kfac import Kronecker

LAYERS_FILE, LAYERS_FACTS = "posterior_lora.safetensors", "posterior_lora.json"


def save_layers(posterior: LayerPosterior, layers: Layers, head: nn.Module, facts: Mapping[str, Any], folder: Path) -> None:
    """Writes both files, complete or not at all."""
    tensors = {f"large.{name}": factor.large for name, factor in posterior.factors.items()}
    tensors |= {f"small.{name}": factor.small for name, factor in posterior.factors.items()}
    tensors |= {"prior_variance": torch.tensor([posterior.prior_variance], dtype=torch.float64), "norms": _norms(posterior, layers, head)}
    save_with_facts({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / LAYERS_FILE, facts, folder / LAYERS_FACTS)


def _norms(posterior: LayerPosterior, layers: Layers, head: nn.Module) -> Float[Tensor, " L"]:
    """Identifies the weights: norms of the layers that the posterior covers, and of the head."""
    weights = [layers[name].weight for name in sorted(posterior.factors)] + list(head.parameters())
    return torch.stack([weight.detach().cpu().double().norm() for weight in weights])


def load_layers(folder: Path, layers: Layers, head: nn.Module) -> LayerPosterior:
    """Reads what `save_layers` wrote; raises ModelError where it belongs to other weights."""
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
        raise ModelError(f"{LAYERS_FILE} was fitted to weights other than this model's; delete it, or fit it again: `finegrain reward posterior`")
    return posterior


@dataclass(frozen=True)
class AnswerVariance:
    """Variance of an answer's score given the training pairs, through the adapter."""

    scorer: Scorer
    """The scorer of the model with its adapter as separate matrices."""
    head: RewardHead
    module: nn.Module
    layers: Layers
    posterior: LayerPosterior

    def __call__(self, group: Group) -> list[float]:
        """Variance of each answer of the group, in squared units of the reward."""
        judged = score_group(self.scorer, self.head, self.module, self.layers, group)
        return [self.posterior.variance(judged, score) for score in judged.scores]


def answer_variance(folder: Path, scorer: Scorer, head: RewardHead, module: nn.Module) -> AnswerVariance:
    """The variance under the posterior of a checkpoint; the scorer has the checkpoint's model with its adapter as separate matrices."""
    refuse_parts(head)
    layers = find_layers(scorer.model)
    return AnswerVariance(scorer, head, module, layers, load_layers(folder, layers, module))


def has_layer_posterior(folder: Path) -> bool:
    """Whether a checkpoint has one."""
    return (folder / LAYERS_FILE).exists()
