"""A buffer of sampled answers, read top to bottom: sample, read, measure, score, the stages, and what the updates train on.

Every process samples, measures and scores the answers of its share of the prompts; then all hold the whole buffer.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finegrain.data.generated import TokenTexts, make_response
from finegrain.data.records import Example
from finegrain.generate.hf import end_tokens
from finegrain.generate.sampling import Sample, Sampler, Sampling
from finegrain.models.score import measure_answers, measure_values
from finegrain.models.scorer import Scorer
from finegrain.online.contrast import contrast_facts
from finegrain.online.rollout import Ended, Rollout
from finegrain.online.stages import Stages, StageState, Update, compute_update
from finegrain.recipes.rollouts.baselines import PromptBaselines
from finegrain.recipes.rollouts.described import describe_answer
from finegrain.recipes.rollouts.members import MEMBERS, SpreadWatch, member_facts, members_of
from finegrain.recipes.rollouts.prompts import Prompt
from finegrain.recipes.rollouts.ragged import gather_ragged, gather_samples, mean, pad, stack_rows
from finegrain.recipes.rollouts.references import Reference
from finegrain.recipes.rollouts.rewards import ROLE, Rewards
from finegrain.recipes.session import Session
from finegrain.scoring.records import Candidates, TrainerState
from finegrain.train.collate import TrainingSet
from finegrain.train.distributed import any_rank, broadcast_names, rank, world
from finegrain.types import Json, Ragged, TokenColumns

ROWS = ("sequence", "gold", "std", "baseline", "baseline_scale")
"""What has a number per answer and reward, and none per token."""


@dataclass(frozen=True)
class Buffer:
    """Sampled answers with all that the updates read; answers of one prompt stand together."""

    number: int
    """0-based."""
    places: Sequence[int]
    """(P,) of its prompts among those of the run."""
    answers: list[Sample]
    """(P * n,)."""
    data: TrainingSet
    """What the updates read of those that train."""
    rows: Sequence[int]
    """Place among the answers of each row of `data`; a selection leaves answers out and repeats others."""
    facts: Json = field(default_factory=dict)
    """Numbers for the line of its first update; {} for a buffer of a checkpoint, whose line is written already."""
    lines: Sequence[Json] = ()
    """Of rollouts.jsonl."""


@dataclass
class BufferMaker:
    """Makes the buffers of a run."""

    session: Session
    prompts: Sequence[Prompt]
    sampler: Sampler
    sampling: Sampling
    stages: Stages
    rewards: Rewards
    gold: Rewards | None
    """Scores that never train."""
    reference: Reference | None
    """What the leash is tied to."""
    watched: Mapping[str, Reference]
    """Models whose distance is logged."""
    greedy: Sampler | None
    """Samples the most likely answer to each prompt, where the advantage compares with its reward."""
    critic: Scorer | None
    """A critic of its own; the policy's value head otherwise, where it has one."""
    measured: bool
    """Whether log-probabilities are measured again in the numerics of training: needed where a buffer has several updates."""
    state: StageState
    """What the stages carry from buffer to buffer."""
    samples: int
    """Prompts of a buffer whose answers go to rollouts.jsonl."""
    progress: Callable[[int], TrainerState]
    """(number of an update, from 1) -> where the run stands, for reward functions."""
    baselines: PromptBaselines | None = None
    """What is subtracted from rewards, prompt by prompt."""
    spread: SpreadWatch = field(default_factory=SpreadWatch)
    seconds: dict[str, float] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    def make(self, number: int, places: Sequence[int], step: int) -> Buffer:
        """The buffer of these prompts; `step`: number of its first update, from 1."""
        self.seconds = {}
        prompts = [self.prompts[place] for place in places]
        answers, examples, positions = self._sample(number, prompts)
        count, mine = len(answers), [examples[position] for position in positions]
        with self._timed("measure"):
            found = self._measure(mine, [answers[position] for position in positions])
        with self._timed("reward"):
            found |= self._score(number, self.candidates(prompts, examples, positions), self.progress(step))
        whole = {name: gather_ragged(arrays, positions, count, self.session.device) for name, arrays in found.items()}
        rollout = self._rollout(examples, answers, whole, self.rewards)
        greedy = None if self.greedy is None else self._greedy_rewards(self.greedy, prompts, number, self.progress(step))
        update = compute_update(rollout, self.stages, self.state, greedy=greedy, seed=(self.session.seed, number))
        self.state = update.state
        own_facts = self._facts(rollout, whole)
        for line in (*update.warnings, *self.spread(own_facts)):
            self._warn(line)
        facts = {
            "buffer": number,
            **{name: value for name, value in update.facts.items() if not name.startswith("rewards/")},
            **{name: value for name, value in own_facts.items() if not math.isnan(value)},
            **{f"seconds/{name}": round(s, 4) for name, s in self.seconds.items()},
        }
        each = self.sampling.answers
        shown = [place * each + sample for place in range(min(self.samples, len(prompts))) for sample in range(min(2, each))]
        gold = None if self.gold is None else dict(zip(self.gold.names, stack_rows(whole["gold"]).unbind(1), strict=True))
        lines = [{"step": step, "buffer": number, **describe_answer(row, row % each, examples[row], rollout, update, gold)} for row in shown]
        rows = list(range(count)) if update.rows is None else update.rows.tolist()
        if not rows:
            self.session.say(f"buffer {number}: the selection keeps no answer, so that nothing trains")
        return Buffer(number, places, answers, take_rows(self._data(examples, update, whole), rows), rows, facts, lines)

    def judge(self, number: int, places: Sequence[int]) -> tuple[Rollout, Tensor]:
        """The answers of a buffer with their rewards and what gold says of each in all (B,), NaN where it does not; no model measures them."""
        prompts = [self.prompts[place] for place in places]
        answers, examples, positions = self._sample(number, prompts)
        found: dict[str, Ragged] = {"old_logp": [answers[position].logp for position in positions]}
        found |= self._score(number, self.candidates(prompts, examples, positions), self.progress(1))
        whole = {name: gather_ragged(arrays, positions, len(answers), self.session.device) for name, arrays in found.items()}
        gold = np.stack([own.reshape(-1) for own in whole["gold"]])
        return self._rollout(examples, answers, whole, self.rewards), torch.from_numpy(gold.sum(1))

    def _sample(self, number: int, prompts: Sequence[Prompt]) -> tuple[list[Sample], list[Example], list[int]]:
        """All answers to the prompts, the same as rows, and the positions of those of this process."""
        own = range(rank(), len(prompts), world())
        positions = [place * self.sampling.answers + sample for place in own for sample in range(self.sampling.answers)]
        with self._timed("generate"):
            drawn = self.sampler([prompts[place].example.prompt for place in own], [prompts[place].example.row for place in own], number)
            drawn_here = [one for many in drawn for one in many]
            answers = gather_samples(drawn_here, positions, len(prompts) * self.sampling.answers, self.session.device)
            return answers, self.read(prompts, answers), positions

    def _score(self, number: int, given: Sequence[Candidates], state: TrainerState) -> dict[str, Ragged]:
        """What the rewards and gold say of this process's answers."""
        columns = self.rewards.score(given, state)
        gold = None if self.gold is None else self.gold.score(given, state)
        for line in (*columns.warnings, *(() if gold is None else gold.warnings)):
            self.session.say(f"buffer {number}: {line}")
        found: dict[str, Ragged] = {"sequence": list(columns.sequence.numpy()[:, None]), "tokens": list(columns.tokens)}
        if any_rank(columns.std is not None, self.session.device):
            std = torch.full_like(columns.sequence, torch.nan) if columns.std is None else columns.std
            found["std"] = list(std.numpy()[:, None])
        for name in broadcast_names(columns.members, self.session.device):
            found[f"{MEMBERS}{name}"] = list(columns.members.get(name, ()))
        if self.baselines is not None:
            found |= {name: list(own.numpy()[:, None]) for name, own in self.baselines.read(given)._asdict().items()}
        if gold is not None:
            found["gold"] = list(gold.totals.numpy()[:, None])
        return found

    def _greedy_rewards(self, greedy: Sampler, prompts: Sequence[Prompt], number: int, state: TrainerState) -> Tensor:
        """(B,) the reward of the most likely answer to each answer's prompt; NaN where nobody judged it."""
        own = list(range(rank(), len(prompts), world()))
        mine = [prompts[place] for place in own]
        with self._timed("generate"):
            drawn = greedy([prompt.example.prompt for prompt in mine], [prompt.example.row for prompt in mine], number)
        with self._timed("reward"):
            examples = self.read(mine, [many[0] for many in drawn])
            summed = self.rewards.weigh(self.rewards.score(self.candidates(mine, examples, range(len(mine))), state).totals)
        whole = gather_ragged(list(summed.numpy()[:, None]), own, len(prompts), self.session.device)
        return torch.from_numpy(np.concatenate(whole)).repeat_interleave(self.sampling.answers)

    def read(self, prompts: Sequence[Prompt], answers: Sequence[Sample]) -> list[Example]:
        """The answers as rows: the sampled ids, and the text that follows from them."""
        policy, each = self.session.policy, len(answers) // max(1, len(prompts))
        texts, ends = TokenTexts(policy.tokenizer), end_tokens(policy.model, policy.tokenizer)
        found = []
        for place, answer in enumerate(answers):
            stop = self.sampling.stop if answer.ended == Ended.STOP_STRING else ()
            response = make_response(answer.ids, texts, ends=ends, stop=stop)
            example = prompts[place // each].example
            found.append(replace(example, responses={ROLE: response}, spans={ROLE: None}, token_rewards={ROLE: None}))
        return found

    def candidates(self, prompts: Sequence[Prompt], examples: Sequence[Example], positions: Sequence[int]) -> list[Candidates]:
        """The answers at these positions as rewards are asked about them, with every column of their prompt's row."""
        each = len(examples) // max(1, len(prompts))
        return [
            Candidates(
                row=examples[position].row,
                columns=prompts[position // each].question.raw,
                tokens=examples[position],
                tokenizer=self.session.policy.tokenizer,
            )
            for position in positions
        ]

    def _measure(self, examples: Sequence[Example], answers: Sequence[Sample]) -> dict[str, Ragged]:
        """What models say of this process's answers, in the numerics of training."""
        scorer, precision = self.session.scorer, self.session.precision
        assert scorer is not None
        found: dict[str, Ragged] = {"old_logp": [answer.logp for answer in answers]}
        if self.measured or scorer.value_head is not None:
            logp, values = measure_answers(scorer, examples, ROLE, precision, temperature=self.sampling.temperature)
            found = {"sampler_logp": found["old_logp"], "old_logp": logp}
            if values is not None:
                found["values"] = values
        if self.critic is not None:
            found["values"] = measure_values(self.critic, examples, ROLE, precision)
        if self.reference is not None:
            found["ref_logp"] = self.reference.score(examples)
        return found | {f"kl/{name}": model.score(examples) for name, model in self.watched.items()}

    def _rollout(self, examples: Sequence[Example], answers: Sequence[Sample], whole: Mapping[str, Ragged], rewards: Rewards) -> Rollout:
        padded = {name: pad(arrays) for name, arrays in whole.items() if name not in ROWS and not name.startswith(MEMBERS)}
        columns = set.intersection(*(set(example.columns) for example in examples)) if examples else set()
        return Rollout(
            group=torch.arange(len(answers)) // self.sampling.answers,
            mask=pad([example.responses[ROLE].mask for example in examples]).bool(),
            ids=pad([answer.ids for answer in answers]).long(),
            ended=torch.tensor([int(answer.ended) for answer in answers]),
            old_logp=padded["old_logp"],
            ref_logp=padded.get("ref_logp"),
            values=padded.get("values"),
            sequence=rewards.settle(stack_rows(whole["sequence"]), members_of(whole)),
            tokens=padded["tokens"],
            std=None if "std" not in whole else stack_rows(whole["std"]),
            baseline=None if "baseline" not in whole else stack_rows(whole["baseline"]),
            baseline_scale=None if "baseline_scale" not in whole else stack_rows(whole["baseline_scale"]),
            above_only=self.baselines is not None and self.baselines.above_only,
            weights=rewards.weights,
            names=rewards.names,
            columns={name: torch.tensor([example.columns[name] for example in examples]) for name in columns},
        )

    def _data(self, examples: Sequence[Example], update: Update, whole: Mapping[str, Ragged]) -> TrainingSet:
        """What the updates read of the answers."""
        lengths = [len(example.responses[ROLE].ids) for example in examples]
        sampled: dict[str, Ragged] = {"old_logp": whole["old_logp"], "advantage": _cut(update.advantage, lengths)}
        if update.returns is not None:
            sampled |= {"returns": _cut(update.returns, lengths), "old_values": whole["values"]}
        if update.keep is not None:
            sampled["keep"] = _cut(update.keep, lengths)
        if update.advantages is not None:
            sampled["advantages"] = _cut(update.advantages, lengths)
        reference = {ROLE: whole["ref_logp"]} if "ref_logp" in whole else {}
        weight = {} if update.weight is None else {ROLE: TokenColumns.of(weight=_cut(update.weight, lengths))}
        return TrainingSet(examples, reference, weight, {name: own.numpy() for name, own in update.columns.items()}, sampled={ROLE: sampled})

    def _facts(self, rollout: Rollout, whole: Mapping[str, Ragged]) -> Json:
        """Numbers of the buffer that the stages do not know: rewards by name, distances, and how far training's numerics are from the sampler's."""
        mask = rollout.mask
        found: Json = {"entropy": mean(-rollout.old_logp[mask])}  # its estimate from the tokens drawn
        totals = rollout.totals
        for place, name in enumerate(self.rewards.names):
            given = totals[:, place][~totals[:, place].isnan()]
            found |= {f"rewards/{name}/mean": mean(given), f"rewards/{name}/std": float(given.std()) if len(given) > 1 else 0.0}
        if self.gold is not None:
            scores = np.stack([own.reshape(-1) for own in whole["gold"]])
            found |= {f"gold/{name}/mean": mean(torch.from_numpy(scores[:, place])) for place, name in enumerate(self.gold.names)}
        for name, members in members_of(whole).items():
            found |= member_facts(name, members)
        found |= contrast_facts(rollout, self.rewards.names)
        for name in self.watched:
            found[f"kl/{name}"] = mean(torch.where(mask, rollout.old_logp - pad(whole[f"kl/{name}"]), 0.0)[mask])
        if "sampler_logp" in whole:
            difference = (rollout.old_logp - pad(whole["sampler_logp"]))[mask].abs()
            found |= {"sampling/sampling_logp_difference/mean": mean(difference), "sampling/sampling_logp_difference/max": float(difference.max())}
        return found

    def _warn(self, line: str) -> None:
        """Once a run."""
        if line not in self.warned:
            self.warned.add(line)
            self.session.say(f"warning: {line}")

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def take_rows(data: TrainingSet, rows: Sequence[int]) -> TrainingSet:
    """The rows at these places, as often as they are named."""
    if list(rows) == list(range(len(data.examples))):
        return data

    def take(values: Sequence[Any]) -> list[Any]:
        return [values[row] for row in rows]

    return TrainingSet(
        take(data.examples),
        {role: take(arrays) for role, arrays in data.reference.items()},
        {role: TokenColumns.of(weight=take(own.weight)) for role, own in data.token_columns.items()},
        {name: values[list(rows)] for name, values in data.columns.items()},
        sampled={role: {name: take(arrays) for name, arrays in own.items()} for role, own in data.sampled.items()},
    )


def _cut(values: Tensor, lengths: Sequence[int]) -> Ragged:
    """(B, T, ...) without its padding."""
    return [values[row, :length].numpy() for row, length in enumerate(lengths)]
