"""Load a causal language model and its tokenizer; save it so that stock tools load it again.

Weights train as float32 masters whatever the checkpoint's dtype, and are saved in the checkpoint's dtype; those that do not train
keep it. Only safetensors are read; remote code runs on explicit request alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from finegrain.data.truncate import limit_length
from finegrain.errors import ModelError
from finegrain.models.frozen_base import keep_narrow, widen_trained
from finegrain.models.positions import learned_positions, positions_of_checkpoint
from finegrain.models.scorer import causal_lm, stock_attention


@dataclass(frozen=True)
class Policy:
    """A model to be trained or scored, and what belongs to it."""

    model: Any
    tokenizer: Any
    source: str
    """Path or Hub name, or "in memory"."""
    checkpoint_dtype: torch.dtype
    """The dtype the result is saved in."""
    in_memory: bool = False
    """True where the caller passed a model object; its weights may be in no file."""
    four_bit: bool = False
    """True where the weights of linear layers were packed into 4 bits as they were loaded."""


def master_dtype(name: str) -> torch.dtype:
    """The dtype weights are trained in: float64 where that arithmetic was asked for, float32 masters otherwise."""
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
    """The policy of a path, a Hub name, or a model object with its tokenizer.

    `frozen`: all that will train are an adapter or a head, so the weights stay in the checkpoint's dtype and compute in `master`; with
    `four_bit`, what `from_pretrained` is told beside, those of linear layers are narrower still.
    """
    if not isinstance(source, (str, Path)):
        if tokenizer is None:
            raise ModelError("a model object needs its tokenizer: pass tokenizer=")
        dtype = next(source.parameters()).dtype
        if frozen:
            keep_narrow(source, master)
        return _checked(Policy(source if frozen else source.to(master), tokenizer, "in memory", dtype, in_memory=True))
    source = str(source)
    if (Path(source) / "adapter_config.json").exists():
        return _load_adapter(source, tokenizer, master, trust_remote_code, frozen, four_bit)
    config = _config(source, trust_remote_code)
    _refuse_other_tasks(source, config)
    dtype = config.get_text_config().dtype or master
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype if frozen else master,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            **four_bit,
        )
    except (OSError, SafetensorError) as error:
        raise ModelError(_unreadable(source, error)) from error
    except ValueError as error:
        raise ModelError(f"{source} is no causal language model: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        some = f"{', '.join(missing[:3])}, {len(missing)} in all"
        raise ModelError(f"{source} lacks weights of a causal language model ({some}); is it another kind of model?")
    if frozen:
        keep_narrow(model, master)
    chosen = tokenizer or load_tokenizer(source, trust_remote_code)
    return _checked(Policy(model, chosen, source, dtype, four_bit=bool(four_bit)))


def load_tokenizer(source: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer beside a checkpoint."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"no tokenizer in {source}: {error}") from error
    limit_length(tokenizer, positions_of_checkpoint(source))
    return tokenizer


def is_adapter(source: Any) -> bool:
    """Whether a source is the folder of an adapter, or a model that has one."""
    return (Path(source) / "adapter_config.json").exists() if isinstance(source, (str, Path)) else hasattr(source, "peft_config")


def _config(source: str, trust_remote_code: bool) -> Any:
    path = Path(source)
    if path.exists() and not (path / "config.json").exists():
        raise ModelError(f"{source} has no config.json: expected a checkpoint folder as save_pretrained writes it")
    if not path.exists() and (path.is_absolute() or source.startswith(".") or source.count("/") != 1):
        raise ModelError(f"no model at {source}: expected a checkpoint folder or a Hub name like owner/name")
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the config of {source}: {error}") from error


def _refuse_other_tasks(source: str, config: Any) -> None:
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    named = config.architectures or []
    if named and not causal & set(named) and not getattr(config, "auto_map", None):
        raise ModelError(f"{source} is a {named[0]}, no causal language model")


def _unreadable(source: str, error: Exception) -> str:
    path = Path(source)
    if path.exists() and list(path.glob("*.bin")) and not list(path.glob("*.safetensors")):
        return (
            f"{source} holds pickled weights only (.bin), which are never read; convert them once with "
            "`model.save_pretrained(folder)` of a transformers you trust, or the convert Space of the Hub (safetensors/convert)"
        )
    return f"cannot load {source}: {error}"


def _load_adapter(source: str, tokenizer: Any, master: torch.dtype, trust_remote_code: bool, frozen: bool, four_bit: Mapping[str, Any]) -> Policy:
    from peft import PeftConfig, PeftModel

    folder = Path(source)
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError(f"{source} has an adapter_config.json but no adapter_model.safetensors; pickled adapters (.bin) are never read")
    here = (folder / "tokenizer_config.json").exists()
    try:
        base = PeftConfig.from_pretrained(source).base_model_name_or_path
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"cannot read the adapter's config in {source}: {error}") from error
    if not base:
        raise ModelError(f"the adapter {source} does not name its base model (base_model_name_or_path in adapter_config.json)")
    chosen = tokenizer or (load_tokenizer(source, trust_remote_code) if here else None)
    policy = load_policy(base, tokenizer=chosen, master=master, trust_remote_code=trust_remote_code, frozen=frozen, four_bit=four_bit)
    try:
        model = PeftModel.from_pretrained(policy.model, source, is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot put the adapter {source} on {base}: {error}") from error
    widen_trained(model, master)
    return replace(policy, model=model, source=source)


def _checked(policy: Policy) -> Policy:
    rows = causal_lm(policy.model).get_input_embeddings().weight.shape[0]
    top = max(policy.tokenizer.get_vocab().values(), default=0)
    if top >= rows:
        raise ModelError(f"the tokenizer has token ids up to {top}, the model has {rows} embeddings: this is another model's tokenizer")
    limit_length(policy.tokenizer, learned_positions(causal_lm(policy.model).config))
    return policy


def save_policy(policy: Policy, folder: Path) -> None:
    """`save_pretrained` layout: weights in the checkpoint's dtype, config, tokenizer and chat template; adapters as peft saves them."""
    lm = causal_lm(policy.model)
    with stock_attention(policy.model):
        if lm is not policy.model:
            policy.model.save_pretrained(folder)
        else:
            lm.save_pretrained(folder, state_dict=_cast(lm.state_dict(), policy.checkpoint_dtype))
            _write_dtype(folder / "config.json", policy.checkpoint_dtype)
    policy.tokenizer.save_pretrained(folder)


def _cast(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Floating tensors in another dtype; tensors that share memory (tied embeddings) still do."""
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
    found = {}
    for name, tensor in state.items():
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        found[name] = cast.setdefault((tensor.data_ptr(), tensor.shape), tensor.detach().to(wanted))
    return found


def _write_dtype(config: Path, dtype: torch.dtype) -> None:
    """The dtype of the saved weights: transformers writes that of the masters, and stock loaders would widen to it."""
    facts = json.loads(config.read_text())
    name = str(dtype).removeprefix("torch.")
    for part in (facts, *(value for value in facts.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = name
    config.write_text(json.dumps(facts, indent=2) + "\n")
