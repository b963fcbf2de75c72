"""A reward model as a function of prompts and completions, with the signature that TRL's GRPOTrainer calls."""

from collections.abc import Callable
from pathlib import Path

from finegrain.commands.settings import DType
from finegrain.scoring.completions import open_reward_function


def reward_function(
    run: str | Path,
    *,
    normalise: bool = False,
    sampled_tokens: bool = False,
    max_length: int | None = None,
    device: str = "auto",
    dtype: DType = "auto",
) -> Callable[..., list[float | None]]:
    """`fn(prompts, completions, **kwargs) -> list[float]` of a reward model: the score that `finegrain score` gives each complete answer.

    Prompts and completions are strings, taken as they are, or lists of messages. Columns of the data are not read. An answer of which no
    token is left gets None. `normalise`: subtract the mean of the run's held-out scores and divide by their standard deviation. `max_length`:
    by default that of the training. `sampled_tokens`: score the tokens in `completion_ids`, as sampled, instead of the tokens that the text
    has; plain text alone, and only where they are this model's tokens and decode to the completion.
    """
    return open_reward_function(str(run), normalise=normalise, sampled_tokens=sampled_tokens, max_length=max_length, device=device, dtype=dtype)
