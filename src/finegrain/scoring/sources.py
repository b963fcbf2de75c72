"""The table of rewards: what a source looks like, and what opens it. Strings only, so that the help of a command is instant."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Mode = Literal["norm", "avg", "sum"]
"""Readouts of a policy's log-probabilities that are a reward without a reference."""


class RewardSource(NamedTuple):
    """A kind of reward."""

    name: str
    opens: str
    """`module:function` below `finegrain`: (sources, options) -> a `scoring.records.Reward`."""
    form: str = ""
    """How a source of this kind is written; empty for checkpoint folders and Hub names."""
    pattern: str = ""
    """What the whole of such a source matches."""


SOURCES: tuple[RewardSource, ...] = (
    RewardSource("function", "scoring.function:open_function", "file.py:name", r".*\.py:[^:]*"),
    RewardSource("column", "scoring.column:open_column", "column:NAME", r"column:.+"),
    RewardSource("measure", "scoring.measures:open_measure", "measure:NAME", r"measure:.+"),
    RewardSource("classifier", "scoring.classifier:open_classifier", "classifier:PATH", r"classifier:.+"),
    RewardSource("implicit reward", "scoring.implicit:open_implicit"),
    RewardSource("likelihood", "scoring.likelihood:open_likelihood"),
    RewardSource("reward model", "scoring.reward_model:open_reward_model"),
)


@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """What a reward is opened with; each kind reads what it needs."""

    runtime: Callable[[], Any]
    """Gives the `scoring.runtime.Runtime` that models are scored with; not called for rewards that need no model."""
    max_length: int
    """Longest prompt + answer in tokens."""
    reference: str | None = None
    """The model that policies were trained from; without one a checkpoint is a reward model."""
    reference_option: str = "--reference"
    """What the command calls it, for messages."""
    beta: float = 0.1
    """Scale of the log-ratio of policies to their reference."""
    likelihood: Mode | None = None
    """A checkpoint is a policy, scored by this readout of its log-probabilities."""
    signal: Any = None
    """What stands on the tokens of a reward model, one of `credit.reward_signals`; None: the head's own scores."""
    signal_option: str = "signal"
    """What the command calls it, for messages."""
    adds_up: bool = False
    """Whether token scores will be added up, so that those which repeat a score of the whole answer are refused."""
    tokenizer: str | None = None
    """Checkpoint whose tokens the scores of a reward that reads text are put on."""
    timeout: float | None = None
    """Seconds that one call of a user's function may take; None: as long as it likes, in the caller's own thread."""
    block: int | None = 64
    """Candidates that a user's function is asked about in one call; None: all."""
    files: dict[str, Any] = field(default_factory=dict)
    """Files of users' functions that have been run, by path."""


def is_text_source(source: str) -> bool:
    """Whether a source is a reward of its own (a function, a column) and no checkpoint."""
    return any(one.pattern and re.fullmatch(one.pattern, source, re.DOTALL) for one in SOURCES)


def find_source(source: str, options: RewardOptions) -> RewardSource:
    """The kind of a source: by how it is written, or by what is asked of a checkpoint."""
    for one in SOURCES:
        if one.pattern and re.fullmatch(one.pattern, source, re.DOTALL):
            return one
    name = "implicit reward" if options.reference is not None else "reward model" if options.likelihood is None else "likelihood"
    return next(one for one in SOURCES if one.name == name)
