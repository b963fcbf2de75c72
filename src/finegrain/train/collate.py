"""From rows to what a scorer reads, and from its flat values to the `Pair` an objective sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finegrain.data.records import Example
from finegrain.data.store import token_lengths
from finegrain.models.packing import Group, Slots, make_slots
from finegrain.models.score import make_group
from finegrain.ops.logprobs import TokenValues
from finegrain.ops.precision import place_on
from finegrain.types import Pair, Ragged, SampledTokens, Side, TokenColumns

ABSENT: Mapping[str, np.number[Any]] = {"weight": np.float32(1.0), "reward": np.float32(0.0), "segment": np.int64(-1), "labels": np.float32(0.0)}
"""What a token of an answer without credit has: it trains unmasked, and has neither a reward, a segment nor labels."""


@dataclass(frozen=True)
class TrainingSet:
    """Tokenised rows with the columns made for them."""

    examples: Sequence[Example]
    reference: Mapping[str, Ragged] = field(default_factory=dict)
    """By role, reference log-probabilities (T,) of every row."""
    token_columns: Mapping[str, TokenColumns] = field(default_factory=dict)
    """By role, what a credit, an objective or a head made for every token: weights, rewards, segments."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(N,) numbers of the rows that were made for them, beside those they came with."""
    categories: Mapping[str, int] = field(default_factory=dict)
    """Number of texts of the columns that stand for texts."""
    sampled: Mapping[str, Mapping[str, Ragged]] = field(default_factory=dict)
    """By role and field of `types.SampledTokens`, (T,) or (T, K) arrays of every row; {} for rows of a data file."""

    @cached_property
    def column_fields(self) -> Mapping[str, tuple[str, ...]]:
        """By role, what its token columns hold for any row: the same fields in every micro-batch, whichever rows it holds."""
        return {role: tuple(name for name in ABSENT if name in own.filled) for role, own in self.token_columns.items()}

    @cached_property
    def labels_wide(self) -> Mapping[str, tuple[int, ...]]:
        """By role, (K,) of its labels of tokens."""
        found = {role: next((own for own in columns.labels or () if own is not None), None) for role, columns in self.token_columns.items()}
        return {role: labels.shape[1:] for role, labels in found.items() if labels is not None}

    def packed_tokens(self, roles: Sequence[str]) -> np.ndarray:
        """(N,) tokens computed per row: of the prompt, and of the answers that branch from it."""
        prompts, answers = token_lengths(self.examples, roles)
        return sum(answers, start=prompts)


@dataclass(frozen=True)
class Batch:
    """Rows of one micro-batch for some roles, before the model has seen them."""

    rows: tuple[int, ...]
    groups: tuple[Group, ...]
    slots: Mapping[str, Slots]
    columns: Mapping[str, Tensor]
    extras: Mapping[str, Mapping[str, Tensor]]
    """By role, the (B, T) tensors that come from columns: ref_logp, weight, reward, segment."""
    sampled: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """By role, the fields of `types.SampledTokens`, (B, T) or (B, T, K)."""

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return sum(group.tokens for group in self.groups)

    def pair(
        self,
        values: TokenValues,
        *,
        statistics: Mapping[str, Tensor] | None = None,
        modules: Mapping[str, nn.Module] | None = None,
        state: Mapping[str, Tensor] | None = None,
        prompts: bool = False,
    ) -> Pair:
        """The objective's view of the rows, given the policy's values of their tokens."""
        prompt_logp, prompt_mask = self._prompts(values) if prompts else (None, None)
        sides = {}
        for role, slot in self.slots.items():
            sides[role] = Side(
                logp=slot.spread(values.logp),
                mask=slot.mask,
                entropy=None if values.entropy is None else slot.spread(values.entropy),
                kl=None if values.kl is None else slot.spread(values.kl),
                reference_kl=None if values.reference_kl is None else slot.spread(values.reference_kl),
                outputs=None if values.outputs is None else slot.spread(values.outputs),
                features=None if values.features is None else slot.spread(values.features),
                reading=None if values.reading is None else slot.spread(values.reading),
                q=None if values.q is None else slot.spread(values.q),
                q_logp=None if values.q_logp is None else slot.spread(values.q_logp),
                prompt_logp=prompt_logp,
                prompt_mask=prompt_mask,
                values=None if values.values is None else slot.spread(values.values),
                sampled=_sampled(self.sampled.get(role), values.logp),
                **{name: _as_wide_as(values.logp, tensor) for name, tensor in self.extras[role].items()},
            )
        return Pair(sides=sides, columns=self.columns, statistics=statistics or {}, modules=modules or {}, state=state or {})

    def zeros(self, dtype: torch.dtype, outputs: int = 0, features: int = 0, reading: int = 0, estimates: int = 0) -> TokenValues:
        """Values that are 0 everywhere: for counting denominators, before the policy has seen the rows."""
        count = sum(int(branch.mask.sum()) for group in self.groups for branch in group.branches)
        count += sum(len(group.prompt) - 1 for group in self.groups)
        device = next(iter(self.slots.values())).mask.device
        zeros = torch.zeros(count, dtype=dtype, device=device)
        wide = {width: zeros[:, None].expand(count, width) if width else None for width in (outputs, features, reading, estimates)}
        return TokenValues(zeros, zeros, zeros, zeros, wide[outputs], zeros, zeros, wide[features], wide[reading], wide[estimates])

    def _prompts(self, values: TokenValues) -> tuple[Tensor, Tensor]:
        lengths = np.array([len(group.prompt) - 1 for group in self.groups])
        start = sum(int(branch.mask.sum()) for group in self.groups for branch in group.branches)
        mask = np.arange(lengths.max()) < lengths[:, None]
        device = values.logp.device
        rows, columns = (torch.from_numpy(places).to(device) for places in np.nonzero(mask))
        empty = torch.zeros(mask.shape, dtype=values.logp.dtype, device=device)
        return empty.index_put((rows, columns), values.logp[start : start + int(lengths.sum())]), torch.from_numpy(mask).to(device)


