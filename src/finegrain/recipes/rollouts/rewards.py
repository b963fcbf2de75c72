"""Rewards of sampled answers: whole scores, and what of them stands on the policy's tokens, from any sources that `scoring` opens.

An answer's reward from one source is its number in `sequence` plus the sum of its tokens', and nothing is in both:

- a function's or column's number is in `sequence`; its spans and numbers per token are on the tokens, a span's value divided among its tokens;
- a reward model under credit:terminal is in `sequence`;
- under prefix-difference, attention and uniform all is on the tokens. Prefix differences add up to the score less the prompt's;
- under head the scores of the model's tokens, segments or steps are the rewards of the tokens, as they are: their sum is the reward of the
  answer, whatever the model's own readout (of a sum the same, of a mean as many times it as there are tokens) [choice];
- implicit rewards and likelihoods are under head the log-ratios and log-probabilities of the tokens.

A penalty for uncertainty (`aggregate`) belongs to the answer, so it is in `sequence` where the score is on the tokens.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.configure import to_json, to_kebab
from finegrain.credit.reward_signals import Head, RolloutCredit, Terminal
from finegrain.data.findings import Findings
from finegrain.errors import UsageError
from finegrain.models.reward_models import is_reward_model
from finegrain.ops.aggregate import MeanReward, OfOneAnswer, aggregate_answer, check_aggregate, reads_batch
from finegrain.recipes.rollouts.members import Members, aggregate_buffer, check_members, pack_members
from finegrain.scoring.conserve import conserve_scores
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates, Found, Reward, Scores, TrainerState
from finegrain.scoring.runtime import Runtime
from finegrain.scoring.sources import Mode, RewardOptions, find_source, is_text_source
from finegrain.types import CharSpan, Json

ROLE = "answer"
"""Of the sampled answer of every candidate."""


class RewardColumns(NamedTuple):
    """What n rewards say of B answers."""

    sequence: Float[Tensor, "B n"]
    """float64; what stands on no token. NaN: not judged."""
    tokens: list[Float[np.ndarray, "T n"]]
    """float64, on the policy's tokens; 0 off the mask and where nothing stands."""
    std: Float[Tensor, "B n"] | None
    """Standard deviation of each answer's score, NaN where it is unknown; None where it is unknown of all."""
    spans: Sequence[Mapping[str, Sequence[CharSpan]]]
    """By answer, and by reward where it marked any: the spans that it returned, for reports."""
    unjudged: Mapping[str, int]
    """By reward, answers that it did not judge."""
    truncated: Mapping[str, int]
    """By reward, answers whose end it did not read."""
    warnings: Sequence[str]
    """What a person should know, in words."""
    members: Mapping[str, Members] = {}
    """By reward that has several: what each member says of every answer."""

    @property
    def totals(self) -> Float[Tensor, "B n"]:
        """Each answer's whole reward; NaN: not judged."""
        return self.sequence + torch.from_numpy(np.stack([own.sum(0) for own in self.tokens])) if self.tokens else self.sequence


@dataclass(frozen=True)
class OnlineReward:
    """One reward of several."""

    name: str
    """As it is logged: the function's, the column's or the checkpoint folder's name."""
    source: str
    reward: Reward
    on_tokens: bool
    """Whether its scores of tokens count; False: its score of the answer alone."""
    aggregate: OfOneAnswer
    """How an answer's score and its uncertainty are one number."""

    def read(self, scores: Scores | None, one: Candidates) -> tuple[float, np.ndarray]:
        """(sequence, (T,) on the policy's tokens); an aggregate over a whole buffer is put in later, by `Rewards.settle`."""
        assert one.tokens is not None
        own = one.tokens.responses[ROLE]
        nothing = np.zeros(len(own.ids))
        if scores is None:
            return math.nan, nothing
        number = float(scores.answer.mean) if reads_batch(self.aggregate) else aggregate_answer(self.aggregate, scores.answer)
        try:
            tokens = conserve_scores(scores, own) if self.on_tokens else None
        except UsageError as error:
            raise UsageError(f"{self.source}, row {one.row}: {error}") from None
        return (number, nothing) if tokens is None else (number - float(scores.answer.mean), tokens)


