"""Quantised weights: such checkpoints, detected by config, files or tensors, stop with an error; a frozen base may be loaded in 4 bits (nf4)."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from finegrain.errors import ModelError, UsageError
from finegrain.models.load_errors import one_line

QUANTISED_BY = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}
"""Files beside weights that older programs wrote instead of an entry of config.json."""
TRACES = {
    "qweight": "gptq or awq",
    "qzeros": "gptq or awq",
    "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes",
    "SCB": "bitsandbytes",
    "weight_packed": "compressed-tensors",
    "weight_scale": "compressed-tensors",
    "weight_scale_inv": "fp8",
    "W_q": "hqq",
    "_blocks": "mxfp4",
}
"""Suffixes of the names of tensors of quantised weights."""


def refuse_quantised(source: str, facts: Mapping[str, Any]) -> None:
    """Raises ModelError for a checkpoint whose config declares quantised weights."""
    for part in iterate_configs(facts):
        for entry in ("quantization_config", "compression_config"):
            told = part.get(entry)
            if told is not None:
                refuse_method(source, _method(told))
    for name, method in QUANTISED_BY.items():
        if (Path(source) / name).exists():
            refuse_method(source, method)


def refuse_method(source: str, method: str) -> None:
    """Raises the error for weights quantised by this method."""
    raise ModelError(f"{source} is a quantised checkpoint ({one_line(method)}); train from the unquantised checkpoint")


def _method(told: object) -> str:
    if not isinstance(told, Mapping):
        return str(told)
    if any(told.get(name) for name in ("load_in_4bit", "load_in_8bit")):
        return "bitsandbytes"
    return str(told.get("quant_method") or told.get("quant_algo") or "method not named")


def refuse_traces(source: str, unused: Sequence[str]) -> None:
    """Raises ModelError where unused tensors are those of quantised weights."""
    for name in unused:
        for end, method in TRACES.items():
            if name.endswith(end) or f".{end}." in name:
                refuse_method(source, method)


def iterate_configs(facts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A config and the configs inside it (text_config …)."""
    yield facts
    for name, part in facts.items():
        if isinstance(part, Mapping) and name.endswith("_config") and name not in ("quantization_config", "compression_config"):
            yield part


def make_four_bit_arguments(base: str, arithmetic: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained`: none for a base in its checkpoint's dtype; 4-bit weights are made on loading, on their device."""
    if base == "checkpoint":
        return {}
    if find_spec("bitsandbytes") is None:
        raise UsageError("--lora.base nf4 needs bitsandbytes, which is not installed: pip install -c constraints.txt -e '.[nf4]'")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=arithmetic)
    return {"quantization_config": config, "device_map": {"": device}}


def check_four_bit(*, adapter: bool, in_memory: bool, shard: bool) -> None:
    """Stops with an error where a 4-bit base is impossible."""
    if not adapter:
        raise UsageError("--lora.base nf4 needs a frozen base, but this run trains all weights; add --lora.rank")
    if in_memory:
        raise UsageError("--lora.base nf4 quantises a checkpoint on loading; pass a checkpoint instead of a model object")
    if shard:
        raise UsageError("--shard splits weights of one dtype and cannot split packed 4-bit weights; remove --shard or --lora.base")
