"""Reward models on disk: the stock classification layout, and additional files for what it cannot represent.

A head that reads the last token is saved as the architecture's `AutoModelForSequenceClassification`, any other as its
`AutoModelForTokenClassification`, both with the rows that give the mean. `reward_head.safetensors` holds all outputs and
`reward_head.json` their meaning; stock tools ignore both. Weights are saved in the base's dtype, except for both copies of the
head: a mean of rounded members differs from the rounded mean, and stock classes must give the same number as `finegrain score`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from finegrain.errors import ModelError
from finegrain.models.adapter_files import HEADS, AdapterFiles, is_adapter, list_adapters, read_adapter
from finegrain.models.adapters import merge_adapter, save_adapter
from finegrain.models.finite import refuse_not_finite
from finegrain.models.hub_files import fetch_all_files, find_file, is_hub_name
from finegrain.models.load import Policy, load_on_adapters, load_tokenizer
from finegrain.models.load_errors import explain_load_errors, one_line
from finegrain.models.permissions import allow_readers
from finegrain.models.reward_head import HEAD_FILE, load_head, save_head
from finegrain.models.reward_tokenizer import describe_input, reward_tokenizer
from finegrain.models.scorer import causal_lm, stock_attention
from finegrain.models.stock import load_stock, missing_weights_error, read_architectures, read_config

FACTS_FILE = "reward_head.json"
DEFAULT_LENGTH = 1024
"""Longest prompt + answer of a checkpoint that does not record its own."""


@dataclass(frozen=True)
class Stock:
    """A stock classification layout."""

    name: str
    auto: Any
    architectures: Mapping[str, str]


SEQUENCE = Stock("AutoModelForSequenceClassification", AutoModelForSequenceClassification, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
TOKEN = Stock("AutoModelForTokenClassification", AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES)
WITH_REWARD = Stock("AutoModelForCausalLM", AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""A policy that was trained together with a reward, which is saved beside it."""


def check_stock(model: Any, stock: Stock) -> None:
    """Stops with an error on an architecture without the stock class, before training."""
    kind = causal_lm(model).config.model_type
    if kind not in stock.architectures:
        raise ModelError(f"transformers has no {stock.name} for the architecture {kind!r}, so the reward model could not be saved; use another base")


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
    """The stock layout with the label rows `weight`, the whole head, its facts, and a tokenizer whose stock calls give the trained tokens.

    An adapter is merged into the weights, because stock classes read a reward model without peft, and also saved beside them.
    """
    tokenizer = reward_tokenizer(policy.tokenizer)
    tokenizer.model_max_length = min(max_length, tokenizer.model_max_length)
    tokenizer.save_pretrained(folder)
    facts = {**facts, "input": describe_input(load_tokenizer(str(folder)), max_length)}
    shell = _shell(policy, tokenizer, len(weight), stock, facts)
    label = find_classifier(shell.to(policy.checkpoint_dtype))
    label.to(torch.promote_types(policy.checkpoint_dtype, torch.float32))
    with torch.no_grad():
        label.weight.copy_(weight)
        if label.bias is not None:
            label.bias.zero_()
    shell.save_pretrained(folder)
    save_head(head, folder)
    save_adapter(policy.model, folder)
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")
    allow_readers(folder)


def try_saving(policy: Policy, stock: Stock, facts: Mapping[str, Any], folder: Path) -> None:
    """Does all of `save_reward_model` except writing the weights of backbone and head, to raise its errors before training."""
    tokenizer = reward_tokenizer(policy.tokenizer)
    with torch.device("meta"):
        shell = _shell(policy, tokenizer, 1, stock, facts, device="meta")
    find_classifier(shell)
    shell.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_adapter(policy.model, folder)
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")


