"""The engine's check at load, made once for every architecture where whole commands are tested; in tests/models it is made every time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from finegrain.models import probe
from finegrain.models.scorer import causal_lm

_KNOWN: dict[Any, probe.Probe] = {}
USUAL = 100.0
"""Weights above it may overflow, and the check is made again."""


def remember(check: Callable[..., probe.Probe]) -> Callable[..., probe.Probe]:
    """The check, whose finding is kept for models that differ in usual weights alone."""

    def check_once(model: Any, *, longest: int, head: nn.Module | None = None, tolerance: float | None = None) -> probe.Probe:
        modules = [module for part in (model, head) if part is not None for module in part.modules()]
        weights = [weight for module in modules for weight in module.parameters(recurse=False)]
        if not all(bool(weight.detach().abs().max() < USUAL) for weight in weights):
            return check(model, longest=longest, head=head, tolerance=tolerance)
        config = causal_lm(model).config
        length = len(probe.draw_groups(config.get_text_config(), longest)[0].prompt)
        settings = {name: value for name, value in vars(config).items() if name != "_name_or_path"}
        shapes = tuple((weight.dtype, weight.shape, weight.requires_grad) for weight in weights)
        paths = probe.fused, probe.plain, torch.is_autocast_enabled("cpu")
        key = (*map(type, modules), shapes, repr(settings), length, head is None, tolerance, *paths, model.training)
        if key not in _KNOWN:
            _KNOWN[key] = check(model, longest=longest, head=head, tolerance=tolerance)
        return _KNOWN[key]

    return check_once
