"""The verdict on a policy's recorded held-out results: whether it ranks unseen answers as labelled."""

from collections.abc import Mapping
from typing import Any

from finegrain.diagnose import confidence
from finegrain.diagnose.groups import FEWEST_ROWS
from finegrain.report.block import Block
from finegrain.report.numbers import format_recorded
from finegrain.report.read import Run

CHANCE: Mapping[str, float] = {"eval_accuracy": 0.5, "eval_auroc": 0.5, "eval_margin": 0.0}
"""The metrics that the verdict can use, of which the first recorded one counts, with their values at chance."""

BESIDE = ("eval_margin", "eval_margin_per_token", "eval_reward_accuracy", "eval_reward_margin", "eval_reward_std", "eval_reward_spread", "eval_loss")

WORDS = {
    confidence.RANKS: "On held-out rows, the policy prefers the good answers more often than chance.",
    confidence.REVERSED: "On held-out rows, the policy prefers the bad answers more often than chance; check whether labels are swapped.",
    confidence.GUESSES: "The policy's preference for the good answers of held-out rows is not distinguishable from chance at this number of rows.",
}
SCALES: Mapping[str, str] = {
    "eval_margin_per_token": "Without a reference, answers are compared by their mean log-probability per token: sums would depend on their lengths.",
    "eval_margin": "Answers are compared by beta times their log-ratio to the reference.",
}


def report_held_out(run: Run) -> Block | None:
    """The block; None for reward models, which have separate findings, and for runs that recorded no comparison."""
    results = run.record.evaluation
    if not isinstance(results, Mapping) or run.record.command == "reward":
        return None
    judged = next((name for name in CHANCE if _bounds(results.get(name)) is not None), None)
    if judged is None:
        return None
    low, high, rows = _bounds(results[judged]) or (0.0, 0.0, 0)
    chance = CHANCE[judged]
    verdict = confidence.RANKS if low > chance else confidence.REVERSED if high < chance else confidence.GUESSES
    if rows < FEWEST_ROWS:
        verdict = confidence.GUESSES
    shown = [name for name in dict.fromkeys((judged, *BESIDE)) if isinstance(results.get(name), Mapping)]
    return Block(
        title="Held-out rows",
        verdict=verdict,
        words=WORDS[verdict],
        numbers=[format_recorded(name, results[name], "") for name in shown],
        notes=[
            *(text for name, text in SCALES.items() if name in shown),
            f"The verdict uses the 95 % interval of {judged}; there is none on fewer than {FEWEST_ROWS} rows.",
        ],
    )


def _bounds(value: Any) -> tuple[float, float, int] | None:
    """(low, high, rows) of a recorded interval; None for anything else."""
    if not isinstance(value, Mapping):
        return None
    low, high, rows = (value.get(name) for name in ("low", "high", "rows"))
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and isinstance(rows, int):
        return float(low), float(high), rows
    return None
