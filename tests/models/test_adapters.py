"""Adapters of others: what cannot be put on its base is refused in one line, embeddings are resized, and a score head makes a reward model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from finegrain.errors import ModelError
from finegrain.models.fingerprint import model_fingerprint
from finegrain.models.load import load_policy, save_policy
from finegrain.models.reward_head import linear_head
from finegrain.models.reward_models import SEQUENCE, is_reward_model, load_reward_model, save_reward_model, try_saving
from finegrain.models.scorer import causal_lm
from tests.tiny import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

IDS = torch.tensor([[5, 9, 33, 70, 12, 44, 2]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


def adapter(base: Path, folder: Path, config: Any = None, *, auto: Any = AutoModelForCausalLM, change: Callable[[Any], object] | None = None) -> Any:
    """An adapter as peft saves it, with weights that do something; returns its model."""
    config = config or peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    network = auto.from_pretrained(base, **({} if auto is AutoModelForCausalLM else {"num_labels": 1, "pad_token_id": 0}))
    if change is not None:
        change(network)
    model = peft.get_peft_model(network, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def edit(folder: Path, **entries: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"peft_type": "OF_TOMORROW"}, ["OF_TOMORROW", "does not know"]),
        ({"peft_type": 3}, ["does not know"]),
        ({"peft_type": None}, ["peft_type"]),
        ({"peft_type": "PROMPT_TUNING"}, ["PROMPT_TUNING", "to the prompt"]),
        ({"task_type": "FUTURE"}, ["FUTURE"]),
        ({"r": "four"}, ["cannot put the adapter"]),
        ({"r": 8}, ["size mismatch"]),
        ({"target_modules": ["nothing"]}, ["nothing"]),
        ({"target_modules": ["q_proj", "v_proj"]}, ["lacks weights", "v_proj.lora_A"]),
        ({"base_model_name_or_path": "/nowhere"}, ["/nowhere", "the base of the adapter"]),
        ({"base_model_name_or_path": 3}, ["base_model_name_or_path"]),
    ],
)
def test_adapters_that_cannot_be_put_on_their_base(base: Path, tmp_path: Path, entries: dict[str, Any], words: list[str]) -> None:
    adapter(base, tmp_path)
    edit(tmp_path, **entries)
    with pytest.raises(ModelError) as caught:
        load_policy(tmp_path)
    for word in [*words, str(tmp_path)]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_adapter_based_on_itself_and_a_ring_of_them(base: Path, tmp_path: Path) -> None:
    names = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    for name in names:
        adapter(base, name)
    edit(names[0], base_model_name_or_path=str(tmp_path / "two" / ".." / "one"))
    with pytest.raises(ModelError, match="based on itself"):
        load_policy(names[0])
    for name, below in zip(names, [*names[1:], names[0]], strict=True):
        edit(name, base_model_name_or_path=str(below))
    with pytest.raises(ModelError, match=r"one → .*two → .*three → .*one"):
        load_policy(names[0])
    assert not is_reward_model(names[0])


def test_an_adapter_on_an_adapter_is_put_on_the_merged_one(base: Path, tmp_path: Path) -> None:
    first = adapter(base, tmp_path / "first")
    merged = first.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    second = adapter(tmp_path / "merged", tmp_path / "second")
    edit(tmp_path / "second", base_model_name_or_path=str(tmp_path / "first"))
    policy = load_policy(tmp_path / "second")
    torch.testing.assert_close(logits(policy.model), logits(second), rtol=0, atol=1e-6)
    before = model_fingerprint(policy, tmp_path)
    shutil.copytree(base, tmp_path / "other")
    edit(tmp_path / "first", base_model_name_or_path=str(tmp_path / "other"))
    same_but_config = model_fingerprint(policy, tmp_path)
    file = tmp_path / "other" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    assert len({before, same_but_config, model_fingerprint(policy, tmp_path)}) == 3, "weights at the bottom count"


def test_weights_and_entries_that_are_not_read_are_named(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter(base, tmp_path)
    edit(tmp_path, of_tomorrow=True)
    file = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.other.lora_A.weight": torch.zeros(4, 32)}, file)
    assert load_policy(tmp_path).unused == ("base_model.model.other.lora_A.weight",)
    told = capsys.readouterr().err
    assert "of_tomorrow" in told
    assert "1 weights of the adapter are not used" in told
    save_file({name: tensor for name, tensor in load_file(file).items() if "lora_B" not in name}, file)
    with pytest.raises(ModelError, match="lora_B"):
        load_policy(tmp_path)


RESIZED = {
    "beside": peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "whole": peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM"),
    "low rank": peft.LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM"),
    "rows": peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[1, 320, 326], task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", RESIZED)
def test_an_adapter_saved_after_a_resize_is_put_on_a_base_resized_to_it(base: Path, tmp_path: Path, kind: str) -> None:
    """Seven tokens more than the base has; what is saved again is the same once more."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = len(tokenizer) + 7
    want = adapter(base, tmp_path / "adapter", RESIZED[kind], change=lambda network: network.resize_token_embeddings(rows, mean_resizing=False))
    tokenizer.add_tokens([f"<new{number}>" for number in range(7)])
    tokenizer.save_pretrained(tmp_path / "adapter")
    policy = load_policy(tmp_path / "adapter")
    assert policy.model.get_input_embeddings().weight.shape[0] == rows
    torch.testing.assert_close(logits(policy.model), logits(want), rtol=0, atol=1e-6)
    save_policy(policy, tmp_path / "again")
    torch.testing.assert_close(logits(load_policy(tmp_path / "again").model), logits(want), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("task", "auto"), [("SEQ_CLS", AutoModelForSequenceClassification), ("TOKEN_CLS", AutoModelForTokenClassification)])
