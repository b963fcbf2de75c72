"""Gradients of two parts of a loss in one step: apart where their norms are wanted, together otherwise.

The bound's weight is a table of the trainer: found by the first step, kept by checkpoints. Norms are those of whole gradients, summed over
micro-batches and ranks, on the backbone; on everything that trains where no backbone does, or where the bound has no part in it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from finegrain.ops.balance import Balance
from finegrain.train.distributed import sum_tensor

TABLE = "bound_weight"
"""The trainer's table of that weight."""

Numbers = dict[str, tuple[float, float]]


def weight_of(term: str, balance: Balance | None, tables: Mapping[str, Tensor]) -> float:
    """What a term is multiplied by beside its coefficient, as the run stands."""
    return float(tables[TABLE]) if balance is not None and term in balance.bound else 1.0


class TwoParts:
    """The gradient of one step."""

    def __init__(
        self, balance: Balance, tables: dict[str, Tensor], step: int, backbone: Sequence[nn.Parameter], heads: Sequence[nn.Parameter]
    ) -> None:
        self._balance, self._tables, self._first, self._measured = balance, tables, step == 0, balance.measured(step)
        self._backbone, self._heads = list(backbone), list(heads)
        self._everything = self._backbone + self._heads
        reaches_backbone = balance.bound_in_backbone and bool(self._backbone)
        self._of_bound = self._everything if reaches_backbone or not self._backbone else self._heads
        self._seen = self._backbone if reaches_backbone else self._heads
        self._apart = self._measured or not reaches_backbone
        self._ranking: list[Tensor | None] = [None] * len(self._everything)
        self._bound: list[Tensor | None] = [None] * len(self._of_bound)

    @property
    def bound(self) -> frozenset[str]:
        """Names of the bound's terms."""
        return self._balance.bound

    def backward(self, ranking: Tensor, bound: Tensor) -> None:
        """Add a micro-batch's share of both gradients."""
        if not self._apart:
            total = ranking + self._table * bound if bound.requires_grad else ranking
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
            return
        _add(self._bound, bound, self._of_bound, keep=True)
        _add(self._ranking, ranking, self._everything, keep=False)

    @property
    def _table(self) -> Tensor:
        """The bound's weight where it lies: a step asks the device for it once, at its end."""
        return self._tables[TABLE][0]

    def finish(self) -> Numbers:
        """Weigh the bound by the rule in the first step, leave the step's gradient in the parameters; what is logged, the weight among it."""
        noted: Numbers = {}
        ranking = bound = 0.0
        if self._measured:
            ranking, bound = self._norm(self._ranking, self._everything), self._norm(self._bound, self._of_bound)
            if self._first:
                self._tables[TABLE] = torch.full_like(self._tables[TABLE], self._balance.weight(ranking, bound))
        weight = float(self._table)
        if self._measured:
            noted = {"grad/ranking": (ranking, 1.0), "grad/bound": (weight * bound, 1.0)}
        if self._apart:
            self._join()
        return noted | {TABLE: (weight, 1.0)}

    def _join(self) -> None:
        """ranking + weight * bound, into the parameters."""
        weight = self._table
        of_bound = dict(zip(self._of_bound, self._bound, strict=True))
        for parameter, ranking in zip(self._everything, self._ranking, strict=True):
            bound = of_bound.get(parameter)
            if bound is None:
                parameter.grad = ranking
            else:
                parameter.grad = weight * bound if ranking is None else ranking + weight * bound

    def _norm(self, gradients: Sequence[Tensor | None], of: Sequence[nn.Parameter]) -> float:
        """Norm of a gradient where both parts have one, over all ranks."""
        found: Mapping[nn.Parameter, Tensor | None] = dict(zip(of, gradients, strict=True))
        norms = []
        for parameter in self._seen:
            gradient = found.get(parameter)
            norms.append(sum_tensor(torch.zeros_like(parameter) if gradient is None else gradient).norm())
        return float(torch.stack(norms).norm()) if norms else 0.0


def _add(held: list[Tensor | None], loss: Tensor, parameters: Sequence[nn.Parameter], *, keep: bool) -> None:
    """Add a loss's gradients to those held."""
    if not loss.requires_grad or not parameters:
        return
    found = torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)
    for place, gradient in enumerate(found):
        before = held[place]
        if gradient is not None:
            held[place] = gradient if before is None else before + gradient
