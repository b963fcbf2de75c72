"""Settings of `finegrain bench credit`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from finegrain.checked import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range, Share, checked
from finegrain.data.planted import MEANS


@dataclass(frozen=True, kw_only=True)
class OwnPairs:
    """The scorer is a token model of the pairs that the policy trains on; nobody gives another label."""


@dataclass(frozen=True, kw_only=True)
@checked
class Pool:
    """The scorer is a token model of the policy's pairs and of further pairs."""

    pairs: PositiveInt = 900
    """Further pairs."""


@dataclass(frozen=True, kw_only=True)
@checked
class SpanModel:
    """The scorer is a token model of the pairs and of marked sentences on a part of their answers, used on all answers."""

    share: Share = 0.3
    """Share of the answers on which an annotator marked the bad sentences."""
    error: Share = 0.1
    """Probability that a sentence is marked wrongly."""


@dataclass(frozen=True, kw_only=True)
@checked
class Corrections:
    """The scorer is a token model of the pairs and of what an annotator's corrections changed in a part of their answers."""

    share: Share = 0.3
    """Share of the answers whose bad sentences an annotator rewrote."""
    error: Share = 0.1
    """Probability that a sentence is rewritten although it is not bad, or left although it is."""


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The scorer is the truth, which no one has in practice."""


@dataclass(frozen=True, kw_only=True)
@checked
class BenchCreditSettings:
    """Compare the uses of one scorer at equal tuning, in a planted world, by the labels that people gave."""

    out: Path
    """Folder for data, cells, bench.json and bench.md; the same command goes on where it was stopped."""
    scorer: OwnPairs | Pool | SpanModel | Corrections | Oracle = field(default_factory=SpanModel)
    """The source of token scores, the same for every row that uses one."""
    noise: NonNegativeFloat = 1.0
    """Temperature of the labels: P(first preferred) = sigmoid(difference of quality / noise); 0 means no noise."""
    context: Share = 0.0
    """Share of the good and bad sentence types whose quality is reversed for half of the prompts."""
    types: Annotated[int, Range(5.0, float(len(MEANS)))] | None = None
    """Number of sentence types; fewer types recur more often. By default 112, with --quick 24."""
    shortcut: Share = 0.0
    """Share of the training pairs whose chosen answer begins with a neutral opening, which the rejected one has in the others; 0 means no opening."""
    uses: tuple[str, ...] = ()
    """Uses to compare beside dpo, all of which are measured: soft-label, margin, answer, asr, confidence, targets-1, targets-3. By default all are
    tuned, and the best are measured."""
    objectives: tuple[str, ...] = ()
    """Further objectives to compare with dpo, by name, all of which are tuned alike and measured; without --uses no use of the scorer is. figa learns
    from the corrections of scorer:corrections, alol from the scorer's rewards of answers, the others from the labels of the policy's pairs."""
    pairs: tuple[PositiveInt, ...] = ()
    """Numbers of pairs to measure at. By default 30, 100, 300 and 1000, with --quick 30 and 60."""
    seconds_per_pair: PositiveFloat = 30.0
    """What it takes a person to compare two answers [choice]."""
    seconds_per_span: PositiveFloat = 15.0
    """What it takes a person to mark or rewrite one passage, and to look through an answer in which nothing is marked [choice]."""
    workers: NonNegativeInt = 0
    """Processes, one thread each; 0 takes as many as there are cores."""
    quick: bool = False
    """A small world with few seeds, in about three minutes on two cores: it shows that everything works, and little of the methods."""
