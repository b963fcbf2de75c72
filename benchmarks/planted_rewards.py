"""Which head finds the words that decide, where the truth is known: token scores of reward models trained from scratch on planted pairs.

    python benchmarks/planted_rewards.py --seeds 5

Every seed has its own qualities, pairs and random start (two layers, no pretraining). Pairs are labelled by a noisy sum of sentence qualities;
the score of a sentence is the mean over its tokens, and the AUROC is that of good against bad sentences in held-out answers. Writes
benchmarks/results/planted_rewards.{json,md}; about a minute per seed on one core.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags, write
from places import RESULTS
from reward_models import AS_PRINTED
from tables import shown

import finegrain
from finegrain.commands.settings import Common, Training
from finegrain.credit.r3hf import FirstZero, prefix_differences
from finegrain.data.load import load_examples
from finegrain.data.planted import Planted, World, make_pairs, write_jsonl
from finegrain.data.records import Shape
from finegrain.data.truncate import Tokenise
from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.evaluate.discrimination import auroc
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import load_reward_model
from finegrain.models.score import make_group
from finegrain.models.scorer import Request
from finegrain.ops.balance import LiteralWeights
from finegrain.ops.readout import Last, Mean, Sum
from finegrain.ops.stats import mean_interval
from finegrain.recipes.demo.base import save_untrained
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.heads import RewardHead, read_out
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.train.optim import Optim

PAIRS, HELD_OUT, EPOCHS, RATE = 2000, 200, 6.0, 3e-3
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Method:
    """One line of the table."""

    name: str
    head: RewardHead
    loss: Any


METHODS = (
    Method("last token (a sentence's score: its tokens')", Sequence(), BradleyTerry()),
    Method("last token, prefix differences", Sequence(), BradleyTerry()),
    Method("token, sum", Token(readout=Sum()), BradleyTerry()),
    Method("token, mean", Token(readout=Mean()), BradleyTerry()),
    Method("ensemble of 5, sum", Ensemble(readout=Sum()), BradleyTerry()),
    Method("AVA-p, literal weights", Gaussian(readout=Last()), AvaP(inference=AS_PRINTED, balance=LiteralWeights())),
    Method("AVA-p, ranking weight 10", Gaussian(readout=Last()), AvaP(inference=AS_PRINTED, balance=LiteralWeights(), cer=10.0)),
)


def measured(method: Method, run: Path, held_out: Path, world: World) -> dict[str, float]:
    """Pair accuracy, and how well token scores tell good from bad sentences."""
    reward = load_reward_model(run)
    scorer, _ = make_scorer(reward.policy.model, longest=128, head=reward.head)
    examples = load_examples(str(held_out), reward.policy.tokenizer, shape=Shape.PREFERENCE, settings=Tokenise()).examples
    answers: dict[str, list[float]] = {side: [] for side in SIDES}
    scores: list[float] = []
    good: list[bool] = []
    for example in examples:
        for side in SIDES:
            with torch.no_grad():
                outputs = scorer([make_group(example, (side,))], Request(False, outputs=reward.head)).outputs
            assert outputs is not None
            tokens, mask = method.head.tokens(outputs[None]), torch.ones(1, len(outputs), dtype=torch.bool)
            answers[side].append(float(read_out(method.head.readout, tokens, mask).mean))
            values = prefix_differences(tokens.mean, torch.zeros(1), mask, FirstZero()) if "prefix" in method.name else tokens.mean
            response = example.responses[side]
            for start, end, quality in world.read(example.prompt_text, response.text).spans:
                inside = (response.offsets[:, 0] < end) & (response.offsets[:, 1] > start)
                if quality:
                    scores.append(float(values[0][torch.from_numpy(inside)].mean()))
                    good.append(quality > 0)
    chosen, rejected = (np.array(answers[side]) for side in SIDES)
    return {"accuracy": pair_accuracy(chosen, rejected).accuracy.mean, "auroc": auroc(np.array(scores), np.array(good)).mean}


def seed_results(seed: int, folder: Path) -> list[dict[str, Any]]:
    """All methods on one world."""
    world = World(Planted(pairs=PAIRS, pool=0), seed)
    train = write_jsonl(folder / "train.jsonl", make_pairs(world, PAIRS, stream=0))
    held_out = write_jsonl(folder / "held-out.jsonl", make_pairs(world, HELD_OUT, stream=2, held_out=RESULTS))
    model = save_untrained(folder / "untrained", seed=seed)
    found = []
    for place, method in enumerate(METHODS):
        out = folder / f"run-{place}"
        common = Common(seed=seed, device="cpu", lr=RATE)
        training = Training(holdout=0.0, examined=0, epochs=EPOCHS, batch_size=32)
        finegrain.train_reward_model(
            model, train, out, head=method.head, loss=method.loss, common=common, training=training, optim=Optim(embedding_lr=RATE)
        )
        found.append({"method": method.name, "seed": seed, **measured(method, out, held_out, world)})
        print(json.dumps(found[-1]), flush=True)
    return found


def over_seeds(results: list[dict[str, Any]], method: str, measure: str) -> str:
    """Mean over seeds and half of the interval."""
    return shown(mean_interval([result[measure] for result in results if result["method"] == method]))


def main() -> None:
    seeds = flags(__doc__, seeds=5).parse_args().seeds
    results = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            results += seed_results(seed, Path(folder))
    lines = [f"| {m.name} | {over_seeds(results, m.name, 'accuracy')} | {over_seeds(results, m.name, 'auroc')} |" for m in METHODS]
    head = ["| head and loss | held-out pair accuracy | sentence AUROC |", "| --- | --- | --- |"]
    about = (
        f"Made by `benchmarks/planted_rewards.py`: {PAIRS} planted pairs, {EPOCHS:g} epochs at {RATE:g}, two layers from scratch, {HELD_OUT} "
        f"held-out pairs, {seeds} seeds; means ± half of a 95 % interval over seeds. The labels are noisy: no model can be right on every pair."
    )
    write(RESULTS, "planted_rewards", results, "\n".join(["# Which head finds the words that decide", "", about, "", *head, *lines, ""]))


if __name__ == "__main__":
    main()
