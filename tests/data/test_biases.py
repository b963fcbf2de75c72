"""What predicts the label, where it is known what does."""

import random

import pytest

from finegrain.data.gate.biases import FEWEST, BiasSample, measure_biases
from finegrain.data.gate.texts import Texts
from finegrain.data.records import Answer, Row

WORDS = "house garden river stone bridge letter music winter summer engine paper window bread horse island candle".split()


def sampled(rows, size=400):
    sample = BiasSample(size)
    for prompt, answers, label in rows:
        columns = {} if label is None else {"label": label}
        row = Row(prompt=prompt, answers={role: Answer(content=text) for role, text in answers.items()}, columns=columns)
        sample.offer(row, Texts(prompt, prompt, answers, False))
    return sample


def words(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


def pairs(count, good=lambda rng: words(rng, 12), bad=lambda rng: words(rng, 12)):
    rng = random.Random(5)
    return [(f"prompt {n}", {"chosen": good(rng), "rejected": bad(rng)}, None) for n in range(count)]


def contains(one, value):
    return one["low"] <= value <= one["high"]


def test_nothing_predicts_random_labels():
    found = measure_biases(sampled(pairs(400)))
    assert found["sampled"] == 400
    assert all(contains(found[name], 0.5) for name in ("longer_wins", "word_list", "answer_alone"))


def test_length_is_seen():
    found = measure_biases(sampled(pairs(200, good=lambda rng: words(rng, 20), bad=lambda rng: words(rng, 9))))
    assert found["longer_wins"]["accuracy"] == 1.0
    assert found["longer_wins"]["low"] == pytest.approx(200 / (200 + 1.959964**2), abs=1e-4), "Wilson's bound at 200 of 200"


def test_a_telling_word_is_seen_by_the_list_and_by_the_answer_alone():
    found = measure_biases(sampled(pairs(300, good=lambda rng: words(rng, 6) + " sorry " + words(rng, 6), bad=lambda rng: words(rng, 13))))
    assert found["word_list"]["low"] > 0.9
    assert found["answer_alone"]["low"] > 0.9


def test_a_telling_word_pair_is_seen_by_the_answer_alone():
    """The words are the same on both sides, their order is not: a list of words cannot know."""
    rows = pairs(400, good=lambda rng: words(rng, 5) + " not so " + words(rng, 5), bad=lambda rng: words(rng, 5) + " so not " + words(rng, 5))
    found = measure_biases(sampled(rows))
    assert found["answer_alone"]["low"] > 0.8
    assert found["word_list"]["high"] < 0.7


def test_words_learnt_on_a_prompt_are_not_tested_on_it():
    """Every prompt has its own telling word; with prompts on both sides of a split it would be learnt."""
    rng = random.Random(1)
    rows = [(f"prompt {n // 8}", {"chosen": f"{words(rng, 8)} mark{n // 8}", "rejected": f"{words(rng, 8)} note{n // 8}"}, None) for n in range(400)]
    assert contains(measure_biases(sampled(rows))["answer_alone"], 0.5)


def test_labelled_answers():
    rng = random.Random(2)
    rows = [(f"prompt {n}", {"answer": words(rng, 10) + (" sorry" if n % 2 else "")}, float(n % 2)) for n in range(200)]
    found = measure_biases(sampled(rows))
    assert found["word_list"]["low"] > 0.9
    assert found["chance"] == 0.5


ONE_LABEL = [(f"p{n}", {"answer": "a"}, 1.0) for n in range(80)]
ONE_PROMPT = [("one", {"chosen": "a b", "rejected": "c"}, None)] * 80


@pytest.mark.parametrize("rows", [pairs(FEWEST - 1), ONE_LABEL, ONE_PROMPT])
def test_where_nothing_can_be_measured_the_reason_is_given(rows):
    for one in measure_biases(sampled(rows)).values():
        assert one["accuracy"] is None
        assert one["reason"]


def test_answers_without_words_measure_chance():
    found = measure_biases(sampled(pairs(80, good=lambda rng: "!!", bad=lambda rng: "??")))
    assert found["longer_wins"]["accuracy"] is None
    assert contains(found["word_list"], 0.5)


def test_the_sample_is_bounded_and_uniform():
    sample = sampled(pairs(3000), size=100)
    assert (len(sample.cases), sample.offered) == (100, 3000)
    first_half = {case.prompt for case in sampled(pairs(1500), size=1500).cases}
    firsts = sum(case.prompt in first_half for case in sample.cases)
    assert 30 <= firsts <= 70, "four standard deviations around one half"
    assert sampled(pairs(60), size=0).cases == []


def test_examples_of_one_prompt_count_as_far_as_they_differ():
    """Four copies of every pair under its prompt say no more than one does."""
    rows = pairs(100)
    once, four_times = measure_biases(sampled(rows))["longer_wins"], measure_biases(sampled([row for row in rows for _ in range(4)]))["longer_wins"]
    assert four_times["rows"] == 4 * once["rows"]
    assert (four_times["low"], four_times["high"]) == pytest.approx((once["low"], once["high"]), abs=0.01)
