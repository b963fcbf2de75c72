"""A narrow base under an adapter computes what a float32 copy of it would, bit by bit, in half the memory."""

import copy
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finegrain.cli import main
from finegrain.models.adapters import add_adapter
from finegrain.models.frozen_base import keep_narrow, widen_temporarily, widen_trained
from finegrain.models.load import Policy, load_policy
from finegrain.models.lora import Lora
from finegrain.models.scorer import Path as ScorerPath
from finegrain.models.scorer import Request, fused, plain, silence_dropout, use_branched_attention
from finegrain.ops.matmul import use_onednn_linear
from tests.tiny import MODELS, ragged_groups, save_tiny, write_pairs


def adapted(model: Any) -> Any:
    """The model with the same random adapter whatever its dtype."""
    silence_dropout(model)
    found = add_adapter(Policy(model, None, "in memory", torch.bfloat16), Lora(rank=2), 1).model
    widen_trained(found, torch.float32)
    generator = torch.Generator().manual_seed(2)
    for parameter in found.parameters():
        if parameter.requires_grad:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    use_branched_attention(found)
    use_onednn_linear(found)
    return found


def evaluate(model: Any, path: ScorerPath, context: AbstractContextManager[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    with context:
        values = path(model, ragged_groups(long=30), Request(entropy=True))
    assert values.entropy is not None
    (values.logp.sum() + values.entropy.sum()).backward()
    return values.logp.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if "gpt2" not in name])
def test_narrow_weights_compute_what_wide_ones_do(name: str) -> None:
    wide = MODELS[name]().to(torch.bfloat16)
    narrow = copy.deepcopy(wide)
    wide.float()
    keep_narrow(narrow, torch.float32)
    assert size(narrow) < 0.6 * size(wide)
    wide, narrow = adapted(wide), adapted(narrow)
    for path in (fused, plain):
        for context in (nullcontext, lambda: torch.autocast("cpu", dtype=torch.bfloat16)):
            for one, other in zip(evaluate(narrow, path, context()), evaluate(wide, path, context()), strict=True):
                assert torch.equal(one, other)
    assert {name: parameter for name, parameter in narrow.named_parameters() if parameter.dtype == torch.bfloat16}
    for (key, one), (_, other) in zip(narrow.named_parameters(), wide.named_parameters(), strict=True):
        assert torch.equal(one.float(), other), f"{key} is not where it was"


def test_the_graph_keeps_narrow_weights_only() -> None:
    model = MODELS["llama"]().to(torch.bfloat16)
    keep_narrow(model, torch.float32)
    model = adapted(model)
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fused(model, ragged_groups(long=30), Request())
    matrices = {tuple(p.shape) for name, p in model.named_parameters() if p.ndim == 2 and "lora_" not in name and "embed" not in name}
    shapes = matrices | {shape[::-1] for shape in matrices}
    kept = [tensor.dtype for tensor in saved if tuple(tensor.shape) in shapes]
    assert kept.count(torch.bfloat16) >= 10
    assert torch.float32 not in kept


def test_narrow_weights_come_out_of_a_merge_as_they_went_in() -> None:
    model = MODELS["llama"]().to(torch.bfloat16)
    keep_narrow(model, torch.float32)
    model = adapted(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with widen_temporarily(model):
        model.merge_adapter()
        assert any(not torch.equal(tensor, before[name].to(tensor)) for name, tensor in model.state_dict().items())
        model.unmerge_adapter()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])


def test_which_weights_a_loaded_base_keeps_narrow(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", MODELS["llama"](vocab_size=320).to(torch.bfloat16))
    whole = load_policy(folder)
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}
    frozen = add_adapter(load_policy(folder, frozen=True), Lora(rank=2), 0)
    widen_trained(frozen.model, torch.float32)
    for name, parameter in frozen.model.named_parameters():
        narrow = not parameter.requires_grad and parameter.ndim == 2
        assert parameter.dtype == (torch.bfloat16 if narrow else torch.float32), name
    assert frozen.checkpoint_dtype == torch.bfloat16


@pytest.mark.slow
def test_runs_on_a_narrow_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter, interrupted and resumed to the bit; a reward model of it, merged; a head on a frozen backbone."""
    model = save_tiny(tmp_path / "model", MODELS["llama"](vocab_size=320).to(torch.bfloat16))
    data = write_pairs(tmp_path / "pairs.jsonl", 24)
    common = ["--model", str(model), "--data", str(data), "--device", "cpu", "--samples", "0", "--examined", "0", "--batch-size", "8"]

    def run(command: str, out: str, *arguments: str) -> Path:
        assert main([command, *common, "--out", str(tmp_path / out), *arguments]) == 0
        return tmp_path / out

    lora = ["objective:dpo", "--lora.rank", "2", "--lr", "1e-3"]
    whole = run("prefer", "whole", *lora)
    part = tmp_path / "part"
    run("prefer", "part", *lora, "--save-every", "1")
    (part / "adapter_model.safetensors").unlink()
    kept = part / "checkpoint-2"
    assert [path.name for path in part.glob("checkpoint-*")] == [kept.name]
    run("prefer", "part", *lora, "--save-every", "1", "--resume")
    assert torch.equal(*(torch.cat([t.flatten() for t in load_file(run / "adapter_model.safetensors").values()]) for run in (whole, part)))
    assert {tensor.dtype for tensor in load_file(whole / "adapter_model.safetensors").values()} == {torch.float32}
    reward = run("reward", "reward", "--lora.rank", "2")
    assert json.loads((reward / "config.json").read_text())["dtype"] == "bfloat16"
    run("reward", "frozen", "head:sequence", "--frozen")
    capsys.readouterr()
