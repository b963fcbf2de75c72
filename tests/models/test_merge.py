"""Merging on disk (models/merge.py, models/stored_weights.py): shards, ties, buffers, dtypes, memory, and what is refused."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finegrain.errors import ModelError, NonFiniteError
from finegrain.models import merge
from finegrain.models.lora_weights import open_weights
from finegrain.models.merge import Sources, check_related, check_tensors, write_merged
from finegrain.weights.blocks import MergeMethod
from finegrain.weights.expo import Expo
from finegrain.weights.soup import Soup
from tests.models.related import move, reshard, save_family, stored
from tests.tiny import MODELS, save_tiny
from tests.weights.tensors import same_bits


def write(method: MergeMethod, folder: Path, *models: Path, base: Path | None = None, shard: int = 10**9, dtype: Any = None) -> Any:
    """A merge into a new folder; its facts."""
    folder.mkdir()
    sources = Sources([open_weights(str(one)) for one in models], None if base is None else open_weights(str(base)))
    return write_merged(method, sources, folder, dtype=dtype, shard_bytes=shard)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_every_architecture_is_merged(name: str, tmp_path: Path) -> None:
    """Against transformers' own state, tied weights included."""
    base, tuned, _ = save_family(tmp_path, model=MODELS[name]())
    write(Expo(alpha=0.5), tmp_path / "out", tuned, base=base)
    shutil.copy(base / "config.json", tmp_path / "out")
    models = [AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True) for folder in (base, tuned, tmp_path / "out")]
    start, aligned, merged = (dict(model.named_parameters()) for model in models)
    for parameter in merged:
        torch.testing.assert_close(merged[parameter], 1.5 * aligned[parameter] - 0.5 * start[parameter], rtol=1e-5, atol=1e-6)
    for buffer, value in models[2].named_buffers():
        assert torch.equal(value, dict(models[1].named_buffers())[buffer])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_merge_with_itself_is_the_model(dtype: torch.dtype, tmp_path: Path) -> None:
    base, tuned, _ = save_family(tmp_path, dtype=dtype)
    write(Soup(weights=(0.3, 0.7)), tmp_path / "soup", tuned, tuned)
    write(Expo(alpha=0.0), tmp_path / "expo", tuned, base=base)
    for folder in ("soup", "expo"):
        found, wanted = stored(tmp_path / folder), stored(tuned)
        assert found.keys() == wanted.keys()
        assert all(same_bits(found[name], wanted[name]) for name in wanted)


def test_one_file_and_shards_give_the_same_files(tmp_path: Path) -> None:
    """Whatever the sources' files, the bytes are the same; so are those of shards and of one file, tensor by tensor."""
    base, tuned, _ = save_family(tmp_path)
    sharded = [reshard(one, tmp_path / f"{one.name}-sharded") for one in (base, tuned)]
    write(Expo(alpha=0.5), tmp_path / "one", tuned, base=base)
    write(Expo(alpha=0.5), tmp_path / "two", sharded[1], base=base)
    many = write(Expo(alpha=0.5), tmp_path / "many", sharded[1], base=sharded[0], shard=20_000)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    assert many.shards > 2
    one, found = stored(tmp_path / "one"), stored(tmp_path / "many")
    assert one.keys() == found.keys()
    assert all(same_bits(one[name], found[name]) for name in one)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == one.keys()
    assert index["metadata"]["total_size"] == sum(one.nbytes for one in found.values())
    for folder in ("one", "many"):
        shutil.copy(base / "config.json", tmp_path / folder)
    logits = [AutoModelForCausalLM.from_pretrained(tmp_path / folder)(torch.tensor([[5, 6, 7]])).logits for folder in ("one", "many")]
    assert torch.equal(*logits)


def test_one_shard_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a shard is written, no tensor of an earlier one is left, and none exceeds the size asked for but by a single tensor."""
    base, tuned, _ = save_family(tmp_path, layers=3)
    living: list[Any] = []
    most: list[tuple[int, int]] = []

    def watched(shard: dict[str, torch.Tensor], file: Path, **kwargs: Any) -> None:
        assert [one for one in living if one() is not None] == []
        most.append((sum(one.nbytes for one in shard.values()), len(shard)))
        living.extend(weakref.ref(one) for one in shard.values())
        save_file(shard, file, **kwargs)

    monkeypatch.setattr(merge, "save_file", watched)
    write(Expo(alpha=0.5), tmp_path / "out", tuned, base=base, shard=10_000)
    assert len(most) > 3
    assert all(size <= 10_000 or count == 1 for size, count in most)


def test_buffers_are_copied_from_the_first_model(tmp_path: Path) -> None:
    """Integers, and rotary frequencies that older versions stored."""
    base, tuned, _ = save_family(tmp_path)
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "model.steps": torch.tensor([3, 4])}
    for place, folder in enumerate((base, tuned)):
        save_file({**load_file(folder / "model.safetensors"), **{name: one + place for name, one in extra.items()}}, folder / "model.safetensors")
    facts = write(Expo(alpha=2.0), tmp_path / "out", tuned, base=base)
    found = stored(tmp_path / "out")
    assert {name: found[name].tolist() for name in extra} == {name: (one + 1).tolist() for name, one in extra.items()}
    assert set(facts.copied) == set(extra)


def test_tied_weights_are_merged_once(tmp_path: Path) -> None:
    """A copy of the embeddings under the head's name, as other programs write it, is left out; where it alone is there, it is the embeddings."""
    base, tuned, _ = save_family(tmp_path)
    weights = load_file(tuned / "model.safetensors")
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, tuned / "model.safetensors")
    only = {("lm_head.weight" if name == "model.embed_tokens.weight" else name): one for name, one in load_file(base / "model.safetensors").items()}
    save_file(only, base / "model.safetensors")
    facts = write(Expo(alpha=1.0), tmp_path / "out", tuned, base=base)
    found = stored(tmp_path / "out")
    assert "lm_head.weight" not in found
    torch.testing.assert_close(found["model.embed_tokens.weight"], 2 * weights["model.embed_tokens.weight"] - only["lm_head.weight"])
    assert facts.tensors == len(found)
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"] + 1}, tuned / "model.safetensors")
    with pytest.raises(ModelError, match=r"ties lm_head.weight to model.embed_tokens.weight, but the files hold different numbers"):
        open_weights(str(tuned))


