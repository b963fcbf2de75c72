"""What a credit method is, and what it can read of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from finegrain.types import AnswerScores, CharSpan, Ragged, Scored, TokenColumns


@runtime_checkable
class CreditContext(Protocol):
    """What a credit method can read when it makes its columns, before training."""

    @property
    def signs(self) -> Mapping[str, np.ndarray]:
        """By role, (N,) of +1 (the answer is to be reinforced) or -1 (to be discouraged)."""

    def masks(self, role: str) -> Ragged:
        """Boolean (T_i,) per answer: the tokens that train."""

    def has_spans(self) -> bool:
        """Whether the data have character-span annotations."""

    def has_column(self) -> bool:
        """Whether the data have per-token rewards (`<role>_token_reward`)."""

    def span_rewards(self, role: str) -> Sequence[Scored | None]:
        """Token values from annotators' character spans, the mean where there are several annotators; None where an answer was not annotated.

        A token outside the spans of an annotated answer has the opposite sign of the spans' values. The standard deviation is None
        where the data have one annotator per answer and spans state none.
        """

    def column_rewards(self, role: str) -> Sequence[np.ndarray | None]:
        """Token rewards supplied as a data column; None where a row has none."""

    def has_unannotated(self) -> bool:
        """Whether any answer of the data has no character-span annotation."""

    def table_rewards(self) -> Mapping[str, Sequence[Scored]]:
        """Scores per token and role, each (T_i,), of the run's own scorer: a table made of other rows' pairs and spans, with its deviations."""

    def implicit_rewards(self, scorer: str, beta: float) -> Mapping[str, Sequence[Scored]]:
        """beta * (log pi_scorer - log pi_start) per token and role, each (T_i,).

        `scorer`: a checkpoint, or several separated by commas, which are then members.
        """

    def reward_scores(self, scorer: str, signal: Any) -> Mapping[str, Sequence[AnswerScores]]:
        """Scores by a reward model, or several separated by commas, read as `signal`, one of `credit.reward_signals`, says."""

    def entropies(self, role: str) -> Ragged:
        """Entropy, nats, of the start model's distribution for each token; 0 outside the mask."""

    def activations(self, role: str) -> Ragged:
        """How strongly the start model's units respond where each token is predicted, in [0, 1]; 0 outside the mask."""

    def surprisals(self, role: str) -> Ragged:
        """Minus the start model's log-probability of each token, nats."""

    def token_ids(self, role: str) -> Ragged:
        """The answers' tokens."""

    def prompts(self) -> Sequence[str]:
        """The prompts as rendered, row by row."""

    def texts(self, role: str) -> Sequence[str]:
        """The answers as text: what character spans refer to."""

    def parses(self, role: str) -> Sequence[str | None]:
        """Bracketed parses from the data column `<role>_parse`; None where a row has none."""

    def function_spans(self, path: str, role: str) -> Sequence[list[CharSpan] | None]:
        """The character spans that the user's function `file.py:name` returns for each answer."""

    def spans_to_tokens(self, role: str, spans: Sequence[list[CharSpan] | None], outside: float) -> Sequence[np.ndarray | None]:
        """Token values of character spans; tokens in no span get `outside`."""


@runtime_checkable
class Credit(Protocol):
    """Determines which tokens carry the reward: makes per-token columns before training. `credit.declarations` lists what it may declare."""

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        """Columns by role, for every answer of the data; raises CreditError where they would train nothing."""
