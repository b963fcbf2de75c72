"""token-sparsity: worked number, DPO under full masks, and masks that an L1 penalty closes on shared tokens and leaves open on contrasting ones."""

import math
from dataclasses import replace

import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.mask_network import MaskReader
from finegrain.objectives.token_sparsity import STEEPNESS, TokenSparsity
from finegrain.types import Pair, Side
from tests.objectives.worked import close, random_pair, worked_pair


def with_logits(pair: Pair, value: float) -> Pair:
    """The pair with one logit for every token's mask; NaN in the padding."""
    return replace(
        pair,
        sides={role: replace(side, reading=torch.where(side.mask, value / STEEPNESS, torch.nan).unsqueeze(-1)) for role, side in pair.sides.items()},
    )


def test_worked_pair() -> None:
    terms = TokenSparsity(sparsity=0.01)(with_logits(worked_pair(), 0.0))
    close(terms["preference"].value, math.log1p(math.exp(-0.075)))
    close(terms["size"].value, 4.5)
    assert terms["size"].coefficient == 0.01


def test_full_masks_are_dpo_under_the_same_credit_and_empty_ones_teach_nothing() -> None:
    pair = random_pair()
    torch.testing.assert_close(TokenSparsity()(with_logits(pair, 50.0))["preference"].value, DPO()(pair))
    nothing = TokenSparsity()(with_logits(pair, -800.0))["preference"].value
    close(nothing, *[math.log(2)] * len(nothing))
    assert not torch.autograd.grad(nothing.sum(), pair.chosen.logp)[0].any()


def test_shared_tokens_close_and_contrasting_ones_stay_open() -> None:
    """Ten pairs whose first token contrasts the answers by two nats, and whose five other tokens have the same log-ratios in both.

    The reference's states say which of both a token is; the network learns it from the loss and the penalty.
    """
    torch.manual_seed(0)
    reader = TokenSparsity().make_reader(2, 8, torch.Generator().manual_seed(0)).eval()
    states = torch.randn(2, 10, 6, 8) * 0.3
    states[:, :, 0, 0] += 4
    mask, reference = torch.ones(10, 6, dtype=torch.bool), torch.zeros(10, 6)
    shared = 0.3 * torch.randn(10, 5)
    ratios = {role: torch.cat([torch.full((10, 1), first), shared], 1) for role, first in (("chosen", 1.0), ("rejected", -1.0))}
    optimiser = torch.optim.Adam(reader.parameters(), lr=0.03)
    for _ in range(200):
        reading = reader([reader.read_block(number, block.reshape(-1, 8)) for number, block in enumerate(states)]).reshape(10, 6, 1)
        sides = {role: Side(logp=logp, ref_logp=reference, mask=mask, reading=reading) for role, logp in ratios.items()}
        loss = sum(term.coefficient * term.value.mean() for term in TokenSparsity(beta=1.0, sparsity=0.02)(Pair(sides=sides)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    open_share = torch.sigmoid(STEEPNESS * reading[..., 0]).detach()
    assert float(open_share[:, 0].min()) > 0.9
    assert float(open_share[:, 1:].max()) < 0.1


def test_masks_begin_near_one_and_alike_for_one_seed() -> None:
    one, other = (TokenSparsity().make_reader(3, 8, torch.Generator().manual_seed(5)).eval() for _ in range(2))
    assert isinstance(one, MaskReader)
    states = torch.randn(3, 40, 8)
    first, second = (reader([reader.read_block(number, block) for number, block in enumerate(states)]) for reader in (one, other))
    torch.testing.assert_close(first, second)
    assert float(torch.sigmoid(STEEPNESS * first).detach().mean()) > 0.75
