"""Checkpoints made without training: reward models of random heads, and a policy moved a little."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from finegrain.configure import to_json
from finegrain.models.load import load_policy
from finegrain.models.reward_models import save_reward_model
from finegrain.recipes.training.reward_artifact import stock_of
from finegrain.rewards.heads import RewardHead


def save_reward(model: Path, folder: Path, method: str, head: RewardHead, *, scale: float = 0.5) -> Path:
    """A checkpoint of this head on the tiny model; `scale` of its weights, which are random."""
    policy = load_policy(model)
    linear = torch.nn.Linear(policy.model.config.hidden_size, head.outputs, bias=False)
    with torch.no_grad():
        linear.weight.copy_(scale * torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(3)))
    facts = {"head": {"method": method, **to_json(head)}, "loss": {"method": "bradley-terry"}}
    save_reward_model(policy, linear, head.stock(linear.weight.detach()), stock_of(head), facts, folder)
    return folder


def moved(model: Path, folder: Path, seed: int) -> Path:
    """The tiny model, moved a little."""
    lm = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in lm.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    lm.save_pretrained(folder)
    for file in model.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
