"""AVA-d: the worked case, its limits, and an independent loop."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from finegrain.objectives.ava_d import AvaD
from finegrain.objectives.nll import NLL
from finegrain.ops.action_values import LogProb, RawLogits
from finegrain.ops.bayesian_irl import EveryToken, Followed, Inference, UnitScale
from finegrain.types import Pair, Side, Term

NAN = float("nan")


def answer(probabilities: list[list[float]], mean: list[list[float]], std: list[list[float]]) -> Pair:
    """Ragged answers, padded with NaN."""
    width = max(map(len, probabilities))
    fill = lambda rows: torch.tensor([[*row, *[NAN] * (width - len(row))] for row in rows], dtype=torch.float64)
    mask = torch.tensor([[place < len(row) for place in range(width)] for row in probabilities])
    outputs = torch.stack([fill(mean), fill(std).log()], -1)
    return Pair(sides={"answer": Side(logp=fill(probabilities).log(), mask=mask, outputs=outputs)})


WORKED = answer([[0.5, 0.25, 0.8]], [[0.3, -0.2, 9.9]], [[1.0, 0.5, 1.0]])


def sums(terms: dict[str, Term]) -> dict[str, float]:
    return {name: float((term.coefficient * term.value).sum()) for name, term in terms.items()}


def test_worked_case() -> None:
    terms = AvaD(inference=Inference(likelihood=Followed()))(WORKED)
    assert isinstance(terms, dict)
    found = sums(terms)
    assert found["kl"] == pytest.approx(0.0450 + 0.3381, abs=1e-4)
    assert found["td"] == pytest.approx(0.9962 + 2.0811, abs=1e-4)
    assert sum(found.values()) == pytest.approx(5.5399, abs=1e-4)
    assert terms["td"].count.item() == 2
    every = sums(AvaD()(WORKED))
    assert every["likelihood"] == pytest.approx(found["likelihood"] - math.log(0.8)), "the last token too"


def test_without_inverse_rl_it_is_sft() -> None:
    plain = AvaD(inference=Inference(kl=0.0, td=0.0))(WORKED)
    sft = NLL()(WORKED)
    assert isinstance(sft, dict)
    assert float(plain["likelihood"].value / plain["likelihood"].count) == pytest.approx(float(sum((t.value / t.count).sum() for t in sft.values())))
    assert sums(plain)["kl"] == sums(plain)["td"] == 0


def test_a_single_token_has_no_transition() -> None:
    terms = AvaD()(answer([[0.5]], [[3.0]], [[2.0]]))
    assert terms["kl"].value.item() == terms["td"].value.item() == terms["kl"].count.item() == 0
    assert terms["likelihood"].value.item() == pytest.approx(math.log(2))


def naive(side: Side, inference: Inference, q: Tensor) -> dict[str, float]:
    """One token after the other."""
    total = {"likelihood": 0.0, "kl": 0.0, "td": 0.0}
    assert side.outputs is not None
    for row in range(len(side.mask)):
        places = [place for place in range(side.mask.shape[1]) if side.mask[row, place]]
        logp = side.logp if side.q_logp is None else side.q_logp
        for place in places:
            followed = place + 1 in places
            if followed or isinstance(inference.likelihood, EveryToken):
                total["likelihood"] -= inference.beta * float(logp[row, place])
            if followed:
                mean, std = float(side.outputs[row, place, 0]), math.exp(float(side.outputs[row, place, 1]))
                delta = float(q[row, place]) - inference.gamma * float(q[row, place + 1])
                total["kl"] += inference.kl * 0.5 * (mean**2 + std**2 - 1 - math.log(std**2))
                density = math.exp(-0.5 * ((delta - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
                total["td"] -= inference.td * math.log(density)
    return total


@pytest.mark.parametrize("likelihood", [EveryToken(), Followed()])
@pytest.mark.parametrize("form", [LogProb(), RawLogits()])
def test_equals_a_loop(likelihood: EveryToken | Followed, form: LogProb | RawLogits) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(5, 7, generator=generator) < 0.7
    noise = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    logp, q = -noise(5, 7).abs(), noise(5, 7)
    own = isinstance(form, RawLogits)
    side = Side(logp=logp, mask=mask, outputs=0.4 * noise(5, 7, 2), q=q if own else None, q_logp=-noise(5, 7).abs() if own else None)
    inference = Inference(beta=0.7, kl=0.3, td=1.7, gamma=0.9, likelihood=likelihood, action_value=form)
    found = sums(AvaD(inference=inference)(Pair(sides={"answer": side})))
    assert found == pytest.approx(naive(side, inference, q if own else logp))


def test_discount_one_telescopes() -> None:
    side = WORKED.answer
    delta = [float(side.logp[0, t] - side.logp[0, t + 1]) for t in range(2)]
    assert sum(delta) == pytest.approx(math.log(0.5) - math.log(0.8))


def test_gradient_of_the_temporal_difference_term() -> None:
    """d(-td)/dmu = (delta - mu) / sd^2."""
    outputs = WORKED.answer.outputs
    assert outputs is not None
    live = outputs.clone().requires_grad_()
    terms = AvaD(inference=Inference(kl=0.0))(Pair(sides={"answer": replace(WORKED.answer, outputs=live)}))
    (gradient,) = torch.autograd.grad(terms["td"].value.sum(), live)
    assert gradient[0, :2, 0].tolist() == pytest.approx([(0.3 - 0.6931) / 1, (-0.2 + 1.1632) / 0.25], abs=2e-4)
    assert not gradient[0, 2].any(), "the last token has no transition"


def test_what_the_scorer_is_asked_for() -> None:
    assert AvaD().action_value is None, "log pi is there already"
    assert AvaD(inference=Inference(action_value=LogProb(alpha=2.0))).action_value == LogProb(alpha=2.0)


def test_the_prior_is_as_wide_as_the_start_models_differences() -> None:
    """Against torch's own KL; before that width is known, and as printed, the prior is N(0, 1)."""
    given = replace(WORKED, state={"td_std": torch.tensor([3.0])})
    normal = torch.distributions.Normal
    rewards = normal(torch.tensor([0.3, -0.2]), torch.tensor([1.0, 0.5]))
    for objective, pair, width in (
        (AvaD(), given, 3.0),
        (AvaD(), WORKED, 1.0),
        (AvaD(inference=Inference(scale=UnitScale())), given, 1.0),
    ):
        want = torch.distributions.kl_divergence(rewards, normal(torch.zeros(2), torch.full((2,), width))).sum()
        assert objective(pair)["kl"].value.item() == pytest.approx(want.item(), rel=1e-5)
