"""Reference values of the KL(reference || policy) of tdpo and sparsepo, from the engine function that a run calls, and of MaPO's mask.

Those methods are no rows of the catalog yet: the losses that their files hold are put together here from the engine's values.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.models.activations import activation_share
from finegrain.ops import logprobs
from finegrain.ops.logprobs import OutputLayer, TokenValues, token_values
from tests.golden.given import real

PARTS = Path(__file__).parent / "parts"
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 1)
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 8)


def cases(slug: str) -> list[Any]:
    return [pytest.param(case, id=f"{slug}-{case['name']}") for case in json.loads((PARTS / f"{slug}.json").read_text())["cases"]]


def engine(logits: Tensor, reference: Tensor, targets: Tensor) -> TokenValues:
    """What the scorer computes for these logits: an output layer that is the identity."""
    same = OutputLayer(torch.eye(logits.shape[-1], dtype=logits.dtype))
    found = token_values(logits.flatten(0, 1), same, targets.flatten(), reference=(reference.flatten(0, 1), same), reference_kl=True)
    return TokenValues(*(None if value is None else value.unflatten(0, targets.shape) for value in found))


def kept(values: Tensor | None, mask: Tensor) -> Tensor:
    assert values is not None
    return torch.where(mask, values, 0.0).sum(-1)


@pytest.mark.parametrize("case", cases("tdpo"))
def test_tdpo(case: dict[str, Any]) -> None:
    inputs, outputs, params = case["inputs"], case["outputs"], case["params"]
    policy, reference = real(inputs["policy_logits"]).requires_grad_(), real(inputs["ref_logits"])
    labels = torch.tensor(inputs["labels"])[:, 1:]
    mask, targets = labels != -100, labels.clamp(min=0)
    found = engine(policy[:, :-1], reference[:, :-1], targets)
    margin = kept(found.logp, mask) - kept(engine(reference[:, :-1], reference[:, :-1], targets).logp, mask)
    kl, tokens = kept(found.reference_kl, mask), mask.sum(-1)
    for name, value in {
        "logps_margin": margin,
        "seq_forward_kl": kl,
        "policy_logps": kept(found.logp, mask),
        "logps_margin_avg": margin / tokens,
        "seq_forward_kl_avg": kl / tokens,
    }.items():
        torch.testing.assert_close(value.detach(), real(outputs[name]), **CLOSE)
    pairs, beta, alpha = params["n_pairs"], params["beta"], params["alpha"]
    gap = margin[:pairs] - margin[pairs:]
    first = -logsigmoid(beta * (gap - (kl[pairs:] - kl[:pairs])))
    second = -logsigmoid(beta * (gap - alpha * (kl[pairs:] - kl[:pairs].detach())))
    for name, losses in {"tdpo1": first, "tdpo2": second}.items():
        torch.testing.assert_close(losses.detach(), real(outputs[f"{name}_loss"]), **CLOSE)
        (slope,) = torch.autograd.grad(losses.mean(), policy, retain_graph=True)
        torch.testing.assert_close(slope, real(case["grads"][name]["policy_logits"]), **CLOSE)
    assert (kept(found.kl, mask) - kl).abs().max() > 0.01, "the other direction would not agree"


@pytest.mark.parametrize("case", cases("sparsepo"))
def test_sparsepo(case: dict[str, Any]) -> None:
    """The masks are the file's own; the weighted sums, and the loss with masks of one, are those of the engine's values."""
    inputs, outputs, params = case["inputs"], case["outputs"], case["params"]
    policy, reference = real(inputs["policy_logits"]).requires_grad_(), real(inputs["ref_logits"])
    mask, targets = torch.tensor(inputs["mask"]).bool(), torch.tensor(inputs["target_ids"])
    found, pairs, beta = engine(policy, reference, targets), params["n_pairs"], params["beta"]
    ratio = found.logp - engine(reference, reference, targets).logp
    chosen, rejected = slice(pairs), slice(pairs, None)

    def gap(values: Tensor | None, weight: Tensor | float) -> Tensor:
        assert values is not None
        whole = kept(weight * values, mask)
        return whole[chosen] - whole[rejected]

    reward_mask, kl_mask = real(outputs["mask_u"]), real(outputs["mask_d"])
    u, d = gap(ratio, reward_mask), -gap(found.reference_kl, kl_mask)
    torch.testing.assert_close(u.detach(), real(outputs["u"]), **CLOSE)
    torch.testing.assert_close(d.detach(), real(outputs["d"]), **CLOSE)
    ones = -logsigmoid(beta * (gap(ratio, 1.0) + gap(found.reference_kl, 1.0)))
    torch.testing.assert_close(ones.detach(), real(outputs["all_ones_mask_loss"]), **CLOSE)
    sizes = params["l1_u"] * kept(reward_mask, mask) + params["l1_d"] * kept(kl_mask, mask)
    loss = -logsigmoid(beta * (u - d)) + sizes[chosen] + sizes[rejected]
    torch.testing.assert_close(loss.detach(), real(outputs["sparse_loss"]), **CLOSE)
    (slope,) = torch.autograd.grad(loss.mean(), policy)
    torch.testing.assert_close(slope, real(case["grads"]["sparse_loss"]["policy_logits"]), **CLOSE)


@pytest.mark.parametrize("case", cases("sparsepo"))
def test_the_mask_of_activations(case: dict[str, Any]) -> None:
    """MaPO's, computed exactly, of one tensor's features."""
    inputs = case["inputs"]
    for values, mask, expected in zip(inputs["activation"], inputs["mask"], case["outputs"]["mapo_mask_exact_minmax"], strict=True):
        found = activation_share({"one": [real(values).mean(-1)]}, torch.tensor(mask) > 0)
        torch.testing.assert_close(found, real(expected), **CLOSE)
