"""What goes wrong is said in words, under its own exit code, and leaves nothing half-written. Test of cli.py, recipes/session.py."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoTokenizer

from finegrain.objectives.dpo import DPO
from finegrain.recipes.training import watchers
from finegrain.train import checkpoint
from finegrain.types import Pair
from tests.recipes.command import Command, made_once
from tests.tiny import save_tiny, write_rows


def refused(command: Command, code: int, *words: str, arguments: list[str | Path]) -> None:
    """A short run ends with this code, says these words in one go, and leaves no run directory."""
    done = command.prefer("run", *arguments)
    assert done.code == code, done.error
    assert "Traceback" not in done.error
    for word in words:
        assert word in done.error
    assert done.result == {}
    assert not list((command.folder / "run").glob("*")), "nothing was written"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["objective:dop"], ["unknown objective 'dop'", "dpo"]),
        (["credit:ars"], ["unknown credit 'ars'", "asr"]),
        (["objectiv:dpo"], ["unknown selector 'objectiv'", "objective"]),
        (["objective:dpo", "credit:asr", "credit.segmenter:dynamc"], ["dynamc", "dynamic"]),
        (["objective:dpo", "credit:asr", "credit.segmentor:dynamic"], ["segmentor", "segmenter"]),
        (["objective:dpo", "credit.segmenter:dynamic"], ["name the credit first"]),
        (["objective:dpo", "credit:asr", "credit.min-kept:half"], ["--credit.min-kept"]),
        (["objective:dpo", "--objective.bta", "1"], ["objective.bta", "--objective.beta"]),
        (["--max-stepz", "1"], ["max-stepz", "--max-steps"]),
        (["--batch-size", "many"], ["many"]),
        (["--dtype", "float31"], ["float31", "float32"]),
        (["objective:conservative", "--objective.label-smoothing", "0.7"], ["0.7"]),
        (["objective:token-distillation"], ["credit:token-reward"]),
        (["objective:token-distillation", "credit:asr"], ["keep-mask", "Fitting: credit:token-reward"]),
        (["objective:token-distillation", "credit:confidence"], ["probability that a token deserves the label", "Fitting: credit:token-reward"]),
        (["objective:token-distillation", "credit:function"], ["multiplier", "Fitting: credit:token-reward"]),
        (["objective:dpo", "credit:token-reward"], ["certainty", "credit:asr, credit:confidence, credit:function"]),
        (["--holdout", "1.5"], ["[0, 1)", "1.5"]),
        (["--lora.rank", "2", "--lora.targets", "q_prj"], ["q_prj"]),
        (["--patience", "2"], ["--patience", "--eval-every"]),
        (["--keep", "best"], ["--keep best", "--eval-every"]),
        (["--keep-by", "eval_loss"], ["--keep-by", "--eval-every"]),
        (["--eval-every", "2", "--keep-by", "eval_loss"], ["--keep-by eval_loss", "--keep best"]),
        (["--eval-every", "2", "--holdout", "0"], ["--eval-every", "--holdout 0"]),
        (["--eval-every", "-1"], ["eval_every", "-1"]),
        (["--eval-every", "2", "--keep", "best", "--keep-by", "accuracy"], ["'accuracy'", "eval_accuracy"]),
        (["--eval-every", "2", "--keep", "best", "--keep-by", "eval_margin_per_token"], ["eval_margin_per_token", "eval_margin"]),
        (["objective:cpo", "--eval-every", "2", "--patience", "1", "--keep-by", "eval_margin"], ["eval_margin_per_token"]),
        (["objective:token-distillation", "credit:token-reward", "--eval-every", "2", "--keep", "best", "--keep-by", "eval_loss"], ["eval_loss"]),
        (["--eval-every", "2", "--shard"], ["--shard", "--eval-every"]),
        (["--shard"], ["--shard", "torchrun"]),
        (["--shard", "--save-every", "2"], ["--shard", "--save-every"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["credit:function", "--credit.path", "nowhere.py:f"], ["nowhere.py"]),
    ],
)
def test_unknown_names_and_settings(command: Command, arguments: list[str], words: list[str]) -> None:
    done = command.prefer("run", *arguments)
    assert done.code == 2, done.error
    assert "Traceback" not in done.error
    for word in words:
        assert word in done.error
    assert not (command.folder / "run" / "metrics.jsonl").exists()


def test_a_config_file_with_unknown_names(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    for text, words in (
        ("objectve: {method: dpo}", ["objectve", "objective"]),
        ("objective: {method: dpp}", ["dpp", "dpo"]),
        ("objective: {method: dpo, bta: 1}", ["bta", "beta"]),
        ("common: {max_stepz: 1}", ["max_stepz", "max_steps"]),
        ("[1, 2", ["cannot read"]),
        ("just words", ["no settings"]),
    ):
        file.write_text(text)
        done = command("prefer", "--config", file, "--model", command.model, "--data", command.data, "--out", tmp_path / "run", "--max-steps", "1")
        assert done.code == 2, (text, done.error)
        for word in words:
            assert word in done.error
    assert command("prefer", "--config", tmp_path / "none.yaml").code == 2
    assert not (tmp_path / "run").exists()


def other_task(kind: str, folder: Path) -> Path:
    """A checkpoint of a model that is no causal language model, with a tokenizer."""
    size = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    save_tiny(folder)
    (folder / "model.safetensors").unlink()
    if kind == "masked":
        model: Any = transformers.BertForMaskedLM(transformers.BertConfig(**size))
    elif kind == "classifier":
        model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**size, num_key_value_heads=1))
    else:
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "word"), [("masked", "BertForMaskedLM"), ("classifier", "LlamaForSequenceClassification"), ("seq2seq", "T5")])
def test_a_model_that_is_no_causal_lm(command: Command, tmp_path: Path, kind: str, word: str) -> None:
    refused(command, 4, word, "causal language model", arguments=["--model", other_task(kind, tmp_path / kind)])


def test_a_headless_model(command: Command, tmp_path: Path) -> None:
    """Weights of a classifier under the config of a language model: the missing head is named, not made up."""
    folder = other_task("classifier", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}))
    refused(command, 4, "lm_head.weight", arguments=["--model", folder])


def empty_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def pickled(folder: Path) -> Path:
    save_tiny(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def half_a_model(folder: Path) -> Path:
    save_tiny(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    return folder


def no_tokenizer(folder: Path) -> Path:
    save_tiny(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    return folder


def other_tokenizer(folder: Path) -> Path:
    """More tokens than the model has embeddings."""
    save_tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra{i}>" for i in range(200)])
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder, ["no model at"]),
        (empty_folder, ["no config.json"]),
        (pickled, ["pickled", "safetensors"]),
        (half_a_model, ["model.safetensors", "damaged or incomplete"]),
        (no_tokenizer, ["tokenizer"]),
        (other_tokenizer, ["the model's own tokenizer"]),
    ],
)
def test_models_that_cannot_be_used(command: Command, tmp_path: Path, make: Callable[[Path], Path], words: list[str]) -> None:
    refused(command, 4, *words, arguments=["--model", make(tmp_path / "model")])


def rows(command: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command.data.read_text().splitlines()]


def test_data_that_cannot_be_used(command: Command, tmp_path: Path) -> None:
    good = rows(command)
    lacking = write_rows(tmp_path / "lacking.jsonl", [*good[:3], {"prompt": "a", "chosen": "b"}])
    foreign = write_rows(tmp_path / "foreign.jsonl", [{"question": "a", "reply": "b"}])
    same = write_rows(tmp_path / "same.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 3)
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a", ')
    refused(command, 3, "no file", arguments=["--data", tmp_path / "none.jsonl"])
    refused(command, 3, "rejected", "lacking.jsonl", arguments=["--data", lacking])
    refused(command, 3, "question", "nearest known form", arguments=["--data", foreign])
    refused(command, 3, "identical", arguments=["--data", same])
    refused(command, 3, "broken.jsonl", arguments=["--data", tmp_path / "broken.jsonl"])


def test_empty_and_identical_answers_are_counted_and_named(command: Command, tmp_path: Path) -> None:
    good = rows(command)
    bad = [{"prompt": "a", "chosen": "  ", "rejected": "b"}, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    done = command.prefer("run", "--data", write_rows(tmp_path / "mixed.jsonl", [*good[:5], bad[0], *good[5:], bad[1], bad[1]]), "--max-steps", "1")
    assert done.code == 0, done.error
    report = command.record("run")["data"]
    assert report["dropped"] == {"empty": 1, "identical": 2}
    assert report["kept"] == 24
    assert report["rows"] == 27
    assert "5" in json.dumps(report["findings"]), "the row's number"
    assert "identical" in done.error


def test_a_credit_that_keeps_nothing_stops_before_training(command: Command, tmp_path: Path) -> None:
    """Every token of every rejected answer is praised, so no token of it may be discouraged."""
    praised = [{**row, "rejected_spans": [[0, len(row["rejected"]), 1.0]]} for row in rows(command)]
    done = command.prefer("run", "--data", write_rows(tmp_path / "praised.jsonl", praised), "objective:dpo", "credit:asr", "credit.signal:spans")
    assert done.code == 5, done.error
    assert "rejected" in done.error
    assert "min_kept" in done.error
    assert not (command.folder / "run" / "metrics.jsonl").exists()


BASE = ["objective:dpo", "--lr", "1e-3", "--save-every", "2"]


@pytest.fixture(scope="module")
def whole(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    return made_once(tmp_path_factory.mktemp("whole"), "prefer", *BASE, "--model", model, "--data", data)


def same_end(command: Command, whole: Path, run: str) -> None:
    """The run's weights and metrics are those of an uninterrupted one."""
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, command.folder / run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    shutil.copytree(whole, command.folder / "whole")
    assert command.lines("whole") == command.lines(run)


