"""AVA-p's claim, tried where the truth is known: is it more accurate on held-out pairs than Bradley-Terry, and is its token map the better one?

    python benchmarks/ava_claim.py

Both get the same budget: 12 drawn settings (the first is the library's default) on one world, the best 3 on two more, chosen by accuracy
on validation pairs. The chosen ones then meet on 6 other worlds and on test pairs that chose nothing. Tokens, model and pairs are those of
`planted_rewards.py`.
Writes benchmarks/results/ava_claim.{json,md}; 60 runs, about 20 minutes on one core.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import finegrain
from finegrain.credit.r3hf import FirstZero, prefix_differences
from finegrain.data.load import load_examples
from finegrain.data.planted import Planted, World, pairs, write_jsonl
from finegrain.data.records import Shape
from finegrain.data.truncate import Tokenise
from finegrain.errors import FinegrainError
from finegrain.evaluate.accuracy import pair_accuracy
from finegrain.evaluate.discrimination import auroc
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import load_reward_model
from finegrain.models.score import group_of
from finegrain.models.scorer import Request
from finegrain.ops.action_values import FreshHead, LogProb, RawLogits, SoftmaxProb
from finegrain.ops.bayesian_irl import Inference
from finegrain.ops.contrast import Literal, LogSigmoid, Sigmoid, Unlikelihood
from finegrain.ops.readout import Last
from finegrain.ops.stats import mean_interval
from finegrain.recipes.planted_demo.base import save_untrained
from finegrain.recipes.settings import Common, Training
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.heads import RewardHead, read_out
from finegrain.rewards.sequence import Sequence as LastToken
from finegrain.rewards.token import Token
from finegrain.train.optim import Optim

RESULTS = Path(__file__).parent / "results"
PAIRS, VALIDATION, TEST = 2000, 500, 1000
DRAWS, KEPT = 12, 3
CHOOSING, COMPARING = (100, 101, 102), tuple(range(6))
SIDES = ("chosen", "rejected")

Setting = Mapping[str, Any]
SHARED = {"lr": (3e-3, 1e-3, 1e-2), "epochs": (6, 3)}
"""The first value of each is the default."""
SPACES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Bradley-Terry": {**SHARED, "label_smoothing": (0.0, 0.1), "batch_size": (32, 16)},
    "AVA-p": {
        **SHARED,
        "q": ("log-prob", "softmax-prob", "raw-logits", "fresh-head"),
        "negative": ("unlikelihood", "literal"),
        "ranking": ("log-sigmoid", "sigmoid"),
        "cer": (1.0, 3.0, 10.0, 30.0),
        "beta": (1.0, 0.1),
        "kl": (1.0, 0.1, 0.01),
        "td": (1.0, 0.1),
    },
}
FORMS = {"log-prob": LogProb(), "softmax-prob": SoftmaxProb(), "raw-logits": RawLogits(), "fresh-head": FreshHead()}
NEGATIVES = {"unlikelihood": Unlikelihood(), "literal": Literal()}
RANKINGS = {"log-sigmoid": LogSigmoid(), "sigmoid": Sigmoid()}


@dataclass(frozen=True)
class Fit:
    """What is trained."""

    head: RewardHead
    loss: Any


def fit_of(method: str, setting: Setting) -> Fit:
    """Head and loss of a method under a setting."""
    if method == "AVA-p":
        inference = Inference(beta=setting["beta"], kl=setting["kl"], td=setting["td"], action_value=FORMS[setting["q"]])
        loss = AvaP(inference=inference, negative=NEGATIVES[setting["negative"]], ranking=RANKINGS[setting["ranking"]], cer=setting["cer"])
        return Fit(Gaussian(), loss)
    return Fit(Token() if "token sum" in method else LastToken(), BradleyTerry(label_smoothing=setting["label_smoothing"]))


def drawn(method: str) -> list[Setting]:
    """The default and distinct random settings."""
    rng, space = np.random.default_rng(0), SPACES[method]
    found: list[Setting] = [{name: values[0] for name, values in space.items()}]
    while len(found) < DRAWS:
        one = {name: values[int(rng.integers(len(values)))] for name, values in space.items()}
        if one not in found:
            found.append(one)
    return found


class Workshop:
    """The worlds' files, and runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def world(self, seed: int) -> tuple[World, Path]:
        """A world and the folder of its pairs and its untrained model."""
        world, folder = World(Planted(pairs=PAIRS, pool=0), seed), self.folder / f"world-{seed}"
        if not folder.exists():
            folder.mkdir(parents=True)
            write_jsonl(folder / "train.jsonl", pairs(world, PAIRS, stream=0))
            write_jsonl(folder / "validation.jsonl", pairs(world, VALIDATION, stream=3, held_out=True))
            write_jsonl(folder / "test.jsonl", pairs(world, TEST, stream=2, held_out=True))
            save_untrained(folder / "untrained", seed=seed)
        return world, folder

    def run(self, method: str, setting: Setting, seed: int, part: str) -> dict[str, Any]:
        """One training run and its measures on `part`; accuracy 0 and the reason where it failed."""
        world, folder = self.world(seed)
        fit, self.count = fit_of(method, setting), self.count + 1
        out = self.folder / f"run-{self.count}"
        training = Training(holdout=0.0, examined=0, epochs=float(setting["epochs"]), batch_size=setting.get("batch_size", 32))
        found: dict[str, Any] = {"method": method, "setting": dict(setting), "seed": seed, "part": part}
        try:
            common = Common(seed=seed, device="cpu", lr=setting["lr"])
            same = Optim(embedding_lr=setting["lr"])
            finegrain.reward(
                folder / "untrained", folder / "train.jsonl", out, head=fit.head, loss=fit.loss, common=common, training=training, optim=same
            )
            found |= measured(fit.head, out, folder / f"{part}.jsonl", world)
        except FinegrainError as error:
            found |= {"accuracy": 0.0, "failed": str(error)}
        print(json.dumps(found), flush=True)
        return found


