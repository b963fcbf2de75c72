"""Whatever is wrong with a checkpoint is one line with its cause, as a ModelError, and nothing is left unread without a word."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finegrain.errors import ModelError
from finegrain.models.load import load_policy, load_tokenizer, save_policy
from finegrain.models.load_errors import one_line
from tests.tiny import save_tiny

GONE = object()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), layers=2)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(base, tmp_path / "model"))


def edit(file: Path, entries: dict[str, Any]) -> None:
    facts = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({name: value for name, value in facts.items() if value is not GONE}))


def refused(folder: Path, *words: str, load: Callable[[str], Any] = load_policy) -> None:
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
    text = str(caught.value).replace(str(folder), "the checkpoint")  # whose path holds the test's name
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("told", "method"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes"),
        *[
            ({"quantization_config": {"quant_method": name}}, name)
            for name in ("gptq", "awq", "compressed-tensors", "fp8", "quanto", "hqq", "torchao", "eetq", "aqlm", "mxfp4", "of-tomorrow")
        ],
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"quantization_config": {}}, "method not named"),
        ({"quantization_config": "int4"}, "int4"),
    ],
)
def test_quantised_checkpoints_are_refused_by_method(copy: Path, told: dict[str, Any], method: str) -> None:
    edit(copy / "config.json", told)
    refused(copy, f"is a quantised checkpoint ({method}", "train from the unquantised checkpoint")


def test_quantised_weights_that_no_config_names(copy: Path) -> None:
    """By the dtype of weights, by tensors beside them, and by a file of an older program."""
    file = copy / "model.safetensors"
    whole = load_file(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    for dtype, told in ((torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")):
        save_file({**whole, name: whole[name].to(dtype)}, file, metadata={"format": "pt"})
        refused(copy, f"is a quantised checkpoint ({told} weights)")
    save_file({**whole, name.replace("weight", "qweight"): torch.zeros(4, 32, dtype=torch.int32)}, file, metadata={"format": "pt"})
    refused(copy, "is a quantised checkpoint (gptq or awq)")
    save_file(whole, file, metadata={"format": "pt"})
    (copy / "quantize_config.json").write_text("{}")
    refused(copy, "is a quantised checkpoint (gptq)")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"intermediate_size": 96}, ["shapes other than", "mlp.down_proj.weight", "(32, 48)", "(32, 96)"]),
        ({"vocab_size": 999}, ["shapes other than", "embed_tokens"]),
        ({"num_hidden_layers": 3}, ["lacks weights", "layers.2"]),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}, ["rope_type", "'spiral'"]),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, ["factor"]),
        ({"rope_parameters": "linear"}, ["rope_parameters"]),
        ({"hidden_act": "wobble"}, ["hidden_act", "'wobble'"]),
        ({"hidden_act": None}, ["hidden_act"]),
        ({"attn_implementation": "flash_attention_2"}, ["flash_attention_2", "delete attn_implementation"]),
        ({"_attn_implementation": "flash_attention_3"}, ["flash_attention_3"]),
        ({"attn_implementation": {"": "flash_attention_2"}}, ["flash_attention_2"]),
        pytest.param(
            {"attn_implementation": "flex_attention"}, ["flex_attention"], marks=pytest.mark.skipif(torch.cuda.is_available(), reason="runs")
        ),
        ({"attn_implementation": "someone/kernels"}, ["someone/kernels", "not run"]),
        ({"attn_implementation": "paged|sdpa"}, ["paged|sdpa"]),
        ({"attn_implementation": 3}, ["attention '3'", "delete attn_implementation"]),
        ({"num_attention_heads": 0}, ["cannot read the config", "modulo by zero"]),
        ({"num_attention_heads": "4"}, ["num_attention_heads"]),
        ({"hidden_size": None}, ["hidden_size"]),
        ({"vocab_size": -5}, ["negative"]),
        ({"dtype": "float4"}, ["float4"]),
        ({"dtype": 3}, ["dtype 3"]),
        ({"model_type": "llamb"}, ["'llamb'", "does not know"]),
        ({"model_type": GONE}, ["no model_type"]),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}}, ["its own code", "--trust-remote-code"]),
        ({"architectures": "LlamaForCausalLM"}, ["architectures"]),
        ({"id2label": 3}, ["cannot read the config", "an unexpected type"]),
    ],
)
def test_configs_that_cannot_be_used(copy: Path, told: dict[str, Any], words: list[str]) -> None:
    edit(copy / "config.json", told)
    refused(copy, *words)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '{"a":', "[" * 100_000, '{"a": "\xff"}'], ids=range(7))
def test_files_that_hold_something_else(copy: Path, text: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        kept = (copy / name).read_bytes()
        (copy / name).write_bytes(text.encode("latin-1"))
        refused(copy, "tokenizer", load=load_tokenizer)
        (copy / name).write_bytes(kept)
    (copy / "config.json").write_bytes(text.encode("latin-1"))
    refused(copy, "config")


@pytest.mark.parametrize("part", ["model", "pre_tokenizer", "normalizer", "decoder"])
def test_tokenizer_files_of_a_newer_kind(copy: Path, part: str) -> None:
    edit(copy / "tokenizer.json", {part: {"type": "OfTomorrow"}})
    refused(copy, "tokenizer.json has entries that tokenizers", "newer", load=load_tokenizer)


def test_slow_tokenizers_are_refused_with_what_to_do(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (copy / "tokenizer.model").write_bytes(b"garbage")
    refused(copy, "tokenizer.model", "sentencepiece", load=load_tokenizer)
    (copy / "tokenizer.model").unlink()
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    refused(copy, "ByT5Tokenizer", "slow", load=load_tokenizer)


def shards(folder: Path) -> Path:
    """The same weights in two files and an index; returns the second."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {f"model-{number:05}-of-00002.safetensors": sorted(whole)[number - 1 :: 2] for number in (1, 2)}
    for name, held in files.items():
        save_file({key: whole[key] for key in held}, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, held in files.items() for key in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / "model-00002-of-00002.safetensors"


def test_weight_files_that_are_damaged_or_missing(copy: Path) -> None:
    whole = copy / "model.safetensors"
    kept = whole.read_bytes()
    for damage in (kept[:-9], kept[:100], b"", b"\0" * 64, (10**15).to_bytes(8, "little") + kept[8:]):
        whole.write_bytes(damage)
        refused(copy, "model.safetensors", "damaged or incomplete")
    whole.write_bytes(kept)
    second = shards(copy)
    assert load_policy(str(copy)).unused == ()
    index = copy / "model.safetensors.index.json"
    told = index.read_text()
    for text in ("{", "{}", "[]", '{"weight_map": 3}'):
        index.write_text(text)
        refused(copy, index.name)
    index.write_text(told)
    second.write_bytes(second.read_bytes()[:100])
    refused(copy, second.name, "damaged or incomplete")
    second.unlink()
    refused(copy, second.name, "download it again")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(copy: Path, bad: float) -> None:
    file = copy / "model.safetensors"
    state = load_file(file)
    name = next(name for name in state if name.endswith("down_proj.weight"))
    state[name][3, 5] = bad
    save_file(state, file, metadata={"format": "pt"})
    refused(copy, name, "NaN or infinity")


def test_weights_that_nothing_uses_are_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr once, and in the policy for run.json; a name cannot move the cursor of a terminal."""
    file = copy / "model.safetensors"
    save_file({**load_file(file), "model.visual\x1b[2J.weight": torch.zeros(3)}, file, metadata={"format": "pt"})
    edit(copy / "config.json", {"num_hidden_layers": 1})
    policy = load_policy(str(copy))
    assert len(policy.unused) == 10
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "layers.1" in line]
    assert "10 weights are not used by LlamaForCausalLM" in told
    assert "\x1b" not in one_line(policy.unused[-1])


def test_a_padding_token_beyond_the_embeddings_pads_nothing(copy: Path) -> None:
    edit(copy / "config.json", {"pad_token_id": 5000})
    assert load_policy(str(copy)).model.config.pad_token_id is None


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_are_readable_by_whom_the_umask_allows(base: Path, tmp_path: Path, umask: int) -> None:
    """safetensors writes for the owner alone."""
    policy = load_policy(str(base))
    before = os.umask(umask)
    try:
        save_policy(policy, tmp_path / "saved")
    finally:
        os.umask(before)
    for file in (tmp_path / "saved").iterdir():
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask, file.name
