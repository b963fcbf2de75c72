"""What every training recipe sets up before its own work: devices, model, data, scorer, record."""

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from finegrain.commands.settings import Compute
from finegrain.data.categories import Categories
from finegrain.data.gate.settings import Gate
from finegrain.data.load import LoadedData, load_examples
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from finegrain.files import cache_folder
from finegrain.models.adapter_files import is_adapter
from finegrain.models.adapters import add_adapter
from finegrain.models.fingerprint import model_fingerprint, tokenizer_fingerprint
from finegrain.models.frozen_base import widen_trained
from finegrain.models.load import Policy, check_tokens, load_policy, master_dtype
from finegrain.models.lora import Lora
from finegrain.models.probe import Probe, make_scorer
from finegrain.models.products import choose_products, describe_products
from finegrain.models.quantised import check_four_bit, make_four_bit_arguments
from finegrain.models.reference import ScoreCache
from finegrain.models.reward_head import linear_head
from finegrain.models.score import ComputeUsage, Precision
from finegrain.models.scorer import Scorer, causal_lm, silence_dropout
from finegrain.run_record import PRODUCTS, RunRecord
from finegrain.runs import REPEATED, RunDirectory, changed_since
from finegrain.scoring.devices import micro_tokens_of, open_device
from finegrain.scoring.runtime import Runtime
from finegrain.terminal import write_line
from finegrain.train.distributed import barrier, rank, world
from finegrain.types import Json

PACKAGES = ("finegrain", "torch", "transformers", "accelerate", "peft", "datasets", "safetensors", "numpy")


@dataclass
class Session:
    """A model opened as training opens it, and what everything that scores beside it shares."""

    policy: Policy
    precision: Precision
    cache: ScoreCache
    seed: int
    """Of rows held out, of their order and of new parameters."""
    max_length: int
    """Longest prompt + answer in tokens."""
    trust_remote_code: bool
    """Whether code that comes with a model may run."""
    say: Callable[[str], None]
    """One line to the person on stderr, first rank only."""
    usage: ComputeUsage = field(default_factory=ComputeUsage)
    started: float | None = None
    """Clock at the first forward of any model."""
    scorer: Scorer | None = None
    """Reads the policy's values; None until `prepare_scorer`."""
    probe: Probe | None = None
    """By which path the scorer computes, and why."""
    silenced: Mapping[str, float] = field(default_factory=dict)
    """Dropout settings that were set to 0, with what they were."""

    @property
    def runtime(self) -> Runtime:
        """With what frozen models are scored beside the policy."""
        return Runtime(self.device, self.precision, self.cache, self.usage)

    def start_clock(self) -> None:
        """Training seconds count from the first forward of any model."""
        self.started = self.started if self.started is not None else time.perf_counter()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = next(self.policy.model.parameters()).device
        return found

    def seconds(self) -> float:
        """Seconds since the first forward."""
        return 0.0 if self.started is None else time.perf_counter() - self.started


def open_session(
    model: Any,
    compute: Compute,
    *,
    seed: int = 0,
    tokenizer: Any = None,
    lora: Lora = Lora(),
    micro_tokens: int | None = None,
    shard: bool = False,
    trust_remote_code: bool = False,
    frozen: bool = False,
) -> Session:
    """The policy on its device, adapter included; `frozen` where nothing of the model trains."""
    _, device, precision = open_device(compute.device, compute.dtype, micro_tokens)
    master = master_dtype(precision.name)
    adapter = lora.rank > 0 or is_adapter(model.model if isinstance(model, Policy) else model)
    if lora.base != "checkpoint":
        check_four_bit(adapter=adapter, in_memory=not isinstance(model, (str, Path)), shard=shard)
    four_bit = make_four_bit_arguments(lora.base, torch.bfloat16 if precision.name == "bfloat16" else master, device)
    narrow = (frozen or adapter) and not shard and master == torch.float32  # FSDP wants one dtype in a group; float64 is exact throughout
    policy = load_policy(model, tokenizer=tokenizer, master=master, trust_remote_code=trust_remote_code, frozen=narrow, four_bit=four_bit)
    policy = add_adapter(policy, lora, seed)
    if frozen:
        policy.model.requires_grad_(False)
    if narrow:
        widen_trained(policy.model, master)
    if not four_bit:
        policy.model.to(device)
    precision = replace(precision, micro_tokens=micro_tokens or micro_tokens_of(device, causal_lm(policy.model).config.get_text_config()))
    say: Callable[[str], None] = write_line if rank() == 0 else silent
    return Session(
        policy=policy,
        precision=precision,
        cache=ScoreCache(cache_folder(), rank(), world(), barrier, say=say),
        seed=seed,
        max_length=compute.max_length,
        trust_remote_code=trust_remote_code,
        say=say,
    )


