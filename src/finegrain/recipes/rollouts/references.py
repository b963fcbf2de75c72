"""What the policy is kept close to, or compared with: the start model, another checkpoint, an average of models.

A reference scores the answers of a buffer and nothing is cached: they do not come again.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from finegrain.configure import to_kebab
from finegrain.data.records import Example
from finegrain.errors import ModelError, UsageError
from finegrain.models.fingerprint import tokenizer_fingerprint
from finegrain.models.load import load_policy, master_dtype
from finegrain.models.load_errors import explain_load_errors
from finegrain.models.probe import make_scorer
from finegrain.models.score import Precision, measure_answers
from finegrain.models.scorer import Scorer, causal_lm, silence_dropout
from finegrain.online.references import ModelSoup, MovingAverage, OtherModel, ReferenceChoice, StartModel
from finegrain.recipes.session import Session
from finegrain.types import Ragged
from finegrain.weights.soup import interpolate


@runtime_checkable
class Reference(Protocol):
    """Scores answers."""

    def score(self, examples: Sequence[Example]) -> Ragged:
        """(T,) log-probabilities, nats, at the sampling temperature, one array per answer."""

    def advance(self, buffer: int) -> None:
        """A buffer of this number is done."""

    def state(self) -> Mapping[str, Tensor]:
        """What a checkpoint must hold for it."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from it."""


@dataclass
class Frozen:
    """A model that stays as it is."""

    scorer: Scorer
    precision: Precision
    temperature: float

    def score(self, examples: Sequence[Example]) -> Ragged:
        """As `Reference`."""
        return measure_answers(self.scorer, examples, "answer", self.precision, temperature=self.temperature).logp

    def advance(self, buffer: int) -> None:
        """Nothing changes."""

    def state(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to do."""


@dataclass
class AdapterOff(Frozen):
    """The policy without its adapter: no second copy of the weights."""

    def score(self, examples: Sequence[Example]) -> Ragged:
        """As `Reference`."""
        with self.scorer.model.disable_adapter(), _without_values(self.scorer):
            return super().score(examples)


@dataclass
class FollowingCopy(Frozen):
    """A copy of the policy whose weights follow it."""

    policy: Scorer = field(kw_only=True)
    settings: MovingAverage = field(kw_only=True)

    def advance(self, buffer: int) -> None:
        """decay * average + (1 - decay) * policy, every so many buffers."""
        if (buffer + 1) % self.settings.every:
            return
        with torch.no_grad():
            for own, new in zip(self.scorer.model.parameters(), self.policy.model.parameters(), strict=True):
                own.mul_(self.settings.decay).add_(new.to(own.dtype), alpha=1 - self.settings.decay)

    def state(self) -> Mapping[str, Tensor]:
        """The average."""
        return {name: tensor.detach().cpu() for name, tensor in self.scorer.model.named_parameters()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it back."""
        with torch.no_grad():
            for name, own in self.scorer.model.named_parameters():
                own.copy_(tensors[name])


@contextmanager
def _without_values(scorer: Scorer) -> Iterator[None]:
    head, scorer.value_head = scorer.value_head, None
    try:
        yield
    finally:
        scorer.value_head = head


def open_reference(session: Session, choice: ReferenceChoice, *, temperature: float) -> Reference:
    """The reference, before the first update."""
    assert session.scorer is not None
    own, precision = session.scorer, session.precision
    if isinstance(choice, StartModel):
        if causal_lm(own.model) is not own.model:
            return AdapterOff(own, precision, temperature)
        return Frozen(_copy(own), precision, temperature)
    if isinstance(choice, MovingAverage):
        return FollowingCopy(_copy(own), precision, temperature, policy=own, settings=choice)
    paths = list_paths(choice)
    if not paths or not all(paths):
        option = "reference.path" if isinstance(choice, OtherModel) else "reference.paths"
        raise UsageError(f"reference:{to_kebab(type(choice).__name__)} needs a checkpoint: give --{option}")
    models = [_load(session, path, whole=isinstance(choice, ModelSoup)) for path in paths]
    if isinstance(choice, ModelSoup) and len(models) == 1:
        models.insert(0, _whole(copy.deepcopy(own.model), session.policy.source))
        paths.insert(0, session.policy.source)
    _average(models, paths, choice.weights if isinstance(choice, ModelSoup) else ())
    return Frozen(_scorer(session, models[0]), precision, temperature)


def list_paths(choice: ReferenceChoice) -> list[str]:
    """Checkpoints that a reference is made of, beside the start model."""
    return [choice.path] if isinstance(choice, OtherModel) else list(choice.paths) if isinstance(choice, ModelSoup) else []


def open_start(session: Session, *, temperature: float) -> Reference:
    """The policy as the run begins, its adapter included: what a leash to an average leaves unmeasured."""
    assert session.scorer is not None
    return Frozen(_copy(session.scorer), session.precision, temperature)


def open_watched(session: Session, path: str, *, temperature: float) -> Reference:
    """A model whose distance is logged and nothing else."""
    return Frozen(_scorer(session, _load(session, path)), session.precision, temperature)


def _copy(scorer: Scorer) -> Scorer:
    """The model alone, frozen: what stands beside it, such as a value head, stays with the policy."""
    frozen = Scorer(copy.deepcopy(scorer.model), scorer.path)
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen.eval()


def _load(session: Session, path: str, *, whole: bool = False) -> Any:
    policy = load_policy(path, master=master_dtype(session.precision.name), trust_remote_code=session.trust_remote_code)
    if tokenizer_fingerprint(policy.tokenizer) != tokenizer_fingerprint(session.policy.tokenizer):
        raise ModelError(f"{path} has another tokenizer than the policy, so it cannot score its tokens")
    model = _whole(policy.model, path) if whole else policy.model
    model.to(session.device).requires_grad_(False)
    silence_dropout(model)
    return model


def _whole(model: Any, path: str) -> Any:
    """The model with its adapter merged, so that an average is one of weights: averaged factors of adapters are no average of their products."""
    if causal_lm(model) is not model:
        with explain_load_errors(f"the adapter of {path} cannot be merged into its base"):
            model = model.merge_and_unload()
    return model.requires_grad_(False)


def _average(models: Sequence[Any], paths: Sequence[str], weights: Sequence[float]) -> None:
    """Put the weighted mean of all weights into the first model; its buffers stay."""
    if weights and len(weights) != len(models):
        raise UsageError(f"{len(weights)} --reference.weights for {len(models)} models ({', '.join(paths)}); give one per model")
    if len(models) < 2:
        return
    shares = [weight / sum(weights) for weight in weights] or [1 / len(models)] * len(models)
    named = [dict(model.named_parameters()) for model in models]
    if extra := sorted(set().union(*named) - named[0].keys()):
        raise ModelError(f"{', '.join(paths)}: a soup needs models of one shape, and {extra[0]} is not in all of them")
    with torch.no_grad():
        for name, own in named[0].items():
            tensors = [other.get(name) for other in named]
            if any(tensor is None or tensor.shape != own.shape for tensor in tensors):
                raise ModelError(f"{', '.join(paths)}: a soup needs models of one shape, and {name} differs")
            own.copy_(interpolate([tensor.float() for tensor in tensors if tensor is not None], shares).to(own.dtype))


def _scorer(session: Session, model: Any) -> Scorer:
    return make_scorer(model.eval(), longest=session.max_length, precision=session.precision)[0]
