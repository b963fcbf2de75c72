"""oneDNN's float32 products are torch's, values and gradients, to float32 round-off; other dtypes are left alone."""

import copy

import pytest
import torch
from torch import nn

from finegrain.ops import matmul
from finegrain.ops.matmul import multiply, use_onednn_linear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12)])
def test_a_linear_layer_keeps_values_and_gradients(bias: bool, shape: tuple[int, ...]) -> None:
    layer = nn.Linear(12, 9, bias=bias)
    twin = copy.deepcopy(layer).double()
    use_onednn_linear(layer)
    inputs = torch.randn(shape, requires_grad=True)
    wide = inputs.detach().double().requires_grad_()
    upstream = torch.randn(*shape[:-1], 9)
    got = torch.autograd.grad((layer(inputs) * upstream).sum(), [inputs, *layer.parameters()])
    want = torch.autograd.grad((twin(wide) * upstream).sum(), [wide, *twin.parameters()])
    for one, other in zip(got, want, strict=True):
        assert (one - other).abs().max() <= 1e-6 * other.abs().max() * 12


def test_a_deep_copy_has_its_own_weights() -> None:
    layer = nn.Sequential(nn.Linear(4, 3))
    use_onednn_linear(layer)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin[0].weight.zero_()
        twin[0].bias.zero_()
    inputs = torch.randn(2, 4)
    assert not twin(inputs).any()
    assert layer(inputs).any()


def test_transposed_views_and_empty_operands() -> None:
    left, right = torch.randn(6, 5), torch.randn(5, 7)
    torch.testing.assert_close(multiply(left, right.T), left @ right)
    assert multiply(left.T, torch.randn(6, 3).T).shape == (5, 3)
    assert multiply(torch.zeros(0, 5), torch.randn(3, 5)).shape == (0, 3)


def test_float64_and_autocast_go_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not matmul.uses_onednn(torch.zeros(1, dtype=torch.float64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not matmul.uses_onednn(torch.zeros(1))
    monkeypatch.setattr(matmul, "has_onednn", lambda: False)
    assert use_onednn_linear(nn.Linear(2, 2)) == 0


def test_values_with_bias_and_layers_that_are_counted() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    inputs = torch.randn(2, 5)
    want = model(inputs)
    assert use_onednn_linear(model) == 2 * matmul.has_onednn()
    torch.testing.assert_close(model(inputs), want)


def test_where_products_go() -> None:
    assert matmul.uses_onednn(torch.zeros(1)) == matmul.has_onednn()
    assert not matmul.uses_onednn(torch.zeros(1, device="meta"))
    assert multiply(torch.zeros(2, 0), torch.zeros(3, 0)).eq(0).all()
    assert multiply(torch.ones(2, 4), torch.zeros(0, 4)).shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_layer_cast_afterwards_is_torchs_own(dtype: torch.dtype) -> None:
    layer = nn.Linear(6, 5)
    use_onednn_linear(layer)
    layer.to(dtype)
    inputs = torch.randn(3, 6, dtype=dtype)
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))


def test_under_autocast_a_layer_is_torchs_own() -> None:
    layer = nn.Linear(64, 5)
    use_onednn_linear(layer)
    inputs = torch.randn(30, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, want)


@pytest.mark.skipif(not matmul.has_onednn(), reason="no oneDNN product on this machine")
def test_frozen_operands_cost_no_product(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, shapes = nn.Linear(6, 5), []
    use_onednn_linear(layer)
    multiply = matmul.multiply
    monkeypatch.setattr(matmul, "multiply", lambda left, right: [shapes.append((len(left), len(right))), multiply(left, right)][1])
    layer(torch.randn(3, 6)).sum().backward()
    assert shapes == [(3, 5), (5, 6)]
    shapes.clear()
    layer.requires_grad_(False)
    layer(torch.randn(3, 6, requires_grad=True)).sum().backward()
    assert shapes == [(3, 5), (3, 6)]
