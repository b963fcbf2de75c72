"""A reward-model checkpoint as a judge: ours with its whole head, or a stock classification model of others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from finegrain import catalog
from finegrain.configure import from_json
from finegrain.data.records import Example
from finegrain.errors import FinegrainError, ModelError
from finegrain.models.adapters import take_adapter_out
from finegrain.models.bounds import WithBounds, clipped_by_bounds
from finegrain.models.layer_posterior import AnswerVariance, answer_variance, has_layer_posterior
from finegrain.models.load import check_tokens, master_dtype
from finegrain.models.posterior import said_with_std
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import SEQUENCE, RewardModel, Stock, is_reward_model, load_reward_model
from finegrain.models.score import group_of
from finegrain.models.scorer import silence_dropout
from finegrain.ops.readout import Mean
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.location import LocationNormaliser
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.rewards.token import Token
from finegrain.scoring.outputs import Asked
from finegrain.scoring.records import Judged, check_finite
from finegrain.scoring.runtime import Runtime
from finegrain.scoring.segmentation import parts_of
from finegrain.scoring.signals import Head, RewardSignal
from finegrain.scoring.stock_number import before_padding, check_causal, check_number, ids_of, padding_of
from finegrain.types import Json

BLOCK = 64
"""Examples that are scored, and held, at once."""


@dataclass(frozen=True)
class RewardJudge:
    """A reward model."""

    asked: Asked
    tokenizer: Any
    signal: RewardSignal
    variance: AnswerVariance | None = None
    """What a posterior over the model's adapter leaves open of an answer's score; None where none was fitted."""

    of_others: Stock | None = None
    """The stock class of a model that others made, whose own number is compared with ours; None for models of ours."""

    def __call__(self, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[Mapping[str, Judged]]:
        """By role, example after example."""
        if self.of_others is not None:
            return self._of_others(self.of_others, examples, roles)
        return self._judged(examples, roles)

    def _of_others(self, stock: Stock, examples: Sequence[Example], roles: Sequence[str]) -> Iterator[Mapping[str, Judged]]:
        """As the stock class reads them; one answer is compared with its own number first."""
        pad, stream = padding_of(self.asked, stock), iter(examples)
        for first in islice(stream, 1):
            check_causal(self.asked.scorer.model, self.asked.precision, self.asked.name, ids_of(self.asked, first, roles[0]))
            whole = (example if pad is None else before_padding(example, roles, pad) for example in chain([first], stream))
            for place, found in enumerate(self._judged(whole, roles)):
                if place == 0 and not isinstance(self.asked.head, WithBounds):  # clipped scores are no stock number, and are not meant to be
                    check_number(self.asked, stock, first, roles[0], found[roles[0]])
                yield found

    def _judged(self, examples: Iterable[Example], roles: Sequence[str]) -> Iterator[Mapping[str, Judged]]:
        stream = iter(examples)
        while block := list(islice(stream, BLOCK)):
            check_tokens(self.asked.scorer.model, self.tokenizer, block, roles)
            for example, found in zip(block, self.signal(self.asked, block, roles), strict=True):
                yield check_finite(example, found if self.variance is None else _less_sure(found, self.variance(group_of(example, tuple(found)))))

    def facts(self) -> Json:
        """How segments or steps were found, or the bounds that answers are read behind."""
        if isinstance(self.asked.head, WithBounds):
            guard = self.asked.head.guard
            return {"bounds": {"ceiling": guard.ceiling, "threshold": guard.threshold}}
        return {} if self.asked.parts is None else self.asked.parts.facts()

    def words(self) -> list[str]:
        """The same for a person."""
        if isinstance(self.asked.head, WithBounds):
            guard = self.asked.head.guard
            return [f"bounds: features are clipped; no score exceeds {guard.ceiling:.4g}, and a loss of more than {guard.threshold:.4g} is flagged"]
        return [] if self.asked.parts is None else self.asked.parts.words()

    def plainly(self, micro_tokens: int) -> "RewardJudge":
        """The same with other batches."""
        parts = None if self.asked.parts is None else self.asked.parts.anew()
        return replace(self, asked=replace(self.asked, precision=replace(self.asked.precision, micro_tokens=micro_tokens), parts=parts))


def open_reward_model(runtime: Runtime, source: str, *, longest: int, signal: RewardSignal | None = None) -> RewardJudge:
    """The reward model of a checkpoint folder or Hub name; `longest`: tokens of the longest row to come."""
    try:
        model = load_reward_model(source, master=master_dtype(runtime.precision.name))
    except ModelError as error:
        hint = "" if is_reward_model(source) else "; for the implicit reward of a policy give --reference, the model it was trained from"
        raise ModelError(f"{error}{hint}") from error
    source, head = model.policy.source, head_of(model)  # of a Hub name, the folder of its copy here
    signal = signal or Head()
    signal.check(head)
    silence_dropout(model.policy.model)
    model.policy.model.to(runtime.device).eval()
    head, module = clipped_by_bounds(*said_with_std(head, model.head, source), source)
    unsure = has_layer_posterior(Path(source))
    network = take_adapter_out(model.policy.model, Path(source)).eval() if unsure else model.policy.model
    scorer, _ = make_scorer(network, longest=longest, head=module.to(runtime.device))
    parts = parts_of(runtime, head, model.facts, source, longest)
    variance = answer_variance(Path(source), scorer, head, module) if unsure else None
    asked = Asked(scorer, head, runtime.precision, source, parts, _location(model))
    return RewardJudge(asked, model.policy.tokenizer, signal, variance, None if model.facts else model.stock)


def _less_sure(found: Mapping[str, Judged], variances: Sequence[float]) -> Mapping[str, Judged]:
    """The judgements with what a posterior leaves open added to the answers' own variance; of tokens it says nothing."""
    wider = {}
    for (role, one), variance in zip(found.items(), variances, strict=True):
        own = torch.zeros_like(one.answer.mean) if one.answer.std is None else one.answer.std
        wider[role] = one._replace(answer=one.answer._replace(std=(own.double().square() + variance).sqrt()))
    return wider


def _location(model: RewardModel) -> LocationNormaliser | None:
    """The checkpoint's normaliser of segment scores, where it has one."""
    told = model.facts.get("location")
    if told is None:
        return None
    try:
        found: LocationNormaliser = from_json(LocationNormaliser, told, "reward_head.json location")
    except (FinegrainError, TypeError, AttributeError) as error:
        raise ModelError(f"{model.policy.source} says of its segments' scale {told!r}, which cannot be read: {error}") from error
    return found


def head_of(model: RewardModel) -> RewardHead:
    """What the outputs mean: as the checkpoint says; of others' models one number per answer, or per token with their mean as score."""
    if not model.facts:
        return SequenceHead() if model.stock is SEQUENCE else Token(readout=Mean())
    told = model.facts.get("head")
    try:
        assert isinstance(told, dict)
        settings = {name: value for name, value in told.items() if name != "method"}
        head: RewardHead = from_json(catalog.load("head", str(told.get("method"))), settings, "reward_head.json")
    except (AssertionError, FinegrainError, TypeError) as error:
        raise ModelError(f"{model.policy.source} says of its head {told!r}, which this version does not know: {error}") from error
    return head
