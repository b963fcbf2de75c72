"""Align language models with reward that says where an answer is good or bad, and how sure that is.

Everything here is loaded at first use, so that `import finegrain` is instant. Methods live at their own paths:
`finegrain.objectives.dpo.DPO`, `finegrain.credit.asr.ASR`; `finegrain.catalog` is the table of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finegrain.commands.settings import Common, Training
    from finegrain.credit.context import Credit, CreditContext
    from finegrain.errors import FinegrainError
    from finegrain.models.lora import Lora
    from finegrain.recipes.eval import evaluate_reward
    from finegrain.recipes.iterate import iterate
    from finegrain.recipes.merge import merge
    from finegrain.recipes.online import train_online
    from finegrain.recipes.prefer import prefer
    from finegrain.recipes.reward import train_reward_model
    from finegrain.recipes.score import score
    from finegrain.recipes.sft import sft
    from finegrain.runs import RunDirectory
    from finegrain.scoring.completions import reward_function
    from finegrain.train.optim import Optim
    from finegrain.types import (
        CharSpan,
        Gathered,
        Objective,
        Pair,
        Scored,
        Side,
        Summed,
        Term,
        Terms,
        TokenColumns,
        TokenCredit,
    )

__version__ = "0.1.0"

__all__ = [
    "CharSpan",
    "Common",
    "Credit",
    "CreditContext",
    "FinegrainError",
    "Gathered",
    "Lora",
    "Objective",
    "Optim",
    "Pair",
    "RunDirectory",
    "Scored",
    "Side",
    "Summed",
    "Term",
    "Terms",
    "TokenColumns",
    "TokenCredit",
    "Training",
    "evaluate_reward",
    "iterate",
    "merge",
    "prefer",
    "reward_function",
    "score",
    "sft",
    "train_online",
    "train_reward_model",
]

_HOMES = {
    "Common": "commands.settings",
    "Credit": "credit.context",
    "CreditContext": "credit.context",
    "FinegrainError": "errors",
    "Lora": "models.lora",
    "Optim": "train.optim",
    "RunDirectory": "runs",
    "Training": "commands.settings",
    "evaluate_reward": "recipes.eval",
    "iterate": "recipes.iterate",
    "merge": "recipes.merge",
    "prefer": "recipes.prefer",
    "reward_function": "scoring.completions",
    "score": "recipes.score",
    "sft": "recipes.sft",
    "train_online": "recipes.online",
    "train_reward_model": "recipes.reward",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'finegrain' has no attribute {name!r}")
    return getattr(importlib.import_module(f"finegrain.{_HOMES.get(name, 'types')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
