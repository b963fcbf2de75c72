"""The gradient of one optimiser step, added up micro-batch by micro-batch.

A term whose count is known before the pass is divided by it at once. One whose count is `late` is divided after the last micro-batch: alone it
costs nothing, and every late term beside others costs one more backward pass and one more gradient in memory. There is no second forward pass.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from finegrain.errors import UsageError
from finegrain.train.balance import TwoParts
from finegrain.train.distributed import sum_named
from finegrain.train.tally import TINY, to_host, total
from finegrain.types import Pair, RowLoss, Term, Terms

Rule = Callable[[Pair, Mapping[str, RowLoss], list[nn.Parameter]], list[Tensor]]

EARLY = ""
"""The group of all terms whose counts are known before the pass."""


class StepGradient:
    """The gradient of a step on this rank."""

    def __init__(self, parameters: list[nn.Parameter], counts: dict[str, float], rule: Rule | None, parts: TwoParts | None) -> None:
        """`counts` of all terms but the late ones, over all ranks; `finish` adds those."""
        self._parameters, self._counts, self._rule, self._parts = parameters, counts, rule, parts
        self._held: dict[str, list[Tensor | None]] = {}
        self._late: dict[str, list[Tensor]] = {}
        """By late term, its counts in the micro-batches so far."""

    def add(self, pair: Pair, terms: Terms, given: Terms) -> None:
        """A micro-batch's share; `terms` are those that the objective gave under the rows' weights."""
        late = {name: term for name, term in terms.items() if term.late}
        if late and (self._rule is not None or self._parts is not None):
            raise UsageError(f"the count of {sorted(late)[0]} is late, which neither a gradient rule nor terms balanced as one can wait for")
        if self._parts is not None:
            wanted = {name: term for name, term in terms.items() if term.coefficient}
            ranking, bound = ({name: term for name, term in wanted.items() if (name in self._bound) is is_bound} for is_bound in (False, True))
            self._parts.backward(self._loss(ranking), self._loss(bound))
        elif self._rule is not None:
            self._apply_rule(self._rule, pair, given)
        else:
            self._backward({name: term for name, term in terms.items() if not term.late}, late)

    def finish(self, device: torch.device) -> None:
        """Divide late terms by their counts over all micro-batches and ranks."""
        counts = sum_named({name: sum(total(count) for count in to_host(counts)) for name, counts in self._late.items()}, device)
        self._counts.update(counts)
        scales = {name: 1 / max(count, TINY) for name, count in counts.items()} | {EARLY: 1.0}
        held = self._held
        if counts and self._sharded:  # split gradients are sums over ranks already, on a rank without rows too
            (name,) = counts
            held = {name: [parameter.grad for parameter in self._parameters]}
        for place, parameter in enumerate(self._parameters if held else ()):
            parts = [gradient * scales[name] for name, gradients in held.items() if (gradient := gradients[place]) is not None]
            parameter.grad = sum(parts[1:], start=parts[0]) if parts else None

    @property
    def _sharded(self) -> bool:
        return any(isinstance(parameter, DTensor) for parameter in self._parameters)

    @property
    def _bound(self) -> frozenset[str]:
        assert self._parts is not None
        return self._parts.bound

    def _backward(self, early: Terms, late: Terms) -> None:
        groups = {EARLY: self._loss(early)} if early else {}
        for name, term in late.items():
            self._late.setdefault(name, []).append(term.count.detach())
            groups[name] = term.coefficient * term.value.sum()
        live = {name: loss for name, loss in groups.items() if loss.requires_grad}
        if not late:
            for loss in live.values():
                loss.backward()  # type: ignore[no-untyped-call]
            return
        if len(groups) > 1 and self._sharded:
            raise UsageError(f"the late count of {sorted(late)[0]} stands beside other terms, which needs whole parameters; drop --shard")
        for number, (name, loss) in enumerate(live.items()):
            held = self._held.setdefault(name, [None] * len(self._parameters))
            _put(self._parameters, held)
            loss.backward(retain_graph=number + 1 < len(live))  # type: ignore[no-untyped-call]
            self._held[name] = [parameter.grad for parameter in self._parameters]

    def _apply_rule(self, rule: Rule, pair: Pair, given: Terms) -> None:
        losses = {name: RowLoss(term.value, _shares(pair, term, self._counts[name])) for name, term in given.items()}
        for parameter, share in zip(self._parameters, rule(pair, losses, self._parameters), strict=True):
            parameter.grad = share if parameter.grad is None else parameter.grad + share

    def _loss(self, terms: Terms) -> Tensor:
        """Sum over terms of coefficient * sum(value) / count; 0 without any."""
        parts = [term.coefficient / max(self._counts[name], TINY) * term.value.sum() for name, term in terms.items()]
        return torch.stack(parts).sum() if parts else torch.zeros(())


def _shares(pair: Pair, term: Term, count: float) -> Tensor:
    """(B,) what multiplies a row's value in the loss of the step."""
    weight = pair.columns.get("weight")
    return (torch.ones_like(term.value) if weight is None else weight.to(term.value.dtype)) * (term.coefficient / max(count, TINY))


def _put(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
