"""The demo's table: which methods are compared, what each may know, and the jobs they are."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from finegrain import configure
from finegrain.commands.prefer import PreferSettings
from finegrain.commands.settings import Common, Training
from finegrain.commands.sft import SftSettings
from finegrain.credit.asr import ASR
from finegrain.credit.confidence import Confidence
from finegrain.credit.signals import Implicit, Spans, Table
from finegrain.credit.token_reward import TokenReward
from finegrain.data.planted import Files
from finegrain.models.lora import Lora
from finegrain.objectives.dpo import DPO
from finegrain.objectives.nll import NLL
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.ops.segment_scores import BatchMean
from finegrain.recipes.training.job import Job
from finegrain.train.optim import Optim

BETA = 0.5
"""[choice] KL-regularisation of every row and of the scorer; at the usual 0.1 plain dpo on few pairs leaves the language within 50 steps."""

OPTIM = Optim(epsilon=1e-3)
"""[choice] A large epsilon: with Adam's usual one, parameters without signal move as fast as the others, and plain dpo gains less per nat."""


@dataclass(frozen=True)
class Budget:
    """What every row gets: the same steps, rows per step and learning rate."""

    steps: int
    batch_size: int
    lr: float


class Scorers(NamedTuple):
    """Checkpoints of dpo fits on the pool."""

    whole: str
    halves: str
    """Two of them, separated by a comma."""


@dataclass(frozen=True)
class DemoRow:
    """One line of the table."""

    name: str
    knows: str
    """What its training, credit included, has seen."""
    data: str
    """Which file of `Files` it trains on."""
    objective: Any = DPO(beta=BETA)
    credit: Callable[[Scorers], Any] | None = None
    """Credit, given the scorers fitted on the pool."""
    oracle: bool = False
    """Knows the truth, as no one does in practice."""
    command: str = "prefer"

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^a-z]+", "-", self.name)


# DPO moves the log-probabilities of both sides together, so the implicit reward of a scorer has no natural zero: hence its mean.
POOL = DemoRow("scorer: dpo on the pool", "pool", "pool")
HALVES = tuple(DemoRow(f"member {part} of a scorer: dpo on half of the pool", "pool", f"pool_{part}") for part in ("a", "b"))
"""Two fits that disagree where they know little: `credit:confidence` reads its certainty from them."""
BASELINE = DemoRow("dpo", "pairs", "pairs")
LARGER_BASELINE = DemoRow("dpo on everything", "pairs + pool", "everything")
DISTILLATION = TokenDistillation(beta=BETA)


SFT = DemoRow("sft on chosen", "chosen answers", "pairs", NLL(), command="sft")
ROWS: tuple[DemoRow, ...] = (
    BASELINE,
    SFT,
    LARGER_BASELINE,
    DemoRow("dpo + asr, own scorer", "pairs", "pairs", credit=lambda scorers: ASR(signal=Table())),
    DemoRow("dpo + asr, pool scorer", "pairs + pool", "pairs", credit=lambda scorers: ASR(scorer=scorers.whole, baseline=BatchMean())),
    DemoRow("dpo + confidence, pool scorer", "pairs + pool", "pairs", credit=lambda scorers: Confidence(scorer=scorers.halves, baseline=BatchMean())),
    DemoRow(
        "token-distillation, pool scorer",
        "pairs + pool",
        "pairs",
        DISTILLATION,
        lambda scorers: TokenReward(scorer=scorers.whole, signal=Implicit(beta=BETA)),
    ),
    DemoRow("token-distillation, own scorer", "pairs", "pairs", DISTILLATION, lambda scorers: TokenReward(signal=Table(), size=2.0)),
    DemoRow("dpo + asr, spans on part", "pairs + some spans", "annotated", credit=lambda scorers: ASR(signal=Spans())),
    DemoRow("token-distillation, spans on part", "pairs + some spans", "annotated", DISTILLATION, lambda scorers: TokenReward(signal=Spans())),
    DemoRow(
        "token-distillation, own scorer with spans",
        "pairs + some spans",
        "annotated",
        DISTILLATION,
        lambda scorers: TokenReward(signal=Table(), size=1.5),
    ),
    DemoRow("oracle: dpo + asr", "pairs + truth", "truth", credit=lambda scorers: ASR(), oracle=True),
    DemoRow("oracle: token-distillation", "pairs + truth", "truth", DISTILLATION, lambda scorers: TokenReward(), oracle=True),
)
"""`confidence` from spans is left out: a person's span does not say how sure it is, and that credit asks for it."""


def job(row: DemoRow, files: Files, *, base: Path, scorers: Scorers, out: Path, budget: Budget, seed: int, examined: int = 0) -> Job:
    """The row as a `prefer` or `sft` job, the same as its command line would give."""
    data = getattr(files, row.data)
    rows = len(data.read_text().splitlines())
    settings = {"prefer": PreferSettings, "sft": SftSettings}[row.command](
        model=str(base),
        data=str(data),
        out=out,
        objective=row.objective,
        credit=row.credit(scorers) if row.credit else None,
        common=Common(lr=budget.lr, max_steps=budget.steps, seed=seed, device="cpu", eval=str(files.held_out)),
        training=Training(
            epochs=(budget.steps + 1) * budget.batch_size / rows,
            batch_size=budget.batch_size,
            micro_tokens=8192,
            samples=int(examined > 0),
            examined=examined,
        ),
        lora=Lora(),
        optim=OPTIM,
    )
    parts = {name: getattr(settings, name) for name in ("model", "data", "out", "objective", "credit", "common", "training", "lora", "optim")}
    return Job(command=row.command, settings=configure.to_json(settings), **parts)
