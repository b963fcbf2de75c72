"""AVA-p against Bradley-Terry on real pairs: few pairs, all pairs, wrong labels; and AVA-d on demonstrations against the base's own samples.

    python benchmarks/ava_claim.py --seconds 3600

Reads ../shared/data and ../shared/models/small-lm. Every cell (data, method, number of pairs, epochs, share of flipped labels, seed) is one run at
equal rates and is written to benchmarks/results/ava_claim.json at once; a later call goes on with the cells that are missing, the most telling first.
The same rows are held out for all; a seed draws the training pairs, their flips, their order and the head's start, the same for every method.
Writes benchmarks/results/ava_claim.md from whatever is there.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
import transformers
from command import flags
from held_out import accuracy_of, length_accuracy, outputs_of, plain_rows
from places import DATA as DATA_FOLDER
from places import RESULTS, ROOT, SMALL_LM

import finegrain
from finegrain.commands.settings import Common, Training
from finegrain.data.load import load_examples
from finegrain.data.planted import write_jsonl
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from finegrain.errors import FinegrainError
from finegrain.generate.hf import sample_answers
from finegrain.models.reward_models import load_reward_model
from finegrain.ops.balance import LiteralWeights
from finegrain.ops.bayesian_irl import Inference, UnitScale
from finegrain.ops.contrast import WithoutNegative
from finegrain.ops.readout import Last, Mean, Sum
from finegrain.ops.stats import mean_interval
from finegrain.rewards.ava_d import AvaD
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.sequence import Sequence as LastToken
from finegrain.train.optim import Optim

PLAIN = 1e-5 * 4096 / 384
"""The default rate at the small model's width, for the embeddings too, in every run."""
ALL = 0
"""As a number of pairs: whatever is not held out."""
REST = ((100, 4), (ALL, 1), (300, 4))


@dataclass(frozen=True)
class Method:
    """What is trained."""

    head: RewardHead
    loss: Any


BASE = "Bradley-Terry"
METHODS: Mapping[str, Method] = {
    BASE: Method(LastToken(), BradleyTerry()),
    "Bradley-Terry and the chosen answer's likelihood": Method(Gaussian(), AvaP(inference=Inference(kl=0.0, td=0.0), negative=WithoutNegative())),
    "ava-p": Method(Gaussian(), AvaP()),
    "ava-p, bound out of the backbone": Method(Gaussian(), AvaP(bound_in_head_only=True)),
    "ava-p, literal weights and scale": Method(Gaussian(), AvaP(inference=Inference(scale=UnitScale()), balance=LiteralWeights())),
}
BOTH = (BASE, "ava-p")
LITERAL = ("ava-p, literal weights and scale",)
OTHERS = tuple(name for name in METHODS if name not in BOTH + LITERAL)


@dataclass(frozen=True)
class Data:
    """How many pairs are held out, and how long prompt and answer may be together."""

    held_out: int
    max_length: int


DATA: Mapping[str, Data] = {"hh_harmless": Data(300, 128), "gsm8k_model_solutions": Data(200, 192), "haluquestqa": Data(200, 128)}
DEMONSTRATIONS: Mapping[str, Data] = {"hh_harmless": Data(200, 128), "gsm8k_train": Data(200, 192)}
"""Data whose chosen answers, or answers, are to be told from the base's own samples."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    data: str
    method: str
    pairs: int
    epochs: int = 1
    flipped: float = 0.0
    seed: int = 0


def cells(seeds: int) -> Iterator[Cell]:
    """All runs, the most telling first: the two methods at 300 and at 100 pairs, then three seeds of everything before the other seeds."""
    first: list[Callable[[int], Iterator[Cell]]] = [
        lambda seed: (Cell(data, method, 300, seed=seed) for data in DATA for method in BOTH),
        lambda seed: (Cell(data, method, 100, seed=seed) for data in DATA for method in BOTH),
        lambda seed: (Cell("hh_harmless", method, 300, flipped=0.4, seed=seed) for method in BOTH),
    ]
    blocks: list[Callable[[int], Iterator[Cell]]] = [
        lambda seed: (Cell(data, method, 300, seed=seed) for data in DATA for method in OTHERS),
        lambda seed: (Cell(data, method, 300, seed=seed) for data in ("hh_harmless", "gsm8k_model_solutions") for method in LITERAL),
        lambda seed: (Cell(data, method, 300, flipped=share, seed=seed) for data in DATA for share in (0.4, 0.2) for method in BOTH),
        lambda seed: (Cell(data, method, 100, epochs=4, seed=seed) for data in DATA for method in BOTH),
        lambda seed: (Cell(data, method, ALL, seed=seed) for data in DATA for method in BOTH),
        lambda seed: (Cell(data, method, 300, epochs=4, seed=seed) for data in DATA for method in BOTH),
        lambda seed: (Cell(data, method, 100, seed=seed) for data in DATA for method in OTHERS),
        lambda seed: (Cell(data, method, 300, flipped=share, seed=seed) for data in DATA for share in (0.4, 0.2) for method in OTHERS),
        lambda seed: (Cell(data, method, pairs, epochs, seed=seed) for data in DATA for pairs, epochs in REST for method in OTHERS),
    ]
    for block in first:
        for seed in range(seeds):
            yield from block(seed)
    for some in (range(min(seeds, 3)), range(3, seeds)):
        for block in blocks:
            for seed in some:
                yield from block(seed)


@cache
def pairs_of(data: str, folder: Path, model: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Pairs to train on and held-out pairs, which share no prompt; the order of the file, the last ones held out."""
    rows = plain_rows(folder / f"{data}.jsonl.gz", model, max_length=1024)
    count = DATA[data].held_out
    held_out = rows[-count:]
    asked = {row["prompt"] for row in held_out}
    return [row for row in rows[:-count] if row["prompt"] not in asked], held_out


