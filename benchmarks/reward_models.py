"""Reward models side by side on real pairs: held-out accuracy of heads and losses at equal budget; do token scores find people's error spans?

    python benchmarks/reward_models.py --data hh_harmless gsm8k_model_solutions qa_feedback --seeds 3

Reads ../shared/data and ../shared/models/small-lm; writes benchmarks/results/reward_models.{json,md}. The same
rows are held out for every method and seed; a seed changes the order of the rows and the head's start.
"""

import gzip
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from command import flags
from held_out import accuracy_of, length_accuracy, outputs_of, plain_rows
from places import DATA as DATA_FOLDER
from places import RESULTS, SMALL_LM
from tables import shown

import finegrain
from finegrain.commands.curate import CurateSettings
from finegrain.commands.settings import Common, Training
from finegrain.credit.reward_signals import Attention, Head, PrefixDifference
from finegrain.curate.repairs import FlipMargin, Repair, SoftMargin
from finegrain.curate.secrets_rm import SecretsRM as CurateSecretsRM
from finegrain.data.load import load_examples
from finegrain.data.planted import write_jsonl
from finegrain.data.records import Example, Shape
from finegrain.data.truncate import Tokenise
from finegrain.evaluate.discrimination import auroc
from finegrain.models.reward_models import load_reward_model
from finegrain.ops.balance import LiteralWeights
from finegrain.ops.bayesian_irl import Inference, UnitScale
from finegrain.ops.readout import Last, Mean, Sum
from finegrain.ops.stats import mean_interval
from finegrain.recipes.curate import run_curate
from finegrain.rewards.ava_d import AvaD
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.contrast import SimCSE
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.secrets_rm import SecretsRM
from finegrain.rewards.sequence import Sequence as SequenceHead
from finegrain.rewards.token import Token
from finegrain.train.optim import Optim

PLAIN = 1e-5 * 4096 / 384
"""The default rate at this model's width, for the embeddings too: what all rows are compared at."""


@dataclass(frozen=True)
class Method:
    """One line of the table."""

    name: str
    head: RewardHead
    loss: Any = field(default_factory=BradleyTerry)
    embedding_lr: float | None = PLAIN
    """None: the default of reward models, ten times the rest's."""
    repair: Repair | None = None
    """Columns that `finegrain curate` writes first, from votes of models linear in the start model's features."""


AS_PRINTED = Inference(scale=UnitScale())
"""These runs are older than AVA-p's balance (docs/decisions/0015); `ava_claim.py` has it."""

METHODS = (
    Method("Bradley-Terry, last token", SequenceHead()),
    Method("token scores, sum", Token(readout=Sum())),
    Method("token scores, mean", Token(readout=Mean())),
    Method("ensemble of 5", Ensemble()),
    Method("secrets-rm, SimCSE", SequenceHead(), SecretsRM(contrast=SimCSE())),
    Method("secrets-rm, flip and margin", SequenceHead(), repair=FlipMargin()),
    Method("secrets-rm, soft labels and margin", SequenceHead(), repair=SoftMargin()),
    Method("AVA-p, literal weights", Gaussian(), AvaP(inference=AS_PRINTED, balance=LiteralWeights())),
    Method("AVA-d (chosen only)", Gaussian(), AvaD(inference=AS_PRINTED)),
    Method("Bradley-Terry, last token; embeddings at ten times the rate", SequenceHead(), embedding_lr=None),
    Method("token scores, sum; embeddings at ten times the rate", Token(), embedding_lr=None),
    Method("token scores, mean; embeddings at ten times the rate", Token(readout=Mean()), embedding_lr=None),
)

SIGNALS = (("own", Head()), ("prefix differences", PrefixDifference()), ("attention", Attention()))
"""What stands on a token: the head's own output, and for heads that read the last token what can be made of it."""


@dataclass(frozen=True)
class Data:
    """Rows to train on and rows to test on, and how long they may be."""

    train: int
    held_out: int
    max_length: int


DATA: Mapping[str, Data] = {
    "hh_harmless": Data(700, 400, 256),
    "gsm8k_model_solutions": Data(100, 80, 320),
    "qa_feedback": Data(30, 30, 384),
}


def split(name: str, folder: Path) -> tuple[Path, Path]:
    """Files of the first rows and of the last rows."""
    with gzip.open(DATA_FOLDER / f"{name}.jsonl.gz", "rt") as stream:
        rows = stream.read().splitlines()
    size = DATA[name]
    parts = {"train": rows[: size.train], "held-out": rows[-size.held_out :]}
    for part, lines in parts.items():
        (folder / f"{name}-{part}.jsonl").write_text("\n".join(lines) + "\n")
    return folder / f"{name}-train.jsonl", folder / f"{name}-held-out.jsonl"


def errors_found(run: Path, head: RewardHead, examples: Sequence[Example], max_length: int) -> dict[str, Any]:
    """AUROC of low token scores against people's error spans, by signal; {} where nobody marked any. Each answer counts once."""
    marked = {(e.prompt_text, e.responses[role].text): spans for e in examples for role, spans in e.spans.items() if spans is not None}
    if not marked:
        return {}
    data = write_jsonl(run / "marked.jsonl", ({"prompt": prompt, "completion": answer} for prompt, answer in marked))
    found = {}
    for name, signal in SIGNALS if isinstance(head.readout, Last) else SIGNALS[:1]:
        out = run / f"scores-{name.replace(' ', '-')}.jsonl"
        finegrain.score(data, out, model=run, signal=signal, max_length=max_length, device="cpu")
        scores, wrong = [], []
        for line in map(json.loads, out.read_text().splitlines()):
            for start, end, mean, _ in line["tokens"]:
                if end > start:
                    scores.append(-mean)
                    wrong.append(any(start < b and a < end for a, b, _ in marked[line["prompt"], line["response"]]))
        found[name] = auroc(np.array(scores), np.array(wrong)).as_json() | {"answers": len(marked)}
    return {"error_auroc": found}


