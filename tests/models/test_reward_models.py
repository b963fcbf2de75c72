"""A saved reward model gives equal scores through stock transformers, padded or not, and loads back whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerFast

from finegrain.errors import ModelError
from finegrain.models.adapters import take_adapter_out
from finegrain.models.load import Policy
from finegrain.models.packing import Branch, Group
from finegrain.models.probe import make_scorer
from finegrain.models.reward_head import linear_head
from finegrain.models.reward_models import SEQUENCE, TOKEN, Stock, check_stock, load_reward_model, save_reward_model
from finegrain.models.scorer import Request, fused, plain
from tests.tiny import MODELS, VOCABULARY, as_of_others, exact_norms, plant_fault

BOTH = ("llama", "qwen2, window 6", "qwen3", "mistral, window 6", "gemma2, soft-caps", "gpt2, default dropout")
"""Architectures of both stock classes."""
LENGTHS = (3, 17, 9, 26)


def word_tokenizer() -> Any:
    """As many words as the tiny models know."""
    words = ["<pad>", "<bos>", "<eos>", *(f"w{number}" for number in range(3, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="w3"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def saved(model: Any, stock: Stock, folder: Path, *, outputs: int = 1, tokenizer: Any = None) -> torch.nn.Linear:
    dtype = next(model.parameters()).dtype
    head = linear_head(32, outputs, seed=3, dtype=dtype)
    with torch.no_grad():
        head.weight.mul_(20)
    policy = Policy(model, tokenizer or word_tokenizer(), "in memory", dtype, in_memory=True)
    save_reward_model(policy, head, head.weight.detach()[:1], stock, {"head": {"method": "token"}}, folder)
    return head


def answers() -> list[Group]:
    rng = np.random.default_rng(0)
    draw = lambda count: rng.integers(5, VOCABULARY, count).astype(np.int32)
    return [Group(draw(4), (Branch(draw(length), np.ones(length, dtype=bool)),)) for length in LENGTHS]


def padded(groups: list[Group], pad: int, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and attention mask, as a stock user makes them."""
    whole = [torch.from_numpy(np.concatenate([group.prompt, group.branches[0].ids])).long() for group in groups[rows]]
    ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=pad)
    mask = torch.arange(ids.shape[1])[None] < torch.tensor([len(row) for row in whole])[:, None]
    return ids, mask.long()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", BOTH)
