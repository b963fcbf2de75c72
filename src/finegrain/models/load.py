"""Load a causal language model and its tokenizer; save it so that stock tools load it again.

Weights train as float32 masters whatever the checkpoint's dtype, and are saved in the checkpoint's dtype; frozen weights
keep it. Only safetensors are read; remote code runs only on explicit request.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from finegrain.data.records import Example
from finegrain.data.truncate import limit_length
from finegrain.errors import DataError, ModelError
from finegrain.models.adapter_files import AdapterFiles, attach_adapter, is_adapter, list_adapters, read_adapter
from finegrain.models.frozen_base import keep_narrow, widen_trained
from finegrain.models.hub_files import find_file
from finegrain.models.load_errors import describe_error, explain_load_errors, list_some, one_line, print_line
from finegrain.models.permissions import allow_readers
from finegrain.models.positions import learned_positions, read_position_limit
from finegrain.models.scorer import causal_lm, stock_attention
from finegrain.models.stock import load_stock, missing_weights_error, read_architectures, read_config


@dataclass(frozen=True)
class Policy:
    """A model to be trained or scored, and its tokenizer and origin."""

    model: Any
    tokenizer: Any
    source: str
    """Path or Hub name, or "in memory"."""
    checkpoint_dtype: torch.dtype
    """The dtype the result is saved in."""
    in_memory: bool = False
    """True where the caller passed a model object; its weights may not be in any file."""
    unused: tuple[str, ...] = ()
    """Weights of its files that the model does not use."""
    four_bit: bool = False
    """True where the weights of linear layers were quantised to 4 bits on loading."""


def master_dtype(name: str) -> torch.dtype:
    """The dtype weights are trained in: float64 where that precision was requested, float32 masters otherwise."""
    return torch.float64 if name == "float64" else torch.float32


def load_policy(
    source: Any,
    *,
    tokenizer: Any = None,
    master: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    frozen: bool = False,
    four_bit: Mapping[str, Any] = MappingProxyType({}),
) -> Policy:
    """The policy for a path, a Hub name, or a model object with its tokenizer; a policy is returned unchanged, in the dtype `master`.

    `frozen`: only an adapter or a head will train, so the weights keep the checkpoint's dtype and compute in `master`; with
    `four_bit`, further arguments of `from_pretrained`, those of linear layers are quantised.
    """
    if isinstance(source, Policy):
        return replace(source, model=source.model.to(master))
    if not isinstance(source, (str, Path)):
        if tokenizer is None:
            raise ModelError("a model object needs its tokenizer: pass tokenizer=")
        dtype = next(source.parameters()).dtype
        if frozen:
            keep_narrow(source, master)
        return _checked(Policy(source if frozen else source.to(master), tokenizer, "in memory", dtype, in_memory=True))
    source = str(source)
    if is_adapter(source):
        return _load_adapter(source, tokenizer, master, trust_remote_code, frozen, four_bit)
    return _checked(_load_causal(source, tokenizer, master, trust_remote_code, frozen, four_bit))


def _load_causal(source: str, tokenizer: Any, master: torch.dtype, trust_remote_code: bool, frozen: bool, four_bit: Mapping[str, Any]) -> Policy:
    """Loads a whole checkpoint."""
    facts = read_config(source)
    refuse_other_tasks(source, facts)
    loaded = load_stock(AutoModelForCausalLM, source, facts, master=master, trust_remote_code=trust_remote_code, narrow=frozen, four_bit=four_bit)
    if loaded.missing:
        raise missing_weights_error(source, "a causal language model", loaded.missing)
    if frozen:
        keep_narrow(loaded.model, master)
    chosen = tokenizer or load_tokenizer(source, trust_remote_code)
    return Policy(loaded.model, chosen, source, loaded.dtype, unused=loaded.unused, four_bit=bool(four_bit))


def load_tokenizer(source: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer beside a checkpoint."""
    what = f"cannot read a tokenizer in {source}"
    try:
        with explain_load_errors(what, remedy=_remedy(Path(source))):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:
        if type(error) is not Exception:  # tokenizers' Rust code raises a plain Exception for a tokenizer.json it cannot parse
            raise
        known = f"tokenizer.json has entries that tokenizers {tokenizers.__version__} does not know"
        raise ModelError(f"{what}: {known} ({describe_error(error)}); it was written by a newer version, or is damaged") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{what}: {type(tokenizer).__name__} is a slow tokenizer, which gives no character offsets of tokens")
    for name, kinds in (("chat_template", (str, Mapping, type(None))), ("model_max_length", (int, float))):
        if not isinstance(getattr(tokenizer, name, None), kinds):
            raise ModelError(f"{what}: its {name} has the invalid value {one_line(getattr(tokenizer, name, None))!r}")
    limit_length(tokenizer, read_position_limit(source))
    return tokenizer


def load_own_tokenizer(source: str) -> Any:
    """The tokenizer of a checkpoint; for an adapter without one, its base's."""
    if is_adapter(source) and not find_file(source, "tokenizer_config.json"):
        source = list_adapters(read_adapter(source))[-1].base
    return load_tokenizer(source)


def _remedy(folder: Path) -> str:
    """How to fix the files of a slow tokenizer; empty for other folders."""
    if not folder.is_dir() or (folder / "tokenizer.json").exists():
        return ""
    known = [file.name for pattern in ("*.model", "vocab.*", "*.tiktoken", "tekken.json") for file in sorted(folder.glob(pattern))]
    if not known:
        return "the folder has no tokenizer.json"
    return (
        f"the folder has {one_line(known[0])} and no tokenizer.json: where sentencepiece and tiktoken are installed, "
        "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` makes one"
    )


