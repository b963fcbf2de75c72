"""The rows: every use of the one scorer, by what it reads from it, and the two dpo baselines."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from finegrain.commands.bench import BenchCreditSettings, Oracle, OwnPairs
from finegrain.credit.asr import ASR
from finegrain.credit.confidence import Confidence
from finegrain.credit.signals import Column, Spans
from finegrain.credit.token_reward import TokenReward
from finegrain.errors import unknown_name
from finegrain.objectives.dpo import DPO
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.ops.segmenters import Tokens, Whole
from finegrain.recipes.bench.objectives import MarginRegression, SoftLabel


@dataclass(frozen=True)
class BenchRow:
    """One line of the table."""

    name: str
    level: Literal["labels", "answer", "token"]
    """What it reads: labels alone, the scorer's reward of whole answers, or of tokens."""
    objective: Callable[..., Any]
    """Made with the beta of a trial."""
    credit: Any = None
    data: Literal["pairs", "everything", "scored"] = "scored"
    """Which file of the seed it trains on."""
    use: str = ""
    """Its name as of --uses; the dpo baselines have none, since they always take part."""


DPO_ROW = BenchRow("dpo", "labels", DPO, data="pairs")
LARGER_DPO = BenchRow("dpo, all labels as pairs", "labels", DPO, data="everything")
"""The pool's labels are pairs; for marks and corrections, as many further pairs as people compare in the same time."""
SCORED = TokenReward(signal=Column())
USES = (
    BenchRow("soft label", "answer", SoftLabel, SCORED, use="soft-label"),
    BenchRow("margin regression", "answer", MarginRegression, SCORED, use="margin"),
    BenchRow("regression on the answer's reward", "answer", TokenDistillation, TokenReward(signal=Column(), segmenter=Whole()), use="answer"),
    BenchRow("hard mask (asr)", "token", DPO, ASR(signal=Column(), segmenter=Tokens(), min_kept=0.0, max_kept=1.0), use="asr"),
    BenchRow("soft weight (confidence)", "token", DPO, Confidence(signal=Spans(), min_kept=0.0, max_kept=1.0), use="confidence"),
    BenchRow("token targets, size 1", "token", TokenDistillation, SCORED, use="targets-1"),
    BenchRow("token targets, size 3", "token", TokenDistillation, TokenReward(signal=Column(), size=3.0), use="targets-3"),
)


def rows_of(settings: BenchCreditSettings) -> tuple[BenchRow, ...]:
    """The rows of a regime; where nobody gave a label beside the policy's pairs, both dpo rows are one. Raises UsageError for an unknown use."""
    known = [row.use for row in USES]
    if unknown := [name for name in settings.uses if name not in known]:
        raise unknown_name("use of a scorer", unknown[0], known)
    nothing_else = isinstance(settings.scorer, OwnPairs | Oracle)
    return (DPO_ROW, *(() if nothing_else else (LARGER_DPO,)), *(row for row in USES if row.use in (settings.uses or known)))
