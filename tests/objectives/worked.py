"""The worked pair of dpo, and rows of a single token for scalar cases."""

import torch
from torch import Tensor

from finegrain.types import Pair, Side

BETA, RATE = 0.1, 0.1
CHOSEN_RATIO, REJECTED_RATIO = 1.0, -0.5
MARGIN = 1.5


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def even_side(logp: float, ref_logp: float, length: int, width: int = 5) -> Side:
    """One answer whose log-probability is spread evenly over its tokens; NaN in the padding."""
    mask = (torch.arange(width) < length).unsqueeze(0)

    def spread(total: float) -> Tensor:
        return torch.where(mask, torch.full((1, width), total / length, dtype=torch.float64), torch.nan)

    return Side(logp=spread(logp), ref_logp=spread(ref_logp), mask=mask)


def worked_pair() -> Pair:
    """L_w = -10, R_w = -11, n_w = 5; L_l = -12, R_l = -11.5, n_l = 4: margin 1.5 nats."""
    return Pair(sides={"chosen": even_side(-10, -11, 5), "rejected": even_side(-12, -11.5, 4)})


def scalar_side(*ratios: float) -> Side:
    """Answers of one token with the given log-ratios; log-probabilities live."""
    reference = torch.full((len(ratios), 1), -2.0, dtype=torch.float64)
    logp = (real(*ratios).unsqueeze(-1) + reference).requires_grad_()
    return Side(logp=logp, ref_logp=reference, mask=torch.ones_like(reference, dtype=torch.bool))


def scalar_pair(chosen: tuple[float, ...], rejected: tuple[float, ...]) -> Pair:
    """Pairs of one-token answers with the given log-ratios, in their planned order."""
    position = torch.arange(len(chosen), dtype=torch.float64)
    return Pair(sides={"chosen": scalar_side(*chosen), "rejected": scalar_side(*rejected)}, columns={"position": position})


def random_pair(seed: int = 0, rows: int = 5, width: int = 6) -> Pair:
    """Ragged answers with token credit; log-probabilities live."""
    generator = torch.Generator().manual_seed(seed)

    def side() -> Side:
        mask = torch.arange(width) < torch.randint(1, width + 1, (rows, 1), generator=generator)
        logp, reference = (-torch.rand(rows, width, generator=generator, dtype=torch.float64) for _ in range(2))
        weight = torch.rand(rows, width, generator=generator, dtype=torch.float64)
        return Side(logp=logp.requires_grad_(), ref_logp=reference, mask=mask, weight=weight)

    position = torch.arange(rows, dtype=torch.float64)
    return Pair(sides={"chosen": side(), "rejected": side()}, columns={"position": position})


def close(got: Tensor, *want: float, tolerance: float = 1e-9) -> None:
    """Equal to the digits of the worked number."""
    torch.testing.assert_close(got.detach(), real(*want), rtol=0, atol=tolerance)