@dataclass(frozen=True)
class Rewards:
    """Several rewards of the same answers, or the scores that are watched beside them."""

    rewards: tuple[OnlineReward, ...]
    weights: tuple[float, ...]
    """Of each in their sum."""
    credit: RolloutCredit
    timeout: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """All different."""
        return tuple(one.name for one in self.rewards)

    def score(self, candidates: Sequence[Candidates], state: TrainerState | None = None) -> RewardColumns:
        """Rewards of sampled answers, one per candidates, of role `answer`, with the policy's `tokens`; functions are asked about all at once."""
        given = [_sampled(one, state) for one in candidates]
        findings = [Findings() for _ in self.rewards]
        found = self._ask(given, findings)
        sequence = torch.full((len(given), len(self.rewards)), math.nan, dtype=torch.float64)
        std = sequence.clone()
        tokens = [np.zeros((len(one.tokens.responses[ROLE].ids), len(self.rewards))) for one in given if one.tokens is not None]
        spans: list[dict[str, Sequence[CharSpan]]] = [{} for _ in given]
        members: dict[str, list[np.ndarray | None]] = {name: [None] * len(given) for name in self.names}
        unjudged, truncated = Counter(dict.fromkeys(self.names, 0)), Counter(dict.fromkeys(self.names, 0))
        for column, (reward, answers) in enumerate(zip(self.rewards, found, strict=True)):
            for row, (one, said) in enumerate(zip(given, answers, strict=True)):
                scores = said.get(ROLE)
                sequence[row, column], tokens[row][:, column] = reward.read(scores, one)
                if scores is None:
                    unjudged[reward.name] += 1
                    continue
                truncated[reward.name] += scores.truncated
                members[reward.name][row] = pack_members(scores.answer)
                if scores.answer.std is not None:
                    std[row, column] = float(scores.answer.std)
                if scores.spans:
                    spans[row][reward.name] = scores.spans
        warnings = [line for one, seen in zip(self.rewards, findings, strict=True) for line in _warnings(one, unjudged[one.name], len(given), seen)]
        several = {name: _stack_members(own) for name, own in members.items() if any(one is not None for one in own)}
        return RewardColumns(sequence, tokens, None if bool(std.isnan().all()) else std, spans, unjudged, truncated, warnings, several)

    def weigh(self, totals: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
        """The weighted sum of each answer's rewards; one that did not judge it counts as 0, NaN where none did."""
        judged = ~totals.isnan()
        summed = torch.where(judged, totals, 0.0) @ torch.tensor(self.weights, dtype=totals.dtype)
        return torch.where(judged.any(1), summed, torch.nan)

    def settle(self, sequence: Float[Tensor, "B n"], members: Mapping[str, Members]) -> Float[Tensor, "B n"]:
        """`sequence` of all answers of a buffer, with those rewards put in that depend on the other answers in it."""
        found = sequence.clone()
        for place, one in enumerate(self.rewards):
            if reads_batch(one.aggregate):
                own = check_members(one.name, members.get(one.name))
                whole, rest = aggregate_buffer(one.aggregate, own), torch.from_numpy(own[:, 0].mean(1))
                found[:, place] = sequence[:, place] + (whole - rest) if one.on_tokens else whole
        return found

    def _ask(self, given: Sequence[Candidates], findings: Sequence[Findings]) -> list[list[Found]]:
        """What every reward says; those that wait for others are asked first, all at once."""
        pairs = [(one.reward, seen) for one, seen in zip(self.rewards, findings, strict=True)]
        begun = [reward.begin(given, seen) for reward, seen in pairs]
        computed = [list(reward.score(given, seen)) if waits is None else [] for (reward, seen), waits in zip(pairs, begun, strict=True)]
        return [found if waits is None else list(waits) for found, waits in zip(computed, begun, strict=True)]

    def facts(self) -> Json:
        """For run.json: each reward's identity, with content hashes, and what changes its numbers."""
        rewards = [
            {"name": one.name, "weight": weight, "aggregate": to_json(one.aggregate), **one.reward.identity(), **one.reward.facts()}
            for one, weight in zip(self.rewards, self.weights, strict=True)
        ]
        return {"rewards": rewards, "credit": {"method": to_kebab(type(self.credit).__name__), **to_json(self.credit)}, "timeout": self.timeout}

    def describe(self) -> list[str]:
        """The same for a person, a line for each reward and for what it says of itself."""
        lines = []
        for one, weight in zip(self.rewards, self.weights, strict=True):
            where = "on tokens where it says so" if is_text_source(one.source) else "on tokens" if one.on_tokens else "at the end of the answer"
            lines.append(f"reward {one.name} ({one.source}), weight {weight:g}, {where}")
            lines += one.reward.describe()
        return lines


def open_rewards(
    sources: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    runtime: Callable[[], Runtime],
    max_length: int,
    credit: RolloutCredit | None = None,
    aggregate: OfOneAnswer | None = None,
    reference: str | None = None,
    reference_option: str = "--reward-reference",
    beta: float = 0.1,
    likelihood: Mode | None = None,
    timeout: float | None = None,
) -> Rewards:
    """The rewards of sources as `scoring.sources` lists them.

    weights: one per source; None: all 1. credit: None: terminal. aggregate: None: the mean. max_length: longest prompt + answer in tokens of
    rewards that read tokens. reference: the model that the policies among the sources were trained from; reward models stay what they are.
    timeout: seconds that one call of a function may take; None: no limit, and functions without `async` run in the caller's own thread.
    """
    if not sources:
        raise UsageError("no reward is given")
    credit, aggregate = credit or Terminal(), aggregate or MeanReward()
    own = tuple(1.0 for _ in sources) if weights is None else tuple(float(weight) for weight in weights)
    if len(own) != len(sources) or not all(math.isfinite(weight) for weight in own):
        raise UsageError(f"{len(sources)} rewards need as many finite weights; got {', '.join(f'{weight:g}' for weight in own) or 'none'}")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"a time limit for reward functions is above 0 s, got {timeout:g}")
    check_aggregate(aggregate, of_function=all(map(is_text_source, sources)), batched=True)
    options = RewardOptions(
        runtime=lambda: replace(runtime(), cache=None),  # sampled answers do not come again
        max_length=max_length,
        reference=reference,
        reference_option=reference_option,
        beta=beta,
        likelihood=likelihood,
        signal=None if isinstance(credit, Terminal) else credit,
        signal_option="credit",
        adds_up=True,
        timeout=timeout,
        block=None,
    )
    names = different_names([_name(source) for source in sources])
    rewards = tuple(_open(source, name, options, credit, aggregate) for source, name in zip(sources, names, strict=True))
    return Rewards(rewards, own, credit, timeout)


