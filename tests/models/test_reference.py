"""The reference is the model that was passed, its values are computed once, and what is saved loads with stock tools."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finegrain.data.records import Example
from finegrain.errors import ModelError, UsageError
from finegrain.models.adapters import add_adapter
from finegrain.models.load import Policy, load_policy, save_policy
from finegrain.models.lora import Lora
from finegrain.models.probe import make_scorer
from finegrain.models.reference import ScoreCache, copy_reference
from finegrain.models.score import ComputeUsage, Precision, make_group, score_rows, write_ragged
from finegrain.models.scorer import Scorer, fused, plain, silence_dropout
from finegrain.types import Ragged
from tests.tiny import examples, save_tiny

ROLES = ("chosen", "rejected")
HOW = Precision(nullcontext, "float32", 500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def scorer_of(policy: Policy) -> Scorer:
    silence_dropout(policy.model)
    scorer, probe = make_scorer(policy.model.train(), longest=64)
    assert probe.fused, probe.reason
    return scorer


def ask(cache: ScoreCache, policy: Policy, rows: list[Example], roles: tuple[str, ...] = ROLES) -> tuple[dict[str, Ragged], int]:
    """Reference values, and how many rows were computed for them."""
    usage = ComputeUsage()
    values = cache.values(policy, scorer_of(policy), rows, roles, HOW, usage)
    return {role: [np.array(one) for one in column] for role, column in values.items()}, usage.rows


def assert_equal(one: dict[str, Ragged], other: dict[str, Ragged], tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for role in one:
        for left, right in zip(one[role], other[role], strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


def stock_values(model: Any, rows: list[Example]) -> dict[str, Ragged]:
    """Log-probabilities by transformers alone, one row at a time."""
    found: dict[str, Ragged] = {role: [] for role in ROLES}
    model.eval()
    for row in rows:
        for role in ROLES:
            side = row.responses[role]
            ids = torch.from_numpy(np.concatenate([row.prompt, side.ids]))[None].long()
            with torch.no_grad():
                logp = model(input_ids=ids).logits.float().log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
            found[role].append(np.where(side.mask, logp[len(row.prompt) - 1 :].numpy(), 0.0))
    return found


def test_the_second_run_computes_nothing_and_reads_the_same(folder: Path, tmp_path: Path) -> None:
    cache, rows = ScoreCache(tmp_path), examples(9)
    first, computed = ask(cache, load_policy(folder), rows)
    assert computed == 9
    again, computed = ask(cache, load_policy(folder), rows)
    assert computed == 0
    assert_equal(first, again)
    assert_equal(first, stock_values(AutoModelForCausalLM.from_pretrained(folder), rows), 1e-5)


def other_token(rows: list[Example]) -> list[Example]:
    changed = rows[0].responses["chosen"].ids.copy()
    changed[0] = 7 if changed[0] != 7 else 8
    responses = {**rows[0].responses, "chosen": replace(rows[0].responses["chosen"], ids=changed)}
    return [replace(rows[0], responses=responses), *rows[1:]]


def other_mask(rows: list[Example]) -> list[Example]:
    side = rows[2].responses["rejected"]
    return [*rows[:2], replace(rows[2], responses={**rows[2].responses, "rejected": replace(side, mask=~side.mask)}), *rows[3:]]


def shorter_prompt(rows: list[Example]) -> list[Example]:
    long = next(index for index, row in enumerate(rows) if len(row.prompt) > 1)
    return [replace(row, prompt=row.prompt[1:]) if index == long else row for index, row in enumerate(rows)]


@pytest.mark.parametrize("change", [other_token, other_mask, shorter_prompt, lambda rows: rows[:-1], lambda rows: rows[::-1]])
def test_other_rows_are_computed(folder: Path, tmp_path: Path, change: Callable[[list[Example]], list[Example]]) -> None:
    """A token, a mask, a truncation, fewer rows, another order."""
    cache, rows = ScoreCache(tmp_path), examples(6, seed=1)
    ask(cache, load_policy(folder), rows)
    values, computed = ask(cache, load_policy(folder), change(rows))
    assert computed == len(change(rows))
    assert_equal(values, stock_values(AutoModelForCausalLM.from_pretrained(folder), change(rows)), 1e-5)


def test_other_roles_and_texts_of_the_row(folder: Path, tmp_path: Path) -> None:
    """Exchanged answers are other values; what is not read (row numbers, columns, text) is no part of the key."""
    cache, rows = ScoreCache(tmp_path), examples(5)
    one, _ = ask(cache, load_policy(folder), rows)
    exchanged, computed = ask(cache, load_policy(folder), rows, ("rejected", "chosen"))
    assert computed == 5
    assert_equal(one, dict(sorted(exchanged.items())), 1e-5)
    renamed = [replace(row, row=row.row + 100, prompt_text="?", columns={"margin": 1.0}) for row in rows]
    assert ask(cache, load_policy(folder), renamed)[1] == 0


def test_a_changed_weight_is_another_reference(folder: Path, tmp_path: Path) -> None:
    """On disk, with the file's size unchanged; and in memory, where no file knows."""
    cache, rows = ScoreCache(tmp_path / "cache"), examples(5)
    before, _ = ask(cache, load_policy(folder), rows)
    policy = load_policy(folder)
    with torch.no_grad():
        policy.model.lm_head.weight[5] += 0.1
    save_policy(policy, tmp_path / "other")
    after, computed = ask(cache, load_policy(tmp_path / "other"), rows)
    assert computed == 5
    assert max(np.abs(a - b).max() for a, b in zip(before["chosen"], after["chosen"], strict=True)) > 1e-4
    file = tmp_path / "other" / "model.safetensors"
    size = file.stat().st_size
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "other")
    assert file.stat().st_size == size
    assert_equal(ask(cache, load_policy(tmp_path / "other"), rows)[0], before)

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    in_memory, computed = ask(cache, load_policy(model, tokenizer=tokenizer), rows)
    assert_equal(in_memory, before, 1e-6)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    changed, computed = ask(cache, load_policy(model, tokenizer=tokenizer), rows)
    assert computed == 5
    assert_equal(changed, stock_values_of_copy(model, folder, rows), 1e-5)
    assert ask(cache, load_policy(model, tokenizer=tokenizer), rows)[1] == 0


