"""sparsepo: its identities with tdpo1 and dpo, its masks and their activations, L1, what trains, and what it logs."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.objectives.dpo import DPO
from finegrain.objectives.mask_network import SimpleAll, SimpleLast, TwoLayerAll, TwoLayerLast
from finegrain.objectives.sparsepo import Binary, Common, Identity, Independent, KlOnly, MinMax, RandomMask, Relu, RewardOnly, SparsePO, activate
from finegrain.objectives.tdpo1 import TDPO1
from finegrain.train.read_contract import contract_of
from finegrain.types import Pair, row_losses
from tests.objectives.token_kl import ROWS, WIDTH, given_pair, logit_pair
from tests.objectives.worked import close


def masked_pair(*masks: float | Tensor, seed: int = 1) -> tuple[Pair, dict[str, Tensor]]:
    """(pair, the policy's logits) with these numbers of the networks at every token of both sides."""
    pair, policy, _ = logit_pair(seed)
    reading = torch.stack([mask if isinstance(mask, Tensor) else torch.full((ROWS, WIDTH), mask, dtype=torch.float64) for mask in masks], -1)
    return replace(pair, sides={role: replace(side, reading=reading) for role, side in pair.sides.items()}), policy


def assert_same(one: Tensor, other: Tensor, policy: dict[str, Tensor]) -> None:
    """In value and in the gradient of the policy."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    slopes, wanted = (torch.autograd.grad(loss.sum(), list(policy.values()), retain_graph=True) for loss in (one, other))
    for slope, want in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, want, rtol=0, atol=1e-12)


def test_unit_masks_are_tdpo1() -> None:
    pair, policy = masked_pair(1.0)
    assert_same(row_losses(SparsePO(beta=0.3)(pair)), TDPO1(beta=0.3)(pair), policy)
    two, policy = masked_pair(1.0, 1.0)
    assert_same(row_losses(SparsePO(beta=0.3, masks=Independent())(two)), TDPO1(beta=0.3)(two), policy)


def test_a_kl_mask_of_0_is_dpo() -> None:
    pair, policy = masked_pair(1.0, 0.0)
    assert_same(row_losses(SparsePO(masks=Independent())(pair)), DPO()(pair), policy)
    alone, policy = masked_pair(0.0)
    assert_same(row_losses(SparsePO(masks=KlOnly())(alone)), DPO()(alone), policy)


def test_a_mask_of_rewards_alone_leaves_the_kl() -> None:
    masks = torch.rand(ROWS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone, policy = masked_pair(masks)
    both = replace(alone, sides={role: replace(s, reading=torch.stack([masks, torch.ones_like(masks)], -1)) for role, s in alone.sides.items()})
    assert_same(row_losses(SparsePO(masks=RewardOnly())(alone)), row_losses(SparsePO(masks=Independent())(both)), policy)


def test_masks_of_0_are_log_2_without_a_gradient() -> None:
    for below in (0.0, -0.5):
        pair, policy = masked_pair(below)
        losses = row_losses(SparsePO()(pair))
        close(losses, *[math.log(2)] * ROWS, tolerance=1e-12)
        assert not any(slope.any() for slope in torch.autograd.grad(losses.sum(), list(policy.values())))


def test_the_reference_gets_no_gradient() -> None:
    pair, _, reference = logit_pair()
    masks = {role: replace(side, reading=torch.ones(ROWS, WIDTH, 1, dtype=torch.float64)) for role, side in pair.sides.items()}
    losses = row_losses(SparsePO()(replace(pair, sides=masks)))
    assert torch.autograd.grad(losses.sum(), list(reference.values()), allow_unused=True) == (None, None)


def test_a_loop_over_tokens() -> None:
    """Masks of both kinds, of which some are negative before the ReLU, under token credit and L1."""
    generator = torch.Generator().manual_seed(2)
    pair, _, _ = logit_pair(4)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)
    sides = {role: replace(side, reading=draw(ROWS, WIDTH, 2), weight=draw(ROWS, WIDTH).abs()) for role, side in pair.sides.items()}
    pair = replace(pair, sides=sides)
    objective = SparsePO(beta=0.4, masks=Independent(), l1_reward=0.01, l1_kl=0.02)
    wanted = []
    for row in range(ROWS):
        z, norms = 0.0, [0.0, 0.0]
        for sign, side in ((1, pair.chosen), (-1, pair.rejected)):
            for t in range(WIDTH):
                if side.mask[row, t]:
                    u, d = (max(0.0, side.reading[row, t, k].item()) * side.weight[row, t].item() for k in (0, 1))
                    z += sign * (u * (side.logp - side.ref_logp)[row, t].item() + d * side.reference_kl[row, t].item())
                    norms = [norms[0] + u, norms[1] + d]
        wanted.append(math.log1p(math.exp(-0.4 * z)) + 0.01 * norms[0] + 0.02 * norms[1])
    close(row_losses(objective(pair)), *wanted, tolerance=1e-12)


def test_the_slope_of_l1_on_an_active_mask_is_its_weight() -> None:
    """At a policy that is the reference the preference has no slope in the masks; masks that are off stay off."""
    pair, _, _ = logit_pair(at_reference=True)
    reading = torch.tensor([0.7, -0.4]).double().repeat(3)[:WIDTH, None].expand(ROWS, WIDTH, 1).clone().requires_grad_()
    pair = replace(pair, sides={role: replace(side, reading=reading) for role, side in pair.sides.items()})
    for settings, weight in (({"l1_reward": 0.02}, 0.02), ({"l1_kl": 0.03}, 0.03), ({"l1_reward": 0.02, "l1_kl": 0.03}, 0.05)):
        (slope,) = torch.autograd.grad(row_losses(SparsePO(**settings)(pair)).sum(), reading)
        active = (reading[..., 0] > 0) * (pair.chosen.mask.double() + pair.rejected.mask.double())
        torch.testing.assert_close(slope[..., 0], weight * active, rtol=0, atol=1e-12)


def l1_of_the_optimum(weight: float) -> float:
    """L1 norm of free masks of a fixed policy, after many steps of proximal gradient descent: the problem is convex."""
    pair, _, _ = logit_pair(1)
    fixed = {role: replace(side, logp=side.logp.detach(), reference_kl=side.reference_kl.detach()) for role, side in pair.sides.items()}
    masks = [torch.ones(ROWS, WIDTH, 1, dtype=torch.float64).requires_grad_() for _ in fixed]
    objective = SparsePO(beta=0.5)
    for _ in range(400):
        sides = {role: replace(side, reading=own) for (role, side), own in zip(fixed.items(), masks, strict=True)}
        slopes = torch.autograd.grad(objective(replace(pair, sides=sides))["preference"].value.sum(), masks)
        with torch.no_grad():
            for own, slope in zip(masks, slopes, strict=True):
                own.copy_((own - 1.0 * (slope + 2 * weight)).clamp(min=1e-9))
    return sum(float((own.detach()[..., 0] * side.mask).sum()) for own, side in zip(masks, fixed.values(), strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"masks": RewardOnly(), "l1_kl": 0.1}, "masks:reward-only fixes at 1"),
        ({"masks": KlOnly(), "l1_reward": 0.1}, "masks:kl-only fixes at 1"),
        ({"network": RandomMask(), "l1_reward": 0.1}, "with network:random-mask no mask trains"),
        ({"activation": Binary(), "l1_kl": 0.1}, "with activation:binary no mask trains"),
    ],
)
def test_weights_of_what_does_not_train_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SparsePO(**settings)


def test_more_l1_never_gives_larger_masks() -> None:
    sizes = [l1_of_the_optimum(weight) for weight in (0.01, 0.03, 0.1, 1.0)]
    assert all(after < before for before, after in pairwise(sizes)), sizes
    assert sizes[-1] < 1e-6


def test_activations() -> None:
    values = torch.tensor([[2.0, -1.0, 5.0, 0.0], [3.0, 3.0, 9.0, 9.0], [4.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]).double()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    wanted: dict[Any, list[list[float]]] = {
        Relu(): [[2, 0, 5, 0], [3, 3, 0, 0], [4, 0, 0, 0], [0] * 4],
        MinMax(): [[0.5, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0] * 4],
        Identity(): [[2, -1, 5, 0], [3, 3, 0, 0], [4, 0, 0, 0], [0] * 4],
        Binary(): [[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0] * 4],
    }
    for activation, expected in wanted.items():
        (found,) = activate(values[..., None], mask, activation)
        torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=0)
    (scaled,) = activate((values * 3 - 7)[..., None], mask, MinMax())
    torch.testing.assert_close(scaled, torch.tensor(wanted[MinMax()]).double(), rtol=0, atol=1e-12)


def test_a_common_mask_is_one_tensor() -> None:
    (mask,) = activate(torch.ones(1, 2, 1), torch.ones(1, 2, dtype=torch.bool), Relu())
    reward, kl = Common()((mask,))
    assert reward is kl is mask


def test_random_masks_are_the_same_for_a_row_wherever_it_stands() -> None:
    mask = torch.ones(3, 4000, dtype=torch.bool)
    draw = RandomMask(seed=1).draw(torch.tensor([0.0, 1.0, 2.0]), mask, 0)
    assert torch.equal(RandomMask(seed=1).draw(torch.tensor([2.0]), mask[:1], 0)[0], draw[2])
    assert ((draw > 0) & (draw < 1)).all()
    torch.testing.assert_close(draw.mean(-1), torch.full((3,), 0.5).to(draw), rtol=0, atol=0.02)
    assert not torch.equal(RandomMask(seed=257).draw(torch.tensor([0.0, 1.0, 2.0]), mask, 0), draw)
    other = [RandomMask(seed=2).draw(torch.tensor([0.0, 1.0, 2.0]), mask, 0), RandomMask(seed=1).draw(torch.tensor([0.0, 1.0, 2.0]), mask, 1)]
    pairs = [(draw[0], draw[1]), (draw[0], other[0][0]), (draw[0], other[1][0])]
    assert all(abs(torch.corrcoef(torch.stack(two))[0, 1]) < 0.06 for two in pairs)
    pair, _, _ = logit_pair()
    same = replace(pair, sides=dict.fromkeys(pair.sides, pair.chosen))
    for masks in (Common(), Independent()):
        margin = SparsePO(network=RandomMask(), masks=masks).measures(same)["score/margins"].value
        assert (margin != 0).all(), "the two sides have draws of their own"


@pytest.mark.parametrize("network", [SimpleAll(), SimpleLast(), TwoLayerAll(), TwoLayerLast()])
def test_policy_and_networks_learn_from_one_loss(network: SimpleAll) -> None:
    """Every parameter has a gradient; without a stop anywhere."""
    objective = SparsePO(masks=Independent(), network=network, l1_reward=1e-3, l1_kl=1e-3)
    contract = contract_of(objective).sized(3, 6, seed=1)
    reader = contract.modules["reader"].double().eval()
    pair, policy, _ = logit_pair()
    generator = torch.Generator().manual_seed(0)
    sides = {}
    for role, side in pair.sides.items():
        states = [torch.randn(ROWS * WIDTH, 6, dtype=torch.float64, generator=generator) for _ in range(3)]
        reading = reader([reader.read_block(number, own) for number, own in enumerate(states)])  # type: ignore[operator]
        sides[role] = replace(side, reading=reading.unflatten(0, (ROWS, WIDTH)))
    row_losses(objective(replace(pair, sides=sides))).sum().backward()
    assert all(logits.grad is not None and logits.grad.any() for logits in policy.values())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in reader.parameters())


def test_what_it_declares() -> None:
    assert (contract_of(SparsePO()).reading, contract_of(SparsePO(masks=Independent())).reading) == (1, 2)
    assert contract_of(SparsePO(network=SimpleAll(weight_decay=0.3))).module_decay == 0.3
    random = contract_of(SparsePO(network=RandomMask()))
    assert (random.reading, random.module_decay, dict(random.sized(2, 4, 0).modules)) == (0, 0.0, {})
    with pytest.raises(UsageError, match="dropout"):
        SimpleAll(dropout=1.0)


def test_what_it_logs() -> None:
    pair = given_pair(1.5, 0.3, 0.8)
    reading = {"chosen": (0.5, 2.0), "rejected": (-1.0, 0.25)}
    sides = {role: replace(side, reading=torch.tensor([[reading[role]]]).double()) for role, side in pair.sides.items()}
    found = SparsePO(beta=0.1, masks=Independent()).measures(replace(pair, sides=sides))
    wanted = {
        "score/margins": 0.1 * (0.75 + 0.6 - 0.2),
        "score/accuracies": 1.0,
        "score/chosen": 0.1 * (0.75 + 0.6),
        "score/rejected": 0.1 * 0.2,
        "kl/chosen": 0.3,
        "kl/rejected": 0.8,
        "kl/masked_chosen": 0.6,
        "kl/masked_rejected": 0.2,
        "mask/zero_reward_chosen": 0.0,
        "mask/zero_reward_rejected": 1.0,
        "mask/zero_kl_chosen": 0.0,
        "mask/zero_kl_rejected": 0.0,
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        close(found[name].value / found[name].count, value)


def test_without_what_its_networks_read_it_says_so() -> None:
    with pytest.raises(ValueError, match="what its networks read of the reference"):
        SparsePO()(given_pair(1.0, 0.1, 0.1))
