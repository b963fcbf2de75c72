import json
from pathlib import Path

import numpy as np
import pytest

from finegrain.data.gate.settings import Gate
from finegrain.data.load import Shape, Tokenise, check_rows, load_examples
from finegrain.data.read import read
from finegrain.data.shapes import OWN_SHAPES, TEXT_SHAPES
from finegrain.data.spans import spans_to_tokens
from finegrain.errors import DataError
from tests.data.tiny import CHATML, byte_level, pieces
from tests.data.tiny import marked as marks
from tests.tiny import write_rows

SHARED = Path(__file__).parents[2] / ".." / "shared"
SMALL_LM = SHARED / "models" / "small-lm"


def save(path, rows):
    return str(write_rows(path, rows))


def load(path, tokenizer=None, shape=Shape.PREFERENCE, limit=None, **settings):
    return load_examples(str(path), tokenizer or byte_level(), shape=shape, settings=Tokenise(**settings), limit=limit)


def findings(loaded):
    return {finding["kind"]: (finding["count"], finding["rows"], finding["action"]) for finding in loaded.report["findings"]}


GOOD = {"prompt": "what?\n", "chosen": "the answer", "rejected": "hello", "margin": 1.0}


def test_every_row_is_kept_or_named(tmp_path):
    rows = [
        GOOD,
        {**GOOD, "chosen": " \n"},
        {**GOOD, "rejected": "the answer"},
        {**GOOD, "margin": float("nan")},
        {**GOOD, "chosen_spans": [[0, 3, float("inf")]]},
        {**GOOD, "rejected": "\ud83d"},
        {**GOOD, "chosen_spans": [[4, 30, -1]], "rejected_spans": []},
        {**GOOD, "chosen_token_reward": [1.0]},
    ]
    loaded = load(save(tmp_path / "d.jsonl", rows))
    assert [example.row for example in loaded.examples] == [0, 6, 7]
    assert findings(loaded) == {
        "empty": (1, [1], "dropped"),
        "identical": (1, [2], "dropped"),
        "duplicate": (2, [6, 7], "kept"),
        "not_a_number": (2, [3, 4], "dropped"),
        "encoding": (1, [5], "dropped"),
        "span_outside_text": (1, [6], "clipped"),
        "token_reward_length": (1, [7], "ignored"),
    }
    report = loaded.report
    assert (report["rows"], report["kept"], report["dropped"]) == (8, 3, {"empty": 1, "identical": 1, "not_a_number": 2, "encoding": 1})
    assert report["annotated"] == {"chosen": 1, "rejected": 1}
    assert report["columns"] == ["margin"]
    assert report["format"] == "preference pairs"
    assert len(report["sha256"]) == 64
    assert json.loads(json.dumps(report)) == report
    assert loaded.examples[1].spans == {"chosen": marks((4, 10, -1.0)), "rejected": []}
    assert loaded.examples[0].spans == {"chosen": None, "rejected": None}


def test_only_twenty_row_numbers_are_kept_but_all_are_counted(tmp_path):
    loaded = load(save(tmp_path / "d.jsonl", [GOOD, *[{**GOOD, "chosen": ""}] * 30]))
    assert findings(loaded)["empty"] == (30, list(range(1, 21)), "dropped")


def test_columns_that_some_rows_lack_are_left_out_by_name(tmp_path):
    loaded = load(save(tmp_path / "d.jsonl", [{**GOOD, "weight": 2.0}, GOOD]))
    assert [example.columns for example in loaded.examples] == [{"margin": 1.0}, {"margin": 1.0}]
    assert loaded.report["partial_columns"] == ["weight"]


