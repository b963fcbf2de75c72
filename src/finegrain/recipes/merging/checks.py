"""Whether checkpoints can be merged: one architecture, one config, one vocabulary, one origin; and what the record says of each."""

import json
from pathlib import Path
from typing import Any

from finegrain.errors import FinegrainError, ModelError
from finegrain.files import cache_folder
from finegrain.models.fingerprint import folders_fingerprint, tokenizer_fingerprint
from finegrain.models.load import load_own_tokenizer
from finegrain.models.load_errors import one_line
from finegrain.models.lora_weights import LoraWeights
from finegrain.models.merge import Sources, check_related, check_tensors
from finegrain.models.stored_weights import StoredWeights
from finegrain.runs import read_record
from finegrain.terminal import write_line
from finegrain.types import Json
from finegrain.weights.blocks import MergeMethod

HARMLESS = frozenset(
    {
        "_name_or_path",
        "_attn_implementation_autoset",
        "architectures",
        "attention_dropout",
        "attn_pdrop",
        "bos_token_id",
        "dtype",
        "embd_pdrop",
        "eos_token_id",
        "finegrain",
        "hidden_dropout",
        "id2label",
        "initializer_range",
        "label2id",
        "pad_token_id",
        "resid_pdrop",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Entries of a config that do not change what the model computes of tokens; those of the first model are kept."""


def check_sources(sources: Sources, method: MergeMethod) -> tuple[Any, list[Json]]:
    """The tokenizer that the result gets, and a description of each checkpoint; raises ModelError where they cannot be merged."""
    first, *others = sources.every
    for other in others:
        _check_configs(first, other)
    check_tensors(sources)
    _check_bases(sources)
    tokenizers = [load_own_tokenizer(_local(one)) for one in sources.every]
    for other, tokenizer in zip(others, tokenizers[1:], strict=True):
        _check_vocabularies(first, tokenizers[0], other, tokenizer)
    cosines = [None, *check_related(sources)]
    described = [
        {
            "source": one.source,
            "role": "base" if one is sources.base else "model",
            "sha256": _fingerprint(one),
            "tokenizer_sha256": tokenizer_fingerprint(tokenizer),
            **({} if cosine is None else {"cosine_to_first": cosine}),
            **({"adapter_of": one.base.source} if isinstance(one, LoraWeights) else {}),
        }
        for one, tokenizer, cosine in zip(sources.every, tokenizers, cosines, strict=True)
    ]
    if len({one["tokenizer_sha256"] for one in described}) > 1:
        write_line(f"the checkpoints have one vocabulary, but different rules, special tokens or chat templates; those of {first.source} are kept")
    if sources.base is not None:
        for one, facts in zip(sources.models, described, strict=False):
            _tell_other_start(one, facts, sources.base, described[-1])
    return tokenizers[0], described


def weigh(described: list[Json], method: MergeMethod, models: int) -> list[Json]:
    """The descriptions with what each checkpoint is multiplied by; without it where that differs from tensor to tensor."""
    weights = method.coefficients(models)
    if weights is None:
        return described
    return [{**one, "weight": weight + 0.0} for one, weight in zip(described, weights, strict=True)]  # -0.0 + 0.0 is 0.0


def _check_configs(first: StoredWeights, other: StoredWeights) -> None:
    """Raises ModelError for another architecture, or an entry that changes what is computed."""
    one, two = (_flat(json.loads(json.dumps(each.skeleton.config.to_dict(), default=str))) for each in (first, other))
    if one.get("model_type") != two.get("model_type"):
        raise ModelError(
            f"{other.source} is a {one_line(two.get('model_type'))} and {first.source} a {one_line(one.get('model_type'))}; "
            "merging needs one architecture"
        )
    unlike = [name for name in sorted(one.keys() | two.keys()) if one.get(name) != two.get(name) and not HARMLESS & set(name.split("."))]
    if unlike:
        told = ", ".join(f"{name} is {one_line(two.get(name))} and {one_line(one.get(name))}" for name in unlike[:3])
        more = f" and {len(unlike) - 3} further entries" if len(unlike) > 3 else ""
        raise ModelError(f"the configs of {other.source} and {first.source} differ: {told}{more}; merging needs models that compute alike")


def _flat(facts: Json, prefix: str = "") -> Json:
    found: Json = {}
    for name, value in facts.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


def _check_bases(sources: Sources) -> None:
    """Raises ModelError for adapters on different bases."""
    adapters = [one for one in sources.every if isinstance(one, LoraWeights)]
    for other in adapters[1:]:
        one, two = adapters[0].base, other.base
        if one.folder.resolve() != two.folder.resolve() and _fingerprint(one) != _fingerprint(two):
            raise ModelError(
                f"the adapters {adapters[0].source} and {other.source} have different bases ({one.source} and {two.source}); "
                "their updates belong to other weights"
            )


def _check_vocabularies(first: StoredWeights, kept: Any, other: StoredWeights, tokenizer: Any) -> None:
    """Raises ModelError where a token has another number, or is in one vocabulary alone."""
    one, two = kept.get_vocab(), tokenizer.get_vocab()
    unlike = sorted(token for token in one.keys() | two.keys() if one.get(token) != two.get(token))
    if unlike:
        token = unlike[0]
        places = [f"{one_line(vocabulary.get(token, 'absent'))} in {each.source}" for vocabulary, each in ((one, first), (two, other))]
        raise ModelError(
            f"{other.source} and {first.source} have different vocabularies ({len(unlike)} tokens differ, such as {one_line(repr(token))}: "
            f"{' and '.join(places)}); a row of their embeddings would mean two tokens"
        )


def _local(weights: StoredWeights) -> str:
    """The local folder of a checkpoint's own files."""
    return str(weights.files.folder if isinstance(weights, LoraWeights) else weights.folder)


def _fingerprint(weights: StoredWeights) -> str:
    """sha256 of its weights and config, an adapter's with its base's: as run.json says it of a model that training starts from."""
    return folders_fingerprint(_folders(weights), cache_folder())


def _folders(weights: StoredWeights) -> list[Path]:
    if not isinstance(weights, LoraWeights):
        return [weights.folder]
    return [weights.files.folder, *_folders(weights.base)]


def _tell_other_start(model: StoredWeights, facts: Json, base: StoredWeights, base_facts: Json) -> None:
    """A line where the run that made a model says it began from other weights than the base: the difference then holds more than that run."""
    record = Path(_local(model)) / "run.json"
    if not record.exists():
        return
    try:
        start = read_record(record).model
    except FinegrainError:
        return
    if isinstance(start, dict) and isinstance(begun := start.get("sha256"), str):
        facts["began_from"] = begun
        if begun != base_facts["sha256"]:
            write_line(
                f"{model.source} was trained from {one_line(start.get('source'))} with other weights than {base.source} has now; "
                "its difference from the base is more than what that run taught"
            )
