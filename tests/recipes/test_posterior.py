"""`finegrain reward posterior` end to end, and heads that are no linear map: saved, loaded, scored, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from finegrain.errors import ModelError
from finegrain.models.posterior import add_posterior, load_posteriors
from finegrain.models.reward_head import load_head
from finegrain.models.reward_models import load_reward_model
from finegrain.ops.readout import Mean
from finegrain.rewards.bottleneck import Bottleneck
from finegrain.rewards.diverse_preferences import Softmax
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.rating import Rating
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.scoring.reward_model import head_of
from finegrain.types import Side
from tests.recipes.command import Command
from tests.recipes.reward_folder import save_reward
from tests.tiny import write_rows


def train(command: Command, run: str, *arguments: str | Path) -> Any:
    found = command.prefer(run, "--max-length", "64", "--lr", "0.003", "--examined", "0", *arguments, command="reward")
    assert found.code == 0, found.error
    return found.result


def ready(command: Command, run: str, *arguments: str | Path) -> Path:
    return command.ready(run, "--max-length", "64", "--lr", "0.003", "--examined", "0", *arguments, command="reward")


def scores(command: Command, run: str, out: str) -> list[dict[str, Any]]:
    file = command.folder / out
    done = command("score", "--model", command.folder / run, "--data", command.data, "--out", file, "--device", "cpu")
    assert done.code == 0, done.error
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("head", "rewards"),
    [(("head:sequence",), 1), (("head:token", "head.readout:minimum"), 1), (("head:gaussian",), 1), (("head:ensemble",), 5)],
    ids=str,
)
def test_scores_say_a_std_after_it(command: Command, head: tuple[str, ...], rewards: int) -> None:
    ready(command, "run", *head, "--max-steps", "6")
    before = scores(command, "run", "before.jsonl")
    done = command("reward", "posterior", command.folder / "run", "--data", command.data, "--device", "cpu", "--max-length", "64")
    assert done.code == 0, done.error
    assert done.result["pairs"] == 24
    assert len(done.result["prior_variance"]) == rewards
    assert all(0 < count < 32 for count in done.result["determined_directions"])
    assert json.loads((command.folder / "run/posterior.json").read_text())["data"]["rows"] == 24
    after = scores(command, "run", "after.jsonl")
    for old, new in zip(before, after, strict=True):
        assert new["score"]["mean"] == pytest.approx(old["score"]["mean"], rel=1e-4, abs=1e-4)
        assert new["score"]["std"] > 0
        if old["score"]["std"] is not None and "ensemble" not in head[0]:
            assert new["score"]["std"] > old["score"]["std"], "the head's own and the posterior's"
        assert all(token[3] > 0 for token in new["tokens"])
    again = command("reward", "posterior", command.folder / "run", "--data", command.data, "--device", "cpu")
    assert again.code == 7
    assert "already exists" in again.error


def test_the_std_is_the_posterior_s(command: Command) -> None:
    """By hand from hidden states of the stock class, float64; the minimum prior variance leaves no doubt."""
    save_reward(command.model, command.folder / "run", "token", Token(readout=Mean()))
    assert command("reward", "posterior", command.folder / "run", "--data", command.data, "--prior-variance", "0.25", "--device", "cpu").code == 0
    (posterior,) = load_posteriors(command.folder / "run")
    assert posterior.prior_variance == 0.25
    model = load_reward_model(command.folder / "run")
    head, module = add_posterior(head_of(model), model.head, [posterior])
    states = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    score = sequence_score(head, Side(logp=torch.zeros(2, 5), mask=mask, outputs=module(states)))
    features = torch.stack([states[0].mean(0), states[1, :2].mean(0)]).double()
    torch.testing.assert_close(score.std.double(), posterior.variance(features).sqrt(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(score.mean, (features.float() @ model.head.weight[0]))


def test_a_posterior_of_other_weights_is_refused(command: Command) -> None:
    ready(command, "run", "head:sequence", "--max-steps", "6")
    save_reward(command.model, command.folder / "other", "sequence", Sequence())
    assert command("reward", "posterior", command.folder / "run", "--data", command.data, "--device", "cpu").code == 0
    for name in ("posterior.safetensors", "posterior.json"):
        (command.folder / "other" / name).write_bytes((command.folder / "run" / name).read_bytes())
    refused = command("score", "--model", command.folder / "other", "--data", command.data, "--out", command.folder / "x.jsonl", "--device", "cpu")
    assert refused.code == 4
    assert "fit it again" in refused.error
    fitted = load_file(command.folder / "run/posterior.safetensors")
    fitted["curvature"][..., 0] = torch.nan
    save_file(fitted, command.folder / "run/posterior.safetensors")
    refused = command("score", "--model", command.folder / "run", "--data", command.data, "--out", command.folder / "x.jsonl", "--device", "cpu")
    assert refused.code == 4
    assert "contain NaN or infinity: curvature" in refused.error
    (command.folder / "other/posterior.safetensors").write_bytes(b"nothing")
    refused = command("score", "--model", command.folder / "other", "--data", command.data, "--out", command.folder / "x.jsonl", "--device", "cpu")
    assert refused.code == 4
    assert "cannot read the posterior" in refused.error


def test_columns_count(command: Command) -> None:
    """Weights of the pairs change the curvature, margins and flips the certainty."""
    ready(command, "run", "head:sequence", "--max-steps", "6")
    found = {}
    for name, change in {"plain": {}, "weight": {"weight": 3.0}, "margin": {"margin": 2.0}}.items():
        file = command.folder / f"{name}.jsonl"
        write_rows(file, ({**json.loads(line), **change} for line in command.data.read_text().splitlines()))
        done = command("reward", "posterior", command.folder / "run", "--data", file, "--prior-variance", "1", "--device", "cpu")
        assert done.code == 0, done.error
        found[name] = load_posteriors(command.folder / "run")[0].curvature.sum().item()
        (command.folder / "run/posterior.safetensors").unlink()
    assert found["weight"] == pytest.approx(3 * found["plain"])
    assert not np.isclose(found["margin"], found["plain"], rtol=1e-2)


@pytest.mark.slow
def test_stage_2_goes_on_from_a_reward_model(command: Command) -> None:
    train(command, "one", "head:sequence", "--epochs", "4")
    result = train(command, "two", "head:gaussian-ensemble", "loss:brme", "--model", command.folder / "one", "--epochs", "3", "--lr", "0.01")
    assert set(result["evaluation"]) >= {"eval_head/spread", "eval_head/member_std", "eval_head/wins/0"}
    lines = command.lines("two")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"head/spread_chosen", "head/wins/4_rejected"} <= set(lines[-1])
    assert sum(lines[-1][f"head/wins/{member}_chosen"] for member in range(5)) == pytest.approx(1.0)
    before, after = (load_file(command.folder / run / "model.safetensors") for run in ("one", "two"))
    assert all(torch.equal(before[name], after[name]) for name in before if "score" not in name), "the backbone is frozen"
    assert command.record("two")["stage_1"]["std"] > 0
    stage_1, stage_2 = scores(command, "one", "1.jsonl"), scores(command, "two", "2.jsonl")
    assert np.corrcoef(*[[line["score"]["mean"] for line in lines] for lines in (stage_1, stage_2)])[0, 1] > 0.8
    AutoModelForSequenceClassification.from_pretrained(command.folder / "two")


def test_stage_2_needs_a_stage_1(command: Command) -> None:
    refused = command.prefer("run", "head:gaussian-ensemble", "loss:brme", "--max-steps", "1", command="reward")
    assert refused.code == 3
    assert "chosen_target" in refused.error
    assert command.prefer("run2", "head:token", "loss:brme", command="reward").code == 2
    ready(command, "one", "head:sequence", "--max-steps", "6")
    other = command.prefer("run3", "head:token", "--model", command.folder / "one", "--max-steps", "1", command="reward")
    assert other.code == 0, other.error
    assert "head: a fresh one" in other.error
    assert json.loads((command.folder / "run3" / "run.json").read_text())["start_head"] == "fresh"


def test_pairs_alone_fit_gaussian_heads(command: Command) -> None:
    train(command, "run", "head:gaussian-ensemble", "loss:brme", "loss.fit:preference-gaussian", "--max-steps", "2")


def test_stochastic_codes_are_saved_whole_and_load_stock(command: Command) -> None:
    train(command, "run", "head:diverse-preferences", "loss:diverse-preferences", "--loss.phi", "0.01", "--head.members", "2", "--epochs", "4")
    run = command.folder / "run"
    assert command.lines("run")[-1]["rewards/accuracies"] > 0.9
    model = load_reward_model(run)
    assert isinstance(model.head, Bottleneck)
    assert not model.head.training
    stored = load_file(run / "reward_head.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in model.head.state_dict().items())
    stock = AutoModelForSequenceClassification.from_pretrained(run)
    assert torch.equal(stock.score.weight.detach(), stored["linear_proxy.weight"])
    found = scores(command, "run", "scores.jsonl")
    assert all(line["score"]["std"] > 0 for line in found)
    good, bad = ([line["score"]["mean"] for line in found if line["id"].endswith(role)] for role in ("chosen", "rejected"))
    assert np.mean(good) > np.mean(bad)
    refused = command("reward", "posterior", run, "--data", command.data, "--device", "cpu")
    assert refused.code == 4
    assert "linear reward" in refused.error
    with pytest.raises(ModelError, match="names no head"):
        load_head(run)
    facts = {"head": {**model.facts["head"], "latent": 3}}
    with pytest.raises(ModelError, match="does not fit"):
        load_head(run, facts)


def test_members_weighed_by_a_softmax_are_read_back_so(command: Command) -> None:
    asked = ("head:diverse-preferences", "loss:diverse-preferences", "--loss.phi", "0.01", "head.weighting:softmax", "--head.weighting.tau", "0.5")
    train(command, "run", *asked, "--max-steps", "2", "--examined", "0")
    model = load_reward_model(command.folder / "run")
    assert model.facts["head"]["weighting"] == {"choice": "softmax", "tau": 0.5}
    assert isinstance(model.head, Bottleneck)
    assert model.head.weighting == Softmax(tau=0.5)


def test_a_run_with_noise_resumes_to_the_same_end(command: Command) -> None:
    """The codes' noise comes from the generator that a checkpoint keeps."""
    asked = ("head:diverse-preferences", "loss:diverse-preferences", "--max-steps", "4", "--save-every", "2")
    train(command, "whole", *asked)
    train(command, "cut", *asked)
    for name in ("model.safetensors", "reward_head.safetensors"):
        (command.folder / "cut" / name).unlink()
    train(command, "cut", *asked, "--resume")
    one, two = (load_file(command.folder / run / "reward_head.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_collapsed_codes_are_an_error(command: Command) -> None:
    asked = ("head:diverse-preferences", "loss:diverse-preferences", "--loss.phi", "1000", "--epochs", "10", "--lr", "0.1")
    found = command.prefer("run", "--max-length", "64", "--examined", "0", *asked, command="reward")
    assert found.code == 4, found.result
    assert "lower --loss.phi" in found.error


def test_a_rating_is_no_linear_reward(command: Command) -> None:
    save_reward(command.model, command.folder / "run", "rating", Rating())
    refused = command("reward", "posterior", command.folder / "run", "--data", command.data, "--device", "cpu")
    assert refused.code == 4
    assert "Rating is not linear in its 5 logits" in refused.error
    assert not (command.folder / "run/posterior.safetensors").exists()


def test_bad_input(command: Command) -> None:
    assert command("reward", "posterior", command.folder / "nothing", "--data", command.data).code == 4
    assert command("reward", "posterior", command.model, "--data", command.data).code == 4
    ready(command, "run", "head:sequence", "--max-steps", "6")
    assert command("reward", "posterior", command.folder / "run", "--data", command.data, "--prior-variance", "0").code == 2
