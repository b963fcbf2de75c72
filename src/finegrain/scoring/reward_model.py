"""A reward-model checkpoint as a reward: ours with its whole head, or a stock classification model of others."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from finegrain import catalog
from finegrain.configure import from_json
from finegrain.credit.reward_signals import Head, RewardSignal
from finegrain.data.records import Example
from finegrain.errors import FinegrainError, ModelError
from finegrain.models.adapters import take_adapter_out
from finegrain.models.layer_posterior import answer_variance, has_layer_posterior
from finegrain.models.load import Policy, check_tokens, master_dtype
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import FACTS_FILE, SEQUENCE, RewardModel, Stock, is_reward_model, load_reward_model
from finegrain.models.scorer import silence_dropout
from finegrain.ops.location import LocationNormaliser
from finegrain.ops.readout import Mean
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.rewards.token import Token
from finegrain.scoring.adapters import LayerUncertainty, attach_adapters
from finegrain.scoring.outputs import LoadedRewardModel
from finegrain.scoring.records import BLOCK, Scores, check_finite
from finegrain.scoring.runtime import Runtime, identify_weights
from finegrain.scoring.segmentation import open_segmentation
from finegrain.scoring.signals import Densest, check_signal
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.stock_number import before_padding, check_causal, check_number, ids_of, padding_of
from finegrain.scoring.tokens import TokenisedReward, TokenReader, group_by_roles, is_cut
from finegrain.types import Json

SCORING = ("head", "location")
"""Entries of a checkpoint's facts that change its scores, beside the model that cuts its segments."""


@dataclass(frozen=True, eq=False)
class ModelReward(TokenisedReward):
    """A reward model."""

    model: LoadedRewardModel
    reader: TokenReader
    signal: RewardSignal | Densest
    stock: Stock | None = None
    """The stock class of a model that others made, whose own number is compared with ours; None for models of ours."""

    def score_examples(self, examples: Sequence[Example]) -> Iterator[Mapping[str, Scores]]:
        """By role, example after example."""
        stream = (examples[place] for place in range(len(examples)))
        return self._in_blocks(stream, lambda example: example) if self.stock is None else self._as_stock(self.stock, stream)

    def _as_stock(self, stock: Stock, stream: Iterator[Example]) -> Iterator[Mapping[str, Scores]]:
        """As the stock class reads them; one answer is compared with its own number first."""
        pad = padding_of(self.model, stock)
        for first in islice(stream, 1):
            role = next(iter(first.responses))
            check_causal(self.model.scorer.model, self.model.precision, self.model.name, ids_of(self.model, first, role))
            read = (lambda example: example) if pad is None else partial(before_padding, pad=pad)
            for place, found in enumerate(self._in_blocks(chain([first], stream), read)):
                if place == 0 and all(adapter.keeps_mean for adapter in self.model.adapters):
                    check_number(self.model, stock, first, role, found[role])
                yield found

    def _in_blocks(self, examples: Iterable[Example], read: Callable[[Example], Example]) -> Iterator[Mapping[str, Scores]]:
        """`read` says which of an example's tokens are scored."""
        stream = iter(examples)
        while block := list(islice(stream, BLOCK)):
            found: list[Mapping[str, Scores]] = [{}] * len(block)
            scored = [read(example) for example in block]
            for roles, places in group_by_roles(scored):
                own = [scored[place] for place in places]
                check_tokens(self.model.scorer.model, self.tokenizer, own, roles)
                for place, scores in zip(places, self.signal(self.model, own, roles), strict=True):
                    found[place] = scores
            for example, own_tokens, scores in zip(block, scored, found, strict=True):
                for adapter in self.model.adapters:
                    scores = adapter.on_prompt(own_tokens, scores)
                yield self._finished(example, scores)

    def _finished(self, example: Example, scores: Mapping[str, Scores]) -> Mapping[str, Scores]:
        found = {}
        for role, one in scores.items():
            response = example.responses[role]
            truncated = is_cut(response, self.tokenizer.eos_token_id)
            found[role] = check_finite(example.row, role, one._replace(response=response, truncated=truncated))
        return found

    def facts(self) -> Json:
        """How segments or steps were found, and what adapters did."""
        own = {} if self.model.segmentation is None else self.model.segmentation.facts()
        return {**own, **{name: fact for adapter in self.model.adapters for name, fact in adapter.facts().items()}}

    def describe(self) -> list[str]:
        """The same for a person."""
        own = [] if self.model.segmentation is None else self.model.segmentation.describe()
        return [*own, *(line for adapter in self.model.adapters for line in adapter.describe())]

    def identity(self) -> Json:
        """Hashes of weights and tokenizer, what the head means, the longest row and the arithmetic."""
        source, precision = self.model.name, self.model.precision
        policy = Policy(self.model.scorer.model, self.tokenizer, source, master_dtype(precision.name))
        facts_file = Path(source) / FACTS_FILE
        facts = json.loads(facts_file.read_text()) if facts_file.exists() else {}
        own = identify_weights(policy, precision, self.reader.max_length)
        return {
            "kind": "reward model",
            "source": source,
            "weights": own.pop("weights"),
            **{name: facts.get(name) for name in SCORING},
            "start_model": (facts.get("start_model") or {}).get("sha256"),
            **own,
        }

    def with_micro_batch(self, tokens: int) -> "ModelReward":
        """The same with other batches."""
        segmentation = None if self.model.segmentation is None else self.model.segmentation.fresh()
        return replace(self, model=replace(self.model, precision=replace(self.model.precision, micro_tokens=tokens), segmentation=segmentation))


