"""The fused path is the plain path: values and gradients, on every architecture that is awkward in its own way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finegrain.models import attention
from finegrain.models.packing import Branch, Group
from finegrain.models.probe import make_scorer, probe_model
from finegrain.models.scorer import Path, Request, fused, plain, silence_dropout, use_branched_attention
from tests.tiny import MODELS, exact_norms, plant_fault, ragged_groups


def evaluate(model: Any, path: Path, groups: Sequence[Group], seed: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities, entropies and the flat gradient under random token weights (some of them 0)."""
    model.zero_grad()
    values = path(model, groups, Request(prompts=True, entropy=True))
    assert values.entropy is not None
    generator = torch.Generator().manual_seed(seed)
    weights, more = (torch.randn(len(values.logp), generator=generator).to(values.logp).clamp(min=-0.5) for _ in range(2))
    ((values.logp * weights).sum() + (values.entropy * more).sum()).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return values.logp.detach(), values.entropy.detach(), gradient


def singly(model: Any, groups: Sequence[Group], request: Request) -> Any:
    """The fused path without any sharing: every answer with a prompt of its own, prompts scored with the first answer only."""
    answers = [Group(group.prompt, (branch,)) for group in groups for branch in group.branches]
    plain_order = fused(model, answers, Request(prompts=False, entropy=request.entropy))
    prompts = [
        fused(model, [Group(group.prompt, (Branch(group.branches[0].ids, np.zeros_like(group.branches[0].mask)),))], request) for group in groups
    ]
    joined = [torch.cat([getattr(plain_order, name), *(getattr(part, name) for part in prompts)]) for name in ("logp", "entropy")]
    return type(plain_order)(*joined)


@pytest.mark.parametrize("name", MODELS)
def test_sharing_changes_nothing_in_float64(name: str) -> None:
    model = MODELS[name]().double().train()
    exact_norms(model)
    silence_dropout(model)
    use_branched_attention(model)
    groups = ragged_groups()
    want = evaluate(model, singly, groups)
    assert largest_difference(evaluate(model, fused, groups), want) <= 1e-10
    plant_fault(model)
    assert largest_difference(evaluate(model, fused, groups), want) > 1e-10


def largest_difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Largest absolute difference, relative where the other tensor's largest entry is above 1."""
    return max(float((a - b).abs().max() / max(1.0, float(b.abs().max()))) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_fused_is_stock_eager(name: str) -> None:
    model = MODELS[name]().train()
    silenced = silence_dropout(model)
    assert bool(silenced) == ("dropout" in name)
    model.set_attn_implementation("eager")
    groups = ragged_groups()
    want = evaluate(model, plain, groups)
    use_branched_attention(model)
    got = evaluate(model, fused, groups)
    for one, other in zip(got, want, strict=True):
        assert (one - other).norm() <= 5e-6 * other.norm()
    assert model.config._attn_implementation == attention.NAME


def test_a_window_matters_and_branches_do_not_see_each_other() -> None:
    """The tests above would pass on a model that ignores its window; this one does not."""
    wide, narrow = MODELS["llama"](), MODELS["mistral, window 6"]()
    narrow.load_state_dict(wide.state_dict())
    for model in (wide, narrow):
        use_branched_attention(model)
    groups = ragged_groups()
    with torch.no_grad():
        assert (fused(wide, groups, Request()).logp - fused(narrow, groups, Request()).logp).abs().max() > 1e-4
        one = groups[0]
        changed = Group(one.prompt, (Branch(one.branches[0].ids + 1, one.branches[0].mask), one.branches[1]))
        first = int(one.branches[0].mask.sum())
        before, after = (fused(wide, [group], Request()).logp for group in (one, changed))
    assert torch.equal(before[first:], after[first:])
    assert not torch.equal(before[:first], after[:first])


def test_the_probe_passes_every_architecture_and_catches_a_broken_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in MODELS.items():
        model = make().train()
        silence_dropout(model)
        scorer, probe = make_scorer(model, longest=200)
        assert probe.fused, (name, probe.reason)
        assert scorer.path is fused

    honest = attention.lay_out_short

    def forgets_the_window(groups: Any, window: int | None, dtype: Any, device: Any) -> Any:
        return honest(groups, None, dtype, device)

    monkeypatch.setattr(attention, "lay_out_short", forgets_the_window)
    scorer, probe = make_scorer(MODELS["mistral, window 6"]().train(), longest=200)
    assert not probe.fused
    assert "differs" in probe.reason
    assert scorer.path is plain
    assert probe_model(MODELS["llama"]().train(), longest=200).reason != ""


def test_an_architecture_without_an_attention_interface_runs_plain() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)).train()
    silence_dropout(model)
    scorer, probe = make_scorer(model, longest=50)
    assert not probe.fused
    values = scorer(ragged_groups(long=30), Request(entropy=True))
    assert torch.isfinite(values.logp).all()