def stock_values_of_copy(model: Any, folder: Path, rows: list[Example]) -> dict[str, Ragged]:
    fresh = AutoModelForCausalLM.from_pretrained(folder)
    fresh.load_state_dict(model.state_dict())
    return stock_values(fresh, rows)


def test_a_changed_config_is_another_reference(folder: Path, tmp_path: Path) -> None:
    """In memory: the same tensors under another rotary base."""
    rows, cache = examples(4, seed=9), ScoreCache(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    one, two = (AutoModelForCausalLM.from_pretrained(folder, rope_parameters={"rope_type": "default", "rope_theta": theta}) for theta in (1e4, 50.0))
    ask(cache, load_policy(one, tokenizer=tokenizer), rows)
    assert ask(cache, load_policy(two, tokenizer=tokenizer), rows)[1] == 4


@pytest.mark.parametrize("damage", ["a sampled value, checksum forged", "any value", "half the file", "not a file of tensors"])
def test_a_damaged_cache_is_computed_again(folder: Path, tmp_path: Path, damage: str) -> None:
    cache, rows = ScoreCache(tmp_path), examples(30, seed=2)
    before, _ = ask(cache, load_policy(folder), rows)
    (file,) = (tmp_path / "reference").glob("*.safetensors")
    if damage.startswith("a sampled"):
        spoilt = {role: [values.copy() for values in column] for role, column in before.items()}
        spoilt["rejected"][-1][np.flatnonzero(rows[-1].responses["rejected"].mask)[0]] += 0.01
        write_ragged(file, spoilt)
    elif damage == "any value":
        tensors = load_file(file)
        tensors["chosen"][len(tensors["chosen"]) // 2] += 1e-4
        save_file(tensors, file, metadata={"sha256": "0" * 64})
    elif damage == "half the file":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.write_text("hello")
    after, computed = ask(cache, load_policy(folder), rows)
    assert computed == 30
    assert_equal(before, after)
    assert ask(cache, load_policy(folder), rows)[1] == 0


def test_training_does_not_move_the_reference(folder: Path, tmp_path: Path) -> None:
    """The live copy stays where the policy began, and is out of reach of its optimiser."""
    policy = load_policy(folder)
    scorer = scorer_of(policy)
    rows = examples(3)
    frozen = copy_reference(scorer)
    before = score_rows(frozen, rows, ROLES, HOW)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.mul_(1.01)
    assert_equal(score_rows(frozen, rows, ROLES, HOW), before)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert np.abs(score_rows(scorer, rows, ROLES, HOW)["chosen"][0] - before["chosen"][0]).max() > 0


def move(policy: Policy) -> None:
    """Some training, without a loop."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("targets", ["all-linear", "q_proj,v_proj"])
def test_a_fresh_adapter_is_the_passed_model_until_it_trains(folder: Path, tmp_path: Path, targets: str) -> None:
    """Embeddings are tied in this model; the adapter's checkpoint loads stock and gives the policy's logits."""
    rows, cache = examples(5), ScoreCache(tmp_path / "cache")
    bare, _ = ask(cache, load_policy(folder), rows)
    policy = add_adapter(load_policy(folder), Lora(rank=4, targets=targets), seed=0)
    assert policy.model.config.tie_word_embeddings
    values, computed = ask(cache, policy, rows)
    assert computed == 0, "a fresh adapter changes nothing: the same reference"
    assert_equal(values, bare)
    trained = [name for name, parameter in policy.model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    move(policy)
    save_policy(policy, tmp_path / "adapter")
    stock = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert_equal(score_rows(scorer_of(policy), rows, ROLES, HOW), stock_values(stock, rows), 1e-5)
    AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert sorted(file.suffix for file in (tmp_path / "adapter").glob("*") if file.suffix in (".bin", ".pt", ".pkl")) == []


def test_a_passed_adapter_is_the_reference_and_goes_on_training(folder: Path, tmp_path: Path) -> None:
    rows, cache = examples(5), ScoreCache(tmp_path / "cache")
    bare, _ = ask(cache, load_policy(folder), rows)
    start = add_adapter(load_policy(folder), Lora(rank=4), seed=0)
    move(start)
    save_policy(start, tmp_path / "adapter")
    want = stock_values(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"), rows)
    policy = load_policy(tmp_path / "adapter")
    values, computed = ask(cache, policy, rows)
    assert computed == 5
    assert_equal(values, want, 1e-5)
    assert np.abs(values["chosen"][0] - bare["chosen"][0]).max() > 1e-3, "the reference is base and adapter, not the base"
    assert ask(cache, load_policy(tmp_path / "adapter"), rows)[1] == 0
    with pytest.raises(UsageError, match="already has an adapter"):
        add_adapter(policy, Lora(rank=8), seed=0)
    move(policy)
    save_policy(policy, tmp_path / "on")
    assert_equal(score_rows(scorer_of(policy), rows, ROLES, HOW), stock_values(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "on"), rows), 1e-5)
    assert policy.model.peft_config["default"].base_model_name_or_path == str(folder)


@pytest.mark.parametrize("where", ["head and embedding in modules_to_save", "lora on the head", "dropout in the adapter"])
def test_adapters_that_reach_the_head(folder: Path, where: str) -> None:
    """The chunked head acts as the wrapped layer does; fused = plain with the adapter on, and a log-ratio has no dropout."""
    config = {
        "head and embedding in modules_to_save": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]),
        "lora on the head": LoraConfig(r=2, target_modules=["q_proj", "lm_head"]),
        "dropout in the adapter": LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.5),
    }[where]
    config.task_type = "CAUSAL_LM"
    model = AutoModelForCausalLM.from_pretrained(folder, tie_word_embeddings=False)
    policy = load_policy(get_peft_model(model, config), tokenizer=AutoTokenizer.from_pretrained(folder))
    move(policy)
    scorer = scorer_of(policy)
    assert scorer.path is fused
    rows = examples(4)
    assert_equal(score_rows(scorer, rows, ROLES, HOW), score_rows(Scorer(policy.model, plain), rows, ROLES, HOW), 1e-5)
    groups = [make_group(row, ROLES) for row in rows]
    policy.model.train()
    assert torch.equal(scorer(groups).logp, scorer(groups).logp)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_full_checkpoint_loads_stock_in_the_dtype_it_came_in(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    source = tmp_path / "source"
    AutoModelForCausalLM.from_pretrained(folder).to(dtype).save_pretrained(source)
    AutoTokenizer.from_pretrained(folder).save_pretrained(source)
    policy = load_policy(source)
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}
    scorer_of(policy)
    move(policy)
    save_policy(policy, tmp_path / "saved")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert {parameter.dtype for parameter in stock.parameters()} == {dtype}
    assert stock.config._attn_implementation != "finegrain"
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}, "saving leaves the masters alone"
    wanted = {name: tensor.detach().to(dtype) for name, tensor in policy.model.state_dict().items()}
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in stock.state_dict().items())
    assert load_file_names(tmp_path / "saved") == load_file_names(source), "tied embeddings are saved once"
    if dtype == torch.float32:
        rows = examples(4)
        assert_equal(score_rows(Scorer(policy.model, fused), rows, ROLES, HOW), stock_values(stock, rows), 1e-5)


def load_file_names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        return set(stored.keys())


def test_pickled_adapters_are_refused(folder: Path, tmp_path: Path) -> None:
    policy = add_adapter(load_policy(folder), Lora(rank=2), seed=0)
    save_policy(policy, tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        load_policy(tmp_path)
