"""Responses grown segment by segment from shared prefixes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finegrain.curate.tree_rm import Ids, TreeRM
from finegrain.generate.hf import end_tokens, sample_answers

ENDS = (".", "!", "?", "\n")
"""A token that ends with one of these ends a sentence or a line, where a branch may start."""


@dataclass(frozen=True)
class Grower:
    """Extends responses to one prompt by a segment each."""

    model: Any
    tokenizer: Any
    prompt: np.ndarray
    settings: TreeRM

    def __call__(self, responses: Sequence[Ids], finish: bool, seed: int) -> list[tuple[Ids, bool]]:
        """(longer response, whether it has ended): sampled at a high temperature first, so that siblings differ, then lower; `finish`: to the end."""
        own = self.settings
        first = self._sampled(responses, own.first_tokens, 2 * seed, own.first_temperature)
        room = own.max_new_tokens - min(map(len, first)) if finish else own.segment_tokens - own.first_tokens
        open_ = [place for place, response in enumerate(first) if not self._ended(response)]
        second = self._sampled([first[place] for place in open_], room, 2 * seed + 1, own.temperature) if open_ and room > 0 else []
        longer = {**dict(enumerate(first)), **dict(zip(open_, second, strict=False))}
        found = []
        for place, response in enumerate(responses):
            whole = longer[place][: own.max_new_tokens]
            ended = finish or self._ended(whole) or len(whole) >= own.max_new_tokens
            found.append((whole if ended else self._cut(whole, len(response)), ended))
        return found

    def _sampled(self, responses: Sequence[Ids], count: int, seed: int, temperature: float) -> list[Ids]:
        prompts = [np.concatenate([self.prompt, np.array(response, dtype=self.prompt.dtype)]) for response in responses]
        new = sample_answers(self.model, self.tokenizer, prompts, max_new_tokens=count, seed=seed, temperature=temperature)
        return [(*response, *map(int, ids)) for response, ids in zip(responses, new, strict=True)]

    def _ended(self, response: Ids) -> bool:
        return bool(response) and response[-1] in end_tokens(self.model, self.tokenizer)

    def _cut(self, response: Ids, before: int) -> Ids:
        """Cuts the response back to the last sentence or line end of the new segment, where there is one."""
        for length in range(len(response), before, -1):
            if self.tokenizer.decode([response[length - 1]]).rstrip(" ").endswith(ENDS):
                return response[:length]
        return response
