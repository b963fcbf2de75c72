"""What a credit method may ask of a run: spans, columns, a user's function, a scorer's log-ratios."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from finegrain.credit.reward_signals import RewardSignal
from finegrain.data.annotators import TokenMarks
from finegrain.data.records import Example
from finegrain.data.source_text import read_parses
from finegrain.data.spans import spans_to_tokens
from finegrain.errors import CreditError
from finegrain.models.reward_models import is_reward_model
from finegrain.recipes.session import Session
from finegrain.recipes.training.answer_context import RunAnswers
from finegrain.recipes.training.own_scorer import read_span_values, score_by_table
from finegrain.recipes.training.reward_credit import score_tokens
from finegrain.scoring.function import load_function
from finegrain.scoring.segmentation import TokenisedAnswers
from finegrain.types import AnswerScores, CharSpan, Json, Ragged, Scored


@dataclass(frozen=True)
class RunCredit(TokenisedAnswers):
    """The `CreditContext` of a run; reference values are those of the start model."""

    session: Session
    examples: Sequence[Example]
    roles: tuple[str, ...]
    reference: Mapping[str, Ragged]
    seed: int
    """Of the parts of the rows that the run's own scorer is cross-fitted by."""
    facts: Json
    """Gets `token_table`, for run.json."""
    read: set[str]
    """Gets `spans` once people's marks are read, and `scorer` where a checkpoint judges the answers."""

    @property
    def signs(self) -> dict[str, np.ndarray]:
        """+1 for chosen and desirable answers and demonstrations, -1 for rejected and undesirable ones."""
        count = len(self.examples)
        labelled = np.array([1.0 if example.columns.get("label", 1.0) > 0.5 else -1.0 for example in self.examples])
        return {role: -np.ones(count) if role == "rejected" else labelled if role == "answer" else np.ones(count) for role in self.roles}

    def has_spans(self) -> bool:
        """Whether any answer is annotated."""
        return any(example.spans.get(role) is not None for example in self.examples for role in self.roles)

    def has_column(self) -> bool:
        """Whether any answer has token rewards."""
        return any(example.token_rewards.get(role) is not None for example in self.examples for role in self.roles)

    def span_rewards(self, role: str) -> list[Scored | None]:
        """Spans as token values; outside them the opposite sign of the spans' values (+1 for an annotated answer without spans)."""
        found = self._span_values[role]
        return [None if own is None else Scored(_tensor(own.value), None if own.std is None else _tensor(own.std)) for own in found]

    @cached_property
    def _span_values(self) -> dict[str, list[TokenMarks | None]]:
        self.read.add("spans")
        return read_span_values(self.examples, self.roles)

    def column_rewards(self, role: str) -> list[np.ndarray | None]:
        """Token rewards supplied as a data column."""
        return [example.token_rewards.get(role) for example in self.examples]

    def has_unannotated(self) -> bool:
        """Whether any answer is not annotated."""
        return any(example.spans.get(role) is None for example in self.examples for role in self.roles)

    def table_rewards(self) -> dict[str, list[Scored]]:
        """Cross-fitted token scores of the run's own scorer."""
        marks = {role: [None if own is None else own.value for own in found] for role, found in self._span_values.items()}
        table = score_by_table(self.examples, self.roles, {role: self.masks(role) for role in self.roles}, marks, self.seed)
        self.facts["token_table"] = table.facts
        self.session.say(f"credit: {table.describe()}")
        return table.scores

    def implicit_rewards(self, scorer: str, beta: float) -> dict[str, list[Scored]]:
        """beta times the log-ratio of a frozen scorer to the start model; a reward model's own token scores.

        Several scorers, separated by commas, are members of one: their mean, and how far they disagree.
        """
        names = scorer.split(",")
        rewards = [name for name in names if is_reward_model(name)]
        if rewards and len(rewards) < len(names):
            raise CreditError(f"{', '.join(rewards)} are reward models and the other scorers are not: their units differ, so name one kind")
        return {role: [score.tokens for score in rows] for role, rows in self._scored_by(names, beta, None).items()}

    def reward_scores(self, scorer: str, signal: RewardSignal) -> dict[str, list[AnswerScores]]:
        """What a reward model, or several, say of every answer and its tokens."""
        return self._scored_by(scorer.split(","), 1.0, signal)

    def _scored_by(self, names: Sequence[str], beta: float, signal: RewardSignal | None) -> dict[str, list[AnswerScores]]:
        self.read.add("scorer")
        members = [score_tokens(self.session, name, self.examples, self.roles, self.reference, beta, signal) for name in names]
        if len(members) == 1:
            return members[0]
        return {role: [_of_members([member[role][row] for member in members]) for row in range(len(self.examples))] for role in self.roles}

    def entropies(self, role: str) -> Ragged:
        """Entropy with which the start model predicts each token; computed once, and cached."""
        return self._answers.entropies(role)

    def activations(self, role: str) -> Ragged:
        """How strongly the start model's units respond at each token; computed once, and cached."""
        return self._answers.activations(role)

    @cached_property
    def _answers(self) -> RunAnswers:
        return RunAnswers(self.session, self.examples, self.roles)

    def surprisals(self, role: str) -> Ragged:
        """Minus the log-probability with which the start model predicts each token."""
        return [-values for values in self.reference[role]]

    def prompts(self) -> list[str]:
        """As rendered, passages included."""
        return [example.prompt_text for example in self.examples]

    def texts(self, role: str) -> list[str]:
        """The answers."""
        return [example.responses[role].text for example in self.examples]

    def parses(self, role: str) -> list[str | None]:
        """From the column `<role>_parse`."""
        return [read_parses(example).get(role) for example in self.examples]

    def function_spans(self, path: str, role: str) -> list[list[CharSpan] | None]:
        """The user's `fn(prompt, response, role, row)` on every answer."""
        function = load_function(path)
        found: list[list[CharSpan] | None] = []
        for example in self.examples:
            row = {"row": example.row, **example.columns}
            try:
                spans = function(example.prompt_text, example.responses[role].text, role, row)
                found.append(None if spans is None else [CharSpan(int(start), int(end), float(value)) for start, end, value in spans])
            except Exception as error:
                raise CreditError(f"{path} failed on row {example.row}, {role}: {type(error).__name__}: {error}") from error
        return found

    def spans_to_tokens(self, role: str, spans: Sequence[list[CharSpan] | None], outside: float) -> list[np.ndarray | None]:
        """Token values of character spans."""
        return [
            None if own is None else spans_to_tokens(own, example.responses[role].offsets, outside=outside)
            for own, example in zip(spans, self.examples, strict=True)
        ]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float64))


def _of_members(scores: Sequence[AnswerScores]) -> AnswerScores:
    """Their mean, and the single scores of tokens."""
    members = torch.stack([score.tokens.mean for score in scores])
    return AnswerScores(Scored(members.mean(0), None, members), float(np.mean([score.answer for score in scores])))
