"""PF-PPO: do filters rank as their R2, and does a filter help where the reward is noisy in the middle alone?

    python benchmarks/pf_ppo.py [--quick] [--work build/pf-ppo]

Answers are 8 words of 16; the true score is the share of good words less that of bad ones. One reward is right at both ends of its range and any
number in the middle; the control has errors of about that size everywhere. R2 is that of `finegrain online --filters`, on the start policy.

words: the policy is one table of 16 logits, its critic a value per place; every stage and loss is the library's, ten seeds.
model: a transformer of two layers (`online_toys.py`), trained by `finegrain.train_online`, five seeds, three filters.

Every filter has the same learning rates to choose from, tuned on two seeds that are not reported, by the mean true score over all buffers, which is
also what is compared, paired by seed with no filter. `even` draws with replacement without looking at the reward: what drawing costs.
Writes benchmarks/results/pf-ppo.{json,md}. Runs that are done stay done: a stopped script goes on.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filter_rewards
import numpy as np
import torch
from command import flags, fresh, write
from online_toys import make_model, make_prompts
from places import RESULTS, ROOT, describe_processor
from tables import shown

import finegrain
from finegrain.commands.online import OnlineTraining
from finegrain.commands.settings import Common
from finegrain.generate.sampling import Sampling
from finegrain.online.filter_r2 import FILTERS, compare_filters
from finegrain.online.leash import InReward
from finegrain.online.ppo import PPO
from finegrain.online.rollout import Rollout
from finegrain.online.select import KeepAll, Selection
from finegrain.online.stages import compute_update
from finegrain.ops.stats import mean_interval
from finegrain.types import Pair, SampledTokens, Side

REWARDS = {"middle": "noisy_in_the_middle", "evenly": "noisy_evenly"}
ARMS: dict[str, Selection] = {
    "none": KeepAll(),
    "even": FILTERS["none"],
    **{name: FILTERS[name] for name in ("best-only", "best-random", "best-worst", "power-1", "power-3")},
}
OF_MODEL = ("none", "best-random", "best-worst")
PLACES, WORDS, PROMPTS, ANSWERS = 8, 16, 8, 5
RATES = {"words": (0.1, 0.3), "model": (1e-3, 3e-3)}
BUFFERS = {"words": 40, "model": 20}
TUNING = {"words": (101, 102), "model": (101,)}


def kept(work: Path, name: str, make: Any) -> Any:
    """What a run gave, from its file where it is done."""
    done = work / f"{name}.json"
    if not done.exists():
        done.write_text(json.dumps(make()))
    return json.loads(done.read_text())


def scores(name: str, ids: torch.Tensor) -> torch.Tensor:
    """One number per answer."""
    return torch.tensor(getattr(filter_rewards, name)(ids.tolist()), dtype=torch.float32)


def train_words(selection: Selection, reward: str, rate: float, seed: int) -> list[float]:
    """Mean true score of every buffer."""
    generator = torch.Generator().manual_seed(seed)
    logits, values = torch.zeros(WORDS, requires_grad=True), torch.zeros(PLACES, requires_grad=True)
    optimiser = torch.optim.Adam([logits, values], lr=rate)
    algorithm, count = PPO(epochs=2), PROMPTS * ANSWERS
    stages = algorithm.stages(leash=InReward(beta=0.01), selection=selection)
    loss, state, found = algorithm.policy_loss(stages), stages.start(), []
    mask, start = torch.ones(count, PLACES, dtype=torch.bool), torch.full((count, PLACES), -float(np.log(WORDS)))
    for buffer in range(BUFFERS["words"]):
        ids = torch.multinomial(logits.detach().softmax(-1).expand(count, -1), PLACES, replacement=True, generator=generator)
        found.append(float(scores("true_score", ids).mean()))
        old, before = logits.detach().log_softmax(-1)[ids], values.detach().expand(count, PLACES)[..., None].clone()
        rollout = Rollout(
            group=torch.arange(count) // ANSWERS, mask=mask, ended=torch.ones(count, dtype=torch.long), old_logp=old, ref_logp=start,
            values=before, sequence=scores(reward, ids)[:, None], tokens=torch.zeros(count, PLACES, 1),
        )  # fmt: skip
        update = compute_update(rollout, stages, state, seed=(seed, buffer))
        state, rows = update.state, torch.arange(count) if update.rows is None else update.rows
        for _ in range(algorithm.updates):
            assert update.returns is not None
            sampled = SampledTokens(old[rows], update.advantage[rows], update.returns[rows], before[rows])
            predicted = values.expand(len(rows), PLACES)[..., None]
            side = Side(logp=logits.log_softmax(-1)[ids[rows]], mask=mask[rows], values=predicted, sampled=sampled)
            terms = loss(Pair(sides={"answer": side}))
            optimiser.zero_grad()
            torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return found


def online(work: Path, name: str, reward: str, seed: int, rate: float, *, epochs: float, **settings: Any) -> Any:
    """A run of the model by the library's own command."""
    functions = ROOT / "benchmarks" / "filter_rewards.py"
    model, tokenizer = make_model(seed)
    return finegrain.train_online(
        model,
        make_prompts(work, PROMPTS),
        fresh(work / "runs" / name),
        reward=f"{functions}:{reward}",
        gold=(f"{functions}:true_score",),
        algorithm=PPO(epochs=2),
        leash=InReward(beta=0.01),
        tokenizer=tokenizer,
        sampling=Sampling(answers=ANSWERS, max_new_tokens=PLACES),
        common=Common(lr=rate, seed=seed, max_length=128, device="cpu"),
        training=OnlineTraining(prompts=PROMPTS, epochs=epochs, holdout=0.0, samples=0),
        **settings,
    )


