"""Answers of a policy, several to each prompt, on lanes: whoever has ended leaves, and further prompts come in."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain.generate.growing import Beginnings, GrowingAnswer, SamplingCounts, count_answers
from finegrain.generate.lanes import Lane, Lanes, on_lanes
from finegrain.generate.lookup import LookUp, count_accepted, pad_all
from finegrain.generate.sampling import Picked, Sample, Sampling, pick
from finegrain.models.scorer import output_head
from finegrain.ops.logprobs import OutputLayer, chunk_rows, compute_logits
from finegrain.types import chunks

MEMORY = 2**29
"""Bytes of keys and values that the answers under way may come to need; a single prompt with its answers may need more."""
OPENED = 4096
"""Tokens of prompts that are read at once."""


@dataclass(eq=False)
class _Running:
    """An answer on its lane, and the tokens that its next pass reads."""

    answer: GrowingAnswer
    lane: Lane
    place: int
    """Its prompt."""
    lookup: LookUp | None
    inputs: list[int]

    def advance(self, predictions: Sequence[int], logps: Sequence[float]) -> int:
        """Takes new tokens until one ends the answer; how many they were."""
        for taken, (token, logp) in enumerate(zip(predictions, logps, strict=True), start=1):
            self.answer.take(token, logp)
            if self.lookup is not None:
                self.lookup.add(token)
            if self.answer.ended is not None:
                return taken
        return len(predictions)


class EngineSampler:
    """Samples on finegrain's engine; cf. `generate.sampling.Sampler`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: Sampling,
        *,
        seed: int,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
        memory: int = MEMORY,
    ) -> None:
        """`memory`: bytes, cf. MEMORY."""
        self._model, self._sampling, self._autocast, self._memory = model, sampling, autocast, memory
        self._beginnings = Beginnings(model, tokenizer, sampling, seed)
        self.counts = SamplingCounts()
        """Of the last call."""

    def __call__(self, prompts: Sequence[np.ndarray], keys: Sequence[int], buffer: int) -> list[list[Sample]]:
        """By prompt, its answers."""
        given = [self._beginnings.open_prompt(prompt) for prompt in prompts]
        answers = [self._beginnings.begin(len(prompt), key, buffer) for prompt, key in zip(given, keys, strict=True)]
        passes = SamplingCounts()
        with torch.no_grad(), self._autocast(), on_lanes(self._model):
            self._sample(given, answers, passes)
        found = count_answers(answers)
        self.counts = SamplingCounts(*(a + b for a, b in zip(vars(found).values(), vars(passes).values(), strict=True)))
        return [[one.finish() for one in own] for own in answers]

    def describe(self) -> str:
        """Which engine samples."""
        return "finegrain's own engine samples: each prompt is computed once for all of its answers"

    def _sample(self, prompts: Sequence[np.ndarray], answers: Sequence[Sequence[GrowingAnswer]], counts: SamplingCounts) -> None:
        """Samples all answers."""
        waiting = sorted((place for place, own in enumerate(answers) if own), key=lambda place: len(prompts[place]))
        lanes, head = Lanes(self._model), output_head(self._model)
        running: list[_Running] = []
        while running or waiting:
            for block in self._admit(waiting, running, prompts, answers, lanes):
                running += self._begin(block, prompts, answers, lanes, head)
            self._leave(running, lanes)
            if running:
                self._step(running, lanes, head, counts)

    def _admit(
        self, waiting: list[int], running: Sequence[_Running], prompts: Sequence[np.ndarray], answers: Sequence[Sequence[GrowingAnswer]], lanes: Lanes
    ) -> Iterator[list[int]]:
        """Takes the longest waiting prompts, in blocks, whenever a quarter of the memory is free."""

        def need(place: int) -> int:
            return len(prompts[place]) + sum(len(one.noise) for one in answers[place])

        free = self._memory // lanes.token_bytes - sum(map(need, {one.place for one in running}))
        if running and free < self._memory / lanes.token_bytes / 4:
            return
        idle = not running
        while waiting and (idle or need(waiting[-1]) <= free):
            block: list[int] = []
            while waiting and (idle or (need(waiting[-1]) <= free and sum(len(prompts[place]) for place in block) < OPENED)):
                block.append(waiting.pop())
                free -= need(block[-1])
                idle = False
            yield block

    def _begin(
        self, block: Sequence[int], prompts: Sequence[np.ndarray], answers: Sequence[Sequence[GrowingAnswer]], lanes: Lanes, head: OutputLayer
    ) -> list[_Running]:
        """Reads prompts and draws the first token of each of their answers."""
        stems, match = lanes.open([prompts[place] for place in block]), self._sampling.lookup_match
        found: list[_Running] = []
        for place, stem in zip(block, stems, strict=True):
            own = answers[place]
            prompt = LookUp(match, prompts[place].tolist()) if self._sampling.lookup_tokens else None
            for one, lane in zip(own, lanes.fork(stem, len(own)), strict=True):
                found.append(_Running(one, lane, place, LookUp(match, prompt=prompt) if prompt else None, []))
        states = torch.stack([stem.state for place, stem in zip(block, stems, strict=True) for _ in answers[place]])
        picked = self._pick(states, head, np.array([one.answer.noise[0] for one in found]))
        for running, token, logp in zip(found, picked.tokens.tolist(), picked.logp.tolist(), strict=True):
            running.advance([token], [logp])
        return found

    def _step(self, running: Sequence[_Running], lanes: Lanes, head: OutputLayer, counts: SamplingCounts) -> None:
        """One pass: every answer gets its next token, and those of its draft that are right."""
        for one in running:
            drafted = one.lookup.propose(min(self._sampling.lookup_tokens, one.answer.left - 1)) if one.lookup else []
            one.inputs = [one.answer.ids[-1], *drafted]
        sizes = [len(one.inputs) for one in running]
        inputs = [token for one in running for token in one.inputs]
        uniforms = [one.answer.noise[len(one.answer.ids) : len(one.answer.ids) + len(one.inputs)] for one in running]
        picked = self._pick(lanes.feed([one.lane for one in running], np.array(inputs), np.array(sizes)), head, np.concatenate(uniforms))
        tokens, logps = picked.tokens.tolist(), picked.logp.tolist()
        accepted, start = [], 0
        for one, size, new in zip(running, sizes, count_accepted(sizes, inputs, tokens, self._beginnings.ends), strict=True):
            accepted.append(one.advance(tokens[start : start + new], logps[start : start + new]))
            lanes.cut(one.lane, len(one.answer.ids) - 1)
            start += size
        counts.passes += 1
        counts.inputs += len(inputs)
        counts.padded_inputs += pad_all(sizes)
        counts.columns += sum(accepted)
        counts.padded_columns += pad_all(accepted)
        counts.proposed += len(inputs) - len(running)
        counts.accepted += sum(accepted) - len(running)

    def _leave(self, running: list[_Running], lanes: Lanes) -> None:
        """Ended answers leave; the others are put in the order of their slots."""
        ended = [one for one in running if one.answer.ended is not None]
        if ended:
            lanes.drop([one.lane for one in ended])
            running[:] = [one for one in running if one.answer.ended is None]
        running.sort(key=lambda one: one.lane.slot)

    def _pick(self, states: Tensor, head: OutputLayer, uniforms: np.ndarray) -> Picked:
        """Draws a token at every state, chunk by chunk of the logits."""
        own, numbers = self._sampling, torch.from_numpy(uniforms).to(states.device)
        parts = [
            pick(compute_logits(states[part], head), numbers[part], own.temperature, own.top_p, own.top_k)
            for part in chunks(len(states), chunk_rows(head.weight))
        ]
        return Picked(*map(torch.cat, zip(*parts, strict=True)))