def test_stock_sequence_scores_are_ours(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = MODELS[name]().to(dtype).eval()
    exact_norms(model)
    head = saved(model, SEQUENCE, tmp_path)
    groups = answers()
    with torch.no_grad():
        outputs = fused_outputs(model, head, groups)
    ends = np.cumsum(LENGTHS) - 1
    ours = outputs[ends, 0]
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=dtype).eval()
    pad = AutoTokenizer.from_pretrained(tmp_path).pad_token_id
    assert stock.config.num_labels == 1
    assert stock.config.pad_token_id == pad != AutoTokenizer.from_pretrained(tmp_path).eos_token_id
    exact_norms(stock)
    tolerance = 1e-5 if dtype == torch.float32 or "gemma2" in name else 1e-10  # eager attention takes its softmax in float32
    for size in (1, 2, 4):
        for start in range(0, len(groups), size):
            ids, mask = padded(groups, pad, slice(start, start + size))
            given = None if "gemma2" in name else mask  # transformers gives NaN where a window holds padding alone
            with torch.no_grad():
                theirs = stock(input_ids=ids, attention_mask=given).logits[:, 0]
                states = stock.base_model(input_ids=ids, attention_mask=given).last_hidden_state
            torch.testing.assert_close(theirs, ours[start : start + size], rtol=tolerance, atol=tolerance)
            last = mask.sum(1) - 1  # as an engine that pools the last token of unpadded input does
            pooled = states[torch.arange(len(ids)), last] @ stock.score.weight[0]
            torch.testing.assert_close(pooled, ours[start : start + size], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", BOTH)
def test_stock_token_scores_are_ours(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().eval()
    head = saved(model, TOKEN, tmp_path)
    groups = answers()
    with torch.no_grad():
        ours = fused_outputs(model, head, groups)[:, 0]
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    ids, mask = padded(groups, stock.config.pad_token_id, slice(None))
    with torch.no_grad():
        theirs = stock(input_ids=ids, attention_mask=mask).logits[..., 0]
    flat = torch.cat([row[4 : 4 + length] for row, length in zip(theirs, LENGTHS, strict=True)])
    torch.testing.assert_close(flat, ours, rtol=1e-5, atol=1e-5)


def fused_outputs(model: Any, head: torch.nn.Linear, groups: list[Group]) -> torch.Tensor:
    scorer, probe = make_scorer(model, longest=40, head=head)
    assert probe.fused, probe.reason
    outputs = scorer(groups, Request(False, outputs=head)).outputs
    assert outputs is not None
    return outputs


def test_a_loaded_model_has_its_whole_head(tmp_path: Path) -> None:
    model = MODELS["llama"]().eval()
    head = saved(model, TOKEN, tmp_path, outputs=3)
    loaded = load_reward_model(tmp_path)
    assert loaded.stock is TOKEN
    assert loaded.facts["head"] == {"method": "token"}
    assert torch.equal(loaded.head.weight, head.weight)
    groups = answers()
    with torch.no_grad():
        torch.testing.assert_close(fused_outputs(loaded.policy.model, loaded.head, groups), fused_outputs(model, head, groups))


def test_a_stock_model_of_others_is_a_reward_model(tmp_path: Path) -> None:
    saved(MODELS["llama"](), SEQUENCE, tmp_path)
    as_of_others(tmp_path)
    loaded = load_reward_model(tmp_path)
    assert loaded.facts == {}
    assert loaded.head.weight.shape == (1, 32)


def test_what_is_no_reward_model(tmp_path: Path) -> None:
    model = MODELS["llama"]()
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="not a reward model"):
        load_reward_model(tmp_path)
    with pytest.raises(ModelError, match="no model at"):
        load_reward_model(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["gemma3, mixed layers", "granite, scaled logits"])
def test_an_architecture_without_the_stock_class_is_refused_by_name(name: str) -> None:
    model = MODELS[name]()
    with pytest.raises(ModelError, match=model.config.model_type):
        check_stock(model, TOKEN)


def test_pad_is_never_the_end_token(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    saved(MODELS["llama"](), SEQUENCE, tmp_path, tokenizer=tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.pad_token_id != again.eos_token_id
    assert tokenizer.pad_token == tokenizer.eos_token, "the tokenizer that was passed is left alone"


def test_paths_agree() -> None:
    """The plain path's outputs are the fused path's."""
    model = MODELS["llama"]().double().eval()
    exact_norms(model)
    head = linear_head(32, 2, seed=0, dtype=torch.float64)
    groups = answers()
    make_scorer(model, longest=40)
    one, two = (path(model, groups, Request(outputs=head)) for path in (fused, plain))
    assert one.outputs is not None
    assert two.outputs is not None
    torch.testing.assert_close(one.outputs, two.outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.logp, two.logp, rtol=0, atol=1e-12)
    plant_fault(model)
    faulty = fused(model, groups, Request(outputs=head))
    assert faulty.outputs is not None
    assert (faulty.outputs - two.outputs).abs().max() > 1e-11
    assert (faulty.logp - two.logp).abs().max() > 1e-11


@pytest.mark.parametrize("name", BOTH)
def test_an_adapter_comes_out_of_the_merged_weights(name: str, tmp_path: Path) -> None:
    """Kept beside them, and taken out again: the weights below are the base's, the matrices those that trained, the hidden states the same."""
    base = MODELS[name]().double().eval()
    before = {key: value.clone() for key, value in base.base_model.state_dict().items()}
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4.0, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out="gpt2" in name)
    model = get_peft_model(base, config)
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.1)
    saved(model.eval(), SEQUENCE, tmp_path)
    loaded = load_reward_model(tmp_path, master=torch.float64).policy.model.eval()
    exact_norms(loaded)
    ids = torch.arange(5, 25)[None]
    want = loaded.base_model(input_ids=ids).last_hidden_state
    apart = take_adapter_out(loaded, tmp_path).eval()
    body = apart.get_base_model().base_model
    torch.testing.assert_close(body(input_ids=ids).last_hidden_state, want, rtol=0, atol=1e-12)
    found = {key.replace(".base_layer", ""): value for key, value in body.state_dict().items() if ".lora_" not in key}
    for key, value in before.items():
        torch.testing.assert_close(found[key][: len(value)], value, msg=key)
    own = {key: value for key, value in model.named_parameters() if "lora_" in key}
    assert own
    for key, value in apart.named_parameters():
        if "lora_" in key:
            torch.testing.assert_close(value, own[key], msg=key)
            assert value.requires_grad
