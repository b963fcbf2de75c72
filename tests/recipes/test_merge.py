"""`finegrain merge` as a whole (recipes/merge.py, recipes/merging/): what it writes, what it refuses, and what an interruption leaves."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import finegrain
from finegrain.models import lora_weights
from finegrain.models import merge as merging
from finegrain.recipes import merge as job
from finegrain.weights.expo import Expo
from tests.models.related import reshard, same_weights, save_family, stored
from tests.models.test_lora_weights import save_adapter
from tests.recipes.command import Command


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two fine-tunes, bfloat16."""
    return save_family(tmp_path_factory.mktemp("family"), dtype=torch.bfloat16)


METHODS: dict[str, Callable[[list[Path]], list[str | Path]]] = {
    "soup": lambda family: ["--model", *family[1:], "method:soup", "--method.weights", "1", "3"],
    "expo": lambda family: ["--model", family[1], "--base", family[0], "method:expo", "--method.alpha", "0.3"],
    "slerp": lambda family: ["--model", *family[1:], "method:slerp", "--method.t", "0.4"],
    "task-arithmetic": lambda family: ["--model", *family[1:], "--base", family[0], "method:task-arithmetic", "--method.scale", "0.5"],
}
WEIGHTS = {"soup": [0.25, 0.75], "expo": [1.3, -0.3], "slerp": [None, None], "task-arithmetic": [0.5, 0.5, 0.0]}


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_model(method: str, command: Command, family: list[Path]) -> None:
    """Stock transformers loads it; record and card name sources, hashes and weights."""
    out = command.folder / "out"
    done = command("merge", *METHODS[method](family), "--out", out)
    assert done.code == 0, done.error
    assert done.result["method"]["name"] == method
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(family[0]).get_vocab()
    assert model.generate(**tokenizer("why is the sky", return_tensors="pt"), max_new_tokens=3, do_sample=False).shape[1] > 3
    record, card = json.loads((out / "run.json").read_text()), (out / "README.md").read_text()
    assert (record["command"], record["status"]) == ("merge", "finished")
    weights = [one.get("weight") for one in record["sources"]]
    assert weights == (WEIGHTS[method] if None in WEIGHTS[method] else pytest.approx(WEIGHTS[method]))
    for one in record["sources"]:
        assert len(one["sha256"]) == len(one["tokenizer_sha256"]) == 64
        assert one["sha256"] in card
    assert len({one["sha256"] for one in record["sources"]}) == len(record["sources"])
    assert [one["role"] for one in record["sources"]][-1] == ("base" if method in ("expo", "task-arithmetic") else "model")
    assert f"`{method}`" in card
    assert record["merged"]["weights_changed"] > 0.5
    assert not list(command.folder.glob(".*part"))


def test_a_model_with_itself_and_alpha_0(command: Command, family: list[Path]) -> None:
    base, tuned, _ = family
    for name, arguments in {
        "soup": ["--model", tuned, tuned, "--method.weights", "0.3", "0.7"],
        "slerp": ["--model", tuned, tuned, "method:slerp"],
        "expo": ["--model", tuned, "--base", base, "method:expo", "--method.alpha", "0"],
        "itself": ["--model", tuned, "--base", tuned, "method:expo", "--method.alpha", "3"],
    }.items():
        done = command("merge", *arguments, "--out", command.folder / name)
        assert done.code == 0, done.error
        assert same_weights(command.folder / name, tuned)
        assert "| -0 |" not in (command.folder / name / "README.md").read_text()
        assert done.result["weights_changed"] == 0
        config = json.loads((command.folder / name / "config.json").read_text())
        assert config == json.loads((tuned / "config.json").read_text())


def test_shards(command: Command, family: list[Path]) -> None:
    """Of the sources and of the result; the model is the same."""
    base, tuned, _ = family
    many = reshard(tuned, command.folder / "many")
    expo = ["--base", base, "method:expo"]
    assert command("merge", "--model", tuned, *expo, "--out", command.folder / "one").code == 0
    done = command("merge", "--model", many, *expo, "--out", command.folder / "two", "--shard-size", "0.00001")
    assert done.code == 0, done.error
    assert done.result["files"] > 2
    assert same_weights(command.folder / "one", command.folder / "two")
    logits = [AutoModelForCausalLM.from_pretrained(command.folder / name)(torch.tensor([[5, 6, 7]])).logits for name in ("one", "two")]
    assert torch.equal(*logits)


def test_dtype_and_python(command: Command, family: list[Path]) -> None:
    """The same from Python, in float32: in the file, in the config, and as transformers loads it."""
    result = finegrain.merge([str(family[1])], command.folder / "out", base=family[0], method=Expo(alpha=0.3), save_dtype="float32")
    assert result["method"] == {"name": "expo", "alpha": 0.3}
    assert {one.dtype for one in stored(command.folder / "out").values()} == {torch.float32}
    assert AutoModelForCausalLM.from_pretrained(command.folder / "out").dtype == torch.float32
    done = command("merge", *METHODS["expo"](family), "--out", command.folder / "two", "--save-dtype", "float32")
    assert done.code == 0
    assert same_weights(command.folder / "out", command.folder / "two")


