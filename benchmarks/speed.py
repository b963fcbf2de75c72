"""Speed and memory of preference training against TRL 1.16, on identical tokens in identical order: `make bench`.

Writes benchmarks/results/speed.json, speed.md and growth.svg. Every run is a process of its own, the sides alternate, the best of three
blocks counts. The method is in docs/guides/speed.md.

    python benchmarks/speed.py [--quick] [--rows] [--growth] [--without-trl] [--out FOLDER]

This file imports the standard library and `places` only and stays small: on Linux a child's peak memory is never less than its parent's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from places import DATA, RESULTS, ROOT, SMALL_LM, describe_processor

HERE = Path(__file__).resolve().parent
TRL_HOME = ROOT / ".venv-trl"
WORK = HERE / "work"

Answer = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model and where its tokens come from."""

    name: str
    folder: Path
    make: dict[str, Any]
    """What inputs.py needs to make it; nothing for a model that exists."""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    model: Model
    pairs: int
    arithmetic: str = "float32"
    task: str = "prefer"
    """prefer: DPO; reward: a reward model read at the last token, under Bradley-Terry."""
    precompute: bool = False
    """TRL computes reference log-probabilities before training; ours always does."""
    source: dict[str, Any] | None = None
    """Where the pairs come from, for inputs.py; the dialogues by default."""
    batch_size: int = 8
    max_length: int = 512
    blocks: int = 3
    lora: int = 0
    """Rank of an adapter on all linear layers; 0 trains all weights."""
    speed_goal: float | None = None
    memory_goal: float | None = None
    whole_goal: float | None = None
    """Of the wall time of the whole process."""

    @property
    def folder(self) -> Path:
        """Where the pairs are."""
        parts = [str(self.pairs), str(self.batch_size), str(self.max_length), *(str(value) for value in (self.source or {}).values())]
        return WORK / f"{self.model.name}-pairs-{'-'.join(parts)}"


def llama(vocabulary: int, tokenizer: str, layers: int = 6, width: int = 384) -> Model:
    """A randomly initialised Llama."""
    name = f"llama-{tokenizer}-{vocabulary}-{layers}x{width}"
    make = {"vocabulary": vocabulary, "tokenizer": tokenizer, "layers": layers, "width": width}
    return Model(name, WORK / name, make | ({"source": str(DIALOGUES)} if tokenizer == "bpe" else {}))


DIALOGUES = DATA / "hh_harmless.jsonl.gz"
LLAMA = llama(16_384, "bpe")
SMALL = Model("small-lm", SMALL_LM, {})
CHAT = Model("smollm2-135m", ROOT / "build" / "example" / "model", {})
"""SmolLM2-135M-Instruct as `make example` makes it; where it is missing, its rows are named and left out."""

ROWS = [
    Row("16 k vocabulary, float32", LLAMA, 64, speed_goal=10.0, memory_goal=0.3, whole_goal=8.0),
    Row("16 k vocabulary, float32, 20 steps on short dialogues", LLAMA, 160, max_length=128, blocks=1),
    Row("16 k vocabulary, bf16 autocast", LLAMA, 24, arithmetic="bfloat16", speed_goal=8.0),
    Row("16 k vocabulary, float32, TRL precomputes the reference", LLAMA, 24, precompute=True),
    Row("small-lm, float32", SMALL, 48),
    Row("small-lm, bf16 autocast", SMALL, 24, arithmetic="bfloat16", speed_goal=6.0),
    Row("small-lm, float32, TRL precomputes the reference", SMALL, 24, precompute=True),
    Row("reward model, 16 k vocabulary, float32", LLAMA, 64, task="reward", speed_goal=7.0, memory_goal=0.45),
    Row("reward model, small-lm, float32", SMALL, 48, task="reward"),
    *(
        Row(f"SmolLM2-135M, {words}{adapter}", CHAT, 16, arithmetic=arithmetic, lora=rank, blocks=1)
        for arithmetic, words in (("float32", "float32"), ("bfloat16", "bf16 autocast"))
        for rank, adapter in ((0, ""), (16, ", LoRA of rank 16"))
    ),
]
"""Short dialogues prove that the losses are equal for 20 steps at a price that leaves the time to others."""

