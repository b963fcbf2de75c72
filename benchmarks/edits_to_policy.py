"""People's corrections to a policy: least edits, token labels, a token model, and policies that learn from it, on qa_feedback.

    python benchmarks/edits_to_policy.py [--work build/edits-to-policy]

The commands are those of docs/methods/fine-grained.md, on corrections that have at most 900 characters with their original; the last 60 are held
out. Token models: how well low scores find, in a held-out answer, the tokens that its correction removed, high scores those that it added, and
low scores the words that people marked as errors; the baseline is a sequence model on the same pairs whose score is followed along the answer.
Policies: the mean log-ratio to the start of the removed, added and unchanged tokens of held-out corrections.
Writes benchmarks/results/edits-to-policy.{json,md}; some minutes on one core.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command import flags, write
from offline_objectives import finegrain
from places import RESULTS, ROOT, SMALL_LM, describe_processor
from reward_methods import question, rows_of
from tables import shown

from finegrain.data.planted import write_jsonl
from finegrain.ops.edits import Edit, least_edit
from finegrain.ops.stats import count_below, mean_interval
from finegrain.types import Json

HELD_OUT, LENGTH = 60, "192"
LONGEST = 900
"""Characters of original and correction together."""
TOKEN_MODELS = {
    "token model, small edits alone": ["head:token", "head.readout:mean", "loss:fine-grained"],
    "token model, all corrections": ["head:token", "head.readout:mean", "loss:fine-grained", "--loss.most-changed", "1"],
    "sequence model": ["head:sequence"],
}
SCORER = "token model, all corrections"
POLICIES = {
    "dpo": ["objective:dpo", "--lr", "5e-5"],
    "dpo, mask by the token model": ["objective:dpo", "credit:asr", "--credit.min-kept", "0", "--credit.max-kept", "1", "--lr", "5e-5"],
    "token rewards of the token model": ["objective:token-distillation", "credit:token-reward", "--lr", "5e-5"],
}
SCORED = ("dpo, mask by the token model", "token rewards of the token model")
KINDS = ("removed", "added", "unchanged")


def make_inputs(work: Path) -> None:
    """Corrections, the last ones held out: of each the prompt without passages, the marked errors, the original and the correction."""
    rows = []
    for row in rows_of("qa_feedback"):
        corrected, original = row["feedback"].get("corrected-prediction"), row["prediction 1"]
        if corrected and corrected != original and len(corrected) + len(original) <= LONGEST:
            spans = [{"start": error["start"] + 1, "end": error["end"] + 1, "value": -1} for error in row["feedback"]["errors"]]
            rows.append({"prompt": question(row), "original": f" {original}", "corrected": f" {corrected}", "original_spans": spans})
    work.mkdir(parents=True, exist_ok=True)
    write_jsonl(work / "corrections.jsonl", rows[:-HELD_OUT])
    write_jsonl(work / "held-out.jsonl", rows[-HELD_OUT:])


def train(command: str, name: str, options: Sequence[str], work: Path) -> Path:
    """A run, unless it has finished."""
    out = work / name.replace(", ", "-").replace(" ", "-")
    record = out / "run.json"
    if not record.exists() or json.loads(record.read_text()).get("status") != "finished":
        data = ["--data", str(work / "corrections.jsonl"), "--eval", str(work / "held-out.jsonl")]
        common = ["--max-length", LENGTH, "--samples", "1" if command == "reward" else "0", "--examined", "0", "--device", "cpu"]
        finegrain(command, "--model", str(SMALL_LM), *data, "--out", str(out), *options, *common)
    return out


def score(out: Path, work: Path, *arguments: str) -> list[tuple[Edit, list[Json]]]:
    """By held-out correction, its least edit and the lines of correction and original with the scores of their tokens."""
    if not out.exists():
        finegrain("score", "--data", str(work / "held-out.jsonl"), "--out", str(out), "--max-length", LENGTH, "--device", "cpu", *arguments)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    found, places = [], dict[str, int]()
    for corrected, original in zip(lines[::2], lines[1::2], strict=True):
        assert corrected["id"].split("/")[0] == original["id"].split("/")[0]
        texts = [[line["response"][start:end] for start, end, *_ in line["tokens"]] for line in (original, corrected)]
        ids = [np.array([places.setdefault(text, len(places)) for text in own]) for own in texts]
        found.append((least_edit(*ids), [corrected, original]))
    return found


def areas(scored: Sequence[tuple[Edit, list[Json]]], work: Path) -> dict[str, list[float]]:
    """By what is looked for, the area within each held-out answer that has tokens of both kinds."""
    rows = [json.loads(line) for line in (work / "held-out.jsonl").read_text().splitlines()]
    found: dict[str, list[float]] = {"removed": [], "added": [], "marked as errors": []}
    for edit, (corrected, original) in scored:
        better, worse = (np.array([token[2] for token in line["tokens"]]) for line in (corrected, original))
        spans = rows[int(original["id"].split("/")[0])]["original_spans"]
        marked = np.array([any(start < span["end"] and span["start"] < end for span in spans) for start, end, *_ in original["tokens"]])
        for name, likely, kind in (("removed", -worse, edit.first), ("added", better, edit.second), ("marked as errors", -worse, marked)):
            if kind.any() and not kind.all():
                found[name].append(float(count_below(likely[kind], likely[~kind]).mean() / (~kind).sum()))
    return found


def moved(scored: Sequence[tuple[Edit, list[Json]]]) -> dict[str, list[float]]:
    """By kind of token, the mean log-ratio of every held-out correction that has some; and whether the correction gained more per token."""
    found: dict[str, list[float]] = {name: [] for name in (*KINDS, "order")}
    for edit, (corrected, original) in scored:
        better, worse = (np.array([token[2] for token in line["tokens"]]) for line in (corrected, original))
        kinds = worse[edit.first], better[edit.second], np.concatenate([worse[~edit.first], better[~edit.second]])
        for name, values in zip(KINDS, kinds, strict=True):
            if len(values):
                found[name].append(float(values.mean()))
        found["order"].append(float(better.sum() > worse.sum()))
    return found


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "edits-to-policy")
    options = parser.parse_args()
    work = options.work
    make_inputs(work)
    models, policies = {}, {}
    for name, method in TOKEN_MODELS.items():
        out = train("reward", name, [*method, "--epochs", "2"], work)
        signal = ["signal:prefix-difference"] if name == "sequence model" else []
        record = json.loads((out / "run.json").read_text())
        scored = score(out / "held-out-scores.jsonl", work, "--model", str(out), *signal)
        models[name] = {"areas": areas(scored, work), "edits": record.get("edits"), "in_order": record["evaluation"]["eval_accuracy"]}
    scorer = ["--credit.scorer", str(work / SCORER.replace(", ", "-").replace(" ", "-"))]
    for name, method in POLICIES.items():
        out = train("prefer", name, [*method, *(scorer if name in SCORED else [])], work)
        scored = score(out / "held-out-scores.jsonl", work, "--model", str(out), "--reference", str(SMALL_LM), "--beta", "1")
        policies[name] = moved(scored)
    facts = {"machine": describe_processor(), "token_models": models, "policies": policies}
    write(options.out, "edits-to-policy", facts, page(facts))
    print(page(facts))


def page(facts: Mapping[str, Any]) -> str:
    """Both tables."""
    lines = [f"# {__doc__.splitlines()[0]}", "", f"Made by `benchmarks/edits_to_policy.py`. {' '.join(__doc__.split(chr(10) * 2)[-1].split())}", ""]
    lines += ["Areas are means over answers, log-ratios (nats per token) over corrections, ± half of a 95 % Student interval; one seed.", ""]
    lines += ["| token scores | removed | added | marked as errors | pairs in order |", "| --- " * 5 + "|"]
    for name, own in facts["token_models"].items():
        cells = [shown(mean_interval(values)) for values in own["areas"].values()]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {own['in_order']['mean']:.2f} ({own['in_order']['low']:.2f}, {own['in_order']['high']:.2f}) |"
        )
    lines += ["", "| policy | removed | added | unchanged | corrections that gained more |", "| --- " * 5 + "|"]
    for name, own in facts["policies"].items():
        lines.append(f"| {name} | {' | '.join(shown(mean_interval(own[kind]), sign='+') for kind in KINDS)} | {np.mean(own['order']):.2f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