def drawn(cell: Cell, rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The cell's training pairs, some of them flipped: the same for every method, and of fewer pairs the first ones of more."""
    rng = np.random.default_rng([cell.seed, 0])
    kept = [rows[place] for place in rng.permutation(len(rows))[: cell.pairs or len(rows)]]
    turned = np.random.default_rng([cell.seed, 1]).permutation(len(kept))[: round(cell.flipped * len(kept))]
    for place in turned:
        kept[place] = {"prompt": kept[place]["prompt"], "chosen": kept[place]["rejected"], "rejected": kept[place]["chosen"]}
    return kept


def run(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one cell; accuracy None and the reason where it failed."""
    train, held_out = pairs_of(cell.data, options.data, options.model)
    method, started = METHODS[cell.method], time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = drawn(cell, train)
        data, evaluation = write_jsonl(folder / "train.jsonl", rows), write_jsonl(folder / "held-out.jsonl", held_out)
        common = Common(seed=cell.seed, max_length=DATA[cell.data].max_length, device="cpu", dtype=options.dtype, eval=str(evaluation))
        training = Training(epochs=float(cell.epochs), examined=0, samples=0)
        try:
            finegrain.train_reward_model(
                options.model,
                data,
                folder / "run",
                head=method.head,
                loss=method.loss,
                common=common,
                training=training,
                optim=Optim(embedding_lr=PLAIN),
            )
        except FinegrainError as error:
            return {**asdict(cell), "dtype": options.dtype, "accuracy": None, "failed": str(error)}
        record = json.loads((folder / "run" / "run.json").read_text())
    found = record["evaluation"]
    return {
        **asdict(cell),
        "dtype": options.dtype,
        "accuracy": found["eval_accuracy"]["mean"],
        "length_only": found["eval_accuracy_length_only"]["mean"],
        "nll": found["eval_nll"]["mean"],
        "td_square": found.get("eval_td_square", {}).get("mean"),
        "trained_pairs": len(rows),
        "held_out": found["eval_accuracy"]["rows"],
        "gradient_at_start": record.get("gradient_at_start"),
        "last_loss": record["last"]["loss"],
        "train_seconds": record["train_seconds"],
        "seconds": round(time.perf_counter() - started, 1),
    }


@dataclass(frozen=True)
class Demonstrated:
    """One run on demonstrations (Bradley-Terry: on them and the base's samples), judged against the base's own samples."""

    data: str
    method: str
    pairs: int = 300
    seed: int = 0


DEMONSTRATED: Mapping[str, Method] = {
    "ava-d": Method(Gaussian(), AvaD()),
    "ava-d, gamma 0.9": Method(Gaussian(), AvaD(inference=Inference(gamma=0.9))),
    "Bradley-Terry on both": Method(LastToken(), BradleyTerry()),
}


def samples_of(data: str, options: argparse.Namespace) -> list[dict[str, str]]:
    """Prompt, demonstration and the base's sample for it; made once and kept beside the results."""
    file = options.work / f"{data}-samples.jsonl"
    if file.exists():
        return [json.loads(line) for line in file.read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    size = DEMONSTRATIONS[data]
    read = load_examples(
        str(options.data / f"{data}.jsonl.gz"),
        tokenizer,
        shape=Shape.DEMONSTRATION,
        settings=Tokenise(max_length=size.max_length),
        limit=4 * size.held_out,
    ).examples
    wanted = [one for one in read if len(one.prompt) <= size.max_length // 2][: 300 + size.held_out]
    rows = []
    for start in range(0, len(wanted), 50):
        part = wanted[start : start + 50]
        longest = max(len(one.responses["answer"].ids) for one in part)
        ids = sample_answers(model, tokenizer, [one.prompt for one in part], max_new_tokens=min(longest, size.max_length // 2), seed=start)
        texts = [tokenizer.decode(one, skip_special_tokens=True) for one in ids]
        for one, text in zip(part, texts, strict=True):
            rows.append({"prompt": one.prompt_text, "chosen": one.responses["answer"].text, "rejected": text})
    options.work.mkdir(parents=True, exist_ok=True)
    write_jsonl(file, [row for row in rows if row["rejected"].strip()])
    return samples_of(data, options)


READOUTS = {"last": Last(), "mean": Mean(), "sum": Sum()}


def run_demonstrated(cell: Demonstrated, options: argparse.Namespace) -> dict[str, Any]:
    """How often the rewards put the demonstration above the base's sample, by readout."""
    size, started = DEMONSTRATIONS[cell.data], time.perf_counter()
    rows = samples_of(cell.data, options)
    train, held_out = rows[: -size.held_out], rows[-size.held_out :]
    kept = [train[place] for place in np.random.default_rng([cell.seed, 0]).permutation(len(train))[: cell.pairs]]
    method = DEMONSTRATED[cell.method]
    head, unpaired = method.head, isinstance(method.loss, AvaD)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in kept]
        data = write_jsonl(folder / "train.jsonl", alone if unpaired else kept)
        judged = write_jsonl(folder / "held-out.jsonl", held_out)
        finegrain.train_reward_model(
            options.model,
            data,
            folder / "run",
            head=head,
            loss=method.loss,
            common=Common(seed=cell.seed, max_length=size.max_length, device="cpu", dtype=options.dtype),
            training=Training(examined=0, samples=0, holdout=0.0),
            optim=Optim(embedding_lr=PLAIN),
        )
        reward = load_reward_model(folder / "run")
        record = json.loads((folder / "run" / "run.json").read_text())
        settings = Tokenise(max_length=size.max_length)
        examples = list(load_examples(str(judged), reward.policy.tokenizer, shape=Shape.PREFERENCE, settings=settings).examples)
    outputs = outputs_of(reward, examples, longest=size.max_length)
    return {
        **asdict(cell),
        "kind": "demonstrations",
        "dtype": options.dtype,
        "accuracy": {how: accuracy_of(head, READOUTS[how], outputs, examples).accuracy.mean for how in READOUTS if unpaired or how == "last"},
        "length_only": length_accuracy(examples).accuracy.mean,
        "held_out": len(examples),
        "last_loss": record["last"]["loss"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def shown(values: Sequence[float], sign: str = "") -> str:
    """Mean over seeds and half of its interval."""
    return tables.shown(mean_interval(list(values)), sign=sign)


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    pairs = [one for one in results if one.get("kind") != "demonstrations"]
    lines = ["# AVA-p against Bradley-Terry on real pairs", "", f"Made by `benchmarks/ava_claim.py`. {ABOUT}", ""]
    settings = dict.fromkeys(setting_of(one) for one in pairs)
    order = sorted(settings, key=lambda one: (list(DATA).index(one[0]), one[2], one[3], one[1] or 10**6, one[4]))
    for data, count, epochs, flipped, dtype in order:
        own = [one for one in pairs if setting_of(one) == (data, count, epochs, flipped, dtype)]
        base = {one["seed"]: one for one in own if one["method"] == BASE and one["accuracy"] is not None}
        first = own[0]
        title = f"{first.get('trained_pairs', count)} pairs, {epochs} epoch{'s' if epochs > 1 else ''}"
        title += f", {flipped:.0%} of the labels flipped" if flipped else ""
        title += f", in {dtype}" if dtype != "float32" else ""
        lines += [
            f"## {data}: {title}",
            "",
            f"{first.get('held_out')} pairs held out; the longer answer wins in {first.get('length_only', 0):.3f}.",
            "",
        ]
        lines += ["| method | seeds | accuracy | lowest | minus Bradley-Terry | of the nll | mean square of (delta - mu) / sd | failed |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
        for method in METHODS:
            rows = [one for one in own if one["method"] == method]
            fine = [one for one in rows if one["accuracy"] is not None]
            if not fine:
                continue
            both = [one for one in fine if one["seed"] in base and method != BASE]
            gaps = shown([one["accuracy"] - base[one["seed"]]["accuracy"] for one in both], "+") if both else ""
            nll = shown([one["nll"] - base[one["seed"]]["nll"] for one in both], "+") if both else ""
            squares = [one["td_square"] for one in fine if one["td_square"] is not None and "likelihood" not in method]
            accuracies = [one["accuracy"] for one in fine]
            parts = (method, len(rows), shown(accuracies), f"{min(accuracies):.3f}", gaps, nll, shown(squares) if squares else "")
            lines.append(f"| {' | '.join(map(str, parts))} | {len(rows) - len(fine)} |")
        lines.append("")
    return "\n".join([*lines, *starts(pairs), *demonstrated(results)])


def setting_of(cell: Mapping[str, Any]) -> tuple[str, int, int, float, str]:
    """What the runs of one table share; their methods and seeds differ."""
    return cell["data"], cell["pairs"], cell["epochs"], cell["flipped"], cell["dtype"]


def starts(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Norms of both gradients at the start."""
    lines = ["## Norms of the gradient on the backbone at the start", "", "Means over runs of 300 pairs.", ""]
    lines += ["| data | method | ranking | bound, weighed | share of the ranking | weight of the bound |", "| --- | --- | --- | --- | --- | --- |"]
    for data in DATA:
        for method in METHODS:
            found = [one["gradient_at_start"] for one in pairs if (one["data"], one["method"], one["pairs"]) == (data, method, 300)]
            found = [one for one in found if one and "backbone" not in method]
            if found:
                mean = [float(np.mean([one[name] for one in found])) for name in ("ranking", "bound", "share", "bound_weight")]
                lines.append(f"| {data} | {method} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.3f} |")
    return [*lines, ""]


def demonstrated(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """AVA-d's part."""
    rows = [one for one in results if one.get("kind") == "demonstrations"]
    if not rows:
        return []
    lines = ["## AVA-d: demonstrations against the base's own samples", ""]
    lines += ["Share of held-out prompts at which the demonstration scores above the sample, by how an answer is read from its tokens.", ""]
    lines += ["| data | trained | seeds | last token | mean of tokens | sum of tokens | the longer one |", f"|{' --- |' * 7}"]
    for data, method in dict.fromkeys((one["data"], one["method"]) for one in rows):
        own = [one for one in rows if (one["data"], one["method"]) == (data, method)]
        parts = (shown([one["accuracy"][how] for one in own]) if how in own[0]["accuracy"] else "" for how in READOUTS)
        lines.append(f"| {data} | {method} | {len(own)} | {' | '.join(parts)} | {own[0]['length_only']:.3f} |")
    return [*lines, ""]


LENGTHS = ", ".join(f"{name} to {size.max_length}" for name, size in DATA.items())
ABOUT = (
    "A 17 M base that has seen the text of hh_harmless and gsm8k_model_solutions without labels, not that of haluquestqa. Prompt and answer together "
    f"are cut, in tokens: {LENGTHS}. AdamW at {PLAIN:.2g} for all weights, batches of 16. "
    "Means over seeds ± half of a 95 % Student interval; differences are paired by seed (same training pairs, order and head); nll is that of "
    "the held-out labels under sigma of the score difference. A run fails where it stops with an error; `lowest` is the worst "
    "seed. Answers that are cut to the same length count as no win for the longer one."
)


def main() -> None:
    parser = flags(__doc__, seeds=5, out=RESULTS)
    parser.add_argument("--model", type=Path, default=SMALL_LM)
    parser.add_argument("--data", type=Path, default=DATA_FOLDER, help="folder of the files")
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work", help="where samples are kept between calls")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further cell after this time")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="what the models compute in")
    parser.add_argument("--only", nargs="+", help="values of a cell: data=hh_harmless pairs=300 method=ava-p ...; all of them must hold")
    parser.add_argument("--demonstrations", action="store_true", help="AVA-d's cells instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file, until = options.out / "ava_claim.json", time.monotonic() + options.seconds
    results: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    done = {key_of(one) for one in results}
    wanted: Iterator[Any] = cells(options.seeds)
    if options.demonstrations:
        wanted = (Demonstrated(data, method, seed=seed) for seed in range(options.seeds) for data in DEMONSTRATIONS for method in DEMONSTRATED)
    for cell in wanted:
        key = key_of(asdict(cell))
        if key in done or not {f"{name}={value}" for name, value in asdict(cell).items()}.issuperset(options.only or ()):
            continue
        if time.monotonic() > until:
            break
        results.append(run(cell, options) if isinstance(cell, Cell) else run_demonstrated(cell, options))
        done.add(key)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(results, indent=1) + "\n")
        part.replace(file)
        (options.out / "ava_claim.md").write_text(report(results))
        print(json.dumps(results[-1]), flush=True)
    if results:
        (options.out / "ava_claim.md").write_text(report(results))


def key_of(values: Mapping[str, Any]) -> str:
    """What tells a cell from the others."""
    return "/".join(str(values[name]) for name in ("data", "method", "pairs", "epochs", "flipped", "seed") if name in values)


if __name__ == "__main__":
    main()