def test_errors_name_file_and_line(tmp_path):
    with pytest.raises(DataError, match=r"d\.jsonl:2: missing columns rejected; found: prompt, chosen"):
        load(save(tmp_path / "d.jsonl", [GOOD, {"prompt": "p", "chosen": "a"}]))
    with pytest.raises(DataError, match=r"e\.jsonl:1: columns found: prompt, chosne; nearest known form: preference pairs"):
        load(save(tmp_path / "e.jsonl", [{"prompt": "p", "chosne": "a"}]))
    with pytest.raises(DataError, match=r"none of 2 rows \(preference pairs\) gave a preference example; dropped: identical 2"):
        load(save(tmp_path / "f.jsonl", [{**GOOD, "rejected": "the answer"}] * 2))
    with pytest.raises(DataError, match="the tokenizer has no BOS"):
        load(save(tmp_path / "g.jsonl", [{"text": "hello"}]), byte_level(bos=False), Shape.DEMONSTRATION)


def test_limit_counts_source_rows(tmp_path):
    path = save(tmp_path / "d.jsonl", [{**GOOD, "prompt": f"{i} "} for i in range(5)])
    assert load(path, limit=2).report["rows"] == 2
    assert load(path, limit=2).report["sha256"] == load(path).report["sha256"]


def test_a_preference_file_serves_every_recipe(tmp_path):
    path = save(tmp_path / "d.jsonl", [{**GOOD, "chosen_spans": [[0, 3, 1.0]]}])
    unpaired = load(path, shape=Shape.UNPAIRED).examples
    assert [(example.row, example.columns["label"]) for example in unpaired] == [(0, 1.0), (0, 0.0)]
    assert unpaired[0].spans == {"answer": marks((0, 3, 1.0))}
    (demonstration,) = load(path, shape=Shape.DEMONSTRATION).examples
    assert demonstration.responses["answer"].text == "the answer"
    assert demonstration.columns == {"margin": 1.0}


def test_the_shape_of_the_rows_is_found_once_and_travels_with_them(tmp_path):
    """Of several wanted shapes the first that the rows serve; of two sources the first that both do; else the error of the first one."""
    steps = {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}
    labelled = {"prompt": "what?\n", "completion": "the answer", "label": True}
    files = {name: save(tmp_path / f"{name}.jsonl", [row]) for name, row in {"pairs": GOOD, "steps": steps, "labelled": labelled}.items()}
    assert {name: load(file, shape=OWN_SHAPES).shape.value for name, file in files.items()} == {
        "pairs": "preference",
        "steps": "steps",
        "labelled": "unpaired",
    }
    assert load(files["steps"], shape=TEXT_SHAPES).shape == Shape.UNPAIRED
    assert load(f"{files['pairs']} + {files['labelled']}", shape=TEXT_SHAPES).shape == Shape.UNPAIRED
    assert load(files["pairs"], shape=Shape.DEMONSTRATION).shape == Shape.DEMONSTRATION
    with pytest.raises(DataError, match="has no pairs"):
        load(save(tmp_path / "text.jsonl", [{"text": "t"}]), shape=(Shape.PREFERENCE, Shape.UNPAIRED))


@pytest.mark.parametrize("tokenizer", [byte_level(), pieces(), byte_level(template=CHATML)])
def test_spans_fall_on_the_same_words_whatever_the_tokenizer(tmp_path, tokenizer):
    turns = [{"role": "user", "content": "q"}]
    row = {"prompt": turns, "chosen": "the answer is good", "rejected": "hello", "chosen_spans": [{"start": 4, "end": 10, "value": -1.0}]}
    (example,) = load(save(tmp_path / "d.jsonl", [row]), tokenizer).examples
    response = example.responses["chosen"]
    values = spans_to_tokens(example.spans["chosen"], response.offsets, outside=1.0)
    has_text = response.offsets[:, 1] > response.offsets[:, 0]
    marked = "".join(response.text[start:end] for (start, end), value in zip(response.offsets[has_text], values[has_text], strict=True) if value < 0)
    assert marked.strip() == "answer"


def real(name):
    path = SHARED / "data" / f"{name}.jsonl.gz"
    if not path.exists() or not SMALL_LM.exists():
        pytest.skip("no shared data beside the project")
    from transformers import AutoTokenizer

    return path, AutoTokenizer.from_pretrained(SMALL_LM)


