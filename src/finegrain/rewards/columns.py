"""What heads and losses can request of the answers before training, and the per-token columns that they make from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from finegrain.types import Ragged, TokenColumns


@runtime_checkable
class AnswerContext(Protocol):
    """The answers of the data, role by role; everything is one (T_i,) array per answer."""

    @property
    def roles(self) -> Sequence[str]:
        """Roles that the loss reads."""

    @property
    def trains(self) -> bool:
        """Whether these are the training answers, which must contain something to learn. Held-out ones may be few."""

    def masks(self, role: str) -> Ragged:
        """Boolean: the tokens that train."""

    def token_ids(self, role: str) -> Ragged:
        """Token ids of the answer."""

    def table_scores(self) -> Mapping[str, Ragged]:
        """By role, nats: the score of each token by a table of words that is fitted to these pairs and their spans."""

    def entropies(self, role: str) -> Ragged:
        """Entropy, nats, of the frozen start model's distribution for each token; 0 outside the mask."""

    def labelled_steps(self, role: str) -> tuple[Ragged, Ragged]:
        """(number, label) of each token's labelled step; number -1 outside steps, or in a step that was cut."""

    def span_values(self, role: str, aspects: Sequence[str]) -> Sequence[np.ndarray | None]:
        """(A, T, K) value of each token under the spans of each annotator and aspect, NaN in none; one column for all spans without aspects.

        None where an answer was not annotated.
        """

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        """Records facts about the answers for the run."""


@runtime_checkable
class StageContext(Protocol):
    """What an objective's `stage` can request before training: it is called with the training rows, then with those held out."""

    @property
    def trains(self) -> bool:
        """Whether these are the training rows."""

    @property
    def seed(self) -> int:
        """The run's seed."""

    @property
    def numbers(self) -> Mapping[str, np.ndarray]:
        """(N,) numbers of the rows by name."""

    @property
    def device(self) -> torch.device:
        """Where the start model is."""

    @property
    def prompt_keys(self) -> np.ndarray:
        """(N,) equal where the tokens of two prompts are."""

    @property
    def kept(self) -> dict[str, Any]:
        """What the call for the training rows leaves for the held-out rows, e.g. a fitted value function."""

    def take(self, rows: np.ndarray) -> "StageContext":
        """The same of some rows, by their numbers."""

    def prompt_states(self) -> np.ndarray:
        """(N, H) the start model's last hidden state of the last token of every prompt."""

    def prompt_token_states(self) -> Ragged:
        """(P_i - 1, H) the same of every token of a prompt but its first; ask for a few hundred rows at a time, they are all held in memory."""

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> list[list[str]]:
        """By row, `count` answers of the start model; at temperature 0 the most likely tokens, for a count of 1."""

    def score(self, reward: str, answers: Sequence[Sequence[str]] | None = None) -> Mapping[str, np.ndarray]:
        """(N,) rewards of the rows' own answers by role, or of given ones by number (as text); any reward that `finegrain score` takes."""

    def say(self, line: str) -> None:
        """A line for the person."""

    def record(self, facts: Mapping[str, Any]) -> None:
        """Facts for run.json, under `stage`."""

    def save(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Keeps tensors of what was fitted in the run's `stage.safetensors`, as `<name>/<tensor>`."""


def weight_columns(weights: Sequence[np.ndarray], kept: Sequence[bool]) -> TokenColumns:
    """Weights of the answers that are kept; the others have none and do not train."""
    absent: list[np.ndarray | None] = [None] * len(kept)
    return TokenColumns([own if keep else None for own, keep in zip(weights, kept, strict=True)], absent, absent, kept)


def label_columns(labels: Sequence[np.ndarray | None]) -> TokenColumns:
    """Labels of the tokens of the answers that somebody annotated."""
    absent: list[np.ndarray | None] = [None] * len(labels)
    return TokenColumns(absent, absent, absent, [own is not None for own in labels], labels)


def prepare_columns(
    makers: Sequence[Callable[[AnswerContext], Mapping[str, TokenColumns]] | None], context: AnswerContext
) -> dict[str, TokenColumns]:
    """The columns of a head and a loss by role, by the `prepare` of each; None makes none, and only one may make a field.

    Which answers are annotated is what the last one says.
    """
    joined: dict[str, TokenColumns] = {}
    for prepare in makers:
        made = {} if prepare is None else prepare(context)
        for role, own in made.items():
            joined[role] = _join(joined[role], own) if role in joined else own
    return joined


def _join(first: TokenColumns, second: TokenColumns) -> TokenColumns:
    """The fields of both."""
    both = first.filled & second.filled
    assert not both, f"head and loss both make the token columns {', '.join(sorted(both))}"
    return replace(second, **{name: getattr(first, name) for name in first.filled})
