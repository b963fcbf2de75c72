"""Checkpoints whose weights are quantised: told by their config, by files beside them or by their tensors, and refused by method."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finegrain.errors import ModelError
from finegrain.models.load_errors import one_line

QUANTISED_BY = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}
"""Files beside weights that older programs wrote in place of an entry of config.json."""
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
"""Ends of the names of tensors that stand beside or in place of quantised weights."""


def refuse_quantised(source: str, facts: Mapping[str, Any]) -> None:
    """Raises ModelError for a checkpoint that says of itself that its weights are quantised."""
    for part in parts_of(facts):
        for entry in ("quantization_config", "compression_config"):
            told = part.get(entry)
            if told is not None:
                refuse_method(source, _method(told))
    for name, method in QUANTISED_BY.items():
        if (Path(source) / name).exists():
            refuse_method(source, method)


def refuse_method(source: str, method: str) -> None:
    """The error for weights quantised by this method."""
    raise ModelError(f"{source} is a quantised checkpoint ({one_line(method)}); train from the unquantised one")


def _method(told: object) -> str:
    if not isinstance(told, Mapping):
        return str(told)
    if any(told.get(name) for name in ("load_in_4bit", "load_in_8bit")):
        return "bitsandbytes"
    return str(told.get("quant_method") or told.get("quant_algo") or "method not named")


def refuse_traces(source: str, unused: Sequence[str]) -> None:
    """Raises ModelError where tensors that no model uses are those of quantised weights."""
    for name in unused:
        for end, method in TRACES.items():
            if name.endswith(end) or f".{end}." in name:
                refuse_method(source, method)


def parts_of(facts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A config and the configs inside it (text_config …)."""
    yield facts
    for name, part in facts.items():
        if isinstance(part, Mapping) and name.endswith("_config") and name not in ("quantization_config", "compression_config"):
            yield part
