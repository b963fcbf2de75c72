"""mpo: sets by the size of a margin, the worked example, counts, what is invariant, and pairs that contradict their label."""

import numpy as np
import pytest

from finegrain.curate.mpo import MPO, Quantile, Threshold

WORKED = np.array([[3.0, 0.4, -2.0, 0.9]])


def sets(method: MPO, margins: np.ndarray = WORKED) -> list[str]:
    return method(margins).sets


def test_worked_example() -> None:
    """g = 1: pairs 1 and 3 are easy, 2 and 4 hard; with drop, pair 3 leaves both sets."""
    assert sets(MPO(split=Threshold(value=1.0), contradicted="keep")) == ["easy", "hard", "easy", "hard"]
    assert sets(MPO(split=Threshold(value=1.0))) == ["easy", "hard", "contradicted", "hard"]
    swapped = MPO(split=Threshold(value=1.0), contradicted="swap")(WORKED)
    assert swapped.sets == ["easy", "hard", "easy", "hard"]
    assert swapped.swapped.tolist() == [False, False, True, False]
    assert swapped.reasons[2] == "easy, swapped"
    assert swapped.summary()["against_the_label"] == 1


def test_limits() -> None:
    tied = np.array([[3.0, 0.0, -2.0, 0.9]])
    assert sets(MPO(split=Threshold(value=0.0), contradicted="keep"), tied) == ["easy", "hard", "easy", "easy"], "but for exact ties"
    assert sets(MPO(split=Threshold(value=1e30))) == ["hard"] * 4
    assert sets(MPO(split=Quantile(share=0.0), contradicted="keep"), tied) == ["easy"] * 4
    assert sets(MPO(split=Quantile(share=1.0))) == ["hard"] * 4


def test_counts_are_monotone_and_a_quantile_is_a_share() -> None:
    margins = np.random.default_rng(0).normal(size=(1, 40))
    for family in ([Threshold(value=g) for g in (0.0, 0.3, 0.6, 1.0, 9.0)], [Quantile(share=s) for s in (0.0, 0.25, 0.5, 0.9, 1.0)]):
        found = [sets(MPO(split=one, contradicted="keep"), margins) for one in family]
        hard = [one.count("hard") for one in found]
        assert hard == sorted(hard)
        assert all(one.count("easy") + one.count("hard") == 40 for one in found), "disjoint, and together all of them"
    assert sets(MPO(split=Quantile(share=0.25), contradicted="keep"), margins).count("hard") == 10


def test_a_constant_per_prompt_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    chosen, rejected, offset = (rng.normal(size=30) for _ in range(3))
    one = MPO()((chosen - rejected)[None])
    other = MPO()(((chosen + offset) - (rejected + offset))[None])
    assert one.sets == other.sets


def test_members_that_did_not_score_a_pair_do_not_count() -> None:
    margins = np.array([[3.0, np.nan, np.nan], [np.nan, 0.4, np.nan]])
    found = MPO(split=Threshold(value=1.0))(margins)
    assert found.sets == ["easy", "hard", "unscored"]
    assert found.columns["split_margin"][:2].tolist() == [3.0, 0.4]
    assert found.summary()["sets"] == {"easy": 1, "hard": 1, "contradicted": 0, "unscored": 1}


@pytest.mark.parametrize("seed", range(3))
def test_halves_of_the_prompts(seed: int) -> None:
    """Each pair is scored once, by the member that did not see its prompt."""
    prompts = np.array([0, 0, 1, 2, 3, 4, 4, 5])
    trained = MPO().trained(prompts, seed)
    scored = MPO().voted(trained)
    assert scored.sum(0).tolist() == [1] * 8
    assert all(len({tuple(trained[:, place]) for place in np.flatnonzero(prompts == prompt)}) == 1 for prompt in set(prompts.tolist()))