def measured(head: RewardHead, run: Path, file: Path, world: World) -> dict[str, float]:
    """Accuracy on the labels and on the true order, and how well token scores and prefix differences tell good from bad sentences."""
    reward = load_reward_model(run)
    scorer, _ = make_scorer(reward.policy.model, longest=128, head=reward.head)
    examples = load_examples(str(file), reward.policy.tokenizer, shape=Shape.PREFERENCE, settings=Tokenise()).examples
    answers: dict[str, list[float]] = {side: [] for side in SIDES}
    truth: dict[str, list[float]] = {side: [] for side in SIDES}
    maps: dict[str, list[float]] = {"auroc": [], "auroc_differences": []}
    good: list[bool] = []
    for example in examples:
        with torch.no_grad():
            both = scorer([group_of(example, SIDES)], Request(False, outputs=reward.head)).outputs
        assert both is not None
        for side, outputs in zip(SIDES, both.split([len(example.responses[side].ids) for side in SIDES]), strict=True):
            tokens, mask = head.tokens(outputs[None]), torch.ones(1, len(outputs), dtype=torch.bool)
            answers[side].append(float(read_out(head.readout, tokens, mask).mean))
            differences = prefix_differences(tokens.mean, torch.zeros(1), mask, FirstZero()) if isinstance(head.readout, Last) else tokens.mean
            scores = {"auroc": tokens.mean[0], "auroc_differences": differences[0]}
            response = example.responses[side]
            reading = world.read(example.prompt_text, response.text)
            truth[side].append(reading.quality)
            for start, end, quality in reading.spans:
                inside = torch.from_numpy((response.offsets[:, 0] < end) & (response.offsets[:, 1] > start))
                if quality:
                    good.append(quality > 0)
                    for name, values in scores.items():
                        maps[name].append(float(values[inside].mean()))
    chosen, rejected = (np.array(answers[side]) for side in SIDES)
    gap = np.array(truth["chosen"]) - np.array(truth["rejected"])
    apart = gap != 0
    return {
        "accuracy": pair_accuracy(chosen, rejected).accuracy.mean,
        "true_accuracy": float((np.sign(chosen - rejected) == np.sign(gap))[apart].mean()),
        "of_the_truth": float(np.where(apart, gap > 0, 0.5).mean()),
        **{name: auroc(np.array(values), np.array(good)).mean for name, values in maps.items()},
    }


def chosen_setting(workshop: Workshop, method: str, results: list[dict[str, Any]]) -> Setting:
    """The setting of the best mean validation accuracy among the best few of one world."""
    settings = drawn(method)
    first = [workshop.run(method, setting, CHOOSING[0], "validation") for setting in settings]
    kept = sorted(range(DRAWS), key=lambda place: -first[place]["accuracy"])[:KEPT]
    means = {}
    results += first
    for place in kept:
        more = [workshop.run(method, settings[place], seed, "validation") for seed in CHOOSING[1:]]
        results += more
        means[place] = float(np.mean([first[place]["accuracy"], *(one["accuracy"] for one in more)]))
    return settings[max(means, key=lambda place: means[place])]


