"""Answers of a model through transformers' own generation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from finegrain.models.scorer import causal_lm, stock_attention


def greedy_answers(model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], *, max_new_tokens: int) -> list[str]:
    """The most likely continuation token by token, one prompt at a time, without special tokens."""
    lm = causal_lm(model)
    room = getattr(lm.config.get_text_config(), "max_position_embeddings", None) or 10**9
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    was_training = model.training
    model.eval()
    answers = []
    with torch.no_grad(), stock_attention(model):
        for prompt in prompts:
            kept = prompt[-max(1, room - max_new_tokens) :]
            ids = torch.from_numpy(kept.astype(np.int64))[None].to(next(model.parameters()).device)
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad
            )
            answers.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    model.train(was_training)
    return answers