def test_full_vocabulary_kl_of_both_paths_and_its_gradient() -> None:
    frozen = MODELS["llama"]().double()
    model = MODELS["llama"]().double()
    for tensor in (exact_norms(frozen), exact_norms(model)):
        assert tensor is None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = []
    for path, faulty in ((plain, False), (fused, False), (fused, True)):
        if path is fused:
            use_branched_attention(frozen)
            use_branched_attention(model)
        if faulty:
            plant_fault(model)
        reference = type("Frozen", (), {"model": frozen})()
        model.zero_grad()
        values = path(model, ragged_groups(long=30), Request(kl_against=reference, reference_kl=True))
        upstream = torch.linspace(-1, 1, len(values.logp), dtype=torch.float64)
        for kl in (values.kl, values.reference_kl):
            assert kl is not None
            assert (kl > 0).all()
            (kl * upstream).sum().backward(retain_graph=True)
        found.append((values.kl.detach(), values.reference_kl.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert largest_difference(found[1], found[0]) <= 1e-10
    assert largest_difference(found[2], found[0]) > 1e-10
    assert largest_difference(found[0][:1], found[0][1:2]) > 1e-4, "the directions differ"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_masks_start_where_a_gpu_can_read_them(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA reads masks 16 bytes at a time, and a start in between ends the process; no CPU cares."""
    seen: list[torch.Tensor] = []
    honest = attention._attend

    def watched(query: Any, key: Any, value: Any, mask: torch.Tensor, scaling: float, softcap: float | None) -> torch.Tensor:
        seen.append(mask)
        return honest(query, key, value, mask, scaling, softcap)

    monkeypatch.setattr(attention, "_attend", watched)
    for name in ("llama", "mistral, window 6"):
        model = MODELS[name]().to(dtype)
        use_branched_attention(model)
        with torch.no_grad():
            fused(model, [*ragged_groups(), *ragged_groups(seed=1, long=131)], Request())
    assert len({mask.shape for mask in seen}) > 20
    for mask in seen:
        assert mask.data_ptr() % 16 == 0
        assert mask.stride(0) % 8 == 0
        assert mask.stride(1) == 1


def test_under_autocast_attention_casts_once_a_layer() -> None:
    model = MODELS["qwen3"](head_dim=20).train()  # its queries and keys leave a float32 norm; no block has 20 keys
    use_branched_attention(model)
    sizes: list[int] = []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._to_copy.default and args[0].shape[1:2] + args[0].shape[3:] in heads and args[0].dtype == torch.float32:
                sizes.append(args[0].shape[2])
            return function(*args, **(kwargs or {}))

    config, groups = model.config, ragged_groups()
    heads = [(config.num_attention_heads, config.head_dim), (config.num_key_value_heads, config.head_dim)]
    tokens = sum(group.tokens for group in groups)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Casts():
        fused(model, groups, Request())
    assert len(sizes) == 2 * config.num_hidden_layers
    assert min(sizes) >= tokens


def test_bfloat16_autocast_keeps_log_probabilities_in_float32() -> None:
    model = MODELS["llama"]().train()
    use_branched_attention(model)
    groups = ragged_groups()
    exact = fused(model, groups, Request()).logp
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = fused(model, groups, Request()).logp
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1
    rough.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_gradient_checkpointing_changes_nothing() -> None:
    groups = ragged_groups()
    found = []
    for checkpointing in (False, True):
        model = MODELS["gemma2, soft-caps"]().train()
        use_branched_attention(model)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        found.append(evaluate(model, fused, groups))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
