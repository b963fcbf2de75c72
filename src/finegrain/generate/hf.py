"""Answers of a model through transformers' own generation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from finegrain.models.positions import learned_positions
from finegrain.models.scorer import causal_lm, stock_attention


def generate_greedy(model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], *, max_new_tokens: int) -> list[str]:
    """The most likely continuation token by token, without special tokens."""
    room = getattr(causal_lm(model).config.get_text_config(), "max_position_embeddings", None) or learned_positions(causal_lm(model).config) or 10**9
    kept = [prompt[-max(1, room - max_new_tokens) :] for prompt in prompts]
    answers = _generate(model, tokenizer, kept, min(max_new_tokens, room), room, do_sample=False)
    return [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]


def sample_answers(
    model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], *, max_new_tokens: int, seed: int, temperature: float = 1.0
) -> list[np.ndarray]:
    """One answer per prompt drawn from the whole vocabulary: token ids up to EOS, EOS included."""
    room = learned_positions(causal_lm(model).config) or 10**9
    kept = [prompt[-max(1, room - 1) :] for prompt in prompts]
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [_up_to(answer, tokenizer.eos_token_id) for answer in _generate(model, tokenizer, kept, max_new_tokens, room, **drawn)]


def _generate(model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], most: int, room: int, **settings: Any) -> list[np.ndarray]:
    """New token ids of every prompt, of one left-padded batch; a model with a recurrent state, which padding would enter, takes one at a time."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    answers: list[np.ndarray] = []
    size = 1 if getattr(causal_lm(model), "_is_stateful", False) else max(1, len(prompts))
    with torch.no_grad(), stock_attention(model):
        for batch in (prompts[first : first + size] for first in range(0, len(prompts), size)):
            width = max(map(len, batch))
            ids = np.full((len(batch), width), pad, dtype=np.int64)
            seen = np.zeros_like(ids)
            for row, prompt in enumerate(batch):
                ids[row, width - len(prompt) :], seen[row, width - len(prompt) :] = prompt, 1
            out = model.generate(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(seen).to(device),
                max_new_tokens=max(1, min(most, room - width)),
                pad_token_id=pad,
                **settings,
            )
            answers.extend(out[:, width:].cpu().numpy().astype(np.int32))
    model.train(was_training)
    return answers


def _up_to(ids: np.ndarray, eos: int | None) -> np.ndarray:
    ends = np.flatnonzero(ids == eos) if eos is not None else ids[:0]
    return ids[: ends[0] + 1] if len(ends) else ids
