"""Reward models on disk: the stock classification layout, and what it cannot say beside it.

A head that reads the last token is saved as the architecture's `AutoModelForSequenceClassification`, any other as its
`AutoModelForTokenClassification`, both with the rows that give the mean. `reward_head.safetensors` holds all outputs and
`reward_head.json` what they mean; stock tools do not look at either. Weights are saved in the base's dtype, but for both copies of the
head: a mean of rounded members is not the rounded mean, and stock classes shall give the number that `finegrain score` gives.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from finegrain.errors import ModelError
from finegrain.models.adapters import keep_adapter
from finegrain.models.frozen_base import widened
from finegrain.models.load import Policy, load_tokenizer
from finegrain.models.reward_head import load_head, save_head
from finegrain.models.reward_tokenizer import input_facts, reward_tokenizer
from finegrain.models.scorer import causal_lm, stock_attention

FACTS_FILE = "reward_head.json"
DEFAULT_LENGTH = 1024
"""Longest prompt + answer of a checkpoint that does not say its own."""


@dataclass(frozen=True)
class Stock:
    """A stock classification layout."""

    name: str
    auto: Any
    architectures: Mapping[str, str]


SEQUENCE = Stock("AutoModelForSequenceClassification", AutoModelForSequenceClassification, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
TOKEN = Stock("AutoModelForTokenClassification", AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES)
WITH_REWARD = Stock("AutoModelForCausalLM", AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""A policy that was trained together with a reward, which lies beside it."""


def check_stock(model: Any, stock: Stock) -> None:
    """Refuse an architecture that the stock class does not know, before anything is trained."""
    kind = causal_lm(model).config.model_type
    if kind not in stock.architectures:
        raise ModelError(f"transformers has no {stock.name} of the architecture {kind!r}: the reward model could not be saved; take another base")


def save_reward_model(
    policy: Policy,
    head: nn.Module,
    weight: torch.Tensor,
    stock: Stock,
    facts: Mapping[str, Any],
    folder: Path,
    *,
    max_length: int = DEFAULT_LENGTH,
) -> None:
    """The stock layout with the label rows `weight`, the whole head, its facts, and a tokenizer whose stock calls give our tokens.

    An adapter is merged into the weights, since stock classes read a reward model without peft, and kept beside them.
    """
    lm = causal_lm(policy.model)
    tokenizer = reward_tokenizer(policy.tokenizer)
    tokenizer.model_max_length = min(max_length, tokenizer.model_max_length)
    tokenizer.save_pretrained(folder)
    facts = {**facts, "input": input_facts(load_tokenizer(str(folder)), max_length)}
    config = _config(lm.config, policy, tokenizer, len(weight), facts)
    with torch.random.fork_rng(devices=[]), stock_attention(policy.model):
        shell = stock.auto.from_config(config, dtype=torch.promote_types(next(lm.parameters()).dtype, torch.float32))
        prefix = shell.base_model_prefix
        shell.get_submodule(prefix).load_state_dict(_backbone(policy.model))
        if len(tokenizer) > shell.get_input_embeddings().weight.shape[0]:
            shell.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            layer = classifier_of(shell)
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.zero_()
        label = classifier_of(shell.to(policy.checkpoint_dtype))
        label.to(torch.promote_types(policy.checkpoint_dtype, torch.float32))
        with torch.no_grad():
            label.weight.copy_(weight)
        shell.save_pretrained(folder)
    save_head(head, folder)
    keep_adapter(policy.model, folder)
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")


def classifier_of(shell: Any) -> nn.Linear:
    """The label layer of a stock classification model."""
    for name in ("score", "classifier"):
        layer = getattr(shell, name, None)
        if isinstance(layer, nn.Linear):
            return layer
    raise ModelError(f"{type(shell).__name__} has no linear layer `score` or `classifier`")


def _backbone(model: Any) -> dict[str, torch.Tensor]:
    """Weights of the backbone, an adapter merged into them."""
    if causal_lm(model) is model:
        found: dict[str, torch.Tensor] = model.base_model.state_dict()
        return found
    with widened(model):  # added to in their own dtype, they would not come out again as they went in
        model.merge_adapter()
        try:
            state = causal_lm(model).base_model.state_dict()
            return {name.replace(".base_layer", ""): tensor.clone() for name, tensor in state.items() if ".lora_" not in name}
        finally:
            model.unmerge_adapter()


