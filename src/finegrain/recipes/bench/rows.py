"""The rows: the two dpo baselines, other objectives by name, and every use of the one scorer, by what it reads from it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

from finegrain import catalog
from finegrain.commands.bench import BenchCreditSettings, Corrections, Oracle, OwnPairs
from finegrain.credit.asr import ASR
from finegrain.credit.confidence import Confidence
from finegrain.credit.signals import Column, Spans
from finegrain.credit.token_reward import TokenReward
from finegrain.errors import UsageError, unknown_name
from finegrain.objectives.advantage import MeanReward
from finegrain.objectives.alol import ALoL, Seq
from finegrain.objectives.dpo import DPO
from finegrain.objectives.figa import FIGA, Pairs
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.ops.segmenters import Tokens, Whole
from finegrain.recipes.bench.objectives import MarginRegression, SoftLabel
from finegrain.train.read_contract import contract_of


@dataclass(frozen=True)
class BenchRow:
    """One line of the table."""

    name: str
    level: Literal["labels", "corrections", "answer", "token"]
    """What it reads: labels alone, corrected answers, the scorer's reward of whole answers, or of tokens."""
    objective: Callable[..., Any]
    """Made with the beta of a trial."""
    credit: Any = None
    data: Literal["pairs", "everything", "corrected", "answers", "scored"] = "scored"
    """Which file of the seed it trains on."""
    use: str = ""
    """Its name as of --uses; rows that use no scorer have none, and are always measured."""


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


SCALES = {"cpl": ("score", "alpha"), "lcpo": ("base", "beta"), "pngd": ("base", "beta"), "rrhf": ("nll",), "figa": ("removed",)}
"""The setting that takes a trial's beta, where `beta` does not: the scale of the log-ratios, else the weight of a part of the loss."""


def rows_of(settings: BenchCreditSettings) -> tuple[BenchRow, ...]:
    """The rows of a regime; where nobody gave a label beside the policy's pairs, both dpo rows are one. Raises UsageError for an unknown name."""
    known = [row.use for row in USES]
    if unknown := [name for name in settings.uses if name not in known]:
        raise unknown_name("use of a scorer", unknown[0], known)
    nothing_else = isinstance(settings.scorer, OwnPairs | Oracle)
    uses = settings.uses or (() if settings.objectives else known)
    others = (row for name in dict.fromkeys(settings.objectives) for row in _rows_of_objective(name, settings))
    return (DPO_ROW, *(() if nothing_else else (LARGER_DPO,)), *others, *(row for row in USES if row.use in uses))


def _rows_of_objective(name: str, settings: BenchCreditSettings) -> tuple[BenchRow, ...]:
    """An objective of the catalog on the labels of the pairs; figa on corrections, beside dpo on the same ones; alol on scored answers."""
    if name == "figa":
        if not isinstance(settings.scorer, Corrections):
            raise UsageError("figa learns from corrections, which people give with scorer:corrections")
        figa = BenchRow("figa", "corrections", lambda beta: FIGA(rows=Pairs(), removed=-beta), data="corrected")
        return BenchRow("dpo on corrections", "corrections", DPO, data="corrected"), figa
    if name == "alol":
        return (BenchRow("alol", "answer", lambda beta: ALoL(variant=Seq(clip=beta), value=MeanReward()), data="answers", use="alol"),)
    made, path = catalog.load("objective", name)(), SCALES.get(name, ("beta",))
    contract = contract_of(made)
    needs_more = contract.columns or contract.categories or "reward" in contract.needs or set(contract.roles) != {"chosen", "rejected"}
    if name == "dpo" or needs_more or path[0] not in {field.name for field in fields(made)}:
        raise UsageError(f"objective {name} is not compared beside dpo: it needs more than the labels of pairs, or has no scale to tune")
    return (BenchRow(name, "labels", partial(_set_scale, made, path), data="pairs"),)


def _set_scale(objective: Any, path: tuple[str, ...], beta: float) -> Any:
    """The objective with its scale, or that of what it is made of, set to a trial's beta."""
    first, *rest = path
    return replace(objective, **{first: _set_scale(getattr(objective, first), tuple(rest), beta) if rest else beta})
