"""What an objective's stage before training may ask of a run: states of the prompts, sampled answers, and any reward; counted and timed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from finegrain.data.records import Answer, Turn
from finegrain.data.source_text import read_source_row
from finegrain.data.store import ExampleStore
from finegrain.errors import DataError, UsageError
from finegrain.generate.hf import sample_answers
from finegrain.models.features import compute_last_features
from finegrain.recipes.session import Session
from finegrain.recipes.training.data import Rows
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates
from finegrain.scoring.sources import RewardOptions
from finegrain.train.contract import Contract
from finegrain.types import Json

AT_ONCE = 32
"""Prompts that are answered in one batch."""


class _Last(NamedTuple):
    ids: np.ndarray
    mask: np.ndarray


class _Prompt(NamedTuple):
    """A prompt whose last token stands as an answer."""

    prompt: np.ndarray
    responses: Mapping[str, _Last]


@dataclass(frozen=True)
class RunStage:
    """The `StageContext` of a run; the model is the start model."""

    session: Session
    examples: ExampleStore
    trains: bool
    kept: dict[str, Any]
    counted: Json = field(default_factory=dict)

    @cached_property
    def numbers(self) -> dict[str, Float[np.ndarray, " N"]]:
        """The rows' own."""
        return {name: self.examples.column(name) for name in self.examples.columns}

    def prompt_states(self) -> Float[np.ndarray, "N H"]:
        """The last hidden state of the last token of every prompt."""
        session = self.session
        assert session.scorer is not None
        if (self.examples.prompt_lengths < 2).any():
            raise DataError("a prompt of one token has no state that an objective could read; its rows need a longer prompt")
        cut = [_Prompt(prompt[:-1], {"last": _Last(prompt[-1:], np.ones(1, dtype=bool))}) for prompt in (example.prompt for example in self.examples)]
        self.note("prompts_read", len(cut))
        return compute_last_features(session.scorer, cut, ["last"], session.precision)["last"]

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> list[list[str]]:
        """By row, `count` answers of the start model, without special tokens; the same for the same seed of the run."""
        policy, prompts = self.session.policy, [example.prompt for example in self.examples]
        drawn: list[list[str]] = [[] for _ in prompts]
        for number in range(count):
            for first in range(0, len(prompts), AT_ONCE):
                seed = (self.session.seed * 1_000_003 + number * 1009 + first) % 2**31
                part = prompts[first : first + AT_ONCE]
                found = sample_answers(policy.model, policy.tokenizer, part, max_new_tokens=max_new_tokens, seed=seed, temperature=temperature)
                for place, ids in enumerate(found, start=first):
                    drawn[place].append(policy.tokenizer.decode(ids, skip_special_tokens=True))
        self.note("answers_sampled", count * len(prompts))
        return drawn

    def score(self, reward: str, answers: Sequence[Sequence[str]] | None = None) -> dict[str, Float[np.ndarray, " N"]]:
        """Rewards of the rows' own answers by role, or of as many given ones per row by number; NaN where the reward gives none.

        `reward`: as `finegrain score --reward` takes it: a checkpoint, `file.py:name` or `column:NAME`.
        """
        opened = open_reward(reward, RewardOptions(runtime=lambda: self.session.runtime, max_length=self.session.max_length))
        asked = [self._candidates(place, None if answers is None else answers[place]) for place in range(len(self.examples))]
        roles = self.examples.roles if answers is None else [str(number) for number in range(len(answers[0]) if answers else 0)]
        found = list(opened.score(asked))
        self.note("answers_scored", len(roles) * len(asked))
        return {
            role: np.array([np.nan if (scores := one.get(role)) is None else float(scores.answer.mean) for one in found], dtype=np.float64)
            for role in roles
        }

    def _candidates(self, place: int, given: Sequence[str] | None) -> Candidates:
        example = self.examples[place]
        row = read_source_row(example)
        if given is None:
            return Candidates(row=example.row, made=row, columns=example.columns)
        plain = isinstance(row.prompt, str)
        made = {str(number): Answer(content=text if plain else (Turn("assistant", text),)) for number, text in enumerate(given)}
        return Candidates(row=example.row, made=type(row)(prompt=row.prompt, answers=made, tools=row.tools, glue=row.glue), columns=example.columns)

    def note(self, name: str, count: int) -> None:
        """Adds to a count of run.json."""
        self.counted[name] = self.counted.get(name, 0) + count


def run_stage(session: Session, contract: Contract, rows: Rows) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Json]:
    """Numbers that the objective's stage makes of the training rows and of those held out, and what it did, for run.json."""
    if contract.stage is None:
        return {}, {}, {}
    started = time.perf_counter()
    kept: dict[str, Any] = {}
    counted: Json = {}
    made = []
    for examples, trains in ((rows.train, True), (rows.held_out, False)):
        found = dict(contract.stage(RunStage(session, examples, trains, kept, counted))) if len(examples) else {}
        for name, values in found.items():
            if np.shape(values) != (len(examples),) or not np.isfinite(values).all():
                shape, count = np.shape(values), len(examples)
                raise UsageError(f"the stage of {contract.name} gives {name} of shape {shape}; {count} rows need one finite number each")
        made.append(found)
    seconds = round(time.perf_counter() - started, 3)
    session.usage.seconds += seconds
    done = ", ".join(f"{count} {name}" for name, count in counted.items()).replace("_", " ")
    session.say(f"stage of {contract.name}: {done or 'no pass'} in {seconds:.1f} s")
    return made[0], made[1], {"stage": {**counted, "seconds": seconds, "numbers": sorted(made[0])}}
