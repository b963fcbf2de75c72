"""The chunked head against dense autograd, in float64, with chunks smaller than the rows."""

from itertools import product

import pytest
import torch

from finegrain.ops import logprobs
from finegrain.ops.logprobs import OutputLayer, token_values


def dense(hidden: torch.Tensor, head: OutputLayer, targets: torch.Tensor, reference: tuple[torch.Tensor, OutputLayer]) -> list[torch.Tensor]:
    def log_p(states: torch.Tensor, own: OutputLayer) -> torch.Tensor:
        logits = (states * own.scale) @ own.weight.T
        logits = logits if own.bias is None else logits + own.bias
        logits = logits if own.softcap is None else own.softcap * torch.tanh(logits / own.softcap)
        return torch.log_softmax(logits, -1)

    own = log_p(hidden, head)
    other = log_p(*reference)
    kls = [(one.exp() * (one - two)).sum(-1) for one, two in ((own, other), (other, own))]
    return [own.gather(-1, targets[:, None])[:, 0], -(own.exp() * own).sum(-1), *kls]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_equal_dense_ones(monkeypatch: pytest.MonkeyPatch, softcap: float | None, bias: bool) -> None:
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 1)
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    rows, width, vocabulary = 37, 6, 11
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    hidden, weight, offset = draw(rows, width).requires_grad_(), draw(vocabulary, width).requires_grad_(), draw(vocabulary).requires_grad_()
    head = OutputLayer(weight, offset if bias else None, softcap, 0.7)
    reference = (draw(rows, 5), OutputLayer(draw(vocabulary, 5), None, None, 1.0))
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    found = token_values(hidden, head, targets, entropy=True, reference=reference, reference_kl=True)
    upstream = [draw(rows) for _ in range(4)]
    inputs = [hidden, weight, *([offset] if bias else [])]
    results = []
    for values in ([found.logp, found.entropy, found.kl, found.reference_kl], dense(hidden, head, targets, reference)):
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
    found = token_values(hidden, OutputLayer(weight, offset if bias else None), targets).logp
    want = torch.log_softmax(hidden @ weight.T + (offset if bias else 0), -1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    pairs = (torch.autograd.grad((value * upstream).sum(), inputs) for value in (found, want))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_frozen_head_gets_no_gradient_and_no_work() -> None:
    hidden = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(7, 4)
    token_values(hidden, OutputLayer(weight), torch.tensor([0, 1, 2, 3, 6])).logp.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_no_tokens_are_no_error() -> None:
    hidden = torch.randn(0, 4, requires_grad=True)
    weight = torch.randn(7, 4, requires_grad=True)
    token_values(hidden, OutputLayer(weight), torch.zeros(0, dtype=torch.long)).logp.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("asked", list(product((False, True), repeat=3)))
def test_only_what_is_asked_for_and_each_alone_is_right(asked: tuple[bool, bool, bool], softcap: float | None) -> None:
    """The reference head has scale, bias and cap of its own."""
    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    hidden, weight = draw(9, 6).requires_grad_(), draw(11, 6).requires_grad_()
    head, other = OutputLayer(weight, None, softcap, 2.0), (draw(9, 5), OutputLayer(draw(11, 5), draw(11), 1.5, 2.0))
    targets = torch.randint(0, 11, (9,), generator=generator)
    found = token_values(hidden, head, targets, entropy=asked[0], reference=other if any(asked[1:]) else None, kl=asked[1], reference_kl=asked[2])
    assert [value is not None for value in found[:4]] == [True, *asked]
    assert token_values(hidden, head, targets).entropy is None
    wanted = dense(hidden, head, targets, other)
    pairs = [(one, want) for one, want in zip(found[:4], wanted, strict=True) if one is not None]
    upstream = [draw(9) for _ in pairs]
    for one, want in pairs:
        torch.testing.assert_close(one, want, rtol=1e-12, atol=1e-12)
    totals = [sum((pair[side] * up).sum() for pair, up in zip(pairs, upstream, strict=True)) for side in (0, 1)]
    for one, want in zip(*(torch.autograd.grad(total, [hidden, weight]) for total in totals), strict=True):
        torch.testing.assert_close(one, want, rtol=1e-12, atol=1e-12)


def test_scale_of_a_reference_below_one() -> None:
    states, weight = torch.tensor([[2.0, 0.0]]), torch.eye(2)
    kl = token_values(states, OutputLayer(weight), torch.tensor([0]), reference=(states, OutputLayer(weight, scale=0.5))).kl
    assert kl is not None
    p, q = torch.softmax(states[0], 0), torch.softmax(states[0] / 2, 0)
    torch.testing.assert_close(kl[0], (p * (p / q).log()).sum())


def test_half_precision_is_multiplied_in_half_and_counted_in_single() -> None:
    """Logits are bfloat16 products; under autocast those of float32 weights too, and the gradient's products likewise."""
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(40, 8, generator=generator), torch.randn(13, 8, generator=generator)
    targets, upstream = torch.randint(0, 13, (40,), generator=generator), torch.rand(40, generator=generator)
    half = OutputLayer(weight.bfloat16())
    logits = (hidden.bfloat16() @ half.weight.T).float()
    want = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    plain = token_values(hidden.bfloat16(), half, targets).logp
    live, live_weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = token_values(live, OutputLayer(live_weight), targets).logp
    assert plain.dtype == cast.dtype == torch.float32
    torch.testing.assert_close(plain, want, rtol=0, atol=1e-5)
    torch.testing.assert_close(cast, want, rtol=0, atol=1e-5)
    grad, grad_weight = torch.autograd.grad((cast * upstream).sum(), [live, live_weight])
    share = logits.softmax(-1).bfloat16()
    by_hand = upstream[:, None] * (weight[targets] - (share @ half.weight).float())
    torch.testing.assert_close(grad, by_hand, rtol=0, atol=1e-5)
    rounded = (-upstream[:, None].bfloat16() * hidden.bfloat16()).T
    by_hand = (rounded @ share).T.float().index_add(0, targets, upstream[:, None] * hidden)
    torch.testing.assert_close(grad_weight, by_hand, rtol=0, atol=1e-2 * float(by_hand.abs().max()))
    assert grad_weight.dtype == torch.float32


def test_rows_are_filled_up_and_cut_into_chunks_of_the_given_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """37 positions become 64; 48 rows of 11 float32 logits fill 48 * 11 * 4 bytes; a frozen side costs no product."""
    rows: list[int] = []
    multiply, add_product = logprobs.multiply, logprobs.add_product
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 48 * 11 * 4)
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 16)
    monkeypatch.setattr(logprobs, "multiply", lambda left, right: [rows.append(len(left)), multiply(left, right)][1])
    monkeypatch.setattr(logprobs, "add_product", lambda total, left, right: [rows.append(len(left)), add_product(total, left, right)][1])
    hidden, weight = torch.randn(37, 6), torch.randn(11, 6, requires_grad=True)
    token_values(hidden, OutputLayer(weight), torch.zeros(37, dtype=torch.long)).logp.sum().backward()
    assert rows == [48, 16, 48, 11, 16, 11]
    rows.clear()
    token_values(hidden.requires_grad_(), OutputLayer(weight.detach()), torch.zeros(37, dtype=torch.long)).logp.sum().backward()
    assert rows == [48, 16, 48, 48, 16, 16]


def test_a_reference_of_another_dtype_is_read_in_the_policys() -> None:
    generator = torch.Generator().manual_seed(5)
    hidden, weight = torch.randn(4, 3, generator=generator, dtype=torch.float64), torch.randn(7, 3, generator=generator, dtype=torch.float64)
    states, other = torch.randn(4, 2, generator=generator), torch.randn(7, 2, generator=generator)
    targets = torch.zeros(4, dtype=torch.long)
    got = token_values(hidden, OutputLayer(weight), targets, reference=(states, OutputLayer(other))).kl
    want = token_values(hidden, OutputLayer(weight), targets, reference=(states.double(), OutputLayer(other.double()))).kl
    assert got is not None
    assert want is not None
    assert torch.equal(got, want)
