"""A finding as the page shows it: a name, a sentence, numbers with intervals, and rows to look at."""

from collections.abc import Sequence
from dataclasses import dataclass

from finegrain.diagnose import agreement, confidence, coverage, displacement, entanglement, hacking, length, online
from finegrain.report.numbers import Shown

BAD = frozenset(
    {
        *(displacement.DISPLACED, displacement.WORSE, length.HACKED, coverage.DROPS_ALL, coverage.DROPS_MOST, agreement.CONTRADICTS),
        *(confidence.REVERSED, confidence.OVER, confidence.BLIND, entanglement.TANGLED),
        *(hacking.HACKS, hacking.GOLD_FALLS, online.REWARD_FALLS, online.RUNS_AWAY, online.COLLAPSED, online.DRIFTS, online.MOST_CUT),
        *(online.COME_APART, online.MOST_DEAD, online.ERASED, online.NONE_JUDGED, online.MOST_SKIPPED, online.EXPLAINS_NOTHING),
    }
)
GOOD = frozenset(
    {
        *(displacement.RAISED, displacement.BOTH_ROSE, displacement.SEPARATED, length.UNRELATED, coverage.PARTIAL, agreement.AGREES),
        *(confidence.RANKS, confidence.HONEST, confidence.KNOWS, entanglement.UNTANGLED),
        *(hacking.BOTH_RISE, online.REWARD_RISES, online.BOUNDED, online.VARIED, online.STEADY, online.THEY_END, online.GROUPS_DIFFER),
        *(online.TOGETHER, online.DENSE, online.ALL_JUDGED, online.NONE_SKIPPED, online.EXPLAINS),
    }
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One finding."""

    title: str
    verdict: str
    """One of the names in `finegrain.diagnose`, or "not measured"."""
    words: str
    numbers: Sequence[Shown] = ()
    pairs: Sequence[tuple[int, str]] = ()
    """Row numbers to look at, each with a number."""
    tokens: Sequence[tuple[str, str, str, str]] = ()
    """Text, summed change, mean change, its interval."""
    notes: Sequence[str] = ()

    @property
    def tone(self) -> str:
        """bad, good or plain."""
        return "bad" if self.verdict in BAD else "good" if self.verdict in GOOD else "plain"
