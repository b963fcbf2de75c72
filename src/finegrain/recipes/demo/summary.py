"""From seeds to a table: means, paired differences with intervals, and one sentence that follows from the intervals."""

from collections.abc import Mapping, Sequence

from finegrain.ops.stats import mean_interval
from finegrain.recipes.demo.rows import BASELINE, LARGER_BASELINE, ROWS, DemoRow
from finegrain.types import Json

MEASURES = ("quality_within_1", "quality_within_4", "chosen_within_1", "credit_auroc")
VERDICT = "quality_within_1"
"""What the sentence in words is about."""


def summarise(seeds: Sequence[Json]) -> Json:
    """By row name: an interval over seeds of every measure, and of the paired difference of quality to both baselines."""
    return {row.name: _row(row.name, seeds) for row in ROWS}


def _row(name: str, seeds: Sequence[Json]) -> Json:
    def of(row: str, measure: str) -> list[float | None]:
        return [seed["rows"][row][measure] for seed in seeds]

    measured = {measure: _interval(of(name, measure)) for measure in MEASURES}
    against = {
        f"{measure} - {baseline.name}": _interval(_differences(of(name, measure), of(baseline.name, measure)))
        for measure in ("quality_within_1", "quality_within_4")
        for baseline in (BASELINE, LARGER_BASELINE)
        if baseline.name != name
    }
    return {**measured, "paired": against}


def _differences(values: Sequence[float | None], others: Sequence[float | None]) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(values, others, strict=True)]


def _interval(values: Sequence[float | None]) -> Json | None:
    """Mean and 95 % interval; None unless every seed has a value: a row that was refused has none."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return mean_interval(known).as_json()


def baselines(seeds: Sequence[Json]) -> dict[str, Json | None]:
    """By name, an interval over seeds of the AUROC of scores that read no model."""
    return {name: _interval([seed["baseline_aurocs"][name] for seed in seeds]) for name in seeds[0]["baseline_aurocs"]}


def baselines_in_words(found: Mapping[str, Json | None]) -> str:
    """What a credit AUROC has to beat."""
    return f"Credit AUROC of baselines that read no model: {', '.join(f'{name} {shown(interval)}' for name, interval in found.items())}."


def verdict(summary: Mapping[str, Json]) -> str:
    """What helped, what hurt and what stayed open against plain dpo on the same pairs, from the paired 95 % intervals alone."""
    kinds: dict[str, list[str]] = {"helped": [], "hurt": [], "made no difference that these seeds can show": [], "could not be compared": []}
    for row in ROWS:
        if row is BASELINE or row.oracle:
            continue
        kinds[_kind(summary[row.name]["paired"][f"{VERDICT} - {BASELINE.name}"])].append(row.name)
    said = "; ".join(f"{kind}: {', '.join(f'`{name}`' for name in names)}" for kind, names in kinds.items() if names)
    return f"Within 1 nat of the base, against dpo on the same pairs, {said}."


def _kind(difference: Json | None) -> str:
    if difference is None or difference["low"] is None:
        return "could not be compared"
    return "helped" if difference["low"] > 0 else "hurt" if difference["high"] < 0 else "made no difference that these seeds can show"


def cells(summary: Mapping[str, Json]) -> list[list[str]]:
    """The table as text, its header first."""
    header = ["method", "knows", "within 1 nat", "minus dpo", "within 4 nats", "minus dpo", "credit AUROC", "chosen moved"]
    return [header, *(_line(row, summary[row.name]) for row in ROWS)]


def _line(row: DemoRow, own: Json) -> list[str]:
    def gain(measure: str) -> str:
        return "" if row is BASELINE else shown(own["paired"][f"{measure} - {BASELINE.name}"], sign=True)

    return [
        row.name,
        row.knows,
        shown(own["quality_within_1"]),
        gain("quality_within_1"),
        shown(own["quality_within_4"]),
        gain("quality_within_4"),
        "" if own["credit_auroc"] is None else shown(own["credit_auroc"]),
        shown(own["chosen_within_1"], sign=True),
    ]


def shown(interval: Json | None, *, sign: bool = False) -> str:
    """A mean with its interval; why there is none where there is none."""
    if interval is None:
        return "refused"
    number = "+.2f" if sign else ".2f"
    if interval["low"] is None:
        return f"{interval['mean']:{number}} (one seed)"
    return f"{interval['mean']:{number}} ± {interval['high'] - interval['mean']:.2f}"


def markdown(summary: Mapping[str, Json], *, about: str, beside: str) -> str:
    """demo.md; `beside`: what stands below the table."""
    header, *lines = cells(summary)
    table = [header, ["---"] * len(header), *lines]
    text = "\n".join(f"| {' | '.join(line)} |" for line in table)
    return f"# What token credit did on planted data\n\n{about}\n\n{text}\n\n{beside}\n\n{verdict(summary)}\n"
