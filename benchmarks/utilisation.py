"""How much arithmetic a training run needs, and how fast this machine multiplies matrices of the model's shapes."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finegrain.ops.matmul import multiply

REPEATS = 5


class Lengths(NamedTuple):
    """Tokens of a pair."""

    prompt: int
    chosen: int
    rejected: int


class Shape(NamedTuple):
    """A matrix of the model, applied to some rows."""

    outputs: int
    inputs: int
    count: int
    """How many such matrices, as often as they are used in one forward pass."""


def linear_shapes(model: Any) -> list[Shape]:
    """The distinct matrices of the backbone."""
    found: dict[tuple[int, int], int] = {}
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.Linear):
            found[module.weight.shape] = found.get(module.weight.shape, 0) + 1
    return [Shape(*shape, count) for shape, count in found.items()]


def useful_flops(pairs: Sequence[Lengths], model: Any) -> dict[str, float]:
    """Floating-point operations of one epoch of DPO: forward and backward of the policy, forward of the reference.

    Prompts count once per pair, the head only where a token is scored, attention only where a key is visible; nothing that an
    implementation computes twice, pads or throws away counts.
    """
    config = model.config.get_text_config()
    backbone = sum(shape.outputs * shape.inputs * shape.count for shape in linear_shapes(model))
    head = config.vocab_size * config.hidden_size
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    tokens = sum(map(sum, pairs))
    scored = sum(pair.chosen + pair.rejected for pair in pairs)
    seen = sum(
        pair.prompt * (pair.prompt + 1) // 2 + sum(answer * pair.prompt + answer * (answer + 1) // 2 for answer in (pair.chosen, pair.rejected))
        for pair in pairs
    )
    forward = {
        "backbone": 2.0 * backbone * tokens,
        "head": 2.0 * head * scored,
        "attention": 4.0 * width * config.num_hidden_layers * seen,
    }
    return {name: 4 * value for name, value in forward.items()}


def matmul_rate(model: Any, rows: int, scored: int, dtype: torch.dtype) -> float:
    """Operations a second of the three products of every matrix (output, input gradient, weight gradient), weighted as the model uses them.

    `rows` tokens go through the backbone and `scored` through the head. The best of several, by torch's own product into memory that exists
    or by oneDNN's, whichever is faster on this machine.
    """
    config = model.config.get_text_config()
    shapes = [(shape, rows) for shape in linear_shapes(model)] + [(Shape(config.vocab_size, config.hidden_size, 1), scored)]
    seconds = operations = 0.0
    for (outputs, inputs, count), many in shapes:
        x, w, y = (torch.randn(*size).to(dtype) for size in ((many, inputs), (outputs, inputs), (many, outputs)))
        for left, right in ((x, w.T), (y, w), (y.T, x)):
            seconds += count * _best_seconds(left, right)
            operations += count * 2.0 * outputs * inputs * many
    return operations / seconds


def _best_seconds(left: Tensor, right: Tensor) -> float:
    out = left @ right
    return min(_timed(lambda: torch.matmul(left, right, out=out)), _timed(lambda: multiply(left, right.T)))


def _timed(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def product_rate(shape: tuple[int, int], rows: int, dtype: torch.dtype, product: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Operations a second of one product: `rows` rows times a matrix of (outputs, inputs)."""
    outputs, inputs = shape
    x, w = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    product(x, w)
    return 2.0 * outputs * inputs * rows / _timed(lambda: product(x, w))
