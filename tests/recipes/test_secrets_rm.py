"""`loss:secrets-rm` with its contrastive terms, and `meta:meta-rm`, on the command line.

Test of rewards/secrets_rm.py, recipes/training/meta_step.py.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from finegrain.models.packing import Branch, Group
from finegrain.models.probe import make_scorer
from finegrain.models.reward_head import linear_head
from finegrain.models.score import Precision
from finegrain.models.scorer import Request
from finegrain.recipes.training.meta_step import Rise
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.meta_rm import MetaRM, discrimination
from finegrain.rewards.sequence import Sequence
from finegrain.train.collate import TrainingSet
from finegrain.train.loop import Trainer
from finegrain.train.optim import Optim
from finegrain.train.read_contract import contract_of
from tests.recipes.command import Command, Outcome
from tests.tiny import MODELS, exact_norms, ragged_groups, write_rows

SWAV = ("head:sequence", "loss:secrets-rm", "loss.contrast:swav", "--loss.contrast.prototypes", "3")


def reward(command: Command, run: str, *arguments: str | Path) -> Outcome:
    return command.prefer(run, "--max-length", "64", *arguments, command="reward")


def weights(command: Command, run: str) -> dict[str, torch.Tensor]:
    folder = command.folder / run
    return load_file(folder / "model.safetensors") | load_file(folder / "reward_head.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Seven prompts with none to four samples; three of them cannot be told apart."""
    file = tmp_path / "samples.jsonl"
    words = [" good people", " bad words are bad", " the cat", " yes so"]
    counts = (1, 2, 3, 4, 0, 1, 2)
    write_rows(file, ({"prompt": f"why {place} ?", "responses": words[:count]} for place, count in enumerate(counts)))
    return file


@pytest.mark.parametrize("items", ["difference", "answers"])
@pytest.mark.parametrize("contrast", ["sim-cse", "swav"])
def test_every_contrastive_term_trains_and_loads_stock(command: Command, contrast: str, items: str) -> None:
    chosen = ("head:sequence", "loss:secrets-rm", f"loss.contrast:{contrast}", "--loss.contrast.items", items)
    outcome = reward(command, "run", *chosen, "--max-steps", "4", "--lr", "0.003")
    assert outcome.code == 0, outcome.error
    lines = command.lines("run")
    assert set(lines[0]) >= {"loss/pair", "loss/contrast"}
    assert command.record("run")["settings"]["loss"]["contrast"]["choice"] == contrast
    stock = AutoModelForSequenceClassification.from_pretrained(command.folder / "run")
    assert torch.equal(stock.score.weight.detach(), load_file(command.folder / "run/reward_head.safetensors")["weight"])
    assert not any("prototypes" in name for file in (command.folder / "run").glob("*.safetensors") for name in load_file(file))


@pytest.mark.slow
def test_prototypes_train_are_resumed_and_stay_out_of_the_stock_checkpoint(command: Command) -> None:
    steps = ("--max-steps", "4", "--save-every", "2", "--lr", "0.003")
    assert reward(command, "whole", *SWAV, *steps).code == 0
    assert reward(command, "cut", *SWAV, *steps).code == 0
    checkpoint = command.folder / "cut/checkpoint-2"
    state = load_file(checkpoint / "training.safetensors")
    prototypes = state["weight/module.prototypes.weight"]
    assert prototypes.shape == (3, 32)
    assert (prototypes.norm(dim=-1) - 1).abs().max() > 1e-4, "drawn at length 1, they have moved"
    assert state["optimizer/exp_avg/module.prototypes.weight"].abs().max() > 0
    stored = [name for file in (command.folder / "cut").glob("*.safetensors") for name in load_file(file)]
    assert stored
    assert not [name for name in stored if "prototypes" in name]
    AutoModelForSequenceClassification.from_pretrained(checkpoint)
    (command.folder / "cut/model.safetensors").unlink()
    assert reward(command, "cut", *SWAV, *steps, "--resume").code == 0
    assert command.lines("whole") == command.lines("cut")
    assert same(weights(command, "whole"), weights(command, "cut"))


