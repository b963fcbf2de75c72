"""A process of its own that generates rows, loads, splits and plans them as a recipe does, and prints what that cost as JSON."""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from finegrain.data.holdout import split_holdout
from finegrain.data.load import Gate, Shape, Tokenise, load_examples
from finegrain.train.batches import Plan
from finegrain.train.collate import TrainingSet

WORDS = [f"{first}{second}" for first in "b d f g k l m n p r s t".split() for second in "a e i o u an er in or un".split()]
ROLES = ("chosen", "rejected")
TICK = 0.05


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word and its space."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def generate(file: Path, rows: int) -> None:
    """Short ragged pairs, line by line; numbers of the row make every prompt another."""
    rng = np.random.default_rng(0)
    with file.open("w") as stream:
        for row in range(rows):
            words = [WORDS[place] for place in rng.integers(0, len(WORDS), 24)]
            cut = int(rng.integers(2, 10))
            spelled = " ".join(WORDS[int(digit)] for digit in str(row))
            sides = {"chosen": " ".join(words[:cut]) + " good", "rejected": " ".join(words[cut : 2 * cut + 2]) + " bad"}
            stream.write(json.dumps({"prompt": f"{spelled} {words[-1]}", **sides}) + "\n")


def private_memory() -> int:
    """RssAnon, bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Peak:
    """The largest private memory seen, looked at twenty times a second."""

    def __init__(self) -> None:
        self.bytes, self._done = private_memory(), threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(TICK):
            self.bytes = max(self.bytes, private_memory())

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def main() -> None:
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    file = folder / f"{rows}.jsonl"
    generate(file, rows)
    tokenizer = word_tokenizer()
    before = private_memory()
    with Peak() as peak:
        started = time.perf_counter()
        data = load_examples(str(file), tokenizer, shape=Shape.PREFERENCE, settings=Tokenise(), gate=Gate())
        loaded = time.perf_counter()
        train, held, _ = split_holdout(data.examples, 0.05, 0)
        plan = Plan(TrainingSet(train).packed_tokens(ROLES), 64, 1.0, 0, 4096)
        visited = plan.visited()
        tokens = sum(int(plan.tokens[list(plan.step(index).rows)].sum()) for index in range(len(plan)))
        planned = time.perf_counter()
    file.unlink()
    files = data.examples.files
    stored = files.records.nbytes + files.index.nbytes + files.columns.nbytes
    print(
        json.dumps(
            {
                "rows": rows, "kept": len(data.examples), "train": len(train), "held": len(held), "visited": len(visited), "steps": len(plan),
                "tokens": tokens, "prompt_and_answer_tokens": data.report["prompt_tokens"] + data.report["answer_tokens"], "stored": stored,
                "before": before, "peak": peak.bytes, "load_seconds": loaded - started, "plan_seconds": planned - loaded,
                "rows_per_second": rows / (planned - started),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
