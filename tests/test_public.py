"""The public names are these and no others; adding or taking one is a decision and a changelog line."""

import dataclasses
import inspect

import pytest

import finegrain
from finegrain.commands.prefer import PreferSettings
from finegrain.commands.sft import SftSettings
from finegrain.recipes.prefer import prefer
from finegrain.recipes.sft import sft

PUBLIC = [
    "CharSpan",
    "Common",
    "Credit",
    "CreditContext",
    "FinegrainError",
    "Gathered",
    "Lora",
    "Objective",
    "Optim",
    "Pair",
    "RunDirectory",
    "Scored",
    "Side",
    "Summed",
    "Term",
    "Terms",
    "TokenColumns",
    "TokenCredit",
    "Training",
    "evaluate_reward",
    "iterate",
    "merge",
    "prefer",
    "reward_function",
    "score",
    "sft",
    "train_online",
    "train_reward_model",
]


def test_public_names() -> None:
    assert finegrain.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(finegrain))


@pytest.mark.parametrize("name", PUBLIC)
def test_documented(name: str) -> None:
    value = getattr(finegrain, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert (value.__doc__ or "").strip()
        assert value.__module__.startswith("finegrain.")


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'perfer'"):
        finegrain.perfer  # noqa: B018


@pytest.mark.parametrize(("function", "settings"), [(prefer, PreferSettings), (sft, SftSettings)])
def test_python_and_command_line_take_the_same(function: object, settings: type) -> None:
    """The function's arguments are the fields of the settings class, with equal defaults, and the tokenizer of a model object."""
    arguments = inspect.signature(function).parameters  # type: ignore[arg-type]
    fields = {field.name: field for field in dataclasses.fields(settings)}
    assert set(arguments) == {*fields, "tokenizer"}
    for name in ("credit", "common", "training", "lora", "optim"):
        field = fields[name]
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
        assert arguments[name].default == default, name
