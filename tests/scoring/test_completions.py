"""One number for an answer wherever a reward model is loaded: `finegrain score`, transformers, pooling by hand, our function, its card."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import finegrain
from finegrain.errors import UsageError
from finegrain.models.reward_tokenizer import SPACED_CALL, TEXT_CALL
from finegrain.ops.readout import Last, Mean, Minimum, Sum
from tests.recipes.command import Command
from tests.tiny import save_tiny, write_rows

READOUTS = {"last": Last(), "sum": Sum(), "mean": Mean(), "minimum": Minimum()}


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in bfloat16, whose weights are large enough that their rounding is seen in a score."""
    folder = save_tiny(tmp_path_factory.mktemp("bfloat16"))
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    return folder


def trained(command: Command, base: Path, *arguments: str | Path) -> Path:
    outcome = command.prefer("run", "--model", base, "--max-length", "64", "--max-steps", "2", "--lr", "0.02", *arguments, command="reward")
    assert outcome.code == 0, outcome.error
    return command.folder / "run"


def scores(command: Command, run: Path, *arguments: str) -> list[dict[str, Any]]:
    """What `finegrain score` says of the pairs."""
    file = command.folder / f"scores{len(arguments)}.jsonl"
    outcome = command("score", "--model", run, "--data", command.data, "--out", file, "--max-length", "64", "--device", "cpu", *arguments)
    assert outcome.code == 0, outcome.error
    return [json.loads(line) for line in file.read_text().splitlines()]


