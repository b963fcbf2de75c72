"""PAMA against fixed weights and MGDA where two token rewards conflict: how large is the smaller one in the end?

    python benchmarks/pama.py [--quick] [--work build/pama]

A model of 16 words answers with 8 tokens; a token earns its part of the root of the share of h (first reward) or of c (second), so that no token
serves both, and the best answers lie on the circle x^2 + y^2 = 1: the largest least reward is 0.707. PPO with the leash 0.01 in the reward. Arms:
the rewards summed with weights (the usual way), their whitened advantages summed, MGDA on the output layer, and PAMA in its three readings, once
with a moving mean and once without whitening. Every arm has the same two learning rates, tuned by the least reward on one seed that is not
reported; the weights (.1, .9) take the rate of (.9, .1), their mirror image. Then five seeds.
Controls that would catch a fake: a coin in place of PAMA's rule (which reward an update pushes follows from the digits of the means, not their
order), and PAMA with the rewards dealt out to other answers, from which nothing can be learnt.

Writes benchmarks/results/pama.{json,md,svg}. Runs that are done stay done: a stopped script goes on.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import flags, write
from online_toys import make_prompts, train_toy
from places import RESULTS, ROOT, describe_processor
from tables import shown
from torch import Tensor

from finegrain.online.combine import Combination, SumAdvantages, SumRewards
from finegrain.online.leash import InReward
from finegrain.online.mgda import MGDA
from finegrain.online.mixture import LossMixture
from finegrain.online.pama import PAMA, LeastPerToken, MovingMean, OneScalar
from finegrain.online.ppo import PPO
from finegrain.online.whiten import Unwhitened, Whitening, WhitenUnbiased
from finegrain.ops.stats import mean_interval

REWARDS = ROOT / "benchmarks" / "two_rewards.py"
TRUE, SHUFFLED = ("root_of_h", "root_of_c"), ("shuffled_h", "shuffled_c")
RATES = (3e-3, 1e-2)
TUNING = 11
"""Seed."""
LAST = 5
"""Buffers whose mean is the end of a run."""


@dataclass(frozen=True, kw_only=True)
class Coin(PAMA):
    """The rule's place taken by a coin: which reward an update pushes follows from the digits of the means, not from their order."""

    def mix(self, advantages: Tensor, mask: Tensor, means: Tensor) -> LossMixture:
        """One reward alone."""
        return LossMixture(toss(means).to(advantages), self.clean(advantages, mask))

    def facts(self, means: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Its weight."""
        return {f"pama/c/{name}": weight for name, weight in zip(names, toss(means), strict=True)}


def toss(means: Tensor) -> Tensor:
    """Weight 1 for one of them, which the digits decide."""
    weights = torch.zeros_like(means)
    weights[zlib.crc32(means.detach().cpu().double().numpy().tobytes()) % len(weights)] = 1.0
    return weights


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to have two rewards."""

    combination: Combination
    weights: tuple[float, float] | None = None
    rewards: tuple[str, str] = TRUE
    whitening: Whitening = field(default_factory=WhitenUnbiased)
    tuned_as: str = ""
    """The arm whose learning rate it takes; empty: its own."""


ARMS: Mapping[str, Arm] = {
    "weights .9, .1": Arm(combination=SumRewards(), weights=(0.9, 0.1)),
    "weights .5, .5": Arm(combination=SumRewards(), weights=(0.5, 0.5)),
    "weights .1, .9": Arm(combination=SumRewards(), weights=(0.1, 0.9), tuned_as="weights .9, .1"),
    "advantages .5, .5": Arm(combination=SumAdvantages(), weights=(0.5, 0.5)),
    "mgda": Arm(combination=MGDA()),
    "pama (w)": Arm(combination=PAMA()),
    "pama (w), moving mean": Arm(combination=PAMA(average=MovingMean())),
    "pama (w), not whitened": Arm(combination=PAMA(), whitening=Unwhitened()),
    "pama (t)": Arm(combination=PAMA(reading=LeastPerToken())),
    "pama (s)": Arm(combination=PAMA(reading=OneScalar())),
    "coin": Arm(combination=Coin()),
    "pama (w), shuffled": Arm(combination=PAMA(), rewards=SHUFFLED, tuned_as="pama (w)"),
}


def run(work: Path, name: str, seed: int, rate: float, buffers: int) -> dict[str, list[float]]:
    """Both rewards, the KL and the share of updates that pushed the second reward, by buffer."""
    arm = ARMS[name]
    done = work / f"{''.join(letter for letter in name if letter.isalnum())}-{buffers}-{rate:g}-{seed}.json"
    if done.exists():
        return json.loads(done.read_text())  # type: ignore[no-any-return]
    lines = train_toy(
        work,
        done.stem,
        make_prompts(work, 4),
        seed=seed,
        rate=rate,
        tokens=8,
        buffers=float(buffers),
        per_buffer=4,
        reward=[f"{REWARDS}:{reward}" for reward in arm.rewards],
        reward_weights=arm.weights or (),
        algorithm=PPO(combination=arm.combination, whitening=arm.whitening, epochs=2),
        leash=InReward(beta=0.01),
    )
    first = [line for line in lines if "buffer" in line]
    found = {key: [line[f"rewards/{reward}/mean"] for line in first] for key, reward in zip("xy", arm.rewards, strict=True)}
    second = [line[key] for line in lines for key in line if key.endswith(f"/c/{arm.rewards[1]}")]
    found |= {"kl": [line["kl"] for line in first], "second": second, "seconds": [sum(line["step_seconds"] for line in lines)]}
    done.write_text(json.dumps(found))
    return found


def end(found: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Both rewards at the end of a run."""
    return float(np.mean(found["x"][-LAST:])), float(np.mean(found["y"][-LAST:]))


def compare(work: Path, seeds: Sequence[int], buffers: int) -> dict[str, Any]:
    """Ends of all arms at their best rates, and differences of the least reward from the arm of (.9, .1) and from the coin."""
    trials = {name: {rate: min(end(run(work, name, TUNING, rate, buffers))) for rate in RATES} for name, arm in ARMS.items() if not arm.tuned_as}
    best = {name: max(own, key=own.__getitem__) for name, own in trials.items()}
    rates = {name: best[arm.tuned_as or name] for name, arm in ARMS.items()}
    runs = {name: [run(work, name, seed, rates[name], buffers) for seed in seeds] for name in ARMS}
    ends = {name: [end(one) for one in own] for name, own in runs.items()}
    least = {name: [min(one) for one in own] for name, own in ends.items()}
    return {
        "buffers": buffers,
        "rates": rates,
        "trials": {name: {f"{rate:g}": value for rate, value in own.items()} for name, own in trials.items()},
        "ends": ends,
        "second": {name: [float(np.mean(one["second"])) if one["second"] else None for one in own] for name, own in runs.items()},
        "kl": {name: [float(np.mean(one["kl"][-LAST:])) for one in own] for name, own in runs.items()},
        "seconds": {name: [one["seconds"][0] for one in own] for name, own in runs.items()},
        "differences": {
            other: {name: mean_interval([a - b for a, b in zip(least[name], least[other], strict=True)]).as_json() for name in ARMS if name != other}
            for other in ("weights .9, .1", "weights .5, .5", "coin")
        },
    }


def report(found: Mapping[str, Any]) -> str:
    """The page."""
    lines = [
        "# PAMA where two token rewards conflict", "", describe_processor()["processor"] + ".", "",
        f"{found['buffers']} buffers of 32 answers of 8 tokens, PPO, two passes; means over {len(found['ends']['mgda'])} seeds of the last {LAST} "
        "buffers, 95 % intervals. The best answers have x^2 + y^2 = 1, so that no least reward is above 0.707.", "",
        "| arm | rate | first reward | second reward | least reward | less that of (.9, .1) | less that of the coin | pushed the second | KL |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, ends in found["ends"].items():
        first, second, least = (shown(mean_interval(values)) for values in ([x for x, _ in ends], [y for _, y in ends], [min(one) for one in ends]))
        against = [
            difference(found["differences"][other][name]) if name != other else "" for other in ("weights .9, .1", "coin")
        ]  # fmt: skip
        pushed = [share for share in found["second"][name] if share is not None]
        share = f"{np.mean(pushed):.2f}" if pushed else ""
        numbers = f"{first} | {second} | {least} | {against[0]} | {against[1]} | {share} | {np.mean(found['kl'][name]):.3f}"
        lines.append(f"| {name} | {found['rates'][name]:g} | {numbers} |")
    return "\n".join([*lines, "", "![Both rewards at the end of every run](pama.svg)", ""])


def difference(one: Mapping[str, Any]) -> str:
    """Mean and half width of a paired difference."""
    half = "" if one["low"] is None else f" ± {(one['high'] - one['low']) / 2:.3f}"
    return f"{one['mean']:+.3f}{half}"


COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#999933", "#ee6677", "#aa3377", "#882255", "#ff8800", "#332288", "#777777", "#bbbbbb")


def draw(ends: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """A point per run, and the front as an arc."""
    side, edge = 420, 46
    place = lambda x, y: (edge + x * side, edge + (1 - y) * side)
    (left, top), (right, bottom) = place(0, 1), place(1, 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + 260} {side + 2 * edge}" font-family="sans-serif" font-size="12">',
        f'<rect width="{side + 260}" height="{side + 2 * edge}" fill="white"/>',
        f'<path d="M {left} {top} A {side} {side} 0 0 1 {right} {bottom}" fill="none" stroke="black" stroke-dasharray="5 4"/>',
        f'<path d="M {left} {top} V {bottom} H {right}" fill="none" stroke="black"/>',
        f'<text x="{left + side / 2}" y="{bottom + 34}" text-anchor="middle">first reward</text>',
        f'<text x="14" y="{top + side / 2}" text-anchor="middle" transform="rotate(-90 14 {top + side / 2})">second reward</text>',
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        (x, _), (_, y) = place(tick, 0), place(0, tick)
        parts += [
            f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>',
        ]
    for number, (colour, (name, points)) in enumerate(zip(COLOURS, ends.items(), strict=True)):
        for x, y in points:
            at = place(x, y)
            parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="5" fill="{colour}" fill-opacity="0.75"/>')
        row = edge + 20 * number
        parts += [f'<circle cx="{right + 24}" cy="{row}" r="5" fill="{colour}"/>', f'<text x="{right + 36}" y="{row + 4}">{name}</text>']
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """All arms."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--quick", action="store_true", help="two seeds of four buffers: whether everything runs")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "pama")
    asked = parser.parse_args()
    (asked.work / "runs").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found = compare(asked.work, (1, 2) if asked.quick else (1, 2, 3, 4, 5), 4 if asked.quick else 30)
    out = asked.work if asked.quick else asked.out
    write(out, "pama", found, report(found))
    (out / "pama.svg").write_text(draw(found["ends"]))
    print(report(found))


if __name__ == "__main__":
    main()
