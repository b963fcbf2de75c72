"""Every switch of AVA is a setting that the command line reaches, of the reward model and of the direct objective.

Test of rewards/ava_p.py, objectives/ava_p.py.
"""

import json
from pathlib import Path

import pytest

from tests.recipes.command import Command, made_once

SWITCHES = {
    "w/o neg": ("{}.negative:without-negative",),
    "negative as printed": ("{}.negative:literal",),
    "w/o irl": ("--{}.inference.kl", "0", "--{}.inference.td", "0"),
    "w/o cer": ("--{}.cer", "0"),
    "cer as printed": ("{}.ranking:sigmoid",),
    "cer with a logarithm": ("{}.ranking:log-sigmoid",),
    "w/o ptq": ("{}.inference.action-value:fresh-head",),
    "eq. 12": ("{}.inference.action-value:softmax-prob", "--{}.inference.action-value.alpha", "50"),
    "logits": ("{}.inference.action-value:raw-logits",),
    "literal range": ("{}.inference.likelihood:followed",),
    "weights": ("--{}.inference.beta", "0.5", "--{}.inference.gamma", "0.9"),
}
WITH_WEIGHT = {
    "prefer": ("objective.reward-weight:attention", "objective.reward-weight.scale:sum-one"),
    "reward": ("head.reward-weight:attention", "head.reward-weight.scale:sum-one"),
}
METHOD = {"prefer": ("objective:ava-p",), "reward": ("head:gaussian", "loss:ava-p")}


SHORT = ("--max-length", "64", "--max-steps", "2", "--lr", "0.01", "--holdout", "0")


@pytest.fixture(scope="module", params=METHOD)
def default(request: pytest.FixtureRequest, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """A command, and the last loss of its run with no switch."""
    name = request.param
    run = made_once(tmp_path_factory.mktemp("default"), name, *METHOD[name], *SHORT, "--model", model, "--data", data)
    return name, json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["loss"]


QUICK = ("w/o neg", "rwt")
"""The others are the same test over again, with other words: slow."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in (*SWITCHES, "rwt")])
def test_switch(command: Command, default: tuple[str, float], name: str) -> None:
    """Two steps, whose second loss differs from the default's."""
    command_name, loss = default
    group = "objective" if command_name == "prefer" else "loss"
    switch = WITH_WEIGHT[command_name] if name == "rwt" else tuple(word.format(group) for word in SWITCHES[name])
    done = command.prefer("run", *METHOD[command_name], *switch, *SHORT, command=command_name)
    assert done.code == 0, done.error
    same = {"prefer": "cer as printed", "reward": "cer with a logarithm"}[command_name]
    assert (command.lines("run")[-1]["loss"] == loss) == (name == same)
