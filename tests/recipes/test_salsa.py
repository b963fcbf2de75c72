"""reference:model-soup: equal models make it PPO to the bit, another one does not; weights, adapters as deltas, shapes.

Test of recipes/rollouts/references.py, online/references.py.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finegrain.commands.settings import Common
from finegrain.errors import ModelError, UsageError
from finegrain.models.load import load_policy
from finegrain.online.references import ModelSoup
from finegrain.recipes.rollouts.references import Frozen, open_reference
from finegrain.recipes.session import Session, open_session, prepare_scorer
from tests.recipes.command import Command
from tests.recipes.online_runs import COUNTS_E, online, write_reward
from tests.tiny import save_tiny

PPO = ("algorithm:ppo", "--max-steps", "8")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def other_model(folder: Path, model: Path) -> Path:
    """The model with moved weights."""
    policy = load_policy(str(model))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


def test_equal_models_are_ppo_step_for_step(command: Command) -> None:
    reward = write_reward(command.folder, COUNTS_E)
    assert online(command, "ppo", "--reward", reward, *PPO).code == 0
    soup = ("reference:model-soup", "--reference.paths", command.model)
    done = online(command, "salsa", "--reward", reward, *PPO, *soup)
    assert done.code == 0, done.error
    ours, theirs = command.lines("salsa"), command.lines("ppo")
    assert [{name: value for name, value in line.items() if name != "kl/start"} for line in ours] == theirs
    assert all(torch.equal(value, weights_of(command.folder / "ppo")[name]) for name, value in weights_of(command.folder / "salsa").items())


def test_another_model_is_a_distance_at_the_first_step(command: Command) -> None:
    """KL to the soup is above 0 before anything is trained, that to the start model 0; both are logged."""
    other = other_model(command.folder / "other", command.model)
    reward = write_reward(command.folder, COUNTS_E)
    soup = ("reference:model-soup", "--reference.paths", other, "--sampling.answers", "16")
    done = online(command, "salsa", "--reward", reward, "algorithm:ppo", "--max-steps", "5", *soup)
    assert done.code == 0, done.error
    first, *later = [line for line in command.lines("salsa") if "kl/start" in line]
    assert first["kl"] > 1e-4
    assert first["kl/start"] == pytest.approx(0.0, abs=1e-6)
    assert later
    assert later[-1]["kl/start"] != first["kl/start"]


def soup_of(model: Path, choice: ModelSoup) -> dict[str, torch.Tensor]:
    session = opened(model)
    found = open_reference(session, choice, temperature=1.0)
    assert isinstance(found, Frozen)
    return {name: value.detach() for name, value in found.scorer.model.named_parameters()}


def opened(model: Path) -> Session:
    session = open_session(str(model), Common(device="cpu"))
    prepare_scorer(session, 64)
    return session


def test_weights(command: Command) -> None:
    """a = 1 is the start model, a = 0 the other one, a = 0.25 lies between; the order of two equal weights does not matter."""
    other = other_model(command.folder / "other", command.model)
    one, two = (dict(load_policy(str(folder)).model.named_parameters()) for folder in (command.model, other))
    for weights, share in (((1.0, 0.0), 1.0), ((0.0, 1.0), 0.0), ((1.0, 3.0), 0.25), ((), 0.5)):
        for name, value in soup_of(command.model, ModelSoup(paths=(str(other),), weights=weights)).items():
            torch.testing.assert_close(value, share * one[name].detach() + (1 - share) * two[name].detach())
    there, back = (soup_of(command.model, ModelSoup(paths=paths)) for paths in ((str(other), str(command.model)), (str(command.model), str(other))))
    assert all(torch.equal(value, back[name]) for name, value in there.items())


@pytest.mark.slow
def test_adapters_are_averaged_as_weights(command: Command) -> None:
    """The mean of two products is not the product of the means."""
    runs = []
    for seed in ("1", "2"):
        given = ("--lora.rank", "2", "--lr", "0.1", "--max-steps", "2", "--seed", seed, "--examined", "0")
        assert command.prefer(f"adapter-{seed}", *given).code == 0
        runs.append(command.folder / f"adapter-{seed}")
    merged = [dict(load_policy(str(run)).model.merge_and_unload().named_parameters()) for run in runs]
    found = soup_of(command.model, ModelSoup(paths=tuple(map(str, runs))))
    assert found.keys() == merged[0].keys()
    for name, value in found.items():
        torch.testing.assert_close(value, (merged[0][name] + merged[1][name]).detach() / 2)


def test_refused(command: Command) -> None:
    wide = save_tiny(command.folder / "wide", width=48)
    deep = save_tiny(command.folder / "deep", layers=2)
    for folder in (wide, deep):
        with pytest.raises(ModelError, match="one shape"):
            soup_of(command.model, ModelSoup(paths=(str(folder),)))
    with pytest.raises(UsageError, match=r"3 --reference.weights for 2 models"):
        soup_of(command.model, ModelSoup(paths=(str(command.model),), weights=(1.0, 1.0, 1.0)))
    with pytest.raises(UsageError, match="all 0"):
        ModelSoup(paths=("a",), weights=(0.0, 0.0))
