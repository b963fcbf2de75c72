"""Answers of a policy, several to each prompt, on the engine of `generate.lanes`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain.data.generated import GrowingText, TokenTexts
from finegrain.generate.hf import end_tokens
from finegrain.generate.lanes import Lane, Lanes, on_lanes
from finegrain.generate.sampling import Picked, Sample, Sampling, draw_noise, pick
from finegrain.models.positions import learned_positions
from finegrain.models.scorer import causal_lm, output_head
from finegrain.online.rollout import Ended
from finegrain.ops.logprobs import OutputLayer, compute_logits


@dataclass(eq=False)
class _Answer:
    """An answer that is being sampled."""

    prompt: int
    sample: int
    noise: np.ndarray
    room: int
    """Most tokens."""
    growing: GrowingText | None
    lane: Lane | None = None
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    ended: Ended | None = None


class EngineSampler:
    """Samples on lanes."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: Sampling,
        *,
        seed: int,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._model, self._sampling, self._seed, self._autocast = model, sampling, seed, autocast
        self._ends = frozenset(end_tokens(model, tokenizer))
        self._texts = TokenTexts(tokenizer) if sampling.stop else None
        self._context = find_context(model)

    def __call__(self, prompts: Sequence[np.ndarray], keys: Sequence[int], buffer: int) -> list[list[Sample]]:
        """Cf. `generate.sampling.Sampler`."""
        answers: list[list[_Answer]] = [
            self._begin(place, len(prompt), key, buffer) for place, (prompt, key) in enumerate(zip(prompts, keys, strict=True))
        ]
        places = [place for place, own in enumerate(answers) if own]
        with torch.no_grad(), self._autocast(), on_lanes(self._model):
            head = output_head(self._model)
            for block in [places]:
                self._sample([prompts[place] for place in block], [answers[place] for place in block], head)
        return [[Sample(np.array(one.ids, dtype=np.int32), one.ended, np.array(one.logp)) for one in own] for own in answers]

    def _begin(self, place: int, length: int, key: int, buffer: int) -> list[_Answer]:
        room = min(self._sampling.max_new_tokens, self._context - length)
        if room <= 0:
            return []
        grow = lambda: GrowingText(self._texts) if self._texts else None
        return [_Answer(place, sample, draw_noise(self._seed, buffer, key, sample, room), room, grow()) for sample in range(self._sampling.answers)]

    def _sample(self, prompts: Sequence[np.ndarray], answers: Sequence[Sequence[_Answer]], head: OutputLayer) -> None:
        """Samples all answers of a block of prompts."""
        if not prompts:
            return
        lanes = Lanes(self._model)
        stems = lanes.open(prompts)
        live = [one for own in answers for one in own]
        states = torch.stack([stems[place].state for place, own in enumerate(answers) for _ in own])
        for stem, own in zip(stems, answers, strict=True):
            for one, lane in zip(own, lanes.fork(stem, len(own)), strict=True):
                one.lane = lane
        while live:
            picked = self._pick(states, head, np.array([one.noise[len(one.ids)] for one in live]))
            for one, token, logp in zip(live, picked.tokens.tolist(), picked.logp.tolist(), strict=True):
                self._take(one, token, logp)
            lanes.drop([one.lane for one in live if one.ended is not None])
            live = sorted((one for one in live if one.ended is None), key=lambda one: one.lane.slot)
            if live:
                states = lanes.feed([one.lane for one in live], np.array([one.ids[-1] for one in live]))

    def _pick(self, states: Tensor, head: OutputLayer, uniforms: np.ndarray) -> Picked:
        own = self._sampling
        logits = compute_logits(states, head)
        return pick(logits, torch.from_numpy(uniforms).to(logits.device), own.temperature, own.top_p, own.top_k)

    def _take(self, answer: _Answer, token: int, logp: float) -> None:
        """Appends a token and finds out whether the answer has ended."""
        answer.ids.append(token)
        answer.logp.append(logp)
        if token in self._ends:
            answer.ended = Ended.END_TOKEN
        elif (
            answer.growing is not None and (new := answer.growing.add(token)) and answer.growing.find_stop(self._sampling.stop, len(new)) is not None
        ):
            answer.ended = Ended.STOP_STRING
        elif len(answer.ids) == answer.room:
            answer.ended = Ended.LENGTH

    def describe(self) -> str:
        """Cf. `generate.sampling.Sampler`."""
        return "finegrain's engine"


def find_context(model: Any) -> int:
    """Most tokens of a prompt and its answer."""
    config = causal_lm(model).config
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return learned_positions(config) or (stated if isinstance(stated, int) and stated > 0 else None) or 10**9


def open_sampler(model: Any, tokenizer: Any, sampling: Sampling, *, seed: int) -> EngineSampler:
    return EngineSampler(model, tokenizer, sampling, seed=seed)