def _config(config: Any, policy: Policy, tokenizer: Any, labels: int, facts: Mapping[str, Any]) -> Any:
    """The base's config as a classifier's: labels, padding, read-out."""
    made = type(config).from_dict(config.to_dict())
    made.num_labels = labels
    names = (facts.get("head") or {}).get("names")
    made.id2label = dict(enumerate(names)) if names else {place: "reward" if labels == 1 else f"class {place}" for place in range(labels)}
    made.label2id = {name: place for place, name in made.id2label.items()}
    made.problem_type = "regression" if labels == 1 or names else "single_label_classification"
    made.get_text_config().pad_token_id = tokenizer.pad_token_id
    made.pad_token_id = tokenizer.pad_token_id
    made.classifier_dropout = 0.0
    made.dtype = policy.checkpoint_dtype
    made.finegrain = {**facts, "readout_position": "the token that is judged, after it has been read", "activation": "none"}
    return made


@dataclass(frozen=True)
class RewardModel:
    """A loaded reward model."""

    policy: Policy
    """The backbone, in the stock class it was saved in, and its tokenizer."""
    head: nn.Module
    """Linear, or the head's own module."""
    facts: Mapping[str, Any]
    """What `reward_head.json` says; {} for a checkpoint that others made."""
    stock: Stock


def is_reward_model(source: str | Path) -> bool:
    """Whether a checkpoint holds a classification model; a folder, or a Hub name (owner/name)."""
    if not Path(source).is_dir() and str(source).count("/") != 1:
        return False
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError):
        return False
    return any(name.endswith(("ForSequenceClassification", "ForTokenClassification")) for name in config.architectures or ())


def load_reward_model(source: str | Path, *, master: torch.dtype = torch.float32, trust_remote_code: bool = False) -> RewardModel:
    """A reward model of ours with its whole head, a policy of ours with a reward beside it, or any stock classification model of one label."""
    source = str(source)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the config of {source}: {error}") from error
    named = (config.architectures or ["no architecture"])[0]
    with_reward = named.endswith("ForCausalLM") and (Path(source) / FACTS_FILE).exists()
    stock = WITH_REWARD if with_reward else TOKEN if named.endswith("ForTokenClassification") else SEQUENCE
    if not with_reward and not named.endswith(("ForSequenceClassification", "ForTokenClassification")):
        raise ModelError(f"{source} is a {named}, no reward model: expected a sequence or token classification checkpoint")
    try:
        model, info = stock.auto.from_pretrained(
            source, dtype=master, use_safetensors=True, output_loading_info=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"cannot load the reward model {source}: {error}") from error
    if info["missing_keys"]:
        raise ModelError(f"{source} lacks weights of {named}: {', '.join(sorted(info['missing_keys'])[:3])}")
    tokenizer = load_tokenizer(source, trust_remote_code)
    dtype = config.get_text_config().dtype or master
    facts_file = Path(source) / FACTS_FILE
    if facts_file.exists():
        facts = _facts(facts_file)
        head = load_head(Path(source), facts).to(master)
    else:
        facts, layer = {}, classifier_of(model)
        if layer.weight.shape[0] != 1 or (layer.bias is not None and bool(layer.bias.any())):
            raise ModelError(f"{source} has {layer.weight.shape[0]} labels or a bias; a reward model of others must have one label and no bias")
        head = nn.Linear(layer.weight.shape[1], 1, bias=False, dtype=master)
        head.load_state_dict({"weight": layer.weight.detach()})
    return RewardModel(Policy(model, tokenizer, source, dtype), head, facts, stock)


def stored_facts(folder: Path) -> dict[str, Any]:
    """What `reward_head.json` of a checkpoint folder says; {} where there is none."""
    file = folder / FACTS_FILE
    return _facts(file) if file.exists() else {}


def _facts(file: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}") from error
    return facts