def _shell(policy: Policy, tokenizer: Any, labels: int, stock: Stock, facts: Mapping[str, Any], device: str = "cpu") -> Any:
    """The stock class with the policy's backbone, an adapter merged into it, and an embedding for the tokenizer's padding token."""
    lm = causal_lm(policy.model)
    config = _config(lm.config, policy, tokenizer, labels, facts)
    whole = lm if lm is policy.model else merge_adapter(policy.model, device)
    rows = whole.get_input_embeddings().weight.shape[0]
    pad, config.get_text_config().pad_token_id = config.get_text_config().pad_token_id, None  # it may exceed the embedding rows for now
    with torch.random.fork_rng(devices=[]), stock_attention(policy.model):
        shell = stock.auto.from_config(config, dtype=torch.promote_types(next(lm.parameters()).dtype, torch.float32))
        weights = {name: tensor.to(device) for name, tensor in whole.base_model.state_dict().items()}
        shell.get_submodule(shell.base_model_prefix).load_state_dict(weights)
        if len(tokenizer) > rows:
            shell.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    shell.config.get_text_config().pad_token_id = pad
    return shell


def find_classifier(shell: Any) -> nn.Linear:
    """The label layer of a stock classification model."""
    for name in ("score", "classifier"):
        layer = getattr(shell, name, None)
        if isinstance(layer, nn.Linear):
            return layer
    raise ModelError(f"{type(shell).__name__} has no linear layer `score` or `classifier`")


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
    made.finegrain = {**facts, "readout_position": "the scored token, after it has been read", "activation": "none"}
    return made


@dataclass(frozen=True)
class RewardModel:
    """A loaded reward model."""

    policy: Policy
    """The backbone, in the stock class it was saved in, and its tokenizer."""
    head: nn.Module
    """Linear, or the head's own module."""
    facts: Mapping[str, Any]
    """The content of `reward_head.json`; {} for a checkpoint of other programs."""
    stock: Stock


CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")
"""Suffixes of the names of stock classes that a reward model is saved in."""


def is_reward_model(source: str | Path) -> bool:
    """Whether a checkpoint holds a classification model, or an adapter for one; a folder, or a Hub name (owner/name)."""
    if not Path(source).is_dir() and not is_hub_name(source):
        return False
    try:
        if is_adapter(source):
            files = list_adapters(read_adapter(str(source)))
            return files[0].is_reward or is_reward_model(files[-1].base)
        named = read_architectures(str(source), read_config(str(source)))
    except ModelError:
        return False
    return any(name.endswith(CLASSIFIERS) for name in named)


def load_reward_model(
    source: str | Path, *, master: torch.dtype = torch.float32, trust_remote_code: bool = False, keep_adapter: bool = False
) -> RewardModel:
    """A finegrain reward model with its whole head, a finegrain policy with a reward beside it, or any stock classification model of one label.

    An adapter with a score head, as reward trainers write it, is merged into its base; `keep_adapter` leaves it separate, to be trained.
    """
    source = fetch_all_files(str(source), FACTS_FILE)  # for a finegrain model on the Hub, also the additional files
    if is_adapter(source):
        return _from_adapter(read_adapter(source), master, trust_remote_code, keep=keep_adapter)
    config = read_config(source)
    named = (read_architectures(source, config) or ["model without an architecture"])[0]
    with_reward = named.endswith("ForCausalLM") and (Path(source) / FACTS_FILE).exists()
    stock = WITH_REWARD if with_reward else TOKEN if named.endswith("ForTokenClassification") else SEQUENCE
    if not with_reward and not named.endswith(CLASSIFIERS):
        raise ModelError(f"{source} is a {one_line(named)}, not a reward model; expected a sequence or token classification checkpoint")
    facts_file = Path(source) / FACTS_FILE
    if "finegrain" in config and not facts_file.exists():
        missing = f"{FACTS_FILE} and {HEAD_FILE}, which define how its scores are read"
        remedy = "copy or download the whole folder; if other programs trained it further, delete the entry `finegrain`"
        raise ModelError(f"{source} is a finegrain reward model according to its config.json, but lacks {missing}; {remedy}")
    loaded = load_stock(stock.auto, source, config, master=master, trust_remote_code=trust_remote_code)
    if loaded.missing:
        raise missing_weights_error(source, f"a {named}", loaded.missing)
    policy = Policy(loaded.model, load_tokenizer(source, trust_remote_code), source, loaded.dtype, unused=loaded.unused)
    if facts_file.exists():
        facts = _facts(facts_file)
        head = load_head(Path(source), facts).to(master)
        refuse_not_finite(f"the reward head of {source}", head.named_parameters())
        return RewardModel(policy, head, facts, stock)
    return RewardModel(policy, _head_of_others(source, loaded.model), {}, stock)


