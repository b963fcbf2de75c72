import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.data.encode import Encoder
from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row, Turn
from finegrain.data.tokenise import tokenise
from finegrain.data.truncate import KeepStart, Tokenise, fit_lengths, limit_length
from finegrain.errors import ModelError, UsageError
from tests.data.tiny import CHATML, LOWERS, THINKS_LAST, WORDS_ONLY, WRITES_BOS_AND_EOS, byte_level, marked, pieces

TOKENIZERS = {"byte-level": byte_level(), "metaspace": pieces("always"), "metaspace first": pieces("first"), "prepend": pieces("prepend")}
PLAIN = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def strings(prompt="what is it? ", glue="", **answers):
    return Row(prompt=prompt, glue=glue, answers={role: Answer(content=text) for role, text in answers.items()})


def turns(*contents):
    """User, assistant, user, ..."""
    return tuple(Turn("user" if i % 2 == 0 else "assistant", content) for i, content in enumerate(contents))


def conversation(prompt=("q",), **answers):
    shift = len(prompt) % 2
    sides = {role: tuple(Turn("assistant" if (i + shift) % 2 else "user", text) for i, text in enumerate(texts)) for role, texts in answers.items()}
    return Row(prompt=turns(*prompt), answers={role: Answer(content=side) for role, side in sides.items()})


def run(tokenizer, *rows, **changes):
    findings = Findings()
    return list(tokenise(enumerate(rows), tokenizer, Tokenise(**changes), findings)), findings


def one(tokenizer, row, **changes):
    (example,), findings = run(tokenizer, row, **changes)
    return example, findings


def shown(tokenizer, response):
    """Text of the tokens that train."""
    return tokenizer.decode(response.ids[response.mask], skip_special_tokens=True)


def pieces_of(response):
    return [response.text[start:end] for start, end in response.offsets.tolist()]


@PLAIN
def test_strings_are_taken_as_they_are(tokenizer):
    example, findings = one(tokenizer, strings("what is it? ", chosen="the answer", rejected="12 words"))
    assert example.prompt[0] == tokenizer.bos_token_id
    assert (example.prompt == tokenizer.bos_token_id).sum() == 1
    for role, text in (("chosen", "the answer"), ("rejected", "12 words")):
        response = example.responses[role]
        assert response.text == text
        assert shown(tokenizer, response) == text
        assert response.mask.all()
        assert (response.ids == tokenizer.eos_token_id).tolist() == [False] * (len(response.ids) - 1) + [True]
        assert response.offsets[-1].tolist() == [0, 0]
        assert "".join(pieces_of(response)) == text
    assert findings.count("decode_differs") == 0


@PLAIN
def test_the_joining_space_belongs_to_the_answer_but_not_to_its_text(tokenizer):
    example, findings = one(tokenizer, strings("Answer:", glue=" ", answer="the answer"))
    response = example.responses["answer"]
    assert response.text == "the answer"
    assert response.offsets[0, 0] == 0
    assert "".join(pieces_of(response)) == "the answer"
    ids = np.concatenate([example.prompt[1:], response.ids[:-1]]).tolist()
    assert tokenizer.decode(ids) == "Answer: the answer"
    assert findings.count("boundary_differs") == int(ids != tokenizer("Answer: the answer", add_special_tokens=False)["input_ids"])


@PLAIN
def test_parts_are_the_tokens_of_the_whole_where_the_whole_has_a_boundary(tokenizer):
    """No space is written into the middle, none is lost."""
    for prompt, glue, answer in [("Human: hello there\n\nAssistant:", " ", "the answer"), ("Answer:\n", "", "the best"), ("Answer: ", "", "  two")]:
        example, findings = one(tokenizer, strings(prompt, glue=glue, answer=answer))
        ids = np.concatenate([example.prompt[1:], example.responses["answer"].ids[:-1]])
        assert tokenizer.decode(ids) == prompt + glue + answer
        if findings.count("boundary_differs") == 0:
            assert ids.tolist() == tokenizer(prompt + glue + answer, add_special_tokens=False)["input_ids"]


