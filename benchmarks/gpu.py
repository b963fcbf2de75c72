"""What the engine does on your GPU: probe, 20 steps in float32 and bfloat16, peak memory and pairs/s, and the same of TRL where it is installed.

    python benchmarks/gpu.py                                   the GPU there is, a random model of 0.4 B parameters
    python benchmarks/gpu.py --model Qwen/Qwen2.5-0.5B         a checkpoint folder or a Hub name
    python benchmarks/gpu.py --device cpu --size tiny          a look at the script itself

At most eight minutes: a part that the clock no longer has room for is named and left out. Pairs are random tokens of ragged lengths, the same
for both sides and in the same order; weights of --size are random, since neither speed nor memory looks at them. `pairs_per_second` includes
the reference pass on both sides, without the probe and the loading. One JSON line on stdout.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from inputs import SPECIAL, word_level
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from finegrain.data.records import Example, Response
from finegrain.models.probe import make_scorer
from finegrain.models.score import score_rows
from finegrain.models.scorer import silence_dropout
from finegrain.objectives.dpo import DPO
from finegrain.scoring.devices import micro_tokens_of, open_device
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet
from finegrain.train.loop import Trainer, run_step
from finegrain.train.metrics import metrics_for
from finegrain.train.optim import Optim, make_optimizer
from finegrain.train.read_contract import contract_of

ROLES = ("chosen", "rejected")
SIZES = {"tiny": (64, 2, 500), "small": (1024, 24, 32000), "1b": (2048, 22, 32000)}
"""Width, layers, vocabulary."""
RATE = 1e-5
WARM_UP = 3
"""Steps before the clock: kernels are chosen and memory is reserved in them."""


@dataclass(frozen=True)
class Asked:
    """What was asked for."""

    model: str | None
    size: str
    device: str
    steps: int
    batch_size: int
    seconds: float


def make_model(asked: Asked) -> Any:
    """A float32 model on the CPU."""
    torch.manual_seed(0)
    if asked.model is not None:
        return AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32, use_safetensors=True)
    width, layers, vocabulary = SIZES[asked.size]
    heads = max(2, width // 64)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def make_pairs(count: int, vocabulary: int, longest: int) -> list[Example]:
    """Pairs of random tokens: prompts of up to half the longest row, answers of up to a quarter of it."""
    rng = np.random.default_rng(0)

    def tokens(most: int) -> np.ndarray:
        return rng.integers(len(SPECIAL), vocabulary, rng.integers(most // 4, most)).astype(np.int32)

    def response() -> Response:
        ids = tokens(longest // 4)
        places = np.arange(len(ids), dtype=np.int32)
        return Response(ids, np.ones(len(ids), dtype=bool), np.stack([places, places + 1], 1), "")

    return [
        Example(
            row=row,
            prompt=tokens(longest // 2),
            prompt_text="",
            responses={role: response() for role in ROLES},
            columns={},
            spans=dict.fromkeys(ROLES),
            token_rewards=dict.fromkeys(ROLES),
        )
        for row in range(count)
    ]


def ours(asked: Asked, dtype: str) -> dict[str, Any]:
    """Probe, reference pass and steps of DPO by the engine."""
    _, device, precision = open_device(asked.device, dtype)
    model = make_model(asked).to(device).train()
    silence_dropout(model)
    config = model.config.get_text_config()
    precision = type(precision)(precision.autocast, precision.name, micro_tokens_of(device, config))
    rows = make_pairs(asked.batch_size * (WARM_UP + asked.steps), config.vocab_size, longest_row(asked))
    forget(device)
    started = clock(device)
    scorer, probe = make_scorer(model, longest=longest_row(asked), precision=precision)
    probed = clock(device) - started
    reference = score_rows(scorer, rows, ROLES, precision)
    scored = clock(device) - started - probed
    contract = contract_of(DPO())
    data = TrainingSet(rows, reference)
    plan = Plan(data.packed_tokens(ROLES), asked.batch_size, 1.0, 0, precision.micro_tokens)
    optim = Optim(warmup=0.0, schedule="constant")
    trainer = Trainer(
        scorer, contract, data, make_optimizer(scorer.parameters(), [], optim, RATE), optim, precision, metrics_for(contract), RATE, len(plan)
    )
    lines, seconds = timed(lambda index: run_step(trainer, plan.step(index)), asked, device)
    return {
        "engine": probe.as_json(),
        "value_error": probe.value_error,
        "gradient_error": probe.gradient_error,
        "probe_seconds": probed,
        "reference_seconds": scored,
        "micro_tokens": precision.micro_tokens,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pairs_per_second": len(rows) / (seconds / asked.steps * (WARM_UP + asked.steps) + scored),
        "pairs_per_second_without_reference": asked.batch_size * asked.steps / seconds,
        "peak_bytes": peak(device),
        "last_loss": lines[-1]["loss"],
    }


def theirs(asked: Asked, dtype: str) -> dict[str, Any]:
    """The same steps by TRL's DPOTrainer, whose reference pass is in every step and so in its `pairs_per_second`."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    _, device, _ = open_device(asked.device, "auto")
    model = make_model(asked)
    vocabulary = model.config.get_text_config().vocab_size
    tokenizer = word_level(vocabulary)
    rows = make_pairs(asked.batch_size * (WARM_UP + asked.steps), vocabulary, longest_row(asked))
    columns = [{"prompt": spelled(row.prompt), **{role: " " + spelled(row.responses[role].ids) for role in ROLES}} for row in rows]
    times: list[float] = []

    class Clock(TrainerCallback):
        """The clock after every step."""

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(clock(device))

    with tempfile.TemporaryDirectory() as folder:
        settings = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=asked.batch_size,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            warmup_steps=0,
            optim="adamw_torch_fused",
            bf16=dtype == "bfloat16",
            gradient_checkpointing=False,
            max_length=longest_row(asked),
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda",
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
            logging_steps=10_000,
        )
        forget(device)
        given = {"args": settings, "train_dataset": Dataset.from_list(columns), "processing_class": tokenizer, "callbacks": [Clock()]}
        trainer = DPOTrainer(model=model, ref_model=deepcopy(model), **given)  # without one it is loaded by name, which random weights lack
        trainer.train()
    return {"pairs_per_second": asked.batch_size * asked.steps / (times[-1] - times[WARM_UP - 1]), "peak_bytes": peak(device)}


