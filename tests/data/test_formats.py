import itertools
import math

import pytest

from finegrain.data.answer_text import join_answer
from finegrain.data.findings import Findings
from finegrain.data.formats import FORMATS, recognise, rows_of_shape
from finegrain.data.gate.biases import BiasSample
from finegrain.data.gate.keeper import Keeper, find_form
from finegrain.data.gate.settings import Stopping
from finegrain.data.left_out import LeftOut, select_examples
from finegrain.data.records import Shape, Turn
from finegrain.data.shapes import find_own_shape, serves
from finegrain.errors import DataError
from finegrain.types import CharSpan
from tests.data.tiny import marked


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def convert(row, shape=Shape.PREFERENCE):
    return rows_of_shape(recognise(row), shape, row)


QA = {
    "question": "When?",
    "passages": [["Title", "First.", "Second."], ["Other", "Third."]],
    **{f"prediction {n}": f"answer {n}" for n in range(1, 5)},
    "feedback": {"errors": [{"start": 0, "end": 6, "error type": "Irrelevant"}]},
    "preference": [1, 0, 2, 0, 0, 2],
}
SOLUTIONS = {
    "question": "2+2?",
    "ground_truth": "4",
    "a": {"is_correct": True, "solution": "is 4"},
    "b": {"is_correct": False, "solution": "is 5"},
    "c": {"is_correct": True, "solution": "is 4"},
    "d": {"is_correct": True, "solution": "four"},
}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "preference pairs"),
        ({"prompt": [user("p")], "chosen": [bot("a")], "rejected": [bot("b")]}, "preference conversations"),
        ({"prompt": [user("p")], "chosen": "a", "rejected": "b"}, "preference conversations"),
        ({"chosen": [user("p"), bot("a")], "rejected": [user("p"), bot("b")]}, "preference conversations, implicit prompt"),
        ({"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b"}, "hh-rlhf"),
        ({"prompt": "p", "completion": "c", "label": True}, "unpaired answers"),
        ({"prompt": "p", "response": "c", "label": 0}, "unpaired answers"),
        ({"prompt": "p", "completion": "c"}, "demonstrations"),
        ({"messages": [user("p"), bot("a")]}, "demonstration conversations"),
        ({"text": "t"}, "text"),
        (QA, "qa_feedback"),
        (SOLUTIONS, "gsm8k model solutions"),
        ({"question": "q", "answer": "a"}, "gsm8k"),
    ],
)
def test_every_format_says_its_name(row, name):
    assert recognise(row).name == name


def test_every_format_can_be_used_for_something():
    assert all(
        entry.pairs or entry.answers or entry.demonstrations or entry.ratings or entry.steps or entry.ranked or entry.corrections for entry in FORMATS
    )


NEAREST = {
    ("prompt", "chosne", "rejected"): "preference pairs (chosen, prompt, rejected): rename chosne to chosen",
    ("prompt", "chosne"): "preference pairs (chosen, prompt, rejected): rename chosne to chosen, add rejected",
    (
        "question",
        "response_j",
        "response_k",
    ): "instruction pairs (chosen, question, rejected): rename response_j to chosen, rename response_k to rejected",
    ("post", "accepted", "declined", "id"): "preference pairs (chosen, prompt, rejected): rename accepted to chosen, rename post to prompt, ",
    ("dialogue", "rating_by"): "demonstration conversations (messages): rename dialogue to messages",
    ("Prompt", "Completion"): "demonstrations (completion, prompt): rename Completion to completion, rename Prompt to prompt",
    ("prompt", "steps", "labels"): "labelled steps (completions, labels, prompt): rename steps to completions",
    ("x", "y"): "no known form has any of them",
    (): "no known form has any of them",
}


@pytest.mark.parametrize("columns", NEAREST)
def test_the_nearest_form_and_the_renames_that_lead_there_are_named(columns):
    with pytest.raises(DataError) as caught:
        recognise(dict.fromkeys(columns, "x"))
    assert str(caught.value).startswith(f"columns found: {', '.join(columns) or 'none'}; ")
    assert NEAREST[columns] in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_row_of_many_columns_gives_a_short_message_too():
    with pytest.raises(DataError) as caught:
        recognise({f"column {n} {'x' * 500}\x1b[2J": n for n in range(1000)})
    assert len(str(caught.value)) < 1200
    assert str(caught.value).isprintable()
    assert "and 988 more" in str(caught.value)


