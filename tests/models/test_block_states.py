"""The reference's hidden states of all blocks, read in the packed pass: those of stock code at the position before the token, and none kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import ModelError
from finegrain.models.block_states import blocks_of
from finegrain.models.packing import Group
from finegrain.models.scorer import Request, fused, plain, plain_rows, silence_dropout, use_branched_attention
from finegrain.ops.block_reader import BlockReader
from tests.tiny import MODELS, exact_norms, ragged_groups
from tests.train.awkward import AllBlocks


class Copies(BlockReader):
    """Keeps what it is given: for tests alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def read_block(self, number: int, states: Tensor) -> Tensor:
        return states * self.one

    def forward(self, read: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(read), -1)


class Frozen:
    """As much of a scorer as a request reads."""

    def __init__(self, model: Any) -> None:
        self.model = model


def models(name: str) -> tuple[Any, Any]:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = MODELS[name]().double()
        exact_norms(model)
        silence_dropout(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * seed * torch.randn_like(parameter))
        found.append(model)
    return found[0], found[1]


def stock(frozen: Any, groups: Sequence[Group], *, ahead: int = 0) -> Tensor:
    """(M, L * H) of one row per answer by stock code, at the position before the token or `ahead` of that."""
    found = []
    rows = plain_rows(groups)
    branches = [(len(group.prompt), branch) for group in groups for branch in group.branches]
    with torch.no_grad():
        for row, (start, branch) in zip(rows, branches, strict=True):
            ids = torch.from_numpy(row).long()[None]
            states = frozen(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[1:]
            places = torch.from_numpy(start - 1 + ahead + np.flatnonzero(branch.mask))
            found.append(torch.cat([one[0][places] for one in states], -1))
    return torch.cat(found)


@pytest.mark.parametrize("name", MODELS)
def test_states_of_all_blocks_at_the_position_before_the_token(name: str) -> None:
    policy, frozen = models(name)
    groups = ragged_groups(long=30)
    wanted, late = stock(frozen, groups), stock(frozen, groups, ahead=1)
    for path in (plain, fused):
        if path is fused:
            use_branched_attention(policy)
            use_branched_attention(frozen)
        values = path(policy, groups, Request(kl_against=Frozen(frozen), kl=False, reader=Copies()))  # type: ignore[arg-type]
        assert values.kl is None
        assert values.reading is not None
        # stock code attends eagerly where there is a soft-cap, with a softmax in float32
        torch.testing.assert_close(values.reading.detach(), wanted, rtol=0, atol=1e-6 if "soft-caps" in name else 1e-10)
        assert (values.reading - late).abs().max() > 1e-3, "the token's own position would not agree"


def test_the_reader_learns_and_the_reference_does_not() -> None:
    """Gradients of the reader are those of both paths; the reference has none, and keeps no hook."""
    policy, frozen = models("llama")
    groups, gradients = ragged_groups(long=30), []
    for path in (plain, fused):
        if path is fused:
            use_branched_attention(policy)
            use_branched_attention(frozen)
        hooks = [len(module._forward_hooks) for module in frozen.modules()]  # some are transformers' own
        torch.manual_seed(2)
        reader = AllBlocks(2, 32).double()
        values = path(policy, groups, Request(kl_against=Frozen(frozen), reference_kl=True, reader=reader))  # type: ignore[arg-type]
        assert values.reading is not None
        assert values.reference_kl is not None
        (values.reading.cos().sum() + values.reference_kl.sum()).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in reader.parameters() if parameter.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-10)
    assert gradients[0].abs().max() > 1e-3
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert [len(module._forward_hooks) for module in frozen.modules()] == hooks


def test_no_block_is_kept_for_all_positions() -> None:
    """Of every block the reader sees the scored tokens alone, while the pass runs; without a gradient nothing stays."""
    policy, frozen = models("llama")
    use_branched_attention(policy)
    use_branched_attention(frozen)
    groups = ragged_groups(long=30)
    scored = sum(int(branch.mask.sum()) for group in groups for branch in group.branches)
    seen: list[tuple[int, ...]] = []

    class Sizes(AllBlocks):
        def read_block(self, number: int, states: Tensor) -> Tensor:
            assert len(seen) == number
            seen.append(tuple(states.shape))
            return super().read_block(number, states)

    with torch.no_grad():
        fused(policy, groups, Request(kl_against=Frozen(frozen), kl=False, reader=Sizes(2, 32).double()))  # type: ignore[arg-type]
    assert seen == [(scored, 32)] * 2
    assert scored < sum(group.tokens for group in groups)


def test_a_model_without_blocks_is_named() -> None:
    with pytest.raises(ModelError, match="Linear has no list of 3 blocks"):
        blocks_of(torch.nn.Linear(2, 2), 3)