@pytest.mark.parametrize("how", ["the writer fails", "files may not grow"])
def test_a_full_disk_while_checkpointing(command: Command, whole: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The earlier checkpoint survives whatever the disk says, and the run resumes from it."""
    honest = checkpoint.save_file

    def full_at_four(tensors: dict[str, torch.Tensor], file: Path, **more: Any) -> None:
        if file.parent.name != "checkpoint-4.part":
            honest(tensors, file, **more)
            return
        if how == "the writer fails":
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            honest(tensors, file, **more)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(checkpoint, "save_file", full_at_four)
    done = command.prefer("run", *BASE)
    assert done.code == 7, done.error
    assert "checkpoint-2 survives" in done.error
    assert "--resume" in done.error
    run = command.folder / "run"
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-2"]
    if how == "files may not grow":
        return
    monkeypatch.undo()
    monkeypatch.setenv("FINEGRAIN_CACHE", str(command.folder / "cache"))
    assert command.prefer("run", *BASE, "--resume").code == 0
    same_end(command, whole, "run")


def test_a_run_directory_that_cannot_be_made(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command.prefer("file/run", *BASE)
    assert done.code == 7
    assert "cannot create" in done.error


def test_ctrl_c_saves_and_resumes(command: Command, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = watchers._facts

    def interrupting(line: dict[str, Any]) -> str:
        if line["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return honest(line)

    monkeypatch.setattr(watchers, "_facts", interrupting)
    done = command.prefer("run", *BASE)
    assert done.code == 130
    assert "stopped after step 3 of 6" in done.error
    assert "--resume" in done.error
    assert (command.folder / "run" / "checkpoint-3").is_dir()
    assert command.record("run")["status"] == "interrupted"
    monkeypatch.setattr(watchers, "_facts", honest)
    assert command.prefer("run", *BASE, "--resume").code == 0
    assert command.record("run")["status"] == "finished"
    same_end(command, whole, "run")


def test_ctrl_c_before_training(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from finegrain.recipes.training import align as alignment

    def interrupt(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(alignment, "prepare_scorer", interrupt)
    done = command.prefer("run", *BASE)
    assert done.code == 130
    assert "stopped" in done.error


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_rows(command: Command, monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    """One answer's loss breaks in step 2; its row and tokens are in a file, and step 1 is on disk."""
    honest = DPO.__call__
    token = AutoTokenizer.from_pretrained(command.model)(" bad words", add_special_tokens=False).input_ids
    assert token
    broken: dict[str, int] = {}

    def breaks(self: DPO, pair: Pair) -> torch.Tensor:
        loss = honest(self, pair)
        if bool((pair.chosen.logp != 0).any()):
            broken["passes"] = broken.get("passes", 0) + 1
        return loss + torch.where(pair.columns["position"] == 2, bad, 0.0) if broken.get("passes") == 2 else loss

    monkeypatch.setattr(DPO, "__call__", breaks)
    done = command.prefer("run", "objective:dpo", "--lr", "1e-3", "--save-every", "1", "--examined", "0")
    assert done.code == 6, done.error
    run = command.folder / "run"
    saved = json.loads((run / "nonfinite.json").read_text())
    assert saved["step"] == 2
    assert saved["what"] == "loss"
    assert len(saved["rows"]) == 1
    assert f"rows {saved['rows']}" in done.error
    (row,) = saved["token_ids"]
    assert row["row"] == saved["rows"][0]
    text = AutoTokenizer.from_pretrained(command.model).decode(row["chosen"], skip_special_tokens=True)
    assert text == rows(command)[row["row"]]["chosen"]
    assert [line["step"] for line in command.lines("run")] == [1]
    assert (run / "checkpoint-1").is_dir()
    assert not (run / "model.safetensors").exists()


def test_a_gradient_that_is_not_finite(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqrt of 0: the loss is finite, its slope is not; no weight is touched."""
    monkeypatch.setattr(DPO, "__call__", lambda self, pair: torch.where(pair.chosen.mask, pair.chosen.logp - pair.chosen.logp, 0.0).sum(-1).sqrt())
    done = command.prefer("run", "objective:dpo")
    assert done.code == 6, done.error
    assert "gradient of step 1" in done.error
    assert len(json.loads((command.folder / "run" / "nonfinite.json").read_text())["rows"]) == 4


def test_an_existing_run_is_left_alone(command: Command) -> None:
    assert command.prefer("run", "--max-steps", "1").code == 0
    before = {file.name: file.read_bytes() for file in (command.folder / "run").iterdir()}
    again = command.prefer("run", "--max-steps", "2")
    assert again.code == 7
    assert "already holds a run" in again.error
    assert {file.name: file.read_bytes() for file in (command.folder / "run").iterdir()} == before


def test_resume_with_other_settings_or_data(command: Command, tmp_path: Path) -> None:
    """The numbers of two settings never end up in one run; what does not change numbers may change."""
    data = write_rows(tmp_path / "pairs.jsonl", rows(command))
    assert command.prefer("run", "--data", data, *BASE).code == 0
    before = (command.folder / "run" / "run.json").read_bytes()
    other = command.prefer("run", "--data", data, *BASE, "--resume", "--optim.beta1", "0.8", "objective:ipo")
    assert other.code == 7
    assert "optim.beta1 was 0.9 and is 0.8" in other.error
    assert "objective.method was dpo and is ipo" in other.error
    assert command.prefer("run", "--data", data, *BASE, "--resume", "--save-every", "3").code == 0
    write_rows(data, rows(command)[1:])
    moved = command.prefer("run", "--data", data, *BASE, "--resume")
    assert moved.code == 7
    assert "other data" in moved.error
    assert json.loads(before)["settings"]["objective"] == command.record("run")["settings"]["objective"]


def test_a_scorer_with_another_tokenizer(command: Command, tmp_path: Path) -> None:
    scorer = save_tiny(tmp_path / "scorer")
    tokenizer = AutoTokenizer.from_pretrained(scorer)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(scorer)
    model = transformers.AutoModelForCausalLM.from_pretrained(scorer)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(scorer)
    done = command.prefer("run", "credit:asr", "--credit.scorer", scorer)
    assert done.code == 5, done.error
    assert "another tokenizer" in done.error