def spelled(ids: np.ndarray) -> str:
    """Tokens as words that the word-level tokenizer reads as these tokens; TRL adds an end token to every answer."""
    return " ".join(f"w{token - len(SPECIAL)}" for token in ids)


def longest_row(asked: Asked) -> int:
    """Tokens of the longest prompt with an answer."""
    return 64 if asked.size == "tiny" and asked.model is None else 1024


def timed(step: Callable[[int], dict[str, Any]], asked: Asked, device: torch.device) -> tuple[list[dict[str, Any]], float]:
    """The logged lines of all steps, and the seconds of those after the warm-up."""
    lines = [step(index) for index in range(WARM_UP)]
    started = clock(device)
    lines += [step(WARM_UP + index) for index in range(asked.steps)]
    return lines, clock(device) - started


def clock(device: torch.device) -> float:
    """Seconds, when the device has done what it was given."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


def forget(device: torch.device) -> None:
    """What earlier parts have left."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Most bytes of the device that tensors held; None where it does not count."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def parse() -> Asked:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder or Hub name; by default random weights of --size")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=480.0, help="parts that would start later than two thirds of this are left out")
    return Asked(**vars(parser.parse_args()))


def main() -> None:
    asked = parse()
    sides: dict[str, Callable[[Asked, str], dict[str, Any]]] = {"finegrain": ours, "trl": theirs}
    try:
        import trl
    except ImportError:
        print("trl is not installed here: our side only", file=sys.stderr)
        del sides["trl"]
    else:
        print(f"trl {trl.__version__}", file=sys.stderr)
    began = time.perf_counter()
    found: dict[str, Any] = {"torch": torch.__version__, "device": card(asked)}
    for dtype in ("bfloat16", "float32"):
        for name, side in sides.items():
            part = f"{name} {dtype}"
            if time.perf_counter() - began > asked.seconds * 2 / 3:
                print(f"{part}: left out, no time", file=sys.stderr)
                continue
            AcceleratorState._reset_state(reset_partial_state=True)  # otherwise a process keeps the arithmetic that it began with
            try:
                found[part] = side(asked, dtype)
            except torch.OutOfMemoryError as error:
                found[part] = {"failed": str(error).splitlines()[0]}
            print(f"{part}: {json.dumps(found[part])}", file=sys.stderr, flush=True)
    found["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(found))


def card(asked: Asked) -> str:
    """The device by its name."""
    _, device, _ = open_device(asked.device, "auto")
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


if __name__ == "__main__":
    main()
