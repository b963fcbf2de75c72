"""Settings of `finegrain merge`."""

from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from finegrain.checked import PositiveFloat, PositiveInt, checked
from finegrain.commands.settings import Compute
from finegrain.data.gate.settings import Gate
from finegrain.errors import UsageError
from finegrain.weights.expo import Expo
from finegrain.weights.slerp import Slerp
from finegrain.weights.soup import Soup
from finegrain.weights.task_arithmetic import TaskArithmetic

SEARCH = ("limit", "max_length", "device", "dtype", "score_with", "score_reference", "score_beta", "alphas", "max_new_tokens", "gate")
READ_WITH = (
    ("data", SEARCH, "a search needs held-out rows to score on; give --data (the merged weights have the number format of --save-dtype)"),
    ("score_with", ("score_reference", "score_beta", "max_new_tokens"), "read with --score-with, which is not given"),
    ("score_reference", ("score_beta",), "read with --score-reference, the model that the policy of --score-with was trained from"),
)
"""An option, those that nothing reads without it, and what is said of them."""


@dataclass(frozen=True, kw_only=True)
@checked
class MergeSettings(Compute):
    """Merge checkpoints of one architecture into a new one, without training: method:soup, method:expo, method:slerp or method:task-arithmetic.

    With --data, the strength of the merge is searched: every value of --alphas is scored on the data, and the best one is written.
    """

    model: tuple[str, ...]
    """The models to merge: checkpoint folders, Hub names or LoRA adapters; config and tokenizer of the first are kept."""
    base: str | None = None
    """The model they were trained from; method:expo and method:task-arithmetic need it."""
    out: Path
    """Folder for the merged model, its run.json and its card; it must not exist yet."""
    method: Soup | Expo | Slerp | TaskArithmetic = field(default_factory=Soup)
    save_dtype: Literal["source", "float32", "bfloat16", "float16"] = "source"
    """Number format of the merged weights; source: that of the first model, tensor by tensor. Arithmetic is float32 whatever it is."""
    shard_size: PositiveFloat = 5.0
    """Largest file of weights, in GB; memory grows with it."""
    data: str | None = None
    """Held-out rows for the search: pairs, or with --score-with any rows that have prompts."""
    score_with: str | None = None
    """Reward of the answers that each merged model gives: a reward model, file.py:name, or a policy with --score-reference.

    Without it, the preference margin on the pairs of --data decides.
    """
    score_reference: str | None = None
    """The model that the policy of --score-with was trained from."""
    score_beta: PositiveFloat = 0.1
    """Scale of the log-ratio of the policy of --score-with."""
    alphas: tuple[float, ...] = ()
    """Strengths to try: alpha of expo, t of slerp, scale of task-arithmetic, weight of the first model of a soup of two.

    By default those of the method.
    """
    max_new_tokens: PositiveInt = 128
    """Longest answer that is scored; answers are greedy."""
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("nothing to merge: give --model A B")
        self.method.check(len(self.model), base=self.base is not None)
        for needed, names, why in READ_WITH:
            found = [f"--{one.name.replace('_', '-')}" for one in fields(self) if one.name in names and getattr(self, one.name) != _default(one)]
            if getattr(self, needed) is None and found:
                raise UsageError(f"{' and '.join(found)}: {why}")
        if self.data is None:
            return
        if self.score_with is not None and self.score_with.startswith("column:"):
            raise UsageError(
                f"--score-with {self.score_with} knows only the answers of the data, and the merged models give others; name another reward"
            )
        if isinstance(self.method, Soup) and len(self.model) != 2:
            raise UsageError(f"a search varies one number, the weight of the first of two models; this soup has {len(self.model)}")
        for value in self.alphas:
            self.method.at(value)
        ends = [self.method.at(value) for value in (self.method.grid[0], self.method.grid[-1])]
        for one in fields(self.method):
            if getattr(ends[0], one.name) != getattr(ends[1], one.name) and getattr(self.method, one.name) != _default(one):
                raise UsageError(f"--method.{one.name} is what a search with --data varies; give --alphas, or leave out --data")


def _default(field_: Field[Any]) -> Any:
    return field_.default if field_.default_factory is MISSING else field_.default_factory()
