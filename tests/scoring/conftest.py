"""The command line on the tiny model, as the recipes' tests have it."""

from tests.recipes.conftest import cache, command, data, model

__all__ = ["cache", "command", "data", "model"]
