"""Q-values: worked numbers, chunks against a dense head, gradients too."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.ops import logprobs
from finegrain.ops.action_values import FreshHead, LogProb, QForm, RawLogits, SoftmaxProb, action_values
from finegrain.ops.logprobs import OutputLayer

FORMS: list[QForm] = [LogProb(alpha=1.7), SoftmaxProb(alpha=10.0), RawLogits(), FreshHead()]


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, (0.391, 0.320, 0.289)), (10.0, (0.844, 0.114, 0.042)), (100.0, (1.0, 2e-9, 9e-14))])
def test_softmax_of_probabilities(alpha: float, expected: tuple[float, ...]) -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log().expand(3, 3)
    found = SoftmaxProb(alpha=alpha)(logits, torch.arange(3))
    assert found.logp.exp().tolist() == pytest.approx(expected, abs=5e-4)
    assert torch.equal(found.q, found.logp)


def test_alpha_one_is_log_pi() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64)
    targets = torch.tensor([0, 3, 4, 1])
    want = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(LogProb()(logits, targets).q, want)
    torch.testing.assert_close(RawLogits()(logits, targets).logp, want)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_chunks_equal_dense(form: QForm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 3)
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 1)
    hidden = torch.randn(11, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 7, (11,))
    head = OutputLayer(weight, None, 2.0, 0.7)
    found = action_values(hidden, head, targets, form)
    logits = 2.0 * torch.tanh((0.7 * hidden @ weight.T) / 2.0)
    want = form(logits, targets)
    up = torch.randn(11, dtype=torch.float64)
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other)
        mine, theirs = (torch.autograd.grad((value * up).sum(), [hidden, weight], retain_graph=True) for value in (one, other))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_a_constant_added_to_a_state_changes_raw_q_alone() -> None:
    logits, targets = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0, 1, 2])
    for form, moves in ((RawLogits(), True), (LogProb(), False)):
        assert bool((form(logits + 2.0, targets).q - form(logits, targets).q).abs().max() > 1) == moves


def test_alpha_is_positive() -> None:
    with pytest.raises(UsageError, match="alpha"):
        LogProb(alpha=0.0)
