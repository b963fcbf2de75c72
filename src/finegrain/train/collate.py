"""From rows to what a scorer reads, and from its flat values to the `Pair` an objective sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from finegrain.data.records import Example
from finegrain.models.packing import Group, Slots, slots
from finegrain.models.score import group_of
from finegrain.ops.logprobs import TokenValues
from finegrain.types import CreditColumns, Pair, Ragged, Side


@dataclass(frozen=True)
class TrainingSet:
    """Tokenised rows with the columns made for them."""

    examples: Sequence[Example]
    reference: Mapping[str, Ragged] = field(default_factory=dict)
    """By role, reference log-probabilities (T,) of every row."""
    credit: Mapping[str, CreditColumns] = field(default_factory=dict)

    def packed_tokens(self, roles: Sequence[str]) -> np.ndarray:
        """(N,) tokens computed per row."""
        return np.array([group_of(example, roles).tokens for example in self.examples], dtype=np.int64)


@dataclass(frozen=True)
class Batch:
    """Rows of one micro-batch for some roles, before the model has seen them."""

    rows: tuple[int, ...]
    groups: tuple[Group, ...]
    slots: Mapping[str, Slots]
    columns: Mapping[str, Tensor]
    extras: Mapping[str, Mapping[str, Tensor]]
    """By role, the (B, T) tensors that come from columns: ref_logp, weight, reward, segment."""

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return sum(group.tokens for group in self.groups)

    def pair(
        self,
        values: TokenValues | None,
        *,
        statistics: Mapping[str, Tensor] | None = None,
        modules: Mapping[str, nn.Module] | None = None,
        state: Mapping[str, Tensor] | None = None,
        prompts: bool = False,
    ) -> Pair:
        """The objective's view; without values all log-probabilities are 0 (for counting denominators)."""
        values = values if values is not None else self._zeros()
        prompt_logp, prompt_mask = self._prompts(values) if prompts else (None, None)
        sides = {}
        for role, slot in self.slots.items():
            spread = lambda flat, slot=slot: None if flat is None else slot.spread(flat)
            sides[role] = Side(
                logp=slot.spread(values.logp),
                mask=slot.mask,
                entropy=spread(values.entropy),
                kl=spread(values.kl),
                prompt_logp=prompt_logp,
                prompt_mask=prompt_mask,
                **self.extras[role],
            )
        return Pair(sides=sides, columns=self.columns, statistics=statistics or {}, modules=modules or {}, state=state or {})

    def _zeros(self) -> TokenValues:
        count = sum(int(branch.mask.sum()) for group in self.groups for branch in group.branches)
        count += sum(len(group.prompt) - 1 for group in self.groups)
        device = next(iter(self.slots.values())).mask.device
        zeros = torch.zeros(count, device=device)
        return TokenValues(zeros, zeros, zeros)

    def _prompts(self, values: TokenValues) -> tuple[Tensor, Tensor]:
        lengths = [len(group.prompt) - 1 for group in self.groups]
        start = sum(int(branch.mask.sum()) for group in self.groups for branch in group.branches)
        mask = torch.arange(max(lengths), device=values.logp.device)[None] < torch.tensor(lengths, device=values.logp.device)[:, None]
        rows, columns = mask.nonzero(as_tuple=True)
        empty = torch.zeros(mask.shape, dtype=values.logp.dtype, device=values.logp.device)
        return empty.index_put((rows, columns), values.logp[start : start + sum(lengths)]), mask


def collate(data: TrainingSet, rows: Sequence[int], roles: Sequence[str], *, positions: Sequence[int] | None = None, device: torch.device | str = "cpu") -> Batch:
    """The batch of some rows; `positions` are their places within the optimiser step."""
    examples = [data.examples[row] for row in rows]
    groups = tuple(group_of(example, roles) for example in examples)
    masks = [[branch.mask for branch in group.branches] for group in groups]
    placed = {role: slots(masks, index, device) for index, role in enumerate(roles)}
    names = set.intersection(*(set(example.columns) for example in examples)) if examples else set()
    columns = {name: _numbers([example.columns[name] for example in examples], device) for name in sorted(names)}
    columns["position"] = _numbers(list(range(len(rows))) if positions is None else list(positions), device)
    extras = {role: _side_columns(data, rows, role, placed[role].mask.shape, device) for role in roles}
    return Batch(tuple(rows), groups, placed, columns, extras)


def _numbers(values: Sequence[float], device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _side_columns(data: TrainingSet, rows: Sequence[int], role: str, shape: torch.Size, device: torch.device | str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    if role in data.reference:
        found["ref_logp"] = _padded([data.reference[role][row] for row in rows], shape, 0.0, device)
    if role in data.credit:
        credit = data.credit[role]
        for name, column, absent in (("weight", credit.weight, 1.0), ("reward", credit.reward, 0.0), ("segment", credit.segment, -1)):
            arrays = [column[row] for row in rows]
            if any(array is not None for array in arrays):
                lengths = [len(data.examples[row].responses[role].ids) for row in rows]
                filled = [
                    np.full(length, absent, dtype=np.float32 if absent != -1 else np.int64) if array is None else array
                    for array, length in zip(arrays, lengths, strict=True)
                ]
                found[name] = _padded(filled, shape, absent, device)
    return found


def _padded(arrays: Sequence[np.ndarray], shape: torch.Size, fill: float, device: torch.device | str) -> Tensor:
    out = np.full(tuple(shape), fill, dtype=arrays[0].dtype if arrays else np.float32)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return torch.from_numpy(out).to(device)
