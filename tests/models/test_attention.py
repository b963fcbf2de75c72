"""The form for CUDA by one kernel a layer, on a CPU with a plain stand-in for the kernel: same values and gradients as the form in blocks."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen

from finegrain.models import attention, short_attention
from finegrain.models.packing import Branch, Group
from finegrain.models.scorer import Request, fused, silence_dropout, use_branched_attention
from tests.tiny import MODELS, exact_norms, ragged_groups


def stand_in(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What the kernel computes, sequence by sequence: causal with the last query at the last key, `window_size[0]` keys before each."""
    assert query_ends.dtype == key_ends.dtype == torch.int32
    assert window_size[1] == 0
    assert longest_query == int(query_ends.diff().max())
    assert longest_key == int(key_ends.diff().max())
    assert int(query_ends.diff().min()) > 0
    assert enable_gqa == (query.shape[1] != key.shape[1])
    outputs = []
    for (q0, q1), (k0, k1) in zip(query_ends.unfold(0, 2, 1).tolist(), key_ends.unfold(0, 2, 1).tolist(), strict=True):
        q, k, v = query[q0:q1], key[k0:k1], value[k0:k1]
        repeat = q.shape[1] // k.shape[1]
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(repeat, 1)) * scale
        behind = torch.arange(k1 - k0 - (q1 - q0), k1 - k0)[:, None] - torch.arange(k1 - k0)[None]
        seen = (behind >= 0) & ((window_size[0] < 0) | (behind <= window_size[0]))
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v.repeat_interleave(repeat, 1)))
    return torch.cat(outputs)


def evaluate(model: Any, groups: list[Group]) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    logp = fused(model, groups, Request(prompts=True)).logp
    (logp * torch.linspace(-1, 1, len(logp), dtype=logp.dtype)).sum().backward()
    return logp.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def one_empty_answer() -> Group:
    first = ragged_groups(seed=1)[0]
    answer = first.branches[0]
    return Group(first.prompt, (Branch(answer.ids[:0], answer.mask[:0]), first.branches[1]))


@pytest.mark.parametrize("name", MODELS)
def test_one_call_a_layer_is_the_form_in_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]().double()
    exact_norms(model)
    silence_dropout(model)
    use_branched_attention(model)
    groups = [*ragged_groups(long=40), one_empty_answer()]
    monkeypatch.setattr(short_attention, "FEW_KEYS", 0)
    want = evaluate(model, groups)
    calls: list[tuple[int, int]] = []

    def kernel(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(kwargs["window_size"])
        return stand_in(*args, **kwargs)

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setattr(attention, "_has_varlen", lambda query, value, softcap: softcap is None)
    for one, other in zip(evaluate(model, groups), want, strict=True):
        assert (one - other).abs().max() <= 1e-10 * max(1.0, float(other.abs().max()))
    layers = model.config.num_hidden_layers
    assert len(calls) == (0 if "soft-caps" in name else layers)
    if "window" in name or "mixed" in name:
        assert (5, 0) in calls


@pytest.mark.parametrize("name", MODELS)
def test_short_sequences_computed_by_size_are_the_form_in_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]().double()
    exact_norms(model)
    silence_dropout(model)
    use_branched_attention(model)
    empty = Branch(ragged_groups()[0].branches[0].ids[:0], ragged_groups()[0].branches[0].mask[:0])
    groups = [
        *ragged_groups(long=40),
        *ragged_groups(seed=2, long=33),
        Group(ragged_groups(seed=1)[0].prompt, (empty, ragged_groups(seed=1)[0].branches[1])),
    ]
    monkeypatch.setattr(short_attention, "SIZE_STEP", 4)
    laid_out, calls = attention.lay_out_short, []
    monkeypatch.setattr(attention, "lay_out_short", lambda *given: calls.append(given[1]) or laid_out(*given))
    found = evaluate(model, groups)
    layers = model.config.num_hidden_layers
    assert len(calls) == (0 if "soft-caps" in name else layers)
    assert (5 in [None if window is None else window - 1 for window in calls]) == ("window" in name or "mixed" in name)
    calls.clear()
    monkeypatch.setattr(short_attention, "FEW_KEYS", 0)
    for one, other in zip(evaluate(model, groups), found, strict=True):
        assert (one - other).abs().max() <= 1e-10 * max(1.0, float(other.abs().max()))
    assert not calls, "the form in blocks"


def test_a_row_is_computed_by_size_only_where_every_sequence_is_short() -> None:
    assert short_attention.is_short((100, 28, 3))
    assert not short_attention.is_short((100, 3, 29))
    laid = short_attention.lay_out_short(((3, 2, 0), (40, 1)), None, torch.float32, torch.device("cpu"))
    assert [tuple(part.mask.shape) for part in laid.sizes] == [(2, 1, 32, 32), (1, 1, 64, 64), (1, 1, 32, 64)]
    assert laid.places.unique().numel() == 46


def test_the_real_kernel_has_the_arguments_that_are_given() -> None:
    """And a CPU never asks for it."""
    import inspect

    given = set(inspect.signature(stand_in).parameters) - {"query_ends", "key_ends", "longest_query", "longest_key"}
    assert given <= set(inspect.signature(varlen.varlen_attn).parameters)
    half = torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16)
    assert not attention._has_varlen(half, half, None)


def test_keys_of_a_row_are_linear_in_its_groups() -> None:
    one = attention.make_sequences(attention.Branches(((5, 3, 2),)), torch.device("cpu"))
    assert one.keys.tolist() == [0, 1, 2, 3, 4, *range(5), 5, 6, 7, *range(5), 8, 9]
    assert one.query_ends.tolist() == [0, 5, 8, 10]
    assert one.key_ends.tolist() == [0, 5, 13, 20]
    many = attention.make_sequences(attention.Branches(((5, 3, 2),) * 7), torch.device("cpu"))
    assert len(many.keys) == 7 * len(one.keys)
