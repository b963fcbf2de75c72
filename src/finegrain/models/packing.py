"""Lays out prompts with their answers as one packed row, and maps flat token values back to (B, T).

Only positions that predict a trained token reach the head; only scalars are padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.models.attention import Branches


@dataclass(frozen=True)
class Branch:
    """One answer: its tokens and which of them are scored."""

    ids: np.ndarray
    """(T,) int32."""
    mask: np.ndarray
    """(T,) bool."""
    features: np.ndarray | None = None
    """(T, H) last hidden states of a frozen model, where computed before."""


@dataclass(frozen=True)
class Group:
    """A prompt and the answers that branch from it."""

    prompt: np.ndarray
    """(P,) int32, at least one token."""
    branches: tuple[Branch, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens computed for this group."""
        return len(self.prompt) + sum(len(branch.ids) for branch in self.branches)


@dataclass(frozen=True)
class Packed:
    """Tensors of one packed row of N tokens, with M scored tokens: answers first, then prompts on request."""

    input_ids: Int[Tensor, "1 N"]
    position_ids: Int[Tensor, "1 N"]
    branches: Branches
    predicts: Int[Tensor, " M"]
    """Index of the position whose hidden state predicts each scored token."""
    reads: Int[Tensor, " M"]
    """Index of the scored token's own position, whose hidden state includes it."""
    targets: Int[Tensor, " M"]
    """The scored tokens."""
    answers: int
    """How many of the M belong to answers."""


ROW_MULTIPLE = 64
"""Packed rows are padded to a multiple of this: every new shape of a product makes oneDNN keep a new kernel and about a megabyte."""


def pack(groups: Sequence[Group], *, score_prompts: bool = False, device: torch.device | str = "cpu") -> Packed:
    """One packed row; scored tokens in the order of groups, branches, positions.

    The row ends with a separate padding group that scores nothing and that no other token attends to.
    """
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    predicts: list[np.ndarray] = []
    reads: list[np.ndarray] = []
    prompt_predicts: list[np.ndarray] = []
    start = 0
    for group in groups:
        prompt_length = len(group.prompt)
        assert prompt_length > 0, "a group needs at least one prompt token"
        ids.append(group.prompt)
        positions.append(np.arange(prompt_length))
        prompt_predicts.append(np.arange(start, start + prompt_length - 1))
        last = start + prompt_length - 1
        start += prompt_length
        for branch in group.branches:
            length = len(branch.ids)
            ids.append(branch.ids)
            positions.append(np.arange(prompt_length, prompt_length + length))
            before = np.concatenate([[last], np.arange(start, start + length - 1)]) if length else np.zeros(0)
            predicts.append(before[branch.mask].astype(np.int64))
            reads.append(start + np.flatnonzero(branch.mask))
            start += length
    layout = [(len(group.prompt), *(len(branch.ids) for branch in group.branches)) for group in groups]
    filling = -start % ROW_MULTIPLE
    if filling:
        ids.append(np.zeros(filling))
        positions.append(np.arange(filling))
        layout.append((filling,))
    flat = np.concatenate(ids).astype(np.int64)
    masks = np.concatenate([branch.mask for group in groups for branch in group.branches])
    answer_targets = np.concatenate([branch.ids for group in groups for branch in group.branches])[masks]
    predict, read, target = np.concatenate(predicts), np.concatenate(reads), answer_targets.astype(np.int64)
    answers = len(predict)
    if score_prompts:
        predict = np.concatenate([predict, *prompt_predicts])
        read = np.concatenate([read, *(places + 1 for places in prompt_predicts)])
        target = np.concatenate([target, *(group.prompt[1:] for group in groups)]).astype(np.int64)
    return Packed(
        input_ids=_tensor(flat, device)[None],
        position_ids=_tensor(np.concatenate(positions).astype(np.int64), device)[None],
        branches=Branches(tuple(layout)),
        predicts=_tensor(predict, device),
        reads=_tensor(read, device),
        targets=_tensor(target, device),
        answers=answers,
    )


@dataclass(frozen=True)
class Slots:
    """The destination of the flat scored answer tokens of a batch: flat positions per role, and the role's (B, T) mask."""

    flat: Int[Tensor, " K"]
    rows: Int[Tensor, " K"]
    columns: Int[Tensor, " K"]
    mask: Bool[Tensor, "B T"]

    def spread(self, values: Float[Tensor, "M ..."]) -> Float[Tensor, "B T ..."]:
        """(B, T) with 0 outside the mask; differentiable."""
        empty = torch.zeros((*self.mask.shape, *values.shape[1:]), dtype=values.dtype, device=values.device)
        return empty.index_put((self.rows, self.columns), values[self.flat])


def make_slots(masks: Sequence[Sequence[np.ndarray]], index: int, device: torch.device | str = "cpu") -> Slots:
    """Slots of the branch number `index` of every group, given every group's branch masks in packed order."""
    width = max((len(group[index]) for group in masks), default=0)
    mask = np.zeros((len(masks), width), dtype=bool)
    flat, start = [], 0
    for row, group in enumerate(masks):
        for branch, scored in enumerate(group):
            count = int(scored.sum())
            if branch == index:
                flat.append(np.arange(start, start + count))
                mask[row, : len(scored)] = scored
            start += count
    rows, columns = np.nonzero(mask)
    places = np.concatenate([np.zeros(0, dtype=np.int64), *flat])
    return Slots(*(_tensor(array, device) for array in (places, rows, columns, mask)))


def _tensor(array: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(array).to(device)
