"""Gradient checkpointing runs layers again in the backward: the plain path must then still be on the model's own attention.

Test of models/scorer.py.
"""

import pytest
import torch

from finegrain.models import attention, probe, scorer
from finegrain.models.probe import make_scorer
from tests.tiny import MODELS, ragged_groups


@pytest.mark.parametrize("broken", [False, True], ids=["fused", "fallen back"])
def test_gradients_are_those_without_checkpointing(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = ragged_groups(long=20)
    if broken:
        monkeypatch.setattr(probe, "fused", lambda *arguments: 1 / 0)

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = MODELS["llama"]().train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        made, found = make_scorer(model, longest=40)
        assert found.fused is not broken
        assert made.path is (scorer.plain if broken else scorer.fused)
        assert (model.config._attn_implementation == attention.NAME) is not broken
        made(groups).logp.sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, again)
