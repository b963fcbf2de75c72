"""The column `margin`, by which a pair's scores shall differ: public sets count it in units of their own, a loss in nats.

The margins of the rows are scaled before any loss reads them; what was done is said at the start of a run and stands in run.json.
"""

from pathlib import Path

import numpy as np

from finegrain.commands.settings import MarginScale
from finegrain.data.store import ExampleStore
from finegrain.recipes.session import Session
from finegrain.runs import read_record

COLUMN = "margin"
IN_NATS = "strength_mean"
"""A column of `finegrain curate`, whose margins are differences of scores and stay as they are."""


def settle_margins(session: Session, asked: MarginScale, rows: ExampleStore) -> None:
    """Find the scale on the training rows, say it and note it; nothing where no row asks for a margin."""
    if COLUMN not in rows.columns:
        return
    sizes = np.abs(rows.column(COLUMN))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return
    median, largest = float(np.median(sizes)), float(sizes.max())
    curated = asked == "median" and IN_NATS in (*rows.columns, *rows.files.partial)
    scale = 1.0 if asked == "none" or curated else 1 / median if asked == "median" else float(asked)
    session.record.margin = {"scale": scale, "asked": asked, "median": median, "largest": largest, "pairs": len(sizes)}
    done = "taken as they are" if scale == 1.0 else f"scaled by {scale:.3g}, to {scale * median:.3g} and {scale * largest:.3g} nats"
    session.say(
        f"margin: the scores of {len(sizes)} pairs shall differ by the column margin, {median:.3g} at the median and {largest:.3g} at most; "
        f"{done} (--margin-scale median, none or a number)"
    )


def margins_of(session: Session, rows: ExampleStore) -> dict[str, np.ndarray]:
    """The scaled column of these rows, where there is one."""
    note = session.record.margin
    return {} if note is None or COLUMN not in rows.columns else {COLUMN: note["scale"] * rows.column(COLUMN)}


def margins_as_trained(run: Path, rows: ExampleStore) -> dict[str, np.ndarray]:
    """The column as the run in this folder scaled it; as it is where the folder has no record."""
    if COLUMN not in rows.columns:
        return {}
    found = read_record(run).margin if (run / "run.json").exists() else None
    return {COLUMN: float((found or {}).get("scale", 1.0)) * rows.column(COLUMN)}
