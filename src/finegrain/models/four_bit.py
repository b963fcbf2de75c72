"""Bases whose linear layers are kept in 4 bits: transformers loads them through bitsandbytes, an adapter trains on top."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from finegrain.errors import UsageError


def four_bit_arguments(base: str, arithmetic: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told: nothing for a base as its checkpoint is; 4-bit weights are made as they are loaded, on their device."""
    if base == "checkpoint":
        return {}
    if find_spec("bitsandbytes") is None:
        raise UsageError("--lora.base nf4 needs bitsandbytes, which is not installed: pip install -c constraints.txt -e '.[nf4]'")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=arithmetic)
    return {"quantization_config": config, "device_map": {"": device}}


def check_four_bit(*, adapter: bool, in_memory: bool, shard: bool) -> None:
    """Refuse what has no 4-bit base."""
    if not adapter:
        raise UsageError("--lora.base nf4 keeps a frozen base in 4 bits, and this run trains all weights: add --lora.rank")
    if in_memory:
        raise UsageError("--lora.base nf4 is made as a checkpoint is loaded; a model object is loaded already")
    if shard:
        raise UsageError("--shard splits weights of one dtype, and 4-bit ones are packed; drop --shard or --lora.base")
