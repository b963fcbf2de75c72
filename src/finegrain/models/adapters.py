"""LoRA through peft: a small trainable adapter on a frozen model."""

from dataclasses import replace
from typing import Any

from finegrain.errors import UsageError
from finegrain.models.load import Policy
from finegrain.models.lora import Lora


def with_adapter(policy: Policy, lora: Lora, seed: int) -> Policy:
    """The policy with a fresh adapter, or as it is for rank 0; a policy that came with an adapter goes on training that one."""
    if lora.rank == 0:
        return policy
    if hasattr(policy.model, "peft_config"):
        raise UsageError(f"{policy.source} already has an adapter, which goes on training; drop --lora.rank or merge the adapter first")
    import torch
    from peft import LoraConfig, get_peft_model

    targets: Any = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    torch.manual_seed(seed)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    try:
        return replace(policy, model=get_peft_model(policy.model, config))
    except ValueError as error:
        raise UsageError(f"--lora.targets {lora.targets}: {error}") from error
