"""Does a reward model know when it is wrong? Calibration and doubt on pairs like the training pairs, and on longer answers of the same world.

    python benchmarks/doubt.py --seeds 5

Planted pairs of answers of six sentences train; held-out pairs have six (like them) or sixteen (shifted), labelled by the same qualities at
the same temperature. Writes benchmarks/results/doubt.{json,md}; half a minute per seed on one core.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from command import flags, write
from places import RESULTS
from tables import markdown, summary

import finegrain
from finegrain.commands.posterior import PosteriorSettings
from finegrain.commands.settings import Common, Training
from finegrain.data.planted import Planted, World, make_pairs, write_jsonl
from finegrain.recipes.demo.base import save_untrained
from finegrain.recipes.posterior import run_posterior
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token

PAIRS, HELD_OUT, EPOCHS, RATE = 1000, 300, 3.0, 2e-3
DATA = {"like training": 6, "shifted": 16}
"""Sentences of the answers."""


class Method(NamedTuple):
    """One line of the table."""

    name: str
    head: RewardHead
    posterior: bool = False


METHODS = (
    Method("last token", Sequence()),
    Method("last token, posterior of the last layer", Sequence(), posterior=True),
    Method("ensemble of 5", Ensemble()),
    Method("token, sum, posterior of the last layer", Token(), posterior=True),
)


def measured(method: Method, folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """One model, by data."""
    out = folder / method.name.replace(" ", "-")
    common = Common(seed=seed, device="cpu", lr=RATE)
    training = Training(holdout=0.0, examined=0, epochs=EPOCHS, batch_size=32)
    finegrain.train_reward_model(
        folder / "untrained", folder / "train.jsonl", out, head=method.head, loss=BradleyTerry(), common=common, training=training
    )
    if method.posterior:
        run_posterior(PosteriorSettings(run=out, data=str(folder / "train.jsonl"), device="cpu"))
    return {name: numbers(finegrain.evaluate_reward(out, folder / f"{name}.jsonl", device="cpu")) for name in DATA}


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """What of `finegrain eval` stands in the table."""
    calibration = result["calibration"]
    line = next(one for one in result["lines"] if one["name"] == "all rows")
    found = {"accuracy": line["accuracy"]["mean"], "ECE": calibration["ece"]["mean"], "NLL": calibration["nll"]["mean"]}
    doubt = result["mistakes_auroc"]
    return found if doubt is None else found | {"AUROC of mistakes": doubt["mean"]}


def main() -> None:
    options = flags(__doc__, seeds=5, out=RESULTS).parse_args()
    torch.set_num_threads(1)
    cells: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in DATA}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            world = World(Planted(pairs=PAIRS, pool=0, sentences=DATA["like training"]), seed)
            write_jsonl(folder / "train.jsonl", make_pairs(world, PAIRS, stream=0))
            for data, sentences in DATA.items():
                other = replace(world, settings=replace(world.settings, sentences=sentences))
                write_jsonl(folder / f"{data}.jsonl", make_pairs(other, HELD_OUT, stream=2, held_out=RESULTS))
            save_untrained(folder / "untrained", seed=seed)
            for method in METHODS:
                for data, found in measured(method, folder, seed).items():
                    for column, value in found.items():
                        cells[data].setdefault(method.name, {}).setdefault(column, []).append(value)
                print(json.dumps({"seed": seed, "method": method.name}), flush=True)
    tables = {data: summary(rows) for data, rows in cells.items()}
    about = (
        f"{PAIRS} planted pairs, two layers from scratch, {EPOCHS:g} epochs at {RATE:g}; {HELD_OUT} held-out pairs; means ± half of a 95 % interval "
        f"over {options.seeds} seeds. Answers of {DATA['like training']} sentences train; shifted ones have {DATA['shifted']}. ECE and NLL (nats) "
        "take score differences as Bradley-Terry's; AUROC of mistakes: are wrong comparisons the uncertain ones? Made by `benchmarks/doubt.py`."
    )
    page = "\n\n".join([about, *(f"**{data}**\n\n{markdown(table, 'head', 3)}" for data, table in tables.items())])
    write(options.out, "doubt", {"seeds": options.seeds, "tables": tables}, page + "\n")


if __name__ == "__main__":
    main()
