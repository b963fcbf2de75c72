"""The command line on the tiny model, as the recipes' tests have it."""

from tests.recipes.conftest import cache, command, data, known_probes, model

__all__ = ["cache", "command", "data", "known_probes", "model"]
