"""What a step logs: kept on the device row by row, brought to the host once, added up there in float64.

A device waits for the host whenever a number is read out of it, and some devices (MPS) have no float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from finegrain.train.distributed import sum_named
from finegrain.types import Pair, Terms

Sums = dict[str, tuple[float, float]]
"""Named (sum, count): a metric is their quotient over all micro-batches and ranks."""


class Measure(NamedTuple):
    """A metric of some rows, still on the device: sum(values) / sum(counts) over all of them."""

    values: Tensor
    counts: Tensor | None = None
    """None: every value counts once."""


Measures = dict[str, Measure]

Metrics = Callable[[Pair], Measures]

BOUND = "bound"
"""A tally's total of terms whose weight is not known yet."""

TINY = 1e-12
"""Guards a denominator of a step in which nothing counted; its numerator is 0 too."""


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, each flat, in the host's memory, by one transfer."""
    if not tensors:
        return []
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    flat = torch.cat([tensor.detach().flatten().to(wide) for tensor in tensors]).cpu()
    return list(torch.split(flat, [tensor.numel() for tensor in tensors]))


def total(values: Tensor) -> float:
    """Sum in float64 of numbers on the host."""
    return float(values.double().sum())


@dataclass
class Tally:
    """Sums of a step on this rank: plain totals, and (sum, count) pairs whose quotient is logged."""

    _totals: dict[str, float] = field(default_factory=dict)
    _means: Sums = field(default_factory=dict)
    _bad_rows: list[int] = field(default_factory=list)
    _waiting: list[tuple[list[Tensor], Callable[[list[Tensor]], None]]] = field(default_factory=list)
    """Tensors still on the device, and what adds them up once they are on the host."""

    def note_terms(self, terms: Terms, counts: Mapping[str, float], rows: Sequence[int], tokens: int, bound: frozenset[str] = frozenset()) -> None:
        """Add a micro-batch's loss and its terms, and remember rows that are not finite; those of a bound wait for its weight."""
        self._add("num_tokens", float(tokens))

        def settle(values: list[Tensor]) -> None:
            for (name, term), value in zip(terms.items(), values, strict=True):
                share = total(value) / max(counts[name], TINY)
                self._add(BOUND if name in bound else "loss", term.coefficient * share)
                if len(terms) > 1:
                    self._add(f"loss/{name}", share)
                self._bad_rows.extend(rows[index] for index in (~torch.isfinite(value)).nonzero()[:, 0].tolist())

        self._waiting.append(([term.value.detach() for term in terms.values()], settle))

    def weigh_bound(self, weight: float) -> None:
        """Add the bound's terms to the loss."""
        self._settle()
        self._add("loss", weight * self._totals.pop(BOUND, 0.0))

    def note_metrics(self, measures: Measures) -> None:
        """Add what a micro-batch measures."""
        named = [(name, measure.values, measure.counts) for name, measure in measures.items()]

        def settle(found: list[Tensor]) -> None:
            on_host = iter(found)
            for name, _, counts in named:
                values = next(on_host)
                self.note_sums({name: (total(values), float(len(values)) if counts is None else total(next(on_host)))})

        self._waiting.append(([tensor.detach() for _, *pair in named for tensor in pair if tensor is not None], settle))

    def note_sums(self, sums: Sums) -> None:
        """Add named (sum, count) pairs."""
        for name, (value, count) in sums.items():
            before = self._means.get(name, (0.0, 0.0))
            self._means[name] = (before[0] + value, before[1] + count)

    @property
    def means(self) -> Sums:
        """(sum, count) by name, of this rank."""
        self._settle()
        return self._means

    @property
    def bad_rows(self) -> list[int]:
        """This rank's rows with a loss that is not finite."""
        self._settle()
        return self._bad_rows

    def over_ranks(self, device: torch.device) -> dict[str, float]:
        """Totals and quotients over all ranks; a mean over nothing is left out."""
        self._settle()
        self._add("non_finite_rows", float(len(self._bad_rows)))
        flat = dict(self._totals)
        for name, (value, count) in self._means.items():
            flat[f"{name}|sum"], flat[f"{name}|count"] = value, count
        whole = sum_named(flat, device)
        logged = {name: value for name, value in whole.items() if "|" not in name}
        for name in sorted(key.removesuffix("|sum") for key in whole if key.endswith("|sum")):
            if whole[f"{name}|count"] > 0:
                logged[name] = whole[f"{name}|sum"] / whole[f"{name}|count"]
        return logged

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        on_host = iter(to_host([tensor for tensors, _ in waiting for tensor in tensors]))
        for tensors, add in waiting:
            add([next(on_host) for _ in tensors])

    def _add(self, name: str, value: float) -> None:
        self._totals[name] = self._totals.get(name, 0.0) + value
