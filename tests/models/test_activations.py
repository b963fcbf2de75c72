"""Activations where tokens are predicted: scale, position, architectures. Test of models/activations.py."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from finegrain.models.activations import activation_share, measure_activations
from finegrain.models.score import Precision
from finegrain.models.scorer import Scorer, fused, use_branched_attention
from tests.tiny import MODELS, examples

ROLES = ("chosen", "rejected")
PRECISION = Precision(nullcontext, "float32", 4096)


def test_the_smallest_mean_has_0_and_the_largest_1() -> None:
    mask = torch.tensor([True, True, False, True])
    first, second = torch.tensor([3.0, -1.0, 99.0, 1.0]), torch.tensor([0.0, 2.0, -99.0, 4.0])
    torch.testing.assert_close(activation_share({"mlp": [first]}, mask), torch.tensor([1.0, 0.0, 0.0, 0.5]))
    torch.testing.assert_close(activation_share({"mlp": [7 * first - 2]}, mask), torch.tensor([1.0, 0.0, 0.0, 0.5]))
    both = activation_share({"mlp": [first, first, second], "logits": [second]}, mask)
    torch.testing.assert_close(both, torch.tensor([1 / 3, 1 / 3, 0.0, 5 / 6]))
    assert activation_share({"mlp": [torch.ones(4)]}, mask).tolist() == [1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_architecture_gives_four_kinds_where_tokens_are_predicted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last token itself changes nothing: what counts is the position before it."""
    torch.manual_seed(0)
    model = MODELS[name]()
    use_branched_attention(model)
    scorer = Scorer(model, fused)
    kinds: list[set[str]] = []
    heard = lambda means, mask: kinds.append(set(means)) or activation_share(means, mask)
    monkeypatch.setattr("finegrain.models.activations.activation_share", heard)
    rows = examples(3)
    found = measure_activations(scorer, rows, ROLES, PRECISION)
    assert all(own == {"mlp", "attention", "residual", "logits"} for own in kinds)
    for role in ROLES:
        for row, values in zip(rows, found[role], strict=True):
            mask = row.responses[role].mask
            assert values.shape == mask.shape
            assert not values[~mask].any()
            assert ((values >= 0) & (values <= 1)).all()
            assert not mask.any() or mask.sum() == 1 or np.ptp(values[mask]) > 0
    last = rows[0].responses["chosen"]
    ids = last.ids.copy()
    ids[-1] = (ids[-1] + 1) % 40
    other = replace(rows[0], responses={**rows[0].responses, "chosen": replace(last, ids=ids)})
    again = measure_activations(scorer, [other], ROLES, PRECISION)
    np.testing.assert_allclose(again["chosen"][0], found["chosen"][0], atol=1e-5)
