"""Our side of the speed benchmark: one `finegrain prefer` or `finegrain reward` run. A JSON spec as argument, one JSON line on stdout.

The product's own command line in this process, nothing replaced; the clock is the run's own (first forward of any model, the engine's probe
and the reference pass included, to the last optimiser step). Same spec and same answer as side_trl.py.
"""

import time

BORN = time.perf_counter()

import hashlib  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from contextlib import redirect_stdout  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from utilisation import Lengths, matmul_rate, useful_flops  # noqa: E402

from finegrain.cli import main as finegrain  # noqa: E402
from finegrain.data.load import Shape, Tokenise, load_examples  # noqa: E402
from finegrain.models.load import load_policy  # noqa: E402
from finegrain.recipes.session import Session  # noqa: E402


class Clock:
    """Notes the clocks where the run starts and stops its own."""

    def __init__(self) -> None:
        self.begin: list[float] | None = None
        self.end: list[float] = []
        start, seconds = Session.start_clock, Session.seconds

        def noted_start(session: Session) -> None:
            self.begin = self.begin or clocks()
            start(session)

        def noted_seconds(session: Session) -> float:
            self.end = clocks()
            return seconds(session)

        Session.start_clock, Session.seconds = noted_start, noted_seconds  # type: ignore[method-assign]


def clocks() -> list[float]:
    """[wall, processor] seconds."""
    return [time.perf_counter(), time.process_time()]


def arguments(spec: dict[str, Any], out: Path) -> list[str]:
    """The command line of the spec's job."""
    flags = {
        "model": spec["model"],
        "data": spec["pairs"],
        "out": out,
        "batch-size": spec["batch_size"],
        "lr": spec["learning_rate"],
        "optim.schedule": "constant",
        "optim.warmup": 0,
        "optim.weight-decay": 0,
        "optim.embedding-lr": spec["learning_rate"],
        "optim.max-grad-norm": 1,
        "max-length": spec["max_length"],
        "dtype": spec["arithmetic"],
        "device": "cpu",
        "holdout": 0,
        "samples": 0,
        "seed": spec["seed"],
    }
    if spec["lora"]:
        flags |= {"lora.rank": spec["lora"], "lora.alpha": spec["lora"]}
    task = {"prefer": ["prefer", "objective:dpo", "--objective.beta", str(spec["beta"])], "reward": ["reward", "head:sequence"]}[spec["task"]]
    return [*task, *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]


def main() -> None:
    spec = json.loads(sys.argv[1])
    out = Path(spec["work"]) / "run"
    clock = Clock()
    with redirect_stdout(sys.stderr):
        code = finegrain(arguments(spec, out))
    if code:
        sys.exit(code)
    finished = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record = json.loads((out / "run.json").read_text())
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    policy = load_policy(spec["model"])
    examples = load_examples(spec["pairs"], policy.tokenizer, shape=Shape.PREFERENCE, settings=Tokenise(max_length=spec["max_length"])).examples
    ids = [[row.prompt.tolist(), *(row.responses[role].ids.tolist() for role in ("chosen", "rejected"))] for row in examples]
    whole = [[prompt + chosen, prompt + rejected] for prompt, chosen, rejected in ids] if spec["task"] == "reward" else ids
    assert clock.begin is not None
    lengths = [Lengths(*map(len, row)) for row in ids]
    tokens, scored = sum(map(sum, lengths)), sum(pair.chosen + pair.rejected for pair in lengths)
    flops = useful_flops(lengths, policy.model) if spec["task"] == "prefer" else {}
    answer = {
        "tokens_sha256": hashlib.sha256(json.dumps([whole[index] for index in spec["order"]]).encode()).hexdigest(),
        "pairs": record["pairs"],
        "train_seconds": record["train_seconds"],
        "train_cpu_seconds": clock.end[1] - clock.begin[1],
        "reference_seconds": record["beside_training"]["seconds"],
        "peak_rss": peak,
        "load_seconds": clock.begin[0] - BORN,
        "step_seconds": [line["step_seconds"] for line in metrics],
        "losses": [line["loss"] for line in metrics],
        "threads": torch.get_num_threads(),
        "engine": record["engine"],
        "packed_tokens": tokens,
        "scored_tokens": scored,
        "useful_flops": flops,
        "useful_flops_per_second": sum(flops.values()) / record["train_seconds"],
    }
    if spec["measure_matmul"]:
        rows, heads = tokens // len(metrics), scored // len(metrics)
        answer["matmul_flops_per_second"] = matmul_rate(policy.model, rows, heads, getattr(torch, spec["arithmetic"]))
    print(json.dumps(answer | {"after_seconds": time.perf_counter() - finished}))


if __name__ == "__main__":
    main()