def decodes(tokenizer, response):
    return tokenizer.decode(response.ids[response.mask], skip_special_tokens=True)


def test_real_hh_rlhf_names_the_rows_it_should():
    path, _ = real("hh_harmless")
    report = check_rows(str(path), None, settings=Tokenise(), gate=Gate(bias_rows=0))
    found = {finding["kind"]: finding for finding in report["findings"]}
    assert (report["format"], report["rows"], report["examples_left"]) == ("hh-rlhf", 1800, 1799)
    assert found["empty"] == {"kind": "empty", "count": 1, "rows": [718], "action": "dropped"}
    assert found["prompt_mismatch"] == {"kind": "prompt_mismatch", "count": 4, "rows": [973, 1307, 1514, 1516], "action": "kept"}


def test_real_hh_rlhf_tokens(tmp_path):
    path, tokenizer = real("hh_harmless")
    rows = [dict(row) for _, row in read(str(path)).rows]
    loaded = load(save(tmp_path / "some.jsonl", [*rows[:100], rows[1514]]), tokenizer)
    assert (loaded.report["kept"], loaded.report["boundary_differs"], loaded.report["decode_differs"]) == (101, 0, 0)
    for example in loaded.examples[:100]:
        assert example.prompt[0] == tokenizer.bos_token_id
        assert example.prompt_text.startswith("Human:")
        assert example.prompt_text.endswith("\n\nAssistant:")
        for response in example.responses.values():
            assert response.ids[-1] == tokenizer.eos_token_id
            assert decodes(tokenizer, response) == f" {response.text}"
            assert response.offsets.max() == len(response.text)
    mismatched = loaded.examples[-1]
    assert not mismatched.responses["rejected"].mask.all()
    assert mismatched.responses["chosen"].mask.all()


def test_real_qa_feedback_marks_what_people_marked():
    path, tokenizer = real("qa_feedback")
    loaded = load(path, tokenizer, limit=20)
    assert loaded.report["format"] == "qa_feedback"
    assert loaded.report["annotated"]["chosen"] > 0
    assert loaded.report["annotated"]["rejected"] > 0
    assert loaded.report["prompt_truncated"] > 0
    assert loaded.report["decode_differs"] == 0
    assert sum(bool(spans) for example in loaded.examples for spans in example.spans.values()) > 10
    for example in loaded.examples:
        assert max(len(example.prompt) + len(response.ids) for response in example.responses.values()) <= 1024
        assert tokenizer.decode(example.prompt).endswith("\nAnswer:"), "the question stays when passages are cut"
        for role, spans in example.spans.items():
            assert (spans is not None) == (example.columns[f"{role}_prediction"] == 1)
            if not spans:
                continue
            response = example.responses[role]
            values = spans_to_tokens(spans, response.offsets, outside=1.0)
            inside = np.zeros(len(response.text), bool)
            for start, end, *_ in spans:
                inside[start:end] = True
            shares = [(inside[a:b].mean(), value) for (a, b), value in zip(response.offsets, values, strict=True) if b > a]
            assert all((share >= 0.5) == (value < 0) for share, value in shares)


def test_real_gsm8k():
    path, tokenizer = real("gsm8k_model_solutions")
    loaded = load(path, tokenizer, limit=50)
    assert loaded.report["format"] == "gsm8k model solutions"
    assert loaded.report["kept"] > 0
    labels = [example.columns["label"] for example in load(path, tokenizer, Shape.UNPAIRED, 50).examples]
    assert set(labels) == {0.0, 1.0}
    path, tokenizer = real("gsm8k_train")
    loaded = load(path, tokenizer, Shape.DEMONSTRATION, 20)
    assert decodes(tokenizer, loaded.examples[0].responses["answer"]).endswith("#### 72")
    with pytest.raises(DataError, match="gsm8k has no pairs"):
        load(path, tokenizer)
