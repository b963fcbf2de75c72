"""One number for an answer wherever a reward model is loaded: `finegrain score`, transformers, pooling by hand, our function, its card."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import finegrain
from finegrain.ops.readout import Last, Mean, Minimum, Sum
from tests.recipes.command import Command
from tests.tiny import save_tiny

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
        ("half", ("head:sequence",), AutoModelForSequenceClassification, "last"),
        ("half", ("head:token",), AutoModelForTokenClassification, "sum"),
        ("half", ("head:ensemble", "head.readout:mean"), AutoModelForTokenClassification, "mean"),
        ("half", ("head:gaussian", "--lora.rank", "2"), AutoModelForSequenceClassification, "last"),
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