def test_names_without_the_base_models_prefix(tmp_path: Path) -> None:
    """As the oldest checkpoints hold them."""
    base, tuned, _ = save_family(tmp_path)
    bare = {name.removeprefix("model."): one for name, one in load_file(base / "model.safetensors").items()}
    write(Soup(), tmp_path / "usual", tuned, base)
    save_file(bare, base / "model.safetensors")
    write(Soup(), tmp_path / "out", tuned, base)
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "usual/model.safetensors").read_bytes()


def test_dtypes(tmp_path: Path) -> None:
    """Of the first model tensor by tensor, or as asked; sums are float32 whatever they are."""
    base, tuned, other = save_family(tmp_path, dtype=torch.bfloat16)
    norm = "model.norm.weight"
    mixed = load_file(tuned / "model.safetensors")
    save_file({**mixed, norm: mixed[norm].float()}, tuned / "model.safetensors")
    write(Soup(), tmp_path / "kept", tuned, other)
    kept = stored(tmp_path / "kept")
    assert {name for name, one in kept.items() if one.dtype == torch.float32} == {norm}
    write(Soup(), tmp_path / "wide", tuned, other, base, dtype=torch.float32)
    wide, sources = stored(tmp_path / "wide"), [stored(one) for one in (tuned, other, base)]
    for name, one in wide.items():
        exact = sum(source[name].double() for source in sources) / 3
        torch.testing.assert_close(one, exact.float(), rtol=0, atol=float(3 * torch.finfo(torch.float32).eps * exact.abs().max()))


def test_change_is_measured(tmp_path: Path) -> None:
    base, tuned, _ = save_family(tmp_path)
    assert write(Expo(alpha=0.0), tmp_path / "none", tuned, base=base).change[1:3] == (0, 0.0)
    change = write(Expo(alpha=1.0), tmp_path / "one", tuned, base=base).change
    first, start = stored(tuned), stored(base)
    distance = sum(float((first[name] - start[name]).double().square().sum()) for name in first)
    assert change.distance == pytest.approx(distance, rel=1e-4)
    assert change.elements == sum(one.numel() for one in first.values())
    assert change.moved > 0.99 * change.elements


def test_other_tensors_and_shapes_are_refused(tmp_path: Path) -> None:
    base, tuned, _ = save_family(tmp_path)
    wider, deeper = save_tiny(tmp_path / "wider", width=64), save_tiny(tmp_path / "deeper", layers=2)
    with pytest.raises(ModelError, match=r"tensors of .*wider have other shapes than those of .*tuned-1.*\(320, 64\) and \(320, 32\)") as found:
        check_tensors(Sources([open_weights(str(tuned)), open_weights(str(wider))], None))
    assert "the same vocabulary" in str(found.value)
    with pytest.raises(ModelError, match=r"tuned-1 lacks tensors that .*deeper holds: model.layers.1"):
        check_tensors(Sources([open_weights(str(tuned))], open_weights(str(deeper))))
    assert base != tuned


def test_models_trained_apart_are_refused(tmp_path: Path) -> None:
    base, tuned, _ = save_family(tmp_path)
    cosines = check_related(Sources([open_weights(str(tuned))], open_weights(str(base))))
    assert cosines[0] is not None
    assert 0.9 < cosines[0] < 1
    torch.manual_seed(9)
    apart = AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(base).config)
    shutil.copytree(base, tmp_path / "apart")
    move(apart, 5).save_pretrained(tmp_path / "apart")
    with pytest.raises(ModelError, match=r"apart and .*base do not come from the same base: the cosine of their weights is -?0\.0"):
        check_related(Sources([open_weights(str(base)), open_weights(str(tmp_path / "apart"))], None))


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    """Of a source, the source is named; of the result alone, the setting."""
    base, tuned, _ = save_family(tmp_path)
    with pytest.raises(NonFiniteError, match=r"beyond the range of torch.float16; take a smaller alpha, or --save-dtype float32"):
        write(Expo(alpha=1e7), tmp_path / "far", tuned, base=base, dtype=torch.float16)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, base / "model.safetensors")
    with pytest.raises(ModelError, match=r"base: 1 weights contain NaN or infinity: model.norm.weight"):
        write(Expo(alpha=1.0), tmp_path / "out", tuned, base=base)


def test_unusable_checkpoints(tmp_path: Path) -> None:
    base, tuned, _ = save_family(tmp_path)
    config = json.loads((tuned / "config.json").read_text())
    (tuned / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(ModelError, match="not a causal language model"):
        open_weights(str(tuned))
    (tuned / "config.json").write_text(json.dumps({**config, "model_type": "zebra"}))
    with pytest.raises(ModelError, match="zebra"):
        open_weights(str(tuned))
    (tuned / "config.json").write_text(json.dumps(config))
    (tuned / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        open_weights(str(tuned))
    (tuned / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled"):
        open_weights(str(tuned))
    save_file({"model.norm.weight": torch.zeros(4, dtype=torch.uint8)}, base / "model.safetensors")
    with pytest.raises(ModelError, match="quantised"):
        open_weights(str(base))
    with pytest.raises(ModelError, match="no model at"):
        open_weights(str(tmp_path / "nowhere"))