@pytest.mark.parametrize("targets", [["q_proj"], "all-linear"])
def test_an_adapter_with_a_score_head_is_a_reward_model(base: Path, tmp_path: Path, task: str, auto: Any, targets: Any) -> None:
    """As TRL's and OpenRLHF's reward trainers write it: one number with peft's own, merged or left to be trained; no policy."""
    config = peft.LoraConfig(r=4, target_modules=targets, modules_to_save=["score"], task_type=task, init_lora_weights=False)
    want = logits(adapter(base, tmp_path, config, auto=auto))
    assert is_reward_model(tmp_path)
    for keep in (False, True):
        reward = load_reward_model(tmp_path, keep_adapter=keep)
        assert hasattr(reward.policy.model, "peft_config") == keep
        with torch.no_grad():
            states = causal_lm(reward.policy.model.eval()).base_model(input_ids=IDS).last_hidden_state
        read = reward.head(states) if task == "TOKEN_CLS" else reward.head(states)[:, -1]
        torch.testing.assert_close(read, want, rtol=0, atol=1e-6)
        torch.testing.assert_close(logits(reward.policy.model), want, rtol=0, atol=1e-6)
    with pytest.raises(ModelError, match=f"reward model.*{task}.*not of a causal language model"):
        load_policy(tmp_path)
    edit(tmp_path, task_type=None)
    torch.testing.assert_close(logits(load_reward_model(tmp_path).policy.model), want[:, -1] if task == "TOKEN_CLS" else want, rtol=0, atol=1e-6)


def test_a_reward_adapter_without_its_head(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["score"], task_type="SEQ_CLS")
    adapter(base, tmp_path, config, auto=AutoModelForSequenceClassification)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if "score" not in name}, file)
    with pytest.raises(ModelError, match="no score head"):
        load_reward_model(tmp_path)


LORA = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "init_lora_weights": False}
KINDS = {
    "lora": peft.LoraConfig(**LORA),
    "embeddings and head": peft.LoraConfig(**LORA, modules_to_save=["embed_tokens", "lm_head"]),
    "rows of embeddings": peft.LoraConfig(**LORA, trainable_token_indices=[5, 9]),
    "norms": peft.LoraConfig(**LORA, modules_to_save=["norm"]),
    "low rank embeddings": peft.LoraConfig(**{**LORA, "target_modules": ["q_proj", "embed_tokens"]}),
    "biases": peft.LoraConfig(**LORA, bias="all"),
    "dora": peft.LoraConfig(**LORA, use_dora=True),
    "ia3": peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    "loha": peft.LoHaConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "vera": peft.VeraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "norm tuning": peft.LNTuningConfig(target_modules=["input_layernorm"], task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_on_any_adapter_is_saved_as_it_scores(base: Path, tmp_path: Path, kind: str) -> None:
    """Whatever the adapter holds beside matrices: the saved weights score as the adapter on its base, which itself stays as it was."""
    adapter(base, tmp_path / "adapter", KINDS[kind])
    policy = load_policy(tmp_path / "adapter")
    head = linear_head(32, 1, seed=0)
    with torch.no_grad():
        head.weight.mul_(20)
        want = head(causal_lm(policy.model.eval()).base_model(input_ids=IDS).last_hidden_state)[:, -1]
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    (tmp_path / "tried").mkdir()
    try_saving(policy, SEQUENCE, {}, tmp_path / "tried")
    save_reward_model(policy, head, head.weight.detach(), SEQUENCE, {"head": {"method": "sequence"}}, tmp_path / "saved")
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.model.state_dict().items())
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(stock), want, rtol=0, atol=2e-6)


def test_an_adapter_that_cannot_be_merged_is_refused_before_it_trains(base: Path, tmp_path: Path) -> None:
    adapter(base, tmp_path / "adapter", peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"))
    with pytest.raises(ModelError, match="cannot be merged"):
        try_saving(load_policy(tmp_path / "adapter"), SEQUENCE, {}, tmp_path)