def _open(source: str, name: str, options: RewardOptions, credit: RolloutCredit, aggregate: OfOneAnswer) -> OnlineReward:
    if is_text_source(source):
        return OnlineReward(name, source, open_reward(source, options), True, MeanReward())
    if is_reward_model(source):
        options = replace(options, reference=None, likelihood=None)
    kind = find_source(source, options).name
    if kind != "reward model" and not isinstance(credit, (Terminal, Head)):
        raise UsageError(f"{source} is {kind}, which scores tokens itself: take credit:head, or credit:terminal for its score of the whole answer")
    return OnlineReward(name, source, open_reward(source, options), not isinstance(credit, Terminal), aggregate)


def _stack_members(own: Sequence[np.ndarray | None]) -> Members:
    """(B, 2, M), NaN for answers that were not judged."""
    known = next(one for one in own if one is not None)
    return np.stack([np.full_like(known, np.nan) if one is None else one for one in own])


def _name(source: str) -> str:
    kind, _, rest = source.partition(":")
    if kind == "measure":
        return rest.partition(":")[0]
    if kind == "classifier":
        return Path(rest).stem
    return source.rpartition(":")[2] if is_text_source(source) else Path(source).name


def different_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The names, repeated and `taken` ones with their number."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        found.append(next(one for one in chain([name], numbered) if one not in (*found, *taken)))
    return found


def _sampled(one: Candidates, state: TrainerState | None) -> Candidates:
    """With the answer's ids, whose end token the policy's tokens tell."""
    assert one.tokens is not None, "sampled answers come with the policy's tokens"
    ids = one.ids or {ROLE: [int(token) for token in one.tokens.responses[ROLE].ids]}
    return replace(one, ids=ids, trainer_state=state)


def _warnings(reward: OnlineReward, unjudged: int, answers: int, findings: Findings) -> list[str]:
    words = findings.in_words()  # of what dropped an answer
    told = f" ({words})" if words else ""
    if unjudged == answers and answers:
        return [f"reward {reward.name} judged none of {answers} answers: it gave none of them a number{told}"]
    return [f"reward {reward.name} could not read some answers{told}"] if told else []
