"""SARI: how well a simplification keeps, deletes and adds what references keep, delete and add.

    n-grams, n = 1..4, of lower-cased words between spaces; counts of source and candidate are multiplied by the number of references r,
    so that they compare with the references' pooled counts
    Keep_n: F1 of mean count ratios;   Del_n: precision alone;   Add_n: F1 over the set of new n-grams;   0/0 = 0
    SARI = mean over n of (Keep_n + Del_n + Add_n) / 3, in [0, 1]

Source: Xu et al. 2016, https://aclanthology.org/Q16-1029, in the form of the authors' code (its delete term has no recall).
Deviations: words are split at any white space, where the authors' code splits at single spaces; other versions (EASSE) tokenise first.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from finegrain.errors import UsageError

Grams = Counter[tuple[str, ...]]
LONGEST = 4
"""Words of the longest n-gram."""


class SariParts(NamedTuple):
    """Scores of one n, each in [0, 1]."""

    keep: float
    delete: float
    add: float


def sari(source: str, candidate: str, references: Sequence[str], longest: int = LONGEST) -> float:
    """In [0, 1]; raises UsageError without a reference."""
    parts = sari_parts(source, candidate, references, longest)
    return sum(sum(one) / 3 for one in parts) / len(parts)


def sari_parts(source: str, candidate: str, references: Sequence[str], longest: int = LONGEST) -> list[SariParts]:
    """For n = 1 .. longest."""
    if not references:
        raise UsageError("SARI compares a text with one reference or more, and there is none")
    words = [text.lower().split() for text in (source, candidate, *references)]
    return [_parts(*(count_grams(one, n) for one in words)) for n in range(1, longest + 1)]


def count_grams(items: Sequence[str], n: int) -> Grams:
    """How often each run of n items occurs."""
    return Counter(tuple(items[place : place + n]) for place in range(len(items) - n + 1))


def _parts(source: Grams, candidate: Grams, *references: Grams) -> SariParts:
    pooled = sum(references, Counter())
    before, after = (Counter({gram: count * len(references) for gram, count in one.items()}) for one in (source, candidate))
    kept, to_keep = before & after, before & pooled
    right = kept & pooled
    keep = _f1(_mean_ratio(right, kept), _mean_ratio(right, to_keep))
    deleted = before - after
    delete = _mean_ratio(deleted - pooled, deleted)
    added, to_add = candidate.keys() - source.keys(), pooled.keys() - source.keys()
    new = len(added & to_add)
    return SariParts(keep, delete, _f1(new / max(1, len(added)), new / max(1, len(to_add))))


def _mean_ratio(part: Grams, whole: Grams) -> float:
    """Mean over the n-grams of `whole` of their share in `part`."""
    return sum(count / whole[gram] for gram, count in part.items()) / max(1, len(whole))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
