"""r3hf: worked numbers, where the sums go, and its identities with sequence-level baselines."""

import pytest
import torch
from torch import Tensor

from finegrain.credit.r3hf import (
    R3HF,
    FirstZero,
    FromPrompt,
    FromZero,
    add_centred_rewards,
    boundary_differences,
    combine_reward_and_cost,
    penalise_kl,
    prefix_differences,
)
from finegrain.credit.redistribute import sparse_reward
from finegrain.errors import UsageError
from finegrain.ops.masked import masked_mean
from finegrain.ops.readout import last_value

EVERYWHERE = torch.ones(1, 4, dtype=torch.bool)
VALUES, EMPTY = torch.tensor([[0.5, 0.1, -0.4, 1.0]], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)


def draw(rows: int = 6, width: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Values, values of the prompt, ragged masks with holes and padding on both sides; the last row is one token."""
    mask = torch.rand(rows, width) < 0.7
    mask[:, 4] = True
    mask[-1] = torch.arange(width) == 4
    return torch.randn(rows, width, dtype=torch.float64), torch.randn(rows, dtype=torch.float64), mask


def test_worked() -> None:
    want = torch.tensor([[0.3, -0.4, -0.5, 1.4]], dtype=torch.float64)
    torch.testing.assert_close(R3HF()(VALUES, EMPTY, EVERYWHERE), want, rtol=0, atol=1e-12)
    half = torch.tensor([[0.15, -0.2, -0.25, 1.2]], dtype=torch.float64)
    torch.testing.assert_close(R3HF(share=0.5)(VALUES, EMPTY, EVERYWHERE), half, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("first", "missing"), [(FromPrompt(), "prompt"), (FromZero(), "nothing"), (FirstZero(), "first")])
def test_sums(first: FromPrompt | FromZero | FirstZero, missing: str) -> None:
    values, empty, mask = draw()
    opening = values.gather(1, mask.int().argmax(1, keepdim=True)).squeeze(1)
    short = {"prompt": empty, "nothing": torch.zeros_like(empty), "first": opening}[missing]
    got = R3HF(first=first)(values, empty, mask).sum(1)
    torch.testing.assert_close(got, last_value(values, mask) - short, rtol=0, atol=1e-12)


def test_equals_a_loop() -> None:
    values, empty, mask = draw()
    got = prefix_differences(values, empty, mask, FromPrompt())
    for row in range(len(values)):
        before = float(empty[row])
        for t in range(values.shape[1]):
            want = float(values[row, t]) - before if mask[row, t] else 0.0
            assert abs(float(got[row, t]) - want) < 1e-12
            before = float(values[row, t]) if mask[row, t] else before


def test_no_share_is_the_sparse_reward_exactly() -> None:
    values, empty, mask = draw()
    assert torch.equal(R3HF(share=0.0)(values, empty, mask), sparse_reward(last_value(values, mask), mask))


def test_a_constant_head_says_nothing_and_an_offset_of_the_prompt_plays_no_part() -> None:
    values, empty, mask = draw()
    assert R3HF()(torch.full_like(values, 3.0), torch.full_like(empty, 3.0), mask).eq(0).all()
    offset = torch.randn_like(empty)
    torch.testing.assert_close(R3HF()(values + offset[:, None], empty + offset, mask), R3HF()(values, empty, mask), rtol=0, atol=1e-12)
    assert not torch.allclose(R3HF(first=FromZero())(values + offset[:, None], empty + offset, mask), R3HF(first=FromZero())(values, empty, mask))


def test_reward_to_go_is_the_return_minus_a_state_baseline() -> None:
    values, empty, mask = draw()
    to_go = R3HF()(values, empty, mask).flip(1).cumsum(1).flip(1)
    for row in range(len(values)):
        before = float(empty[row])
        for t in mask[row].nonzero().flatten().tolist():
            assert abs(float(to_go[row, t]) - (float(last_value(values, mask)[row]) - before)) < 1e-12
            before = float(values[row, t])


def leave_one_out(returns: Tensor) -> Tensor:
    return returns - (returns.sum() - returns) / (len(returns) - 1)


def test_leave_one_out_on_redistributed_returns_is_leave_one_out() -> None:
    """The answers of a group share a prompt, hence V_0."""
    values, _, mask = draw()
    empty = torch.full((len(values),), 0.7, dtype=torch.float64)
    got = leave_one_out(R3HF()(values, empty, mask).sum(1))
    torch.testing.assert_close(got, leave_one_out(last_value(values, mask)), rtol=0, atol=1e-12)


def test_centred_advantage_averages_to_the_sequences() -> None:
    values, empty, mask = draw()
    reward, advantage = R3HF()(values, empty, mask), torch.randn(len(values), dtype=torch.float64)
    for alpha in (0.0, 1.0, 3.0):
        got = add_centred_rewards(advantage, reward, mask, alpha=alpha)
        torch.testing.assert_close(masked_mean(got, mask), advantage, rtol=0, atol=1e-12)
        assert got[~mask].eq(0).all()
    assert torch.equal(add_centred_rewards(advantage, reward, mask, alpha=0.0), torch.where(mask, advantage[:, None], 0.0))
    worked = add_centred_rewards(torch.tensor([2.0]), torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]), alpha=2.0)
    assert worked.tolist() == [[0.0, 4.0, 0.0]]


def test_penalty_is_the_signed_log_ratio() -> None:
    reward = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    logp, ref = torch.tensor([[-1.0, -3.0]], dtype=torch.float64), torch.tensor([[-2.0, -1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True]])
    torch.testing.assert_close(penalise_kl(reward, logp, ref, mask, beta=0.1), torch.tensor([[0.9, 2.2]], dtype=torch.float64))
    assert torch.equal(penalise_kl(reward, logp, logp, mask), reward)


def test_two_models() -> None:
    assert combine_reward_and_cost(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item() == 1.0


def test_other_tokenizer() -> None:
    """Four tokens of the policy; the reward model's cuts agree with the second and the third. It pools behind a template's end."""
    values = torch.tensor([[9.0, 0.5, 0.8, 9.0], [9.0, 9.0, 9.0, 9.0]], dtype=torch.float64)
    mapped = torch.tensor([[False, True, True, False], [False, False, False, True]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    empty, final = torch.tensor([0.2, 0.1], dtype=torch.float64), torch.tensor([1.0, 0.4], dtype=torch.float64)
    got = boundary_differences(values, empty, final, mask, mapped, FromPrompt())
    want = torch.tensor([[0.0, 0.3, 0.3, 0.2], [0.0, 0.3, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.sum(1), final - empty, rtol=0, atol=1e-12)


def test_equal_tokenizers_need_no_boundaries() -> None:
    values, empty, mask = draw()
    got = boundary_differences(values, empty, last_value(values, mask), mask, mask, FromPrompt())
    torch.testing.assert_close(got, prefix_differences(values, empty, mask, FromPrompt()), rtol=0, atol=1e-12)


def test_garbage_padding_and_gradient() -> None:
    values, empty, mask = draw()
    want = R3HF(share=0.5)(values, empty, mask)
    for junk in (torch.nan, torch.inf, 1e300):
        got = R3HF(share=0.5)(values.masked_fill(~mask, junk).requires_grad_(), empty, mask)
        assert torch.equal(got, want)
        assert not got.requires_grad
    pad = lambda block: torch.nn.functional.pad(block, (2, 3))
    assert torch.equal(R3HF(share=0.5)(pad(values), empty, pad(mask))[:, 2:-3], want)
    assert R3HF()(values.bfloat16(), empty.bfloat16(), mask).dtype == torch.float32


def test_a_share_is_checked() -> None:
    with pytest.raises(UsageError, match="share"):
        R3HF(share=2.0)


def test_what_the_functions_take_when_not_told() -> None:
    """beta 0.02, alpha 1 for the advantage and -1 for the cost."""
    one, mask = torch.tensor([[1.0, 3.0]]), torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(penalise_kl(one, torch.zeros(1, 2), torch.full((1, 2), -2.0), mask), torch.tensor([[0.96, 2.96]]))
    assert add_centred_rewards(torch.tensor([5.0]), one, mask).tolist() == [[4.0, 6.0]]
    assert combine_reward_and_cost(one, torch.tensor([[4.0, 0.5]])).tolist() == [[-1.5, 1.25]]
