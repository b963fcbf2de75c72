"""Signals: a score per token, from annotators' spans, a column, a scorer, the texts or a user's function.

Source: implicit log-ratio of a DPO-trained scorer and data columns: https://arxiv.org/abs/2411.00809 and the authors' released code.
Deviations: annotators' spans, user functions and the run's own scorer are our specification [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from finegrain.checked import PositiveFloat, checked
from finegrain.credit.answers import CreditedAnswer, Signal, find_signals
from finegrain.credit.context import CreditContext
from finegrain.credit.reward_signals import RewardSignal
from finegrain.credit.signal_facts import Direction, SignalFacts
from finegrain.credit.text_signals import Activations, Entropy, LeastEdit, Lexical
from finegrain.errors import CreditError, UsageError
from finegrain.ops.segmenters import Dynamic, Segmenter, Tokens, check
from finegrain.types import Scored


def _scored(rows: Sequence[np.ndarray | None]) -> list[Scored | None]:
    """Values without uncertainty."""
    return [None if row is None else Scored(torch.from_numpy(np.asarray(row, dtype=np.float64))) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Annotators' character spans; outside the spans of an annotated answer tokens have the opposite sign."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="spans", direction=Direction.ZERO, uncertain=True)
    segmenter: ClassVar[Segmenter] = Tokens()
    """Annotators labelled every token, so there is nothing to estimate."""

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        if not context.has_spans():
            raise CreditError("credit.signal:spans needs character-span annotations, but the data have none; leave the signal out, or add spans")
        return {role: context.span_rewards(role) for role in context.signs}


@dataclass(frozen=True, kw_only=True)
class Column:
    """Token rewards from the data column `<role>_token_reward`."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="column", direction=Direction.ZERO, additive=True)
    segmenter: ClassVar[Segmenter] = Dynamic()

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        if not context.has_column():
            raise CreditError("credit.signal:column needs <role>_token_reward columns, but the data have none; leave the signal out, or add them")
        return {role: _scored(context.column_rewards(role)) for role in context.signs}


@dataclass(frozen=True, kw_only=True)
@checked
class Implicit:
    """beta * (log pi_scorer - log pi_start) of a frozen scorer, token by token."""

    facts: ClassVar[SignalFacts] = SignalFacts(
        name="implicit", direction=Direction.ZERO, additive=True, uncertain=True, takes_scorer=True, needs_scorer=True
    )
    segmenter: ClassVar[Segmenter] = Dynamic()

    scorer: str | None = None
    """A causal LM fine-tuned by DPO, or a reward model; needed, here or as the credit's scorer."""
    beta: PositiveFloat = 0.1
    """The scorer's own DPO beta, which sets the units of the reward; keep-masks do not depend on it."""

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        return context.implicit_rewards(self.require_scorer(), self.beta)

    def require_scorer(self) -> str:
        """The scorer; raises UsageError where none is named."""
        if self.scorer is None:
            raise UsageError("credit.signal:implicit needs a scorer: --credit.scorer MODEL; the run's own is credit.signal:table")
        return self.scorer


@dataclass(frozen=True, kw_only=True)
class Table:
    """The run's own scorer: a table of token scores made of its pairs, and of its spans where there are any; no answer is scored by its own row."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="table", direction=Direction.ZERO, additive=True, uncertain=True)
    segmenter: ClassVar[Segmenter] = Tokens()

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        return context.table_rewards()


@dataclass(frozen=True, kw_only=True)
@checked
class FunctionSpans:
    """Your own `fn(prompt, response, role, row)` -> [(start, end, value)] or None; 0 outside the spans."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="function-spans", direction=Direction.ZERO)
    segmenter: ClassVar[Segmenter] = Tokens()

    path: str = ""
    """file.py:name; there is no default function."""

    def __call__(self, context: CreditContext) -> Signal:
        """Token scores by role."""
        check(bool(self.path), "the signal function-spans needs your function: --credit.signal.path file.py:name")
        return {role: _scored(context.spans_to_tokens(role, context.function_spans(self.path, role), 0.0)) for role in context.signs}


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Spans where all answers have them, a reward column where none has; else the run's own scorer, which learns from pairs and from spans."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="auto", direction=Direction.ZERO, additive=True, uncertain=True, takes_scorer=True)


@dataclass(frozen=True)
class OfRewardModel:
    """A signal of a reward model, with the checkpoint that is asked for it."""

    choice: RewardSignal
    scorer: str

    @property
    def facts(self) -> SignalFacts:
        """Those of the signal."""
        return self.choice.facts

    @property
    def segmenter(self) -> Segmenter:
        """That of the signal."""
        return self.choice.segmenter


Source = Spans | Column | Implicit | Table | FunctionSpans | Entropy | Activations | LeastEdit | Lexical
"""Signals that are read from the context."""

SignalChoice = Auto | Source | RewardSignal


def check_scorer(signal: SignalChoice, scorer: str | None) -> None:
    """Raises UsageError where the method's scorer and its signal contradict each other."""
    if scorer is None:
        return
    if not signal.facts.takes_scorer:
        raise UsageError(f"--credit.scorer {scorer} contradicts the signal {signal.facts.name}, which uses no scorer; remove one of them")
    if isinstance(signal, Implicit) and signal.scorer not in (None, scorer):
        raise UsageError(f"found two scorers, {scorer} and {signal.scorer}; expected one")


def check_complete(signal: SignalChoice, scorer: str | None) -> None:
    """Raises UsageError for a signal of a scorer without one; called when all settings are known."""
    if not signal.facts.needs_scorer or scorer is not None:
        return
    if isinstance(signal, Implicit):
        signal.require_scorer()
        return
    raise UsageError(f"credit.signal:{signal.facts.name} is what a reward model says of tokens: name one, --credit.scorer REWARD_MODEL")


def resolve_signal(signal: SignalChoice, scorer: str | None, context: CreditContext) -> Source | OfRewardModel:
    """The signal to use: a given scorer always; without one, the signal that the data have."""
    if isinstance(signal, Auto):
        if scorer is not None:
            return Implicit(scorer=scorer)
        if context.has_spans():
            return Table() if context.has_unannotated() else Spans()
        return Column() if context.has_column() else Table()
    if isinstance(signal, Implicit):
        return signal if scorer is None else replace(signal, scorer=scorer)
    if isinstance(signal, RewardSignal):
        check_complete(signal, scorer)
        return OfRewardModel(signal, str(scorer))
    return signal


def read_answers(signal: Source | OfRewardModel, context: CreditContext) -> list[CreditedAnswer]:
    """The answers that have a signal, with a reward model's score of each."""
    if not isinstance(signal, OfRewardModel):
        return find_signals(context, signal(context))
    scores = context.reward_scores(signal.scorer, signal.choice)
    answers = find_signals(context, {role: [score.tokens for score in rows] for role, rows in scores.items()})
    return [answer._replace(total=scores[answer.role][answer.row].answer) for answer in answers]
