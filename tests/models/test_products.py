"""The faster library of every product is measured once, kept for other processes, and changes nothing but round-off."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from finegrain.errors import UsageError
from finegrain.models import products
from finegrain.models.probe import make_scorer
from finegrain.models.products import VARIABLE, choose_products, compare_bfloat16, describe_products
from finegrain.ops import matmul
from finegrain.ops.logprobs import OutputLayer, token_values
from finegrain.ops.matmul import Product, prefer_torch, use_onednn_linear
from finegrain.scoring import devices
from finegrain.scoring.devices import frozen_arithmetic
from tests.tiny import MODELS

pytestmark = pytest.mark.skipif(not matmul.has_onednn(), reason="no oneDNN product on this machine")

MODEL = nn.Sequential(nn.Linear(12, 20), nn.Linear(20, 12))
EVERY = {Product(kind, *shape) for kind in ("outputs", "gradients of inputs", "gradients of weights") for shape in ((20, 12), (12, 20))}  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(products, "ROWS", 4)
    monkeypatch.setattr(matmul, "_BY_TORCH", set())


def times(monkeypatch: pytest.MonkeyPatch, onednn: float, torch_: float) -> list[float]:
    seen: list[float] = []

    def time(multiply: object, left: object, right: object) -> float:
        seen.append(torch_ if multiply is torch.matmul else onednn)
        return seen[-1]

    monkeypatch.setattr(products, "_time", time)
    return seen


def test_the_first_process_decides_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, 2.0, 1.0)
    assert choose_products(MODEL, tmp_path) == EVERY
    asked = times(monkeypatch, 1.0, 2.0)
    assert choose_products(MODEL, tmp_path) == EVERY
    assert not asked
    other = torch.get_num_threads() + 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: other)
    assert choose_products(MODEL, tmp_path) == set()  # measured anew


def test_onednn_stays_where_torch_is_hardly_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, 1.04, 1.0)
    assert choose_products(MODEL, tmp_path) == set()


def test_a_damaged_choice_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, 2.0, 1.0)
    choose_products(MODEL, tmp_path)
    other = {"kind": "outputs", "outputs": 999, "inputs": 1}
    found = [{"kind": "outputs"}, other, {**other, "kind": "x"}, {**other, "outputs": [1]}]
    for text in ("", "[]", "[" * 100_000, *(json.dumps({"torch": [one]}) for one in found)):
        for file in (tmp_path / "products").iterdir():
            file.write_text(text)
        assert choose_products(MODEL, tmp_path) == EVERY


def test_a_choice_that_cannot_be_kept_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, 2.0, 1.0)
    (tmp_path / "products").write_text("a file where the folder should be")
    assert choose_products(MODEL, tmp_path) == set()


def test_of_two_processes_that_measure_at_once_the_first_writer_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = products.measure_products

    def beaten(outputs: int, inputs: int) -> list[Product]:
        monkeypatch.setattr(products, "measure_products", measure)
        times(monkeypatch, 1.0, 2.0)
        assert choose_products(MODEL, tmp_path) == set()  # the other process, meanwhile
        times(monkeypatch, 2.0, 1.0)
        return measure(outputs, inputs)

    monkeypatch.setattr(products, "measure_products", beaten)
    assert choose_products(MODEL, tmp_path) == set()


def test_an_empty_weight_is_left_out_and_a_large_one_is_timed_by_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LARGEST", 8)
    times(monkeypatch, 2.0, 1.0)
    empty = nn.Linear(1, 4)
    empty.weight = nn.Parameter(torch.zeros(4, 0))
    assert choose_products(nn.Sequential(MODEL, empty), tmp_path) == EVERY


def test_the_variable_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, 2.0, 1.0)
    monkeypatch.setenv(VARIABLE, "onednn")
    assert choose_products(MODEL, tmp_path) == set()
    monkeypatch.setenv(VARIABLE, "mkl")
    with pytest.raises(UsageError, match="mkl"):
        choose_products(MODEL, tmp_path)


def test_random_numbers_are_not_drawn(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    choose_products(MODEL, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_values_and_gradients_are_the_same_by_either_library(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets, calls = torch.randn(40, 12), torch.randint(0, 20, (40,)), []
    onednn = matmul.multiply_by_onednn

    def count(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return onednn(left, right)

    monkeypatch.setattr(matmul, "multiply_by_onednn", count)

    def compute() -> list[torch.Tensor]:
        layer, head = copy.deepcopy(MODEL), nn.Parameter(MODEL[0].weight.detach().clone())
        use_onednn_linear(layer)
        values = token_values(layer(inputs), OutputLayer(head), targets).logp
        return [values.detach(), *torch.autograd.grad(values.square().sum(), [head, *layer.parameters()])]

    by_onednn = compute()
    assert calls
    calls.clear()
    prefer_torch(EVERY)
    by_torch = compute()
    assert not calls
    assert describe_products(EVERY).count("torch for") == len(EVERY)
    for one, other in zip(by_onednn, by_torch, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_another_model_leaves_the_choice_of_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A scorer or a reference is opened beside the policy, or, where its values are cached, is not."""
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path))
    times(monkeypatch, 2.0, 1.0)
    _, first = make_scorer(MODELS["llama"](), longest=16)
    chosen = set(matmul._BY_TORCH)
    assert chosen
    _, second = make_scorer(MODELS["gpt2, default dropout"](), longest=16)
    assert chosen <= matmul._BY_TORCH
    assert first.products != second.products
    assert first.products.count("torch for") == len(chosen)


def slower_in_bfloat16(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    monkeypatch.setattr(products, "_time", lambda multiply, left, right: factor if left.dtype == torch.bfloat16 else 1.0)


def test_bfloat16_is_compared_with_float32_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slower_in_bfloat16(monkeypatch, 3.0)
    assert compare_bfloat16(tmp_path) == 3.0
    slower_in_bfloat16(monkeypatch, 0.5)
    assert compare_bfloat16(tmp_path) == 3.0
    for file in (tmp_path / "products").iterdir():
        file.write_text('{"bfloat16": -1}')
    assert compare_bfloat16(tmp_path) == 0.5
    monkeypatch.setenv(VARIABLE, "onednn")
    assert compare_bfloat16(tmp_path) == 0.0


@pytest.mark.parametrize(("factor", "name"), [(3.0, "float32"), (1.1, "bfloat16"), (0.5, "bfloat16")])
def test_a_processor_with_slow_bfloat16_computes_in_float32_and_says_so(
    factor: float, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "cache_folder", lambda: tmp_path)
    slower_in_bfloat16(monkeypatch, factor)
    assert frozen_arithmetic("cpu", "bfloat16")[1].name == name
    said = capsys.readouterr()
    assert ("3.0 times as long as float32 on this processor: computing in float32" in said.out + said.err) == (name == "float32")
    with frozen_arithmetic("cpu", "bfloat16")[1].autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, name)