def test_adapters(command: Command, family: list[Path]) -> None:
    """An adapter against its base, and two adapters; tokenizer and config are the base's."""
    base = family[0]
    first, second = (save_adapter(base, command.folder / f"adapter-{seed}", seed, target_modules=["q_proj"]) for seed in (1, 2))
    assert command("merge", "--model", first, "--base", base, "method:expo", "--out", command.folder / "expo").code == 0
    done = command("merge", "--model", first, second, "--out", command.folder / "soup")
    assert done.code == 0, done.error
    for name in ("expo", "soup"):
        assert AutoModelForCausalLM.from_pretrained(command.folder / name).dtype == torch.bfloat16
    assert {one["adapter_of"] for one in command.record("soup")["sources"]} == {str(base)}


def test_again(command: Command, family: list[Path]) -> None:
    """The record makes the same bytes once more, and tells that a source is another one."""
    changed = command.folder / "changed"
    shutil.copytree(family[1], changed)
    assert command("merge", "--model", changed, family[2], "--out", command.folder / "one").code == 0
    assert command("again", command.folder / "one" / "run.json", "--out", command.folder / "two").code == 0
    assert (command.folder / "one/model.safetensors").read_bytes() == (command.folder / "two/model.safetensors").read_bytes()
    shutil.copy(family[0] / "model.safetensors", changed)
    done = command("again", command.folder / "one" / "run.json", "--out", command.folder / "three")
    assert done.code == 0
    assert "changed has other weights than then" in done.error
    assert len(command.record("three")["changed"]) == 1


def _other_config(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def _other_vocabulary(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    facts = json.loads(text)
    words = facts["model"]["vocab"]
    one, other = list(words)[-1], list(words)[-2]
    words[one], words[other] = words[other], words[one]
    (folder / "tokenizer.json").write_text(json.dumps(facts))


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "rope": (lambda folder: _other_config(folder, rope_parameters={"rope_type": "default", "rope_theta": 5e5}), "configs of .* differ: .*rope_theta"),
    "architecture": (
        lambda folder: _other_config(folder, model_type="mistral", architectures=["MistralForCausalLM"]),
        "a mistral and .* a llama; merging needs one architecture",
    ),
    "vocabulary": (_other_vocabulary, "different vocabularies \\(2 tokens differ"),
    "no tokenizer": (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "cannot read a tokenizer"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_sources_that_do_not_fit(fault: str, command: Command, family: list[Path]) -> None:
    spoil, words = SPOILT[fault]
    other = command.folder / "other"
    shutil.copytree(family[2], other)
    spoil(other)
    done = command("merge", "--model", family[1], other, "--out", command.folder / "out")
    assert done.code == 4, done.error
    assert re.search(words, " ".join(done.error.split())), done.error
    assert not (command.folder / "out").exists()


def test_adapters_of_different_bases(command: Command, family: list[Path]) -> None:
    adapters = [save_adapter(base, command.folder / f"of-{base.name}", 1, target_modules=["q_proj"]) for base in family[:2]]
    done = command("merge", "--model", *adapters, "--out", command.folder / "out")
    assert done.code == 4
    assert "have different bases" in done.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "a"], "at least two models"),
        (["--model", "a", "method:expo"], "needs --base"),
        (["--model", "a", "b", "--method.weights", "1"], "1 weights for 2 models"),
        (["--model", "a", "b", "--alphas", "0.5"], "--alphas: a search needs held-out rows"),
        (["--model", "a", "b", "--alphas", "1.5", "--data", "d"], "in [0, 1], got 1.5"),
        (["--model", "a", "b", "c", "--data", "d"], "this soup has 3"),
        (["--model", "a", "b", "--data", "d", "--score-with", "column:x"], "knows only the answers of the data"),
        (["--model", "a", "b", "--data", "d", "--score-reference", "x"], "--score-reference: read with --score-with"),
        (["--model", "a", "b", "--score-beta", "0.2", "--score-reference", "c"], "--score-reference and --score-beta: a search needs held-out rows"),
        (["--model", "a", "b", "--max-new-tokens", "9", "--limit", "3"], "--limit and --max-new-tokens: a search needs held-out rows"),
        (["--model", "a", "b", "--max-length", "9", "--gate.empty", "keep"], "--max-length and --gate: a search needs held-out rows"),
        (["--model", "a", "b", "--device", "cpu", "--dtype", "bfloat16"], "the merged weights have the number format of --save-dtype"),
        (["--model", "a", "b", "--data", "d", "--max-new-tokens", "9"], "--max-new-tokens: read with --score-with"),
        (["--model", "a", "b", "--data", "d", "--score-with", "c", "--score-beta", "2"], "--score-beta: read with --score-reference"),
        (["--model", "a", "b", "--data", "d", "--method.weights", "1", "2"], "--method.weights is what a search with --data varies; give --alphas"),
        (["--model", "a", "--base", "b", "--data", "d", "method:expo", "--method.alpha", "0.7"], "--method.alpha is what a search"),
        (["--model", "a", "b", "--data", "d", "method:slerp", "--method.t", "0.7"], "--method.t is what a search"),
        (["--model", "a", "--base", "b", "--data", "d", "method:task-arithmetic", "--method.scale", "0.7"], "--method.scale is what a search"),
        (["--model", "a", "b", "--method.weights", "1e308", "1e308"], "the sum of the weights of a soup is not finite"),
        (["--model", "a", "b", "--shard-size", "0"], "shard_size must be"),
    ],
)
def test_settings_that_do_not_fit(arguments: list[str], words: str, command: Command) -> None:
    done = command("merge", *arguments, "--out", command.folder / "out")
    assert done.code == 2, done.error
    assert words in " ".join(done.error.split())


