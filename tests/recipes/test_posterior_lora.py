"""`finegrain reward posterior --over lora`: the adapter kept beside merged weights, its posterior fitted, saved, read, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finegrain.errors import ModelError
from finegrain.models.adapters import take_adapter_out
from finegrain.models.curvature import find_layers, score_group
from finegrain.models.layer_posterior import LAYERS_FILE, load_layers
from finegrain.models.packing import Branch, Group
from finegrain.models.probe import make_scorer
from finegrain.models.reward_models import load_reward_model
from finegrain.scoring.reward_model import head_of
from tests.recipes.command import Command
from tests.recipes.test_posterior import ready, scores, train
from tests.tiny import write_rows

ADAPTED = ("--lora.rank", "2", "--lora.alpha", "4", "--lora.targets", "q_proj,down_proj", "--max-steps", "4", "--lr", "0.01")
PAIRS = 8


def fit(command: Command, run: str, *arguments: str | Path) -> Any:
    data = () if "--data" in arguments else ("--data", command.data)
    return command("reward", "posterior", command.folder / run, "--over", "lora", *data, "--device", "cpu", "--limit", str(PAIRS), *arguments)


@pytest.mark.parametrize(
    "head",
    [("head:sequence",), *(pytest.param((head,), marks=pytest.mark.slow) for head in ("head:token", "head:ensemble", "head:rating"))],
    ids=str,
)
def test_scores_say_a_std_after_it(command: Command, head: tuple[str, ...]) -> None:
    ready(command, "run", *head, *ADAPTED)
    before = scores(command, "run", "before.jsonl")
    done = fit(command, "run")
    assert done.code == 0, done.error
    assert done.result["pairs"] == PAIRS
    assert 0 < done.result["determined_directions"][0] < done.result["directions"]
    assert done.result["prior_variance"][0] > 0
    assert json.loads((command.folder / "run/posterior_lora.json").read_text())["data"]["rows"] == PAIRS
    after = scores(command, "run", "after.jsonl")
    for old, new in zip(before, after, strict=True):
        assert new["score"]["mean"] == pytest.approx(old["score"]["mean"], rel=1e-4, abs=1e-4)
        assert new["score"]["std"] > (old["score"]["std"] or 0.0)
        own = [token[3] for token in old["tokens"]]
        assert [token[3] for token in new["tokens"]] == (own if own[0] is None else pytest.approx(own, rel=1e-4)), "of tokens it says nothing"
    again = fit(command, "run")
    assert again.code == 7
    assert "already exists" in again.error


def test_the_std_is_that_of_a_dense_posterior(command: Command, tmp_path: Path) -> None:
    """J (H + I / s2)^-1 J^T by hand, from the factors on disk, one matrix after the other; the adapter taken out changes no score."""
    ready(command, "run", "head:sequence", *ADAPTED)
    assert fit(command, "run", "--prior-variance", "0.5", "--rank", "3").code == 0
    run = command.folder / "run"
    merged, apart = load_reward_model(run), load_reward_model(run)
    network = take_adapter_out(apart.policy.model, run).eval()
    layers = find_layers(network)
    posterior = load_layers(run, layers, apart.head)
    fitted = load_file(run / LAYERS_FILE)
    name = next(name for name in fitted if name.startswith("small."))
    save_file({**fitted, name: torch.full_like(fitted[name], torch.inf)}, tmp_path / LAYERS_FILE)
    with pytest.raises(ModelError, match=r"the posterior .*: 1 weights contain NaN or infinity: small\."):
        load_layers(tmp_path, layers, apart.head)
    assert set(posterior.factors) <= set(layers)
    assert all(factor.large.shape[1] == 3 for factor in posterior.factors.values())
    ids = torch.arange(5, 14, dtype=torch.int32).numpy()
    group = Group(ids[:4], (Branch(ids[4:], (ids[4:] > 0)),))
    scorer, _ = make_scorer(network, longest=40, head=apart.head)
    judged = score_group(scorer, head_of(apart), apart.head, layers, group)
    plain, _ = make_scorer(merged.policy.model.eval(), longest=40, head=merged.head)
    torch.testing.assert_close(judged.scores, score_group(plain, head_of(merged), merged.head, {}, group).scores, rtol=1e-5, atol=1e-6)
    variance = 0.0
    for name, gradient in judged.jacobian(judged.scores[0]).items():
        factor = posterior.factors[name]
        precision = torch.kron(factor.large @ factor.large.T, factor.small) + torch.eye(gradient[0].numel()) / 0.5
        variance += float(gradient[0].flatten() @ torch.linalg.solve(precision, gradient[0].flatten()))
    assert posterior.variance(judged, judged.scores[0]) == pytest.approx(variance, rel=1e-5)


def test_columns_count(command: Command) -> None:
    ready(command, "run", "head:sequence", *ADAPTED)
    found = {}
    for name, change in {"plain": {}, "weight": {"weight": 3.0}, "margin": {"margin": 2.0}}.items():
        file = command.folder / f"{name}.jsonl"
        write_rows(file, ({**json.loads(line), **change} for line in command.data.read_text().splitlines()))
        done = fit(command, "run", "--data", file, "--prior-variance", "1")
        assert done.code == 0, done.error
        found[name] = done.result["determined_directions"][0]
        (command.folder / "run/posterior_lora.safetensors").unlink()
    assert found["weight"] > 1.05 * found["plain"]
    assert found["margin"] != pytest.approx(found["plain"], rel=1e-3)


def test_what_is_refused(command: Command) -> None:
    ready(command, "whole", "head:sequence", "--max-steps", "6")
    none = fit(command, "whole")
    assert none.code == 4
    assert "--lora.rank" in none.error
    ready(command, "run", "head:sequence", *ADAPTED)
    train(command, "other", "head:sequence", *ADAPTED, "--seed", "5")
    assert fit(command, "run", "--rank", "0").code == 2
    assert fit(command, "run").code == 0
    for name in ("posterior_lora.safetensors", "posterior_lora.json"):
        (command.folder / "other" / name).write_bytes((command.folder / "run" / name).read_bytes())
    score = ("score", "--data", command.data, "--out", command.folder / "x.jsonl", "--device", "cpu", "--model")
    refused = command(*score, command.folder / "other")
    assert refused.code == 4
    assert "fit it again" in refused.error
    (command.folder / "other/posterior_lora.safetensors").write_bytes(b"nothing")
    refused = command(*score, command.folder / "other")
    assert refused.code == 4
    assert "cannot read the posterior" in refused.error
    (command.folder / "run/adapter/adapter_model.safetensors").unlink()
    refused = command(*score, command.folder / "run")
    assert refused.code == 4
    assert "adapter" in refused.error
