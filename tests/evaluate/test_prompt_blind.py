"""Scores of answers alone: what words tell, on prompts that were not fitted."""

from hashlib import blake2b

import numpy as np
from scipy.special import expit

from finegrain.evaluate.prompt_blind import CHARACTERS, FEWEST, FOLDS, prompt_blind_scores


def test_words_that_give_the_label_away_are_found() -> None:
    prompts = [f"question {n}" for n in range(80)]
    answers = [(f"good {n % 7}", f"bad {n % 5}", "bad thing") for n in range(80)]
    scores = prompt_blind_scores(prompts, answers, [1] * 80)
    assert not isinstance(scores, str)
    assert [len(own) for own in scores] == [3] * 80
    assert all(own[0] > own[1:].max() for own in scores)


def test_what_depends_on_the_prompt_is_not() -> None:
    """Right is what repeats the prompt's word; the answers alone say nothing about it, and no prompt's label leaks into its own fit."""
    generator = np.random.default_rng(0)
    words = [f"w{n}" for n in range(8)]
    prompts, answers = [], []
    for number in range(400):
        right, wrong = generator.choice(words, 2, replace=False)
        prompts.append(f"{number}: say {right}")
        answers.append((str(right), str(wrong)))
    scores = prompt_blind_scores(prompts, answers, [1] * 400)
    assert not isinstance(scores, str)
    accuracy = np.mean([own[0] > own[1] for own in scores])
    assert 0.4 < accuracy < 0.6  # four standard errors of a fair coin


def test_the_same_prompt_stands_in_one_fold() -> None:
    """Few prompts are refused, however many rows repeat them."""
    found = prompt_blind_scores(["one", "two"] * 100, [("a", "b")] * 200, [1] * 200)
    assert found == f"2 prompts, fewer than {FEWEST}"


def test_several_right_answers() -> None:
    scores = prompt_blind_scores([f"q{n}" for n in range(60)], [("yes", "yes sir", "no", "no sir")] * 60, [2] * 60)
    assert not isinstance(scores, str)
    assert all(own[:2].min() > own[2:].max() for own in scores)


def blind(answers: list[tuple[str, ...]]) -> list[np.ndarray]:
    scores = prompt_blind_scores([f"question {n}" for n in range(len(answers))], answers, [1] * len(answers))
    assert not isinstance(scores, str)
    return scores


def test_fewest_prompts_are_enough() -> None:
    assert len(blind([("yes", "no")] * FEWEST)) == FEWEST
    assert prompt_blind_scores(["a", "b"], [("yes", "no")] * 2, [1, 1]) == f"2 prompts, fewer than {FEWEST}"


def test_no_prompt_is_scored_by_a_fit_that_saw_it() -> None:
    """Words that stand in one answer alone: a fit on the prompt itself would put every pair in order, one on the others knows none of them."""
    scores = blind([(f"right{n}", f"wrong{n}") for n in range(60)])
    assert np.mean([own[0] > own[1] for own in scores]) < 0.1, "but for a hash that two words share"


def test_words_of_a_letter_and_pairs_of_words_are_read_and_triples_are_not() -> None:
    """`a b` and `b a` differ in their pair; `a b a c a` and `a c a b a` have the same words and pairs."""
    assert all(own[0] > own[1] for own in blind([("a b", "b a")] * FEWEST))
    assert all(abs(own[0] - own[1]) < 1e-12 for own in blind([("a b a c a", "a c a b a")] * FEWEST))


def test_so_many_characters_are_read() -> None:
    filler = "x" * (CHARACTERS - 5)
    assert all(own[0] > own[1] for own in blind([(f"{filler} good", f"{filler} evil")] * FEWEST))
    assert all(own[0] == own[1] for own in blind([(f"{filler} same good", f"{filler} same evil")] * FEWEST))


def test_prompts_of_broken_text_have_a_fold() -> None:
    answers = [("yes", "no")] * FEWEST
    scores = prompt_blind_scores([f"\ud800 {n}" for n in range(FEWEST)], answers, [1] * FEWEST)
    assert not isinstance(scores, str)
    assert all(own[0] > own[1] for own in scores)


def fold(prompt: str) -> int:
    """The fold of a prompt."""
    return int.from_bytes(blake2b(prompt.encode(), digest_size=7).digest(), "little") % FOLDS


def test_a_fit_leaves_out_the_fold_of_its_prompt() -> None:
    """Exchanging the answers of one prompt changes the scores of the prompts of other folds alone."""
    answers = [("yes", "no")] * 60
    before, after = blind(answers), blind([("no", "yes"), *answers[1:]])
    changed = [bool((one != other).any()) for one, other in zip(before[1:], after[1:], strict=True)]
    assert changed == [fold(f"question {n}") != fold("question 0") for n in range(1, 60)]
    assert set(changed) == {False, True}


def test_prompts_of_one_fold_are_refused() -> None:
    prompts = [prompt for prompt in map(str, range(1000)) if fold(prompt) == 0][:FEWEST]
    assert prompt_blind_scores(prompts, [("yes", "no")] * FEWEST, [1] * FEWEST) == "all prompts fall into one fold"


def test_worked() -> None:
    """n pairs of one word against another: each weight's size a minimises a^2 + n log(1 + exp(-2 a)), so a = n sigma(-2 a)."""
    for number, (good, bad) in enumerate(blind([("yes", "no")] * 60)):
        pairs = sum(fold(f"question {n}") != fold(f"question {number}") for n in range(60))
        assert abs(good + bad) < 1e-9, "no constant"
        assert abs(good - pairs * expit(-2 * good)) < 1e-2


def test_words_of_one_hash_are_one_word() -> None:
    """`w196` and `w249` have the same hash modulo 2^14, and of other signs before."""
    assert all(own[0] == own[1] for own in blind([("w196", "w249")] * FEWEST))
