"""Settings of `finegrain mark`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import PositiveInt, Share, checked
from finegrain.commands.settings import RowCount
from finegrain.data.gate.settings import Gate
from finegrain.errors import UsageError

TOGETHER = 4
MARKING = Gate(tie="keep", bias_rows=0)
"""The gate of the page: ties are kept, because people compare the answers again; nothing is measured."""


@dataclass(frozen=True, kw_only=True)
@checked
class MarkSettings(RowCount):
    """Make a page in which people mark good and bad passages of answers (--data), or join what they exported (--merge)."""

    data: str | None = None
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; several as "A + B". With --merge: what the marks are checked against."""
    merge: tuple[Path, ...] = ()
    """Exports of the page, of one or several people, to be joined."""
    out: Path
    """The page (html), or with --merge the joined rows (jsonl). It must not exist yet."""
    aspects: tuple[str, ...] = ()
    """What may be good or bad about a passage (factuality, style, ...); at most nine have a key. By default those of the spans in the data."""
    annotator: str = ""
    """Name of the person who marks; it can be typed on the page too."""
    suggest: Path | None = None
    """Output of `finegrain score` on the same data: its lowest (and highest) segments are shown as suggestions."""
    suggest_bad: Share = 0.1
    """Share of the segments in --suggest, the lowest ones, that are suggested as bad."""
    suggest_good: Share = 0.0
    """Share of the segments in --suggest, the highest ones, that are suggested as good."""
    together: PositiveInt = TOGETHER
    """Most answers to one prompt that stand side by side; further ones make another page of the same prompt."""
    gate: Gate = field(default_factory=lambda: MARKING)

    def __post_init__(self) -> None:
        if self.data is None and not self.merge:
            raise UsageError("expected --data D for a page, or --merge EXPORT [EXPORT2 ...] to join exports; found neither")
        if self.merge:
            page = {"--aspects": self.aspects, "--annotator": self.annotator, "--suggest": self.suggest, "--together": self.together != TOGETHER}
            if named := [name for name, value in page.items() if value]:
                raise UsageError(f"{' and '.join(named)}: settings of the page, which --merge does not make; drop them")
            if self.data is None and (self.limit is not None or self.gate != MARKING):
                raise UsageError("--limit and --gate are about the rows of --data, which was not given")
        if self.suggest is None and (self.suggest_bad, self.suggest_good) != (0.1, 0.0):
            raise UsageError("--suggest-bad and --suggest-good choose from the segments of --suggest, which was not given")
        if self.suggest_bad + self.suggest_good > 1:
            raise UsageError(f"--suggest-bad {self.suggest_bad:g} and --suggest-good {self.suggest_good:g} add up to more than all segments")
        if blank := [name for name in self.aspects if not name.strip()]:
            raise UsageError(f"--aspects: expected names, found {blank[0]!r}")
