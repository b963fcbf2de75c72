"""secrets-rm in training: contrastive terms and MetaRM under flipped labels, where the truth is known.

    python benchmarks/secrets_rm.py --seeds 5

Every seed has its own planted qualities, pairs and random start (two layers, no pretraining); 20 % of the labels, which are noisy
already, are flipped. A policy that writes longer and better answers, of words no training pair has, stands for the shift: MetaRM
reads its samples without labels, and every model is judged on pairs of further samples. Writes benchmarks/results/secrets_rm.{json,md}.
"""

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags, write
from places import RESULTS
from tables import ranged

import finegrain
from finegrain.commands.settings import Common, Training
from finegrain.data.load import load_examples
from finegrain.data.planted import Planted, World, make_pairs, write_jsonl
from finegrain.data.records import Shape
from finegrain.data.truncate import Tokenise
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import load_reward_model
from finegrain.models.score import make_group, split_by_budget
from finegrain.models.scorer import Request
from finegrain.ops.stats import mean_interval
from finegrain.recipes.demo.base import save_untrained
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.contrast import SimCSE, Swav
from finegrain.rewards.meta_rm import Meta, MetaRM, NoMeta
from finegrain.rewards.secrets_rm import SecretsRM
from finegrain.rewards.sequence import Sequence
from finegrain.train.optim import Optim
from finegrain.types import Json

PAIRS, TEST, EPOCHS, RATE, FLIPPED = 600, 500, 4.0, 3e-3, 0.2
SENTENCES, TYPES = 4, 40
PROMPTS, SAMPLES = 200, 4
"""Prompts of the policy that MetaRM reads, and samples of each."""
LONGER = 6
"""Sentences of the policy's answers; training answers have 4."""
SIDES = ("chosen", "rejected")
TESTS = {"same": "training's kind of", "shifted": "the policy's"}


@dataclass(frozen=True)
class Method:
    """One line of the table."""

    name: str
    loss: Any
    eta: float | None = None
    """Of MetaRM; None: ordinary steps."""


METHODS = (
    Method("bradley-terry", BradleyTerry()),
    Method("secrets-rm", SecretsRM()),
    Method("secrets-rm, SimCSE", SecretsRM(contrast=SimCSE())),
    Method("secrets-rm, SwAV", SecretsRM(contrast=Swav())),
    Method("secrets-rm, SwAV, weight 0.1", SecretsRM(contrast=Swav(weight=0.1))),
    Method("bradley-terry, MetaRM eta 0.1", BradleyTerry(), eta=0.1),
    Method("bradley-terry, MetaRM eta 1", BradleyTerry(), eta=1.0),
)
BASE = METHODS[0].name


class Policy:
    """Answers of the policy that the reward model is to judge: longer, of other words, and more often of good sentences."""

    def __init__(self, world: World, stream: int) -> None:
        self.world, self.rng = world, np.random.default_rng([world.seed, 9, stream])
        weights = np.exp(world.qualities[:, 0])
        self.weights = weights / weights.sum()

    def prompt(self) -> str:
        return self.world.prompt(self.rng, self.world.held_out)

    def answer(self) -> str:
        verbs = self.rng.choice(self.world.held_out.verbs, LONGER)
        means = self.rng.choice(self.world.types, LONGER, p=self.weights)
        return "".join(f" {verb} it with {means}." for verb, means in zip(verbs, means, strict=True))


def in_true_order(world: World, rows: Several[Json]) -> list[Json]:
    """Pairs with the better answer as chosen; equally good ones are left out."""
    found = []
    for row in rows:
        first, second = (world.read(row["prompt"], row[side]).quality for side in SIDES)
        if first != second:
            chosen, rejected = SIDES if first > second else SIDES[::-1]
            found.append({"prompt": row["prompt"], "chosen": row[chosen], "rejected": row[rejected]})
    return found


def flipped(rows: Several[Json], seed: int) -> list[Json]:
    """The rows with a share of the labels turned round."""
    turn = np.random.default_rng([seed, 8]).random(len(rows)) < FLIPPED
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} if one else row for row, one in zip(rows, turn, strict=True)]
    return [{name: row[name] for name in ("prompt", *SIDES)} for row in turned]


def accuracy(run: Path, data: Path) -> float:
    """Share of the pairs that a trained model puts in order."""
    reward = load_reward_model(run)
    scorer, _ = make_scorer(reward.policy.model, longest=128, head=reward.head)
    groups = [
        make_group(one, SIDES) for one in load_examples(str(data), reward.policy.tokenizer, shape=Shape.PREFERENCE, settings=Tokenise()).examples
    ]
    right = 0
    with torch.no_grad():
        for part in split_by_budget([group.tokens for group in groups], 2048):
            outputs = scorer([groups[place] for place in part], Request(False, outputs=reward.head)).outputs
            assert outputs is not None
            ends = np.cumsum([int(branch.mask.sum()) for place in part for branch in groups[place].branches]) - 1
            scores = outputs[ends, 0].view(-1, 2)
            right += int((scores[:, 0] > scores[:, 1]).sum())
    return right / len(groups)


