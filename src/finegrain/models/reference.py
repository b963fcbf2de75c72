"""The reference policy is the model that was passed: its token log-probabilities, cached, or a frozen copy of it.

Values are computed before the first optimiser step, by the same model that will be trained, so no second copy of
the weights exists unless a method needs more than scalars (`copy_reference`).
"""

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from finegrain.models.fingerprint import code_fingerprint, describe_precision, model_fingerprint
from finegrain.models.load import Policy
from finegrain.models.score import (
    ComputeUsage,
    Measure,
    Precision,
    PromptWithAnswers,
    cache_key,
    count_computed_tokens,
    read_ragged,
    score_rows,
    verify_cache,
    write_ragged,
)
from finegrain.models.scorer import Scorer
from finegrain.types import Ragged


@dataclass(frozen=True)
class ScoreCache:
    """Values that a frozen model computes for rows (log-probabilities, entropies, features), cached in a folder by their content."""

    folder: Path
    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = lambda: None
    kind: str = "reference"
    """Name of the values, and of their folder."""
    measure: Measure = score_rows
    say: Callable[[str], None] = lambda text: None
    """Prints one line to the user."""

    def values(
        self,
        policy: Policy,
        scorer: Scorer,
        examples: Sequence[PromptWithAnswers],
        roles: Sequence[str],
        precision: Precision,
        usage: ComputeUsage,
    ) -> dict[str, Ragged]:
        """The values of `measure` for every row under the untrained scorer, from the cache where a re-scored sample agrees with it."""
        if not examples:
            return {role: [] for role in roles}
        started = time.perf_counter()
        facts = f"{precision.name} {describe_precision(policy.model)} {code_fingerprint('models', 'ops')}"
        key = cache_key(model_fingerprint(policy, self.folder), examples, roles, facts)
        file = self.folder / self.kind / f"{key}.safetensors"
        cached = read_ragged(file)
        if cached is not None and verify_cache(scorer, cached, examples, roles, precision, get_tolerance(precision), self.measure):
            usage.notes.append(f"{self.kind}: read from the cache; a re-scored sample agreed")
            usage.seconds += time.perf_counter() - started
            return cached
        if os.path.lexists(file):
            self.tell(usage, f"{self.kind}: the cached values are damaged or belong to another model; computed again")
        found = self._computed(file, scorer, examples, roles, precision, usage)
        usage.rows += len(examples)
        usage.tokens += count_computed_tokens(examples, roles, precision)
        usage.seconds += time.perf_counter() - started
        return found

    def tell(self, usage: ComputeUsage, words: str) -> None:
        """Records a message and prints it to the user."""
        usage.notes.append(words)
        self.say(words)

    def keep(self, file: Path, columns: Mapping[str, Ragged], usage: ComputeUsage) -> bool:
        """Writes an entry; where the cache cannot be written, the run continues with a message."""
        try:
            write_ragged(file, columns)
        except OSError as error:
            self.tell(usage, f"{self.kind}: values are not cached for the next run: {error}")
            return False
        return True

    def _computed(
        self, file: Path, scorer: Scorer, examples: Sequence[PromptWithAnswers], roles: Sequence[str], precision: Precision, usage: ComputeUsage
    ) -> dict[str, Ragged]:
        """Every rank scores its share into a part file, the first one joins them, and all read the result; without a cache every rank scores all."""
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
        whole = joined is not None and verify_cache(scorer, joined, examples, roles, precision, get_tolerance(precision), self.measure)
        return joined if joined is not None and whole else self.measure(scorer, examples, roles, precision)


def get_tolerance(precision: Precision) -> float:
    """Tolerance between a recomputed value and the stored one, nats."""
    return 1e-3 if precision.name == "float32" else 0.1 if precision.name != "float64" else 1e-6


def copy_reference(scorer: Scorer) -> Scorer:
    """A frozen copy of the scorer in its current state, for methods that need more than scalars of the reference."""
    frozen = copy.deepcopy(scorer)
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return frozen.eval()


def describe_live_reference(scorer: Scorer) -> str:
    """A description of the cost of a live reference."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in scorer.parameters())
    return f"live reference: a second copy of the weights ({size / 2**20:.0f} MiB) and one more forward pass per step"
