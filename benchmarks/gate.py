"""How well the data gate finds what was planted: recall, precision and false alarms by kind, on generated and on real rows.

    python benchmarks/gate.py --real hh_harmless.jsonl.gz --out benchmarks/results

Real rows are only taken where a file is named. What the gate says of real rows that nothing was planted in may be right: such
alarms are counted as wrong in the precision, which is therefore a lower bound there.
"""

import gzip
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.command import flags, write
from benchmarks.gate_corruptions import EXACT, JUDGED, Planted, Row, generated, plant, transcripts
from benchmarks.places import RESULTS

from finegrain.data.load import Tokenise, check_rows
from finegrain.ops.proportions import wilson

MAX_LENGTH = 2000


def tokenizer(*, eos: bool = True, pad_is_eos: bool = False) -> Any:
    """One token per byte, BOS <s> and EOS </s>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(["<s>", "</s>", "<pad>", *letters])}, merges=[]))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = {"bos_token": "<s>", "pad_token": "</s>" if pad_is_eos else "<pad>"} | ({"eos_token": "</s>"} if eos else {})
    return PreTrainedTokenizerFast(tokenizer_object=bare, **names)


def found_in(rows: list[Row], **changes: bool) -> dict[str, set[int]]:
    """Row numbers by kind; a finding without rows has an empty set."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        report = check_rows(str(file), tokenizer(**changes), settings=Tokenise(max_length=MAX_LENGTH))
    return {finding["kind"]: set(finding["rows"]) for finding in report["findings"]}


def measured(planted: Planted, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """By kind: planted, recall, precision and false alarms with Wilson's 95 % intervals.

    Of an exact kind the truth is known for every row. Of a judged one it is for rows of that kind and for clean rows alone: a
    corruption of another kind may bring it along (an answer that repeats its prompt is more like the other answer, say).
    """
    found, clean = found_in(planted.rows), planted.clean()
    table = {}
    for kind in kinds:
        truth, told = planted.truth[kind], found.get(kind, set())
        alarms = told & clean
        recall = wilson([float(row in told) for row in truth])
        precision = wilson([float(row in truth) for row in (told & (truth | clean) if kind in JUDGED else told)])
        table[kind] = {
            "planted": len(truth),
            "recall": recall[:3],
            "precision": precision[:3],
            "clean": len(clean),
            "false_alarms": wilson([float(row in alarms) for row in clean])[:3],
            "alarms": sorted(alarms),
            "missed": sorted(truth - told),
        }
    return table


def all_kinds(rows: list[Row], each: int, seed: int) -> dict[str, dict[str, Any]]:
    """Every kind planted `each` times in its own file or in the common one."""
    table = measured(plant(rows, each, seed), EXACT + JUDGED)
    return {"prompt_mismatch": measured(transcripts(rows, each, seed), ("prompt_mismatch",))["prompt_mismatch"], **table}


def real_rows(file: Path) -> list[Row]:
    """hh-rlhf transcripts as strings; without rows whose prompts differ or that have an empty answer, and without long ones."""
    rows = []
    for line in gzip.open(file, "rt", encoding="utf-8"):
        (prompt, _, chosen), (other, _, rejected) = (json.loads(line)[side].rpartition("\n\nAssistant:") for side in ("chosen", "rejected"))
        if prompt == other and chosen.strip() and rejected.strip() and chosen != rejected:
            question = prompt.rpartition("\n\nHuman:")[2].strip()
            if question and max(len(chosen), len(rejected), len(question)) < 1200:
                rows.append({"prompt": question + "\n", "chosen": chosen.strip(), "rejected": rejected.strip(), "weight": 1.0})
    return rows


def line(kind: str, one: dict[str, Any]) -> str:
    """A row of the table."""
    share = lambda triple: "–" if triple[1] is None else f"{triple[0]:.1%} [{triple[1]:.1%}, {triple[2]:.1%}]"
    return f"| `{kind}` | {one['planted']} | {share(one['recall'])} | {share(one['precision'])} | {len(one['alarms'])} of {one['clean']} |"


HEAD = "| kind | planted | recall | precision | alarms on rows nothing was planted in |\n| --- | --- | --- | --- | --- |"


def main() -> None:
    """Measure and write gate.md and gate.json."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--each", type=int, default=130)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--real-each", type=int, default=52)
    asked = parser.parse_args()
    started = time.perf_counter()
    tables = {"generated rows": all_kinds(generated(asked.rows, asked.seed), asked.each, asked.seed + 1)}
    if asked.real is not None:
        tables[f"rows of {asked.real.name}"] = all_kinds(real_rows(asked.real), asked.real_each, asked.seed + 1)
    few = generated(5, asked.seed)
    whole = {"pad_is_eos": "pad_is_eos" in found_in(few, pad_is_eos=True), "bos_eos (no EOS)": "bos_eos" in found_in(few, eos=False)}
    text = ["# The data gate, measured", "", f"`python benchmarks/gate.py`, seed {asked.seed}; intervals are Wilson's, 95 %.", ""]
    for name, table in tables.items():
        text += [f"## {name.capitalize()}", "", HEAD, *(line(kind, one) for kind, one in table.items()), ""]
    text += ["Of a whole file: " + ", ".join(f"`{kind}` {'found' if seen else 'MISSED'}" for kind, seen in whole.items()) + ".", ""]
    write(asked.out, "gate", {"tables": tables, "whole_file": whole}, "\n".join(text))
    print("\n".join(text), f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
