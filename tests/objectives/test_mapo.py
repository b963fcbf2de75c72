"""mapo: tdpo1 under the mask that its stage makes of activations, on rewards and KL alike."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from finegrain.objectives.mapo import MaPO
from finegrain.objectives.sparsepo import SparsePO
from finegrain.objectives.tdpo1 import TDPO1
from finegrain.train.read_contract import contract_of
from finegrain.types import Ragged, row_losses
from tests.objectives.token_kl import ROWS, WIDTH, given_pair, logit_pair
from tests.objectives.worked import close


@dataclass(frozen=True)
class Given:
    """Answers with these activations."""

    roles: tuple[str, ...] = ("chosen", "rejected")
    values: Ragged = field(default_factory=lambda: [np.array([0.0, 1.0, 0.25], dtype=np.float32), np.array([1.0], dtype=np.float32)])

    def activations(self, role: str) -> Ragged:
        return self.values if role == "chosen" else self.values[::-1]


def test_the_mask_is_the_activations() -> None:
    contract = contract_of(MaPO())
    assert contract.prepare is not None
    found = contract.prepare(Given())  # type: ignore[arg-type]
    assert contract.token_columns == ("weight",)
    assert {name for own in found.values() for name in own.filled} == {"weight"}
    for role, own in found.items():
        assert list(own.annotated) == [True, True]
        for values, wanted in zip(own.weight, Given().activations(role), strict=True):
            assert np.array_equal(values, wanted)  # type: ignore[arg-type]


def test_a_mask_of_ones_is_tdpo1_and_any_mask_is_sparsepo_with_it() -> None:
    pair, _, _ = logit_pair()
    ones = replace(pair, sides={role: replace(side, weight=torch.ones_like(side.logp)) for role, side in pair.sides.items()})
    torch.testing.assert_close(MaPO(beta=0.3)(ones), TDPO1(beta=0.3)(pair), rtol=0, atol=1e-12)
    mask = torch.rand(ROWS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    masked = replace(pair, sides={role: replace(side, weight=mask) for role, side in pair.sides.items()})
    learned = replace(pair, sides={role: replace(side, reading=mask[..., None]) for role, side in pair.sides.items()})
    torch.testing.assert_close(MaPO(beta=0.3)(masked), row_losses(SparsePO(beta=0.3)(learned)), rtol=0, atol=1e-12)


def test_what_it_logs() -> None:
    pair = given_pair(1.5, 0.3, 0.8)
    masked = replace(pair, sides={role: replace(side, weight=torch.full_like(side.logp, 0.5)) for role, side in pair.sides.items()})
    found = MaPO(beta=0.1).measures(masked)
    wanted = {"score/margins": 0.05, "score/accuracies": 1.0, "score/chosen": 0.09, "score/rejected": 0.04, "kl/chosen": 0.3, "kl/rejected": 0.8}
    wanted |= {"kl/masked_chosen": 0.15, "kl/masked_rejected": 0.4}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        close(found[name].value / found[name].count, value)
