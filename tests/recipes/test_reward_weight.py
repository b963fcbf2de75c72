"""Eq. 11 of AVA from the command line: trained, saved, read again, and computed the same by stock code and a loop.

Test of ops/action_values.py, ops/reward_weight.py.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finegrain.models.packing import Branch, Group
from finegrain.models.scorer import Path as ScorerPath
from finegrain.models.scorer import Request, fused, plain, use_branched_attention
from finegrain.ops.action_values import FreshHead, LogProb, RawLogits, SoftmaxProb, Weighed
from finegrain.ops.reward_weight import Attention, SumOne
from finegrain.rewards.gaussian import Gaussian
from tests.recipes.command import Command
from tests.recipes.reward_folder import save_reward
from tests.tiny import MODELS, exact_norms, write_rows

ATTENTION = ("head.reward-weight:attention", "--head.reward-weight.width", "3")
SHORT = ("--max-length", "64", "--max-steps", "4", "--lr", "0.02")


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def naive_scores(folder: Path, line: dict[str, Any], width: int) -> list[float]:
    """w_t |y| mu_t: stock hidden states, the saved rows, and eq. 11 one query and one key after the other."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(line[name], add_special_tokens=False)["input_ids"] for name in ("prompt", "response")]
    prompt, answer = [tokenizer.bos_token_id, *ids[0]], [*ids[1], tokenizer.eos_token_id]
    with torch.no_grad():
        states = AutoModelForSequenceClassification.from_pretrained(folder).model(torch.tensor([prompt + answer])).last_hidden_state[0, len(prompt) :]
        outputs = (states @ load_file(folder / "reward_head.safetensors")["weight"].T).double().tolist()
    received = [0.0] * len(outputs)
    for one in outputs:
        strengths = [math.exp(sum(one[2 + d] * other[2 + width + d] for d in range(width))) for other in outputs]
        received = [before + strength / sum(strengths) for before, strength in zip(received, strengths, strict=True)]
    return [weight * one[0] for weight, one in zip(received, outputs, strict=True)]


def test_the_loaded_model_scores_as_a_loop_does(command: Command) -> None:
    trained = command.prefer("run", "head:gaussian", *ATTENTION, "loss:ava-p", *SHORT, command="reward")
    assert trained.code == 0, trained.error
    run = command.folder / "run"
    weight = load_file(run / "reward_head.safetensors")["weight"]
    assert weight.shape == (2 + 2 * 3, 32)
    saved = json.loads((run / "reward_head.json").read_text())
    assert saved["head"]["reward_weight"] == {"choice": "attention", "width": 3, "scale": {"choice": "mean-one"}}
    assert "before they are weighed" in json.loads((run / "config.json").read_text())["finegrain"]["stock_load"]
    out = command.folder / "scores.jsonl"
    scored = command("score", "--model", run, "--data", command.data, "--out", out, "--limit", "3", "--device", "cpu", "segmenter:tokens")
    assert scored.code == 0, scored.error
    gaps = []
    for line in lines_of(out):
        want = naive_scores(run, line, 3)
        got = [token[2] for token in line["tokens"]]
        assert got == pytest.approx(want, abs=1e-5)
        assert line["score"]["mean"] == pytest.approx(want[-1], abs=1e-5)
        gaps += [max(want) - min(want)]
    assert max(gaps) > 1e-3, "the scores are not all alike"


@pytest.mark.parametrize(
    "form", ["log-prob", pytest.param("softmax-prob", marks=pytest.mark.slow), pytest.param("raw-logits", marks=pytest.mark.slow), "fresh-head"]
)
def test_every_form_of_q_trains(command: Command, form: str) -> None:
    """Query and key move, by way of Q alone too: with the reward's own terms off, only weighed Q-values can move them."""
    only_q = ("--loss.inference.kl", "0", "--loss.inference.td", "0", "--loss.cer", "0")
    chosen = ("loss:ava-p", f"loss.inference.action-value:{form}")
    moved = {}
    for steps in ("1", "4"):
        done = command.prefer(steps, "head:gaussian", *ATTENTION, *chosen, *only_q, *SHORT, "--max-steps", steps, command="reward")
        assert done.code == 0, done.error
        moved[steps] = load_file(command.folder / steps / "reward_head.safetensors")["weight"]
    assert float((moved["1"] - moved["4"])[2:].abs().max()) > 1e-3
    assert torch.equal(moved["1"][:2], moved["4"][:2]), "mean and log sd have no gradient"


