"""speed.json as a table (speed.md) and its growth curves as a picture (growth.svg): `python benchmarks/speed_report.py FOLDER`.

Run by speed.py with the interpreter of TRL's environment, which has matplotlib.
"""

import json
import sys
from pathlib import Path
from typing import Any

GIB = 2**30
SIDES = {"finegrain": "C0", "trl": "C1"}


def goal(value: float, target: float | None, *, at_least: bool) -> str:
    """The goal and whether it holds."""
    if target is None:
        return ""
    met = value >= target if at_least else value <= target
    return f" (goal {'≥' if at_least else '≤'} {target}: {'met' if met else 'missed'})"


def table(result: dict[str, Any]) -> list[str]:
    """One line per row."""
    lines = [
        "| row | pairs | ours, pairs/s | TRL, pairs/s | times | times by CPU seconds | times, whole process "
        "| ours, GiB | TRL, GiB | times memory | largest loss difference | of matmul rate |",
        f"|{' --- |' * 12}",
    ]
    for row in result["rows"]:
        ours, trl = row["best"]["finegrain"], row["best"]["trl"]
        times, share, goals = row["times_pairs_per_second"], row["times_peak_memory"], row["goals"]
        speed = f"**{times:.1f}**" + goal(times, goals["times_pairs_per_second"], at_least=True)
        process = row.get("times_wall_seconds")  # an older result has none
        whole = "not counted" if process is None else f"{process:.1f}" + goal(process, goals["times_wall_seconds"], at_least=True)
        memory = f"**{share:.2f}**" + goal(share, goals["times_peak_memory"], at_least=False)
        cells = [
            row["name"],
            str(row["pairs"]),
            f"{ours['pairs_per_second']:.2f}",
            f"{trl['pairs_per_second']:.2f}",
            speed,
            f"{row['times_pairs_per_cpu_second']:.1f}",
            whole,
            f"{ours['peak_bytes'] / GIB:.2f}",
            f"{trl['peak_bytes'] / GIB:.2f}",
            memory,
            f"{row['largest_loss_difference']:.1e}",
            f"{100 * row['utilisation']:.0f} %" if "utilisation" in row else "not counted",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def across(rows: list[dict[str, Any]]) -> list[str]:
    """Ours in bf16 against TRL in float32, per model (the first word of a row's name)."""
    lines = []
    for row in rows:
        if row["arithmetic"] == "bfloat16":
            model = row["name"].partition(",")[0].removesuffix(" bf16 autocast")
            full = next((other for other in rows if other["arithmetic"] == "float32" and other["name"].startswith(model)), None)
            if full is not None:
                times = row["best"]["finegrain"]["pairs_per_second"] / full["best"]["trl"]["pairs_per_second"]
                lines.append(f"- {model}: ours in bf16 against TRL in float32, {times:.1f} times the pairs/s.")
    return lines


def blocks(rows: list[dict[str, Any]]) -> list[str]:
    """Every block, so that the spread can be seen."""
    lines = [
        "| row | side | training, s | its CPU, s | reference pass apart, s | load, s | whole process, s | its CPU, s | load average before |",
        f"|{' --- |' * 9}",
    ]
    for row in rows:
        for side, runs in row["runs"].items():
            several = lambda name, runs=runs, digits=1: " / ".join(f"{run[name]:.{digits}f}" for run in runs)
            names = ("train_seconds", "train_cpu_seconds", "reference_seconds", "load_seconds", "wall_seconds", "cpu_seconds", "load_average_before")
            lines.append(f"| {row['name']} | {side} | {' | '.join(several(name) for name in names)} |")
    return lines


def growth_table(growth: dict[str, Any]) -> list[str]:
    """Both curves as numbers."""
    lines = ["| | ours, s/pair | TRL, s/pair | times | ours, GiB | TRL, GiB |", f"|{' --- |' * 6}"]
    for axis, label in (("prompt_tokens", "prompt of {} tokens"), ("vocabulary", "vocabulary of {}")):
        for value, point in growth[axis]["points"].items():
            ours, trl = point["finegrain"], point["trl"]
            times = trl["seconds_per_pair"] / ours["seconds_per_pair"]
            lines.append(
                f"| {label.format(value)} | {ours['seconds_per_pair']:.3f} | {trl['seconds_per_pair']:.3f} | {times:.1f} "
                f"| {ours['peak_bytes'] / GIB:.2f} | {trl['peak_bytes'] / GIB:.2f} |"
            )
    return lines


def plot(growth: dict[str, Any], file: Path) -> None:
    """Four panels: seconds per pair and peak memory against prompt length and vocabulary."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    fixed = {
        "prompt_tokens": f"prompt, tokens (vocabulary {growth['prompt_tokens']['vocabulary']})",
        "vocabulary": f"vocabulary (prompt {growth['vocabulary']['prompt_tokens']} tokens)",
    }
    for column, (axis, label) in enumerate(fixed.items()):
        points = growth[axis]["points"]
        values = [int(value) for value in points]
        for row, (name, unit, title) in enumerate((("seconds_per_pair", 1.0, "seconds per pair"), ("peak_bytes", GIB, "peak memory, GiB"))):
            panel = axes[row][column]
            for side, colour in SIDES.items():
                heights = [point[side][name] / unit for point in points.values()]
                panel.plot(values, heights, "o-", color=colour, label="TRL 1.16" if side == "trl" else side)
            panel.set_xscale("log", base=2)
            panel.set_xticks(values, [f"{value // 1024}k" if value >= 8192 else str(value) for value in values])
            panel.set_yscale("log")
            panel.set_ylabel(title)
            panel.set_xlabel(label)
            panel.grid(alpha=0.3, which="both")
    axes[0][0].legend()
    figure.savefig(file, metadata={"Date": None})


def section(result: dict[str, Any], out: Path) -> list[str]:
    """What one machine measured; its growth curves are drawn to `growth.svg`, the last machine's stay there."""
    versions = {name: version for side in result["versions"].values() for name, version in side.items()}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    lines = [
        f"## {result['processor']}, {result['cores']} cores",
        "",
        f"Processor flags: {', '.join(result['flags']) or 'not recorded'}. {result['date']}, {named}.",
        "",
    ]
    if "rows" in result:
        lines += [*table(result), "", *across(result["rows"]), "", "Blocks in the order they ran:", "", *blocks(result["rows"]), ""]
    if "growth" in result:
        growth = result["growth"]
        plot(growth, out / "growth.svg")
        lines += [f"Growth of cost, answers of {growth['answer_tokens']} tokens:", "", "![growth](growth.svg)", "", *growth_table(growth), ""]
    return lines


def main() -> None:
    out = Path(sys.argv[1])
    lines = ["Best of the blocks for speed, largest of the blocks for memory; how it is measured: docs/guides/speed.md.", ""]
    for result in json.loads((out / "speed.json").read_text()):
        lines += section(result, out)
    (out / "speed.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
