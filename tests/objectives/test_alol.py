"""alol: worked numbers, limits of the variants, gradients that never pass the ratio, and its stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.objectives.advantage import DataRewards, FittedValue, MeanReward, Sampled
from finegrain.objectives.alol import KL, ALoL, Ratio, RefFree, Seq, token_log_ratios
from finegrain.objectives.nll import NLL
from finegrain.objectives.r_lol import RLoL
from finegrain.objectives.reward_rows import AllPriority, EveryRow, GoodPriority, GoodRandom, SigmoidScale
from finegrain.objectives.wbc import WBC
from finegrain.ops.sequence import log_ratio
from finegrain.train.read_contract import contract_of
from finegrain.types import Pair, row_losses
from tests.objectives.lol import answers, loss_and_slope, same, spread, worked
from tests.objectives.worked import close, real

VARIANTS = (Ratio(), Seq(), RefFree())


def test_worked_numbers() -> None:
    close(row_losses(ALoL()(worked(0.8, 0.5))), 2.967698287)
    close(row_losses(ALoL(variant=RefFree())(worked(0.8, 0.5))), 1.8)
    close(row_losses(ALoL(variant=KL(beta=0.05))(worked(0.8, 0.5))), 1.825)
    for variant in VARIANTS:
        close(row_losses(ALoL(variant=variant)(worked(0.3, 0.5))), 0.0)


@pytest.mark.parametrize("variant", [Ratio(), Seq()])
def test_at_the_reference_all_variants_are_one(variant: Ratio | Seq) -> None:
    pair = answers(at_reference=True)
    (loss, slope), (want, want_slope) = loss_and_slope(ALoL(variant=variant), pair), loss_and_slope(ALoL(variant=RefFree()), pair)
    same(loss, want)
    same(slope, want_slope)


def test_limits() -> None:
    pair = answers()
    ones = Pair(sides=pair.sides, columns={"advantage": real(*[1.0] * 6), "scored_reward": real(*[1.0] * 6)})
    (sft,) = NLL()(pair).values()
    same(row_losses(ALoL(variant=RefFree())(ones)).detach(), sft.value.detach())
    without_value = Pair(sides=pair.sides, columns={**pair.columns, "advantage": pair.columns["scored_reward"]})
    same(row_losses(ALoL()(without_value)).detach(), row_losses(RLoL()(pair)).detach())
    same(row_losses(ALoL(variant=RefFree())(without_value)).detach(), row_losses(WBC()(pair)).detach())
    for one, other in zip(loss_and_slope(ALoL(variant=KL(beta=0.0)), pair), loss_and_slope(ALoL(variant=RefFree()), pair), strict=True):
        same(one, other)


@pytest.mark.parametrize("clip", [0.2, 0.9, None])
def test_slopes_do_not_pass_the_ratio(clip: float | None) -> None:
    pair = answers()
    positive = pair.columns["advantage"].clamp(min=0)
    bounded = lambda ratio: ratio if clip is None else ratio.clamp(1 - clip, 1 + clip)
    whole = bounded(log_ratio(pair.answer).detach().exp())
    same(loss_and_slope(ALoL(variant=Ratio(clip=clip)), pair)[1], spread(-positive * whole, pair))
    tokens = bounded(token_log_ratios(pair.answer).detach().exp())
    same(loss_and_slope(ALoL(variant=Seq(clip=clip)), pair)[1], torch.where(pair.answer.mask, -positive[:, None] * tokens, 0.0))


def test_slope_of_kl_pushes_down_below_beta() -> None:
    pair = answers()
    positive = pair.columns["advantage"].clamp(min=0)
    slope = loss_and_slope(ALoL(variant=KL(beta=0.3)), pair)[1]
    same(slope, spread(0.3 - positive, pair))
    assert (slope[positive < 0.3].sum(-1) > 0).all()
    assert contract_of(ALoL(variant=KL(beta=0.3))).unbounded
    assert not contract_of(ALoL(variant=KL(beta=0.0))).unbounded


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_negative_advantage_is_nothing(variant: Ratio | Seq | RefFree) -> None:
    pair = answers()
    loss, slope = loss_and_slope(ALoL(variant=variant), pair)
    negative = pair.columns["advantage"] <= 0
    assert negative.any()
    assert not loss[negative].any()
    assert not slope[negative].any()
    assert (loss[~negative] > 0).all()


def test_a_policy_that_finds_answers_unlikely_is_no_better_held_out() -> None:
    pair = answers(at_reference=True)
    worse = Pair(sides={"answer": replace(pair.answer, logp=pair.answer.logp - 5)}, columns=pair.columns)
    for method in (ALoL(), ALoL(variant=Seq()), RLoL()):
        held = [method.held_out_loss(one).sum() for one in (pair, worse)]
        assert held[0] < held[1]
    assert ALoL()(worse).sum() < ALoL().held_out_loss(worse).sum()
    same(ALoL(variant=KL()).held_out_loss(worse), ALoL(variant=KL())(worse))


def test_what_is_logged() -> None:
    pair = answers()
    good, poor, clipped = (ALoL().measures(pair)[name] for name in ("nll/good", "nll/poor", "ratio/clipped"))
    (sft,) = NLL()(pair).values()
    same((good.value + poor.value).detach(), sft.value.detach())
    same(good.count + poor.count, pair.answer.mask.sum(-1).double())
    ratio = log_ratio(pair.answer).detach().exp()
    same(clipped.value, ((ratio < 0.1) | (ratio > 1.9)).double())
    assert ALoL(variant=Seq(clip=0.0)).measures(pair)["ratio/clipped"].value.sum() == pair.answer.mask.sum(), "no ratio is exactly 1"
    assert "ratio/clipped" not in ALoL(variant=KL()).measures(pair)


@dataclass
class Rows:
    """A run of made-up states and answers: the reward of a sample is that of its prompt, less a half for every second sample."""

    own: np.ndarray
    prompt_keys: np.ndarray
    of_prompt: Mapping[int, float]
    trains: bool = True
    kept: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    saved: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def take(self, rows: np.ndarray) -> "Rows":
        part = Rows(self.own[rows], self.prompt_keys[rows], self.of_prompt, self.trains, self.kept)
        part.facts, part.said, part.asked, part.saved = self.facts, self.said, self.asked, self.saved
        return part

    def prompt_token_states(self) -> list[np.ndarray]:
        return [np.sin(np.arange(8 * (2 + key % 3)) * (1 + key)).reshape(-1, 8).astype(np.float32) for key in self.prompt_keys]

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> list[list[str]]:
        self.asked.append(len(self.own))
        return [[f"{key} {number}" for number in range(count)] for key in self.prompt_keys]

    def score(self, reward: str, answers: list[list[str]] | None = None) -> dict[str, np.ndarray]:
        if answers is None:
            return {"answer": self.own}
        value = lambda text: self.of_prompt[int(text.split()[0])] - 0.5 * (int(text.split()[1]) % 2)
        return {str(number): np.array([value(own[number]) for own in answers]) for number in range(len(answers[0]))}

    def note(self, name: str, count: int) -> None:
        self.facts[name] = self.facts.get(name, 0) + count

    def say(self, line: str) -> None:
        self.said.append(line)

    def record(self, facts: Mapping[str, Any]) -> None:
        self.facts.update(facts)

    def save(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        self.saved[name] = tensors


def rows(**changes: Any) -> Rows:
    """Eight rows of four prompts."""
    of_prompt = {key: 0.55 + 0.1 * key for key in range(4)}
    return Rows(**{"own": np.linspace(0.1, 0.9, 8), "prompt_keys": np.arange(8) // 2, "of_prompt": of_prompt, **changes})


FAST = {"learning_rate": 1e-2, "epochs": 200, "batch_size": 4, "held_out": 0.0, "heads": 2}


def test_the_value_is_of_sampled_answers_one_per_prompt() -> None:
    train = rows()
    method = ALoL(reward="judge.py:score", value=FittedValue(**FAST))
    found = method.stage(train)
    assert train.asked == [4], "each prompt once"
    np.testing.assert_allclose(found["prompt_value"], 0.55 + 0.1 * train.prompt_keys, atol=0.02)
    np.testing.assert_array_equal(found["advantage"], train.own - found["prompt_value"])
    np.testing.assert_array_equal(found["priority"], np.maximum(found["advantage"], 0))
    negative = float((found["advantage"] <= 0).mean())
    assert train.facts["negative_share"] == negative > 0
    assert f"{negative:.1%}" in train.said[-1]
    assert set(train.saved["value_head"]) > {"query", "summary.weight"}
    held = rows(trains=False, kept=train.kept)
    np.testing.assert_allclose(method.stage(held)["prompt_value"], found["prompt_value"], rtol=1e-6)
    assert not held.asked, "fitted once"
    poor = rows(trains=False, kept=train.kept, own=np.zeros(8))
    method.stage(poor)
    assert poor.said == ["advantage: no held-out row has one above 0, so the held-out loss says nothing of good answers"]


def test_several_samples_and_other_values() -> None:
    asked = rows()
    several = Sampled(samples=2, temperature=1.0)(asked, np.array([0, 6]), "", SigmoidScale(), asked.own)
    sigmoid = lambda score: 1 / (1 + np.exp(-score))
    np.testing.assert_allclose(several, [(sigmoid(v) + sigmoid(v - 0.5)) / 2 for v in (0.55, 0.85)])
    of_data = DataRewards()(asked, np.array([0, 6]), "", SigmoidScale(), asked.own)
    np.testing.assert_allclose(of_data, [asked.own[:2].mean(), asked.own[6:].mean()])
    mean = ALoL(value=MeanReward()).stage(asked)
    np.testing.assert_allclose(mean["advantage"], asked.own - asked.own.mean())
    with pytest.raises(UsageError, match="all alike at temperature 0"):
        Sampled(samples=2)


def test_how_rows_are_drawn() -> None:
    gains = np.array([-1.0, 0.0, 0.5, 2.0])
    assert GoodPriority()(gains).tolist() == AllPriority()(gains).tolist() == [0, 0, 0.5, 2.0]
    assert GoodRandom()(gains).tolist() == [0, 0, 1, 1]
    assert (ALoL().shape, ALoL(sampling=AllPriority()).shape) == ("demonstration", "unpaired")
    plain = ALoL(sampling=EveryRow(), value=MeanReward())
    assert plain.sample_by is None
    assert "priority" not in plain.stage(rows())


def test_bad_rewards_are_errors() -> None:
    with pytest.raises(UsageError, match="column:reward cannot score; name a reward model"):
        ALoL().stage(rows())
    with pytest.raises(DataError, match="gives 1 of 8 answers no finite number"):
        ALoL(value=MeanReward()).stage(rows(own=np.array([np.nan, *range(7)])))
    with pytest.raises(DataError, match="no training row has a positive advantage"):
        ALoL(value=MeanReward()).stage(rows(own=np.ones(8)))
    for count in (8, 41, 44):
        with pytest.raises(DataError, match="no training row has a positive advantage"):
            ALoL(value=MeanReward()).stage(rows(own=np.full(count, 0.1)))
    with pytest.raises(DataError, match="every reward, of the data and of the answers behind the value, is 1,"):
        ALoL(reward="model", value=FittedValue(**FAST)).stage(rows(own=np.ones(8), of_prompt=dict.fromkeys(range(4), 1.0)))
    with pytest.raises(UsageError, match=r"rewards lie between 0\.55 and 7, and the fitted value between 0 and max_value 1"):
        ALoL(reward="model", value=FittedValue(**FAST)).stage(rows(own=np.linspace(1, 7, 8)))
    with pytest.raises(DataError, match="gives no answer of the start model a number"):
        ALoL(reward="model", value=FittedValue(**FAST)).stage(rows(of_prompt=dict.fromkeys(range(4), np.nan)))
