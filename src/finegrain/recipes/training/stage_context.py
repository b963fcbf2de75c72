"""What an objective's stage before training may ask of a run: states of the prompts, sampled answers, and any reward; counted and timed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from finegrain.data.records import Answer, Example, Turn
from finegrain.data.source_text import read_source_row
from finegrain.data.store import ExampleStore
from finegrain.errors import CheckpointError, DataError, UsageError
from finegrain.generate.hf import sample_answers
from finegrain.models.features import compute_last_features
from finegrain.models.score import compute_token_features
from finegrain.recipes.session import Session
from finegrain.recipes.training.data import Rows
from finegrain.recipes.training.stage_file import STAGE, Staged, read_stage, write_stage
from finegrain.runs import REPEATED, RunDirectory, is_other_reward
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates, Reward
from finegrain.scoring.sources import RewardOptions
from finegrain.train.contract import Contract
from finegrain.train.distributed import any_rank, array_from_first, rank
from finegrain.types import Json, Ragged

AT_ONCE = 32
"""Prompts that are answered in one batch."""


class _End(NamedTuple):
    ids: np.ndarray
    mask: np.ndarray


class _Prompt(NamedTuple):
    """A prompt whose last tokens stand as an answer."""

    prompt: np.ndarray
    responses: Mapping[str, _End]


def _split(prompt: np.ndarray, at: int) -> _Prompt:
    return _Prompt(prompt[:at], {"end": _End(prompt[at:], np.ones(len(prompt[at:]), dtype=bool))})


def _roles_in_pairs(example: Example) -> Mapping[str, str]:
    """The role that a pair's single answer has in the data, where columns are named by it; {} for other rows."""
    if tuple(example.responses) != ("answer",) or not any(name.startswith(("chosen_", "rejected_")) for name in example.columns):
        return {}
    return {"answer": "rejected" if example.columns.get("label") == 0 else "chosen"}


@dataclass
class _Shared:
    """What the calls for the training rows and for those held out have in common."""

    kept: dict[str, Any] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    facts: Json = field(default_factory=dict)
    saved: dict[str, np.ndarray] = field(default_factory=dict)
    opened: dict[str, Reward] = field(default_factory=dict)
    """Rewards by their sources: a model is loaded once."""