def run(name: str, method: Method, seed: int, folder: Path, model: Path, steps: int | None) -> dict[str, Any]:
    """One model trained and judged."""
    train, held_out = split(name, folder)
    out = folder / f"{name}-{method.name}-{seed}".replace(" ", "_")
    started = time.perf_counter()
    if method.repair is not None:
        single = write_jsonl(out.with_suffix(".pairs.jsonl"), plain_rows(train, model, DATA[name].max_length))
        voted = out.with_suffix(".jsonl")
        votes = CurateSecretsRM(repair=method.repair)
        run_curate(
            CurateSettings(model=str(model), data=str(single), out=voted, method=votes, max_length=DATA[name].max_length, seed=seed, device="cpu")
        )
        train = voted
    finegrain.train_reward_model(
        model,
        train,
        out,
        head=method.head,
        loss=method.loss,
        common=Common(seed=seed, max_length=DATA[name].max_length, device="cpu", max_steps=steps),
        training=Training(holdout=0.0, examined=0),
        optim=Optim(embedding_lr=method.embedding_lr),
    )
    record = json.loads((out / "run.json").read_text())
    reward = load_reward_model(out)
    settings = Tokenise(max_length=DATA[name].max_length)
    examples = list(load_examples(str(held_out), reward.policy.tokenizer, shape=Shape.PREFERENCE, settings=settings).examples)
    outputs = outputs_of(reward, examples, longest=1024)
    return {
        "data": name,
        "method": method.name,
        "seed": seed,
        "accuracy": accuracy_of(method.head, method.head.readout, outputs, examples).accuracy.as_json(),
        **errors_found(out, method.head, examples, DATA[name].max_length),
        "length_only": length_accuracy(examples).accuracy.as_json(),
        "pairs": record.get("pairs", record.get("rows")),
        "held_out_pairs": len(examples),
        "train_seconds": record["train_seconds"],
        "seconds": round(time.perf_counter() - started, 1),
        "first_loss": json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["loss"],
        "last_loss": record["last"]["loss"],
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds with Student intervals over seeds; the single models' own intervals stand in the json."""
    lines = []
    for name in dict.fromkeys(result["data"] for result in results):
        own = [result for result in results if result["data"] == name]
        first = own[0]
        floor = first["length_only"]
        lines += [
            f"## {name}",
            "",
            f"{first['pairs']} pairs to train, {first['held_out_pairs']} held out. The longer answer wins in {floor['mean']:.3f} "
            f"({floor['low']:.3f} to {floor['high']:.3f}) of the held-out pairs.",
            "",
            "| method | held-out accuracy, mean ± half of a 95 % interval over seeds | seconds |",
            "| --- | --- | --- |",
        ]
        for method in dict.fromkeys(result["method"] for result in own):
            rows = [result for result in own if result["method"] == method]
            seconds = np.median([row["train_seconds"] for row in rows])
            lines.append(f"| {method} | {over_seeds([row['accuracy'] for row in rows])} | {seconds:.0f} |")
        lines += ["", *signals(own)]
    return "\n".join(lines)


def signals(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of error tokens found; nothing for data without spans."""
    found = [result for result in results if "error_auroc" in result]
    if not found:
        return []
    answers = found[0]["error_auroc"]["own"]["answers"]
    lines = [
        f"Low token scores against people's error spans in {answers} held-out answers, AUROC (0.5 is chance):",
        "",
        "| method | signal | AUROC, mean ± half of a 95 % interval over seeds |",
        "| --- | --- | --- |",
    ]
    for method in dict.fromkeys(result["method"] for result in found):
        rows = [result["error_auroc"] for result in found if result["method"] == method]
        lines += [f"| {method} | {name} | {over_seeds([row[name] for row in rows])} |" for name in rows[0]]
    return [*lines, ""]


def over_seeds(measures: Sequence[Mapping[str, float]]) -> str:
    """Mean and half of the Student interval over seeds."""
    return shown(mean_interval([measure["mean"] for measure in measures]))


def main() -> None:
    parser = flags(__doc__, seeds=3)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--methods", nargs="+", help="parts of the names; default: all")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--model", type=Path, default=SMALL_LM)
    options = parser.parse_args()
    file = RESULTS / "reward_models.json"
    results = json.loads(file.read_text()) if file.exists() else []
    done = {(result["data"], result["method"], result["seed"]) for result in results}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for name in options.data:
                for method in METHODS:
                    wanted = options.methods is None or any(part in method.name for part in options.methods)
                    if wanted and (name, method.name, seed) not in done:
                        results.append(run(name, method, seed, Path(folder), options.model, options.max_steps))
                        file.write_text(json.dumps(results, indent=1) + "\n")
                        print(json.dumps(results[-1]), flush=True)
    (RESULTS / "reward_models.md").write_text(f"# Reward models on real pairs\n\nMade by `benchmarks/reward_models.py`.\n\n{table(results)}")


if __name__ == "__main__":
    main()
