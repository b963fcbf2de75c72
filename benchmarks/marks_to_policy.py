"""People's marks to a better policy, on a real model: haluquestqa's error spans, a token model, token distillation, and what a judge says.

    python benchmarks/marks_to_policy.py --model build/example/model --data ../shared/data/haluquestqa.jsonl.gz

The rows are split by prompt into three: the marks of the first part train the token model that the policy learns from, those of the second train
another token model, the judge, which that policy never meets, and the third is held out. Every row of the table starts at the same model, reads
the prompts and answers of the first part and trains an adapter. Answers are sampled for the held-out prompts at temperature 1 with the same
noise; the judge scores them, and a policy's distance from the start is the mean log-ratio of its own samples. A stopped script goes on.
"""

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from command import flags, write
from places import DATA, RESULTS, ROOT, describe_processor
from tables import shown

from finegrain.data.load import load_examples
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from finegrain.generate.hf import sample_answers
from finegrain.models.load import load_policy
from finegrain.ops.stats import mean_interval

FINEGRAIN = [sys.executable, "-m", "finegrain"]
PARTS = {"marks": (0.0, 0.45), "judge": (0.45, 0.8), "held-out": (0.8, 1.0)}
TOKEN_MODEL = ["head:token", "head.readout:mean", "loss:span-labels", "--loss.frozen-backbone"]
RATES = ({"--lr": "1e-4"}, {"--lr": "3e-4"})
SIZES = ({"--lr": "3e-4", "--credit.size": "1"}, {"--lr": "3e-4", "--credit.size": "0.1"})
"""A token model's scores are log-odds, and a target is size * score / beta nats: of 1 / 10 of that size, most are within a nat or two."""
METHODS: Mapping[str, tuple[Sequence[str], Sequence[Mapping[str, str]]]] = {
    "dpo": (["objective:dpo"], RATES),
    "marks, token model, token-distillation": (["objective:token-distillation", "credit:token-reward"], SIZES),
    "marks, token model, keep-mask (asr)": (["objective:dpo", "credit:asr", "--credit.min-kept", "0", "--credit.max-kept", "1"], RATES),
}
"""Flags and trials: as many for every method, so that no row is better tuned than another."""
SCORED = ("token-distillation", "asr")


def split(data: Path, folder: Path, limit: int) -> None:
    """One file per part, whose rows are chat messages; rows of a prompt stay together."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(data, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][: limit or None]
    prompts = sorted({row["prompt"] for row in rows}, key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
    places = {prompt: place / len(prompts) for place, prompt in enumerate(prompts)}
    for name, (low, high) in PARTS.items():
        own = [_in_messages(row) for row in rows if low <= places[row["prompt"]] < high]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own), encoding="utf-8")


def _in_messages(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's texts as chat messages: a chat model that reads plain text often answers nothing."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {**row, **{name: [{"role": role, "content": row[name]}] for name, role in roles.items()}}


def call(command: str, out: Path, *arguments: str) -> None:
    """A command of finegrain, unless it has finished; a run that was stopped goes on."""
    record = out / "run.json"
    if record.exists() and json.loads(record.read_text()).get("status") == "finished":
        return
    resume = ["--resume"] if record.exists() and list(out.glob("checkpoints/*")) else []
    print(f"\n== finegrain {command} {' '.join(arguments)} --out {out}", flush=True)
    subprocess.run([*FINEGRAIN, command, "--out", str(out), *arguments, *resume], check=True)


def train_token_model(name: str, arguments: Any, work: Path) -> Path:
    """A token model of one part's spans, with its held-out measures."""
    out = work / f"{name}-model"
    data = ["--data", str(work / f"{name}.jsonl"), "--eval", str(work / "held-out.jsonl")]
    rate = ["--lr", "1e-2", "--epochs", "4", "--batch-size", "8"]
    common = ["--max-length", str(arguments.max_length), "--dtype", arguments.dtype, "--examined", "40"]
    call("reward", out, "--model", arguments.model, *data, *TOKEN_MODEL, *rate, *common)
    return out


def describe_trial(trial: Mapping[str, str]) -> str:
    """Its settings in words."""
    return ", ".join(f"{flag.lstrip('-').removeprefix('credit.')} {value}" for flag, value in trial.items())


def train_policy(name: str, method: Sequence[str], trial: Mapping[str, str], scorer: Path, arguments: Any, work: Path) -> Path:
    """An adapter of the start model on the first part."""
    out = work / "-".join([name.rpartition(", ")[2].split()[0], *trial.values()])
    data = ["--data", str(work / "marks.jsonl"), "--eval", str(work / "held-out.jsonl")]
    settings = ["--lora.rank", "16", *chain.from_iterable(trial.items()), "--epochs", "1", "--batch-size", "8", "--save-every", "5"]
    credit = ["--credit.scorer", str(scorer)] if any(word in name for word in SCORED) else []
    common = ["--max-length", str(arguments.max_length), "--dtype", arguments.dtype, "--samples", "2", "--examined", "40"]
    call("prefer", out, "--model", arguments.model, *data, *method, *credit, *settings, *common)
    return out