PROMPTS = (64, 128, 256, 512, 1024)
VOCABULARIES = (8_192, 16_384, 32_768, 65_536, 131_072)
GROWTH_ANSWER, GROWTH_PAIRS, GROWTH_BATCH = 64, 8, 4


def growth_row(vocabulary: int, prompt: int, answer: int = GROWTH_ANSWER) -> Row:
    """A point of the growth curves: random words of exact lengths."""
    source = {"prompt": prompt, "answer": answer}
    model = llama(vocabulary, "words")
    return Row(f"vocabulary {vocabulary}, prompt {prompt}", model, GROWTH_PAIRS, source=source, batch_size=GROWTH_BATCH, max_length=prompt + answer)


def quick_rows() -> list[Row]:
    """A smoke run of every part in a minute."""
    tiny = llama(512, "words", layers=2, width=64)
    row = Row("tiny, float32", tiny, 8, source={"prompt": 20, "answer": 12}, batch_size=4, max_length=64, blocks=1)
    return [
        row,
        replace(row, name="tiny, bf16 autocast", arithmetic="bfloat16"),
        replace(row, name="tiny, TRL precomputes", precompute=True),
        replace(row, name="tiny, reward model", task="reward"),
    ]


def make_inputs(rows: Sequence[Row]) -> None:
    """Models and pairs of all rows, by inputs.py."""
    WORK.mkdir(exist_ok=True)
    specs = [
        {
            "model": str(row.model.folder),
            "folder": str(row.folder),
            "pairs": row.pairs,
            "batch_size": row.batch_size,
            "max_length": row.max_length,
            "seed": 0,
            **({"source": str(DIALOGUES)} if row.source is None else row.source),
            **row.model.make,
        }
        for row in rows
    ]
    subprocess.run([sys.executable, str(HERE / "inputs.py"), json.dumps(specs)], check=True)