def train_model(work: Path, name: str, selection: Selection, reward: str, rate: float, seed: int) -> list[float]:
    """Mean true score of every buffer."""
    online(work, name, reward, seed, rate, epochs=float(BUFFERS["model"]), selection=selection)
    lines = [json.loads(line) for line in (work / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    return [line["gold/true_score/mean"] for line in lines if "buffer" in line]


def r2_of_words(reward: str, seed: int) -> dict[str, float | None]:
    """R2 of every filter on 400 prompts of the start policy."""
    ids = torch.randint(0, WORDS, (400 * ANSWERS, PLACES), generator=torch.Generator().manual_seed(1000 + seed))
    group = torch.arange(len(ids)) // ANSWERS
    fits = compare_filters(FILTERS, scores(reward, ids), scores("true_score", ids), group, torch.ones(len(ids), dtype=torch.bool))
    return {name: fit.r2 for name, fit in fits.items()}


def r2_of_model(work: Path, reward: str, seed: int) -> dict[str, float | None]:
    """The same by `--filters` on 20 buffers of the start model."""
    found = online(work, f"filters-{reward}-{seed}", reward, seed, 1e-3, epochs=20.0, filters=True, filter_buffers=20)
    return {name: one["r2"] for name, one in found["filters"].items()}


def compare(work: Path, part: str, noise: str, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """R2 by filter, and the mean true score over all buffers by arm and seed at each arm's best rate."""
    reward = REWARDS[noise]

    def area(arm: str, rate: float, seed: int) -> float:
        name = f"{part}-{noise}-{arm}-{rate:g}-{seed}"
        train = (
            (lambda: train_words(ARMS[arm], reward, rate, seed))
            if part == "words"
            else lambda: train_model(work, name, ARMS[arm], reward, rate, seed)
        )
        return float(np.mean(kept(work, name, train)))

    rates = {arm: max(RATES[part], key=lambda rate, arm=arm: np.mean([area(arm, rate, seed) for seed in TUNING[part]])) for arm in arms}
    areas = {arm: [area(arm, rates[arm], seed) for seed in seeds] for arm in arms}
    numbers = [
        kept(work, f"r2-{part}-{noise}-{seed}", lambda seed=seed: r2_of_words(reward, seed) if part == "words" else r2_of_model(work, reward, seed))
        for seed in seeds
    ]
    r2 = {name: [one[name] for one in numbers if one[name] is not None] for name in FILTERS}
    return {"part": part, "noise": noise, "rates": rates, "areas": areas, "r2": r2}


def name_of_r2(arm: str) -> str:
    """The filter whose R2 belongs to an arm; drawing evenly is no filter."""
    return "none" if arm == "even" else arm


def rank_agreement(found: dict[str, Any]) -> float:
    """Spearman's correlation of mean R2 and mean score over the arms that a filter tells apart."""
    arms = [arm for arm in found["areas"] if arm != "even" and found["r2"][name_of_r2(arm)]]
    order = lambda values: np.argsort(np.argsort(values))
    r2, area = (
        [float(np.mean(own)) for own in rows] for rows in zip(*((found["r2"][name_of_r2(arm)], found["areas"][arm]) for arm in arms), strict=True)
    )
    return float(np.corrcoef(order(r2), order(area))[0, 1])


def table(found: dict[str, Any]) -> list[str]:
    """A part of the page."""
    where = "in the middle alone" if found["noise"] == "middle" else "everywhere alike (control)"
    lines = [
        f"## {found['part']}: noise {where}", "",
        "| filter | R2 on the start policy | learning rate | mean true score over all buffers | less no filter |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    plain = found["areas"]["none"]
    for arm, own in found["areas"].items():
        r2 = found["r2"][name_of_r2(arm)]
        gain = "" if arm == "none" else shown(mean_interval([one - other for one, other in zip(own, plain, strict=True)]))
        number = shown(mean_interval(r2)) if r2 else "undefined"
        lines.append(f"| {arm} | {number} | {found['rates'][arm]:g} | {shown(mean_interval(own))} | {gain} |")
    return [*lines, "", f"Rank correlation of R2 and true score over the filters: {rank_agreement(found):.2f}.", ""]


def main() -> None:
    """Both parts under both kinds of noise."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help="few seeds of the words, two runs of the model; nothing is written")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "pf-ppo")
    asked = parser.parse_args()
    work = asked.work
    (work / "runs").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if asked.quick:
        BUFFERS.update(words=20, model=3)
        RATES.update(words=(0.1,), model=(3e-3,))
    found = [compare(work, "words", noise, list(ARMS), range(3) if asked.quick else range(10)) for noise in REWARDS]
    found += [compare(work, "model", noise, OF_MODEL[:2] if asked.quick else OF_MODEL, range(2) if asked.quick else range(5)) for noise in REWARDS]
    about = (
        f"{describe_processor()['processor']}. Buffers of {PROMPTS} prompts with {ANSWERS} answers each, {BUFFERS['words']} for the words and "
        f"{BUFFERS['model']} for the model; ± is half of a 95 % interval over seeds."
    )
    page = "\n".join(["# PF-PPO's filters and their R2", "", about, "", *(line for one in found for line in table(one))])
    if asked.quick:
        print(page)
    else:
        write(asked.out, "pf-ppo", found, page)


if __name__ == "__main__":
    main()