def _from_adapter(files: AdapterFiles, master: torch.dtype, trust_remote_code: bool, *, keep: bool) -> RewardModel:
    """The reward model of an adapter on its base: a language model with the adapter's own head, or a whole reward model."""
    source, head = files.source, files.head
    if not head and not is_reward_model(list_adapters(files)[-1].base):
        raise ModelError(
            f"{source} is an adapter of a {files.task or 'reward'} model, but its file holds no score head; save the adapter with its head"
        )
    stock = TOKEN if files.task == "TOKEN_CLS" else SEQUENCE
    labels = files.shapes[head["weight"]][0] if "weight" in head else None

    def load_base(base: str) -> Policy:
        loaded = load_stock(stock.auto, base, read_config(base), master=master, trust_remote_code=trust_remote_code, labels=labels)
        missing = [name for name in loaded.missing if not (head and name.startswith(HEADS))]
        if missing:
            raise missing_weights_error(base, "a language model", missing)
        return Policy(loaded.model, tokenizer or load_tokenizer(base, trust_remote_code), base, loaded.dtype, unused=loaded.unused)

    tokenizer = load_tokenizer(source, trust_remote_code) if find_file(source, "tokenizer_config.json") else None
    policy = load_on_adapters(files, load_base)
    if head:
        _put_head(find_classifier(causal_lm(policy.model)), files, master)
    if not keep:
        with explain_load_errors(f"cannot merge the adapter {source}"):
            policy = replace(policy, model=policy.model.merge_and_unload())
    return RewardModel(policy, _head_of_others(source, causal_lm(policy.model)), {}, stock)


def _put_head(layer: nn.Linear, files: AdapterFiles, master: torch.dtype) -> None:
    """Copies the adapter's head into the stock class's own layer."""
    with torch.no_grad(), explain_load_errors(f"cannot read the score head of {files.source}"):
        layer.weight.copy_(files.tensor(files.head["weight"]))
        if "bias" in files.head:
            layer.bias = nn.Parameter(files.tensor(files.head["bias"]).to(master))
        elif layer.bias is not None:
            layer.bias.zero_()
    refuse_not_finite(f"the score head of {files.source}", layer.named_parameters())


def _head_of_others(source: str, model: Any) -> nn.Linear:
    """The one label of a stock classification model, with its bias where it has one; raises ModelError for backbones that are not language models."""
    config = model.config
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or config.is_encoder_decoder:
        raise ModelError(
            f"{source} is a {type(model).__name__}, an encoder; expected a causal language model with a score at the answer's last token"
        )
    try:
        layer = find_classifier(model)
    except ModelError as error:
        raise ModelError(f"{source}: {error}; expected a score read at the answer's last token") from error
    if layer.weight.shape[0] != 1:
        raise ModelError(f"{source} has {layer.weight.shape[0]} labels; expected a reward model with one label")
    biased = layer.bias is not None and bool(layer.bias.any())
    head = nn.Linear(layer.weight.shape[1], 1, bias=biased, dtype=layer.weight.dtype)
    head.load_state_dict({"weight": layer.weight.detach()} | ({"bias": layer.bias.detach()} if biased else {}))
    return head


def read_facts(source: str | Path) -> dict[str, Any]:
    """The content of a checkpoint's `reward_head.json`; {} where there is none."""
    file = find_file(source, FACTS_FILE)
    return {} if file is None else _facts(file)


def _facts(file: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}") from error
    return facts
