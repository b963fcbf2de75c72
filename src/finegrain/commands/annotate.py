"""Settings of `finegrain annotate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finegrain.checked import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share, checked
from finegrain.commands.mark import MARKING
from finegrain.commands.settings import RowCount
from finegrain.data.gate.settings import Gate
from finegrain.data.text_file import is_utf8
from finegrain.errors import UsageError
from finegrain.generate.endpoint import check_address

MOST_CHANGED, SCALE = 0.5, 5
"""Defaults of --most-changed and --scale."""


@dataclass(frozen=True, kw_only=True)
@checked
class AnnotateSettings(RowCount):
    """Let a model behind an OpenAI-compatible server mark, correct, compare or rate answers."""

    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; several as "A + B"."""
    by: str
    """Base URL of the server, such as http://127.0.0.1:8000/v1. Only a loopback address (localhost, 127.*, ::1), unless --host names the host too."""
    task: Literal["spans", "edits", "preference", "rubric"]
    """spans: good and bad passages; edits: a least correction; preference: the better of two answers, in both orders; rubric: ratings by aspect."""
    out: Path
    """File for the rows (jsonl); the summary is written beside it. Neither may exist yet."""
    host: str | None = None
    """Host of --by, where that is not this machine: says that your data may be sent there."""
    model: str | None = None
    """Name under which the server has the model; by default the only one that it lists."""
    key_env: str | None = None
    """Environment variable that holds the key for the server; without it none is sent. The key is never written or shown."""
    annotator: str = ""
    """Name of the annotator in the results; by default the model's."""
    prompt: Path | None = None
    """Your own prompt, a copy of one that comes with finegrain (--dry-run names the file)."""
    aspects: tuple[str, ...] = ()
    """What passages are good or bad at (spans; by default any aspect), or what is rated (rubric; by default correctness, relevance, clarity)."""
    scale: PositiveInt = SCALE
    """Highest rating of a rubric; the lowest is 1."""
    most_changed: Share = MOST_CHANGED
    """Share of an answer's words that a correction may change; more is a rewrite, which is asked for again and then counted."""
    reply_form: Literal["json-schema", "json-object", "text"] = "json-schema"
    """How the server is told the form of a reply: by a JSON Schema, by "JSON" alone, or by the prompt alone. Every reply is checked in any case."""
    temperature: NonNegativeFloat = 0.0
    max_tokens: PositiveInt = 2048
    """Longest reply in tokens."""
    parallel: PositiveInt = 4
    """Requests at the same time."""
    retries: NonNegativeInt = 2
    """Further tries of a question that got no usable reply."""
    timeout: PositiveFloat = 120.0
    """Seconds that one request may take."""
    dry_run: bool = False
    """Print the number of questions and an estimate of their tokens, and stop; nothing is sent."""
    gate: Gate = field(default_factory=lambda: MARKING)

    def __post_init__(self) -> None:
        check_address(self.by, self.host)
        if self.aspects and self.task not in ("spans", "rubric"):
            raise UsageError(f"--aspects belongs to --task spans and --task rubric; drop it for --task {self.task}")
        if self.scale != SCALE and self.task != "rubric":
            raise UsageError(f"--scale belongs to --task rubric; drop it for --task {self.task}")
        if self.scale < 2:
            raise UsageError("--scale 1 leaves one rating only; give 2 or more")
        if self.most_changed != MOST_CHANGED and self.task != "edits":
            raise UsageError(f"--most-changed belongs to --task edits; drop it for --task {self.task}")
        if bad := [name for name in ("model", "annotator") if not is_utf8(getattr(self, name) or "")]:
            raise UsageError(f"--{bad[0]}: the name is not valid UTF-8")
        if bad := [name for name in self.aspects if not name.strip() or not name.isprintable()]:
            raise UsageError(f"--aspects: expected names, found {bad[0]!r}")

    @property
    def summary(self) -> Path:
        """The file of the summary."""
        return self.out.with_suffix(".summary.json")
