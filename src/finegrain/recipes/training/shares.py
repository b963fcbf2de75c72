"""What a run says of the two parts of its gradient: once, where the ranking hardly has any."""

from collections.abc import Callable, Sequence
from typing import Any

from finegrain.ops.balance import LITTLE, share_of


class ShareWarning:
    """A watcher of logged lines that speaks at most once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, False

    def __call__(self, line: dict[str, Any]) -> None:
        """Warn where both parts were measured and the ranking, which has a gradient at all, has little of the whole."""
        ranking, bound = line.get("grad/ranking", 0.0), line.get("grad/bound", 0.0)
        if self._said or not ranking or share_of(ranking, bound) >= LITTLE:
            return
        self._said = True
        self._say(
            f"warning: at step {line['step']} the ranking has {share_of(ranking, bound):.1%} of the gradient (norms: ranking {ranking:.3g}, "
            f"bound {bound:.3g}), so the model hardly learns to rank; balance:start-share (the default) gives it half at the start"
        )


def start_of_parts(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For run.json: both norms and the bound's weight as the first step found them; {} for an objective that is not in two parts."""
    if not lines or "grad/ranking" not in lines[0]:
        return {}
    ranking, bound = lines[0]["grad/ranking"], lines[0]["grad/bound"]
    return {"gradient_at_start": {"ranking": ranking, "bound": bound, "share": share_of(ranking, bound), "bound_weight": lines[0]["bound_weight"]}}
