"""What an objective may declare, read once: the loop asks this record and never a method's name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finegrain.errors import UsageError
from finegrain.ops.action_values import Wanted
from finegrain.ops.balance import Balance
from finegrain.train.balance import TABLE
from finegrain.types import LABEL_WEIGHTS, Gathered, Initialisation, Objective, Pair, Summed, Term, Terms, WeightMeaning

NEEDS = frozenset({"logp", "reference", "prompt_logp", "entropy", "kl", "reward", "label", "features"})


@dataclass(frozen=True)
class Contract:
    """An objective and its declarations, with defaults filled in."""

    objective: Objective
    roles: tuple[str, ...]
    """Sides that take part in the gradient pass."""
    needs: frozenset[str]
    outputs: int
    """How many numbers per token the objective reads from a head on the hidden states; 0: it needs no head."""
    action_value: Wanted | None
    """How the Q-values that the objective reads are made of logits; None: it reads none."""
    shape: str | None
    """Name of the `data.records.Shape` it trains on, where its roles and needs do not say it."""
    statistic_roles: tuple[str, ...]
    """Sides that `statistics` reads; empty where there is none."""
    statistics: Callable[[Pair], Mapping[str, Summed | Gathered]] | None
    modules: Mapping[str, nn.Module]
    state: dict[str, Tensor]
    after_step: Callable[[Mapping[str, Tensor], Pair], Mapping[str, Tensor]] | None
    """(state, the step's rows of this rank with detached values) -> named sums to be added to the state over all ranks."""
    gradient: Callable[[Pair, list[nn.Parameter]], list[Tensor]] | None
    """Replaces "backward of the sum": the summed gradient of the rows with respect to the parameters."""
    balance: Balance | None
    """Terms that are weighed as one against the others; None: every term has the weight it is given."""
    start: Initialisation | None
    """What the method finds in the first step's rows, before anything has trained."""
    learning_rate: float
    weights: frozenset[WeightMeaning]
    """What the token weights of a credit may mean, for the objective to multiply by them."""
    embedding_factor: float
    """The default rate of input embeddings over that of the rest, up to a ceiling."""

    @property
    def all_roles(self) -> tuple[str, ...]:
        """Every side any pass reads."""
        return self.roles + tuple(role for role in self.statistic_roles if role not in self.roles)


def contract_of(objective: Any, seed: int = 0) -> Contract:
    """The declarations of an objective; a plain callable has none and gets chosen, rejected and a reference."""
    needs = frozenset(getattr(objective, "needs", frozenset({"reference"})))
    if needs - NEEDS:
        raise UsageError(f"{type(objective).__name__} needs {sorted(needs - NEEDS)}; known: {sorted(NEEDS)}")
    outputs = int(getattr(objective, "outputs", 0))
    if not outputs:
        needs |= {"logp"}
    roles = tuple(getattr(objective, "roles", ("chosen", "rejected")))
    statistics = getattr(objective, "statistics", None)
    make_modules = getattr(objective, "modules", None)
    modules: Mapping[str, nn.Module] = {}
    if make_modules is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules = make_modules()
    make_state = getattr(objective, "state", None)
    balance = getattr(objective, "balanced", None)
    start = getattr(objective, "start", None)
    state = {**(make_state() if make_state is not None else {}), **(start.state if start is not None else {})}
    return Contract(
        objective=objective,
        roles=roles,
        needs=needs,
        outputs=outputs,
        action_value=getattr(objective, "action_value", None),
        shape=getattr(objective, "shape", None),
        statistic_roles=tuple(getattr(objective, "statistic_roles", roles)) if statistics is not None else (),
        statistics=statistics,
        modules=modules,
        state=state if balance is None else state | {TABLE: torch.ones(1)},
        after_step=getattr(objective, "after_step", None),
        gradient=getattr(objective, "gradient", None),
        balance=balance,
        start=start,
        learning_rate=float(getattr(objective, "learning_rate", 1e-6)),
        weights=frozenset(getattr(objective, "weights", LABEL_WEIGHTS)),
        embedding_factor=float(getattr(objective, "embedding_factor", 1.0)),
    )


def as_terms(result: Tensor | Terms, pair: Pair) -> Terms:
    """Terms of whatever an objective returned; the data's `weight` column makes every mean a weighted mean."""
    terms = result if isinstance(result, dict) else {"loss": Term(result, torch.ones_like(result))}
    weight = pair.columns.get("weight")
    if weight is None:
        return terms
    return {name: Term(term.value * weight, term.count * weight, term.coefficient) for name, term in terms.items()}