@pytest.mark.slow
def test_swav_changes_the_model_and_the_split_does_not(command: Command) -> None:
    """Micro-batches of one pair give the step of whole batches to round-off."""
    steps = ("--max-steps", "2", "--lr", "0.001")
    assert reward(command, "plain", "head:sequence", "loss:secrets-rm", *steps).code == 0
    assert reward(command, "swav", *SWAV, *steps).code == 0
    assert reward(command, "small", *SWAV, *steps, "--micro-tokens", "20").code == 0
    assert not same(weights(command, "plain"), weights(command, "swav"))
    for one, two in zip(command.lines("swav"), command.lines("small"), strict=True):
        assert one["loss/contrast"] == pytest.approx(two["loss/contrast"], rel=1e-3)


@pytest.mark.parametrize("head", ["sequence", pytest.param("diverse-preferences", marks=pytest.mark.slow)])
def test_without_a_rise_it_is_an_ordinary_step(command: Command, samples: Path, head: str) -> None:
    """eta 0: bit for bit, also for a head that draws noise in training; a rise changes the model."""
    short = (f"head:{head}", "--max-steps", "2", "--lr", "0.003", *(("loss:diverse-preferences",) if head != "sequence" else ()))
    meta = ("meta:meta-rm", "--meta.samples", samples)
    assert reward(command, "plain", *short).code == 0
    still = reward(command, "still", *short, *meta, "--meta.eta", "0")
    assert still.code == 0, still.error
    assert reward(command, "risen", *short, *meta, "--meta.eta", "0.5").code == 0
    assert same(weights(command, "plain"), weights(command, "still"))
    without = [{name: value for name, value in line.items() if not name.startswith("meta/")} for line in command.lines("still")]
    assert without == command.lines("plain")
    assert not same(weights(command, "plain"), weights(command, "risen"))
    for line in command.lines("risen"):
        assert 0.25 <= line["meta/discrimination"] < 0.75
        assert line["meta/rise"] > 0


def test_what_was_left_out_is_told(command: Command, samples: Path) -> None:
    outcome = reward(command, "run", "head:sequence", "--max-steps", "1", "meta:meta-rm", "--meta.samples", samples)
    assert "fewer_than_two_samples: 3 dropped (rows 0, 4, 5)" in outcome.error
    found = command.record("run")["samples"]
    assert (found["rows"], found["prompts"], found["samples"]) == (7, 4, 11)


@pytest.mark.slow
def test_the_same_run_again_resumed_and_cut_smaller(command: Command, samples: Path) -> None:
    meta = ("meta:meta-rm", "--meta.samples", samples, "--meta.eta", "0.1")
    steps = ("head:sequence", "--max-steps", "4", "--save-every", "2", "--lr", "0.003", *meta)
    assert reward(command, "one", *steps).code == 0
    again = command("again", command.folder / "one/run.json", "--out", command.folder / "two")
    assert again.code == 0, again.error
    assert command.record("two")["settings"]["meta"] == {"choice": "meta-rm", "samples": str(samples), "eta": 0.1, "prompts": 4}
    (command.folder / "two/model.safetensors").unlink()
    assert reward(command, "two", *steps, "--resume").code == 0
    assert command.lines("one") == command.lines("two")
    assert same(weights(command, "one"), weights(command, "two"))
    assert reward(command, "small", *steps, "--micro-tokens", "20").code == 0
    for one, two in zip(command.lines("one"), command.lines("small"), strict=True):
        assert one["meta/discrimination"] == pytest.approx(two["meta/discrimination"], rel=1e-4)


