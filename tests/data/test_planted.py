import json

import numpy as np
import pytest

from finegrain.data.planted import (
    MATERIALS,
    MEANS,
    THINGS,
    VERBS,
    Planted,
    World,
    add_annotations,
    add_truth,
    list_words,
    make_demonstrations,
    make_pairs,
    preference_probability,
    write_planted,
)
from finegrain.errors import UsageError
from finegrain.evaluate.discrimination import auroc

SMALL = Planted(pairs=30, pool=40, held_out_pairs=20, sentences=4)


def words_of(row):
    return {word for column in ("prompt", "chosen", "rejected") for word in row[column].replace(".", "").replace("?", "").split()}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    first, again, other = (write_planted(tmp_path / name, World(SMALL, seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    for one, two, three in zip(first, again, other, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert one.read_bytes() != three.read_bytes()


def test_everything_is_the_pairs_and_then_the_pool(tmp_path):
    files = write_planted(tmp_path, World(SMALL, 0))
    assert files.everything.read_text() == files.pairs.read_text() + files.pool.read_text()
    assert not set(files.pairs.read_text().splitlines()) & set(files.pool.read_text().splitlines())


def test_more_pairs_start_with_the_same_pairs():
    world = World(SMALL, 0)
    assert make_pairs(world, 9, stream=0)[:4] == make_pairs(world, 4, stream=0)


def test_truth_covers_exactly_the_sentences():
    world = World(SMALL, 3)
    for row in make_pairs(world, 20, stream=0):
        for role in ("chosen", "rejected"):
            sentences = [row[role][start:end] for start, end, _ in row[f"{role}_truth"]]
            assert len(sentences) == SMALL.sentences
            assert all(sentence.count(".") == 1 and sentence.endswith(".") and sentence[0].isupper() for sentence in sentences)
            assert " " + " ".join(sentences) == row[role]
            context = MATERIALS.index(row["prompt"].split()[-2]) % 2
            means = [sentence.rstrip(".").split()[-1] for sentence in sentences]
            assert [value for *_, value in row[f"{role}_truth"]] == [world.qualities[MEANS.index(word), context] for word in means]


def test_shares_of_good_and_bad_are_exact():
    qualities = World(Planted(sentence_types=50, good=0.3, bad=0.1), 0).qualities[:, 0]
    assert [(qualities == value).sum() for value in (-1, 0, 1)] == [5, 30, 15]


def test_context_turns_the_quality_of_the_stated_share_around():
    assert (World(Planted(), 0).qualities[:, 0] == World(Planted(), 0).qualities[:, 1]).all()
    turned = World(Planted(context_dependence=1.0), 0).qualities
    assert (turned[:, 0] == -turned[:, 1]).all()
    assert turned.any()
    half = np.concatenate([World(Planted(context_dependence=0.5, good=0.5, bad=0.5), seed).qualities for seed in range(20)])
    assert (half[:, 0] != half[:, 1]).mean() == pytest.approx(0.5, abs=4 * 0.5 / len(half) ** 0.5)


def test_labels_follow_bradley_terry():
    settings = Planted(sentences=6, temperature=1.5)
    rows = make_pairs(World(settings, 0), 4000, stream=0)
    margin = np.array([sum(v for *_, v in row["chosen_truth"]) - sum(v for *_, v in row["rejected_truth"]) for row in rows])
    for size in (1, 2, 3):
        with_size = margin[abs(margin) == size]
        expected = 1 / (1 + np.exp(-size / 1.5))
        assert (with_size > 0).mean() == pytest.approx(expected, abs=4 * (expected * (1 - expected) / len(with_size)) ** 0.5)


def test_without_noise_the_better_answer_is_always_chosen():
    rows = make_pairs(World(Planted(temperature=0.0), 0), 200, stream=0)
    assert all(sum(v for *_, v in row["chosen_truth"]) >= sum(v for *_, v in row["rejected_truth"]) for row in rows)
    assert [preference_probability(d, 0.0) for d in (-1.0, 0.0, 1.0)] == [0.0, 0.5, 1.0]


def test_held_out_pairs_share_no_thing_no_verb_and_no_sentence_with_training():
    world = World(SMALL, 5)
    training, held_out = (set().union(*map(words_of, make_pairs(world, 200, stream=0, held_out=flag))) for flag in (False, True))
    for known in (THINGS, VERBS):
        assert training & set(known)
        assert held_out & set(known)
        assert not training & held_out & set(known)


def test_the_vocabulary_covers_everything_that_is_written():
    world = World(SMALL, 0)
    rows = make_pairs(world, 50, stream=0) + make_pairs(world, 50, stream=2, held_out=True)
    shown = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": ""} for row in make_demonstrations(world, 50)]
    seen = set().union(*map(words_of, rows + shown))
    assert seen <= set(list_words())


def test_reading_counts_what_it_cannot_read():
    world = World(Planted(sentence_types=3, good=1.0, bad=0.0), 0)
    reading = world.read("How do I look after a copper kettle?", " Wipe it with salt. Wipe with salt. Eat it with salt. Rub it with lemon")
    assert reading.spans == [(1, 19, 1.0)]
    assert (reading.unreadable, reading.quality) == (3, 1.0)


def test_truth_as_credit_separates_perfectly():
    rows = add_truth(make_pairs(World(SMALL, 0), 20, stream=0))
    credit = [(value, truth) for row in rows for (*_, value), (*_, truth) in zip(row["chosen_spans"], row["chosen_truth"], strict=True) if truth]
    values, truths = np.array(credit).T
    assert auroc(values, truths > 0).mean == 1.0
    assert auroc(-values, truths > 0).mean == 0.0
    assert auroc(np.zeros(len(values)), truths > 0).mean == 0.5


def test_annotators_mark_part_of_the_answers_and_err_at_the_stated_rate():
    rows = make_pairs(World(SMALL, 0), 600, stream=0)
    marked = add_annotations(rows, Planted(annotated=0.4, annotation_error=0.2), seed=1)
    judged = [(row[f"{role}_truth"], row[f"{role}_spans"]) for row in marked for role in ("chosen", "rejected")]
    annotated = [(truth, spans) for truth, spans in judged if spans is not None]
    assert len(annotated) / len(judged) == pytest.approx(0.4, abs=4 * (0.24 / len(judged)) ** 0.5)
    assert {value for _, spans in annotated for *_, value in spans} == {-1.0}
    wrong = [(value < 0) != ((start, end, -1.0) in spans) for truth, spans in annotated for start, end, value in truth]
    assert np.mean(wrong) == pytest.approx(0.2, abs=4 * (0.16 / len(wrong)) ** 0.5)


def test_files_are_read_by_the_data_path(tmp_path):
    from finegrain.data.load import Shape, Tokenise, load_examples
    from finegrain.recipes.demo.base import word_tokenizer

    files, tokenizer = write_planted(tmp_path, World(SMALL, 0)), word_tokenizer()
    loaded = load_examples(str(files.truth), tokenizer, shape=Shape.PREFERENCE, settings=Tokenise())
    assert (loaded.report["kept"], loaded.report["decode_differs"], loaded.report["boundary_differs"]) == (SMALL.pairs, 0, 0)
    assert loaded.report["annotated"] == {"chosen": SMALL.pairs, "rejected": SMALL.pairs}
    unknown = tokenizer.unk_token_id
    assert not any((response.ids == unknown).any() for example in loaded.examples for response in example.responses.values())
    row = json.loads(files.truth.read_text().splitlines()[0])
    assert [list(span[:3]) for span in loaded.examples[0].spans["chosen"]] == row["chosen_truth"]
    plain = load_examples(str(files.pairs), tokenizer, shape=Shape.PREFERENCE, settings=Tokenise())
    assert plain.report["annotated"] == {"chosen": 0, "rejected": 0}


@pytest.mark.parametrize("wrong", [{"sentence_types": 1}, {"good": 0.8, "bad": 0.3}, {"temperature": -1.0}, {"annotated": 1.5}, {"pairs": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        Planted(**wrong)
