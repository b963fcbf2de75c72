"""The reference policy is the model that was passed: its token log-probabilities, cached, or a frozen copy of it.

Values are computed before the first optimiser step, by the very model that is about to be trained, so no second copy of
the weights exists unless a method needs more than scalars (`live_reference`).
"""

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from finegrain.models.fingerprint import arithmetic_facts, code_fingerprint, model_fingerprint
from finegrain.models.load import Policy
from finegrain.models.score import (
    ComputeUsage,
    Measure,
    Precision,
    PromptWithAnswers,
    cache_key,
    computed_tokens,
    read_ragged,
    score_rows,
    verified,
    write_ragged,
)
from finegrain.models.scorer import Scorer
from finegrain.types import Ragged


def cache_folder() -> Path:
    """Where reference values and credit columns are kept between runs: $FINEGRAIN_CACHE, or the user's cache."""
    named = os.environ.get("FINEGRAIN_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "finegrain"


@dataclass(frozen=True)
class ScoreCache:
    """Values that a frozen model computes of rows (log-probabilities, entropies, features), read and written below a folder by their content."""

    folder: Path
    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = lambda: None
    kind: str = "reference"
    """Name of what is kept, and of its folder."""
    measure: Measure = score_rows
    say: Callable[[str], None] = lambda text: None
    """One line to the person."""

    def values(
        self,
        policy: Policy,
        scorer: Scorer,
        examples: Sequence[PromptWithAnswers],
        roles: Sequence[str],
        precision: Precision,
        usage: ComputeUsage,
    ) -> dict[str, Ragged]:
        """What `measure` finds in every row under the untrained scorer, from the cache where a re-scored sample agrees with it."""
        if not examples:
            return {role: [] for role in roles}
        started = time.perf_counter()
        facts = f"{precision.name} {arithmetic_facts(policy.model)} {code_fingerprint('models', 'ops')}"
        key = cache_key(model_fingerprint(policy, self.folder), examples, roles, facts)
        file = self.folder / self.kind / f"{key}.safetensors"
        cached = read_ragged(file)
        if cached is not None and verified(scorer, cached, examples, roles, precision, tolerance_of(precision), self.measure):
            usage.notes.append(f"{self.kind}: read from the cache, a sample re-scored and equal")
            usage.seconds += time.perf_counter() - started
            return cached
        if os.path.lexists(file):
            self.tell(usage, f"{self.kind}: the cached values are damaged or not this model's; computed again")
        found = self._computed(file, scorer, examples, roles, precision, usage)
        usage.rows += len(examples)
        usage.tokens += computed_tokens(examples, roles, precision)
        usage.seconds += time.perf_counter() - started
        return found

    def tell(self, usage: ComputeUsage, words: str) -> None:
        """In the record and to the person."""
        usage.notes.append(words)
        self.say(words)

    def keep(self, file: Path, columns: Mapping[str, Ragged], usage: ComputeUsage) -> bool:
        """Write an entry; a cache that cannot be written costs the next run the time, and this one a line."""
        try:
            write_ragged(file, columns)
        except OSError as error:
            self.tell(usage, f"{self.kind}: values are not kept for the next run: {error}")
            return False
        return True

    def _computed(
        self, file: Path, scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision, usage: ComputeUsage
    ) -> dict[str, Ragged]:
        """Every rank scores its share into a part file, the first one joins them, and all read that; without a cache every rank scores all."""
        if self.world == 1:
            found = self.measure(scorer, examples, roles, precision)
            return (self.keep(file, found, usage) and read_ragged(file)) or found
        parts = [file.with_suffix(f".rank{rank}") for rank in range(self.world)]
        self.keep(parts[self.rank], self.measure(scorer, examples[self.rank :: self.world], roles, precision), usage)
        self.barrier()
        if self.rank == 0:
            shares = [share for part in parts if (share := read_ragged(part)) is not None]
            if len(shares) == self.world:
                every = {role: [shares[index % self.world][role][index // self.world] for index in range(len(examples))] for role in roles}
                self.keep(file, every, usage)
            for part in parts:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
        self.barrier()
        joined = read_ragged(file)
        whole = joined is not None and verified(scorer, joined, examples, roles, precision, tolerance_of(precision), self.measure)
        return joined if joined is not None and whole else self.measure(scorer, examples, roles, precision)


def tolerance_of(precision: Precision) -> float:
    """How far a value that is computed again may be from the stored one, nats."""
    return 1e-3 if precision.name == "float32" else 0.1 if precision.name != "float64" else 1e-6


def live_reference(scorer: Scorer) -> Scorer:
    """A frozen copy of the scorer as it is now, for methods that need more than scalars of the reference."""
    frozen = copy.deepcopy(scorer)
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen.eval()


def cost_of_live_reference(scorer: Scorer) -> str:
    """What a live reference costs, in words."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in scorer.parameters())
    return f"live reference: a second copy of the weights ({size / 2**20:.0f} MiB) and one more forward pass a step"
