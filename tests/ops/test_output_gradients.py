"""Gradients at the output layer without a backward pass are those of autograd: soft-cap, scale, temperature, bias."""

import pytest
import torch

from finegrain.ops.logprobs import OutputLayer, token_values
from finegrain.ops.output_gradients import output_gradients


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_as_autograd(softcap: float | None, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    weight, hidden, slopes = draw(11, 5).requires_grad_(), draw(300, 5), draw(300, 3)
    targets = torch.randint(11, (300,), generator=generator)
    head = OutputLayer(weight, draw(11), softcap, scale).at_temperature(0.7)
    found = output_gradients(hidden, head, targets, slopes)
    logp = token_values(hidden, head, targets).logp
    for place in range(3):
        (want,) = torch.autograd.grad((slopes[:, place] * logp).sum(), weight, retain_graph=True)
        torch.testing.assert_close(found[place], want)