def refuse_other_tasks(source: str, facts: Mapping[str, Any]) -> None:
    """Raises ModelError for a checkpoint that is no causal language model."""
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    named = read_architectures(source, facts)
    if named and not causal & set(named) and not facts.get("auto_map"):
        raise ModelError(f"{source} is a {one_line(named[0])}, not a causal language model")


def load_on_adapters(files: AdapterFiles, load_base: Callable[[str], Policy]) -> Policy:
    """The policy of an adapter on its base as loaded by `load_base`; adapters that it is based on are merged first."""
    *below, bottom = list_adapters(files)
    try:
        policy = load_base(bottom.base)
    except ModelError as error:
        raise ModelError(f"{error}; it is the base of the adapter {bottom.source}") from error
    unused: list[str] = []
    for one in (bottom, *reversed(below)):
        model, left = attach_adapter(policy.model, one)
        if left:
            print_line(f"{one.source}: {len(left)} weights of the adapter are not used: {list_some(left)}")
        unused += left
        if one is not files:
            with explain_load_errors(f"cannot merge the adapter {one.source}, which another adapter is based on"):
                model = model.merge_and_unload()
        policy = replace(policy, model=model)
    return replace(policy, source=files.source, unused=(*policy.unused, *unused))


def _load_adapter(source: str, tokenizer: Any, master: torch.dtype, trust_remote_code: bool, frozen: bool, four_bit: Mapping[str, Any]) -> Policy:
    files = read_adapter(source)
    if files.is_reward:
        task = f"{one_line(files.task)}, " if files.task else ""
        raise ModelError(f"{source} is the adapter of a reward model ({task}with a score head), not of a causal language model")
    if tokenizer is None and find_file(source, "tokenizer_config.json"):
        tokenizer = load_tokenizer(source, trust_remote_code)
    below = len(list_adapters(files)) > 1
    if below and four_bit:
        raise ModelError(f"{source} is based on another adapter, which cannot be merged into 4-bit weights; remove --lora.base, or merge it first")
    narrow = frozen and not below  # a merge into low-precision weights would lose the update to rounding
    policy = load_on_adapters(files, lambda base: _load_causal(base, tokenizer, master, trust_remote_code, narrow, four_bit))
    widen_trained(policy.model, master)
    return _checked(policy)


def _checked(policy: Policy) -> Policy:
    beyond = _beyond(policy.model, policy.tokenizer)
    if set(beyond) - {policy.tokenizer.pad_token}:  # a padding token occurs in no row
        top, rows = max(beyond.values()), embedding_rows(policy.model)
        raise ModelError(f"the tokenizer has token ids up to {top}, but the model has {rows} embeddings; pass the model's own tokenizer")
    limit_length(policy.tokenizer, learned_positions(causal_lm(policy.model).config))
    return policy


def embedding_rows(model: Any) -> int:
    """How many tokens a model has embeddings for."""
    return int(causal_lm(model).get_input_embeddings().weight.shape[0])


def _beyond(model: Any, tokenizer: Any) -> dict[str, int]:
    """Tokens without an embedding in the model."""
    rows = embedding_rows(model)
    return {token: place for token, place in tokenizer.get_vocab().items() if place >= rows}


def check_tokens(model: Any, tokenizer: Any, examples: Iterable[Example], roles: Sequence[str]) -> None:
    """Raises DataError for a row with a token that has no embedding; reads the rows only where such tokens exist."""
    beyond = _beyond(model, tokenizer)
    if not beyond:
        return
    first, names = min(beyond.values()), {place: token for token, place in beyond.items()}
    for example in examples:
        for ids in (example.prompt, *(example.responses[role].ids for role in roles)):
            top = int(ids.max(initial=0))
            if top >= first:
                raise DataError(
                    f"row {example.row} contains the token {names.get(top)!r} ({top}), for which the model has no embedding; "
                    "remove it from the text, or resize the model's embeddings"
                )


def save_policy(policy: Policy, folder: Path) -> None:
    """Saves in the `save_pretrained` layout: weights in the checkpoint's dtype, config, tokenizer and chat template; adapters as peft saves them."""
    _save(policy, folder, lambda lm: _cast(lm.state_dict(), policy.checkpoint_dtype))
    if causal_lm(policy.model) is policy.model:
        _write_dtype(folder / "config.json", policy.checkpoint_dtype)
    allow_readers(folder)


def try_saving(policy: Policy, folder: Path) -> None:
    """Does all of `save_policy` except writing a whole model's weights, to raise its errors before training."""
    _save(policy, folder, lambda lm: {})


def _save(policy: Policy, folder: Path, weights: Callable[[Any], dict[str, torch.Tensor]]) -> None:
    """Saves adapters as peft does, a whole model with the given `weights`, and the tokenizer beside them."""
    lm = causal_lm(policy.model)
    with stock_attention(policy.model):
        if lm is not policy.model:
            policy.model.save_pretrained(folder)
        else:
            lm.save_pretrained(folder, state_dict=weights(lm))
    policy.tokenizer.save_pretrained(folder)


def _cast(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Floating-point tensors in another dtype; tensors that share memory (tied embeddings) still do."""
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
    found = {}
    for name, tensor in state.items():
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        found[name] = cast.setdefault((tensor.data_ptr(), tensor.shape), tensor.detach().to(wanted))
    return found


def _write_dtype(config: Path, dtype: torch.dtype) -> None:
    """Writes the dtype of the saved weights: transformers writes that of the masters, and stock loaders would widen to it."""
    facts = json.loads(config.read_text())
    name = str(dtype).removeprefix("torch.")
    for part in (facts, *(value for value in facts.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = name
    config.write_text(json.dumps(facts, indent=2) + "\n")
