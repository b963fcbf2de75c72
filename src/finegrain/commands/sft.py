"""Settings of `finegrain sft`."""

from dataclasses import dataclass

from finegrain.checked import checked
from finegrain.commands.training import PolicySettings


@dataclass(frozen=True, kw_only=True)
@checked
class SftSettings(PolicySettings):
    """Fine-tune on demonstrations; pairs give their chosen side. objective:NAME and credit:NAME choose the method."""
