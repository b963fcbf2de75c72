"""A credit context over given arrays, and random ragged data for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from finegrain.types import AnswerScores, CharSpan, Ragged, Scored

Rows = Sequence[np.ndarray | None]


@dataclass(frozen=True, kw_only=True)
class FakeContext:
    """What the recipe knows of the data; one character per token, so that spans are token ranges."""

    signs: Mapping[str, np.ndarray]
    role_masks: Mapping[str, Ragged]
    spans: Mapping[str, Rows] | None = None
    column: Mapping[str, Rows] | None = None
    implicit: Mapping[str, Sequence[Scored]] | None = None
    table: Mapping[str, Sequence[Scored]] | None = None
    rewards: Mapping[str, Sequence[AnswerScores]] | None = None
    """What a reward model says of the answers, whatever signal is asked for."""
    entropy: Mapping[str, Ragged] | None = None
    activation: Mapping[str, Ragged] | None = None
    surprisal: Mapping[str, Ragged] | None = None
    tokens: Mapping[str, Ragged] | None = None
    """Characters of the answers as code points."""
    prompt: Mapping[str, Sequence[str]] | None = None
    """Of every row, under one name that stands for all roles."""
    parse: Mapping[str, Sequence[str | None]] | None = None
    functions: Mapping[str, Sequence[list[CharSpan] | None]] = field(default_factory=dict)
    junk: float | None = None
    """What `spans_to_tokens` writes off the mask."""
    asked: list[tuple[str, float]] = field(default_factory=list)

    def masks(self, role: str) -> Ragged:
        return self.role_masks[role]

    def has_spans(self) -> bool:
        return self.spans is not None

    def has_column(self) -> bool:
        return self.column is not None

    def span_rewards(self, role: str) -> Sequence[Scored | None]:
        assert self.spans is not None
        return [None if row is None else Scored(torch.from_numpy(np.asarray(row, dtype=np.float64))) for row in self.spans[role]]

    def column_rewards(self, role: str) -> Rows:
        assert self.column is not None
        return self.column[role]

    def has_unannotated(self) -> bool:
        return self.spans is not None and any(row is None for rows in self.spans.values() for row in rows)

    def table_rewards(self) -> Mapping[str, Sequence[Scored]]:
        self.asked.append(("table", 0.0))
        assert self.table is not None
        return self.table

    def implicit_rewards(self, scorer: str, beta: float) -> Mapping[str, Sequence[Scored]]:
        self.asked.append((scorer, beta))
        assert self.implicit is not None
        return self.implicit

    def reward_scores(self, scorer: str, signal: Any) -> Mapping[str, Sequence[AnswerScores]]:
        assert self.rewards is not None
        return self.rewards

    def entropies(self, role: str) -> Ragged:
        assert self.entropy is not None
        return self.entropy[role]

    def activations(self, role: str) -> Ragged:
        assert self.activation is not None
        return self.activation[role]

    def surprisals(self, role: str) -> Ragged:
        assert self.surprisal is not None
        return self.surprisal[role]

    def token_ids(self, role: str) -> Ragged:
        return [np.zeros(len(mask), dtype=np.int64) for mask in self.role_masks[role]] if self.tokens is None else self.tokens[role]

    def prompts(self) -> Sequence[str]:
        assert self.prompt is not None
        return self.prompt["row"]

    def texts(self, role: str) -> Sequence[str]:
        """A space where the answer is another speaker's."""
        both = zip(self.token_ids(role), self.role_masks[role], strict=True)
        return ["".join(chr(int(number)) if on else " " for number, on in zip(own, mask, strict=True)) for own, mask in both]

    def parses(self, role: str) -> Sequence[str | None]:
        return [None] * len(self.role_masks[role]) if self.parse is None else self.parse[role]

    def function_spans(self, path: str, role: str) -> Sequence[list[CharSpan] | None]:
        assert path, "asked without a path"
        return self.functions[role]

    def spans_to_tokens(self, role: str, spans: Sequence[list[CharSpan] | None], outside: float) -> Rows:
        rows: list[np.ndarray | None] = []
        for marks, mask in zip(spans, self.role_masks[role], strict=True):
            values = None if marks is None else np.full(len(mask), outside)
            for start, end, value, *_ in marks or []:
                assert values is not None
                values[start:end] = value
            if values is not None and self.junk is not None:
                values[~mask] = self.junk
            rows.append(values)
        return rows


def pair_context(chosen: Rows, rejected: Rows, **more: object) -> FakeContext:
    """Unholed answers whose token rewards come as a column."""
    lengths = {"chosen": chosen, "rejected": rejected}
    masks = {role: [np.ones(3 if row is None else len(row), dtype=bool) for row in rows] for role, rows in lengths.items()}
    signs = {"chosen": np.ones(len(chosen)), "rejected": -np.ones(len(rejected))}
    return FakeContext(signs=signs, role_masks=masks, **{"column": lengths, **more})


def random_context(seed: int = 0, rows: int = 12) -> FakeContext:
    """Ragged answers with holes in the mask, one of them empty, and every kind of signal."""
    generator = np.random.default_rng(seed)
    roles = ("chosen", "rejected")
    lengths = {role: generator.integers(1, 25, rows) for role in roles}
    masks = {role: [np.ones(length, dtype=bool) for length in lengths[role]] for role in roles}
    for role in roles:
        for mask in masks[role][:4]:
            mask[len(mask) // 2 : len(mask) // 2 + 2] = len(mask) < 6
        masks[role][4][:] = False
    noise = {role: [generator.normal(size=length).cumsum() * 0.7 + generator.normal(size=length) for length in lengths[role]] for role in roles}

    def judged(values: np.ndarray) -> Scored:
        return Scored(torch.from_numpy(values), None, torch.from_numpy(np.stack([values, values + generator.normal(size=values.shape)])))

    implicit = {role: [judged(values) for values in noise[role]] for role in roles}
    functions: dict[str, list[list[CharSpan] | None]] = {
        role: [None if row == 1 else [CharSpan(0, int(length) // 2, float(generator.random()))] for row, length in enumerate(lengths[role])]
        for role in roles
    }
    letters = np.frombuffer(b"abcde  .!\n", dtype=np.uint8)
    scored = {role: [AnswerScores(score, float(generator.normal())) for score in implicit[role]] for role in roles}
    entropy = {role: [np.abs(generator.normal(size=length)) * 2 for length in lengths[role]] for role in roles}
    surprisal = {role: [np.abs(generator.normal(size=length)) for length in lengths[role]] for role in roles}
    tokens = {role: [generator.choice(letters, length).astype(np.int64) for length in lengths[role]] for role in roles}
    return FakeContext(
        rewards=scored,
        entropy=entropy,
        surprisal=surprisal,
        tokens=tokens,
        prompt={"row": [f"{seed} {row} a bc ad" for row in range(rows)]},
        signs={"chosen": np.ones(rows), "rejected": -np.ones(rows)},
        role_masks=masks,
        spans={role: [None if row == 2 else np.where(noise[role][row] > 0.3, 1.0, -1.0) for row in range(rows)] for role in roles},
        column={role: [None if row == 3 else noise[role][row] for row in range(rows)] for role in roles},
        implicit=implicit,
        table={role: [Scored(scored.mean, scored.mean.abs() + 0.1) for scored in rows] for role, rows in implicit.items()},
        functions=functions,
    )
