"""Which library multiplies fastest on this machine, by shape, and whether bfloat16 is any faster than float32.

Measured once and then read from the cache, so that all runs on a machine sum in the same order.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from finegrain.errors import CheckpointError, UsageError
from finegrain.files import write_new
from finegrain.ops.matmul import Product, has_onednn, multiply_by_onednn
from finegrain.types import Json

T = TypeVar("T")

VARIABLE = "FINEGRAIN_PRODUCTS"
"""Environment variable: `onednn` leaves all products to oneDNN, without measuring."""
KINDS = get_args(Product.__annotations__["kind"])
ROWS, REPEATS = 256, 3
LARGEST = 16_384
"""Most rows or columns of a weight that is timed; a larger one is taken for one of this size."""
PATIENCE = 0.5
"""Seconds to wait for another process's choice."""
WORTH = 1.05
"""How many times as fast torch must be to be chosen [choice]."""
WIDTH = 1024
"""Rows and columns of the weight whose product is timed in bfloat16 and float32."""


def choose_products(model: nn.Module, folder: Path) -> set[Product]:
    """The products of the model's float32 layers that torch computes faster; none where no choice can be kept in the folder.

    Raises UsageError for an unknown word in FINEGRAIN_PRODUCTS.
    """
    if not _is_measured() or not has_onednn():
        return set()
    layers = [module.weight for module in model.modules() if type(module) is nn.Linear]
    shapes = {(weight.shape[0], weight.shape[1]) for weight in layers if weight.dtype == torch.float32 and weight.numel()}
    return {product for outputs, inputs in sorted(shapes) for product in _choose(folder, outputs, inputs)}


def compare_bfloat16(folder: Path) -> float:
    """How many times as long a bfloat16 product takes as a float32 one on this processor; 0 where it is not measured or cannot be kept.

    Raises UsageError for an unknown word in FINEGRAIN_PRODUCTS.
    """
    if not _is_measured():
        return 0.0
    return _measure_once(folder, "bfloat16", {}, lambda: {"bfloat16": measure_bfloat16()}, _read_factor) or 0.0


def measure_bfloat16() -> float:
    """The same, measured now."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        values, weight = torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype)
        seconds[dtype] = min(_time(torch.matmul, values, weight) for _ in range(REPEATS))
    return seconds[torch.bfloat16] / seconds[torch.float32]


def _is_measured() -> bool:
    named = os.environ.get(VARIABLE)
    if named not in (None, "onednn"):
        raise UsageError(f"{VARIABLE} is {named!r}; the only choice is onednn, and without it the faster library is measured for every shape")
    return named is None


def describe_products(by_torch: Collection[Product]) -> str:
    """Which library computes the float32 products of a model on a CPU, for run.json."""
    if not has_onednn():
        return "torch"
    return "; torch for ".join(["oneDNN", *(f"{kind} {outputs} x {inputs}" for kind, outputs, inputs in sorted(by_torch))])


def _choose(folder: Path, outputs: int, inputs: int) -> list[Product]:
    """Those of one shape, as the process found that wrote first."""
    measure = lambda: {"torch": [product._asdict() for product in measure_products(outputs, inputs)]}
    return _measure_once(folder, f"{outputs} {inputs}", {"shape": [outputs, inputs]}, measure, lambda found: _read(found, outputs, inputs)) or []


def _measure_once(folder: Path, name: str, facts: Json, measure: Callable[[], Json], read: Callable[[Any], T]) -> T | None:
    """What the process measured on this machine that wrote first; None where it cannot be kept. `read` raises for what it does not know."""
    machine = f"{_processor()} {torch.__version__} {torch.get_num_threads()}"
    file = folder / "products" / f"{hashlib.sha256(f'{machine} {name}'.encode()).hexdigest()[:16]}.json"
    known = _load(file, read)
    if known is not None:
        return known
    with suppress(OSError):
        file.unlink(missing_ok=True)  # damaged: before measuring, so that another process's choice stays
    found = measure()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_new(file, [json.dumps({"machine": machine, **facts, **found})])
    except OSError:  # the cache cannot be written
        return None
    except CheckpointError:  # nor by write_new, or another process was first and may still be writing
        until = time.monotonic() + PATIENCE
        while (known := _load(file, read)) is None and file.parent.is_dir() and time.monotonic() < until:
            time.sleep(0.01)
        return known
    return _load(file, read)


def _load(file: Path, read: Callable[[Any], T]) -> T | None:
    """What the file holds; None where there is none, or a damaged one."""
    try:
        return read(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def measure_products(outputs: int, inputs: int) -> list[Product]:
    """Of the three products with a weight (outputs, inputs), those that torch computes faster."""
    many, few = min(outputs, LARGEST), min(inputs, LARGEST)
    values, weight, gradient = (torch.ones(*size) for size in ((ROWS, few), (many, few), (ROWS, many)))
    pairs = [(values, weight), (gradient, weight.T), (gradient.T, values.T)]
    return [Product(kind, outputs, inputs) for kind, pair in zip(KINDS, pairs, strict=True) if _is_torch_faster(*pair)]


def _is_torch_faster(left: Tensor, right: Tensor) -> bool:
    seconds = [(_time(multiply_by_onednn, left, right), _time(torch.matmul, left, right.T)) for _ in range(REPEATS)]
    return min(ours for ours, _ in seconds) > WORTH * min(theirs for _, theirs in seconds)


def _time(multiply: Any, left: Tensor, right: Tensor) -> float:
    started = time.perf_counter()
    multiply(left, right)
    return time.perf_counter() - started


def _read(found: Any, outputs: int, inputs: int) -> list[Product]:
    """The choice of this shape; a ValueError for one of another shape or kind."""
    products = [Product(**product) for product in found["torch"]]
    if any(product not in [Product(kind, outputs, inputs) for kind in KINDS] for product in products):
        raise ValueError(f"products of other shapes: {products}")
    return products


def _read_factor(found: Any) -> float:
    factor = float(found["bfloat16"])
    if not 0 < factor < float("inf"):
        raise ValueError(f"{factor} is no ratio of times")
    return factor


def _processor() -> str:
    """Name and abilities of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags", "Features"))]
    return " ".join([*named[:2], platform.machine(), platform.processor()])