def test_missing_columns_are_named():
    with pytest.raises(DataError, match="missing columns rejected; found: prompt, chosen"):
        rows_of_shape(recognise({"prompt": "p", "chosen": "a", "rejected": "b"}), Shape.PREFERENCE, {"prompt": "p", "chosen": "a"})


def test_wrong_types_are_named():
    with pytest.raises(DataError, match="column 'chosen': expected text, found int"):
        rows_of_shape(recognise({"prompt": "p", "chosen": "a", "rejected": "b"}), Shape.PREFERENCE, {"prompt": "p", "chosen": 3, "rejected": "b"})
    with pytest.raises(DataError, match="column 'label': expected 0, 1"):
        convert({"prompt": "p", "completion": "c", "label": 2}, Shape.UNPAIRED)
    with pytest.raises(DataError, match=r"column 'chosen_spans': expected \{start, end, value\}"):
        convert({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_spans": [{"start": 0, "end": 1}]})
    with pytest.raises(DataError, match="expected text as content of the assistant turn, found parts of type image"):
        convert({"chosen": [user("p"), bot([{"type": "image"}])], "rejected": [user("p"), bot("b")]})


def test_numbers_spans_and_rewards_travel_with_the_row():
    (row,) = convert(
        {
            "prompt": "p", "chosen": "good", "rejected": "bad", "margin": 2, "weight": 0.5, "flag": True, "id": "x",
            "chosen_spans": [{"start": 0, "end": 2, "value": 1.0}, [2, 4, -1]], "rejected_spans": None, "rejected_token_reward": [0.1, 2],
        }
    )  # fmt: skip
    assert row.columns == {"margin": 2.0, "weight": 0.5, "flag": 1.0}
    assert row.answers["chosen"].spans == marked((0, 2, 1.0), (2, 4, -1.0))
    assert row.answers["rejected"].spans is None
    assert row.answers["rejected"].token_reward == [0.1, 2.0]
    single = convert({"prompt": "p", "completion": "c", "spans": []}, Shape.DEMONSTRATION)[0]
    assert single.answers["answer"].spans == []


def test_pairs_become_labelled_answers_and_demonstrations():
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2.0, "chosen_spans": [[0, 1, 1.0]]}
    good, bad = convert(row, Shape.UNPAIRED)
    assert (good.answers["answer"].content, good.columns) == ("a", {"margin": 2.0, "label": 1.0})
    assert (bad.answers["answer"].content, bad.columns) == ("b", {"margin": 2.0, "label": 0.0})
    (demonstration,) = convert(row, Shape.DEMONSTRATION)
    assert (demonstration.answers["answer"].content, demonstration.columns) == ("a", {"margin": 2.0})
    assert demonstration.answers["answer"].spans == marked((0, 1, 1.0))


def test_only_good_answers_are_demonstrations():
    assert len(convert({"prompt": "p", "completion": "c", "label": True}, Shape.DEMONSTRATION)) == 1
    assert convert({"prompt": "p", "completion": "c", "label": False}, Shape.DEMONSTRATION) == [LeftOut.LABELLED_BAD]
    (open_label,) = convert({"prompt": "p", "completion": "c", "label": float("nan")}, Shape.DEMONSTRATION)
    assert math.isnan(open_label.columns["label"]), "the gate names it"


def refuses(entry, shape):
    """Whether the format has no converter to the shape, whatever is in the row."""
    try:
        rows_of_shape(entry._replace(columns=frozenset()), shape, {})
    except DataError as error:
        return " has " in str(error)
    except Exception:
        return False  # a converter, which found nothing in an empty row
    return False


def test_a_format_serves_what_it_can_be_converted_to():
    served = [serves(entry, shape) for entry in FORMATS for shape in Shape]
    assert served == [not refuses(entry, shape) for entry in FORMATS for shape in Shape]
    assert {find_own_shape(entry) for entry in FORMATS} == set(Shape) - {Shape.EXPLORED}  # pairs with one column more


def test_what_has_no_pairs_says_so():
    with pytest.raises(DataError, match="gsm8k has no pairs"):
        convert({"question": "q", "answer": "a"})
    with pytest.raises(DataError, match="neither labels nor pairs"):
        convert({"text": "t"}, Shape.UNPAIRED)


def test_the_prompt_is_the_common_start_of_two_conversations():
    start = [user("q1"), bot("a1"), user("q2")]
    (row,) = convert({"chosen": [*start, bot("good")], "rejected": [*start, bot("bad")]})
    assert row.prompt == (Turn("user", "q1"), Turn("assistant", "a1"), Turn("user", "q2"))
    assert row.answers["chosen"].content == (Turn("assistant", "good"),)
    assert row.notes == ()


def test_an_earlier_difference_gives_answers_of_several_turns():
    (row,) = convert({"chosen": [user("q"), bot("a"), user("x"), bot("b")], "rejected": [user("q"), bot("a"), user("y"), bot("c"), user("cut")]})
    assert row.prompt == (Turn("user", "q"),)
    assert row.answers["rejected"].content == (Turn("assistant", "a"), Turn("user", "y"), Turn("assistant", "c"))
    assert row.notes == ("prompt_mismatch",)


def test_explicit_prompts_are_not_doubled():
    prompt = [user("q")]
    for chosen, rejected in [([bot("a")], [bot("b")]), ([user("q"), bot("a")], [user("q"), bot("b")]), ("a", "b")]:
        (row,) = convert({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        assert row.prompt == (Turn("user", "q"),)
        assert row.answers["chosen"].content == (Turn("assistant", "a"),)
    (row,) = convert({"prompt": "q", "chosen": [user("q"), bot("a")], "rejected": [user("q"), bot("b")]})
    assert row.prompt == (Turn("user", "q"),)
    (row,) = convert({"prompt": "q", "chosen": [bot("a")], "rejected": [bot("b")]})
    assert row.prompt == (Turn("user", "q"),)


def test_hh_transcripts():
    start = "\n\nHuman: one\n\nAssistant:  two\n\nHuman: three"
    (row,) = convert({"chosen": f"{start}\n\nAssistant: a\n\nb", "rejected": f"{start}\n\nAssistant:"})
    assert row.prompt == (Turn("user", "one"), Turn("assistant", " two"), Turn("user", "three"))
    assert row.answers["chosen"].content == (Turn("assistant", "a\n\nb"),)
    assert row.answers["rejected"].content == (Turn("assistant", ""),)
    with pytest.raises(DataError, match="expected a transcript"):
        convert({"chosen": "hm\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b"})


def test_qa_feedback_pairs_and_the_only_annotated_prediction():
    made = convert(QA)
    rows = select_examples(made)
    assert made.count(LeftOut.NO_PREFERENCE) == len(made) - len(rows) == QA["preference"].count(0)
    assert [(row.columns["chosen_prediction"], row.columns["rejected_prediction"]) for row in rows] == [(1, 2), (4, 1), (4, 3)]
    assert rows[0].prompt == "First. Second.\n\nThird.\n\nQuestion: When?\nAnswer:"
    assert rows[0].glue == " "
    errors = [CharSpan(0, 6, -1.0, aspect="Irrelevant")]
    assert [(row.answers["chosen"].spans, row.answers["rejected"].spans) for row in rows] == [(errors, None), (None, errors), (None, None)]
    clean = {**QA, "feedback": {"errors": []}}
    assert convert(clean)[0].answers["chosen"].spans == []
    assert [row.answers["answer"].content for row in select_examples(convert(QA, Shape.DEMONSTRATION))] == ["answer 1", "answer 4"]
    with pytest.raises(DataError, match="expected six numbers"):
        convert({**QA, "preference": [1, 2]})


def test_solutions_right_against_wrong():
    rows = convert(SOLUTIONS)
    assert [(row.answers["chosen"].content, row.answers["rejected"].content) for row in rows] == [("is 4", "is 5"), ("four", "is 5")]
    assert rows[0].prompt == "Question: 2+2?\nAnswer:"
    labelled = convert(SOLUTIONS, Shape.UNPAIRED)
    assert [(row.answers["answer"].content, row.columns["label"]) for row in labelled] == [("is 4", 1.0), ("is 5", 0.0), ("four", 1.0)]
    assert convert({**SOLUTIONS, "b": SOLUTIONS["a"]}) == [LeftOut.NO_WRONG_ANSWER]
    assert convert({**SOLUTIONS, **dict.fromkeys("acd", SOLUTIONS["b"])}) == [LeftOut.NO_RIGHT_ANSWER]
    bare = {"question": "2+2?", "ground_truth": "4"}
    assert rows_of_shape(recognise(SOLUTIONS), Shape.PREFERENCE, bare) == rows_of_shape(recognise(SOLUTIONS), Shape.UNPAIRED, bare)
    assert rows_of_shape(recognise(SOLUTIONS), Shape.UNPAIRED, bare) == [LeftOut.NO_ANSWER]


def test_messages_train_every_assistant_turn():
    (row,) = convert({"messages": [user("q"), bot("a"), user("r"), bot("b")]}, Shape.DEMONSTRATION)
    assert row.prompt == (Turn("user", "q"),)
    assert row.answers["answer"].content == (Turn("assistant", "a"), Turn("user", "r"), Turn("assistant", "b"))


CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}}


def test_messages_keep_every_key_that_holds_a_value():
    """A content of null beside a call, parts of text, tools as JSON text."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "find "}, {"type": "text", "text": "it"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "well"},
        {"role": "tool", "content": "found", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Here.", "weight": 0},
    ]
    (row,) = convert({"messages": messages, "tools": '[{"type": "function"}]'}, Shape.DEMONSTRATION)
    assert [turn.message() for turn in row.prompt] == [{"role": "user", "content": "find it"}]
    assert [turn.message() for turn in row.answers["answer"].content] == messages[1:]
    assert row.tools == '[{"type": "function"}]'
    with pytest.raises(DataError, match="found NoneType"):
        convert({"messages": [messages[0], {"role": "assistant", "content": None}]}, Shape.DEMONSTRATION)
    with pytest.raises(DataError, match="column 'tools': expected a list of tools"):
        convert({"messages": messages, "tools": {"name": "search"}}, Shape.DEMONSTRATION)


def test_spans_of_a_turn_with_reasoning_and_calls_are_moved_into_the_text():
    said = [{"role": "assistant", "content": "good answer", "reasoning": "well", "tool_calls": [CALL]}, {"role": "user", "content": "and?"}]
    said.append({"role": "assistant", "content": "more", "reasoning_content": "hm"})
    spans = [
        [0, 4, 1.0],
        [5, 11, 2.0],
        [11 + len("\n\nHuman: and?\n\nAssistant: "), 11 + len("\n\nHuman: and?\n\nAssistant: more"), 3.0],
        [90, 95, 4.0],
    ]
    raw = {"prompt": [{"role": "user", "content": "q"}], "completion": said, "spans": spans}
    (row,) = convert(raw, Shape.DEMONSTRATION)
    answer = row.answers["answer"]
    text = join_answer(answer.content)
    assert text.startswith(
        '<think>\nwell\n</think>\n\ngood answer\n<tool_call>\n{"name": "search", "arguments": {"q": 1}}\n</tool_call>\n\nHuman: and?'
    )
    assert [text[start:end] for start, end, *_ in answer.spans] == ["good", "answer", "more", ""]


def test_answers_that_differ_in_a_call_or_in_reasoning_are_not_identical():
    prompt = [{"role": "user", "content": "q"}]
    other = {**CALL, "function": {"name": "delete", "arguments": "{}"}}
    said = [
        bot("Calling."),
        {**bot("Calling."), "tool_calls": [CALL]},
        {**bot("Calling."), "tool_calls": [other]},
        {**bot("Calling."), "thinking": "hm"},
    ]
    rows = [(f"row {i}", {"prompt": prompt, "chosen": [one], "rejected": [two]}) for i, (one, two) in enumerate(itertools.combinations(said, 2))]
    rows += [("tools", {**rows[0][1], "tools": [{"type": "function"}]})]
    findings = Findings()
    keeper = Keeper(Stopping(), [find_form(rows)], Shape.PREFERENCE, findings, BiasSample(0))
    assert len(list(keeper.kept(rows))) == len(rows)
    assert not {"identical", "contradictory", "duplicate"} & findings.by_kind.keys()
