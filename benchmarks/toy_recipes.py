"""What the benchmarks of recipes share: a start model of 16 words, pairs that are labelled wrongly where answers are close, and true rewards."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags, write
from online_toys import make_model
from places import RESULTS, ROOT
from toy_rewards import LETTERS, mean_value
from transformers import AutoModelForCausalLM, AutoTokenizer

from finegrain.data.planted import write_jsonl
from finegrain.generate.sample import open_sampler
from finegrain.generate.sampling import Sampling

TOKENS = 16
"""Of an answer."""


def run_script(description: str | None, name: str, measure: Callable[[Path, range, bool], Any], report: Callable[[Any], str], quick: str) -> None:
    """The main of a script: `measure(folder, seeds, whether it is the quick form)`, written as `name`; `quick`: what the quick form leaves out."""
    parser = flags(description, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help=f"{quick}; printed and not written")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / name)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    work = asked.work / "quick" if asked.quick else asked.work
    work.mkdir(parents=True, exist_ok=True)
    found = measure(work, range(1, 3) if asked.quick else range(1, 6), asked.quick)
    if asked.quick:
        print(report(found))
    else:
        write(asked.out, name, found, report(found))


def save_start(folder: Path, seed: int) -> Path:
    """The start model as a checkpoint, made once."""
    if not (folder / "config.json").exists():
        model, tokenizer = make_model(seed)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def draw_prompts(seed: int, count: int) -> list[str]:
    """Prompts of four words."""
    rng = np.random.default_rng([seed, 7])
    return [" ".join(rng.choice(list(LETTERS), 4)) for _ in range(count)]


def write_noisy_pairs(file: Path, seed: int, count: int, scale: float) -> Path:
    """Pairs of random answers; the better one is chosen with probability sigma(scale * difference of true rewards)."""
    rng = np.random.default_rng([seed, 8])
    rows = []
    for place, prompt in enumerate(draw_prompts(seed, count)):
        one, other = (" ".join(rng.choice(list(LETTERS), TOKENS)) for _ in range(2))
        gap = mean_value([one])[0] - mean_value([other])[0]
        first = rng.random() < 1 / (1 + np.exp(-scale * gap))
        chosen, rejected = (one, other) if first else (other, one)
        rows.append({"prompt": f"{prompt} ", "chosen": chosen, "rejected": rejected, "number": float(place)})
    write_jsonl(file, rows)
    return file


def sample_texts(folder: Path, prompts: Sequence[str], answers: int, seed: int = 0) -> list[str]:
    """Answers of a checkpoint at temperature 1."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.eval()
    sampler = open_sampler(model, tokenizer, Sampling(answers=answers, max_new_tokens=TOKENS), seed=seed)
    with torch.no_grad():
        drawn = sampler([np.array(tokenizer(prompt)["input_ids"]) for prompt in prompts], list(range(len(prompts))), 0)
    return [tokenizer.decode(one.ids) for own in drawn for one in own]


def true_reward(folder: Path, seed: int = 99) -> float:
    """Mean true reward of 512 answers to prompts that nothing trained on."""
    return float(np.mean(mean_value(sample_texts(folder, draw_prompts(seed, 32), 16))))