def printed_by_card(run: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """What the snippet prints, and what it says that it prints."""
    monkeypatch.chdir(run)
    (code,) = re.findall(r"^(`{3,})python\n(.*?)^\1$", (run / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code[1], "README.md", "exec"), {})
    return float(out.getvalue()), float(code[1].rpartition("# ")[2])


@pytest.mark.parametrize(
    ("base", "arguments", "loader", "readout"),
    [
        pytest.param("half", ("head:sequence",), AutoModelForSequenceClassification, "last", marks=pytest.mark.slow),
        ("half", ("head:token",), AutoModelForTokenClassification, "sum"),
        ("half", ("head:ensemble", "head.readout:mean"), AutoModelForTokenClassification, "mean"),
        pytest.param("half", ("head:gaussian", "--lora.rank", "2"), AutoModelForSequenceClassification, "last", marks=pytest.mark.slow),
        ("model", ("head:gaussian-ensemble",), AutoModelForSequenceClassification, "last"),
    ],
    ids=["sequence", "token", "ensemble", "adapter", "float32"],
)
def test_one_number(
    base: str,
    arguments: tuple[str, ...],
    loader: Any,
    readout: str,
    command: Command,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trained(command, request.getfixturevalue(base), *arguments)
    told = scores(command, run)
    assert len({len(line["tokens"]) for line in told}) > 5, "ragged answers"
    ours = torch.tensor([line["score"]["mean"] for line in told], dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(run)
    stock = loader.from_pretrained(run, dtype=torch.float32).eval()
    theirs, pooled = [], []
    for line in told:
        ids = tokenizer(line["prompt"] + line["response"], return_tensors="pt")["input_ids"]
        assert [ids[0, 0], ids[0, -1]] == [tokenizer.bos_token_id, tokenizer.eos_token_id]
        count = len(line["tokens"])
        with torch.no_grad():
            logits = stock(input_ids=ids).logits
            values = stock.base_model(input_ids=ids).last_hidden_state[0, -count:] @ stock.score.weight[0]
        whole = torch.ones(1, count, dtype=torch.bool)
        tokens = logits[:, -count:, 0] if logits.ndim == 3 else torch.nn.functional.pad(logits, (count - 1, 0))
        theirs.append(READOUTS[readout](tokens, whole))
        pooled.append(READOUTS[readout](values[None], whole))
    torch.testing.assert_close(torch.cat(theirs).double(), ours, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.cat(pooled).double(), ours, rtol=1e-6, atol=1e-6)

    prompts, completions = [line["prompt"] for line in told], [line["response"] for line in told]
    function = finegrain.reward_function(run, device="cpu")
    assert function(prompts, completions) == pytest.approx(ours.tolist(), rel=1e-6, abs=1e-6)
    shown, said = printed_by_card(run, monkeypatch)
    assert shown == pytest.approx(said, rel=1e-6, abs=1e-6)
    assert min(abs(ours - said)) < 1e-6 * (1 + abs(said)), "the card's number is that of an answer of the data"
    assert command.record("run")["card"]["transformers"] == pytest.approx(said, rel=1e-7)


@pytest.mark.parametrize("space", ["at the prompt's end", "before the answer"])
def test_the_card_says_of_its_own_example_whether_tokens_merge(
    space: str, command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A space at the end of the prompt joins the answer's first word: one call on both gives other ids."""
    data, first = tmp_path / "pairs.jsonl", space == "before the answer"
    prompt, glue = ("why ?", " ") if first else ("why ? ", "")
    rows = [{"prompt": f"{row} {prompt}", "chosen": f"{glue}the sky is", "rejected": f"{glue}the mat"} for row in range(12)]
    write_rows(data, rows)
    run = trained(command, model, "head:sequence", "--data", data, "--samples", "0")
    card = (run / "README.md").read_text()
    assert ("tokens merge at the border" in card) is not first
    assert ("of the tokenizer here writes those of this example" in card) is first
    calls = json.loads((run / "config.json").read_text())["finegrain"]["input"]["stock_calls"]
    assert (calls[TEXT_CALL], calls[SPACED_CALL]) == (False, True)
    shown, said = printed_by_card(run, monkeypatch)
    assert shown == pytest.approx(said, rel=1e-6, abs=1e-6)
    sample = json.loads((run / "samples.jsonl").read_text().splitlines()[0])
    stock, tokenizer = AutoModelForSequenceClassification.from_pretrained(run, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(run)
    with torch.no_grad():
        joined = float(stock(input_ids=torch.tensor([tokenizer(sample["prompt"] + sample["chosen"])["input_ids"]])).logits[0, 0])
    assert (joined == pytest.approx(sample["chosen_score"], abs=1e-6)) is first


CHATML = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token + '\n' }}{% endfor %}"


@pytest.mark.slow
def test_conversations_and_the_function(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chat template that writes text behind the end token: stock calls, the function and `score` agree, plain and normalised."""
    base = save_tiny(tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(base)
    said = lambda role, text: [{"role": role, "content": text.strip()}]
    pairs = [json.loads(line) for line in command.data.read_text().splitlines()]
    talks = [{"prompt": said("user", one["prompt"]), **{role: said("assistant", one[role]) for role in ("chosen", "rejected")}} for one in pairs]
    command.data = tmp_path / "talks.jsonl"
    write_rows(command.data, talks)
    run = trained(command, base, "head:sequence", "--holdout", "0.25", "--samples", "3")
    ours = [line["score"]["mean"] for line in scores(command, run)]
    prompts = [one["prompt"] for one in talks for _ in range(2)]
    completions = [one[role] for one in talks for role in ("chosen", "rejected")]
    function = finegrain.reward_function(run, device="cpu")
    assert function(prompts=prompts, completions=completions, trainer_state=None) == pytest.approx(ours, abs=1e-6)
    assert function(prompts, [one[0]["content"] for one in completions]) == pytest.approx(ours, abs=1e-6), "a string is the assistant's turn"
    assert function.__name__ == "run"
    again = AutoTokenizer.from_pretrained(run)
    stock = AutoModelForSequenceClassification.from_pretrained(run, dtype=torch.float32).eval()
    texts = [again.apply_chat_template(one + two, tokenize=False) for one, two in zip(prompts, completions, strict=True)]
    inputs = again(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        theirs = stock(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    assert theirs.tolist() == pytest.approx(ours, abs=1e-6)
    assert printed_by_card(run, monkeypatch)[0] == pytest.approx(printed_by_card(run, monkeypatch)[1], abs=1e-6)

    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 3
    assert "Answers before and after" not in (run / "report.html").read_text()
    for sample in samples:
        place = 2 * sample["row"]
        assert [sample["chosen_score"], sample["rejected_score"]] == pytest.approx(ours[place : place + 2], abs=1e-6)
    scale = json.loads((run / "config.json").read_text())["finegrain"]["scores"]
    assert scale["answers"] == 2 * command.record("run")["data"]["kept"] - 2 * command.record("run")["pairs"]
    wanted = [(score - scale["mean"]) / scale["std"] for score in ours]
    assert [line["score"]["mean"] for line in scores(command, run, "--normalise")] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    assert finegrain.reward_function(run, normalise=True, device="cpu")(prompts, completions) == pytest.approx(wanted, rel=1e-5, abs=1e-5)

    assert function([prompts[0][0]["content"]], [completions[0][0]["content"]])[0] != pytest.approx(ours[0], abs=1e-6), "plain text has no template"
    with pytest.raises(UsageError, match="as many completions"):
        function(prompts, completions[1:])
    with pytest.raises(UsageError, match="prompt 0: expected a string or a list of messages"):
        function([3], ["x"])


def test_sampled_tokens(command: Command, model: Path) -> None:
    """Only on request, only where they are the text's: a spelling of the same text by other tokens has another score."""
    run = trained(command, model, "head:token", "--samples", "0")
    tokenizer = AutoTokenizer.from_pretrained(run)
    spelled = [tokenizer.convert_tokens_to_ids(letter) for letter in "Ġsky"]
    assert tokenizer.decode(spelled) == " sky"
    assert spelled != tokenizer(" sky", add_special_tokens=False)["input_ids"]
    plain, sampled = (finegrain.reward_function(run, device="cpu", sampled_tokens=on) for on in (False, True))
    asked = {"prompts": ["why ?"] * 2, "completions": [" sky", " mat"], "completion_ids": [[*spelled, tokenizer.eos_token_id], [5, 6, 999999]]}
    text, tokens = plain(**asked), sampled(**asked)
    assert text == plain(asked["prompts"], asked["completions"])
    assert tokens[0] != pytest.approx(text[0], abs=1e-6)
    assert tokens[1] == text[1], "tokens of another tokenizer are not read"
    assert len((run / "samples.jsonl").read_text().splitlines()) == 1, "the row of the card"
    facts = json.loads((run / "reward_head.json").read_text())
    (run / "reward_head.json").write_text(json.dumps({name: value for name, value in facts.items() if name != "scores"}))
    with pytest.raises(UsageError, match="no mean and std"):
        finegrain.reward_function(run, device="cpu", normalise=True)


def test_several_ratings(command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two columns, two regression heads, one score; the stock class, `score` and `eval` say each."""
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": f"why {row} ?", "response": f" good {'people ' * int(rng.integers(1, 5))}", "ratings": {"useful": row % 5, "long": row % 3}}
        for row in range(20)
    ]
    data = tmp_path / "ratings.jsonl"
    write_rows(data, rows)
    choice = ("head:attributes", "loss:attributes", "--head.names", "useful", "long", "--head.weights", "1", "-0.5")
    run = trained(command, model, *choice, "--data", data, "--eval-every", "1", "--keep", "best")
    assert command.record("run")["kept"]["by"] == "eval_rating_error"
    assert "eval_rating_error/useful" in command.record("run")["evaluation"]
    assert {"loss/useful", "loss/long"} <= set(command.lines("run")[-1])
    told = scores(command, run)
    stock = AutoModelForSequenceClassification.from_pretrained(run, dtype=torch.float32).eval()
    assert (stock.config.num_labels, stock.config.problem_type, stock.config.id2label) == (2, "regression", {0: "useful", 1: "long"})
    tokenizer = AutoTokenizer.from_pretrained(run)
    for line in told[:6]:
        with torch.no_grad():
            useful, long = stock(input_ids=torch.tensor([tokenizer(line["prompt"] + line["response"])["input_ids"]])).logits[0].tolist()
        assert line["score"]["attributes"] == pytest.approx({"useful": useful, "long": long}, abs=1e-6)
        assert line["score"]["mean"] == pytest.approx(useful - 0.5 * long, abs=1e-6)
    assert printed_by_card(run, monkeypatch)[0] == pytest.approx(command.record("run")["card"]["finegrain"], abs=1e-6)
    sample = json.loads((run / "samples.jsonl").read_text().splitlines()[0])
    assert set(sample["answer_attributes"]) == {"useful", "long"}
    assert sample["rating/long"] == sample["row"] % 3
    tested = command("eval", "--reward", run, "--data", command.data, "--max-length", "64", "--device", "cpu")
    assert tested.code == 0, tested.error
    assert set(tested.result["attributes"]) == {"useful", "long"}
    assert "useful alone" in tested.error
    unknown = command.prefer("other", *choice, "--head.names", "usefull", "long", "--data", data, command="reward")
    assert unknown.code == 2
    assert "did you mean useful" in unknown.error


FUNCTIONS = """
import numpy as np
import torch

def number(prompts, completions, **columns): return [len(text) for text in completions]
def tensors(prompts, completions, **columns): return [torch.tensor(float(len(text))) for text in completions]
def arrays(prompts, completions, **columns): return [np.ones(3) for text in completions]
def spans(prompts, completions, **columns): return [[(0, 2, 1.0), (2, 4, 0.5)] for text in completions]
def tokens(prompts, completions, **columns): return [[0.5] * int(count) for count in columns["count"]]
def none(prompts, completions, **columns): return [None if "bad" in text else 1.0 for text in completions]
def outside(prompts, completions, **columns): return [[(0, 9999, 1.0)] for text in completions]
"""


@pytest.mark.parametrize(
    ("name", "total"), [("number", None), ("tensors", None), ("arrays", 3.0), ("spans", 1.5), ("tokens", None), ("none", None), ("outside", None)]
)
def test_a_function_is_the_same_in_score_and_eval(name: str, total: float | None, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FUNCTIONS)
    data = tmp_path / "pairs.jsonl"
    lines = [json.loads(line) for line in command.data.read_text().splitlines()[:8]]
    write_rows(data, ({**line, "rejected": line["chosen"] + " .", "count": 3} for line in lines))
    given = ["--reward", f"{file}:{name}", "--data", data]
    scored, tested = command("score", *given, "--out", tmp_path / "s.jsonl"), command("eval", *given, "--out", tmp_path / "e.json")
    if name == "outside":
        assert (scored.code, tested.code) == (2, 2)
        assert "does not lie in an answer" in scored.error
        assert "does not lie in an answer" in tested.error
        return
    assert tested.code == 0, tested.error
    if name in ("arrays", "tokens"):
        assert scored.code == 2
        assert "--model CHECKPOINT says by which tokenizer" in scored.error
    else:
        assert scored.code == 0, scored.error
        ours = [json.loads(line)["score"]["mean"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
        theirs = [score for row in json.loads((tmp_path / "e.json").read_text())["scores"] for score in row["scores"]]
        assert theirs == ours
    if total is not None:
        assert {score for row in json.loads((tmp_path / "e.json").read_text())["scores"] for score in row["scores"]} == {total}
