"""What credit without a second model costs: CPU seconds of runs with credit over those of plain dpo, alternating, one thread.

    OMP_NUM_THREADS=1 python benchmarks/credit_cost.py --model MODEL --data PAIRS --work FOLDER [--rounds 3] [--limit 40]

Every run is a process of its own with an empty cache, one epoch over the same pairs, and counts its own user and system seconds, imports and the
report included. The last lines are a table: the mean ratio of the rounds to dpo of the same round, with its smallest and largest.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

CREDITS = {
    "dpo": (),
    "least-edit, tokens, top-k": ("credit:compose", "credit.signal:least-edit", "credit.segmenter:tokens", "credit.allocation:top-k"),
    "lexical, sentences, mask": (
        *("credit:compose", "credit.signal:lexical", "credit.segmenter:sentences", "credit.allocation:mask"),
        *("credit.allocation.baseline:batch-mean", "--credit.allocation.min-kept", "0"),
    ),
    "lexical, perplexity, top-k": ("credit:compose", "credit.signal:lexical", "credit.segmenter:perplexity", "credit.allocation:top-k"),
    "entropy, entropy cut-off, top-k": ("credit:compose", "credit.signal:entropy", "credit.segmenter:entropy-cutoff", "credit.allocation:top-k"),
}


def cpu_seconds(folder: Path, asked: argparse.Namespace, credit: tuple[str, ...]) -> float:
    """Of one run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    before = getrusage(RUSAGE_CHILDREN)
    command = [*(sys.executable, "-m", "finegrain", "prefer", "--model", asked.model, "--data", asked.data, "--out", str(folder / "run"))]
    settings = [*("--device", "cpu", "--batch-size", "8", "--max-length", "256", "--limit", str(asked.limit), "--samples", "0", "--holdout", "0")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FINEGRAIN_CACHE": str(folder / "cache"), "FINEGRAIN_PRODUCTS": "onednn"}
    done = subprocess.run([*command, *settings, *credit], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=40)
    asked = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CREDITS}
    for number in range(asked.rounds):
        for name, credit in CREDITS.items():
            seconds[name].append(cpu_seconds(asked.work / "cost", asked, credit))
            print(f"round {number + 1}: {name}: {seconds[name][-1]:.1f} CPU seconds", file=sys.stderr, flush=True)
    print("| credit | CPU seconds | over dpo | smallest | largest |\n| --- | --- | --- | --- | --- |")
    for name, own in seconds.items():
        ratios = [one / plain for one, plain in zip(own, seconds["dpo"], strict=True)]
        print(f"| {name} | {sum(own) / len(own):.1f} | {sum(ratios) / len(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |")


if __name__ == "__main__":
    main()
