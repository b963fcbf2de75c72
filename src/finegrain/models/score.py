"""Token log-probabilities of a whole dataset under one frozen model, and their cache.

A cached value depends only on the model's content, the token ids, the mask and the precision it was computed in:
a new learning rate, output folder or loss recomputes nothing, a changed weight, token or truncation everything.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor

from finegrain.models.fingerprint import rows_fingerprint
from finegrain.models.packing import Branch, Group
from finegrain.models.permissions import allow_readers
from finegrain.models.scorer import Request, Scorer
from finegrain.ops.logprobs import TokenValues
from finegrain.types import Json, Ragged

VERIFIED_ROWS = 4
"""Number of rows scored again whenever a cache is read."""


@runtime_checkable
class AnswerTokens(Protocol):
    """One answer, tokenised."""

    @property
    def ids(self) -> np.ndarray:
        """(T,) token ids."""

    @property
    def mask(self) -> np.ndarray:
        """(T,) bool, the tokens that are scored."""


@runtime_checkable
class PromptWithAnswers(Protocol):
    """One prompt with its answers by role, tokenised."""

    @property
    def prompt(self) -> np.ndarray:
        """(P,) token ids."""

    @property
    def responses(self) -> Mapping[str, AnswerTokens]:
        """Answers by role."""


@dataclass(frozen=True)
class Precision:
    """The precision a pass is computed in: the autocast context, the name of its dtype, and the token budget of a micro-batch."""

    autocast: Callable[[], AbstractContextManager[None]]
    name: str
    micro_tokens: int


@dataclass
class ComputeUsage:
    """Forward passes outside training, for the run's record."""

    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def make_group(example: PromptWithAnswers, roles: Sequence[str]) -> Group:
    """The packed group of an example for some of its roles."""
    return Group(example.prompt, tuple(Branch(example.responses[role].ids, example.responses[role].mask) for role in roles))