def collate(
    data: TrainingSet, rows: Sequence[int], roles: Sequence[str], *, positions: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> Batch:
    """The batch of some rows; `positions` are their places within the optimiser step."""
    examples = [data.examples[row] for row in rows]
    groups = tuple(make_group(example, roles) for example in examples)
    masks = [[branch.mask for branch in group.branches] for group in groups]
    if data.sampled:
        groups = _share_prompts(groups)
    placed = {role: make_slots(masks, index, device) for index, role in enumerate(roles)}
    names = set.intersection(*(set(example.columns) for example in examples)) if examples else set()
    columns = {name: _numbers([example.columns[name] for example in examples], device) for name in sorted(names)}
    columns |= {name: _numbers(values[list(rows)].tolist(), device) for name, values in data.columns.items()}
    columns["position"] = _numbers(list(range(len(rows))) if positions is None else list(positions), device)
    columns["row"] = _numbers([example.row for example in examples], device)
    for role in set(roles) & set(data.token_columns):
        columns[f"annotated/{role}"] = _numbers([float(data.token_columns[role].annotated[row]) for row in rows], device)
    extras = {role: _side_columns(data, rows, examples, role, placed[role].mask.shape, device) for role in roles}
    sampled = {role: _sampled_columns(own, rows, placed[role].mask.shape, device) for role, own in data.sampled.items() if role in roles}
    return Batch(tuple(rows), groups, placed, columns, extras, sampled)


def _share_prompts(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Neighbours with one prompt as one group: the answers, and so the order of the scored tokens, stay as they are."""
    shared: list[Group] = []
    for group in groups:
        if shared and np.array_equal(shared[-1].prompt, group.prompt):
            shared[-1] = Group(group.prompt, shared[-1].branches + group.branches)
        else:
            shared.append(group)
    return tuple(shared)


def _sampled_columns(fields: Mapping[str, Ragged], rows: Sequence[int], shape: torch.Size, device: torch.device | str) -> dict[str, Tensor]:
    arrays = {name: [values[row] for row in rows] for name, values in fields.items()}
    return {name: _padded(own, (*shape, *own[0].shape[1:]), 0.0, device) for name, own in arrays.items()}


def _sampled(fields: Mapping[str, Tensor] | None, like: Tensor) -> SampledTokens | None:
    return None if fields is None else SampledTokens(**{name: _as_wide_as(like, values) for name, values in fields.items()})


def _as_wide_as(like: Tensor, values: Tensor) -> Tensor:
    """Numbers of a column in float64 where the policy computes in it: their float32 sums would depend on the padding."""
    return values.to(like.dtype) if like.dtype == torch.float64 and values.is_floating_point() else values


def _numbers(values: Sequence[float] | Sequence[int], device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _side_columns(
    data: TrainingSet, rows: Sequence[int], examples: Sequence[Example], role: str, shape: torch.Size, device: torch.device | str
) -> dict[str, Tensor]:
    lengths = [len(example.responses[role].ids) for example in examples]
    found: dict[str, Tensor] = {}
    if role in data.reference:
        found["ref_logp"] = _padded([data.reference[role][row] for row in rows], shape, 0.0, device)
    for name in data.column_fields.get(role, ()):
        arrays = [getattr(data.token_columns[role], name)[row] for row in rows]
        absent, wide = ABSENT[name], data.labels_wide.get(role, ()) if name == "labels" else ()
        filled = [np.full((length, *wide), absent) if array is None else array for array, length in zip(arrays, lengths, strict=True)]
        found[name] = _padded(filled, (*shape, *wide), absent, device)
    return found


def _padded(arrays: Sequence[np.ndarray], shape: Sequence[int], fill: float | np.number[Any], device: torch.device | str) -> Tensor:
    out = np.full(tuple(shape), fill, dtype=arrays[0].dtype if arrays else np.float32)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return place_on(torch.from_numpy(out), device)