def test_an_existing_folder_is_not_touched(command: Command, family: list[Path]) -> None:
    (command.folder / "out").mkdir()
    (command.folder / "out" / "mine.txt").write_text("mine")
    done = command("merge", "--model", *family[1:], "--out", command.folder / "out")
    assert done.code == 7
    assert "already exists" in done.error
    assert [file.name for file in (command.folder / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, OSError("No space left on device")], ids=["Ctrl-C", "full disk"])
@pytest.mark.parametrize("place", [(merging, "save_file"), (job, "write_merge_card")], ids=["second shard", "card"])
def test_an_interrupted_merge_leaves_nothing(
    place: tuple[Any, str], stopped_by: Any, command: Command, family: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = place
    real, calls = getattr(module, name), []

    def stopped(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) > 1 or name != "save_file":
            raise stopped_by
        real(*arguments, **named)

    monkeypatch.setattr(module, name, stopped)
    done = command("merge", "--model", *family[1:], "--out", command.folder / "out", "--shard-size", "0.00001")
    assert done.code in (7, 130), done.error
    assert calls
    assert list(command.folder.glob("*out*")) + list(command.folder.glob(".*out*")) == []


def test_what_a_killed_process_leaves_does_not_load(command: Command, family: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """After every file that is written: the folder under its name is absent, and the hidden one is no model before its last file."""
    seen: list[int] = []

    def look() -> None:
        part = command.folder / ".out.finegrain-part"
        assert not (command.folder / "out").exists()
        if part.exists():
            with pytest.raises((OSError, ValueError)):
                AutoModelForCausalLM.from_pretrained(part)
            seen.append(1)

    with monkeypatch.context() as patch:
        for module, name in ((merging, "save_file"), (job, "replace_file")):
            real = getattr(module, name)

            def watched(*arguments: Any, real: Any = real, **named: Any) -> None:
                look()
                real(*arguments, **named)

            patch.setattr(module, name, watched)
        done = command("merge", "--model", *family[1:], "--out", command.folder / "out", "--shard-size", "0.00001")
    assert done.code == 0, done.error
    assert len(seen) > 4
    shutil.copytree(command.folder / "out", command.folder / ".next.finegrain-part")  # of a process that was killed before
    assert command("merge", "--model", *family[1:], "--out", command.folder / "next").code == 0
    assert not list((command.folder / "next").glob("model-*"))


def test_a_model_of_another_start_is_told(command: Command, family: list[Path]) -> None:
    """Where run.json beside the model says that it was trained from other weights than --base."""
    tuned = command.folder / "tuned"
    shutil.copytree(family[1], tuned)
    (tuned / "run.json").write_text(json.dumps({"command": "prefer", "model": {"source": "sft", "sha256": "a" * 64}}))
    done = command("merge", "--model", tuned, "--base", family[0], "method:expo", "--out", command.folder / "out")
    assert done.code == 0, done.error
    assert "was trained from sft with other weights than" in done.error
    assert command.record("out")["sources"][0]["began_from"] == "a" * 64


def test_names_in_the_card_are_harmless(command: Command, family: list[Path]) -> None:
    folder = command.folder / "a|b <script> `x` [y](z)"
    shutil.copytree(family[1], folder)
    assert command("merge", "--model", folder, family[2], "--out", command.folder / "out").code == 0
    table = (command.folder / "out" / "README.md").read_text().partition("## Settings")[0]
    assert "<script>" not in table
    assert "](z)" not in table
    assert "a_b" in table


def test_names_from_the_hub_stay_whole(command: Command, family: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """In record and card, of a checkpoint and of an adapter; of a folder the card has the last part."""
    adapter = save_adapter(family[0], command.folder / "3f9c", 1, target_modules=["q_proj"])
    copies = {"owner/adapter": str(adapter), "owner/tuned": str(family[1])}
    monkeypatch.setattr(lora_weights, "fetch_all_files", lambda source, mark: copies.get(source, source))
    assert command("merge", "--model", "owner/adapter", "owner/tuned", family[2], "--out", command.folder / "out").code == 0
    assert [one["source"] for one in command.record("out")["sources"]] == ["owner/adapter", "owner/tuned", str(family[2])]
    assert '- "owner/adapter"\n- "owner/tuned"\n- "tuned-2"\n' in (command.folder / "out" / "README.md").read_text()
