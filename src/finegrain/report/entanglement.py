"""Gradient entanglement on the page: the finding, and one pair token by token with a sentence on what ties its answers together."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from finegrain.diagnose.entanglement import BOTH_FALL, BOTH_RISE, IDEAL, REVERSED, assess_entanglement, name_case
from finegrain.ops.stats import mean_interval
from finegrain.report.block import Block
from finegrain.report.gradients import GradientFindings
from finegrain.report.numbers import MINUS, format_interval, format_number, format_percent
from finegrain.report.read import Run
from finegrain.report.visible import clip_text
from finegrain.terminal import make_visible
from finegrain.train.entanglement import MeasuredPair, TokenMap

LOOSE = "The tie is too weak to turn a step around. "
LOOSEN = (
    "What would loosen it: normalised gradients (objective:pngd); a loss that pulls the chosen answer harder than it pushes the rejected one "
    "(objective:dpop, objective:cpo); or weights that drop shared tokens (objective:token-sparsity, credit:compose credit.signal:least-edit)."
)
CELL = 0.05
"""Cosines nearer to 0 than this have no colour."""
PIECE = 24
"""Maximum number of characters of a token at the edge of the map."""
TOLD = 3
"""Tokens that the sentence names."""


@dataclass(frozen=True)
class TokenPicture:
    """The cosines of every two tokens of a pair's answers, as a table of the page."""

    row: int
    chosen: list[str]
    rejected: list[str]
    cells: list[list[tuple[str, str]]]
    """By chosen and rejected token, the class of the cell and its number."""
    words: str


def report_entanglement(run: Run) -> Block | None:
    """Whether steps on single pairs move both answers as wanted."""
    found = run.gradients
    if found is None:
        return None
    whole = assess_entanglement([pair.predicted for pair in found.pairs], [pair.observed for pair in found.pairs])
    names = {
        IDEAL: "chosen rises, rejected falls",
        BOTH_FALL: "both fall",
        BOTH_RISE: "both rise",
        REVERSED: "chosen falls, rejected rises",
    }
    numbers = [format_interval(f"pairs whose step means: {names[case]}", share, "", share=True) for case, share in whole.shares.items()]
    numbers.append(format_interval("cosine of both gradients", mean_interval([pair.gradients.cosine for pair in found.pairs]), "", signed=True))
    larger = mean_interval([np.log2(max(pair.gradients.rejected_norm, 1e-30) / max(pair.gradients.chosen_norm, 1e-30)) for pair in found.pairs])
    numbers.append(format_interval("rejected gradient over chosen one, in doublings", larger, "", signed=True))
    if whole.agreement is not None:
        numbers.append(format_interval("answers that moved as predicted", whole.agreement, "", over="answers", share=True))
    worst = sorted(zip(found.pairs, found.steps, strict=True), key=lambda one: -one[0].gradients.condition_ratio)[:3]
    told = "; ".join(_describe(pair, step) for pair, step in worst)
    notes = [f"Most entangled: {told}.", _origin(found)]
    return Block(title="Gradient entanglement", verdict=whole.verdict, words=whole.words, numbers=numbers, notes=notes)


def _describe(pair: MeasuredPair, step: int) -> str:
    where = f"row {pair.row}" + (f" at step {step}" if step else "")
    return f"{where}, condition ratio {format_number(pair.gradients.condition_ratio)} ({name_case(pair.predicted)})"


def _origin(found: GradientFindings) -> str:
    """What was measured, and what it does not say."""
    observed = (
        "by a trial step on each pair alone" if not any(found.steps) else "by the steps of training, whose other pairs and optimiser it leaves out"
    )
    return (
        f"Predicted to first order for plain gradient descent on {clip_text(found.objective, 60)}'s loss of one pair at a time, observed {observed}. "
        "The condition ratio is the inner product of both gradients over the smaller squared norm: up to 1, a loss that pulls both answers alike "
        "raises the chosen and lowers the rejected one. "
        "Intervals: Wilson for shares, Student t for means; a pair measured at several steps counts each time."
    )


def draw_tokens(run: Run) -> TokenPicture | None:
    """The map of the measured pair, with its sentence."""
    found = run.gradients
    if found is None or found.tokens is None:
        return None
    cells = [[(_shade(value), f"{value:+.2f}".replace("-", MINUS)) for value in line] for line in found.tokens.cosines.tolist()]
    chosen, rejected = ([show_token(piece) for piece in pieces] for pieces in (found.tokens.chosen, found.tokens.rejected))
    pair = next((pair for pair in found.pairs if pair.row == found.tokens.row), None)
    return TokenPicture(found.tokens.row, chosen, rejected, cells, describe_ties(found.tokens, pair))


def describe_ties(found: TokenMap, pair: MeasuredPair | None) -> str:
    """Which tokens tie the two answers of a pair together, and what would loosen them."""
    total = float(found.gram.sum())
    over = "the first tokens of its answers" if found.cut else "its two answers"
    known = "" if pair is None else f" ({name_case(pair.predicted)}: condition ratio {format_number(pair.gradients.condition_ratio)})"
    if not total > 0:
        return f"Row {found.row}{known}: the gradients of {over} do not point the same way, so no tokens tie them together."
    shares = Counter[str]()
    for piece, share in zip(found.chosen, (found.gram.sum(1) / total).tolist(), strict=True):
        shares[piece] += share
    told = ", ".join(f"{show_token(piece)} ({format_percent(share)})" for piece, share in shares.most_common(TOLD) if share > 0)
    same = np.array([[one == other for other in found.rejected] for one in found.chosen])
    alike = format_percent(float(found.gram[same].sum()) / total)
    loose = pair is not None and name_case(pair.predicted) == IDEAL
    return (
        f"Row {found.row}{known}: of the chosen answer's tokens {told} tie {over} together most, as shares of their inner product; "
        f"occurrences of one token in both answers account for {alike} of it. {LOOSE if loose else ''}{LOOSEN}"
    )


def show_token(piece: str) -> str:
    """A token in quotes, for a sentence."""
    return f"“{clip_text(make_visible(piece), PIECE)}”" if piece else "(end or no characters)"


def _shade(cosine: float) -> str:
    level = 0 if not abs(cosine) >= CELL else min(5, 1 + int(abs(cosine) * 5))
    return "" if not level else f"{'p' if cosine > 0 else 'n'}{level}"
