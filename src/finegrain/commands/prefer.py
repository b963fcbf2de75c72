"""Settings of `finegrain prefer`."""

from dataclasses import dataclass

from finegrain.checked import checked
from finegrain.commands.training import PolicySettings


@dataclass(frozen=True, kw_only=True)
@checked
class PreferSettings(PolicySettings):
    """Align a model on preference pairs: objective:NAME and credit:NAME choose the method."""
