"""Ragged pairs for the laws: every length from 1 on, holes in the mask, one row without any token."""

from typing import Any

import torch
from torch import Tensor

from finegrain.types import Pair, Side
from tests.laws.drive import all_roles, needs_of

ROWS, WIDTH, PROMPT, HIDDEN = 6, 7, 4, 3


def ragged_mask(generator: torch.Generator, empty_row: int) -> Tensor:
    """Lengths 1.. in random order; the longest row has a hole; one row is empty."""
    lengths = torch.randperm(WIDTH - 1, generator=generator)[:ROWS] + 1
    lengths[0] = WIDTH
    mask = torch.arange(WIDTH) < lengths.unsqueeze(-1)
    mask[0, 2] = False
    mask[empty_row] = False
    return mask


def random_segments(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Segment ids that start at random tokens."""
    starts = torch.rand(mask.shape, generator=generator) < 0.4
    first = mask & (mask.cumsum(1) == 1)
    return torch.where(mask, ((starts & mask) | first).cumsum(1) - 1, -1)


def _reading(values: Tensor) -> Tensor:
    """Both signs, but above 0 at the first row's second token, by which laws ask whether a single token counts."""
    values[0, 1] = values[0, 1].abs()
    return values


def outputs_of_labels(method: Any) -> int:
    """Labels of a token: one, or one per aspect of the head."""
    return max(1, len(getattr(method.head, "aspects", ())))


def make_pair(method: Any, seed: int = 0) -> Pair:
    """A float64 pair with all that the method declares it reads, token credit included."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def side(number: int) -> Side:
        mask = ragged_mask(generator, empty_row=3 if number == 0 else 3 + number % 2)
        needs, made = needs_of(method), getattr(method, "token_columns", ())
        prompt_mask = torch.arange(PROMPT) >= torch.randint(0, PROMPT, (ROWS, 1), generator=generator)
        return Side(
            logp=-noise(ROWS, WIDTH).abs() - 0.05,
            mask=mask,
            ref_logp=-noise(ROWS, WIDTH).abs() - 0.05 if "reference" in needs else None,
            weight=torch.rand(ROWS, WIDTH, generator=generator, dtype=torch.float64) + 0.1,
            reward=noise(ROWS, WIDTH) if "reward" in {*needs, *made} else None,
            segment=random_segments(mask, generator) if {"reward", "segment"} & {*needs, *made} else None,
            labels=torch.rand(ROWS, WIDTH, outputs_of_labels(method), generator=generator, dtype=torch.float64) if "labels" in made else None,
            prompt_logp=-noise(ROWS, PROMPT).abs() - 0.05 if "prompt_logp" in needs else None,
            prompt_mask=prompt_mask if "prompt_logp" in needs else None,
            entropy=noise(ROWS, WIDTH).abs() if "entropy" in needs else None,
            kl=noise(ROWS, WIDTH).abs() if "kl" in needs else None,
            reference_kl=noise(ROWS, WIDTH).abs() if "reference_kl" in needs else None,
            features=noise(ROWS, WIDTH, HIDDEN) if "features" in needs else None,
            reading=_reading(noise(ROWS, WIDTH, reading)) if (reading := getattr(method, "reading", 0)) else None,
            outputs=noise(ROWS, WIDTH, outputs) if (outputs := getattr(method, "outputs", 0)) else None,
        )

    numbers = torch.arange(ROWS, dtype=torch.float64)
    columns = {"position": numbers, "row": numbers, "label": torch.tensor([1, 0, 1, 0, 0, 1], dtype=torch.float64)}
    if getattr(method, "frozen_backbone", False):
        columns |= {"chosen_target": numbers.cos(), "rejected_target": numbers.sin()}
    if hasattr(getattr(method, "loss", None), "row_columns"):
        columns |= {"rating_place": numbers * 0.8, "class_weight": 1 + numbers, "median_place": numbers * 0 + 2}
    columns |= {name: 1 + numbers.sin() for name in getattr(method, "columns", ()) if name not in columns}
    columns |= {name: 1 + (numbers + place).sin() for place, name in enumerate(getattr(method, "made", ()))}
    columns |= {name: numbers % 2 for name in getattr(method, "categories", ())}
    for name in getattr(getattr(method, "head", None), "names", ()):
        columns |= {f"attribute/{name}": numbers.cos(), f"attribute_median/{name}": numbers * 0}
    if "labels" in getattr(method, "token_columns", ()):
        columns |= {f"annotated/{role}": ((numbers + number) % 3 != 1).double() for number, role in enumerate(all_roles(method))}
    make_modules = getattr(method, "make_modules", None)
    modules = {} if make_modules is None else {name: module.double() for name, module in make_modules(HIDDEN, generator).items()}
    tables = method.make_state(dict.fromkeys(method.categories, 2)) if hasattr(method, "make_state") else {}
    return Pair(sides={role: side(number) for number, role in enumerate(all_roles(method))}, columns=columns, modules=modules, state=tables)
