"""Best of n on the planted task: does a reward model that knows its uncertainty keep the optimiser on the data?

    python benchmarks/best_of_n.py --seeds 8

Every answer of the training pairs has six sentences, so no pair says what more of them are worth. Candidates have from 1 to 22, mostly about six
(log-normal), and the gold score says that a reader has patience for six: the sum of the true qualities, less one for every sentence beyond. Reward
models (two layers from scratch, the default token head) see the pairs only; `finegrain reward posterior` fits the posterior, members are trained
from random starts of their own. Writes benchmarks/results/best-of-n.{json,md}, which best_of_n_figure.py draws; about a minute per seed on
one core.
"""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from command import flags, write
from places import RESULTS
from tables import markdown, summary

import finegrain
from finegrain.commands.posterior import PosteriorSettings
from finegrain.commands.settings import Common, Training
from finegrain.data.planted import Planted, World, make_pairs, write_jsonl
from finegrain.ops.aggregate import MeanReward, MinusStd, MinusVariance, PerSample
from finegrain.ops.best_of_n import expected_best, kl_of_best
from finegrain.recipes.demo.base import save_untrained
from finegrain.recipes.posterior import run_posterior
from finegrain.rewards.heads import combine_members
from finegrain.train.optim import Optim
from finegrain.types import Json, Scored

PAIRS, EPOCHS, RATE = 1000, 3.0, 3e-3
PROMPTS, CANDIDATES, MEMBERS = 8, 512, 4
PATIENCE, LONGEST, SPREAD = 6, 22, 0.5
NS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def candidates(world: World) -> list[Json]:
    """Answers of all lengths to held-out prompts, and their gold scores."""
    rng = np.random.default_rng([world.seed, 9])
    rows = []
    for _ in range(PROMPTS):
        prompt = world.prompt(rng, world.held_out)
        for _ in range(CANDIDATES):
            length = int(np.clip(np.rint(PATIENCE * np.exp(SPREAD * rng.standard_normal())), 1, LONGEST))
            answer = replace(world, settings=replace(world.settings, sentences=length)).answer(rng, world.held_out)
            rows.append({"prompt": prompt, "completion": answer, "gold": world.read(prompt, answer).quality - max(0, length - PATIENCE)})
    return rows


def scored(model: Path, data: Path) -> Scored:
    """What `finegrain score` says of the candidates: (prompts, candidates)."""
    out = model.parent / f"scores-{model.name}-{time.time_ns()}.jsonl"
    finegrain.score(data, out, model=model, device="cpu")
    found = [json.loads(line)["score"] for line in out.read_text().splitlines()]
    assert len(found) == PROMPTS * CANDIDATES, "the gate dropped candidates"
    mean = torch.tensor([one["mean"] for one in found]).view(PROMPTS, CANDIDATES)
    std = None if found[0]["std"] is None else torch.tensor([one["std"] for one in found]).view(PROMPTS, CANDIDATES)
    return Scored(mean, std)


def one_seed(seed: int, folder: Path) -> dict[str, dict[str, float]]:
    """Gold score of best-of-n by proxy and n."""
    world = World(Planted(pairs=PAIRS, pool=0, sentences=PATIENCE), seed)
    train = write_jsonl(folder / "train.jsonl", make_pairs(world, PAIRS, stream=0))
    rows = candidates(world)
    data = write_jsonl(folder / "candidates.jsonl", [{name: row[name] for name in ("prompt", "completion")} for row in rows])
    truth = np.array([row["gold"] for row in rows]).reshape(PROMPTS, CANDIDATES)
    means = []
    for member in range(MEMBERS):
        out = folder / f"judge-{member}"
        start = save_untrained(folder / f"start-{member}", seed=100 * seed + member)
        common = Common(seed=100 * seed + member, device="cpu", lr=RATE)
        training, optim = Training(holdout=0.0, examined=0, epochs=EPOCHS, batch_size=32), Optim(embedding_lr=RATE)
        finegrain.train_reward_model(start, train, out, common=common, training=training, optim=optim)
        means.append(scored(out, data).mean)
    first = folder / "judge-0"
    run_posterior(PosteriorSettings(run=first, data=str(train), device="cpu"))
    unsure, members = scored(first, data), combine_members(torch.stack(means))
    proxies = {
        "plain": MeanReward()(unsure),
        "mean - 1 sd of the posterior": MinusStd(k=1.0)(unsure),
        "mean - 3 sd of the posterior": MinusStd(k=3.0)(unsure),
        "mean - 1 var of the posterior": MinusVariance(k=1.0)(unsure),
        "4 members, mean": MeanReward()(members),
        "4 members, least": PerSample()(Scored(members.mean.flatten(), None, torch.stack(means).flatten(1))).view(PROMPTS, CANDIDATES),
        "4 members, mean - 1 sd": MinusStd(k=1.0)(members),
        "4 members, mean - 3 sd": MinusStd(k=3.0)(members),
        "gold (bound)": torch.from_numpy(truth),
    }
    return {name: {f"n = {n}": float(expected_best(proxy.numpy(), truth, n).mean()) for n in NS} for name, proxy in proxies.items()}


def main() -> None:
    options = flags(__doc__, seeds=8, out=RESULTS).parse_args()
    torch.set_num_threads(1)
    cells: dict[str, dict[str, list[float]]] = {}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            found = one_seed(seed, Path(folder))
        for name, row in found.items():
            columns = dict(row)
            if name != "gold (bound)":
                columns["n = 512 less its best before"] = row["n = 512"] - max(row[f"n = {n}"] for n in NS[:-1])
            if name not in ("plain", "gold (bound)"):
                columns["n = 512 less plain"] = row["n = 512"] - found["plain"]["n = 512"]
            for column, value in columns.items():
                cells.setdefault(name, {}).setdefault(column, []).append(value)
        print(json.dumps({"seed": seed, "plain": found["plain"], "mean - 3 sd": found["mean - 3 sd of the posterior"]}), flush=True)
    table = summary(cells)
    about = (
        f"Gold score of the best of n by each proxy, mean ± half of a 95 % interval over {options.seeds} seeds of {PROMPTS} prompts with "
        f"{CANDIDATES} candidates; the last columns are paired within seeds. "
        f"KL of best-of-n in nats: {', '.join(f'{kl_of_best(n):.2f}' for n in NS)}. "
        "Made by `benchmarks/best_of_n.py`, which says what gold is."
    )
    write(
        options.out,
        "best-of-n",
        {"seeds": options.seeds, "table": table},
        f"{about}\n\n![curves](../../docs/images/best-of-n.svg)\n\n{markdown(table, 'proxy')}\n",
    )


if __name__ == "__main__":
    main()
