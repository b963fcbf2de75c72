"""Stock checkpoints, checked before transformers loads them: unusable ones stop with an error, unused weights are reported.

A checkpoint is rejected where its weights are quantised, where its config requires attention kernels that are missing, where
weights have shapes other than in the config, and where weights are missing. Weights that the model does not use are named on stderr.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from finegrain.errors import ModelError
from finegrain.models.finite import refuse_not_finite
from finegrain.models.hub_files import find_file, is_hub_name
from finegrain.models.load_errors import explain_load_errors, list_some, one_line, print_line
from finegrain.models.quantised import iterate_configs, refuse_method, refuse_quantised, refuse_traces

BUILT_IN = ("eager", "sdpa")
"""Attention implementations that transformers provides without further packages."""
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""Dtypes of weights that can be trained, as safetensors names them."""
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Loaded:
    """A model loaded from a stock checkpoint."""

    model: Any
    dtype: torch.dtype
    """The dtype of the checkpoint."""
    missing: tuple[str, ...]
    """Weights of the model that are in no file."""
    unused: tuple[str, ...]
    """Weights of the files that the model does not use."""


def read_config(source: str) -> dict[str, Any]:
    """config.json of a checkpoint folder or Hub name, unchanged."""
    path = Path(source)
    if not source.strip():
        raise ModelError("the name of the model is empty: expected a checkpoint folder or a Hub name like owner/name")
    if path.is_dir() and not (path / "config.json").exists():
        if any(path.glob("*.gguf")):
            raise ModelError(f"{source} holds GGUF files, quantised weights of llama.cpp; train from the safetensors checkpoint they were made from")
        raise ModelError(f"{source} has no config.json: expected a checkpoint folder as save_pretrained writes it")
    if not path.is_dir() and not is_hub_name(source):
        raise ModelError(f"no model at {one_line(source)}: expected a checkpoint folder or a Hub name like owner/name")
    with explain_load_errors(f"cannot read the config of {source}"):
        facts, _ = PretrainedConfig.get_config_dict(source)
    if not isinstance(facts, dict):
        raise ModelError(f"cannot read the config of {source}: expected an object of names and values in config.json")
    return facts


def read_architectures(source: str, facts: Mapping[str, Any]) -> list[str]:
    """The classes that a config names."""
    named = facts.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise ModelError(f"cannot read the config of {source}: architectures is {named!r}, expected a list of class names")
    return named


def load_stock(
    auto: Any,
    source: str,
    facts: Mapping[str, Any],
    *,
    master: torch.dtype,
    trust_remote_code: bool,
    labels: int | None = None,
    narrow: bool = False,
    four_bit: Mapping[str, Any] = NOTHING,
) -> Loaded:
    """The model of an Auto class in the dtype `master`; `labels`: for a classifier made from a language model, whose own head is left out.

    `narrow`: in the checkpoint's dtype instead; `four_bit`: arguments that quantise its linear layers on loading.
    """
    refuse_quantised(source, facts)
    _refuse_kernels(source, facts, trust_remote_code)
    refuse_unknown(source, facts, trust_remote_code)
    with explain_load_errors(f"cannot read the config of {source}", facts):
        read = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **({} if labels is None else {"num_labels": labels}))
    _without_far_pad(read)
    dtype = _dtype(source, read)
    refuse_pickled(source)
    here = Path(source).is_dir()
    stored = _stored_dtype(source) if here else None
    with explain_load_errors(f"cannot load {source}", facts), _quiet():
        model, info = auto.from_pretrained(
            source,
            config=read,
            dtype=(dtype or stored or master) if narrow else master,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # an error below names both shapes
            trust_remote_code=trust_remote_code,
            **four_bit,
        )
    unused, missing = sorted(info["unexpected_keys"]), sorted(info["missing_keys"])
    if labels is not None:
        unused = [name for name in unused if name.startswith(f"{model.base_model_prefix}.")]
    refuse_traces(source, unused)
    _refuse_other_shapes(source, info)
    refuse_not_finite(source, model.named_parameters())
    stored = stored if here else _stored_dtype(source)
    if unused:
        print_line(f"{source}: {len(unused)} weights are not used by {type(model).__name__}: {list_some(unused)}")
    return Loaded(model, dtype or stored or master, tuple(missing), tuple(unused))


def _refuse_kernels(source: str, facts: Mapping[str, Any], trust_remote_code: bool) -> None:
    """Raises ModelError for kernels that would be downloaded and run; for those that are not installed transformers raises the error."""
    for part in iterate_configs(facts):
        for entry in ("attn_implementation", "_attn_implementation"):
            told = part.get(entry)
            for asked in told.values() if isinstance(told, Mapping) else [told]:
                if asked is None or asked in BUILT_IN:
                    continue
                name, remedy = one_line(asked), f"delete {entry} from config.json to use the built-in attention"
                if not isinstance(asked, str) or "|" in asked:
                    raise ModelError(f"{source} requires the attention {name!r}, which cannot be used for training; {remedy}")
                if "/" in asked and not trust_remote_code:
                    raise ModelError(f"{source} requires attention kernels from the Hub ({name}), foreign code that is not run; {remedy}")
                if not _runs(asked):
                    raise ModelError(f"{source} requires attention kernels that are not installed ({name}); {remedy}, or install them")


