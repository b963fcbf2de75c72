"""Settings of `finegrain reward classifier` and `finegrain reward calibrate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finegrain.checked import PositiveFloat, PositiveInt, Seed, ShareBelowOne, checked
from finegrain.commands.settings import Compute, RowCount
from finegrain.errors import UsageError
from finegrain.ops.class_odds import Logit, OddsReward


@dataclass(frozen=True, kw_only=True)
@checked
class BeliefSettings:
    """What of a classifier's logits is the reward."""

    form: OddsReward = field(default_factory=Logit)
    """logit: log odds of the class on the scale of reference texts, bounded; probability; or log-probability."""
    temperature: PositiveFloat = 1.0
    """What logits are divided by."""


@dataclass(frozen=True, kw_only=True)
@checked
class ClassifierSettings(RowCount, BeliefSettings):
    """Train a classifier that tells piles of text apart, linear in n-grams, and measure it on groups of texts that it has not seen.

    The reward of a text is the belief that it is of one of them: `--reward classifier:FOLDER`.
    """

    data: str
    """Rows with a text in each of --columns, or with --text and --label."""
    out: Path
    """Folder of the classifier; it must not exist yet."""
    columns: tuple[str, ...] = ()
    """Columns whose texts are a class each, e.g. original simple; without them rows have one text and the name of its class."""
    text: str = "text"
    """Column of the text where a row has one."""
    label: str = "label"
    """Column of its class."""
    target: str | None = None
    """The class that is rewarded; by default the last of --columns, or of the classes in alphabetical order."""
    group: str | None = None
    """Column of what texts have in common, e.g. their page: groups are held out whole. By default every row is one."""
    held_out: ShareBelowOne = 0.2
    """Share of the groups that the classifier is tested on."""
    unit: Literal["word", "char"] = "word"
    """What n-grams are made of: words, or characters within words."""
    longest: PositiveInt = 2
    """Units of the longest n-gram."""
    strength: PositiveFloat = 1.0
    """Inverse of the quadratic penalty on weights."""
    seed: Seed = 0
    """Of the groups that are held out."""

    def __post_init__(self) -> None:
        if len(self.columns) == 1:
            raise UsageError("--columns names one class; give two or more, or rows with --text and --label")
        if len(set(self.columns)) < len(self.columns):
            raise UsageError("--columns names a column twice")
        if self.columns and self.target is not None and self.target not in self.columns:
            raise UsageError(f"--target {self.target} is none of --columns {' '.join(self.columns)}")


@dataclass(frozen=True, kw_only=True)
@checked
class CalibrateSettings(Compute, BeliefSettings):
    """Choose the class of a text classifier that is rewarded, and measure its log odds on reference texts: `--reward classifier:FILE`."""

    model: str
    """A sequence-classification checkpoint (folder or Hub name), or a folder of `finegrain reward classifier`."""
    data: str
    """Reference texts: what good answers look like."""
    column: str = "text"
    """Column of the reference texts."""
    prompt_column: str = "prompt"
    """Column of their prompts, for a classifier that reads both."""
    out: Path
    """File (.json); it must not exist yet."""
    target: str | None = None
    """The class that is rewarded; by default the last one of the classifier."""
    reads: Literal["answer", "prompt-and-answer"] = "answer"
    """What the classifier reads: the answer alone, or the prompt as the first of two texts."""

    def __post_init__(self) -> None:
        if self.out.suffix != ".json":
            raise UsageError(f"--out {self.out} must end in .json, by which a reward's source is known as such a file")
