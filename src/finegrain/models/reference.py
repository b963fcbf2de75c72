"""The reference policy is the model that was passed: its token log-probabilities, cached, or a frozen copy of it.

Values are computed before the first optimiser step, by the very model that is about to be trained, so no second copy of
the weights exists unless a method needs more than scalars (`live_reference`).
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finegrain.errors import CheckpointError
from finegrain.models.fingerprint import model_fingerprint
from finegrain.models.load import Policy
from finegrain.models.score import Answers, Arithmetic, Measure, Work, cache_key, computed_tokens, read_ragged, score_rows, verified, write_ragged
from finegrain.models.scorer import Scorer
from finegrain.types import Ragged


@dataclass(frozen=True)
class ReferenceCache:
    """Reads and writes reference values below a folder."""

    folder: Path
    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = lambda: None
    kind: str = "reference"
    """Name of what is kept, and of its folder."""
    measure: Measure = score_rows

    def values(
        self,
        policy: Policy,
        scorer: Scorer,
        examples: Sequence[Answers],
        roles: Sequence[str],
        how: Arithmetic,
        work: Work,
    ) -> dict[str, Ragged]:
        """What `measure` finds in every row under the untrained scorer, from the cache where a re-scored sample agrees with it."""
        if not examples:
            return {role: [] for role in roles}
        started = time.perf_counter()
        key = cache_key(model_fingerprint(policy, self.folder), examples, roles, how.name)
        file = self.folder / self.kind / f"{key}.safetensors"
        tolerance = 1e-3 if how.name == "float32" else 0.1 if how.name != "float64" else 1e-6
        cached = read_ragged(file)
        if cached is not None and verified(scorer, cached, examples, roles, how, tolerance, self.measure):
            work.notes.append(f"{self.kind}: read from the cache, a sample re-scored and equal")
            work.seconds += time.perf_counter() - started
            return cached
        if file.exists():
            work.notes.append(f"{self.kind}: the cached values are damaged or not this model's; computed again")
        self._compute(file, scorer, examples, roles, how)
        work.rows += len(examples)
        work.tokens += computed_tokens(examples, roles, how)
        work.seconds += time.perf_counter() - started
        return _written(file)

    def _compute(self, file: Path, scorer: Scorer, examples: Sequence[Answers], roles: Sequence[str], how: Arithmetic) -> None:
        """Every rank scores its share into a part file; the first one joins them."""
        share = self.measure(scorer, examples[self.rank :: self.world], roles, how)
        if self.world == 1:
            write_ragged(file, share)
            return
        parts = [file.with_suffix(f".rank{rank}") for rank in range(self.world)]
        write_ragged(parts[self.rank], share)
        self.barrier()
        if self.rank == 0:
            shares = [_written(part) for part in parts]
            joined = {role: [shares[index % self.world][role][index // self.world] for index in range(len(examples))] for role in roles}
            write_ragged(file, joined)
            for part in parts:
                part.unlink()
        self.barrier()


def _written(file: Path) -> dict[str, Ragged]:
    """What this run wrote a moment ago."""
    columns = read_ragged(file)
    if columns is None:
        raise CheckpointError(f"{file} cannot be read back; is the disk full or the cache folder shared by two runs?")
    return columns


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
