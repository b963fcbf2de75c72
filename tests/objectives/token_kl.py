"""Pairs whose policy and reference are logits: of the engine's own arithmetic, live in the policy's."""

import torch
from torch import Tensor

from finegrain.ops.logprobs import OutputLayer, token_values
from finegrain.types import Pair, Side

WORDS = 7
ROWS, WIDTH = 4, 5


def side_of_logits(policy: Tensor, reference: Tensor, targets: Tensor, mask: Tensor) -> Side:
    """Answers (B, T) from logits (B, T, V): an output layer that is the identity."""
    same = OutputLayer(torch.eye(policy.shape[-1], dtype=policy.dtype))
    flat, frozen = policy.flatten(0, 1), reference.flatten(0, 1)
    found = token_values(flat, same, targets.flatten(), reference=(frozen, same), kl=False, reference_kl=True)
    assert found.reference_kl is not None
    given = token_values(frozen, same, targets.flatten()).logp
    logp, kl, ref_logp = (values.unflatten(0, targets.shape) for values in (found.logp, found.reference_kl, given))
    return Side(logp=logp, ref_logp=ref_logp.detach(), reference_kl=kl, mask=mask)


def logit_pair(seed: int = 0, *, at_reference: bool = False, rows: int = ROWS) -> tuple[Pair, dict[str, Tensor], dict[str, Tensor]]:
    """(pair, the policy's logits by role, the reference's), ragged, in float64; all logits are leaves."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(rows, WIDTH, WORDS, generator=generator, dtype=torch.float64)
    policy, reference, sides = {}, {}, {}
    for role in ("chosen", "rejected"):
        reference[role] = draw().requires_grad_()
        policy[role] = (reference[role].detach().clone() if at_reference else reference[role].detach() + 0.7 * draw()).requires_grad_()
        targets = torch.randint(0, WORDS, (rows, WIDTH), generator=generator)
        mask = torch.arange(WIDTH) < torch.randint(1, WIDTH + 1, (rows, 1), generator=generator)
        sides[role] = side_of_logits(policy[role], reference[role], targets, mask)
    columns = {"row": torch.arange(rows, dtype=torch.float64)}
    return Pair(sides=sides, columns=columns), policy, reference


def given_pair(margin: float, chosen_kl: float, rejected_kl: float) -> Pair:
    """One-token answers with a log-ratio margin and KL of these sizes, nats; live."""
    one = lambda value: torch.tensor([[value]], dtype=torch.float64).requires_grad_()
    side = lambda ratio, kl: Side(logp=one(ratio - 2.0), ref_logp=one(-2.0).detach(), reference_kl=one(kl), mask=torch.ones(1, 1, dtype=torch.bool))
    return Pair(sides={"chosen": side(margin, chosen_kl), "rejected": side(0.0, rejected_kl)})