def test_the_boundary_count_sees_a_merge():
    tokenizer = byte_level()
    _, findings = one(tokenizer, strings("the ans", answer="wer"))
    assert findings.count("boundary_differs") == 1
    _, findings = one(tokenizer, strings("the", answer=" answer"))
    assert findings.count("boundary_differs") == 0


@pytest.mark.parametrize(("bos", "eos"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize("make", [byte_level, pieces])
def test_tokenizers_without_bos_or_eos(make, bos, eos):
    tokenizer = make(bos=bos, eos=eos)
    example, _ = one(tokenizer, strings("what ", answer="the answer"))
    special = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    assert (example.prompt == special[0]).sum() == int(bos)
    assert (example.responses["answer"].ids == special[1]).sum() == int(eos)
    assert len(example.prompt) >= 1
    examples, findings = run(tokenizer, strings("", answer="the answer"))
    assert len(examples) == int(bos)
    assert findings.dropped() == ({} if bos else {"empty_prompt": 1})


def test_bos_and_eos_written_in_the_text_are_not_doubled():
    tokenizer = byte_level()
    example, findings = one(tokenizer, strings("<s>what ", answer="the answer</s>"))
    assert (example.prompt == tokenizer.bos_token_id).sum() == 1
    assert (example.responses["answer"].ids == tokenizer.eos_token_id).sum() == 1
    assert findings.count("bos_eos") == 1


@PLAIN
def test_plain_conversations(tokenizer):
    example, _ = one(tokenizer, conversation(("q", "a", "r"), chosen=["the answer"], rejected=["best"]))
    assert example.prompt_text == "Human: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:"
    assert tokenizer.decode(example.prompt, skip_special_tokens=True) == example.prompt_text
    assert example.responses["chosen"].text == "the answer"
    assert "".join(pieces_of(example.responses["chosen"])) == "the answer"


@PLAIN
def test_only_the_assistants_turns_train(tokenizer):
    example, findings = one(tokenizer, conversation(("q",), chosen=["one answer", "and then?", "two words"], rejected=["hello"]))
    response = example.responses["chosen"]
    assert response.text == "one answer\n\nHuman: and then?\n\nAssistant: two words"
    assert "".join(pieces_of(response)) == "one answertwo words"
    assert "and then" not in tokenizer.decode(response.ids[response.mask])
    assert tokenizer.decode(response.ids[:-1]).removeprefix(" ") == response.text
    assert tokenizer.decode(response.ids[response.mask][:-1]).removeprefix(" ") == "one answer two words"
    assert (response.offsets[~response.mask] == 0).all()
    assert (response.ids == tokenizer.eos_token_id).sum() == 1
    assert findings.count("decode_differs") == 0


def test_answers_may_start_with_the_user():
    row = Row(prompt=(), answers={"chosen": Answer(content=turns("hm", "the answer")), "rejected": Answer(content=turns("what", "best"))})
    for template in (None, CHATML):
        example, _ = one(byte_level(template=template), row)
        assert example.responses["chosen"].text == "Human: hm\n\nAssistant: the answer"
        assert "".join(pieces_of(example.responses["chosen"])) == "the answer"
        assert not example.responses["chosen"].mask[0]
        assert example.prompt.tolist() == [1]


@pytest.mark.parametrize("make", [byte_level, pieces, lambda **k: pieces("prepend", **k), lambda **k: pieces("first", **k)])
def test_a_template_whose_turns_end_with_another_token_than_eos(make):
    tokenizer = make(template=CHATML)
    example, findings = one(tokenizer, conversation(("q",), chosen=["one answer", "and then?", "two words"], rejected=["hello"]))
    chosen, rejected = example.responses["chosen"], example.responses["rejected"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert example.prompt_text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert rejected.ids[-2:].tolist() == [end, tokenizer.eos_token_id]
    assert shown(tokenizer, rejected).strip() == "hello"
    assert "".join(pieces_of(chosen)) == "one answertwo words"
    trained_ends = (chosen.ids == end) & chosen.mask
    assert trained_ends.sum() == 2, "each of the assistant's turns teaches its end"
    assert ((chosen.ids == end) & ~chosen.mask).sum() == 1, "the user's does not"
    assert chosen.text == "one answer\n\nHuman: and then?\n\nAssistant: two words"
    assert findings.count("decode_differs") == 0


def test_a_template_that_ends_its_turns_with_eos_is_not_given_another():
    tokenizer = byte_level(template=CHATML)
    tokenizer.eos_token = "<|im_end|>"
    example, _ = one(tokenizer, conversation(("q",), answer=["hello"]))
    response = example.responses["answer"]
    assert (response.ids == tokenizer.eos_token_id).tolist() == [False] * (len(response.ids) - 1) + [True]
    assert response.mask[-1]


@pytest.mark.parametrize("make", [byte_level, pieces, lambda **k: pieces("prepend", **k)])
def test_a_template_that_writes_bos_and_eos_itself_and_strips(make):
    tokenizer = make(template=WRITES_BOS_AND_EOS)
    example, findings = one(tokenizer, conversation(("q",), chosen=["  the answer \n"], rejected=["best", "r", "hello"]))
    chosen, rejected = example.responses["chosen"], example.responses["rejected"]
    assert (example.prompt == tokenizer.bos_token_id).sum() == 1
    assert (chosen.ids == tokenizer.eos_token_id).sum() == 1
    assert (rejected.ids == tokenizer.eos_token_id).sum() == 2, "the template ends each turn with it"
    assert rejected.mask[rejected.ids == tokenizer.eos_token_id].all()
    assert chosen.text == "  the answer \n"
    assert "".join(pieces_of(chosen)) == "the answer", "offsets refer to the text before the template strips it"
    assert findings.count("decode_differs") == 0


def test_a_template_without_special_tokens():
    tokenizer = byte_level(template=WORDS_ONLY)
    example, _ = one(tokenizer, conversation(("q",), answer=["hello"]))
    assert example.prompt_text == "### user\nq\n\n### assistant\n"
    assert shown(tokenizer, example.responses["answer"]) == "hello"
    assert example.responses["answer"].ids[-1] == tokenizer.eos_token_id


def test_templates_that_refuse_or_change_a_row_drop_it_by_name():
    refused = Row(prompt=(Turn("system", "s"), Turn("user", "q")), answers={"answer": Answer(content=(Turn("assistant", "a"),))})
    examples, findings = run(byte_level(template=WRITES_BOS_AND_EOS), refused, conversation(("q",), answer=["a"]))
    assert [example.row for example in examples] == [1]
    assert findings.dropped() == {"template": 1}
    assert "only user and assistant" in findings.in_words()
    examples, findings = run(byte_level(template=LOWERS), conversation(("q",), answer=["An Answer"]))
    assert not examples
    assert "changes the assistant's text" in findings.in_words()


def test_what_a_template_writes_around_the_last_answer_trains_with_it():
    """The prompt is the same for all answers, and what comes behind the header of the assistant's turn is the answer's."""
    tokenizer = byte_level(template=THINKS_LAST)
    first, second = run(
        tokenizer, conversation(("q",), chosen=["one"], rejected=["two"]), conversation(("q",), chosen=["one", "r", "x"], rejected=["two"])
    )[0]
    assert first.prompt_text == second.prompt_text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert shown(tokenizer, first.responses["chosen"]) == "<think>\n\n</think>\n\none"
    assert shown(tokenizer, second.responses["chosen"]) == "one<think>\n\n</think>\n\nx"
    assert "".join(pieces_of(second.responses["chosen"])) == "onex"


def test_a_prompt_that_depends_on_the_answer_drops_the_row():
    tokenizer = byte_level(template="{{ messages | length }}" + CHATML)
    examples, findings = run(
        tokenizer, conversation(("q",), chosen=["one"], rejected=["two"]), conversation(("q",), chosen=["one", "r", "x"], rejected=["two"])
    )
    assert [example.row for example in examples] == [0]
    assert "renders the prompt differently" in findings.in_words()


def test_strings_do_not_pass_through_the_template():
    example, _ = one(byte_level(template=CHATML), strings("what ", answer="hello"))
    assert example.prompt_text == "what "


def test_a_normaliser_that_changes_text_is_counted():
    _, findings = one(byte_level(lower=True), strings("what ", answer="Hello There"))
    assert findings.count("decode_differs") == 1
    assert "'Hello There' decodes to 'hello there'" in str(findings.as_json())


def test_slow_tokenizers_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="fast tokenizer"):
        Encoder(Slow())


def test_fit_cuts_the_prompt_first_and_answers_only_when_it_has_its_minimum():
    settings_ = Tokenise(max_length=100, min_prompt=20)
    assert fit_lengths(30, [50, 60], settings_) == (30, [50, 60])
    assert fit_lengths(70, [10, 60], settings_) == (40, [10, 60])
    assert fit_lengths(70, [10, 95], settings_) == (20, [10, 80])
    assert fit_lengths(10, [10, 95], settings_) == (10, [10, 90])
    assert fit_lengths(70, [95], Tokenise(max_length=30, min_prompt=20)) == (15, [15])


def test_truncation_keeps_bos_the_end_of_the_prompt_and_cuts_answers_at_their_end():
    tokenizer = byte_level()
    row = strings("one two three four five six seven ", chosen="the answer is a good answer " * 6, rejected="best")
    whole, _ = one(tokenizer, row)
    cut, findings = one(tokenizer, row, max_length=24, min_prompt=8)
    assert len(cut.prompt) == 8
    assert cut.prompt.tolist() == [tokenizer.bos_token_id, *whole.prompt[-7:].tolist()]
    chosen, rejected = cut.responses["chosen"], cut.responses["rejected"]
    assert chosen.ids.tolist() == whole.responses["chosen"].ids[:16].tolist()
    assert tokenizer.eos_token_id not in chosen.ids
    assert rejected.ids.tolist() == whole.responses["rejected"].ids.tolist()
    assert chosen.text == whole.responses["chosen"].text
    assert (findings.count("prompt_truncated"), findings.count("answer_truncated")) == (1, 1)
    start, _ = one(tokenizer, row, max_length=24, min_prompt=8, prompt=KeepStart())
    assert start.prompt.tolist() == whole.prompt[:8].tolist()


def test_rows_that_truncation_makes_useless_are_dropped_by_name():
    tokenizer = byte_level()
    same = strings("what ", chosen="the answer is a good answer, yes", rejected="the answer is a good answer, no")
    nothing = conversation(("q",), chosen=["one"], rejected=["two"])
    silent = Row(prompt=(), answers={"answer": Answer(content=turns("a very long question about many words " * 3, "hello"))})
    examples, findings = run(tokenizer, same, nothing, silent, max_length=12, min_prompt=4)
    assert [example.row for example in examples] == [1]
    assert findings.dropped() == {"identical_after_truncation": 1, "truncated_to_nothing": 1}
    assert findings.by_kind["identical_after_truncation"].example == ""


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(UsageError, match="max_length must be a whole number of at least 2"):
        Tokenise(max_length=1)
    with pytest.raises(UsageError, match="min_prompt must be a whole number of at least 1"):
        Tokenise(min_prompt=0)


def test_spans_outside_the_text_are_clipped():
    spans = marked((-2, 2, 1.0), (3, 9, -1.0), (7, 9, 2.0), (3, 3, 1.0), (0, 5, 0.5))
    row = Row(prompt="what ", answers={"answer": Answer(content="hello", spans=spans)})
    example, _ = one(byte_level(), row)
    assert example.spans["answer"] == marked((0, 2, 1.0), (3, 5, -1.0), (0, 5, 0.5))


def test_token_rewards_with_or_without_eos_and_of_wrong_length():
    tokenizer = byte_level()
    count = len(one(tokenizer, strings("what ", answer="hello there"))[0].responses["answer"].ids)

    def rewarded(length):
        return Row(prompt="what ", answers={"answer": Answer(content="hello there", token_reward=[float(i) for i in range(length)])})

    examples, findings = run(tokenizer, rewarded(count), rewarded(count - 1), rewarded(count - 2), rewarded(0))
    rewards = [example.token_rewards["answer"] for example in examples]
    assert rewards[0].tolist() == [float(i) for i in range(count)]
    assert rewards[1].tolist() == [*map(float, range(count - 1)), float(count - 2)]
    assert rewards[2] is None
    assert rewards[3] is None
    assert findings.count("token_reward_length") == 2
    long = Row(prompt="what is it? ", answers={"answer": Answer(content="hello there " * 9, token_reward=None)})
    whole = one(tokenizer, long)[0].responses["answer"]
    long = Row(prompt=long.prompt, answers={"answer": Answer(content=whole.text, token_reward=[1.0] * len(whole.ids))})
    cut, _ = one(tokenizer, long, max_length=12)
    assert len(cut.token_rewards["answer"]) == len(cut.responses["answer"].ids) < len(whole.ids)


def test_the_prompt_is_the_same_whatever_the_answers():
    tokenizer = byte_level(template=CHATML)
    first, _ = one(tokenizer, conversation(("q",), answer=["hello"]))
    second, _ = one(tokenizer, conversation(("q",), answer=["there", "x", "y"]))
    assert first.prompt.tolist() == second.prompt.tolist()


def test_batches_change_nothing():
    tokenizer = byte_level()
    rows = [strings(f"what {i} ", answer=f"answer {i} " * (i % 5 + 1)) for i in range(600)]
    together, _ = run(tokenizer, *rows)
    for index in (0, 255, 256, 599):
        alone, _ = one(tokenizer, rows[index])
        assert together[index].responses["answer"].ids.tolist() == alone.responses["answer"].ids.tolist()
        assert together[index].row == index


LETTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=25).filter(str.strip)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(list(TOKENIZERS)), LETTERS, LETTERS, st.sampled_from(["", " ", "\n"]))
def test_what_trains_decodes_to_the_answer(kind, prompt, answer, glue):
    tokenizer = TOKENIZERS[kind]
    if "▁" in prompt + answer:
        return
    example, findings = one(tokenizer, strings(prompt, glue=glue, answer=answer))
    response = example.responses["answer"]
    assert response.text == answer
    if findings.count("decode_differs") == 0 and findings.count("bos_eos") == 0:
        assert tokenizer.decode(response.ids[response.mask], skip_special_tokens=True) in (glue + answer, answer, (glue + answer).removeprefix(" "))
    else:
        assert kind != "byte-level"
    covered = np.zeros(len(answer), bool)
    for start, end in response.offsets.tolist():
        covered[start:end] = True
    assert covered.all(), "every character of the answer has a token"


def test_rows_are_cut_at_the_positions_of_the_model():
    """The tokenizer carries the number; a shorter --max-length stays, and where nothing limits the model nothing is said."""
    tokenizer = byte_level()
    row = strings("what is it " * 20, answer="hello there " * 5)
    limit_length(tokenizer, 40)
    example, findings = one(tokenizer, row)
    assert len(example.prompt) + len(example.responses["answer"].ids) == 40
    assert findings.count("over_length") == 1
    assert findings.messages()[0] == "max_length: lowered: the model has 40 positions, so rows are cut to 40 tokens instead of 1024"
    assert "max_length" not in one(tokenizer, row, max_length=32)[1].by_kind
    limit_length(tokenizer, None)
    assert "max_length" not in one(tokenizer, row)[1].by_kind