def test_refused_before_training(command: Command, samples: Path, tmp_path: Path) -> None:
    meta = ("meta:meta-rm", "--meta.samples")
    single = tmp_path / "single.jsonl"
    single.write_text(json.dumps({"prompt": "why ?", "responses": [" yes"]}) + "\n")
    for code, words, arguments in (
        (2, "--meta.samples FILE", ("head:sequence", "meta:meta-rm")),
        (3, "no file", ("head:sequence", *meta, tmp_path / "absent.jsonl")),
        (3, "no prompt has at least 2 samples in 1 rows", ("head:sequence", *meta, single)),
        (3, "missing responses", ("head:sequence", *meta, command.data)),
        (2, "eta", ("head:sequence", *meta, samples, "--meta.eta", "-1")),
        (2, "--frozen", ("head:sequence", "--frozen", *meta, samples)),
        (2, "Segment reads columns", ("head:segment", *meta, samples)),
        (2, "choice for meta", ("head:sequence", "meta:meta-rx")),
    ):
        outcome = reward(command, "run", *arguments)
        assert outcome.code == code, outcome.error
        assert words in outcome.error
        assert "Traceback" not in outcome.error
        assert not (command.folder / "run").exists()


def rise() -> tuple[Rise, Trainer]:
    """Four ragged prompts on a tiny model, in float64."""
    model = MODELS["llama"]().double().train()
    exact_norms(model)
    head = linear_head(32, 1, seed=0, dtype=torch.float64)
    scorer, _ = make_scorer(model, longest=200)
    scorer.head = head
    rng = torch.Generator().manual_seed(0)
    another = lambda: Branch(torch.randint(3, 90, (4,), generator=rng).int().numpy(), np.ones(4, dtype=bool))
    more = [Group(group.prompt, (*group.branches, another())) for group in ragged_groups(long=30)]
    trainer = Trainer(
        scorer=scorer,
        contract=contract_of(RewardFit(Sequence(), BradleyTerry())),
        data=TrainingSet([]),
        optimizer=torch.optim.SGD(scorer.parameters()),
        optim=Optim(),
        precision=Precision(nullcontext, "float64", 60),
        metrics=lambda pair: {},
        peak_rate=0.0,
        steps=1,
    )
    return Rise(Sequence(), more, MetaRM(samples="given", eta=0.05, prompts=4), 0), trainer


def test_the_rise_is_the_gradient_of_the_mean_discrimination() -> None:
    """Against every sample scored by itself and one backward pass through all."""
    made, trainer = rise()
    parameters = trainer.parameters()
    before = [parameter.detach().clone() for parameter in parameters]

    def score(group: Group, branch: Branch) -> torch.Tensor:
        outputs: Any = trainer.scorer([Group(group.prompt, (branch,))], Request(False, outputs=trainer.scorer.head)).outputs
        return outputs[-1, 0]

    def told_apart() -> torch.Tensor:
        return torch.stack([discrimination(torch.stack([score(g, b) for b in g.branches])[None])[0] for g in made.groups]).mean()

    want = torch.autograd.grad(told_apart(), parameters, allow_unused=True)
    length = torch.stack([slope.square().sum() for slope in want if slope is not None]).sum().sqrt()
    with made(trainer, 0) as noted:
        assert all(parameter.grad is None for parameter in parameters)
        for parameter, old, slope in zip(parameters, before, want, strict=True):
            torch.testing.assert_close(parameter.detach(), old if slope is None else old + 0.05 * slope, rtol=1e-9, atol=1e-12)
        risen = float(told_apart().detach())
    assert all(torch.equal(parameter.detach(), old) for parameter, old in zip(parameters, before, strict=True))
    assert float(noted["meta/discrimination"].values.mean()) == pytest.approx(float(told_apart().detach()), rel=1e-10)
    assert noted["meta/rise"][0] == pytest.approx(0.05 * float(length), rel=1e-9)
    assert risen > float(told_apart().detach())


def test_every_prompt_has_its_turn() -> None:
    made, _ = rise()
    three = Rise(made.head, made.groups * 2, MetaRM(samples="given", prompts=3), 5)
    places = [place for step in range(8) for place in three.turn(step)]
    assert [sorted(places[start : start + 8]) for start in (0, 8, 16)] == [list(range(8))] * 3
    assert places[:8] != places[8:16]
    assert sorted(Rise(made.head, made.groups, MetaRM(samples="given", prompts=9), 5).turn(0)) == [0, 1, 2, 3]
