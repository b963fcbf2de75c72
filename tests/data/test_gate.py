"""Kinds of corruption planted in clean rows: an exact kind is found always and only there, a judged kind as often as its page says.

Test of data/gate.
"""

import random

import pytest
from benchmarks.gate import all_kinds, found_in, measured
from benchmarks.gate_corruptions import EXACT, JUDGED, generated, plant

from finegrain.data import findings as findings_module
from finegrain.data.findings import Findings
from finegrain.data.gate import across as across_module
from finegrain.data.gate.across import ABSENT, Across, Numbers
from finegrain.data.gate.biases import BiasSample
from finegrain.data.gate.keeper import Keeper, find_form
from finegrain.data.gate.language import detect_language
from finegrain.data.gate.settings import TOKEN_KINDS, Gate, Stopping
from finegrain.data.load import Shape, Tokenise, check_rows, load_examples
from finegrain.data.records import Answer, Row
from finegrain.errors import DataError, UsageError
from tests.data.tiny import byte_level
from tests.tiny import write_rows

ROWS, EACH = 340, 8


@pytest.fixture(scope="module")
def table():
    return all_kinds(generated(ROWS, 3), EACH, 4)


@pytest.mark.parametrize("kind", ["prompt_mismatch", *EXACT])
def test_an_exact_kind_is_found_always_and_only_where_it_is(table, kind):
    assert table[kind]["planted"] >= EACH
    assert table[kind]["clean"] >= 200
    assert table[kind]["missed"] == []
    assert table[kind]["alarms"] == []
    assert table[kind]["precision"][0] == 1.0, "a row with one kind is not given another exact one"


@pytest.mark.parametrize("kind", JUDGED)
def test_a_judged_kind_is_mostly_found_and_clean_rows_raise_no_alarm(table, kind):
    assert table[kind]["recall"][0] >= 0.75
    assert table[kind]["alarms"] == []


def test_the_measurement_sees_a_gate_that_ignores_who_is_preferred(monkeypatch):
    honest = across_module._key
    monkeypatch.setattr(across_module, "_key", lambda row: (honest(row)[0], 0))
    broken = measured(plant(generated(ROWS, 3), EACH, 4), ("duplicate", "contradictory"))
    assert broken["contradictory"]["recall"][0] == 0.0
    assert broken["duplicate"]["precision"][0] < 1.0


def test_what_concerns_the_tokenizer():
    few = generated(3, 0)
    assert found_in(few) == {}
    assert found_in(few, pad_is_eos=True) == {"pad_is_eos": set()}
    assert found_in(few, eos=False) == {"bos_eos": set()}


def pair(better, worse, prompt="p"):
    return Row(prompt=prompt, answers={"chosen": Answer(content=better), "rejected": Answer(content=worse)})


def test_rows_that_repeat_and_contradict_one_another_are_all_named():
    across = Across()
    rows = [pair("a", "b"), pair("a", "b"), pair("x", "y"), pair("b", "a"), pair("b", "a"), pair("a", "b", "q"), pair("a", "b")]
    seen = [named for number, row in enumerate(rows) for named in across.look(number, row)] + list(across.finish())
    assert sorted(number for kind, number in seen if kind == "duplicate") == [1, 4, 6]
    assert sorted(number for kind, number in seen if kind == "contradictory") == [0, 1, 3, 4, 6], "each once"


def test_opposite_labels_contradict():
    across = Across()
    labelled = [Row(prompt="p", answers={"answer": Answer(content="a")}, columns={"label": label}) for label in (1.0, 1.0, 0.0)]
    seen = [named for number, row in enumerate(labelled) for named in across.look(number, row)] + list(across.finish())
    assert seen == [("duplicate", 1), ("contradictory", 0), ("contradictory", 2), ("contradictory", 1)]


def test_numbers_by_key_are_those_of_a_dictionary():
    rng, numbers, truth = random.Random(0), Numbers(), {}
    keys = [rng.getrandbits(64) | 1 for _ in range(6000)]
    for _ in range(15_000):
        key, value = rng.choice(keys), rng.randrange(1 << 40)
        assert numbers.get(key) == truth.get(key, ABSENT)
        numbers.put(key, value)
        truth[key] = value
    assert all(numbers.get(key) == value for key, value in truth.items())


GOOD = {"prompt": "What is it, please?\n", "chosen": "It is a house.", "rejected": "Nobody ever knew that."}


