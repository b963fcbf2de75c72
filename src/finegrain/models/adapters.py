"""LoRA through peft: a small trainable adapter on a frozen model, and the adapter saved beside weights that it was merged into."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from finegrain.errors import ModelError, UsageError
from finegrain.models.load import Policy
from finegrain.models.load_errors import explain_load_errors
from finegrain.models.lora import Lora
from finegrain.models.permissions import allow_readers


def add_adapter(policy: Policy, lora: Lora, seed: int) -> Policy:
    """The policy with a new adapter, or unchanged for rank 0; a policy that already has an adapter continues to train it."""
    if lora.rank == 0:
        return policy
    if hasattr(policy.model, "peft_config"):
        raise UsageError(f"{policy.source} already has an adapter, which continues to train; remove --lora.rank or merge the adapter first")
    from peft import LoraConfig, get_peft_model

    targets: Any = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    torch.manual_seed(seed)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    try:
        return replace(policy, model=get_peft_model(policy.model, config))
    except ValueError as error:
        raise UsageError(f"--lora.targets {lora.targets}: {error}") from error


def merge_adapter(model: Any, device: str = "cpu") -> Any:
    """A copy of the transformers model with its adapter merged; on the device "meta" only its shapes, at no cost."""
    copies: dict[int, torch.Tensor] = {}
    for one in model.parameters():
        wide = torch.promote_types(one.dtype, torch.float32)  # an update of low-precision weights must not be lost to rounding
        copies[id(one)] = nn.Parameter(one.detach().to(device, wide, copy=True), requires_grad=False)
    copies |= {id(one): one.detach().to(device, copy=True) for one in model.buffers()}
    with explain_load_errors("the adapter cannot be merged into its base, which a reward model is saved with"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tied embeddings that are no longer tied: they are saved separately
        return copy.deepcopy(model, copies).merge_and_unload()


ADAPTER = "adapter"
"""Folder beside a reward model's merged weights."""


def save_adapter(model: Any, folder: Path) -> None:
    """Saves the adapter's own matrices in peft's layout, beside a checkpoint that it is merged into; nothing for a model without an adapter."""
    if not hasattr(model, "peft_config"):
        return
    from peft import get_peft_model_state_dict

    (folder / ADAPTER).mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(state, folder / ADAPTER / "adapter_model.safetensors")
    model.peft_config[model.active_adapter].save_pretrained(folder / ADAPTER)
    allow_readers(folder / ADAPTER)


def take_adapter_out(model: Any, checkpoint: Path) -> Any:
    """The checkpoint's model with its adapter as separate, trainable matrices; it computes the same as the merged weights."""
    folder = checkpoint / ADAPTER
    if not (folder / "adapter_config.json").exists():
        raise ModelError(f"{checkpoint} has no {ADAPTER}/ beside its weights: it was trained without --lora.rank, or by another program")
    from peft import PeftConfig, PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    with explain_load_errors(f"cannot read the adapter {folder}"):
        config = PeftConfig.from_pretrained(str(folder))
        config.task_type = None
        for whole in ("modules_to_save", "trainable_token_indices"):  # not low-rank matrices: they stay merged in the weights
            if hasattr(config, whole):
                setattr(config, whole, None)
        found = PeftModel.from_pretrained(model, str(folder), config=config, is_trainable=True)
    for layer in found.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merged_adapters.extend(layer.active_adapters)
            layer.unmerge()
    return found
