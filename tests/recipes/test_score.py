"""Scores of tokens: what stands in the file, and what is refused."""

import dataclasses
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import finegrain
from finegrain.commands.eval import EvalSettings
from finegrain.commands.score import ScoreSettings
from finegrain.ops.readout import Last, Mean
from finegrain.ops.segmenters import Tokens
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from tests.recipes.command import Command, Outcome
from tests.recipes.reward_folder import moved, save_reward
from tests.tiny import as_of_others, save_tiny, write_rows


@pytest.fixture
def policy(model: Path, tmp_path: Path) -> Path:
    return moved(model, tmp_path / "policy", 1)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def scored(command: Command, name: str, *arguments: str | Path) -> list[dict[str, Any]]:
    """The lines of a call that must succeed; on the usual pairs unless others are given."""
    out = command.folder / f"scores-{name}.jsonl"
    data = [] if "--data" in arguments else ["--data", command.data]
    done = command("score", *arguments, *data, "--out", out, "--device", "cpu")
    assert done.code == 0, done.error
    assert done.result["responses"] == len(lines_of(out))
    return lines_of(out)


def refused(command: Command, code: int, *arguments: str | Path) -> str:
    """The error of a call that must fail and leave no file."""
    out = command.folder / "refused.jsonl"
    data = [] if "--data" in arguments else ["--data", command.data]
    done: Outcome = command("score", *arguments, *data, "--out", out, "--device", "cpu")
    assert done.code == code, done.error
    assert list(command.folder.glob("refused*")) == []
    return done.error


def test_scores(command: Command, policy: Path, model: Path) -> None:
    """Two lines per pair; token means add up to the score; tokens cover the response in order; the scale is beta."""
    lines = {}
    for beta in ("0.1", "0.2"):
        lines[beta] = scored(command, beta, "--model", policy, "--reference", model, "--beta", beta)
    assert len(lines["0.1"]) == 48
    assert [line["id"] for line in lines["0.1"][:2]] == ["0/chosen", "0/rejected"]
    for line, double in zip(lines["0.1"], lines["0.2"], strict=True):
        assert line["score"] == {"mean": pytest.approx(sum(token[2] for token in line["tokens"]), rel=1e-12), "std": None}
        assert line["score"]["mean"] != 0
        assert double["score"]["mean"] == pytest.approx(2 * line["score"]["mean"], rel=1e-12)
        assert not line["truncated"]
        assert "".join(line["response"][start:end] for start, end, _, _ in line["tokens"]) == line["response"]
        assert line["segments"][-1][1] == len(line["response"])
    again = command("score", "--model", policy, "--reference", model, "--data", command.data, "--out", command.folder / "scores-0.1.jsonl")
    assert again.code == 7
    assert "already exists" in again.error


def test_the_same_model_scores_zero(command: Command, model: Path) -> None:
    out = command.folder / "zero.jsonl"
    done = command("score", "--model", model, "--reference", model, "--data", command.data, "--out", out, "--device", "cpu", "--limit", "2")
    assert done.code == 0, done.error
    assert "the same model" in done.error
    assert {line["score"]["mean"] for line in lines_of(out)} == {0.0}
    assert "the same model" in done.result["warnings"][0]


def test_several_policies_are_members(command: Command, policy: Path, model: Path) -> None:
    """Means and sample standard deviations over the single policies' scores, of tokens and, since sums have their own spread, of answers."""
    third = moved(model, command.folder / "third", 2)
    limit = ("--reference", model, "--limit", "3")
    both = scored(command, "both", "--model", policy, third, *limit)
    one, two = (scored(command, source.name, "--model", source, *limit) for source in (policy, third))
    for line, a, b in zip(both, one, two, strict=True):
        pairs = [(line["score"].values(), a["score"]["mean"], b["score"]["mean"])]
        pairs += [(token[2:], x[2], y[2]) for token, x, y in zip(line["tokens"], a["tokens"], b["tokens"], strict=True)]
        for (mean, std), x, y in pairs:
            assert mean == pytest.approx((x + y) / 2, rel=1e-9, abs=1e-12)
            assert std == pytest.approx(abs(x - y) / 2**0.5, rel=1e-9, abs=1e-12)


