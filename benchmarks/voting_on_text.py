"""Do votes find exchanged answers in real pairs? hh_harmless with injected flips, under two kinds of voting models. Minutes on one core.

    python benchmarks/voting_on_text.py --votes linear --rows 1000

Reads ../shared/data and ../shared/models/small-lm; adds a line to benchmarks/results/voting_on_text.md.
"""

import gzip
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from command import flags
from places import DATA, RESULTS, SMALL_LM
from tables import ranged

from finegrain.commands.curate import CurateSettings
from finegrain.curate.repairs import Flip
from finegrain.curate.secrets_rm import SecretsRM
from finegrain.curate.votes import Linear, Whole
from finegrain.data.planted import write_jsonl
from finegrain.evaluate.discrimination import auroc
from finegrain.ops.proportions import wilson
from finegrain.recipes.curate import run_curate

RESULT = RESULTS / "voting_on_text.md"
SHARE = 0.2
VOTES = {"linear": Linear(), "whole": Whole()}
HEAD = f"""# Votes on real pairs

Made by `benchmarks/voting_on_text.py`: the first rows of hh_harmless, {SHARE:.0%} of them with exchanged answers beside their own noise, at most
256 tokens, the small language model, one seed; intervals are over rows. AUROC: low strength against injected flips. Flip share 0.2.

| votes | splits | rows voted on | AUROC | recall | precision | negative strength | seconds |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    parser = flags(__doc__)
    parser.add_argument("--votes", choices=list(VOTES), default="linear")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000)
    options = parser.parse_args()
    with gzip.open(DATA / "hh_harmless.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream][: options.rows]
    flips = np.random.default_rng(0).random(len(rows)) < SHARE
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "noisy.jsonl", Path(folder) / "out.jsonl"
        noisy = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} if flip else row for row, flip in zip(rows, flips, strict=True)]
        write_jsonl(data, noisy)
        method = SecretsRM(splits=options.splits, votes=VOTES[options.votes], repair=Flip(share=SHARE))
        started = time.perf_counter()
        summary = run_curate(CurateSettings(model=str(SMALL_LM), data=str(data), out=out, method=method, max_length=256, device="cpu"))
        seconds = time.perf_counter() - started
        after = [json.loads(line) for line in out.read_text().splitlines()]
    voted = np.array([row["strength_mean"] is not None for row in after])
    strength = np.array([row["strength_mean"] or 0.0 for row in after])[voted]
    flagged, truth = np.array([row["flip"] > 0 for row in after])[voted], flips[voted]
    negative = summary["negative_share"]
    cells = [
        options.votes,
        str(options.splits),
        str(int(voted.sum())),
        ranged(auroc(-strength, truth)),
        ranged(wilson(flagged[truth].astype(float))),
        ranged(wilson(truth[flagged].astype(float))),
        f"{negative['mean']:.3f} ({negative['low']:.3f}, {negative['high']:.3f})",
        f"{seconds:.0f}",
    ]
    line = f"| {' | '.join(cells)} |\n"
    RESULT.write_text((RESULT.read_text() if RESULT.exists() else HEAD) + line)
    print(line)


if __name__ == "__main__":
    main()
