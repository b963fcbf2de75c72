"""Check at load that the fused path gives this model's own log-probabilities and gradients; else use the plain path.

Two prompts of different lengths with two answers each, longer than any relevant attention window, under random token weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finegrain.files import cache_folder
from finegrain.models.packing import Branch, Group
from finegrain.models.products import choose_products, describe_products
from finegrain.models.score import Precision
from finegrain.models.scorer import Path, Request, Scorer, causal_lm, fused, plain, stock_attention, use_branched_attention, use_own_attention
from finegrain.ops.matmul import prefer_torch, use_onednn_linear
from finegrain.run_record import PRODUCTS

ROUGH = 5e-2
"""Tolerance of values in bfloat16, relative where they are above 1."""


@dataclass(frozen=True)
class Probe:
    """The result of the check."""

    fused: bool
    value_error: float
    """Largest difference of a value, in nats or a head's units; nan where the fused path does not run."""
    gradient_error: float
    """Norm of the gradient difference relative to the gradient's norm."""
    reason: str
    products: str = ""
    """The libraries of float32 products on a CPU."""

    def as_json(self) -> dict[str, object]:
        """For run.json."""
        return {"path": "fused" if self.fused else "plain", "reason": self.reason, PRODUCTS: self.products}


def make_scorer(model: Any, *, longest: int, head: nn.Module | None = None, precision: Precision | None = None) -> tuple[Scorer, Probe]:
    """The scorer on the fused path if it is exact for this model, on the plain path otherwise.

    `longest`: tokens of the longest row to come; windows beyond it have no effect. `head`: that of a reward model, which has no
    vocabulary head to check. `precision`: the run's precision, in which the paths are compared too where it differs from that of the weights.
    """
    use_branched_attention(model)
    by_torch = choose_products(model, cache_folder()) if next(model.parameters()).device.type == "cpu" else set()
    prefer_torch(by_torch)
    use_onednn_linear(model)
    probe = probe_model(model, longest=longest, head=head)
    if probe.fused and precision is not None and precision.name == "bfloat16":
        with precision.autocast():
            rough = probe_model(model, longest=longest, head=head, tolerance=ROUGH)
        probe = probe if rough.fused else replace(rough, reason=f"in {precision.name} {rough.reason}")
    if not probe.fused:
        use_own_attention(model)
    return Scorer(model, fused if probe.fused else plain, head), replace(probe, products=describe_products(by_torch))


def probe_model(model: Any, *, longest: int, head: nn.Module | None = None, tolerance: float | None = None) -> Probe:
    """Compare values and gradients of the fused with those of the plain path."""
    groups = draw_groups(causal_lm(model).config.get_text_config(), longest)
    try:
        values, gradients = _evaluate(model, fused, groups, head)
    except Exception as error:  # an architecture may fail in any way; the plain path then runs instead
        return Probe(False, float("nan"), float("nan"), f"the fused path does not run on {type(causal_lm(model)).__name__}: {error}")
    with stock_attention(model):  # including the backward pass, where checkpointed layers run again
        want_values, want_gradients = _evaluate(model, plain, groups, head)
    value_error = float((values - want_values).abs().max())
    scale = sum(float(gradient.square().sum()) for gradient in want_gradients) ** 0.5
    difference = sum(float((a - b).square().sum()) for a, b in zip(gradients, want_gradients, strict=True)) ** 0.5
    gradient_error = difference / max(scale, 1e-30)
    if tolerance is None:
        tolerance = ROUGH if {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16} else 1e-4
    exact = value_error <= tolerance * max(1.0, float(want_values.abs().max())) and gradient_error <= 10 * tolerance
    reason = "fused equals plain" if exact else f"fused differs from plain: {value_error:.2g} in values, gradient {gradient_error:.2g}"
    return Probe(exact, value_error, gradient_error, reason)


def _evaluate(model: Any, path: Path, groups: Sequence[Group], head: nn.Module | None) -> tuple[Tensor, list[Tensor]]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        found = path(model, groups, Request(head is None, outputs=head))
        values = found.logp if found.outputs is None else found.outputs
        generator = torch.Generator().manual_seed(1)
        weights = torch.randn(values.shape, generator=generator).to(values)
        gradients = torch.autograd.grad((values * weights).sum(), parameters, allow_unused=True) if parameters else ()
    return values.detach(), [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]


def draw_groups(config: Any, longest: int) -> list[Group]:
    """Two prompts with two answers each, longer than every window shorter than `longest`."""
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    active = [window for window in windows if isinstance(window, int) and window < longest]
    room = getattr(config, "max_position_embeddings", None) or 10**9
    length = max(8, min(max(active, default=8) + 8, room - 12))
    rng = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        return rng.integers(0, config.vocab_size, count).astype(np.int32)

    def branch(count: int) -> Branch:
        return Branch(draw(count), np.ones(count, dtype=bool))

    return [Group(draw(length), (branch(5), branch(9))), Group(draw(3), (branch(length), branch(2)))]