@pytest.mark.parametrize(("recipe", "objective"), [("prefer", "ava-p"), ("sft", "ava-d")])
def test_direct_objectives(command: Command, recipe: str, objective: str, tmp_path: Path) -> None:
    data = tmp_path / "demonstrations.jsonl"
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    write_rows(data, ({"prompt": row["prompt"], "completion": row["chosen"]} for row in rows))
    given = ("--data", data) if recipe == "sft" else ()
    for run, extra in (("with", ("objective.reward-weight:attention",)), ("without", ())):
        done = command.prefer(run, *given, f"objective:{objective}", *extra, *SHORT, command=recipe)
        assert done.code == 0, done.error
    shapes = {run: load_file(command.folder / run / "reward_head.safetensors")["weight"].shape[0] for run in ("with", "without")}
    assert shapes == {"with": 34, "without": 2}
    weighed, plain_run = (command.lines(run) for run in ("with", "without"))
    assert weighed[0]["loss"] == pytest.approx(plain_run[0]["loss"], rel=0.05), "at the start attention is nearly even: the weights are nearly 1"
    assert weighed[-1]["loss"] != plain_run[-1]["loss"]


def test_what_cannot_be_had(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "rm", "gaussian", Gaussian(reward_weight=Attention(width=2)))
    out = command.folder / "scores.jsonl"
    refused = command("score", "--model", folder, "--data", command.data, "--out", out, "--device", "cpu", "signal:prefix-difference")
    assert (refused.code, "every prefix" in refused.error) == (2, True)
    refused = command("reward", "posterior", folder, "--data", command.data, "--device", "cpu")
    assert refused.code != 0
    assert "weighs its tokens" in refused.error
    refused = command.prefer("frozen", "head:gaussian", *ATTENTION, "--frozen", command="reward")
    assert refused.code == 2
    assert "last token" in refused.error
    refused = command.prefer("zero", "head:gaussian", "head.reward-weight:attention", "--head.reward-weight.width", "0", command="reward")
    assert (refused.code, "at least 1" in " ".join(refused.error.split())) == (2, True), refused.error


@pytest.mark.parametrize("form", [LogProb(), SoftmaxProb(), RawLogits(), FreshHead()], ids=lambda form: type(form).__name__)
@pytest.mark.parametrize("path", [fused, plain])
def test_weighed_q_values_of_the_scorer(path: ScorerPath, form: Any) -> None:
    """Both paths: values of every answer from its own scored tokens, holes and an answer without any included, prompts unweighed."""
    rng = np.random.default_rng(0)
    ids = lambda count: rng.integers(3, 97, count).astype(np.int32)
    holes = np.array([True, False, True, True])
    masks = (holes, np.ones(7, dtype=bool)), (np.zeros(3, dtype=bool), np.ones(1, dtype=bool))
    groups = [Group(ids(length), tuple(Branch(ids(len(mask)), mask) for mask in both)) for length, both in zip((5, 3), masks, strict=True)]
    weigh = Attention(width=2, scale=SumOne())
    generator = torch.Generator().manual_seed(0)
    head, q_head = torch.nn.Linear(32, 6, bias=False, dtype=torch.float64), torch.nn.Linear(32, 97, bias=False, dtype=torch.float64)
    with torch.no_grad():
        for layer in (head, q_head):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    model, use = MODELS["llama"]().double(), MODELS["llama"]().double()
    for one in (model, use):
        exact_norms(one)
    if path is fused:
        use_branched_attention(model)
    asked = Request(prompts=True, outputs=head, action_value=Weighed(form=form, weight=weigh), q_head=q_head if form.fresh else None)
    with torch.no_grad():
        found = path(model, groups, asked)
    assert found.outputs is not None
    assert found.q is not None
    assert found.q_logp is not None
    start = 0
    for group in groups:
        for branch in group.branches:
            places = np.flatnonzero(branch.mask)
            own = found.outputs[start : start + len(places)]
            weights = weigh.weights(own[None], torch.ones(1, len(places), dtype=torch.bool))[0]
            with torch.no_grad():
                states = use.model(torch.from_numpy(np.concatenate([group.prompt, branch.ids]).astype(np.int64))[None]).last_hidden_state[0]
                logits = states @ (q_head if form.fresh else use.lm_head).weight.T
            for number, place in enumerate(places):
                row = logits[len(group.prompt) - 1 + place]
                values = weights[number] * form.values(row[None])[0]
                assert found.q[start + number].item() == pytest.approx(float(values[branch.ids[place]]), abs=1e-9)
                assert found.q_logp[start + number].item() == pytest.approx(float(values.log_softmax(0)[branch.ids[place]]), abs=1e-9)
            start += len(places)
    assert len(found.q) > start, "prompt tokens come last"
