"""The page: the regime, what was tuned, and for every number of pairs the rows with the labels that each of them cost."""

from collections.abc import Mapping, Sequence

from finegrain.commands.bench import BenchCreditSettings, Corrections, Oracle, Pool, SpanModel
from finegrain.data.planted import Planted
from finegrain.ops.stats import mean_interval
from finegrain.recipes.bench.rows import DPO_ROW, LARGER_DPO, BenchRow
from finegrain.recipes.bench.stages import Tuned
from finegrain.recipes.demo.summary import shown
from finegrain.types import Json

WITHIN = ("1", "4")
HEADER = (
    "row", "reads", "pairs the policy saw", "pairs given", "passages given", "human minutes", "within 1 nat", "minus dpo",
    "minus dpo on all labels", "within 4 nats", "minus dpo", "minus dpo on all labels", "pairs in order", "AUROC of token rewards",
)  # fmt: skip


def count_labels(row: BenchRow, facts: Sequence[Json], settings: BenchCreditSettings) -> Json:
    """Means over seeds of what the policy saw and of what anybody gave for this row, and the minutes that takes people."""
    pairs, further, spans = (sum(one[name] for one in facts) / len(facts) for name in ("pairs", "further_pairs", "spans"))
    uses_pool = row is LARGER_DPO or (bool(row.use) and isinstance(settings.scorer, Pool))
    seen, given = pairs + further if row is LARGER_DPO else pairs, pairs + further if uses_pool else pairs
    if row.data == "corrected":
        seen, given = sum(one["corrected"] for one in facts) / len(facts), 0.0
    passages = 0.0 if row.level == "labels" else spans
    minutes = (given * settings.seconds_per_pair + passages * settings.seconds_per_span) / 60
    return {"pairs_seen": seen, "pairs_given": given, "passages_given": passages, "human_minutes": minutes}


def summarise_rows(
    rows: Sequence[BenchRow], results: Mapping[str, Sequence[Json]], facts: Sequence[Json], settings: BenchCreditSettings
) -> list[Json]:
    """A line per row: labels, intervals over seeds, and differences paired by seed."""
    lines = []
    for row in rows:
        own: Json = {"row": row.name, "reads": row.level, **count_labels(row, facts, settings)}
        for kl in WITHIN:
            qualities = [result["quality"][kl] for result in results[row.name]]
            own[f"quality_within_{kl}"] = interval(qualities)
            for base in (DPO_ROW, LARGER_DPO):
                if base.name in results and base is not row:
                    others = [result["quality"][kl] for result in results[base.name]]
                    own[f"quality_within_{kl} - {base.name}"] = interval(
                        [None if one is None or other is None else one - other for one, other in zip(qualities, others, strict=True)]
                    )
        for name in ("accuracy", "auroc"):
            own[name] = interval([result[name] for result in results[row.name]])
        lines.append(own)
    return lines


def interval(values: Sequence[float | None]) -> Json | None:
    """Mean and 95 % interval; None unless every seed has a value."""
    known = [value for value in values if value is not None]
    return mean_interval(known).as_json() if known and len(known) == len(values) else None


def describe_regime(settings: BenchCreditSettings, planted: Planted) -> str:
    """The head of every table."""
    scorer = settings.scorer
    source = "a token model of the policy's own pairs"
    if isinstance(scorer, Pool):
        source = f"a token model of the pairs and a pool of {scorer.pairs} further pairs"
    elif isinstance(scorer, SpanModel | Corrections):
        kind = "marked sentences on" if isinstance(scorer, SpanModel) else "corrections of"
        source = f"a token model of the pairs and of {kind} {scorer.share:.0%} of the answers (annotator error {scorer.error:.0%})"
    elif isinstance(scorer, Oracle):
        source = "the truth (oracle)"
    opening = (
        f"a neutral opening before the chosen answer in {settings.shortcut:.0%} of the pairs, before the better answer in none of the tested ones"
        if settings.shortcut
        else "no shortcut"
    )
    return (
        f"Scorer: {source}. Label noise: temperature {settings.noise:g}. Context dependence: {settings.context:.0%} of the good and bad types. "
        f"Recurrence: {planted.sentence_types} sentence types, {planted.sentences} sentences per answer. Shortcut: {opening}. "
        f"Human minutes: {settings.seconds_per_pair:g} s per pair, {settings.seconds_per_span:g} s per passage [choice]."
    )


def render_table(lines: Sequence[Json], regime: str, title: str) -> list[str]:
    """One table of the page."""
    text = [f"## {title}", "", f"{regime}", "", f"| {' | '.join(HEADER)} |", f"|{' --- |' * len(HEADER)}"]
    for line in lines:
        cells = [line["row"], line["reads"], *(f"{line[name]:.0f}" for name in ("pairs_seen", "pairs_given", "passages_given", "human_minutes"))]
        for kl in WITHIN:
            cells.append(shown(line[f"quality_within_{kl}"]))
            cells += [shown(line[key], sign=True) if (key := f"quality_within_{kl} - {base.name}") in line else "" for base in (DPO_ROW, LARGER_DPO)]
        cells += ["" if line[name] is None else shown(line[name]) for name in ("accuracy", "auroc")]
        text.append(f"| {' | '.join(cells)} |")
    return [*text, ""]


def render_tuning(tuned: Tuned) -> list[str]:
    """Which trials every row had, and the best."""
    text = [
        f"Tuned for every row alike: rates {', '.join(f'{rate:g}' for rate in tuned.rates)} and betas "
        f"{', '.join(f'{beta:g}' for beta in tuned.betas)}, {len(tuned.rates) * len(tuned.betas)} trials; chosen by the mean of the qualities within "
        f"1 and 4 nats on seeds that are not reported. Best at the edge of the last grid: {', '.join(tuned.at_edge) or 'none'}.",
        "",
        "| row | rate | beta |",
        "| --- | --- | --- |",
    ]
    return [*text, *(f"| {name} | {trial.rate:g} | {trial.beta:g} |" for name, trial in tuned.trials.items()), ""]
