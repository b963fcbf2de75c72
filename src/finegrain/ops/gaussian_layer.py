"""The layer behind mean and log standard deviation of token rewards: linear, with a bias only on the log standard deviation.

Without the bias the standard deviation starts at 1 whatever the data. The mean has none: a constant cancels in every difference of two means, and a
stock classifier stores only the mean's row.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GaussianLayer(nn.Linear):
    """(..., H) -> (..., K): mean, log standard deviation, and further outputs of the head."""

    def __init__(self, outputs: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__(hidden_size, outputs, bias=False)
        with torch.no_grad():
            self.weight.copy_(torch.randn(outputs, hidden_size, generator=generator) / (hidden_size + 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def forward(self, states: Float[Tensor, "... H"]) -> Float[Tensor, "... K"]:
        """Outputs of each state."""
        mean, log_std, rest = super().forward(states).tensor_split((1, 2), -1)
        return torch.cat([mean, log_std + self.log_std, rest], -1)

    @property
    def offsets(self) -> Float[Tensor, " K"]:
        """The constant added to each output."""
        return torch.nn.functional.pad(self.log_std.detach(), (1, self.out_features - 2))

    def start_at(self, std: float) -> None:
        """Sets the bias such that an uninformative state has this standard deviation."""
        with torch.no_grad():
            self.log_std.fill_(std).log_()