def trl_python() -> Path:
    """The interpreter of TRL's own environment, made on first use."""
    python = TRL_HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"making {TRL_HOME.name} with TRL 1.16", file=sys.stderr)
        venv.create(TRL_HOME, with_pip=True)
        wanted = ["trl==1.16.0", "torch", "matplotlib"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-c", str(HERE / "constraints-trl.txt"), *wanted], check=True)
    return python


def run_side(side: str, python: Path, row: Row, *, measure_matmul: bool = False) -> Answer:
    """One run in a process of its own: its answer, with wall and CPU seconds of the process and its peak memory.

    `peak_bytes` is the kernel's figure for that process at the end of training, before ours measures the machine's matmul rate.
    """
    with tempfile.TemporaryDirectory() as work:
        spec = {
            "model": str(row.model.folder),
            "pairs": str(row.folder / "pairs.jsonl"),
            "order": json.loads((row.folder / "order.json").read_text()),
            "batch_size": row.batch_size,
            "learning_rate": 1e-4,
            "beta": 0.1,
            "max_length": row.max_length,
            "arithmetic": row.arithmetic,
            "task": row.task,
            "precompute": row.precompute,
            "lora": row.lora,
            "seed": 0,
            "work": work,
            "measure_matmul": measure_matmul,
        }
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
        fresh = {"HF_HOME": f"{work}/hf", "FINEGRAIN_CACHE": f"{work}/cache"}
        with open(f"{work}/out", "w+") as out, open(f"{work}/err", "w+") as err:
            load = os.getloadavg()[0]
            started = time.perf_counter()
            command = [str(python), str(HERE / f"side_{side}.py"), json.dumps(spec)]
            child = subprocess.Popen(command, stdout=out, stderr=err, env=os.environ | quiet | fresh)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            wall = time.perf_counter() - started
            out.seek(0), err.seek(0)
            if child.returncode:
                raise SystemExit(f"{side} failed on {row.name}:\n{err.read()[-4000:]}")
            answer: Answer = json.loads(out.read().splitlines()[-1])
    answer["load_average_before"] = round(load, 2)
    answer["wall_seconds"] = wall - answer.pop("after_seconds", 0.0)
    answer["cpu_seconds"] = usage.ru_utime + usage.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    answer["peak_bytes"] = answer.pop("peak_rss") * unit
    answer["peak_bytes_of_process"] = usage.ru_maxrss * unit
    tell(side, row, answer)
    return answer


def tell(side: str, row: Row, answer: Answer) -> None:
    """One line to the person who waits."""
    print(
        f"{row.name:56s} {side:10s} {answer['pairs'] / answer['train_seconds']:7.2f} pairs/s  peak {answer['peak_bytes'] / 2**30:5.2f} GiB  "
        f"train {answer['train_seconds']:6.1f} s (CPU {answer['train_cpu_seconds']:6.1f})  load {answer['load_seconds']:4.1f} s  "
        f"whole {answer['wall_seconds']:6.1f} s (CPU {answer['cpu_seconds']:6.1f})  load average {answer['load_average_before']}",
        file=sys.stderr,
        flush=True,
    )


def compare(row: Row, pythons: dict[str, Path]) -> dict[str, Any]:
    """All blocks of a row, alternating, and what they say."""
    runs: dict[str, list[Answer]] = {side: [] for side in pythons}
    for block in range(row.blocks):
        for side in list(pythons)[:: 1 if block % 2 == 0 else -1]:
            runs[side].append(run_side(side, pythons[side], row, measure_matmul=True))
    tokens = {answer["tokens_sha256"] for answers in runs.values() for answer in answers}
    if len(tokens) != 1:
        raise SystemExit(f"{row.name}: the sides trained on different tokens")
    best = {
        side: {
            "pairs_per_second": max(answer["pairs"] / answer["train_seconds"] for answer in answers),
            "pairs_per_cpu_second": max(answer["pairs"] / answer["train_cpu_seconds"] for answer in answers),
            "wall_seconds": min(answer["wall_seconds"] for answer in answers),
            "peak_bytes": max(answer["peak_bytes"] for answer in answers),
        }
        for side, answers in runs.items()
    }
    asked = {"name": row.name, "pairs": row.pairs, "batch_size": row.batch_size, "arithmetic": row.arithmetic}
    found: dict[str, Any] = {**asked, "best": best, "runs": runs}
    fastest = max(runs["finegrain"], key=lambda answer: answer["useful_flops_per_second"])
    if row.task == "prefer":
        found["utilisation"] = fastest["useful_flops_per_second"] / max(answer["matmul_flops_per_second"] for answer in runs["finegrain"])
    if "trl" in runs:
        ours, theirs = best["finegrain"], best["trl"]
        found["times_pairs_per_second"] = ours["pairs_per_second"] / theirs["pairs_per_second"]
        found["times_pairs_per_cpu_second"] = ours["pairs_per_cpu_second"] / theirs["pairs_per_cpu_second"]
        found["times_wall_seconds"] = theirs["wall_seconds"] / ours["wall_seconds"]
        found["times_peak_memory"] = ours["peak_bytes"] / theirs["peak_bytes"]
        pairs = zip(runs["finegrain"][0]["losses"], runs["trl"][0]["losses"], strict=True)
        found["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
        found["goals"] = {"times_pairs_per_second": row.speed_goal, "times_wall_seconds": row.whole_goal, "times_peak_memory": row.memory_goal}
    return found


def growth(pythons: dict[str, Path], vocabularies: Sequence[int], prompts: Sequence[int]) -> dict[str, Any]:
    """Seconds per pair and peak memory along vocabulary and prompt length, one run per point and side."""
    fixed_vocabulary, fixed_prompt = vocabularies[min(1, len(vocabularies) - 1)], prompts[min(1, len(prompts) - 1)]
    points = dict.fromkeys([(fixed_vocabulary, prompt) for prompt in prompts] + [(vocabulary, fixed_prompt) for vocabulary in vocabularies])
    rows = {point: growth_row(*point) for point in points}
    make_inputs(list(rows.values()))
    measured = {point: {side: run_side(side, python, row) for side, python in pythons.items()} for point, row in rows.items()}
    per_pair = lambda answer: (sum(answer["step_seconds"]) + answer["reference_seconds"]) / answer["pairs"]
    line = lambda point: {
        side: {"seconds_per_pair": per_pair(answer), "peak_bytes": answer["peak_bytes"]} for side, answer in measured[point].items()
    }
    return {
        "answer_tokens": GROWTH_ANSWER,
        "prompt_tokens": {"vocabulary": fixed_vocabulary, "points": {prompt: line((fixed_vocabulary, prompt)) for prompt in prompts}},
        "vocabulary": {"prompt_tokens": fixed_prompt, "points": {vocabulary: line((vocabulary, fixed_prompt)) for vocabulary in vocabularies}},
    }


def versions(python: Path) -> dict[str, str]:
    """Versions of the packages that matter, in an environment."""
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = json.loads(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout)
    return {name: found[name] for name in ("finegrain", "trl", "torch", "transformers", "accelerate") if name in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: tiny model, one block, nothing written to the results by default")
    parser.add_argument("--rows", action="store_true", help="the table only")
    parser.add_argument("--growth", action="store_true", help="the growth curves only")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--without-trl", action="store_true", help="our side only")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or (WORK / "quick" if arguments.quick else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    if not arguments.quick and not DIALOGUES.exists():
        raise SystemExit(f"the benchmark reads {os.path.relpath(DIALOGUES, ROOT)}, which is not here; --quick needs no data")
    pythons = {"finegrain": Path(sys.executable)} | ({} if arguments.without_trl else {"trl": trl_python()})
    file = out / "speed.json"
    machines: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    machine = {**describe_processor(), "cores": os.cpu_count()}
    result = next((known for known in machines if machine.items() <= known.items()), {})
    if not result:
        machines.append(result)
    result |= {**machine, "versions": {side: versions(python) for side, python in pythons.items()}, "date": time.strftime("%Y-%m-%d")}
    if os.getloadavg()[0] > 0.5 and not arguments.quick:
        print(f"load average {os.getloadavg()[0]:.1f}: the machine is not idle, times and ratios will be wrong", file=sys.stderr)
    started = time.perf_counter()
    if not arguments.growth:
        rows = [row for row in (quick_rows() if arguments.quick else ROWS) if arguments.only in row.name]
        for row in [row for row in rows if not row.model.make and not row.model.folder.exists()]:
            print(f"left out: {row.name}, for there is no model in {row.model.folder}", file=sys.stderr)
            rows.remove(row)
        make_inputs(rows)
        others = {row.name for row in ROWS} - {row.name for row in rows}
        result["rows"] = [done for done in result.get("rows", []) if done["name"] in others]
        for row in rows:
            result["rows"].append(compare(row, pythons))
            file.write_text(json.dumps(machines, indent=1) + "\n")  # what is measured survives an interrupt
    if not arguments.rows:
        points = ((512, 1024), (16, 32)) if arguments.quick else (VOCABULARIES, PROMPTS)
        result["growth"] = growth(pythons, *points)
    result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    file.write_text(json.dumps(machines, indent=1) + "\n")
    if not arguments.without_trl:
        subprocess.run([str(pythons["trl"]), str(HERE / "speed_report.py"), str(out)], check=True)


if __name__ == "__main__":
    main()
