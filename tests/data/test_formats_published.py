"""What must hold of every public format: recognised as itself, whole texts, every row kept or named. Test of data/convert."""

from pathlib import Path

import pytest

from finegrain.data.formats import FORMATS, recognise, rows_of_shape
from finegrain.data.load import Tokenise, load_examples
from finegrain.data.records import Shape
from finegrain.errors import DataError
from tests.data.published import PAIRS, PUBLISHED, RATINGS, STEPS
from tests.data.tiny import CHATML, byte_level
from tests.tiny import write_rows

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "data.md"
SHAPES = {**dict.fromkeys(PAIRS, Shape.PREFERENCE), **dict.fromkeys(RATINGS, Shape.RATED), **dict.fromkeys(STEPS, Shape.STEPS)}


def load(path, rows, shape, template=None):
    write_rows(path, rows)
    return load_examples(str(path), byte_level(template=template), shape=shape, settings=Tokenise())


def in_words(row, shape):
    """The examples, written out so that a NaN is equal to itself."""
    return [(one.prompt, one.answers, repr(sorted(one.columns.items()))) for one in rows_of_shape(recognise(row), shape, row)]


def strings(value):
    """Every text in a cell, however deep."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in strings(item)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_recognised_as_itself_whatever_the_order_of_its_columns(name):
    row = PUBLISHED[name]
    for order in (sorted(row), sorted(row, reverse=True), [*row][1:] + [*row][:1]):
        shuffled = {column: row[column] for column in order}
        assert recognise(shuffled).name == name
        assert in_words(shuffled, SHAPES[name]) == in_words(row, SHAPES[name])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_without_a_needed_column_is_named(name):
    entry = recognise(PUBLISHED[name])
    for missing in entry.columns:
        row = {column: value for column, value in PUBLISHED[name].items() if column != missing}
        with pytest.raises(DataError, match=f"missing columns {missing}; found: .*{name} needs "):
            rows_of_shape(entry, SHAPES[name], row)


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("name", PUBLISHED)
def test_texts_come_through_the_template_verbatim(tmp_path, name, template):
    row = PUBLISHED[name]
    loaded = load(tmp_path / "d.jsonl", [row], SHAPES[name], template)
    tokenizer = byte_level(template=template)
    assert loaded.report["format"] == name
    converted = [one for one in rows_of_shape(recognise(row), SHAPES[name], row) if "nan" not in repr(one.columns)]
    assert len(loaded.examples) == len(converted) > 0
    whole = "\n".join(strings(row)).replace("ки", "")
    for example, one in zip(loaded.examples, converted, strict=True):
        assert all(turn.content in example.prompt_text for turn in one.prompt)
        for role, response in example.responses.items():
            decoded = tokenizer.decode([*example.prompt, *response.ids], clean_up_tokenization_spaces=False)
            for turn in one.answers[role].content:
                assert turn.content in decoded
                assert all(line in whole for line in turn.content.split("\n"))
            assert all(turn.content in decoded for turn in one.prompt)


def test_every_row_is_kept_or_dropped_for_a_reason(tmp_path):
    ultra = PUBLISHED["UltraFeedback"]
    loaded = load(tmp_path / "a.jsonl", [ultra, {**ultra, "completions": []}], Shape.RATED)
    assert [example.row for example in loaded.examples] == [0]
    assert loaded.report["dropped"] == {"not_a_number": 1, "no_answer": 1}
    steps = PUBLISHED["PRM800K"]
    loaded = load(tmp_path / "b.jsonl", [steps, {**steps, "is_quality_control_question": True}], Shape.STEPS)
    assert [example.row for example in loaded.examples] == [0, 0]
    assert loaded.report["dropped"] == {"quality_control": 1}
    strength = PUBLISHED["hh-rlhf-strength-cleaned"]
    rows = [strength, {**strength, "rejected": ["Hi, got a joke?"]}, {**strength, "rejected": strength["chosen"]}]
    loaded = load(tmp_path / "c.jsonl", rows, Shape.PREFERENCE)
    assert [example.row for example in loaded.examples] == [0]
    assert loaded.report["dropped"] == {"unequal_turns": 1, "identical": 1}


def test_steps_and_ratings_reach_the_examples(tmp_path):
    loaded = load(tmp_path / "a.jsonl", [PUBLISHED["PRM800K"]], Shape.STEPS)
    assert [[value for _, _, value, *_ in example.spans["answer"]] for example in loaded.examples] == [[1.0, -1.0], [1.0, 1.0]]
    assert loaded.report["columns"] == ["steps", "unlabelled_steps"]
    loaded = load(tmp_path / "b.jsonl", [PUBLISHED["HelpSteer2"]] * 2, Shape.RATED)
    assert loaded.examples[1].columns["rating/helpfulness"] == 4.0


def test_every_format_stands_in_the_guide():
    lines = [line for line in GUIDE.read_text().splitlines() if line.startswith("| ")]
    named = {line.split("|")[1].strip() for line in lines}
    assert {entry.name for entry in FORMATS} <= named