def open_reward_model(sources: Sequence[str], options: RewardOptions) -> ModelReward:
    """The reward model of a checkpoint folder or Hub name."""
    (source,) = sources
    runtime, named = options.runtime(), options.reference_option
    checked = partial(check_signal, option=options.signal_option, adds_up=options.adds_up)
    return load_model_reward(runtime, source, max_length=options.max_length, signal=options.signal, reference_option=named, check=checked)


def load_model_reward(
    runtime: Runtime,
    source: str,
    *,
    max_length: int,
    signal: RewardSignal | Densest | None = None,
    reference_option: str = "--reference",
    check: Callable[[RewardSignal | Densest, RewardHead], None] = check_signal,
) -> ModelReward:
    """The same with its models placed and computed as the runtime says; `check` raises UsageError for a signal that the head does not give."""
    try:
        loaded = load_reward_model(source, master=master_dtype(runtime.precision.name))
    except ModelError as error:
        hint = "" if is_reward_model(source) else f"; for the implicit reward of a policy give {reference_option}, the model it was trained from"
        raise ModelError(f"{error}{hint}") from error
    source, head = loaded.policy.source, head_of(loaded)  # of a Hub name, the folder of its copy here
    if signal is not None:
        check(signal, head)
    signal = signal or Head()
    silence_dropout(loaded.policy.model)
    loaded.policy.model.to(runtime.device).eval()
    head, module, adapters = attach_adapters(head, loaded.head, Path(source))
    over_layers = has_layer_posterior(Path(source))
    network = take_adapter_out(loaded.policy.model, Path(source)).eval() if over_layers else loaded.policy.model
    scorer, _ = make_scorer(network, longest=max_length, head=module.to(runtime.device))
    if over_layers:
        adapters = (*adapters, LayerUncertainty(answer_variance(Path(source), scorer, head, module)))
    segmentation = open_segmentation(runtime, head, loaded.facts, source, max_length)
    model = LoadedRewardModel(scorer, head, runtime.precision, source, segmentation, read_location(loaded), adapters)
    reader = TokenReader(loaded.policy.tokenizer, max_length, takes_ids=segmentation is None)
    return ModelReward(model, reader, signal, None if loaded.facts else loaded.stock)


def read_location(model: RewardModel) -> LocationNormaliser | None:
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
