"""The scale of the column `margin`: public sets give it in units of their own, and a loss counts in nats."""

from pathlib import Path

import numpy as np

from finegrain.commands.settings import MarginScale
from finegrain.data.store import ExampleStore
from finegrain.recipes.session import Session
from finegrain.runs import read_record
from finegrain.types import Json

MARGIN = "margin"
"""The column by which a pair's scores shall differ."""
IN_NATS = "strength_mean"
"""A column of `finegrain curate`, whose margins are differences of scores and stay as they are."""


def scale_margins(session: Session, asked: MarginScale, rows: ExampleStore) -> Json:
    """Find the scale on the training rows and say it: `scale` and what it is made from; {} where no row asks for a margin."""
    if MARGIN not in rows.columns:
        return {}
    sizes = np.abs(rows.column(MARGIN))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return {}
    median, largest = float(np.median(sizes)), float(sizes.max())
    curated = asked == "median" and IN_NATS in (*rows.columns, *rows.files.partial)
    scale = 1.0 if asked == "none" or curated else 1 / median if asked == "median" else float(asked)
    done = "taken as they are" if scale == 1.0 else f"scaled by {scale:.3g}, to {scale * median:.3g} and {scale * largest:.3g} nats"
    session.say(
        f"margin: the scores of {len(sizes)} pairs shall differ by the column margin, {median:.3g} at the median and {largest:.3g} at most; "
        f"{done} (--margin-scale median, none or a number)"
    )
    return {"scale": scale, "asked": asked, "median": median, "largest": largest, "pairs": len(sizes)}


def margins_as_trained(run: Path, rows: ExampleStore) -> dict[str, np.ndarray]:
    """The column as the run in this folder scaled it; as it is where the folder has no record."""
    if MARGIN not in rows.columns:
        return {}
    found = read_record(run).margin if (run / "run.json").exists() else None
    return {MARGIN: float((found or {}).get("scale", 1.0)) * rows.column(MARGIN)}