def test_the_segmenter_is_chosen_on_the_command_line(command: Command, policy: Path, model: Path) -> None:
    asked = ("--model", policy, "--reference", model, "--limit", "2")
    tokens = scored(command, "tokens", *asked, "segmenter:tokens")
    windows = scored(command, "windows", *asked, "segmenter:windows", "--segmenter.size", "3")
    config = command.folder / "config.yaml"
    config.write_text("segmenter: {choice: windows, size: 2}\n")
    configured = scored(command, "configured", *asked, "--config", config)
    for line, triple, double in zip(tokens, windows, configured, strict=True):
        assert [[start, end, mean] for start, end, mean, _ in line["tokens"]] == line["segments"]
        assert len(triple["segments"]) == -(-len(line["tokens"]) // 3)
        assert len(double["segments"]) == -(-len(line["tokens"]) // 2)
    assert "tokens" in refused(command, 2, *asked, "segmenter:tokenz")
    assert "unknown selector 'segmentor'" in refused(command, 2, "segmentor:tokens", *asked)
    assert "takes no objective" in refused(command, 2, *asked, "objective:dpo")


def test_rows_have_names(command: Command, policy: Path, model: Path) -> None:
    """The data's own names, in order, a number where one row has several examples of a role; without names the rows' numbers."""
    data = write_rows(command.folder / "named.jsonl", [{"prompt": f"why {n} ?", "completion": "so", "key": f"k{n}"} for n in (3, 1)])
    asked = ("--model", policy, "--reference", model, "--data", data)
    assert [line["id"] for line in scored(command, "named", *asked, "--id", "key")] == ["k3/answer", "k1/answer"]
    assert [line["id"] for line in scored(command, "numbered", *asked)] == ["0/answer", "1/answer"]
    assert "--id nokey: expected text or a number in every row" in refused(command, 3, *asked, "--id", "nokey")


UNICODE = "naïve 猫 said 👍🏽, good — людям ہے"


def test_offsets_of_any_text(command: Command, policy: Path, model: Path) -> None:
    """Every token's characters are where the offsets say, whatever the script: the file gives the tokenizer's own cut back."""
    data = write_rows(command.folder / "unicode.jsonl", [{"prompt": "кто ?", "chosen": UNICODE, "rejected": " plain"}])
    line = scored(command, "unicode", "--model", policy, "--reference", model, "--data", data)[0]
    assert line["response"] == UNICODE
    tokenizer = AutoTokenizer.from_pretrained(model)
    want = tokenizer(UNICODE, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert [(start, end) for start, end, _, _ in line["tokens"]] == [*want, (len(UNICODE), len(UNICODE))]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def test_conversations(command: Command, policy: Path, model: Path) -> None:
    """Only the assistant's words are scored; of several turns each at its place in the text."""
    rows = [{"messages": turns("why ?", "because cats", "and dogs ?", "dogs too")}]
    line = scored(command, "turns", "--model", policy, "--reference", model, "--data", write_rows(command.folder / "turns.jsonl", rows))[0]
    said = "".join(line["response"][start:end] for start, end, _, _ in line["tokens"])
    assert said == "because catsdogs too"
    assert "and dogs ?" in line["response"]
    assert line["score"]["mean"] == pytest.approx(sum(token[2] for token in line["tokens"]), rel=1e-12)


def test_float64_is_not_rounded(command: Command, policy: Path, model: Path) -> None:
    """The log-ratio in double precision is stock code's to 1e-12, also when it comes from the cache."""
    asked = ("--model", policy, "--reference", model, "--limit", "1", "--dtype", "float64", "--beta", "1")
    first, cached = scored(command, "first", *asked)[0], scored(command, "cached", *asked)[0]
    assert first == cached
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompt = [tokenizer.bos_token_id, *tokenizer(first["prompt"], add_special_tokens=False)["input_ids"]]
    answer = [*tokenizer(first["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    totals = []
    for folder in (policy, model):
        lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        with torch.no_grad():
            logp = lm(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        totals.append(logp.gather(1, torch.tensor(answer)[:, None])[:, 0])
    want = (totals[0] - totals[1]).tolist()
    assert [token[2] for token in first["tokens"]] == pytest.approx(want, rel=0, abs=1e-12)
    assert any(value != float(torch.tensor(value).float()) for value in want)


def test_a_cut_counts_even_where_it_takes_the_end_token_alone(command: Command, policy: Path, model: Path) -> None:
    data = write_rows(command.folder / "one.jsonl", [{"prompt": "the cat", "completion": " sat on the mat"}])
    asked = ("--model", policy, "--reference", model, "--data", data)
    whole = scored(command, "whole", *asked)[0]
    tokenizer = AutoTokenizer.from_pretrained(model)
    length = 1 + len(tokenizer("the cat", add_special_tokens=False)["input_ids"]) + len(whole["tokens"])
    lines = [scored(command, f"n{n}", *asked, "--max-length", str(n))[0] for n in range(2, length)]
    assert [line["truncated"] for line in lines] == [len(line["tokens"]) < len(whole["tokens"]) for line in lines]
    only = [line for line in lines if line["truncated"]]
    longest = max(only, key=lambda line: len(line["tokens"]))
    assert len(longest["tokens"]) == len(whole["tokens"]) - 1
    assert longest["tokens"][-1][1] == len(longest["response"]), "every character is there, the end token is not"


def test_other_tokens_are_refused(command: Command, policy: Path, model: Path) -> None:
    other = save_tiny(command.folder / "other")
    settings = json.loads((other / "tokenizer.json").read_text())
    vocabulary = settings["model"]["vocab"]
    vocabulary["x"], vocabulary["y"] = vocabulary["y"], vocabulary["x"]
    (other / "tokenizer.json").write_text(json.dumps(settings))
    assert "another tokenizer" in refused(command, 4, "--model", policy, "--reference", other)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "m", "--reference", "r", "--beta", "0"], "beta must be a finite number above 0, got 0.0 (a setting of ScoreSettings)"),
        ([], "nothing to score with"),
        (["--model", "a", "b"], "need --reference"),
        (["--reward", "rm"], "file.py:name"),
        (["--reward", "f.py:g", "--reference", "r"], "takes no --reference"),
        (["--model", "m", "--reference", "r", "signal:attention"], "applies to reward models only"),
    ],
)
def test_contradictions(command: Command, arguments: list[str], words: str) -> None:
    assert words in refused(command, 2, *arguments)


# --- reward models ---


def test_a_policy_is_no_reward_model(command: Command, model: Path) -> None:
    error = refused(command, 4, "--model", model)
    assert "not a reward model" in error
    assert "--reference" in error


def stock_scores(folder: Path, line: dict[str, Any]) -> torch.Tensor:
    """(T,): what stock code says at each token of the answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = [tokenizer.bos_token_id, *tokenizer(line["prompt"], add_special_tokens=False)["input_ids"]]
    answer = [*tokenizer(line["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    stock = AutoModelForTokenClassification if "Token" in (folder / "config.json").read_text() else AutoModelForSequenceClassification
    with torch.no_grad():
        lm = stock.from_pretrained(folder)
        if stock is AutoModelForTokenClassification:
            return lm(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 :, 0]
        states = lm.model(torch.tensor([prompt + answer])).last_hidden_state[0]
        return lm.score(states)[len(prompt) - 1 :, 0]


HEADS = [("sequence", Sequence()), ("token", Token()), ("gaussian", Gaussian()), ("ensemble", Ensemble(members=3))]


@pytest.mark.parametrize(("method", "head"), HEADS)
def test_reward_models(command: Command, model: Path, method: str, head: Any) -> None:
    """Token scores are stock code's; the answer's is the readout's; the std is there where the head knows it."""
    folder = save_reward(model, command.folder / method, method, head)
    for line in scored(command, "lines", "--model", folder, "--limit", "3"):
        want = stock_scores(folder, line)[1:]
        assert [token[2] for token in line["tokens"]] == pytest.approx(want.tolist(), abs=1e-5)
        total = want[-1] if isinstance(head.readout, Last) else want.sum()
        assert line["score"]["mean"] == pytest.approx(float(total), abs=1e-5)
        known = method in ("gaussian", "ensemble")
        assert (line["score"]["std"] is not None) == known
        assert all((token[3] is not None) == known for token in line["tokens"])
        if known:
            assert line["score"]["std"] == pytest.approx(line["tokens"][-1][3], abs=1e-5), "read at the last token"


@pytest.mark.parametrize(("method", "head"), [("sequence", Sequence()), ("ensemble", Ensemble(members=3))])
def test_prefix_differences(command: Command, model: Path, method: str, head: Any) -> None:
    """Each token's is the difference of stock scores; they sum to the score less the prompt's, which stays the head's own."""
    folder = save_reward(model, command.folder / method, method, head)
    data = write_rows(command.folder / "rows.jsonl", [{"prompt": "why ?", "completion": " so it is"}, {"prompt": "and", "completion": "the cat sat"}])
    lines = scored(command, "d", "--model", folder, "--data", data, "signal:prefix-difference", "segmenter:tokens")
    for line in lines:
        values = stock_scores(folder, line)
        assert [token[2] for token in line["tokens"]] == pytest.approx((values[1:] - values[:-1]).tolist(), abs=1e-5)
        assert line["score"]["mean"] == pytest.approx(float(values[-1]), abs=1e-5)
        assert (line["tokens"][0][3] is not None) == (method == "ensemble")
    zero = scored(command, "z", "--model", folder, "--data", data, "signal:prefix-difference", "signal.first:from-zero")
    for line in zero:
        assert sum(token[2] for token in line["tokens"]) == pytest.approx(line["score"]["mean"], abs=1e-5)


def test_a_prompt_of_one_token(command: Command, model: Path) -> None:
    """Text without a prompt begins after BOS: the head is read there."""
    folder = save_reward(model, command.folder / "rm", "sequence", Sequence())
    data = write_rows(command.folder / "rows.jsonl", [{"text": "the cat sat on"}, {"text": "good people"}])
    for line in scored(command, "d", "--model", folder, "--data", data, "signal:prefix-difference"):
        values = stock_scores(folder, line)
        assert [token[2] for token in line["tokens"]] == pytest.approx((values[1:] - values[:-1]).tolist(), abs=1e-5)


def test_attention_shares(command: Command, model: Path) -> None:
    """Shares of the last layer's attention row, of stock eager attention; all of them sum to the score."""
    folder = save_reward(model, command.folder / "rm", "sequence", Sequence())
    lines = scored(command, "a", "--model", folder, "--limit", "2", "signal:attention", "--signal.share", "1")
    stock = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for line in lines:
        prompt = [tokenizer.bos_token_id, *tokenizer(line["prompt"], add_special_tokens=False)["input_ids"]]
        answer = [*tokenizer(line["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            row = stock.model(torch.tensor([prompt + answer]), output_attentions=True).attentions[-1][0, :, -1, len(prompt) :].mean(0)
        want = row / row.sum() * line["score"]["mean"]
        assert [token[2] for token in line["tokens"]] == pytest.approx(want.tolist(), abs=1e-5)
    mixed = scored(command, "m", "--model", folder, "--limit", "2", "signal:attention")
    for line in mixed:
        assert sum(token[2] for token in line["tokens"]) == pytest.approx(line["score"]["mean"], abs=1e-5)
        assert line["tokens"][-1][2] / line["score"]["mean"] > 0.2, "a fifth stays at the end"


def test_equal_shares(command: Command, model: Path) -> None:
    """The head's score, in equal parts on the answer's tokens; of members too; with a share the rest stands at the end."""
    folder = save_reward(model, command.folder / "rm", "ensemble", Ensemble(members=3))
    plain = scored(command, "p", "--model", folder, "--limit", "2")
    lines = scored(command, "u", "--model", folder, "--limit", "2", "signal:uniform", "segmenter:tokens")
    for line, head in zip(lines, plain, strict=True):
        count, score = len(line["tokens"]), line["score"]
        assert (score["mean"], score["std"]) == (head["score"]["mean"], head["score"]["std"])
        assert [token[2] for token in line["tokens"]] == pytest.approx([score["mean"] / count] * count, rel=1e-5)
        assert [token[3] for token in line["tokens"]] == pytest.approx([score["std"] / count] * count, rel=1e-5)
    for line in scored(command, "s", "--model", folder, "--limit", "2", "signal:uniform", "--signal.share", "0.5"):
        count, mean = len(line["tokens"]), line["score"]["mean"]
        assert line["tokens"][0][2] == pytest.approx(0.5 * mean / count, rel=1e-5)
        assert line["tokens"][-1][2] == pytest.approx(0.5 * mean / count + 0.5 * mean, rel=1e-5)
    token = save_reward(model, command.folder / "token", "token", Token(readout=Mean()))
    assert "take signal:head" in refused(command, 2, "--model", token, "signal:uniform")


def test_gradient_times_input(command: Command, model: Path) -> None:
    """Of the stock class's score, by a backward pass to its embeddings; for a head of all tokens too."""
    folder = save_reward(model, command.folder / "rm", "sequence", Sequence())
    stock = AutoModelForSequenceClassification.from_pretrained(folder).double()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for line in scored(command, "g", "--model", folder, "--limit", "2", "signal:saliency"):
        prompt = [tokenizer.bos_token_id, *tokenizer(line["prompt"], add_special_tokens=False)["input_ids"]]
        answer = [*tokenizer(line["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        embedded = stock.get_input_embeddings()(torch.tensor([prompt + answer])).detach().requires_grad_()
        score = stock.score(stock.model(inputs_embeds=embedded).last_hidden_state[0, -1])
        (slope,) = torch.autograd.grad(score.sum(), embedded)
        want = (slope * embedded).sum(-1)[0, len(prompt) :]
        assert [token[2] for token in line["tokens"]] == pytest.approx(want.tolist(), abs=1e-6)
        assert score.item() == pytest.approx(line["score"]["mean"], abs=1e-5)
    folder = save_reward(model, command.folder / "token", "token", Token(readout=Mean()))
    (line, *_) = scored(command, "t", "--model", folder, "--limit", "1", "signal:saliency")
    assert all(token[2] != 0 for token in line["tokens"])


def test_spreading_needs_a_head_of_the_last_token(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "rm", "token", Token(readout=Mean()))
    assert "take signal:head" in refused(command, 2, "--model", folder, "signal:attention")


def test_a_stock_model_of_others_without_a_pad_token(command: Command, model: Path) -> None:
    """One label, no reward_head.json, a tokenizer that has no pad token: scored all the same, row by row the stock way."""
    folder = save_reward(model, command.folder / "rm", "sequence", Sequence())
    as_of_others(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            facts = json.loads((folder / name).read_text())
            facts.pop("pad_token", None)
            (folder / name).write_text(json.dumps(facts))
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    for line in scored(command, "lines", "--model", folder, "--limit", "2"):
        assert line["score"]["mean"] == pytest.approx(float(stock_scores(folder, line)[-1]), abs=1e-5)


def test_a_head_that_no_version_knows(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "rm", "sequence", Sequence())
    (folder / "reward_head.json").write_text(json.dumps({"head": {"method": "oracle"}}))
    error = refused(command, 4, "--model", folder)
    assert "oracle" in error


def test_a_head_without_opinion_and_one_without_numbers(command: Command, model: Path) -> None:
    flat = save_reward(model, command.folder / "flat", "sequence", Sequence(), scale=0.0)
    done = command("score", "--model", flat, "--data", command.data, "--out", command.folder / "flat.jsonl", "--device", "cpu")
    assert done.code == 0
    assert done.result["warnings"] != []
    broken = save_reward(model, command.folder / "broken", "sequence", Sequence(), scale=1e38)
    assert "row 0, chosen: a score is NaN" in refused(command, 6, "--model", broken)
    damaged = save_reward(model, command.folder / "damaged", "sequence", Sequence(), scale=float("nan"))
    assert "contain NaN" in refused(command, 4, "--model", damaged)


# --- functions of the user's own ---


FUNCTIONS = """
calls = []

def length(prompts, completions, **columns):
    calls.append(columns)
    return [float(len(text)) for text in completions]

def good(prompts, completions, key, **columns):
    return [None if "bad" in text else [(text.index("good"), text.index("good") + 4, 2.0)] for text in completions]

def each(prompts, completions, **columns):
    return [[float(n) for n, _ in enumerate(text.split())] for text in completions]

def short(prompts, completions, **columns):
    return [1.0]

def broken(prompts, completions, **columns):
    raise KeyError("x")

def nan(prompts, completions, **columns):
    return [float("nan")] * len(completions)

def words(prompts, completions, **columns):
    return ["good"] * len(completions)

def turns(prompts, completions, **columns):
    return [float(len(prompt)) + len(completion[0]["content"]) for prompt, completion in zip(prompts, completions)]
"""


@pytest.fixture
def mine(command: Command) -> Path:
    file = command.folder / "mine.py"
    file.write_text(FUNCTIONS)
    return file


def test_a_function_of_ones_own(command: Command, mine: Path, model: Path) -> None:
    """A number per answer; None is counted; spans are segments, and with a tokenizer tokens; columns arrive as lists."""
    rows = [{"prompt": "why ?", "chosen": "so good it is", "rejected": "a bad thing", "key": "a"}]
    data = write_rows(command.folder / "rows.jsonl", rows)
    lines = scored(command, "length", "--reward", f"{mine}:length", "--data", data)
    assert [line["score"]["mean"] for line in lines] == [13.0, 11.0]
    assert lines[0]["tokens"] == lines[0]["segments"] == []
    lines = scored(command, "good", "--reward", f"{mine}:good", "--data", data)
    assert [line["score"]["mean"] for line in lines] == [2.0, None]
    assert lines[0]["segments"] == [[3, 7, 2.0]]
    tokens = scored(command, "tokens", "--reward", f"{mine}:good", "--model", model, "--data", data)[0]
    assert tokens["score"]["mean"] == 2.0
    assert {token[2] for token in tokens["tokens"] if 2 <= token[0] and token[1] <= 7} == {2.0}
    assert sum(token[2] for token in tokens["tokens"] if token[0] >= 7) == 0.0


def test_rewards_per_token(command: Command, mine: Path, model: Path) -> None:
    """A list is one number per token of --model's tokenizer; its sum is the answer's score."""
    data = write_rows(command.folder / "rows.jsonl", [{"prompt": "why ?", "completion": "the cat sat"}])
    assert len(AutoTokenizer.from_pretrained(model)("the cat sat", add_special_tokens=False)["input_ids"]) == 3
    line = scored(command, "each", "--reward", f"{mine}:each", "--model", model, "--data", data)[0]
    assert [token[2] for token in line["tokens"]] == [0.0, 1.0, 2.0, 2.0], "the end token has the last one's"
    assert line["score"]["mean"] == 3.0
    assert "--model CHECKPOINT" in refused(command, 2, "--reward", f"{mine}:each", "--data", data)
    other = write_rows(command.folder / "other.jsonl", [{"prompt": "why ?", "completion": "xylophonist"}])
    assert "rewards for an answer of" in refused(command, 2, "--reward", f"{mine}:each", "--model", model, "--data", other)


def test_conversations_reach_a_function_as_messages(command: Command, mine: Path) -> None:
    data = write_rows(command.folder / "rows.jsonl", [{"prompt": turns("why ?"), "completion": turns("x", "because")[1:]}])
    line = scored(command, "turns", "--reward", f"{mine}:turns", "--data", data)[0]
    assert line["score"]["mean"] == 1 + len("because")
    assert line["prompt"] == "why ?"


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("short", 2, "one item per completion"),
        ("broken", 2, "KeyError"),
        ("nan", 6, "a score is nan"),
        ("words", 2, "expected a number"),
        ("absent", 2, "no function 'absent'"),
    ],
)
def test_what_a_function_may_not_do(command: Command, mine: Path, name: str, code: int, words: str) -> None:
    assert words in refused(command, code, "--reward", f"{mine}:{name}")


def test_from_python(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "rm", "gaussian", Gaussian())
    found = finegrain.score(command.data, command.folder / "out.jsonl", model=folder, segmenter=Tokens(), limit=2, device="cpu")
    assert found["responses"] == 4
    assert len(lines_of(command.folder / "out.jsonl")) == 4
    shutil.rmtree(folder)


@pytest.mark.parametrize(("function", "settings"), [(finegrain.score, ScoreSettings), (finegrain.evaluate_reward, EvalSettings)])
def test_python_and_command_line_take_the_same(function: Any, settings: type) -> None:
    """Arguments are the settings' fields; an argument that is None by default stands for the field's own default."""
    arguments = inspect.signature(function).parameters
    fields = {field.name: field for field in dataclasses.fields(settings)}
    assert set(arguments) == set(fields)
    for name, field in fields.items():
        if field.default is not dataclasses.MISSING:
            assert arguments[name].default == field.default, name
        elif field.default_factory is not dataclasses.MISSING:
            assert arguments[name].default is None, name
