"""Answers of a model through transformers' own generation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from finegrain.models.positions import learned_positions
from finegrain.models.scorer import causal_lm, stock_attention


def generate_greedy(model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], *, max_new_tokens: int) -> list[str]:
    """The most likely continuation token by token, one prompt at a time, without special tokens."""
    lm = causal_lm(model)
    room = getattr(lm.config.get_text_config(), "max_position_embeddings", None) or learned_positions(lm.config) or 10**9
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    answers = []
    with _reading(model):
        for prompt in prompts:
            kept = prompt[-max(1, room - max_new_tokens) :]
            new = max(1, min(max_new_tokens, room - len(kept)))
            ids = torch.from_numpy(kept.astype(np.int64))[None].to(next(model.parameters()).device)
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=pad)
            answers.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return answers


def sample_answers(
    model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], *, max_new_tokens: int, seed: int, temperature: float = 1.0
) -> list[np.ndarray]:
    """One answer per prompt drawn from the whole vocabulary: token ids up to EOS, EOS included; one left-padded batch."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    room = learned_positions(causal_lm(model).config) or 10**9
    prompts = [prompt[-max(1, room - 1) :] for prompt in prompts]
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    seen = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        seen[row, width - len(prompt) :] = 1
    device = next(model.parameters()).device
    with _reading(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=seen.to(device),
            max_new_tokens=max(1, min(max_new_tokens, room - width)),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
    return [_up_to(row, tokenizer.eos_token_id) for row in out[:, width:].cpu().numpy().astype(np.int32)]


@contextmanager
def _reading(model: Any) -> Iterator[None]:
    """In evaluation mode, without gradients, by the attention that transformers itself uses."""
    was_training = model.training
    model.eval()
    with torch.no_grad(), stock_attention(model):
        yield
    model.train(was_training)


def _up_to(ids: np.ndarray, eos: int | None) -> np.ndarray:
    ends = np.flatnonzero(ids == eos) if eos is not None else ids[:0]
    return ids[: ends[0] + 1] if len(ends) else ids
