import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.data.spans import spans_to_tokens, tokens_to_spans
from tests.data.tiny import byte_level, marked, pieces

TOKENIZERS = [byte_level(), pieces("always"), pieces("prepend")]


def offsets(*pairs):
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)


def encode(tokenizer, text):
    return offsets(*tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])


def test_a_token_belongs_to_a_span_with_at_least_half_its_characters():
    places = offsets((0, 4), (4, 7), (7, 9))
    assert spans_to_tokens([(2, 5, -1.0)], places, outside=1.0).tolist() == [-1.0, 1.0, 1.0]
    assert spans_to_tokens([(3, 6, -1.0)], places, outside=1.0).tolist() == [1.0, -1.0, 1.0]
    assert spans_to_tokens([(8, 9, 0.5)], places, outside=0.0).tolist() == [0.0, 0.0, 0.5]


def test_the_later_of_overlapping_spans_wins():
    places = offsets((0, 2), (2, 4), (4, 6))
    assert spans_to_tokens([(0, 4, 1.0), (2, 6, 2.0)], places, outside=0.0).tolist() == [1.0, 2.0, 2.0]
    assert spans_to_tokens([(2, 6, 2.0), (0, 4, 1.0)], places, outside=0.0).tolist() == [1.0, 1.0, 2.0]
    assert spans_to_tokens([(0, 1, 1.0), (1, 2, 2.0)], places, outside=0.0).tolist() == [2.0, 0.0, 0.0]


def test_tokens_without_characters_take_the_value_before_them():
    places = offsets((0, 0), (0, 2), (0, 0), (2, 4), (0, 0), (0, 0))
    assert spans_to_tokens([(0, 2, 3.0)], places, outside=-1.0).tolist() == [3.0, 3.0, 3.0, -1.0, -1.0, -1.0]
    assert spans_to_tokens([(0, 2, 3.0)], offsets((0, 0), (5, 5)), outside=-1.0).tolist() == [-1.0, -1.0]
    assert spans_to_tokens([], offsets(), outside=0.0).tolist() == []


def test_pieces_of_one_character_share_its_span():
    text = "ab 😀 cd"
    places = encode(byte_level(), text)
    assert (places == (3, 4)).all(1).sum() > 1, "the character should be several tokens here"
    values = spans_to_tokens([(3, 4, 5.0)], places, outside=0.0)
    assert set(values[(places[:, 0] >= 3) & (places[:, 1] == 4)]) == {5.0}
    assert set(values[places[:, 1] <= 2]) == {0.0}
    byte_pieces = encode(pieces(), text)
    assert set(spans_to_tokens([(3, 4, 5.0)], byte_pieces, outside=0.0)[(byte_pieces == (3, 4)).all(1)]) == {5.0}


def test_equal_neighbours_merge_and_one_uncovered_character_is_bridged():
    places = offsets((0, 2), (2, 3), (4, 6), (9, 10), (0, 0))
    assert tokens_to_spans(np.array([1.0, 1.0, 1.0, 1.0, 7.0]), places) == marked((0, 6, 1.0), (9, 10, 1.0))
    assert tokens_to_spans(np.array([1.0, 2.0, 2.0, 1.0, 7.0]), places) == marked((0, 2, 1.0), (2, 6, 2.0), (9, 10, 1.0))


def test_shared_characters_take_the_later_tokens_value():
    assert tokens_to_spans(np.array([1.0, 2.0]), offsets((0, 2), (1, 3))) == marked((0, 1, 1.0), (1, 3, 2.0))
    assert tokens_to_spans(np.array([1.0, 2.0, 3.0]), offsets((0, 1), (0, 1), (0, 2))) == marked((0, 2, 3.0))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_character_spans_survive_tokens(data):
    """What tokens say as spans, tokens say again, wherever tokens that share a character agree."""
    text = data.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
    places = encode(data.draw(st.sampled_from(TOKENIZERS)), text)
    bounds = st.integers(0, len(text))
    spans = [(min(a, b), max(a, b), v) for a, b, v in data.draw(st.lists(st.tuples(bounds, bounds, st.sampled_from([-1.0, 0.5, 2.0])), max_size=4))]
    values = spans_to_tokens(spans, places, outside=0.0)
    by_character: dict[int, set[float]] = {}
    for value, (start, end) in zip(values, places, strict=True):
        for character in range(start, end):
            by_character.setdefault(character, set()).add(float(value))
    if all(len(found) == 1 for found in by_character.values()):
        expected = values.tolist() if by_character else [9.0] * len(values)
        assert spans_to_tokens(tokens_to_spans(values, places), places, outside=9.0).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([-1.0, 0.0, 2.0])), max_size=12))
def test_spans_of_disjoint_tokens_give_the_tokens_back(steps):
    places, values, position = [], [], 0
    for gap, width, value in steps:
        places.append((position + gap, position + gap + width) if width else (0, 0))
        values.append(value if width else None)
        position += gap + width
    if not any(value is not None for value in values):
        return
    first = next(value for value in values if value is not None)
    for i, value in enumerate(values):
        values[i] = value if value is not None else (values[i - 1] if i else first)
    array = np.array(values, dtype=np.float32)
    assert spans_to_tokens(tokens_to_spans(array, offsets(*places)), offsets(*places), outside=9.0).tolist() == array.tolist()
