"""Sampling on finegrain's engine against Hugging Face's `generate`, on the same prompts: tokens per CPU second.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py [--model FOLDER] [--blocks 3] [--answers 8] [--tokens 64]

Both sides sample `--answers` answers of exactly `--tokens` tokens to each of `--prompts` prompts (end tokens are taken out, so that both do the same
work), in float32, in one process, with one thread. A block is one call of each side; which side is first alternates; a row gives medians over the
blocks, and the median of the ratios of each block. Our side records log-probabilities, the other one does not. Prompts of a row have one length, so
that the other side pads nothing, but for one row of whole questions. Further rows: answers that end at end tokens, and the cost of our side with more
answers to each prompt. Writes benchmarks/results/sampling.{json,md}.
"""

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from places import DATA, RESULTS, SMALL_LM, describe_processor
from transformers import AutoModelForCausalLM, AutoTokenizer

from finegrain.generate.sample import open_sampler
from finegrain.generate.sampling import Sampler, Sampling
from finegrain.models.probe import make_scorer

PROMPT_LENGTHS = (16, 62, 256)
MORE_ANSWERS = (1, 8, 32)


def read_prompts(tokenizer: Any, count: int, length: int | None) -> list[np.ndarray]:
    """Token ids of questions: of exactly this length, running on into the next question; None: whole ones."""
    with gzip.open(DATA / "gsm8k_train.jsonl.gz", "rt") as lines:
        texts = [f"Question: {json.loads(line)['question']}\nAnswer:" for line, _ in zip(lines, range(16 * count), strict=False)]
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    if length is not None:
        ids = [token for row in rows for token in row]
        rows = [ids[place * (length - 1) : (place + 1) * (length - 1)] for place in range(count)]
    return [np.array([tokenizer.bos_token_id, *row], dtype=np.int32) for row in rows[:count]]


def stock_side(model: Any, prompts: list[np.ndarray], answers: int, tokens: int, end: int | None) -> Callable[[int], int]:
    """Hugging Face's generation, with padding on the left."""
    widest = max(map(len, prompts))
    ids = torch.tensor([[0] * (widest - len(prompt)) + prompt.tolist() for prompt in prompts])
    seen = torch.tensor([[0] * (widest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": tokens, "pad_token_id": 0, "eos_token_id": end}

    def run(block: int) -> int:
        torch.manual_seed(block)
        with torch.inference_mode():
            found = model.generate(input_ids=ids, attention_mask=seen, num_return_sequences=answers, **settings)
        new = found[:, ids.shape[1] :].numpy()
        lengths = [np.flatnonzero(row == end)[0] + 1 if end is not None and (row == end).any() else len(row) for row in new]
        return int(sum(lengths))

    return run


def own_side(sampler: Sampler, prompts: list[np.ndarray]) -> Callable[[int], int]:
    """Ours."""

    def run(block: int) -> int:
        return sum(len(one.ids) for own in sampler(prompts, range(len(prompts)), block) for one in own)

    return run


def measure(side: Callable[[int], int], block: int) -> float:
    """Tokens per CPU second."""
    started = time.process_time()
    tokens = side(block)
    return tokens / (time.process_time() - started)


def compare(own: Callable[[int], int], stock: Callable[[int], int], blocks: int) -> dict[str, float]:
    """Medians of both and of their ratios."""
    rates: dict[str, list[float]] = {"own": [], "stock": []}
    sides = {"own": own, "stock": stock}
    for block in range(blocks):
        for name in sorted(sides, reverse=bool(block % 2)):
            rates[name].append(measure(sides[name], block))
    ratios = [one / other for one, other in zip(rates["own"], rates["stock"], strict=True)]
    return {
        "own": statistics.median(rates["own"]),
        "stock": statistics.median(rates["stock"]),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def show(found: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "# Sampling",
        "",
        f"{found['prompts']} prompts, {found['tokens']} new tokens per answer, float32, {found['threads']} thread(s), {found['blocks']} paired "
        f"blocks; {found['machine']['processor']}. Tokens per CPU second, medians; ratio: median (least, most) of the blocks. Made by "
        "`benchmarks/sampling.py`.",
        "",
        "| prompt tokens | answers | ends | finegrain | Hugging Face generate | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        ratio = f"{row['ratio']:.2f} ({row['least']:.2f}, {row['most']:.2f})"
        ends = "end tokens" if row["ends"] else "all alike"
        lines.append(f"| {row['prompt']} | {row['answers']} | {ends} | {row['own']:.0f} | {row['stock']:.0f} | {ratio} |")
    lines += ["", "The engine alone, by answers per prompt of 256 tokens:", "", "| answers | tokens per CPU second |", "| --- | --- |"]
    lines += [f"| {row['answers']} | {row['own']:.0f} |" for row in found["alone"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SMALL_LM)
    parser.add_argument("--out", type=Path, default=RESULTS)
    for name, default in (("blocks", 3), ("answers", 8), ("tokens", 64), ("prompts", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    stock, own = (AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32).eval() for _ in range(2))
    end = int(tokenizer.eos_token_id)
    make_scorer(own, longest=512)

    def ours(answers: int, ends: bool) -> Sampler:
        own.generation_config.eos_token_id = end if ends else None
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end) if ends else None
        return open_sampler(own, tokenizer, Sampling(answers=answers, max_new_tokens=asked.tokens), seed=0)

    rows = []
    for length, ends in [*((length, False) for length in PROMPT_LENGTHS), (None, False), (None, True)]:
        prompts = read_prompts(tokenizer, asked.prompts, length)
        stock.generation_config.eos_token_id = end if ends else None
        sides = own_side(ours(asked.answers, ends), prompts), stock_side(stock, prompts, asked.answers, asked.tokens, end if ends else None)
        rows.append(
            {
                "prompt": length or "whole questions",
                "answers": asked.answers,
                "ends": ends,
                "lengths": list(map(len, prompts)),
                **compare(*sides, asked.blocks),
            }
        )
        print(rows[-1], flush=True)
    alone = []
    prompts = read_prompts(tokenizer, asked.prompts, 256)
    for answers in MORE_ANSWERS:
        side = own_side(ours(answers, False), prompts)
        alone.append({"answers": answers, "own": statistics.median([measure(side, block) for block in range(3)])})
        print(alone[-1], flush=True)
    found = {
        "machine": describe_processor(),
        "threads": torch.get_num_threads(),
        **{name: getattr(asked, name) for name in ("blocks", "tokens", "prompts")},
        "rows": rows,
        "alone": alone,
    }
    (asked.out / "sampling.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.out / "sampling.md").write_text(show(found))


if __name__ == "__main__":
    main()