def split_by_budget(tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Lists of consecutive indices whose token counts add up to at most `budget` (a larger single one gets its own list)."""
    parts: list[list[int]] = []
    total = 0
    for index, count in enumerate(tokens):
        if not parts or total + count > budget:
            parts.append([])
            total = 0
        parts[-1].append(index)
        total += count
    return parts


def score_rows(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """By role, log pi(y_t) in nats, one (T,) array per example, float32 or wider; 0 where the mask is False."""
    return _rows(scorer, examples, roles, precision, Request(), lambda values: values.logp)


def measure_entropies(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """By role, the entropy, nats, of the distribution that predicts each token, one (T,) array per example; 0 where the mask is False."""
    return _rows(scorer, examples, roles, precision, Request(entropy=True), _entropy)


def _entropy(values: TokenValues) -> Tensor:
    assert values.entropy is not None
    return values.entropy


def compute_token_features(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """By role, the hidden state after each token, one (T, H) array per example, float32 or wider; 0 where the mask is False."""
    return _rows(scorer, examples, roles, precision, Request(False, features=True), _features)


def _features(values: TokenValues) -> Tensor:
    assert values.features is not None
    return values.features


def compute_head_rows(scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> dict[str, Ragged]:
    """By role, the K outputs of the scorer's head at each token, one (T, K) array per example, float32 or wider; 0 where the mask is False."""
    return _rows(scorer, examples, roles, precision, Request(False, outputs=scorer.head), _outputs)


def _outputs(values: TokenValues) -> Tensor:
    assert values.outputs is not None, "the scorer has no head"
    return values.outputs


def _rows(
    scorer: Scorer,
    examples: Sequence[PromptWithAnswers],
    roles: Sequence[str],
    precision: Precision,
    request: Request,
    read: Callable[[TokenValues], Tensor],
) -> dict[str, Ragged]:
    """The values of `read` at the scored tokens. A prompt shared by several examples, and a repeated answer, is computed once."""
    shared = share_prompts(examples, roles, precision.micro_tokens)
    found: dict[str, Ragged] = {role: [np.zeros(0, dtype=np.float32)] * len(examples) for role in roles}
    was_training = scorer.training
    scorer.eval()
    with torch.no_grad(), precision.autocast():
        for part in split_by_budget([group.tokens for group, _ in shared], precision.micro_tokens):
            batch = [shared[index] for index in part]
            values = read(scorer([group for group, _ in batch], request))
            flat = (values if values.dtype == torch.float64 else values.float()).cpu().numpy()
            start = 0
            for branch, owners in (pair for group, owned in batch for pair in zip(group.branches, owned, strict=True)):
                own = np.zeros((len(branch.ids), *flat.shape[1:]), dtype=flat.dtype)
                count = int(branch.mask.sum())
                own[branch.mask] = flat[start : start + count]
                start += count
                for role, index in owners:
                    found[role][index] = own
    scorer.train(was_training)
    return found


def count_computed_tokens(examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision) -> int:
    """Number of tokens that `score_rows` computes for these rows."""
    return sum(group.tokens for group, _ in share_prompts(examples, roles, precision.micro_tokens))


class MeasuredAnswers(NamedTuple):
    """What one pass finds of the tokens of answers, one array per answer; float32 or wider, 0 where the mask is False."""

    logp: Ragged
    """(T,) log pi(y_t), nats."""
    values: Ragged | None
    """(T, K) value estimates before each token; None for a scorer without a value head."""


def measure_answers(
    scorer: Scorer, examples: Sequence[PromptWithAnswers], role: str, precision: Precision, *, temperature: float = 1.0
) -> MeasuredAnswers:
    """Log-probabilities at a sampling temperature, and the values of the scorer's value head where it has one, in one pass."""
    request = Request(values=scorer.value_head, temperature=temperature)
    found = _rows(scorer, examples, [role], precision, request, _logp_and_values)[role]
    return MeasuredAnswers([own[:, 0] for own in found], None if scorer.value_head is None else [own[:, 1:] for own in found])


def measure_values(critic: Scorer, examples: Sequence[PromptWithAnswers], role: str, precision: Precision) -> Ragged:
    """(T, K) value estimates of a critic before each token, one array per answer."""
    return _rows(critic, examples, [role], precision, Request(False, values=critic.value_head), _values)[role]


def _logp_and_values(values: TokenValues) -> Tensor:
    logp = values.logp[:, None]
    return logp if values.values is None else torch.cat([logp, values.values.to(logp.dtype)], -1)


def _values(values: TokenValues) -> Tensor:
    assert values.values is not None
    return values.values


Owners = list[tuple[str, int]]
"""(role, example index) of all users of one answer's values."""


def share_prompts(examples: Sequence[PromptWithAnswers], roles: Sequence[str], budget: int) -> list[tuple[Group, list[Owners]]]:
    """Every prompt once with its distinct answers, split into several groups where they exceed the token budget."""
    prompts: dict[bytes, dict[bytes, tuple[Branch, Owners]]] = {}
    for index, example in enumerate(examples):
        answers = prompts.setdefault(example.prompt.tobytes(), {})
        for role, branch in zip(roles, make_group(example, roles).branches, strict=True):
            answers.setdefault(branch.ids.tobytes() + branch.mask.tobytes(), (branch, []))[1].append((role, index))
    shared = []
    for answers in prompts.values():
        listed = list(answers.values())
        prompt = examples[listed[0][1][0][1]].prompt
        for part in split_by_budget([len(branch.ids) for branch, _ in listed], max(1, budget - len(prompt))):
            shared.append((Group(prompt, tuple(listed[place][0] for place in part)), [listed[place][1] for place in part]))
    return shared


def cache_key(fingerprint: str, examples: Sequence[PromptWithAnswers], roles: Sequence[str], arithmetic: str) -> str:
    """Name of the cache entry."""
    rows = ((group.prompt, *(array for branch in group.branches for array in (branch.ids, branch.mask))) for group in _groups(examples, roles))
    return hashlib.sha256(f"{fingerprint} {rows_fingerprint(rows)} {arithmetic}".encode()).hexdigest()


def _groups(examples: Sequence[PromptWithAnswers], roles: Sequence[str]) -> Iterator[Group]:
    return (make_group(example, roles) for example in examples)


def write_ragged(file: Path, columns: Mapping[str, Ragged]) -> None:
    """Writes ragged float32 or float64 columns as one safetensors file, complete or not at all; `OSError` where it cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, rows in columns.items():
        tensors[name] = np.concatenate([*rows, np.zeros(0, dtype=np.float32)])
        tensors[f"{name}.lengths"] = np.array([len(row) for row in rows], dtype=np.int64)
    part = file.with_name(f"{file.name}.part-{os.getpid()}")
    try:
        save_file(tensors, part, metadata={"sha256": _digest(tensors)})
        allow_readers(part)
        part.replace(file)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)


def read_ragged(file: Path) -> dict[str, Ragged] | None:
    """Reads what `write_ragged` wrote, memory-mapped; None where the file is absent, incomplete or damaged."""
    try:
        whole = np.memmap(file, dtype=np.uint8, mode="r")
        header_end = 8 + int(whole[:8].view(np.uint64)[0])
        header = json.loads(whole[8:header_end].tobytes())
        tensors = {name: _column(whole[header_end:], entry) for name, entry in header.items() if name != "__metadata__"}
        if header["__metadata__"]["sha256"] != _digest(tensors):
            return None
        lengths = {name: tensors[f"{name}.lengths"] for name in tensors if f"{name}.lengths" in tensors}
        if any((own < 0).any() or own.sum() != len(tensors[name]) for name, own in lengths.items()):
            return None
        return {name: np.split(tensors[name], np.cumsum(own)[:-1]) if len(own) else [] for name, own in lengths.items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _column(data: np.ndarray, entry: Json) -> np.ndarray:
    start, stop = entry["data_offsets"]
    return data[start:stop].view({"I64": np.int64, "F64": np.float64, "F32": np.float32}[entry["dtype"]])


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


Measure = Callable[[Scorer, Sequence[PromptWithAnswers], Sequence[str], Precision], dict[str, Ragged]]
"""The values of a frozen model to cache: `score_rows`, `measure_entropies` ..."""


def verify_cache(
    scorer: Scorer,
    cached: Mapping[str, Ragged],
    examples: Sequence[PromptWithAnswers],
    roles: Sequence[str],
    precision: Precision,
    tolerance: float,
    measure: Measure = score_rows,
) -> bool:
    """Whether a sample of rows, measured again, gives the cached values."""
    sample = np.unique(np.linspace(0, len(examples) - 1, VERIFIED_ROWS).astype(int))
    again = measure(scorer, [examples[index] for index in sample], roles, precision)
    if any(len(cached.get(role, [])) != len(examples) for role in roles):
        return False
    pairs = [(cached[role][index], values) for role in roles for index, values in zip(sample, again[role], strict=True)]
    if not all(stored.shape == values.shape and np.allclose(stored, values, atol=tolerance, rtol=0) for stored, values in pairs):
        return False
    kinds = {role: again[role][0].dtype for role in roles}
    return all(row.dtype == kinds[role] for role in roles for row in cached[role])
