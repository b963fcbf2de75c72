"""AVA's balance from the command line: half of the gradient by default, the literal weights and their warning; and Bradley-Terry's digits.

Test of train/balance.py, recipes/training/watchers.py.
"""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from finegrain.models.reward_models import load_reward_model
from finegrain.ops.gaussian_layer import GaussianLayer
from finegrain.recipes.training.watchers import ShareWarning
from tests.recipes.command import Command

SHORT = ("--max-length", "64", "--max-steps", "2", "--lr", "0.01", "--optim.embedding-lr", "0.01")
AVA_P = {"reward": ("head:gaussian", "loss:ava-p", "loss"), "prefer": ("objective:ava-p", "objective")}
WARNING = "of the gradient"


@pytest.mark.parametrize("name", AVA_P)
def test_the_ranking_has_half_by_default(command: Command, name: str) -> None:
    done = command.prefer("run", *AVA_P[name][:-1], *SHORT, command=name)
    assert done.code == 0, done.error
    assert WARNING not in done.error
    start = command.record("run")["gradient_at_start"]
    assert start["share"] == pytest.approx(0.5, abs=1e-5)
    first, second = command.lines("run")
    assert first["grad/ranking"] == pytest.approx(first["grad/bound"], rel=1e-5) == start["ranking"]
    assert "grad/bound" not in second
    assert first["bound_weight"] == second["bound_weight"] == start["bound_weight"] != 1
    if name == "reward":
        assert command.record("run")["evaluation"]["eval_td_square"]["mean"] > 0, "it measures how wide its rewards are"
        head = load_reward_model(command.folder / "run").head
        assert isinstance(head, GaussianLayer)
        assert float(head.log_std.detach()) != 0, "its bias is read again"


@pytest.mark.parametrize("name", ["reward", pytest.param("prefer", marks=pytest.mark.slow)])
def test_literal_weights_and_a_warning(command: Command, name: str) -> None:
    *method, group = AVA_P[name]
    literal = (*method, f"{group}.balance:literal-weights", f"--{group}.cer", "0.001")
    done = command.prefer("run", *literal, *SHORT, "--holdout", "0", command=name)
    assert done.code == 0, done.error
    assert done.error.count(WARNING) == 1, "once a run"
    start = command.record("run")["gradient_at_start"]
    assert start["bound_weight"] == 1
    assert start["share"] < 0.05


def test_the_warning_speaks_once_and_of_a_small_share_only() -> None:
    heard: list[str] = []
    watch = ShareWarning(heard.append)
    for line in (
        {"step": 1, "grad/ranking": 0.06, "grad/bound": 0.94},
        {"step": 2},
        {"step": 3, "grad/ranking": 0.0, "grad/bound": 1.0},
        {"step": 4, "grad/ranking": 0.04, "grad/bound": 0.96},
        {"step": 5, "grad/ranking": 0.01, "grad/bound": 0.99},
    ):
        watch(line)
    (line,) = heard
    assert line.startswith("warning: at step 4 the ranking has 4.0% of the gradient (norms: ranking 0.04, bound 0.96)")


@pytest.mark.parametrize("micro", ["2048", pytest.param("60", marks=pytest.mark.slow)])
def test_without_the_bound_it_is_bradley_terry_to_the_digit(command: Command, micro: str) -> None:
    """On the same head: a product with one column more may round in another way."""
    nothing = ("--loss.inference.beta", "0", "--loss.inference.kl", "0", "--loss.inference.td", "0")
    for run, method in (("ava", ("head:gaussian", "loss:ava-p", *nothing)), ("bt", ("head:gaussian", "loss:bradley-terry"))):
        done = command.prefer(run, *method, *SHORT, "--holdout", "0", "--micro-tokens", micro, command="reward")
        assert done.code == 0, done.error
    ava, bt = (load_file(command.folder / run / "model.safetensors") for run in ("ava", "bt"))
    assert ava.keys() == bt.keys()
    assert all(ava[name].equal(bt[name]) for name in bt)
    assert [line["loss"] for line in command.lines("ava")] == [line["loss"] for line in command.lines("bt")]
    start: Path = command.model
    assert not load_file(start / "model.safetensors")["model.embed_tokens.weight"].equal(bt["model.embed_tokens.weight"]), "something was trained"


@pytest.mark.parametrize(
    ("name", "method"), [("reward", ("head:gaussian", "loss:ava-d")), pytest.param("sft", ("objective:ava-d",), marks=pytest.mark.slow)]
)
def test_ava_d_starts_as_wide_as_its_differences(command: Command, name: str, method: tuple[str, ...]) -> None:
    """No ranking, so nothing to balance; the width is that of the start model, in the file of the head."""
    arguments = (*SHORT[:-4], "--lr", "1e-12", "--optim.embedding-lr", "1e-12", "--holdout", "0")
    for run, scale in (("start", "start-scale"), ("unit", "unit-scale")):
        group = method[-1].partition(":")[0]
        done = command.prefer(run, *method, f"{group}.inference.scale:{scale}", *arguments, command=name)
        assert done.code == 0, done.error
        assert "grad/bound" not in command.lines(run)[0]
    width = {run: float(load_file(command.folder / run / "reward_head.safetensors")["log_std"]) for run in ("start", "unit")}
    assert width["unit"] == pytest.approx(0, abs=1e-9)
    assert abs(width["start"]) > 0.1


def test_the_held_out_loss_is_the_one_that_was_trained(command: Command) -> None:
    """On the training rows, at a rate that moves nothing."""
    still = ("--max-length", "64", "--max-steps", "1", "--lr", "1e-12", "--optim.embedding-lr", "1e-12", "--batch-size", "24")
    done = command.prefer("run", "objective:ava-p", "--eval", command.data, *still)
    assert done.code == 0, done.error
    (line,) = command.lines("run")
    assert command.record("run")["evaluation"]["eval_loss"]["mean"] == pytest.approx(line["loss"], rel=1e-5)
    assert line["bound_weight"] != pytest.approx(1, rel=0.1)