def silent(text: str) -> None:
    """No line of the other processes."""


def load_data(
    session: Session,
    source: str,
    shape: Shape | Sequence[Shape],
    *,
    limit: int | None,
    gate: Gate = Gate(),
    categories: Categories | None = None,
    assumed: Mapping[str, float] = MappingProxyType({}),
) -> LoadedData:
    """Tokenised rows of a file, folder or Hub name; `categories`: text columns kept as numbers; `assumed`: numbers of rows that lack them."""
    settings, tokenizer = Tokenise(max_length=session.max_length), session.policy.tokenizer
    data = load_examples(source, tokenizer, shape=shape, settings=settings, limit=limit, gate=gate, categories=categories, assumed=assumed)
    for line in data.report.get("messages", []):
        session.say(line)
    check_tokens(session.policy.model, session.policy.tokenizer, data.examples, data.examples.roles)
    return data


def prepare_scorer(session: Session, longest: int, *, gradient_checkpointing: bool = False) -> Scorer:
    """The scorer on the fused path, or on the plain one where the probe finds a difference; dropout silenced."""
    model = session.policy.model
    session.silenced = silence_dropout(model)
    model.train()
    if gradient_checkpointing:
        causal_lm(model).activation_checkpointing_enable({"use_reentrant": False})
        if causal_lm(model) is not model:
            model.enable_input_require_grads()
    session.start_clock()
    head = None
    if causal_lm(model).get_output_embeddings() is None:  # a reward model: another head stands in for the probe
        head = linear_head(hidden_size(session), 1, seed=0, dtype=master_dtype(session.precision.name)).to(session.device)
    session.scorer, session.probe = make_scorer(model, longest=longest, head=head, precision=session.precision)
    if not session.probe.fused:
        session.say(f"engine: plain path, slower and larger, because {session.probe.reason}")
    return session.scorer


def hidden_size(session: Session) -> int:
    """Width of the policy."""
    config = causal_lm(session.policy.model).config.get_text_config()
    return int(config.hidden_size)


def stamp(session: Session, record: RunRecord) -> RunRecord:
    """The record with what the session knows by now: date, versions, machine, engine, memory, passes beside training."""
    stamped, usage = record.plus({}), session.usage
    stamped.versions = versions()
    stamped.machine = {"device": str(session.device), "processes": world(), "threads": torch.get_num_threads()}
    stamped.date = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    stamped.unused_weights = list(session.policy.unused) or None
    if session.probe is not None:
        stamped.engine, stamped.dropout_set_to_zero = session.probe.as_json(), dict(session.silenced)
    stamped.peak_rss_bytes = peak_rss_bytes()
    stamped.beside_training = {"rows": usage.rows, "tokens": usage.tokens, "seconds": round(usage.seconds, 3), "notes": usage.notes}
    return stamped


def versions() -> dict[str, str]:
    """Of the packages that numbers come from."""
    return {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}


_version = cache(metadata.version)  # looks through the packages' folders each time


def identify(session: Session) -> dict[str, str]:
    """The start model by its content: what a run that goes on, or is repeated, is compared with."""
    policy = session.policy
    tokenizer = tokenizer_fingerprint(policy.tokenizer)
    return {"source": policy.source, "sha256": model_fingerprint(policy, session.cache.folder), "tokenizer_sha256": tokenizer}


def identify_products(session: Session) -> Json:
    """The libraries of the policy's float32 products, before the scorer is made: their sums differ in the last bits."""
    if session.device.type != "cpu":
        return {}
    return {PRODUCTS: describe_products(choose_products(session.policy.model, session.cache.folder))}


def peak_rss_bytes() -> int | None:
    """Largest resident memory of this process so far; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tell_changes(session: Session, record: RunRecord, directory: RunDirectory, *, resume: bool) -> list[str]:
    """A line for each of model, data and versions that another record says otherwise; told, and returned for run.json."""
    now = record.plus({"versions": versions()})
    repeated = REPEATED.get()
    lines = [] if repeated is None else [f"again: {line}" for line in changed_since(repeated, now)]
    if resume and (directory.path / "run.json").exists():
        lines += [f"resume: {line}; numbers may differ from an uninterrupted run's" for line in changed_since(directory.read_record(), now)]
    for line in lines:
        session.say(line)
    return lines
