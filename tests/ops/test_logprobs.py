"""The chunked head against dense autograd, in float64, with chunks smaller than the rows."""

import pytest
import torch

from finegrain.ops import logprobs
from finegrain.ops.logprobs import Head, token_values


def dense(hidden: torch.Tensor, head: Head, targets: torch.Tensor, reference: tuple[torch.Tensor, Head]) -> list[torch.Tensor]:
    def log_p(states: torch.Tensor, own: Head) -> torch.Tensor:
        logits = (states * own.scale) @ own.weight.T
        logits = logits if own.bias is None else logits + own.bias
        logits = logits if own.softcap is None else own.softcap * torch.tanh(logits / own.softcap)
        return torch.log_softmax(logits, -1)

    own = log_p(hidden, head)
    other = log_p(*reference)
    return [own.gather(-1, targets[:, None])[:, 0], -(own.exp() * own).sum(-1), (own.exp() * (own - other)).sum(-1)]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_equal_dense_ones(monkeypatch: pytest.MonkeyPatch, softcap: float | None, bias: bool) -> None:
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 1)
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    rows, width, vocabulary = 37, 6, 11
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    hidden, weight, offset = draw(rows, width).requires_grad_(), draw(vocabulary, width).requires_grad_(), draw(vocabulary).requires_grad_()
    head = Head(weight, offset if bias else None, softcap, 0.7)
    reference = (draw(rows, 5), Head(draw(vocabulary, 5), None, None, 1.0))
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    found = token_values(hidden, head, targets, entropy=True, reference=reference)
    upstream = [draw(rows) for _ in range(3)]
    inputs = [hidden, weight, *([offset] if bias else [])]
    results = []
    for values in (list(found[:3]), dense(hidden, head, targets, reference)):
        total = sum((value * up).sum() for value, up in zip(values, upstream, strict=True))
        results.append([value.detach() for value in values] + list(torch.autograd.grad(total, inputs)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_log_probabilities_alone_take_a_shorter_way_to_the_same_gradients(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 1)
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 16)
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
    hidden, weight, offset = draw(37, 6), draw(11, 6), draw(11)
    targets = torch.randint(0, 11, (37,), generator=generator)
    upstream = draw(37).detach()
    inputs = [hidden, weight, *([offset] if bias else [])]
    found = token_values(hidden, Head(weight, offset if bias else None), targets).logp
    want = torch.log_softmax(hidden @ weight.T + (offset if bias else 0), -1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    pairs = (torch.autograd.grad((value * upstream).sum(), inputs) for value in (found, want))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_frozen_head_gets_no_gradient_and_no_work() -> None:
    hidden = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(7, 4)
    token_values(hidden, Head(weight), torch.tensor([0, 1, 2, 3, 6])).logp.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_no_tokens_are_no_error() -> None:
    hidden = torch.randn(0, 4, requires_grad=True)
    weight = torch.randn(7, 4, requires_grad=True)
    token_values(hidden, Head(weight), torch.zeros(0, dtype=torch.long)).logp.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()
