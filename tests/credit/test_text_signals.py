"""Signals without a scorer: worked edits and words, and what cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest

from finegrain.credit.signal_facts import Direction
from finegrain.credit.text_signals import Entropy, LeastEdit, Lexical
from finegrain.errors import CreditError, UsageError
from tests.credit.fake import FakeContext, random_context


def of_texts(chosen: list[str], rejected: list[str], prompts: list[str]) -> FakeContext:
    """One character per token."""
    tokens = {role: [np.array([ord(letter) for letter in text]) for text in texts] for role, texts in (("chosen", chosen), ("rejected", rejected))}
    masks = {role: [np.ones(len(own), dtype=bool) for own in rows] for role, rows in tokens.items()}
    signs = {"chosen": np.ones(len(chosen)), "rejected": -np.ones(len(rejected))}
    return FakeContext(signs=signs, role_masks=masks, tokens=tokens, prompt={"row": prompts})


def test_least_edit_marks_what_differs() -> None:
    signal = LeastEdit()(of_texts(["abXd"], ["abcde"], ["q"]))
    assert signal["chosen"][0].mean.tolist() == [0, 0, 1, 0]
    assert signal["rejected"][0].mean.tolist() == [0, 0, -1, 0, -1]


def test_least_edit_of_equal_answers_says_nothing_and_other_turns_do_not_count() -> None:
    context = of_texts(["abcd", "same"], ["xbcy", "same"], ["q", "r"])
    masks = {role: [np.array([False, True, True, False]), rows[1]] for role, rows in context.role_masks.items()}
    signal = LeastEdit()(replace(context, role_masks=masks))
    assert all(not score.mean.any() for rows in signal.values() for score in rows)


def test_least_edit_needs_a_pair() -> None:
    with pytest.raises(CreditError, match="compares the two answers of a pair, but this run trains on answer"):
        LeastEdit()(FakeContext(signs={"answer": np.ones(1)}, role_masks={"answer": [np.ones(1, dtype=bool)]}))


def test_words_of_the_prompt_of_other_answers_and_their_place() -> None:
    context = of_texts(["Red fox", "red"], ["red dog!", "red ox"], ["a fox?", "a fox?"])
    chosen, rejected = (Lexical()(context)[role] for role in ("chosen", "rejected"))
    # red: not in the prompt, in all three other answers, first of two words; fox: in the prompt, in no other answer, second of two
    np.testing.assert_allclose(chosen[0].mean, [1 + 1] * 4 + [1 + 0 + 0.5] * 3)
    np.testing.assert_allclose(rejected[0].mean, [2.0] * 4 + [0.5] * 4)
    only = Lexical(overlap=0.0, agreement=2.0, place=0.0)(context)["rejected"][1].mean
    np.testing.assert_allclose(only, [2.0] * 4 + [0.0] * 2)


def test_an_answer_alone_agrees_by_half_and_one_without_words_has_nothing() -> None:
    context = of_texts(["a", "?!"], ["b", ""], ["p", "q"])
    lone = replace(context, signs={"chosen": np.ones(2)})
    np.testing.assert_allclose(Lexical(overlap=0.0, place=0.0)(lone)["chosen"][0].mean, [0.5])
    assert Lexical()(lone)["chosen"][1].mean.tolist() == [0.0, 0.0]


def test_a_lexical_signal_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="must be above 0"):
        Lexical(overlap=0.0, agreement=0.0, place=0.0)(random_context())


def test_entropy_is_the_start_models() -> None:
    context = random_context(0)
    assert all(np.array_equal(score.mean, own) for score, own in zip(Entropy()(context)["chosen"], context.entropies("chosen"), strict=True))
    assert Entropy.facts.direction is Direction.NONE