@dataclass(frozen=True)
class RunStage:
    """The `StageContext` of a run; the model is the start model."""

    session: Session
    examples: ExampleStore
    trains: bool
    shared: _Shared = field(default_factory=_Shared)

    @property
    def kept(self) -> dict[str, Any]:
        """What the call for the training rows leaves for the held-out rows."""
        return self.shared.kept

    @property
    def seed(self) -> int:
        """The run's."""
        return self.session.seed

    @property
    def device(self) -> torch.device:
        """Where the start model is."""
        return self.session.device

    @property
    def prompt_keys(self) -> np.ndarray:
        """(N,) hashes of the prompts' tokens."""
        return self.examples.prompt_keys

    def take(self, rows: np.ndarray) -> "RunStage":
        """The same of some rows."""
        return replace(self, examples=self.examples.take(rows))

    @cached_property
    def numbers(self) -> dict[str, Float[np.ndarray, " N"]]:
        """The rows' own."""
        return {name: self.examples.column(name) for name in self.examples.columns}

    def prompt_states(self) -> Float[np.ndarray, "N H"]:
        """The last hidden state of the last token of every prompt."""
        assert self.session.scorer is not None
        return compute_last_features(self.session.scorer, self._cut(-1), ["end"], self.session.precision)["end"]

    def prompt_token_states(self) -> Ragged:
        """(P_i - 1, H) the last hidden states of all tokens of every prompt but the first, which has nothing before it; all in memory."""
        assert self.session.scorer is not None
        return compute_token_features(self.session.scorer, self._cut(1), ["end"], self.session.precision)["end"]

    def _cut(self, at: int) -> list[_Prompt]:
        if (self.examples.prompt_lengths < 2).any():
            raise DataError("a prompt of one token has no state that an objective could read; its rows need a longer prompt")
        self.note("prompts_read", len(self.examples))
        return [_split(example.prompt, at) for example in self.examples]

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> list[list[str]]:
        """By row, `count` answers of the start model, without special tokens; the same for the same seed of the run. 0: the most likely tokens."""
        policy, prompts = self.session.policy, [example.prompt for example in self.examples]
        drawn: list[list[str]] = [[] for _ in prompts]
        assert temperature or count == 1, "the most likely answer is one"
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
        self._check_column(reward)
        opened = self.open(reward)
        asked = [self._candidates(place, None if answers is None else answers[place]) for place in range(len(self.examples))]
        roles = self.examples.roles if answers is None else [str(number) for number in range(len(answers[0]) if answers else 0)]
        found = list(opened.score(asked))
        self.note("answers_scored", len(roles) * len(asked))
        return {
            role: np.array([np.nan if (scores := one.get(role)) is None else float(scores.answer.mean) for one in found], dtype=np.float64)
            for role in roles
        }

    def open(self, reward: str) -> Reward:
        """The reward of a source, opened once."""
        if reward not in self.shared.opened:
            options = RewardOptions(runtime=lambda: self.session.runtime, max_length=self.session.max_length)
            self.shared.opened[reward] = open_reward(reward, options)
        return self.shared.opened[reward]

    def _check_column(self, reward: str) -> None:
        """Raises DataError for a column of rewards that only some rows have: their values are not kept."""
        name = reward.removeprefix("column:")
        if name != reward and (
            some := sorted({name, *(f"{role}_{name}" for role in ("answer", "chosen", "rejected"))} & {*self.examples.files.partial})
        ):
            raise DataError(f"some rows have no number in the column {some[0]}, which {reward} reads; give them one, or leave those rows out")

    def _candidates(self, place: int, given: Sequence[str] | None) -> Candidates:
        example = self.examples[place]
        row = read_source_row(example)
        if given is None:
            return Candidates(row=example.row, made=row, columns=example.columns, called=_roles_in_pairs(example))
        plain = isinstance(row.prompt, str)
        # without the row's glue: a text that follows the prompt's tokens brings its own space
        made = {str(number): Answer(content=text if plain else (Turn("assistant", text),)) for number, text in enumerate(given)}
        return Candidates(row=example.row, made=type(row)(prompt=row.prompt, answers=made, tools=row.tools), columns=example.columns)

    def note(self, name: str, count: int) -> None:
        """Adds to a count of run.json."""
        self.shared.counted[name] = self.shared.counted.get(name, 0) + count

    def say(self, line: str) -> None:
        """A line for the person."""
        self.session.say(line)

    def record(self, facts: Mapping[str, Any]) -> None:
        """Facts for run.json."""
        self.shared.facts.update(facts)

    def save(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Keeps tensors in the run's file of the stage."""
        self.shared.saved.update({f"{name}/{key}": value for key, value in tensors.items()})


def run_stage(
    session: Session, contract: Contract, rows: Rows, directory: RunDirectory, *, resume: bool
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray], Json]:
    """Numbers that the objective's stage makes of the training rows and of those held out, and what it did, for run.json.

    A run that is resumed reads what it kept: settings, data, model and rewards are known to be the same. Every process makes the
    numbers and takes those of the first: a reward may be random, and sums may differ.
    """
    if contract.stage is None:
        return {}, {}, {}
    kept = read_stage(directory.path, len(rows.train), len(rows.held_out)) if resume else None
    if not any_rank(kept is None, session.device) and kept is not None:
        session.say(f"stage of {contract.name}: as this run made it before")
        return kept.train, kept.held_out, {"stage": kept.facts}
    if resume:
        session.say(f"stage of {contract.name}: this run kept no whole {STAGE}, so it is made again")
    started = time.perf_counter()
    shared = _Shared()
    found = (_make(contract, RunStage(session, examples, trains, shared)) for examples, trains in ((rows.train, True), (rows.held_out, False)))
    made = [{name: array_from_first(numbers[name], session.device) for name in sorted(numbers)} for numbers in found]
    seconds = round(time.perf_counter() - started, 3)
    session.usage.seconds += seconds
    done = ", ".join(f"{count} {name}" for name, count in shared.counted.items()).replace("_", " ")
    session.say(f"stage of {contract.name}: {done or 'no pass'} in {seconds:.1f} s")
    facts = {**shared.counted, **shared.facts, "seconds": seconds, "numbers": sorted(made[0])}
    facts["rewards"] = {source: opened.identity() for source, opened in shared.opened.items()}
    repeated = REPEATED.get()
    if repeated is not None and (other := _changed_rewards(RunStage(session, rows.train, True, shared), repeated.stage)):
        facts["changed"] = [f"{line} of the earlier run" for line in other]
        for line in facts["changed"]:
            session.say(f"again: {line}")
    staged = Staged(made[0], made[1], facts)
    if rank() == 0:
        write_stage(directory.path, staged, shared.saved)
    return staged.train, staged.held_out, {"stage": staged.facts}


def check_rewards(session: Session, rows: Rows, directory: RunDirectory) -> None:
    """Refuse to go on with a run whose stage asked another reward of the same name."""
    kept = read_stage(directory.path, len(rows.train), len(rows.held_out))
    if kept is not None and (other := _changed_rewards(RunStage(session, rows.train, True), kept.facts)):
        raise CheckpointError(f"{other[0]} that the run in {directory.path} began with; bring it back, or give another --out")


def _changed_rewards(context: RunStage, before: object) -> list[str]:
    """A clause for each reward of an earlier stage's facts whose code, weights or tokenizer are others now."""
    rewards = before.get("rewards") if isinstance(before, Mapping) else None
    found = []
    for source, then in rewards.items() if isinstance(rewards, Mapping) else ():
        if is_other_reward(then, context.open(source).identity()):
            found.append(f"the reward {source} is not the one")
    return found


def _make(contract: Contract, context: RunStage) -> dict[str, np.ndarray]:
    """The numbers of the rows, checked; {} without rows."""
    count = len(context.examples)
    if not count or contract.stage is None:
        return {}
    found = dict(contract.stage(context))
    for name, values in found.items():
        if np.shape(values) != (count,) or not np.isfinite(values).all():
            raise UsageError(f"the stage of {contract.name} gives {name} of shape {np.shape(values)}; {count} rows need one finite number each")
    return found