def _runs(attention: str) -> bool:
    """Whether transformers provides the attention of this name."""
    checks = {
        "flash_attention_2": "is_flash_attn_2_available",
        "flash_attention_3": "is_flash_attn_3_available",
        "flash_attention_4": "is_flash_attn_4_available",
        "flex_attention": "is_torch_flex_attn_available",
    }
    if "/" in attention:
        return bool(transformers.utils.is_kernels_available())
    if attention == "flex_attention" and not torch.cuda.is_available():
        return False  # it has no backward pass on a CPU
    check = getattr(transformers.utils, checks.get(attention, ""), None)
    return check is not None and bool(check())


def refuse_unknown(source: str, facts: Mapping[str, Any], trust_remote_code: bool) -> None:
    """Raises ModelError for an architecture that transformers does not know, unless its own code may run."""
    kind = facts.get("model_type")
    own_code = isinstance(facts.get("auto_map"), Mapping)
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return
    if own_code and not trust_remote_code:
        raise ModelError(f"{source} comes with its own code for the architecture {kind!r}; read it, then run it with --trust-remote-code")
    if not own_code:
        known = f"transformers {transformers.__version__} does not know"
        told = "has no model_type" if kind is None else f"names the architecture {one_line(kind)!r}, which {known}; a newer version may"
        raise ModelError(f"{source}: config.json {told}")


def _without_far_pad(config: Any) -> None:
    """A padding token beyond the embeddings has no effect here, but torch cannot build a layer with it."""
    for part in (config, config.get_text_config()):
        pad, rows = getattr(part, "pad_token_id", None), getattr(config.get_text_config(), "vocab_size", None)
        if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
            part.pad_token_id = None


def _dtype(source: str, config: Any) -> torch.dtype | None:
    told = config.get_text_config().dtype
    if told is not None and not (isinstance(told, torch.dtype) and told.is_floating_point and told.itemsize > 1):
        raise ModelError(f"{source}: config.json's dtype {told!r} cannot be used for training; expected float32, bfloat16 or float16")
    return told


def _stored_dtype(source: str) -> torch.dtype | None:
    """The most frequent dtype of the weights on disk; raises ModelError for missing or damaged files and for quantised weights."""
    config = find_file(source, "config.json")
    if config is None:
        return None
    seen: Counter[str] = Counter()
    for file in list_weight_files(source, config.parent):
        with explain_load_errors(f"cannot read {file}"), safe_open(file, "pt") as tensors:
            stored = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}
        quantised = [dtype for name, dtype in stored.items() if name.endswith(".weight") and dtype not in FLOATS]
        if quantised:
            refuse_method(source, f"{quantised[0]} weights")
        seen.update(stored.values())
    return next((FLOATS[dtype] for dtype, _ in seen.most_common() if dtype in FLOATS), None)


def list_weight_files(source: str, folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder; raises ModelError where its index names one that is missing."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [file for file in [folder / "model.safetensors"] if file.is_file()]
    with explain_load_errors(f"cannot read {index}"):
        files = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    for file in files:
        if not file.is_file():
            raise ModelError(f"{source} lacks {one_line(file.name)}, which {index.name} names; download it again")
    return files


def _refuse_other_shapes(source: str, info: Mapping[str, Any]) -> None:
    other = sorted(info["mismatched_keys"])
    if other:
        name, stored, built = other[0]
        raise ModelError(
            f"{source}: {len(other)} weights have shapes other than in config.json, the first is {one_line(name)}: "
            f"{tuple(stored)} in the file and {tuple(built)} by the config; check that the config belongs to this checkpoint"
        )
    if info["error_msgs"]:
        raise ModelError(f"cannot load {source}: {one_line(info['error_msgs'][0])}")


def refuse_pickled(source: str) -> None:
    """Raises ModelError for a folder whose weights are pickled."""
    path = Path(source)
    if path.is_dir() and list(path.glob("*.bin")) and not list(path.glob("*.safetensors")):
        raise ModelError(
            f"{source} holds only pickled weights (.bin), which are never read; convert them once with "
            "`model.save_pretrained(folder)` of a transformers you trust, or the convert Space of the Hub (safetensors/convert)"
        )


def missing_weights_error(source: str, kind: str, missing: Sequence[str]) -> ModelError:
    """The error for a checkpoint without weights of the expected kind of model."""
    return ModelError(f"{source} lacks weights of {kind} ({list_some(missing)}); check the kind of model, and whether files are missing")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses transformers' own table of weights, which is reported in one line with escaped names instead."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
