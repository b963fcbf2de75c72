"""Value estimates and the sampling temperature: what is read where. Test of models/scorer.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from finegrain.models.packing import Branch, Group
from finegrain.models.scorer import Request, Scorer, fused, plain, use_branched_attention
from tests.tiny import MODELS, SIZES, VOCABULARY, exact_norms, ragged_groups


def scorer(name: str, *, packed: bool) -> Scorer:
    model = MODELS[name]().double().eval()
    exact_norms(model)
    if packed:
        use_branched_attention(model)
    made = Scorer(model, fused if packed else plain)
    torch.manual_seed(1)
    made.value_head = nn.Linear(SIZES["hidden_size"], 2, dtype=torch.float64)
    return made


def answer_values(made: Scorer, ids: np.ndarray) -> torch.Tensor:
    group = Group(np.arange(3, 8, dtype=np.int32), (Branch(ids, np.ones(len(ids), dtype=bool)),))
    with torch.no_grad():
        values = made([group], Request(values=made.value_head)).values
    assert values is not None
    return values


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_a_value_does_not_see_its_token(packed: bool) -> None:
    made = scorer("llama", packed=packed)
    ids = np.array([11, 12, 13, 14, 15, 16], dtype=np.int32)
    before = answer_values(made, ids)
    for t in range(len(ids)):
        other = ids.copy()
        other[t] = 40
        after = answer_values(made, other)
        assert torch.equal(after[: t + 1], before[: t + 1])
        if t + 1 < len(ids):
            assert (after[t + 1] - before[t + 1]).abs().max() > 1e-6


def test_a_head_read_one_place_later_would_see_its_token() -> None:
    """The same readings as `outputs`, where reward heads are read: the property above fails there."""
    made = scorer("llama", packed=True)
    ids = np.array([11, 12, 13], dtype=np.int32)
    group = lambda ids: [Group(np.arange(3, 8, dtype=np.int32), (Branch(ids, np.ones(len(ids), dtype=bool)),))]
    with torch.no_grad():
        one = made(group(ids), Request(outputs=made.value_head)).outputs
        other = made(group(np.array([40, 12, 13], dtype=np.int32)), Request(outputs=made.value_head)).outputs
    assert one is not None
    assert other is not None
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("name", MODELS)
def test_both_paths_agree_on_values_and_at_a_temperature(name: str) -> None:
    packed, padded = scorer(name, packed=True), scorer(name, packed=False)
    request = Request(values=packed.value_head, temperature=0.7, entropy=True)
    groups = ragged_groups(long=40)
    with torch.no_grad():
        one, other = packed(groups, request), padded(groups, replace(request, values=padded.value_head))
    for name_of in ("logp", "values", "entropy"):
        rounded = 1e-6 if "soft-caps" in name else 1e-9  # stock attention with a soft-cap takes its softmax in float32
        torch.testing.assert_close(getattr(one, name_of), getattr(other, name_of), rtol=0, atol=rounded)


def test_a_temperature_divides_the_logits() -> None:
    made = scorer("gemma2, soft-caps", packed=False)
    ids = torch.tensor([[3, 4, 5, 6, 7, 11, 12]])
    group = Group(np.arange(3, 8, dtype=np.int32), (Branch(np.array([11, 12], dtype=np.int32), np.ones(2, dtype=bool)),))
    with torch.no_grad():
        logits = made.model(input_ids=ids, use_cache=False).logits[0, 4:6]
        logp = made([group], Request(temperature=0.5)).logp
    assert logits.shape[-1] == VOCABULARY
    torch.testing.assert_close(logp, torch.log_softmax(logits / 0.5, -1)[[0, 1], [11, 12]], rtol=0, atol=1e-12)