def answer(checkpoint: str, arguments: Any, work: Path, out: Path) -> None:
    """One sampled answer to every held-out prompt."""
    if out.exists():
        return
    policy = load_policy(checkpoint)
    settings = Tokenise(max_length=arguments.max_length)
    examples = load_examples(str(work / "held-out.jsonl"), policy.tokenizer, shape=Shape.PREFERENCE, settings=settings).examples
    prompts = [example.prompt for example in examples]
    rows = [json.loads(line) for line in (work / "held-out.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = []
    for first in range(0, len(prompts), 16):
        part = prompts[first : first + 16]
        drawn = sample_answers(policy.model, policy.tokenizer, part, max_new_tokens=arguments.tokens, seed=first)
        texts = [policy.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in drawn]
        own = list(examples)[first : first + 16]
        lines += [{"prompt": rows[example.row]["prompt"], "response": text or " "} for example, text in zip(own, texts, strict=True)]
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def score(out: Path, answers: Path, *arguments: str) -> np.ndarray:
    """Score of every answer by a command line of `finegrain score`; NaN for empty answers, which it drops."""
    if not out.exists():
        subprocess.run([*FINEGRAIN, "score", "--data", str(answers), "--out", str(out), *arguments], check=True)
    found = np.full(len(answers.read_text().splitlines()), np.nan)
    for line in out.read_text().splitlines():
        record = json.loads(line)
        found[int(record["id"].partition("/")[0])] = record["score"]["mean"]
    return found


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--model", required=True, help="a chat model's folder, such as `make example` leaves in build/example/model")
    parser.add_argument("--data", type=Path, default=DATA / "haluquestqa.jsonl.gz")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "marks-to-policy")
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=128, help="longest sampled answer")
    parser.add_argument("--limit", type=int, default=0, help="rows of the data; 0: all")
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    work = arguments.work
    split(arguments.data, work, arguments.limit)
    subprocess.run([*FINEGRAIN, "check-data", "--data", str(work / "marks.jsonl"), "--model", arguments.model], check=True)
    token_model, judge = (train_token_model(name, arguments, work) for name in ("marks", "judge"))
    policies = {"start": {"": arguments.model}}
    for name, (method, trials) in METHODS.items():
        policies[name] = {describe_trial(trial): str(train_policy(name, method, trial, token_model, arguments, work)) for trial in trials}
    rows = []
    for name, runs in policies.items():
        for trial, checkpoint in runs.items():
            own = work / "answers" / f"{Path(checkpoint).name if trial else 'start'}.jsonl"
            own.parent.mkdir(exist_ok=True)
            answer(checkpoint, arguments, work, own)
            judged = score(own.with_suffix(".judged"), own, "--model", str(judge), "--max-length", "1024")
            moved = np.zeros(1)
            if trial:
                moved = score(own.with_suffix(".moved"), own, "--model", checkpoint, "--reference", arguments.model, "--beta", "1")
            lengths = [len(json.loads(line)["response"]) for line in own.read_text().splitlines()]
            rows.append(
                {
                    "method": name,
                    "trial": trial,
                    "judged": [None if value != value else value for value in judged.tolist()],
                    "kl": float(np.nanmean(moved)),
                    "characters": float(np.mean(lengths)),
                }
            )
    records = {name: json.loads((work / f"{name}-model" / "run.json").read_text())["evaluation"] for name in ("marks", "judge")}
    named = {key: Path(str(value)).name for key, value in vars(arguments).items() if key not in ("work", "out")}
    facts = {"arguments": named, **describe_processor(), "token_models": records, "rows": rows}
    write(arguments.out, "marks-to-policy", facts, report(facts))
    print(report(facts))


def report(facts: Mapping[str, Any]) -> str:
    """The page: the token models on held-out marks, and the judge's scores of sampled answers."""
    lines = [f"# {__doc__.splitlines()[0]}", "", f"Made by `benchmarks/marks_to_policy.py`. {' '.join(__doc__.split(chr(10) * 2)[-1].split())}", ""]
    lines += ["| token model | token AUROC (held-out answers) | within answers | pairs in order |", "| --- | --- | --- | --- |"]
    for name, found in facts["token_models"].items():
        cells = [_cell(found.get(f"eval_{key}")) for key in ("token_auroc", "token_auroc_within", "accuracy")]
        lines.append(f"| of the part `{name}` | {' | '.join(cells)} |")
    start = np.array(facts["rows"][0]["judged"], dtype=float)
    how = "Score: mean log-odds that a token is good, by the judge; differences are paired by prompt, over the prompts that both answered"
    lines += ["", f"{how}, ± half of a 95 % Student interval. Nats from the start: of answers that are not empty.", ""]
    lines += ["| policy | trial | judged | minus the start | nats from the start | characters | empty answers |", "| --- " * 7 + "|"]
    for row in facts["rows"]:
        judged = np.array(row["judged"], dtype=float)
        both = np.isfinite(judged) & np.isfinite(start)
        apart = shown(mean_interval((judged - start)[both]), sign="+") if row["trial"] else ""
        kept = judged[np.isfinite(judged)]
        empty = f"{len(judged) - len(kept)} of {len(judged)}"
        cells = [row["method"], row["trial"], shown(mean_interval(kept)), apart, f"{row['kl']:.2f}", f"{row['characters']:.0f}", empty]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None or found.get("mean") is None:
        return ""
    return f"{found['mean']:.3f} ({found['low']:.3f}, {found['high']:.3f})" if found.get("low") is not None else f"{found['mean']:.3f}"


if __name__ == "__main__":
    main()