def seed_results(seed: int, folder: Path, methods: Several[Method]) -> list[dict[str, Any]]:
    """All methods on one world."""
    world = World(Planted(pairs=PAIRS, pool=0, sentences=SENTENCES, sentence_types=TYPES), seed)
    own = make_pairs(world, PAIRS, stream=0)
    noisy = write_jsonl(folder / "noisy.jsonl", flipped(own, seed))
    policy, later = Policy(world, 0), Policy(world, 1)
    rows = [{"prompt": policy.prompt(), "responses": [policy.answer() for _ in range(SAMPLES)]} for _ in range(PROMPTS)]
    samples = write_jsonl(folder / "samples.jsonl", rows)
    shifted = [{"prompt": later.prompt(), "chosen": later.answer(), "rejected": later.answer()} for _ in range(TEST)]
    tests = {"same": make_pairs(world, TEST, stream=3), "shifted": shifted}
    files = {name: write_jsonl(folder / f"{name}.jsonl", in_true_order(world, test)) for name, test in tests.items()}
    model = save_untrained(folder / "untrained", seed=seed)
    found = []
    for place, method in enumerate(methods):
        out = folder / f"run-{place}"
        meta: Meta = NoMeta() if method.eta is None else MetaRM(samples=str(samples), eta=method.eta)
        training = Training(holdout=0.0, examined=0, epochs=EPOCHS, batch_size=32, micro_tokens=8192)
        with contextlib.redirect_stderr(io.StringIO()):
            finegrain.train_reward_model(
                model,
                noisy,
                out,
                head=Sequence(),
                loss=method.loss,
                meta=meta,
                common=Common(seed=seed, device="cpu", lr=RATE),
                training=training,
                optim=Optim(embedding_lr=RATE),
            )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        seen = {
            name: float(np.mean([line[name] for line in lines])) for name in ("meta/discrimination", "meta/rise", "grad_norm") if name in lines[0]
        }
        seconds = sum(line["step_seconds"] for line in lines)
        found.append({"method": method.name, "seed": seed, **{name: accuracy(out, file) for name, file in files.items()}, **seen, "seconds": seconds})
        print(json.dumps(found[-1]), flush=True)
    return found


def shown(values: Several[float], *, sign: bool = False) -> str:
    """Mean over seeds and its 95 % interval."""
    return ranged(mean_interval(values), sign="+" if sign else "")


def table(results: Several[dict[str, Any]]) -> list[str]:
    """Accuracy, and its difference from plain Bradley-Terry on the same seed."""
    of = lambda method, name: [result[name] for result in results if result["method"] == method]
    less = lambda method, name: [a - b for a, b in zip(of(method, name), of(BASE, name), strict=True)]
    lines = ["| method | " + " | ".join(f"{words} pairs | minus {BASE}" for words in TESTS.values()) + " |", "| --- " * (2 * len(TESTS) + 1) + "|"]
    for method in METHODS:
        cells = [
            cell
            for name in TESTS
            for cell in (shown(of(method.name, name)), shown(less(method.name, name), sign=True) if method.name != BASE else "")
        ]
        lines.append(f"| {method.name} | " + " | ".join(cells) + " |")
    return lines


def page(results: Several[dict[str, Any]], seeds: int, seconds: float) -> str:
    """The table, and how it was made."""
    about = (
        f"Made by `benchmarks/secrets_rm.py`: {seeds} seeds, {seconds:.0f} s on a part of one core. {PAIRS} planted pairs of {SENTENCES} sentences, "
        f"{FLIPPED:.0%} of the noisy labels flipped, {EPOCHS:g} epochs at {RATE:g}, two layers from scratch, `head:sequence`. Accuracy: share of "
        f"about {TEST} fresh pairs put in their true order (equal ones left out), mean over seeds with its 95 % Student interval; differences are "
        f"paired by seed. The policy's pairs have {LONGER} sentences, better ones, of things and verbs no training pair has; MetaRM reads "
        f"{PROMPTS} prompts with {SAMPLES} of its samples each, unlabelled. secrets-rm without a term differs from bradley-terry by the floor of "
        "1e-5 alone: what differs there is chance."
    )
    rises = [
        f"- {m.name}: mean J {shown([r['meta/discrimination'] for r in results if r['method'] == m.name])}, "
        f"mean distance to theta' {shown([r['meta/rise'] for r in results if r['method'] == m.name])}"
        for m in METHODS
        if m.eta is not None
    ]
    norms = [f"- {m.name}: {shown([r['grad_norm'] for r in results if r['method'] == m.name])}" for m in METHODS]
    parts = ["# secrets-rm in training: contrastive terms and MetaRM", "", about, "", *table(results), "", "MetaRM's steps:", "", *rises]
    return "\n".join([*parts, "", "Mean norm of the gradient before it is clipped to 1:", "", *norms, ""])


def main() -> None:
    seeds = flags(__doc__, seeds=5).parse_args().seeds
    started = time.perf_counter()
    results = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            results += seed_results(seed, Path(folder), METHODS)
    write(RESULTS, "secrets_rm", results, page(results, seeds, time.perf_counter() - started))


if __name__ == "__main__":
    main()
