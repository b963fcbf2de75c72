"""Whole weights of an adapter (models/lora_weights.py): those of peft's own merge, and never factor by factor."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from finegrain.errors import ModelError
from finegrain.models.lora_weights import LoraWeights, open_weights
from finegrain.models.merge import Sources, write_merged
from finegrain.weights.expo import Expo
from finegrain.weights.soup import Soup
from tests.models.related import stored
from tests.tiny import MODELS, save_tiny

KINDS: dict[str, dict[str, Any]] = {
    "all linear": {"target_modules": "all-linear"},
    "rank-stabilised": {"target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "patterns": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.self_attn.v_proj": 3}},
    "embeddings": {"target_modules": ["embed_tokens", "o_proj"]},
    "whole norm": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    "rows of all biases": {"target_modules": ["c_attn", "c_proj"], "bias": "all"},
}
BASES = {"embeddings": "llama", "rows of all biases": "gpt2, default dropout"}
"""Where it is not the tiny Llama whose embeddings are tied."""


def save_adapter(base: Path, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A LoRA adapter whose factors are random."""
    model = AutoModelForCausalLM.from_pretrained(base)
    made = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **settings}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.requires_grad:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator) + (1 if "norm" in name else 0))
    made.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, *adapters: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.filterwarnings("ignore:.*tie:UserWarning", "ignore:fan_in_fan_out:UserWarning", "ignore:.*embedding:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_as_peft_merges_it(kind: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", MODELS[BASES[kind]]() if kind in BASES else None)
    adapter = save_adapter(base, tmp_path / "adapter", **KINDS[kind])
    weights, wanted = open_weights(str(adapter)), merged_by_peft(base, adapter)
    moved = [name for name, one in stored(base).items() if not torch.equal(weights.read(name), one)]
    assert moved
    for name in weights.shapes:
        torch.testing.assert_close(weights.read(name), wanted[name], rtol=0, atol=1e-6)


def test_a_mean_of_adapters_is_the_mean_of_their_products(tmp_path: Path) -> None:
    """The product of mean factors is another matrix."""
    base = save_tiny(tmp_path / "base")
    adapters = [save_adapter(base, tmp_path / f"adapter-{seed}", seed, target_modules=["q_proj"]) for seed in (1, 2)]
    (tmp_path / "out").mkdir()
    sources = [open_weights(str(one)) for one in adapters]
    write_merged(Soup(), Sources(sources, None), tmp_path / "out", dtype=None, shard_bytes=10**9)
    name = "model.layers.0.self_attn.q_proj.weight"
    found, wholes = stored(tmp_path / "out")[name], [merged_by_peft(base, one)[name] for one in adapters]
    torch.testing.assert_close(found, (wholes[0] + wholes[1]) / 2, rtol=0, atol=1e-6)
    assert isinstance(sources[0], LoraWeights)
    factors = [[one.files.tensor(part) for part in one.factors[name]] for one in sources if isinstance(one, LoraWeights)]
    wrong = (factors[0][1] + factors[1][1]) / 2 @ (factors[0][0] + factors[1][0]) / 2 * 2
    assert float((found - stored(base)[name] - wrong).abs().max()) > 1e-3


def test_extrapolating_an_adapter_is_a_larger_scale(tmp_path: Path) -> None:
    """Sheet of expo: against its base, alpha multiplies the adapter's scale by 1 + alpha, exactly."""
    base = save_tiny(tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", target_modules="all-linear")
    (tmp_path / "out").mkdir()
    write_merged(Expo(alpha=0.5), Sources([open_weights(str(adapter))], open_weights(str(base))), tmp_path / "out", dtype=None, shard_bytes=10**9)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 12}))
    for name, wanted in merged_by_peft(base, adapter).items():
        torch.testing.assert_close(stored(tmp_path / "out")[name], wanted, rtol=0, atol=1e-6)


def test_an_adapter_on_an_adapter(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    first = save_adapter(base, tmp_path / "first", 1, target_modules=["q_proj"])
    second = save_adapter(base, tmp_path / "second", 2, target_modules=["q_proj"])
    config = json.loads((second / "adapter_config.json").read_text())
    (second / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(first)}))
    weights, wanted = open_weights(str(second)), merged_by_peft(base, first, second)
    for name in weights.shapes:
        torch.testing.assert_close(weights.read(name), wanted[name], rtol=0, atol=1e-6)
    for end in (first, second):  # second, first, second again; or second itself
        (end / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(second)}))
        with pytest.raises(ModelError, match="based on itself"):
            open_weights(str(second))


@pytest.mark.filterwarnings("ignore:.*tie:UserWarning", "ignore:.*embedding:UserWarning")
@pytest.mark.parametrize("kind", [{"target_modules": ["embed_tokens"]}, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}])
def test_embeddings_that_the_base_ties_to_its_output(kind: dict[str, Any], tmp_path: Path) -> None:
    """peft changes the embedding alone; in a whole checkpoint the output layer would change with it."""
    adapter = save_adapter(save_tiny(tmp_path / "base"), tmp_path / "adapter", **kind)
    with pytest.raises(ModelError, match=r"changes model\.embed_tokens\.weight alone, .* untie the base first"):
        open_weights(str(adapter))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"use_dora": True}, "LoRA adapter with use_dora"),
        ({"peft_type": "LOHA"}, "of the type LOHA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa"),
        ({"task_type": "SEQ_CLS"}, "reward model"),
    ],
)
def test_other_kinds_are_refused(entry: dict[str, Any], words: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **entry}))
    with pytest.raises(ModelError, match=words):
        open_weights(str(adapter))


def test_an_adapter_of_another_model(tmp_path: Path) -> None:
    """Of more layers, or with rows for added tokens."""
    base, deep = save_tiny(tmp_path / "base"), save_tiny(tmp_path / "deep", layers=2)
    adapter = save_adapter(deep, tmp_path / "adapter", target_modules=["q_proj"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    with pytest.raises(ModelError, match=r"weights that do not belong to its base .*layers.1"):
        open_weights(str(adapter))
    wide = save_tiny(tmp_path / "wide", width=64)
    adapter = save_adapter(wide, tmp_path / "norms", target_modules=["q_proj"], modules_to_save=["norm"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    with pytest.raises(ModelError, match=r"norm.weight of the shape \(64,\), and its base \(32,\)"):
        open_weights(str(adapter))
