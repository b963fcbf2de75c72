"""A value of prompts: attention of one learned query over the hidden states of a prompt's tokens, fitted to rewards.

    V(x) = max_value * sigmoid(w . attention(query, states of x) + b)

Source: Baheti et al. 2023, https://arxiv.org/abs/2305.14718, and the authors' released code.
Deviations: keys are masked where there is padding, so V(x) does not depend on the batch (theirs is left-padded and unmasked). It starts at the
mean of the targets, w = 0, and the best epoch, the start included, is that of the lowest error on prompts held out [OURS].
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from finegrain.errors import UsageError
from finegrain.types import Json, Ragged, chunks

AT_ONCE = 64
"""Prompts that are valued in one batch."""
EDGE = 1e-3
"""The start is at least this share of max_value away from 0 and from max_value, where a sigmoid has a slope."""


class PromptValue(nn.Module):
    """V of prompts, given their states."""

    def __init__(self, width: int, *, heads: int, max_value: float) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"{heads} heads of attention do not divide the model's {width} hidden numbers; give another number of heads")
        self.max_value = max_value
        self.query = nn.Parameter(torch.randn(width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.summary = nn.Linear(width, 1)

    def forward(self, states: Float[Tensor, "B P H"], mask: Bool[Tensor, "B P"]) -> Float[Tensor, " B"]:
        """Values (B,); states where the mask is False are not read."""
        states = torch.where(mask[..., None], states, 0.0)
        query = self.query.to(states.dtype).expand(len(states), 1, -1)
        read, _ = self.attention(query, states, states, key_padding_mask=~mask, need_weights=False)
        value: Tensor = self.summary(read[:, 0])[:, 0].sigmoid() * self.max_value
        return value


class ValueFit(NamedTuple):
    """A fitted value, and how well it fits."""

    head: PromptValue
    facts: Json
    """Prompts fitted and held out, the epoch that was kept, mean squared errors of it and of the mean alone."""


def pad_states(states: Sequence[np.ndarray], device: torch.device | str = "cpu") -> tuple[Float[Tensor, "B P H"], Bool[Tensor, "B P"]]:
    """Ragged states side by side, 0 where a prompt has ended, and where it has not."""
    lengths = torch.tensor([len(own) for own in states])
    padded = nn.utils.rnn.pad_sequence([torch.from_numpy(own) for own in states], batch_first=True)
    return padded.to(device), (torch.arange(padded.shape[1]) < lengths[:, None]).to(device)


def apply_value(head: PromptValue, states: Ragged) -> Float[np.ndarray, " N"]:
    """Values of prompts, in float64."""
    device = head.query.device
    with torch.no_grad():
        found = [head(*pad_states(states[part], device)).double().cpu().numpy() for part in chunks(len(states), AT_ONCE)]
    return np.concatenate([*found, np.zeros(0)])


def fit_value(
    states: Ragged,
    targets: Float[np.ndarray, " N"],
    *,
    heads: int,
    max_value: float,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    held_out: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> ValueFit:
    """A value fitted to targets by squared error with Adam; `held_out`: share of the prompts by which the epoch is chosen, 0: by those fitted."""
    order = np.random.default_rng([seed, 3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = PromptValue(states[0].shape[1], heads=heads, max_value=max_value)
    apart = min(max(1, round(held_out * len(targets))), len(targets) - 1) if held_out and len(targets) > 1 else 0
    rows = order.permutation(len(targets))
    tests, trains = rows[:apart], rows[apart:]
    middle = float(targets[trains].mean())
    share = min(max(middle / max_value, EDGE), 1 - EDGE)
    with torch.no_grad():
        head.summary.weight.zero_()
        head.summary.bias.fill_(float(np.log(share / (1 - share))))
    head.to(device)
    optimiser = torch.optim.Adam(head.parameters(), lr=learning_rate)
    judged = tests if apart else trains
    best, kept, epoch_kept = _error(head, states, targets, judged), _copied(head), 0
    for epoch in range(1, epochs + 1):
        shuffled = order.permutation(trains)
        for part in chunks(len(shuffled), batch_size):
            given = [states[row] for row in shuffled[part]]
            wanted = torch.tensor(targets[shuffled[part]], dtype=torch.float32, device=device)
            loss = (head(*pad_states(given, device)) - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        error = _error(head, states, targets, judged)
        if error < best:
            best, kept, epoch_kept = error, _copied(head), epoch
    head.load_state_dict(kept)
    facts = {
        "prompts_fitted": len(trains),
        "prompts_held_out": len(tests),
        "epoch_kept": epoch_kept,
        "squared_error_fitted": _error(head, states, targets, trains),
        "squared_error_of_their_mean": float(np.square(targets[trains] - middle).mean()),
    }
    if apart:
        facts |= {"squared_error_held_out": best, "squared_error_held_out_of_the_mean": float(np.square(targets[tests] - middle).mean())}
    return ValueFit(head.requires_grad_(False), facts)


def _error(head: PromptValue, states: Ragged, targets: np.ndarray, rows: np.ndarray) -> float:
    return float(np.square(apply_value(head, [states[row] for row in rows]) - targets[rows]).mean())


def _copied(head: PromptValue) -> Mapping[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
