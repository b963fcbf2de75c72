"""A posterior beside a reward model: `posterior.safetensors` holds it, `posterior.json` records what it was fitted on; it gives the std of scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from finegrain.errors import ModelError
from finegrain.models.finite import refuse_not_finite
from finegrain.models.reward_head import stock_rows
from finegrain.models.tensor_file import save_with_facts
from finegrain.ops.gaussian_layer import GaussianLayer
from finegrain.rewards.declarations import read_head
from finegrain.rewards.heads import Readout, RewardHead, combine_members, read_out
from finegrain.rewards.laplace import Posterior, answer_features
from finegrain.types import Scored

POSTERIOR_FILE, POSTERIOR_FACTS = "posterior.safetensors", "posterior.json"


def refuse_parts(head: Any) -> None:
    """Raises ModelError for a head that reads segments or steps: a posterior is over scores of whole answers."""
    if read_head(head).read_positions is not None:
        raise ModelError(f"a posterior requires scores of whole answers; this {type(head).__name__} reads ends of segments or steps")


def reward_rows(head: Any, module: nn.Module) -> Float[Tensor, "E H"]:
    """The linear rewards behind a head: one, or each member's."""
    if not isinstance(module, nn.Linear):
        raise ModelError(f"a posterior requires a linear reward; this {type(head).__name__} has a {type(module).__name__}, which is not linear")
    refuse_parts(head)
    declared = read_head(head)
    if declared.reads_whole_answer:
        raise ModelError(f"a posterior requires a linear reward; this {type(head).__name__} weighs its tokens over the whole answer")
    weight = stock_rows(module)
    rows = declared.stock(weight) if declared.rows is None else declared.rows(weight)
    if declared.rows is None and len(rows) > 1:
        raise ModelError(f"a posterior requires a linear reward; the score of this {type(head).__name__} is not linear in its {len(rows)} logits")
    return rows


def save_posteriors(posteriors: Sequence[Posterior], facts: Mapping[str, Any], folder: Path) -> None:
    """Writes both files, complete or not at all; one posterior per linear reward."""
    names = ("weight", "curvature", "vectors")
    tensors = {name: torch.stack([getattr(one, name) for one in posteriors]).contiguous() for name in names}
    tensors["prior_variance"] = torch.tensor([one.prior_variance for one in posteriors], dtype=torch.float64)
    save_with_facts(tensors, folder / POSTERIOR_FILE, facts, folder / POSTERIOR_FACTS)


def load_posteriors(folder: Path) -> list[Posterior]:
    """Reads what `save_posteriors` wrote; empty where no posterior was fitted."""
    if not (folder / POSTERIOR_FILE).exists():
        return []
    try:
        found = load_file(folder / POSTERIOR_FILE)
        variances = found["prior_variance"].tolist()
        parts = zip(found["weight"], found["curvature"], found["vectors"], variances, strict=True)
        posteriors = [Posterior(*part) for part in parts]
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ModelError(f"cannot read the posterior {folder / POSTERIOR_FILE}: {error}; delete it, or fit it again") from error
    refuse_not_finite(f"the posterior {folder / POSTERIOR_FILE}", found.items())
    return posteriors


@dataclass(frozen=True)
class WithPosterior:
    """A head whose scores have the std left by the training pairs, added in quadrature to the head's own std."""

    head: Any
    members: int
    """Posteriors: 1, or one per member of the head."""
    hidden_size: int

    @property
    def outputs(self) -> int:
        """The head's outputs, and each posterior's projection of the hidden state."""
        return int(self.head.outputs) + self.members * self.hidden_size

    @property
    def readout(self) -> Readout:
        """The head's."""
        readout: Readout = self.head.readout
        return readout

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The head's."""
        rows: Tensor = self.head.stock(weight[: self.head.outputs])
        return rows

    def tokens(self, outputs: Float[Tensor, "B T K"]) -> Scored:
        """Every token scored separately."""
        own, projected = self._split(outputs)
        return _joined(self.head.tokens(own), projected.square().sum(-1))

    def answer(self, outputs: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"]) -> Scored:
        """The score of the answer: the errors of its tokens are one error of the weights, so they add up before they are squared."""
        own, projected = self._split(outputs)
        tokens: Scored = self.head.tokens(own)
        means = tokens.mean[None] if tokens.members is None else tokens.members
        found = [answer_features(self.head.readout, mean, part, mask) for mean, part in zip(means, projected, strict=True)]
        return _joined(read_out(self.head.readout, tokens, mask), torch.stack(found).square().sum(-1))

    def _split(self, outputs: Float[Tensor, "B T K"]) -> tuple[Tensor, Float[Tensor, "E B T H"]]:
        own, rest = outputs[..., : self.head.outputs], outputs[..., self.head.outputs :]
        return own, rest.reshape(*rest.shape[:-1], self.members, self.hidden_size).movedim(-2, 0)


def _joined(scored: Scored, variance: Float[Tensor, "E ..."]) -> Scored:
    """The scores with the posterior's variance added to their own."""
    if scored.members is None:
        own = 0.0 if scored.std is None else scored.std.square()
        return Scored(scored.mean, (own + variance[0]).sqrt())
    own = 0.0 if scored.member_std is None else scored.member_std.square()
    return combine_members(scored.members, (own + variance).sqrt())


def add_posterior(head: RewardHead, module: nn.Module, posteriors: Sequence[Posterior]) -> tuple[WithPosterior, nn.Linear]:
    """Head and module that give the same scores with their std; raises ModelError where the posterior belongs to other weights."""
    rows = reward_rows(head, module)
    size, weight = rows.shape[1], stock_rows(module)
    modes = torch.stack([one.weight for one in posteriors])
    if modes.shape != rows.shape or not torch.allclose(modes, rows.cpu().double(), rtol=1e-4, atol=1e-8):
        raise ModelError(f"{POSTERIOR_FILE} was fitted to weights other than this head's; delete it, or fit it again: `finegrain reward posterior`")
    offsets = module.offsets if isinstance(module, GaussianLayer) else None
    joined = nn.Linear(size, len(weight) + len(posteriors) * size, bias=offsets is not None, dtype=weight.dtype)
    roots = [one.root.to(weight) for one in posteriors]
    with torch.no_grad():
        joined.weight.copy_(torch.cat([weight, *roots]))
        if offsets is not None:
            joined.bias.zero_()
            joined.bias[: len(offsets)] = offsets
    return WithPosterior(head, len(posteriors), size), joined


def attach_posterior(head: RewardHead, module: nn.Module, folder: Path) -> tuple[RewardHead, nn.Module]:
    """Head and module of a checkpoint, with its posterior where it has one."""
    posteriors = load_posteriors(folder)
    return add_posterior(head, module, posteriors) if posteriors else (head, module)
