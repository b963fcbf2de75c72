"""The demo's table: which methods are compared, what each may know, and the jobs they are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain import configure
from finegrain.credit.asr import ASR
from finegrain.credit.confidence import Confidence
from finegrain.credit.scores import BatchMean
from finegrain.credit.signals import Implicit
from finegrain.credit.token_reward import TokenReward
from finegrain.data.planted import Files
from finegrain.models.lora import Lora
from finegrain.objectives.dpo import DPO
from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.recipes.alignment import Job
from finegrain.recipes.preference import Prefer
from finegrain.recipes.settings import Common, Training
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


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    knows: str
    """What its training, credit included, has seen."""
    data: str
    """Which file of `Files` it trains on."""
    objective: Any = DPO(beta=BETA)
    credit: Callable[[str], Any] | None = None
    """Credit, given the folder of the scorer fitted on the pool."""
    oracle: bool = False
    """Knows the truth, as no one does in practice."""


# DPO moves the log-probabilities of both sides together, so the implicit reward of a scorer has no natural zero: hence its mean.
POOL = Row("scorer: dpo on the pool", "pool", "pool")
BASELINE = Row("dpo", "pairs", "pairs")
LARGER_BASELINE = Row("dpo on everything", "pairs + pool", "everything")
DISTILLATION = TokenDistillation(beta=BETA)


def _own_asr(scorer: str) -> ASR:
    return ASR(baseline=BatchMean())


def _own_confidence(scorer: str) -> Confidence:
    return Confidence(baseline=BatchMean())


def _pool_asr(scorer: str) -> ASR:
    return ASR(scorer=scorer, baseline=BatchMean())


def _pool_rewards(scorer: str) -> TokenReward:
    return TokenReward(scorer=scorer, signal=Implicit(beta=BETA))


def _spans(scorer: str) -> ASR:
    return ASR()


def _span_rewards(scorer: str) -> TokenReward:
    return TokenReward()


ROWS: tuple[Row, ...] = (
    BASELINE,
    Row("dpo + asr, own scorer", "pairs", "pairs", credit=_own_asr),
    Row("dpo + confidence, own scorer", "pairs", "pairs", credit=_own_confidence),
    Row("dpo + asr, spans on part", "pairs + some spans", "annotated", credit=_spans),
    LARGER_BASELINE,
    Row("dpo + asr, pool scorer", "pairs + pool", "pairs", credit=_pool_asr),
    Row("token-distillation, pool scorer", "pairs + pool", "pairs", DISTILLATION, _pool_rewards),
    Row("oracle: dpo + asr", "pairs + truth", "truth", credit=_spans, oracle=True),
    Row("oracle: token-distillation", "pairs + truth", "truth", DISTILLATION, _span_rewards, oracle=True),
)


def job(row: Row, files: Files, *, base: Path, scorer: Path, out: Path, budget: Budget, seed: int) -> Job:
    """The row as a `prefer` job, the same as its command line would give."""
    data = getattr(files, row.data)
    rows = len(data.read_text().splitlines())
    settings = Prefer(
        model=str(base),
        data=str(data),
        out=out,
        objective=row.objective,
        credit=row.credit(str(scorer)) if row.credit else None,
        common=Common(lr=budget.lr, max_steps=budget.steps, seed=seed, device="cpu", eval=str(files.held_out)),
        training=Training(epochs=(budget.steps + 1) * budget.batch_size / rows, batch_size=budget.batch_size, samples=1),
        lora=Lora(),
        optim=OPTIM,
    )
    parts = {name: getattr(settings, name) for name in ("model", "data", "out", "objective", "credit", "common", "training", "lora", "optim")}
    return Job(command="prefer", settings=configure.to_json(settings), **parts)
