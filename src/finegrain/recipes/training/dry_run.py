"""What a run would cost, before it starts: steps, tokens, memory, time."""

import time
from typing import Any

import torch

from finegrain.recipes.session import Session
from finegrain.scoring.devices import ACTIVATION_BYTES
from finegrain.train.batches import Plan
from finegrain.train.contract import Contract


def estimate(session: Session, contract: Contract, plan: Plan, peak_rate: float) -> dict[str, Any]:
    """Plan, memory and time: 6 N operations per trained and 2 N per reference token over this machine's matmul rate, half of it useful."""
    parameters = list(session.policy.model.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    width = min(int(session.policy.model.config.get_text_config().hidden_size), 4096)
    tokens = sum(int(plan.tokens[list(plan.step(index).rows)].sum()) for index in range(len(plan)))
    scored = int(plan.tokens.sum()) if "reference" in contract.needs else 0
    layers = int(session.policy.model.config.get_text_config().num_hidden_layers)
    moments = sum(3 * parameter.numel() * parameter.element_size() for parameter in parameters if parameter.requires_grad)
    memory = sum(parameter.numel() * parameter.element_size() for parameter in parameters) + moments
    memory += ACTIVATION_BYTES * session.precision.micro_tokens * width * layers
    seconds = (6 * size * tokens + 2 * size * scored) / (0.5 * _matmul_rate(width, session.device, session.precision.name))
    return {
        "status": "dry run",
        "steps": len(plan),
        "rows": len(plan.tokens),
        "trained_tokens": tokens,
        "reference_tokens": scored,
        "parameters": size,
        "trainable_parameters": trained,
        "learning_rate": peak_rate,
        "estimated_memory_bytes": int(memory),
        "estimated_seconds": round(seconds, 1),
    }


def _matmul_rate(width: int, device: torch.device, arithmetic: str) -> float:
    """Operations per second of a product at the model's width, in the dtype that the run computes in."""
    dtype = getattr(torch, arithmetic)
    left, right = (torch.randn(*shape, device=device).to(dtype) for shape in ((1024, width), (width, 4 * width)))
    left @ right
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(5):
        left @ right
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 5 * 2 * 1024 * width * 4 * width / (time.perf_counter() - started)
