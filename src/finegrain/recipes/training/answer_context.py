"""What a reward head or loss may ask of a run's answers before training: entropies of the start model, labelled steps, tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from finegrain.data.records import Example, Response
from finegrain.errors import UsageError
from finegrain.models.activations import measure_activations
from finegrain.models.score import measure_entropies
from finegrain.models.scorer import causal_lm
from finegrain.recipes.session import Session
from finegrain.recipes.training.own_scorer import PAIR, score_by_whole_table
from finegrain.scoring.segmentation import TokenisedAnswers, steps_on_tokens
from finegrain.types import Ragged


@dataclass(frozen=True)
class RunAnswers(TokenisedAnswers):
    """The `AnswerContext` of a run, before its first step."""

    session: Session
    examples: Sequence[Example]
    roles: tuple[str, ...]
    trains: bool = True
    """False for held-out rows."""
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    """What methods count, for run.json: `note` adds to it."""
    read: set[str] = field(default_factory=set)
    """Gets `spans` once people's marks are read."""

    def span_values(self, role: str, aspects: Sequence[str]) -> list[np.ndarray | None]:
        """Values of the tokens under annotators' spans, NaN in none."""
        self.read.add("spans")
        return super().span_values(role, aspects)

    def tokens_at(self, role: str, column: str) -> list[int]:
        """Place of the first token that ends behind the character which a column names; the number of tokens where there is none."""
        return [_token_at(example.responses[role], example.columns[column]) for example in self.examples]

    def table_scores(self) -> Mapping[str, Ragged]:
        """Scores of the pairs' tokens by a table of words; facts of the table go to run.json."""
        if not set(PAIR) <= set(self.roles):
            raise UsageError(
                f"a table of words is fitted to pairs, and this loss reads {', '.join(self.roles)}; take a loss of pairs or drop --head.prior"
            )
        self.read.add("spans")
        scores, facts = score_by_whole_table(self.examples, {role: self.masks(role) for role in PAIR}, self.session.seed)
        self.counted["word_table"] = facts
        return scores

    def entropies(self, role: str) -> Ragged:
        """Entropy with which the start model predicts each token."""
        return self._predicted[role]

    def activations(self, role: str) -> Ragged:
        """How strongly the start model's units respond at each token."""
        return self._active[role]

    @cached_property
    def _active(self) -> dict[str, Ragged]:
        self._check_language_model("activations need a language model to start from, and this is a reward model")
        return self._measure("activations", measure_activations)

    @cached_property
    def _predicted(self) -> dict[str, Ragged]:
        self._check_language_model(
            "segments by entropy need a language model to start from, and this is a reward model; "
            "take a segmenter that reads none: head.segmenter:windows, tokens or whole"
        )
        return self._measure("entropy", measure_entropies)

    def _check_language_model(self, words: str) -> None:
        if causal_lm(self.session.policy.model).get_output_embeddings() is None:
            raise UsageError(words)

    def _measure(self, kind: str, measure: Callable[..., dict[str, Ragged]]) -> dict[str, Ragged]:
        """Of the start model, cached."""
        session = self.session
        assert session.scorer is not None
        cache = replace(session.cache, kind=kind, measure=measure)
        return cache.values(session.policy, session.scorer, self.examples, self.roles, session.precision, session.usage)

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        """Facts for run.json, added up over training and held-out rows."""
        seen = self.counted.setdefault(name, dict.fromkeys(facts, 0))
        for key, value in facts.items():
            seen[key] += value

    def labelled_steps(self, role: str) -> tuple[Ragged, Ragged]:
        """Number and label of each token's step; steps that were cut, or have no token of their own, are counted in run.json."""
        self.read.add("spans")
        both = [steps_on_tokens(example.spans.get(role) or [], example.responses[role]) for example in self.examples]
        labelled = sum(len(example.spans.get(role) or []) for example in self.examples)
        judged = sum(len(np.unique(numbers[numbers >= 0])) for numbers, _ in both)
        self.note("labelled_steps", {"read": labelled, "cut_or_without_a_token": labelled - judged})
        return [numbers for numbers, _ in both], [labels for _, labels in both]


def _token_at(response: Response, character: float) -> int:
    behind = response.mask & (response.offsets[:, 1] > character)
    return int(behind.argmax()) if behind.any() else len(behind)
