"""Answers through Hugging Face's generation, for models that the engine does not serve: the same noise, the same ends, more computation.

It rounds logits to float32, in which log-probabilities then are.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from finegrain.generate.growing import Beginnings, GrowingAnswer, SamplingCounts, count_answers
from finegrain.generate.hf import find_filler, is_padding_unseen, pad_left, plain_generation
from finegrain.generate.sampling import Sample, Sampling, pick
from finegrain.models.scorer import stock_attention
from finegrain.types import chunks

ROWS = 64
"""Answers of a batch."""


class _Draw(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Draws the tokens of a batch by their own noise, and leaves generation no other choice."""

    def __init__(self, answers: Sequence[GrowingAnswer], sampling: Sampling) -> None:
        self._answers, self._sampling = answers, sampling

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        uniforms = torch.tensor([0.0 if one.ended is not None else one.noise[len(one.ids)] for one in self._answers], dtype=torch.float64)
        own = self._sampling
        picked = pick(wide, uniforms.to(scores.device), own.temperature, own.top_p, own.top_k)
        for one, token, logp in zip(self._answers, picked.tokens.tolist(), picked.logp.tolist(), strict=True):
            if one.ended is None:
                one.take(token, logp)
        return torch.full_like(scores, float("-inf")).scatter_(1, picked.tokens[:, None], 0.0)


class _Ended(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Which answers of a batch have ended."""

    def __init__(self, answers: Sequence[GrowingAnswer]) -> None:
        self._answers = answers

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **unused: Any) -> Tensor:
        return torch.tensor([one.ended is not None for one in self._answers], device=input_ids.device)


class StockSampler:
    """Samples with `generate`; cf. `generate.sampling.Sampler`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: Sampling,
        *,
        seed: int,
        reason: str,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`reason`: why the engine does not sample, a clause."""
        self._model, self._sampling, self._reason, self._autocast = model, sampling, reason, autocast
        self._beginnings = Beginnings(model, tokenizer, sampling, seed)
        self._filler = find_filler(model, tokenizer)
        self.counts = SamplingCounts()
        """Of the last call; nothing is drafted here."""

    def describe(self) -> str:
        """Which engine samples, and why."""
        drafts = "; drafts by look-up are not used" if self._sampling.lookup_tokens else ""
        return f"Hugging Face's generation samples, because {self._reason}{drafts}"

    def __call__(self, prompts: Sequence[np.ndarray], keys: Sequence[int], buffer: int) -> list[list[Sample]]:
        """By prompt, its answers."""
        given = [self._beginnings.open_prompt(prompt) for prompt in prompts]
        answers = [self._beginnings.begin(len(prompt), key, buffer) for prompt, key in zip(given, keys, strict=True)]
        model = self._model
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._autocast(), stock_attention(model), plain_generation(model):
                for rows in self._batches(given, answers):
                    self._generate(rows)
        finally:
            model.train(was_training)
        self.counts = count_answers(answers)
        return [[one.finish() for one in own] for own in answers]

    def _batches(self, prompts: Sequence[np.ndarray], answers: Sequence[Sequence[GrowingAnswer]]) -> list[list[tuple[np.ndarray, GrowingAnswer]]]:
        """Rows of a batch: of any lengths where padding changes nothing, else of one; and of as many tokens to come, for which all have room."""
        rows = [(prompt, one) for prompt, own in zip(prompts, answers, strict=True) for one in own]
        mixed = is_padding_unseen(self._model, [prompt for prompt, _ in rows], self._filler)
        kinds: dict[tuple[int, int], list[tuple[np.ndarray, GrowingAnswer]]] = {}
        for prompt, one in sorted(rows, key=lambda row: len(row[0])):
            kinds.setdefault((len(one.noise), 0 if mixed else len(prompt)), []).append((prompt, one))
        return [own[part] for own in kinds.values() for part in chunks(len(own), ROWS)]

    def _generate(self, rows: Sequence[tuple[np.ndarray, GrowingAnswer]]) -> None:
        """Grows the answers of a batch to their ends."""
        answers = [one for _, one in rows]
        self._model.generate(
            **pad_left(self._model, [prompt for prompt, _ in rows], self._filler),
            max_new_tokens=len(answers[0].noise),
            do_sample=False,
            pad_token_id=self._filler,
            eos_token_id=None,
            logits_processor=LogitsProcessorList([_Draw(answers, self._sampling)]),
            stopping_criteria=StoppingCriteriaList([_Ended(answers)]),
        )