def shown(values: Sequence[float]) -> str:
    """Mean over worlds and half of the interval."""
    interval = mean_interval(list(values))
    assert interval.high is not None
    return f"{interval.mean:.3f} ± {interval.high - interval.mean:.3f}"


LINES = ("Bradley-Terry", "Bradley-Terry, token sum", "AVA-p", "AVA-p, default")
MEASURES = ("accuracy", "true_accuracy", "auroc", "auroc_differences")


def report(chosen: Mapping[str, Setting], tried: list[dict[str, Any]], final: list[dict[str, Any]]) -> str:
    """The page."""

    def of(line: str, measure: str) -> list[float]:
        return [one[measure] for one in final if one["line"] == line]

    rows = [f"| {line} | " + " | ".join(shown(of(line, measure)) for measure in MEASURES) + " |" for line in LINES]
    against = []
    for line in LINES[1:]:
        gaps = [np.array(of(line, m)) - np.array(of(LINES[0], m)) for m in MEASURES]
        against.append(f"| {line} | " + " | ".join(shown(gap) for gap in gaps) + " |")
    failed = sum("failed" in one for one in tried)
    about = (
        f"Made by `benchmarks/ava_claim.py`: {PAIRS} planted pairs per world, two layers from scratch; {DRAWS} settings per method on one "
        f"world, the best {KEPT} on two more, chosen by {VALIDATION} validation pairs; then {len(COMPARING)} other worlds, {TEST} test pairs "
        f"each. Means ± half of a 95 % interval over worlds. The labels are noisy: the true order itself agrees with "
        f"{shown(of(LINES[0], 'of_the_truth'))} of them, ties half. True order: pairs whose true qualities differ. AUROC: good against bad "
        f"sentences by the mean of their tokens' scores, and by the mean of prefix differences of those scores; of a token sum the two are "
        f"one. {failed} of {len(tried)} tuning runs failed. Token sum: Bradley-Terry's setting, not tuned for it. The draws cover AVA-p's "
        f"{len(SPACES['AVA-p'])} choices more thinly than Bradley-Terry's {len(SPACES['Bradley-Terry'])}."
    )
    head = "| model | label accuracy | true-order accuracy | AUROC, token scores | AUROC, prefix differences |\n| --- | --- | --- | --- | --- |"
    settings = [f"- {method}: " + ", ".join(f"{name} {value}" for name, value in setting.items()) for method, setting in chosen.items()]
    parts = ["# AVA-p's claim against a tuned Bradley-Terry", "", about, "", head, *rows]
    parts += ["", "## Minus Bradley-Terry, world by world", "", head, *against]
    parts += ["", "## Chosen settings", "", *settings, "", "## Validation accuracy of the settings tried", "", *spread(tried), ""]
    return "\n".join(parts)


def spread(tried: list[dict[str, Any]]) -> list[str]:
    """By method and by single choice, the mean validation accuracy on the first world: how much each choice matters, confounded with the others."""
    lines = ["One world, the drawn settings; means over few settings each, with the others varying too: no intervals.", ""]
    lines += ["| method | choice | settings | mean accuracy | best |", "| --- | --- | --- | --- | --- |"]
    for method, space in SPACES.items():
        rows = [one for one in tried if one["method"] == method and one["seed"] == CHOOSING[0]]
        lines.append(f"| {method} | all | {len(rows)} | {np.mean([r['accuracy'] for r in rows]):.3f} | {max(r['accuracy'] for r in rows):.3f} |")
        for name, values in space.items():
            for value in values:
                own = [one["accuracy"] for one in rows if one["setting"][name] == value]
                if own:
                    lines.append(f"| {method} | {name} {value} | {len(own)} | {np.mean(own):.3f} | {max(own):.3f} |")
    return lines


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        workshop, tried, final = Workshop(Path(folder)), [], []
        chosen = {method: chosen_setting(workshop, method, tried) for method in SPACES}
        lines = dict(zip(LINES, (chosen["Bradley-Terry"],) * 2 + (chosen["AVA-p"], drawn("AVA-p")[0]), strict=True))
        for seed in COMPARING:
            for line, setting in lines.items():
                final.append({**workshop.run(line.removesuffix(", default"), setting, seed, "test"), "line": line})
    (RESULTS / "ava_claim.json").write_text(json.dumps({"tuning": tried, "test": final}, indent=1) + "\n")
    (RESULTS / "ava_claim.md").write_text(report(chosen, tried, final))


if __name__ == "__main__":
    main()
