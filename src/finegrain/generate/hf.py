"""Answers of a model through transformers' own generation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from finegrain.errors import DataError
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
    """One answer per prompt drawn from the whole vocabulary: token ids up to an end token, included; at temperature 0 the most likely one.

    Of a model with a table of positions, a prompt near its end gets the tokens that are left, and one beyond it is cut at its start.
    """
    room = learned_positions(causal_lm(model).config) or 10**9
    kept = [prompt[-max(1, room - 1) :] for prompt in prompts]
    ends = end_tokens(model, tokenizer)
    drawn: dict[str, Any] = {"do_sample": temperature > 0, "eos_token_id": ends or None}
    if temperature > 0:
        drawn |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [_up_to(answer, ends) for answer in _generate(model, tokenizer, kept, max_new_tokens, room, **drawn)]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's EOS and those of the model's generation config, such as the end of a turn."""
    found = causal_lm(model).generation_config.eos_token_id
    stated = found if isinstance(found, list) else [found]
    return sorted({int(token) for token in (*stated, tokenizer.eos_token_id) if token is not None})


def _generate(model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], most: int, room: int, **settings: Any) -> list[np.ndarray]:
    """New token ids of every prompt: of left-padded batches where padding changes nothing, else of one prompt at a time.

    Prompts for which fewer tokens than `most` are left are answered apart, so that they shorten no other answer.
    """
    if not prompts:  # as of a reward model, which cannot generate
        return []
    pad = find_filler(model, tokenizer)
    given = [prompt if len(prompt) else np.array([find_opening(model, tokenizer)], dtype=np.int32) for prompt in prompts]
    left = [max(1, min(most, room - len(prompt))) for prompt in given]
    was_training = model.training
    model.eval()
    answers: dict[int, np.ndarray] = {}
    with torch.no_grad(), stock_attention(model), plain_generation(model):
        for count in sorted(set(left), reverse=True):
            places = [place for place, own in enumerate(left) if own == count]
            size = len(places) if is_padding_unseen(model, [given[place] for place in places], pad) else 1
            for batch in (places[first : first + size] for first in range(0, len(places), size)):
                padded = pad_left(model, [given[place] for place in batch], pad)
                out = model.generate(**padded, max_new_tokens=count, pad_token_id=pad, **settings)
                new = out[:, padded["input_ids"].shape[1] :].cpu().numpy().astype(np.int32)
                answers |= dict(zip(batch, new, strict=True))
    model.train(was_training)
    return [answers[place] for place in range(len(given))]


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Without what the model's generation config does to its probabilities, as a repetition penalty or min-p; its special tokens stay."""
    lm = causal_lm(model)
    own = lm.generation_config
    lm.generation_config = GenerationConfig(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    try:
        yield
    finally:
        lm.generation_config = own


def find_opening(model: Any, tokenizer: Any) -> int:
    """What an empty prompt is read as: BOS, or without one the end of the text before."""
    known = range(causal_lm(model).get_input_embeddings().num_embeddings)
    found: int | None = next((token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token in known), None)
    if found is None:
        raise DataError("an empty prompt cannot be answered: the tokenizer has neither BOS nor EOS, so the first token would have no context")
    return found


def find_filler(model: Any, tokenizer: Any) -> int:
    """A token that the model can read, to fill rows with: that of padding, else the end token, else 0."""
    known = range(causal_lm(model).get_input_embeddings().num_embeddings)
    return next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token in known), 0)


def pad_left(model: Any, prompts: Sequence[np.ndarray], pad: int) -> dict[str, torch.Tensor]:
    """Token ids and mask of a batch."""
    width = max(map(len, prompts))
    ids = np.full((len(prompts), width), pad, dtype=np.int64)
    seen = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], seen[row, width - len(prompt) :] = prompt, 1
    device = next(model.parameters()).device
    return {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(seen).to(device)}


def is_padding_unseen(model: Any, prompts: Sequence[np.ndarray], pad: int) -> bool:
    """Whether the shortest prompt has the same next token beside the longest one: a recurrent state may see padding, and a softmax of nothing."""
    ordered = sorted(prompts, key=len)
    if not ordered or len(ordered[0]) == len(ordered[-1]):
        return True
    alone, beside = (
        model.generate(
            **pad_left(model, batch, pad),
            max_new_tokens=1,
            do_sample=False,
            pad_token_id=pad,
            output_logits=True,
            return_dict_in_generate=True,
        ).logits[0][0]
        for batch in (ordered[:1], [ordered[0], ordered[-1]])
    )
    tolerance = 5e-2 if alone.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return bool((alone - beside).abs().max() <= tolerance * max(1.0, float(alone.abs().max())))


def _up_to(ids: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    places = np.flatnonzero(np.isin(ids, ends))
    return ids[: places[0] + 1] if len(places) else ids
