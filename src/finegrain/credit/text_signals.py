"""Signals that need no scorer: the start model's entropy and activations, the least edit between the two answers of a pair, and words alone.

Source: entropy as where a model is uncertain how to continue: https://arxiv.org/abs/2501.02790; least edits as where an answer is better:
https://arxiv.org/abs/2406.02756; the lexical signal is ours (docs/methods/compose.md).
Activations as how far a token may move: https://arxiv.org/abs/2410.05102 (MaPO), with the deviations of `models.activations`.
Deviations: all four are used as a signal of credit here [OURS]. Words and their weights are a [choice].
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch

from finegrain.checked import NonNegativeFloat, checked
from finegrain.credit.answers import Signal
from finegrain.credit.context import CreditContext
from finegrain.credit.signal_facts import Direction, SignalFacts
from finegrain.errors import CreditError
from finegrain.ops.edits import least_edit
from finegrain.ops.segmenters import Dynamic, Segmenter, Tokens, check
from finegrain.types import CharSpan, Scored

WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Entropy, nats, of the start model's distribution for each token: large where the answer could have gone on otherwise."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="entropy", direction=Direction.NONE)
    segmenter: ClassVar[Segmenter] = Dynamic()

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        return {role: [_scored(values) for values in context.entropies(role)] for role in context.signs}


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Mean activation of the start model where each token is predicted, within its answer from 0 to 1 (MaPO's mask); a pass per answer, slow."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="activations", direction=Direction.NONE)
    segmenter: ClassVar[Segmenter] = Dynamic()

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        return {role: [_scored(values) for values in context.activations(role)] for role in context.signs}


@dataclass(frozen=True, kw_only=True)
class LeastEdit:
    """1 on tokens of the better answer that the least edit of the worse one inserts or substitutes, -1 on those it removes there, else 0."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="least-edit", direction=Direction.ZERO)
    segmenter: ClassVar[Segmenter] = Tokens()

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        if set(context.signs) != {"chosen", "rejected"}:
            raise CreditError("credit.signal:least-edit compares the two answers of a pair, but this run trains on " + ", ".join(context.signs))
        found: dict[str, list[Scored | None]] = {"chosen": [], "rejected": []}
        both = zip(*(zip(context.token_ids(role), context.masks(role), strict=True) for role in found), strict=True)
        for (better, kept), (worse, left) in both:
            edit = least_edit(worse[left], better[kept])
            found["chosen"].append(_scored(_on_mask(edit.second.astype(np.float64), kept)))
            found["rejected"].append(_scored(_on_mask(-edit.first.astype(np.float64), left)))
        return found


@dataclass(frozen=True, kw_only=True)
@checked
class Lexical:
    """What words alone tell, which every model must beat: in the prompt or its passage, in other answers to the prompt, early in the answer."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="lexical", direction=Direction.ORDER)
    segmenter: ClassVar[Segmenter] = Dynamic()

    overlap: NonNegativeFloat = 1.0
    """Weight of whether the word is in the prompt."""
    agreement: NonNegativeFloat = 1.0
    """Weight of the share of the prompt's other answers that have the word; one half where there are none."""
    place: NonNegativeFloat = 1.0
    """Weight of how much of the answer is still to come, 1 at the first word and nearly 0 at the last."""

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role, in [0, overlap + agreement + place]; tokens between words have the score of the word before them."""
        check(self.overlap + self.agreement + self.place > 0, "credit.signal:lexical: one of overlap, agreement and place must be above 0")
        prompts = context.prompts()
        said = {prompt: {word.casefold() for word in WORD.findall(prompt)} for prompt in set(prompts)}
        texts = {role: context.texts(role) for role in context.signs}
        answers: dict[str, dict[str, set[str]]] = {prompt: {} for prompt in said}  # an answer that stands in several pairs counts once
        for own in texts.values():
            for prompt, text in zip(prompts, own, strict=True):
                answers[prompt][text] = {word.casefold() for word in WORD.findall(text)}
        found: dict[str, list[Scored | None]] = {}
        for role, own in texts.items():
            rows = zip(own, prompts, strict=True)
            spans: list[list[CharSpan] | None] = [self._spans(text, said[prompt], list(answers[prompt].values())) for text, prompt in rows]
            found[role] = [None if values is None else _scored(values) for values in context.spans_to_tokens(role, spans, 0.0)]
        return found

    def _spans(self, text: str, prompt: set[str], answers: Sequence[set[str]]) -> list[CharSpan]:
        """Every word, up to the next one, with its score; `answers`: the words of all answers to the prompt, this one included."""
        matches = list(WORD.finditer(text))
        borders = [0, *(match.start() for match in matches[1:]), len(text)]
        spans: list[CharSpan] = []
        for number, (match, (start, end)) in enumerate(zip(matches, pairwise(borders), strict=False)):
            word = match[0].casefold()
            agreed = (sum(word in words for words in answers) - 1) / (len(answers) - 1) if len(answers) > 1 else 0.5
            value = self.overlap * (word in prompt) + self.agreement * agreed + self.place * (1 - number / len(matches))
            spans.append(CharSpan(start, end, value))
        return spans


def _scored(values: np.ndarray) -> Scored:
    return Scored(torch.from_numpy(np.asarray(values, dtype=np.float64)))


def _on_mask(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    whole = np.zeros(len(mask))
    whole[mask] = values
    return whole
