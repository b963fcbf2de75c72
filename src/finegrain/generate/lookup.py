"""Drafts by prompt look-up, and how many of their tokens a pass keeps.

The last tokens of an answer are looked for in its prompt and in the answer itself; what followed them there is proposed. A proposed token is kept
where it equals the token that is drawn at its place, so drafts change the speed and no token, whether greedy or sampled.

Source: Ni et al. 2024, "EMS-SD", https://arxiv.org/abs/2405.07542, section 3 and the verification of its code; look-up: Yang et al. 2023, "LLMA".
"""

from collections.abc import Collection, Sequence

Gram = tuple[int, ...]


class LookUp:
    """The tokens of a prompt or of one answer to it, and where each run of `match` tokens last stood; [choice] the latest place wins."""

    def __init__(self, match: int, tokens: Sequence[int] = (), prompt: "LookUp | None" = None) -> None:
        """`prompt`: what stands before; it is shared by all answers and must not grow any more."""
        self._match, self._prompt = match, prompt
        self._tokens: list[int] = list(prompt._tokens) if prompt else []
        self._after: dict[Gram, int] = {}
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """The next token."""
        if len(self._tokens) >= self._match:
            self._after[tuple(self._tokens[-self._match :])] = len(self._tokens)
        self._tokens.append(token)

    def propose(self, most: int) -> list[int]:
        """At most so many tokens that followed the last ones before."""
        if most <= 0:
            return []
        last = tuple(self._tokens[-self._match :])
        place = self._after.get(last)
        if place is None and self._prompt is not None:
            place = self._prompt._after.get(last)
        return [] if place is None else self._tokens[place : place + most]


def count_accepted(counts: Sequence[int], inputs: Sequence[int], predictions: Sequence[int], ends: Collection[int]) -> list[int]:
    """New tokens of every answer after a packed pass: the drafts that were predicted, up to an end token, and one more.

    `counts`: inputs of each answer, the last token that it has and its drafts; 0 for one that is finished. `inputs`, `predictions`: all of them, one
    answer behind the other; a prediction is the token that follows its input.
    """
    accepted, start = [], 0
    for count in counts:
        new = min(count, 1)
        while new and new < count and predictions[start + new - 1] == inputs[start + new] and predictions[start + new - 1] not in ends:
            new += 1
        accepted.append(new)
        start += count
    return accepted


def pad_all(counts: Sequence[int]) -> int:
    """Inputs, or columns of a cache, if every answer had as many as the largest; without padding it is their sum."""
    return len(counts) * max(counts, default=0)
