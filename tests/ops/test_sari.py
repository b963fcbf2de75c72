"""SARI: worked cases of the definition; the authors' examples are in tests/golden."""

import pytest

from finegrain.errors import UsageError
from finegrain.ops.sari import sari, sari_parts

SOURCE = "the physician administered the medication to the patient yesterday ."
SIMPLE = "the doctor gave the patient the medicine yesterday ."


def test_the_only_reference_itself() -> None:
    parts = sari_parts(SOURCE, SIMPLE, [SIMPLE])
    assert [one.add for one in parts] == [1.0] * 4
    assert [one.keep for one in parts] == [1.0, 1.0, 0.0, 0.0]  # no three words in a row are kept by both, so that there is nothing to count
    assert [one.delete for one in parts] == [1.0] * 4


def test_a_copy_scores_low_and_keeps_what_it_may() -> None:
    parts = sari_parts(SOURCE, SOURCE, [SIMPLE])
    assert all((one.delete, one.add) == (0.0, 0.0) for one in parts)
    assert sari(SOURCE, SOURCE, [SIMPLE]) < 0.2 < sari(SOURCE, SIMPLE, [SIMPLE])


def test_case_and_white_space_do_not_count() -> None:
    assert sari(SOURCE.upper(), SIMPLE.replace(" ", "  \n"), [SIMPLE]) == sari(SOURCE, SIMPLE, [SIMPLE])


def test_the_order_of_references_does_not_matter() -> None:
    references = [SIMPLE, "the doctor gave medicine .", SOURCE]
    assert sari(SOURCE, "the doctor gave it .", references) == pytest.approx(sari(SOURCE, "the doctor gave it .", references[::-1]), abs=1e-12)


def test_deletions_have_no_recall() -> None:
    """One right deletion of many is as good as all of them."""
    few, all_of_them = (sari_parts("a b c d e f", candidate, ["a"])[0].delete for candidate in ("a b c d e", "a"))
    assert few == all_of_them == 1.0


def test_nothing_and_no_reference() -> None:
    assert sari("", "", [""]) == 0.0
    with pytest.raises(UsageError, match="there is none"):
        sari("a", "b", [])
