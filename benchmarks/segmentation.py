"""How often does a segment's mean reward have the sign of the truth? Segmentations of a simulated noisy token reward.

A simulation [OURS]: 400 responses of 40 to 120 tokens, true token reward constant on segments of about 9 tokens whose sign
alternates, plus normal noise; geometric segments, magnitudes uniform in [.5, 1.5]; a second
world with normal levels shows how much hangs on that. ChangePoint's price was set on seeds 100 to 107, which are not reported.

    python benchmarks/segmentation.py            writes benchmarks/results/segmentation.json and .md, under two minutes on one core
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from finegrain.ops.segmenters import ChangePoint, Dynamic, Segmenter, Tokens, Whole, Windows
from finegrain.ops.segments import segment_mean

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.command import flags, write

RESPONSES, SHORTEST, LONGEST, BORDER = 400, 40, 120, 0.09
NOISES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SEEDS = 10
SEGMENTERS: dict[str, Segmenter] = {
    "sequence": Whole(),
    "token": Tokens(),
    "fixed-10": Windows(size=10),
    "fixed-5": Windows(size=5),
    "pivots h=1": Dynamic(),
    "pivots h=5": Dynamic(window=5),
    "change-point": ChangePoint(),
}
RIVALS = ("fixed-10", "fixed-5", "pivots h=1", "pivots h=5")
EARLIER = {
    "1.0": [0.636, 0.834, 0.813, 0.864, 0.886, 0.904, None, 0.984],
    "2.0": [0.603, 0.685, 0.755, 0.768, 0.748, 0.766, None, 0.915],
}
"""Figures of an earlier run of ours with the same description, whose script was not kept, in the order of the table."""

Levels = Callable[[torch.Generator], Tensor]


def alternating(generator: torch.Generator) -> Tensor:
    """Signs that alternate, magnitudes uniform in [.5, 1.5]."""
    first = torch.randint(0, 2, (RESPONSES, 1), generator=generator)
    signs = 1.0 - 2.0 * ((torch.arange(LONGEST) + first) % 2)
    return signs * (0.5 + torch.rand(RESPONSES, LONGEST, generator=generator, dtype=torch.float64))


def normal(generator: torch.Generator) -> Tensor:
    """Independent standard normal levels: neighbours may agree in sign, many are near 0."""
    return torch.randn(RESPONSES, LONGEST, generator=generator, dtype=torch.float64)


WORLDS: dict[str, Levels] = {"alternating": alternating, "normal": normal}


def simulate(levels: Levels, noise: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(observed reward, true reward, true segment ids), each (B, T); ids are -1 off the mask."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(SHORTEST, LONGEST + 1, (RESPONSES, 1), generator=generator)
    mask = torch.arange(LONGEST) < length
    starts = torch.rand(RESPONSES, LONGEST, generator=generator) < BORDER
    starts[:, 0] = True
    ids = starts.cumsum(1) - 1
    truth = levels(generator).gather(1, ids)
    observed = truth + noise * torch.randn(RESPONSES, LONGEST, generator=generator, dtype=torch.float64)
    return observed, truth, torch.where(mask, ids, -1)


def accuracy(observed: Tensor, truth: Tensor, ids: Tensor) -> float:
    """Share of tokens whose segment mean lies on the true side of 0: the keep decision of a chosen answer."""
    mask = ids >= 0
    return float(((segment_mean(observed, ids) > 0) == (truth > 0))[mask].double().mean())


def interval(values: np.ndarray) -> list[float]:
    """[mean, half width of the 95 % interval over seeds]."""
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return [round(float(values.mean()), 4), round(half, 4)]


def measure(levels: Levels, noise: float, seed: int) -> dict[str, float]:
    """Accuracy of every segmentation on one draw; the oracle knows the true segments."""
    observed, truth, ids = simulate(levels, noise, seed)
    found = {name: accuracy(observed, truth, segmenter(observed, ids >= 0)) for name, segmenter in SEGMENTERS.items()}
    return {**found, "oracle": accuracy(observed, truth, ids)}


def run(seeds: int) -> dict[str, object]:
    """Every world, noise and segmentation: means with 95 % intervals, and change-point against the best rival, paired by seed."""
    tables: dict[str, object] = {}
    for world, levels in WORLDS.items():
        rows = {}
        for noise in NOISES:
            draws = [measure(levels, noise, seed) for seed in range(seeds)]
            columns = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
            best = max(RIVALS, key=lambda name: columns[name].mean())
            row = {name: interval(values) for name, values in columns.items()}
            rows[str(noise)] = {**row, "best rival": best, "change-point minus best rival": interval(columns["change-point"] - columns[best])}
        tables[world] = rows
    return tables


def markdown(result: dict[str, object]) -> str:
    """The tables for a reader."""
    names = [*SEGMENTERS, "oracle"]
    lines = [f"Sign accuracy of the keep decision, mean ± 95 % interval over {result['seeds']} seeds of {RESPONSES} responses.", ""]
    for world, rows in result["tables"].items():  # type: ignore[attr-defined]
        lines += [f"**{world}**: {(WORLDS[world].__doc__ or '').rstrip('.')}", ""]
        lines += [f"| noise | {' | '.join(names)} | change-point − best fixed or pivot |", f"|{' --- |' * (len(names) + 2)}"]
        for noise, row in rows.items():
            difference, half = row["change-point minus best rival"]
            cells = [f"{row[name][0]:.3f} ± {row[name][1]:.3f}" for name in names]
            lines.append(f"| {noise} | {' | '.join(cells)} | {difference:+.3f} ± {half:.3f} ({row['best rival']}) |")
            if world == "alternating" and noise in EARLIER:
                given = ["—" if value is None else f"{value:.3f}" for value in EARLIER[noise]]
                lines.append(f"| {noise}, earlier | {' | '.join(given)} | |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    arguments = flags(__doc__, seeds=SEEDS, out=Path(__file__).parent / "results").parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    result = {"seeds": arguments.seeds, "responses": RESPONSES, "tables": run(arguments.seeds)}
    result["cpu_seconds"] = round(time.process_time() - started, 1)
    write(arguments.out, "segmentation", result, markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
