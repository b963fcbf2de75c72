"""The curves of best-of-n as a picture: gold score against n, with intervals.

    python benchmarks/best_of_n_figure.py

Reads benchmarks/results/best-of-n.json and writes docs/images/best-of-n.svg. Needs matplotlib and nothing else; TRL's environment has it (speed.py).
"""

import json

import matplotlib
from matplotlib.figure import Figure
from places import RESULTS, ROOT

CURVES = ("plain", "mean - 1 sd of the posterior", "mean - 3 sd of the posterior", "4 members, mean", "4 members, least", "gold (bound)")


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "best-of-n"
    table = json.loads((RESULTS / "best-of-n.json").read_text())["table"]
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in CURVES:
        points = {int(column.removeprefix("n = ")): value for column, value in table[name].items() if column.removeprefix("n = ").isdigit()}
        ns, means, halves = list(points), [mean for mean, _ in points.values()], [half for _, half in points.values()]
        style = {"color": "grey", "linestyle": "--"} if "bound" in name else {}
        (line,) = axes.plot(ns, means, marker="o", markersize=4, label=name, **style)
        low, high = ([mean + sign * half for mean, half in zip(means, halves, strict=True)] for sign in (-1, 1))
        axes.fill_between(ns, low, high, alpha=0.15, color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.set(xlabel="n", ylabel="gold score of the best of n", title="Best of n by a reward model of two layers, planted task")
    axes.legend(loc="lower left")
    figure.savefig(ROOT / "docs" / "images" / "best-of-n.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
