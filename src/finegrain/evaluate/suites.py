"""From scores of answers to the lines of a table: plain pairs, RewardBench, RewardBench 2.

Source: the rules of `rewardbench` and `rewardbench2`.
Deviations: lines by subset and by length of plain pairs are ours [OURS].
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from finegrain.errors import DataError
from finegrain.evaluate.accuracy import TieRule, accuracy_by_length
from finegrain.evaluate.rewardbench import PRIOR_AVERAGED, PRIOR_REMOVED, rewardbench
from finegrain.evaluate.rewardbench2 import SUBSETS, average_subsets, best_of_credit, ties_prompt, ties_score
from finegrain.evaluate.tables import Line, make_lines
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval

TIES = "Ties"


class Item(NamedTuple):
    """One prompt of a test set."""

    name: str
    subset: str
    """Empty where the data have none."""
    right: int
    """How many of the answers, the first ones, are right."""
    lengths: tuple[int, ...]
    """Characters of the answers."""


Scores = Sequence[Float[np.ndarray, " _"]]
"""By item, a score per answer."""
Suite = Callable[[Sequence[Item], Scores, TieRule], list[Line]]


def score_pairs(items: Sequence[Item], scores: Scores, rule: TieRule) -> list[Line]:
    """Accuracy over all pairs, by subset where there are several, and by which answer is longer."""
    credit = rule(*_columns(scores))
    names = np.array([item.subset for item in items], dtype=object)
    found = [Line("all rows", wilson(credit), "")]
    if len(set(names)) > 1:
        found += [Line(f"  {name or 'no subset'}", wilson(credit[names == name]), "") for name in sorted(set(names))]
    return found + _by_length(items, credit)


def score_rewardbench_1(items: Sequence[Item], scores: Scores, rule: TieRule) -> list[Line]:
    """Score, sections, subsets; earlier test sets count as in the benchmark."""
    names = np.array([item.subset for item in items], dtype=object)
    earlier = np.isin(names, PRIOR_AVERAGED)
    own = ~earlier & ~np.isin(names, PRIOR_REMOVED)
    chosen, rejected = _columns(scores)
    prior = {name: wilson(rule(chosen[names == name], rejected[names == name])) for name in PRIOR_AVERAGED if (names == name).any()}
    result = rewardbench(chosen[own], rejected[own], names[own].tolist(), prior=prior or None, rule=rule)
    removed = int(np.isin(names, PRIOR_REMOVED).sum())
    found = make_lines(result) + [Line(f"  {name}", share, "a prior set") for name, share in prior.items()]
    if removed:
        found[0] = found[0]._replace(note=f"{found[0].note}; {removed} rows of {', '.join(PRIOR_REMOVED)} left out".removeprefix("; "))
    return found + _by_length([item for item, kept in zip(items, own, strict=True) if kept], rule(chosen[own], rejected[own]))


def score_rewardbench_2(items: Sequence[Item], scores: Scores, rule: TieRule) -> list[Line]:
    """Mean of the subsets, the subsets, and the parts of the Ties score; equal maxima share the credit, whatever the rule for pairs."""
    found: dict[str, Interval] = {}
    notes: dict[str, str] = {}
    for subset in SUBSETS:
        own = [(item, values) for item, values in zip(items, scores, strict=True) if item.subset == subset]
        if not own:
            continue
        if subset != TIES:
            found[subset] = wilson(best_of_credit([values.tolist() for _, values in own]))
            continue
        prompts = [ties_prompt(item.name, item.right, values.tolist()) for item, values in own]
        try:
            ties = ties_score(prompts)
        except DataError as error:
            notes["overall"] = f"without Ties: {error}"
            continue
        found[subset] = ties.score
        notes[subset] = f"tied {ties.tied_accuracy:.3f}, single {ties.single_accuracy:.3f}, clear {ties.clear_gap:.3f}, in both {ties.clear_both:.3f}"
    if not found:
        raise DataError(f"no row has a known subset; expected {', '.join(SUBSETS)}")
    absent = [subset for subset in SUBSETS if subset not in found]
    if absent and "overall" not in notes:
        notes["overall"] = f"incomplete: no {', '.join(absent)}"
    unknown = [item.subset for item in items if item.subset not in SUBSETS]
    if unknown:
        names = ", ".join(name or "no subset" for name in sorted(set(unknown)))
        notes["overall"] = f"{notes.get('overall', '')}; {len(unknown)} rows of {names} left out".removeprefix("; ")
    return [
        Line("score", average_subsets(found), notes.get("overall", "")),
        *(Line(name, share, notes.get(name, "")) for name, share in found.items()),
    ]


def compare_answers(items: Sequence[Item], scores: Scores) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Scores of every right answer and every wrong one of the same prompt; without the Ties subset, where right answers need not differ."""
    both = [
        (good, bad)
        for item, values in zip(items, scores, strict=True)
        if item.subset != TIES
        for good in values[: item.right]
        for bad in values[item.right :]
    ]
    chosen, rejected = np.array(both, dtype=float).reshape(-1, 2).T
    return chosen, rejected


def _columns(scores: Scores) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    chosen, rejected = np.array([values[:2] for values in scores], dtype=float).reshape(-1, 2).T
    return chosen, rejected


def _by_length(items: Sequence[Item], credit: Float[np.ndarray, " N"]) -> list[Line]:
    chosen, rejected = np.array([item.lengths[:2] for item in items], dtype=float).reshape(-1, 2).T
    return [Line(name, share, "") for name, share in accuracy_by_length(credit, chosen, rejected).items() if share.rows]