def save(path, rows):
    return str(write_rows(path, rows))


def load(path, **actions):
    return load_examples(path, byte_level(), shape=Shape.PREFERENCE, settings=Tokenise(max_length=200), gate=Gate(**actions))


BAD = {
    "missing_column": {"prompt": "p", "chosen": "a"},
    "empty": {**GOOD, "chosen": " "},
    "identical": {**GOOD, "chosen": GOOD["rejected"]},
    "not_a_number": {**GOOD, "weight": float("nan")},
    "out_of_range": {**GOOD, "weight": -0.5},
    "tie": {**GOOD, "prompt": "Which?\n", "tie": True},
    "harmless_order": {**GOOD, "prompt": "Is it?\n", "helpful": 0, "harmless": 1},
    "span_outside_text": {**GOOD, "chosen_spans": [[5, 90, 1.0]], "prompt": "Other?\n"},
    "duplicate": GOOD,
    "contradictory": {**GOOD, "chosen": GOOD["rejected"], "rejected": GOOD["chosen"]},
    "bos_eos": {**GOOD, "chosen": "It ends.</s>"},
    "over_length": {**GOOD, "chosen": "It is long. " * 80},
    "near_identical": {**GOOD, "rejected": "It is a house!"},
    "template": {**GOOD, "rejected": "Thanks.\n\nHuman: and now?"},
    "inline_tags": {**GOOD, "rejected": "In <v>the cafe</v> it was."},
    "encoding": {**GOOD, "rejected": "In the cafÃ© it was."},
    "prompt_in_answer": {**GOOD, "rejected": "What is it, please? A house."},
    "language": {**GOOD, "chosen": "It is not what you think of it.", "rejected": "Я точно не знаю, что случилось в тот день."},
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_dropped_or_refused_as_asked(tmp_path, kind):
    path = save(tmp_path / "d.jsonl", [GOOD, BAD[kind]])
    dropped = load(path, **{kind: "drop"})
    assert [example.row for example in dropped.examples] == [0]
    assert dropped.report["dropped"] == {kind: 1}
    (finding,) = (one for one in dropped.gate["findings"] if one["kind"] == kind)
    assert 1 in finding["rows"]
    flag = f"--gate.{kind.replace('_', '-')}"
    with pytest.raises(DataError, match=f"{'d.jsonl:2' if kind == 'missing_column' else 'row 1'}.*set {flag} "):
        load(path, **{kind: "error"})


@pytest.mark.parametrize(
    "kind", ["harmless_order", "duplicate", "contradictory", "near_identical", "template", "inline_tags", "encoding", "prompt_in_answer", "language"]
)
def test_kept_where_nobody_says_otherwise(tmp_path, kind):
    loaded = load(save(tmp_path / "d.jsonl", [GOOD, BAD[kind]]))
    assert [example.row for example in loaded.examples] == [0, 1]
    (finding,) = (one for one in loaded.gate["findings"] if one["kind"] == kind)
    assert finding["action"] == "kept"


@pytest.mark.parametrize(
    "column",
    [
        {"label_prob": 1.5},
        {"label_prob": -0.1},
        {"tie": 2},
        {"flip": -1},
        {"strength_std": -1},
        {"weight": -1e-9},
        {"is_chosen_safe": -1},
        {"is_rejected_safe": 2},
        {"rejected_start": -3},
    ],
)
def test_weights_deviations_and_probabilities_are_in_range(tmp_path, column):
    found = load(save(tmp_path / "d.jsonl", [{**GOOD, **dict.fromkeys(column, 0)}, GOOD | column])).gate["findings"]
    (finding,) = (one for one in found if one["kind"] == "out_of_range")
    (name,) = column
    assert finding["rows"] == [1]
    assert f"column {name!r} is {column[name]:g}, expected" in finding["example"]


def test_not_a_number_is_not_out_of_range_too(tmp_path):
    found = load(save(tmp_path / "d.jsonl", [GOOD, {**GOOD, "weight": float("nan")}, {**GOOD, "label_prob": float("nan")}])).gate["findings"]
    assert [one["kind"] for one in found if one["action"] == "dropped"] == ["not_a_number"]


def test_a_dropped_row_is_counted_once_but_named_under_every_kind(tmp_path):
    loaded = load(save(tmp_path / "d.jsonl", [GOOD, {**GOOD, "chosen": "", "rejected": ""}]))
    assert loaded.report["dropped"] == {"empty": 1}
    assert {one["kind"]: one["rows"] for one in loaded.gate["findings"]} == {"empty": [1], "identical": [1]}


def test_the_dropped_side_of_a_contradiction_is_the_later_row(tmp_path):
    loaded = load(save(tmp_path / "d.jsonl", [GOOD, BAD["contradictory"]]), contradictory="drop")
    assert [example.row for example in loaded.examples] == [0]
    (finding,) = loaded.gate["findings"]
    assert (finding["rows"], finding["action"]) == ([0, 1], "1 dropped, 1 kept")


def test_a_first_row_that_is_broken_does_not_hide_the_format(tmp_path):
    path = save(tmp_path / "d.jsonl", [{"prompt": "p", "chosen": 3}, GOOD, {**GOOD, "prompt": "q"}])
    report = check_rows(path, None, settings=Tokenise())
    assert report["format"] == "preference pairs"
    (finding,) = report["findings"]
    assert (finding["kind"], finding["rows"], finding["action"]) == ("missing_column", [0], "error")
    assert report["not_checked"] == list(TOKEN_KINDS)


def test_cells_of_any_form_are_listed_not_raised(tmp_path):
    """Every cell of a row of every published form replaced by something else."""
    question = {"question": "q", "passages": [["t", "s"]], **{f"prediction {n}": str(n) for n in range(1, 5)}, "feedback": {"errors": []}}
    whole = {**question, "preference": [1] * 6}
    odd = [None, 3, "x", [], [1], {}, {"a": 1}, True]
    rows = [whole, *({**whole, name: cell} for name in whole for cell in odd)]
    report = check_rows(save(tmp_path / "d.jsonl", rows), byte_level(), settings=Tokenise(max_length=100))
    assert report["rows"] == len(rows)
    assert "missing_column" in {finding["kind"] for finding in report["findings"]}


def test_prompts_that_a_file_writes_with_markup_by_design_raise_no_alarm(tmp_path):
    marked = [{**GOOD, "prompt": f"\n\nHuman: What is number {n}?\n\nAssistant:"} for n in range(8)]
    report = check_rows(save(tmp_path / "d.jsonl", marked), None, settings=Tokenise())
    assert report["findings"] == []
    other = {**GOOD, "prompt": "[INST] What is it? [/INST]"}
    report = check_rows(save(tmp_path / "e.jsonl", [*marked, other]), None, settings=Tokenise())
    assert [(one["kind"], one["rows"]) for one in report["findings"]] == [("template", [8])]


def test_row_numbers_have_a_cap_and_counts_have_none(monkeypatch):
    monkeypatch.setattr(findings_module, "MOST_ROWS", 10)
    found = Findings()
    for row in range(25):
        found.add("duplicate", row, "kept")
        found.add("duplicate", row, "kept")
    finding = found.by_kind["duplicate"]
    assert (finding.count, finding.row_count(), finding.distinct()) == (50, 25, list(range(10)))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("It is not what you think of it, and that is what I know.", "en"),
        ("Ich weiß leider nicht genau, was damals geschehen ist.", "de"),
        ("Я точно не знаю, что случилось в тот день.", "ru"),
        ("Yes.", None),
        ("```python\nprint('naturalmente, nada')\n```", None),
    ],
)
def test_languages(text, language):
    assert detect_language(text) == language


def test_a_negative_sample_is_refused():
    with pytest.raises(UsageError, match="bias_rows must be a whole number of at least 0, got -1"):
        Gate(bias_rows=-1)


@pytest.mark.parametrize(("labels", "named"), [([1, 1, 1], True), ([False, False], True), ([1, 0, 1], False), ([1], False)])
def test_answers_of_one_label_alone_are_named(labels, named):
    rows = [(f"row {i}", {"prompt": f"p {i}", "completion": f"c {i}", "label": label}) for i, label in enumerate(labels)]
    findings = Findings()
    keeper = Keeper(Stopping(), [find_form(rows)], Shape.UNPAIRED, findings, BiasSample(0))
    assert len(list(keeper.kept(rows))) == len(labels)
    assert ("one_label" in findings.by_kind) is named
    assert not named or findings.messages()[-1].endswith(f"answers have the label {int(labels[0])}; training needs both labels")
