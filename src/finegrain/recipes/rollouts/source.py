"""The steps of an online run: each buffer of sampled answers gives a fixed number of updates, of which some may be skipped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain.data.store import token_lengths
from finegrain.generate.sampling import Sample
from finegrain.online.rollout import Ended
from finegrain.online.stages import StageState
from finegrain.recipes.rollouts.buffer import Buffer, BufferMaker
from finegrain.recipes.rollouts.references import Reference
from finegrain.recipes.rollouts.rewards import ROLE
from finegrain.train.batches import Plan, Step, split
from finegrain.train.collate import TrainingSet
from finegrain.train.distributed import world
from finegrain.train.loop import Trainer
from finegrain.train.source import SourceState, Taken
from finegrain.types import Json, Ragged, TokenColumns


@dataclass
class OnlineSource:
    """A `train.source.StepSource`: makes a buffer when its first update is asked for, and keeps it until the last one is taken."""

    maker: BufferMaker
    plan: Plan
    """Which prompts make a buffer: its steps are the buffers."""
    epochs: int
    """Passes over a buffer."""
    minibatches: int
    """Updates of a pass."""
    micro_tokens: int
    seed: int
    stop_at: float | None
    """KL, nats per token, of an update from the policy that sampled, beyond which the rest of the buffer is skipped."""
    critics: Mapping[str, Trainer]
    """Trainers of models beside the policy, by the prefix of their logged numbers."""
    write: Callable[[Sequence[Json]], None]
    """Takes the lines of rollouts.jsonl of a new buffer."""
    most_steps: int | None = None
    buffer: Buffer | None = None
    stopped: bool = False
    """Whether the rest of the buffer is skipped."""
    skipped: int = 0
    """Updates skipped so far."""

    @property
    def updates(self) -> int:
        """Of a buffer."""
        return self.epochs * self.minibatches

    def __len__(self) -> int:
        steps = len(self.plan) * self.updates
        return steps if self.most_steps is None else min(steps, self.most_steps)

    def at(self, trainer: Trainer, index: int) -> Taken | None:
        """The update, of a new buffer where the last one is used up; None where it is skipped."""
        number, within = divmod(index, self.updates)
        facts: Mapping[str, Any] = {}
        if self.buffer is None or self.buffer.number != number:
            if self.buffer is not None:
                self._advance(self.buffer.number)
            self.buffer, self.stopped = None, False
            self.buffer = self.maker.make(number, [int(place) for place in self.plan.rows(number)], index + 1)
            facts = {**self.buffer.facts, "updates_skipped": self.skipped}
            self.write(self.buffer.lines)
        step = self.step(self.buffer, index, within)
        if self.stopped or step is None:
            self.skipped += step is not None or not self.buffer.data.examples
            return None
        data = self.buffer.data
        return Taken(replace(trainer, data=data), step, facts, {name: replace(critic, data=data) for name, critic in self.critics.items()})

    def step(self, buffer: Buffer, index: int, within: int) -> Step | None:
        """A part of the buffer in the order of its pass, answers of one prompt side by side; None where the part has no answer."""
        epoch, part = divmod(within, self.minibatches)
        order = np.random.default_rng([self.seed, buffer.number, epoch]).permutation(len(buffer.data.examples))
        rows = np.sort(np.array_split(order, self.minibatches)[part])
        if not len(rows):
            return None
        prompts, answers = token_lengths(buffer.data.examples, [ROLE])
        groups = np.asarray(buffer.rows)[rows] // max(1, len(buffer.answers) // max(1, len(buffer.places)))
        beside = np.unique(groups, return_inverse=True, return_counts=True)
        tokens = answers[0][rows] + -(-prompts[rows] // beside[2][beside[1]])  # a prompt is computed once for its answers
        passed = (buffer.number + (within + 1) / self.updates) / self.plan.steps_per_epoch
        return Step(index, passed, tuple(int(row) for row in rows), split(tokens, self.micro_tokens, world()))

    def note(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        """Skips the rest of the buffer once the policy is too far from the one that sampled it."""
        self.stopped = self.stop_at is not None and float(line.get("approx_kl", 0.0)) > self.stop_at
        found = sum(value for name, value in line.items() if name.startswith("seconds/"))
        return {"seconds/update": round(line["step_seconds"] - found, 4)}

    def _advance(self, number: int) -> None:
        for model in self._references().values():
            model.advance(number)

    def _references(self) -> dict[str, Reference]:
        own = {} if self.maker.reference is None else {"leash": self.maker.reference}
        return own | dict(self.maker.watched)

    def beside(self) -> Mapping[str, Trainer]:
        """The critic."""
        return self.critics

    def state(self) -> SourceState:
        """The buffer at hand, what the stages carry, and references that move."""
        tensors: dict[str, Tensor] = {}
        for name, model in self._references().items():
            tensors |= {f"reference/{name}/{key}": tensor for key, tensor in model.state().items()}
        facts: Json = {"stages": self.maker.state._asdict(), "skipped": self.skipped, "stopped": self.stopped, "buffer": None}
        facts["spread"] = dict(self.maker.spread.start)
        if self.buffer is not None:
            facts["buffer"] = {"number": self.buffer.number, "places": list(self.buffer.places)}
            tensors |= {f"buffer/{name}": tensor for name, tensor in _pack(self.buffer).items()}
        return SourceState(tensors, facts)

    def restore(self, state: SourceState, done: int) -> None:
        """Go on inside the buffer of the checkpoint, or with the next one."""
        facts = state.facts
        self.maker.state = StageState(**facts["stages"])
        self.skipped, self.stopped = int(facts["skipped"]), bool(facts["stopped"])
        self.maker.spread.start.update(facts.get("spread", {}))
        for name, model in self._references().items():
            start = f"reference/{name}/"
            model.restore({key.removeprefix(start): tensor for key, tensor in state.tensors.items() if key.startswith(start)})
        if facts["buffer"] is not None:
            tensors = {name.removeprefix("buffer/"): tensor for name, tensor in state.tensors.items() if name.startswith("buffer/")}
            self.buffer = self._unpack(facts["buffer"]["number"], facts["buffer"]["places"], tensors)

    def _unpack(self, number: int, places: Sequence[int], tensors: Mapping[str, Tensor]) -> Buffer:
        ids = _split(tensors["ids"], tensors["lengths"])
        ended = tensors["ended"].tolist()
        answers = [Sample(one.astype(np.int32), Ended(int(how)), np.zeros(0)) for one, how in zip(ids, ended, strict=True)]
        examples = self.maker.read([self.maker.prompts[place] for place in places], answers)
        rows = tensors["rows"].tolist() if "rows" in tensors else list(range(len(answers)))
        examples, lengths = [examples[row] for row in rows], tensors["lengths"][rows]
        ragged = {name: _split(tensor, lengths) for name, tensor in tensors.items() if name.startswith(("sampled/", "reference", "weight"))}
        weight = {ROLE: TokenColumns.of(weight=ragged["weight"])} if "weight" in ragged else {}
        data = TrainingSet(
            examples,
            {ROLE: ragged["reference"]} if "reference" in ragged else {},
            weight,
            {name.removeprefix("column/"): tensor.numpy() for name, tensor in tensors.items() if name.startswith("column/")},
            sampled={ROLE: {name.removeprefix("sampled/"): own for name, own in ragged.items() if name.startswith("sampled/")}},
        )
        return Buffer(number, places, answers, data, rows)


def _pack(buffer: Buffer) -> dict[str, Tensor]:
    """Ids, and what the updates read, as flat tensors."""
    data = buffer.data
    flat = {
        "ids": np.concatenate([answer.ids for answer in buffer.answers]),
        "lengths": np.array([len(answer.ids) for answer in buffer.answers]),
        "rows": np.array(buffer.rows, dtype=np.int64),
        "ended": np.array([int(answer.ended) for answer in buffer.answers]),
        **{f"sampled/{name}": np.concatenate(rows) for name, rows in data.sampled[ROLE].items() if rows},
        **{f"column/{name}": values for name, values in data.columns.items()},
    }
    if ROLE in data.token_columns and data.examples:
        flat["weight"] = np.concatenate([weight for weight in data.token_columns[ROLE].weight if weight is not None])
    if data.reference.get(ROLE):
        flat["reference"] = np.concatenate(data.reference[ROLE])
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in flat.items()}


def _split(flat: Tensor, lengths: Tensor) -> Ragged:
    return np.split(flat.numpy(), np.cumsum(lengths.numpy())[:-1]) if len(lengths) else []
