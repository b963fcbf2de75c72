"""Weights by attention (eq. 11): by hand, against a loop, in their limits, and for Q-values too."""

import math

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.action_values import FreshHead, LogProb, QForm, RawLogits, SoftmaxProb, Weighed, action_values
from finegrain.ops.logprobs import OutputLayer
from finegrain.ops.reward_weight import Attention, MeanOne, SumOne, Uniform


def drawn(seed: int = 0, rows: int = 4, tokens: int = 6, width: int = 3) -> tuple[Tensor, Tensor]:
    """Outputs with garbage outside ragged masks that have holes; the last row is empty."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(rows, tokens, 2 + 2 * width, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, tokens, generator=generator) < 0.7
    mask[-1] = False
    return torch.where(mask[..., None], outputs, float("nan")), mask


def naive(outputs: Tensor, mask: Tensor, width: int) -> Tensor:
    """Eq. 11, one query and one key after the other."""
    found = torch.zeros(mask.shape, dtype=torch.float64)
    for row in range(len(mask)):
        places = [place for place in range(mask.shape[1]) if mask[row, place]]
        for i in places:
            products = {t: sum(float(outputs[row, i, 2 + d] * outputs[row, t, 2 + width + d]) for d in range(width)) for t in places}
            total = sum(math.exp(value) for value in products.values())
            for t in places:
                found[row, t] += math.exp(products[t]) / total / len(places)
    return found


def test_equals_a_loop() -> None:
    outputs, mask = drawn()
    want = naive(outputs, mask, 3)
    printed = Attention(width=3, scale=SumOne()).weights(outputs, mask)
    torch.testing.assert_close(printed, want)
    torch.testing.assert_close(printed.sum(1), mask.any(1).double())
    torch.testing.assert_close(Attention(width=3).weights(outputs, mask), want * mask.sum(1, keepdim=True))
    assert float((printed - printed.roll(1, 1)).abs().max()) > 0.05, "the weights differ from token to token"


def test_by_hand() -> None:
    """Two tokens, q = (0, log 3), k = (0, 1): the first attends evenly, the second 1 : 3."""
    outputs = torch.tensor([[[2.0, 0.0, 0.0, 0.0], [4.0, 0.0, math.log(3), 1.0]]], dtype=torch.float64)
    weigh = Attention(width=1)
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert weigh.weights(outputs, mask)[0].tolist() == pytest.approx([0.75, 1.25])
    mean, log_std = weigh(outputs, mask)[0].unbind(-1)
    assert mean.tolist() == pytest.approx([1.5, 5.0])
    assert log_std.exp().tolist() == pytest.approx([0.75, 1.25]), "the standard deviation is weighed, not its logarithm"
    assert Attention(width=1, scale=SumOne())(outputs, mask)[0, :, 0].tolist() == pytest.approx([0.75, 2.5])


@pytest.mark.parametrize("which", ["query", "key"])
def test_uniform_attention_is_the_plain_result(which: str) -> None:
    outputs, mask = drawn()
    start = 2 if which == "query" else 5
    outputs[..., start : start + 3] = 0.7 if which == "key" else 0.0
    plain = torch.where(mask[..., None], outputs[..., :2], 0.0)
    got = torch.where(mask[..., None], Attention(width=3)(outputs, mask), 0.0)
    torch.testing.assert_close(got, plain)
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    printed = torch.where(mask[..., None], Attention(width=3, scale=SumOne())(outputs, mask), 0.0)
    torch.testing.assert_close(printed[..., 0], plain[..., 0] / lengths)
    torch.testing.assert_close(printed[..., 1].exp() * mask, plain[..., 1].exp() * mask / lengths)
    assert Uniform()(outputs, mask) is outputs


def test_padding_and_company_do_not_matter() -> None:
    outputs, mask = drawn()
    alone = [Attention(width=3).weights(outputs[row : row + 1][:, mask[row]], mask[row : row + 1][:, mask[row]]) for row in range(3)]
    together = Attention(width=3).weights(outputs, mask)
    for row, want in enumerate(alone):
        torch.testing.assert_close(together[row][mask[row]], want[0])
    assert not together[-1].any()


def test_gradients_reach_query_and_key_and_no_garbage() -> None:
    outputs, mask = drawn()
    live = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Attention(width=3)(live, mask)[mask].square().sum(), live)
    assert bool(gradient[mask].isfinite().all())
    assert not gradient[~mask].any()
    assert bool((gradient[mask][:, 2:].abs().sum(0) > 0).all())


@pytest.mark.parametrize("form", [LogProb(alpha=1.7), SoftmaxProb(alpha=10.0), RawLogits(), FreshHead()], ids=lambda form: type(form).__name__)
def test_weighed_action_values(form: QForm) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(rows, 4, generator=generator, dtype=torch.float64) for rows in (5, 7))
    targets, weights = torch.tensor([0, 6, 3, 3, 1]), torch.tensor([1.0, 0.5, 2.0, 1.3, 0.0], dtype=torch.float64)
    head, wanted = OutputLayer(weight, None, None, 1.0), Weighed(form=form, weight=Attention())
    found = action_values(hidden, head, targets, wanted, weights)
    for place, target in enumerate(targets.tolist()):
        logits = hidden[place] @ weight.T
        every = torch.stack([form(logits[None], torch.tensor([token])).q[0] for token in range(7)])
        assert found.q[place].item() == pytest.approx(float(weights[place] * every[target]))
        assert found.logp[place].item() == pytest.approx(float(torch.log_softmax(weights[place] * every, 0)[target]))
    assert found.logp[4].item() == pytest.approx(-math.log(7)), "weight 0: the policy is uniform"
    ones = action_values(hidden, head, targets, wanted, torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(ones, action_values(hidden, head, targets, form))
    assert wanted.fresh == form.fresh


def test_width() -> None:
    assert Attention(width=5).columns == 10
    assert Attention().scale == MeanOne()
    with pytest.raises(UsageError, match="width"):
        Attention(width=0)
