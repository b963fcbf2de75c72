"""`finegrain prefer` from argv to a checkpoint: every objective, every credit, and what the run directory says of them."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finegrain import catalog
from finegrain.train.read_contract import contract_of
from tests.recipes.command import Command
from tests.recipes.reward_folder import moved
from tests.recipes.test_pro import ranked_rows
from tests.tiny import save_tiny, write_pairs, write_rows


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def differ(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return any(not torch.equal(left[name], right[name]) for name in left)


def test_a_whole_run(command: Command, tmp_path: Path) -> None:
    done = command.prefer("run", "objective:dpo", "credit:asr", "--samples", "2", "--epochs", "2", "--lr", "1e-3", "--holdout", "0.25")
    assert done.code == 0, done.error
    assert done.result["status"] == "finished"
    assert done.result["out"] == str(tmp_path / "run")
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} >= {"run.json", "metrics.jsonl", "samples.jsonl", "model.safetensors", "config.json", "README.md"}
    assert not list(run.glob("*.part"))
    record = command.record("run")
    assert record["settings"]["objective"]["method"] == "dpo"
    assert record["settings"]["credit"]["method"] == "asr"
    assert record["settings"]["common"]["lr"] == 1e-3
    assert {"finegrain", "torch", "transformers", "python"} <= record["versions"].keys()
    sha = record["data"]["sha256"]
    assert hashlib.sha256(command.data.read_bytes()).hexdigest() in json.dumps(sha)
    assert record["pairs"] == 18
    assert record["steps"] == 10 == done.result["steps"]
    assert record["tokens"] == sum(line["num_tokens"] for line in command.lines("run"))
    assert 0 < record["train_seconds"] < 60
    assert record["peak_rss_bytes"] > 2**26
    assert record["engine"]["path"] == "fused"
    assert record["beside_training"]["rows"] > 18, "the reference and the scorer count"
    assert record["token_table"]["seconds"] >= 0
    margin = record["evaluation"]["eval_margin"]
    assert margin["low"] < margin["mean"] < margin["high"]
    assert margin["rows"] == 6
    names = {"loss", "learning_rate", "grad_norm", "epoch", "num_tokens", "credit/kept_chosen", "credit/kept_rejected"}
    names |= {f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")} | {"logps/chosen", "logps/rejected"}
    for line in command.lines("run"):
        assert names <= line.keys()
    for side in ("chosen", "rejected"):
        kept = [line[f"credit/kept_{side}"] for line in command.lines("run")]
        assert 0.05 < sum(kept) / len(kept) < 0.95
    assert command.lines("run")[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert command.lines("run")[-1]["rewards/margins"] > 0.1
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2
    assert samples[0].keys() == {"prompt", "before", "after"}
    loaded = AutoModelForCausalLM.from_pretrained(run)
    start = AutoModelForCausalLM.from_pretrained(command.model)
    ids = AutoTokenizer.from_pretrained(run)("why is the sky", return_tensors="pt").input_ids
    assert torch.isfinite(loaded(ids).logits).all()
    assert not torch.equal(loaded(ids).logits, start(ids).logits)
    assert "finegrain again" in (run / "README.md").read_text()
    assert command.prefer("plain", "objective:dpo", "--epochs", "2", "--lr", "1e-3", "--holdout", "0.25").code == 0
    assert differ(run, tmp_path / "plain"), "credit changes the result"
    assert "credit/kept_chosen" not in command.lines("plain")[0]


def test_again_is_the_same_run(command: Command, tmp_path: Path) -> None:
    first = command.prefer("one", "objective:kto", "--objective.desirable-weight", "1.3", "--seed", "3", "--lr", "1e-3", "--max-steps", "4")
    assert first.code == 0, first.error
    again = command("again", tmp_path / "one" / "run.json", "--out", tmp_path / "two")
    assert again.code == 0, again.error
    assert command.lines("one") == command.lines("two")
    assert not differ(tmp_path / "one", tmp_path / "two")
    one, two = command.record("one"), command.record("two")
    for record in (one, two):
        for name in ("date", "train_seconds", "peak_rss_bytes", "beside_training"):
            record.pop(name)
        for name in ("step_seconds", "tokens_per_second"):
            record["last"].pop(name)
        record["settings"].pop("out")
    assert one == two
    other = command("again", tmp_path / "one", "--out", tmp_path / "three", "--seed", "4")
    assert other.code == 0, other.error
    assert command.record("three")["settings"]["common"]["seed"] == 4
    assert command.lines("three") != command.lines("one")


def test_the_reference_is_computed_once(command: Command) -> None:
    """Learning rate, output folder and objective recompute nothing; the truncation does."""

    def computed(run: str, *arguments: str) -> int:
        done = command.prefer(run, "--max-steps", "6", *arguments)
        assert done.code == 0, done.error
        rows: int = command.record(run)["beside_training"]["rows"]
        return rows

    assert computed("first", "objective:dpo") == 24
    assert computed("rate", "objective:dpo", "--lr", "1e-3") == 0
    assert computed("loss", "objective:ipo") == 0
    assert computed("short", "objective:dpo", "--max-length", "12") == 24


def test_unpaired_objective_with_held_out_rows_of_one_prompt(command: Command) -> None:
    """Held-out rows need no mismatched answers."""
    done = command.prefer("run", "objective:kto", "--limit", "12", "--max-steps", "2")
    assert done.code == 0, done.error
    assert done.result["evaluation"]["eval_rewards/chosen"] is not None


CREDITED = {"token-distillation": ["credit:token-reward"], "figa": ["objective.rows:pairs"], "bfpo": ["objective.unflagged:assume-safe"]}


LIKE_DPO = frozenset(
    "aot-unpaired apo-down apo-zero bco conservative discopop dpop exo f-dpo hinge ipo ipo-averaged mapo nca r-dpo robust rrhf "
    "sigmoid-norm slic sppo tdpo1".split()
)
"""Losses of the same inputs as another one that is run."""
REWARDED = frozenset({"alol", "gold", "r-lol", "wbc"})
"""Those that read a reward of each answer; they and pro have tests of their own."""
OBJECTIVES = [pytest.param(name, marks=pytest.mark.slow) if name in LIKE_DPO | REWARDED | {"pro"} else name for name in catalog.names("objective")]


def asked_of(command: Command, name: str) -> list[str | Path]:
    """What an objective needs beside pairs."""
    if name == "pro":
        return ["--data", ranked_rows(command.folder)]
    if name == "selm":
        rows = [json.loads(line) for line in command.data.read_text().splitlines()]
        return ["--data", write_rows(command.folder / "explored.jsonl", [{**row, "generated": row["rejected"]} for row in rows])]
    if name not in REWARDED:
        return list(CREDITED.get(name, []))
    judge = command.folder / "judge.py"
    judge.write_text("def letters(prompts, completions, **columns):\n    return [sum(map(ord, text)) % 11 / 10 for text in completions]\n")
    return ["--objective.reward", f"{judge}:letters", *(["--objective.value.targets.max-new-tokens", "2"] if name == "alol" else [])]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_from_the_command_line(command: Command, name: str) -> None:
    done = command.prefer("run", f"objective:{name}", *asked_of(command, name), "--max-steps", "2", "--micro-tokens", "90", "--limit", "16")
    assert done.code == 0, done.error
    assert [line["step"] for line in command.lines("run")] == [1, 2]
    record = command.record("run")
    assert record["settings"]["objective"]["method"] == name
    assert name != "dpo" or record["learning_rate"] == pytest.approx(1e-6 * 4096 / 32), "the objective's own"
    assert "kept" not in record, "it was evaluated at its end only"
    assert differ(command.model, command.folder / "run")
    found = record["evaluation"]
    for number, shown in found.items():
        assert shown["reason"] if shown["low"] is None else shown["low"] <= shown["mean"] <= shown["high"], number
    needs = contract_of(catalog.load("objective", name)()).needs
    compared = needs & {"reference", "reward"} and name not in REWARDED
    judged = {"eval_margin"} if compared else {"eval_margin_per_token"} if "eval_accuracy" in found else set()
    assert {"eval_margin", "eval_margin_per_token"} & set(found) == judged
    assert name not in ("cpo", "orpo", "simpo", "slic", "ava-p", "reference-free") or judged == {"eval_margin_per_token"}
    rewards = {"eval_reward_std", "eval_reward_spread"} | ({"eval_reward_accuracy", "eval_reward_margin"} if name == "ava-p" else set())
    assert {number for number in found if number.startswith("eval_reward_")} == (rewards if name.startswith("ava") else set())


def write_credited(file: Path, source: Path, **columns: Any) -> Path:
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    write_rows(file, ({**row, **{name: make(row) for name, make in columns.items()}} for row in rows))
    return file


def spans_of(word: str, value: float, role: str) -> Any:
    return lambda row: [[row[role].index(word), row[role].index(word) + len(word), value]]


@pytest.mark.parametrize("credit", ["asr", pytest.param("confidence", marks=pytest.mark.slow), pytest.param("token-reward", marks=pytest.mark.slow)])
def test_credit_from_the_runs_own_scorer(command: Command, credit: str) -> None:
    objective = "token-distillation" if credit == "token-reward" else "dpo"
    done = command.prefer("run", f"objective:{objective}", f"credit:{credit}", "--max-steps", "2")
    assert done.code == 0, done.error
    table = command.record("run")["token_table"]
    assert table["accuracy"]["low"] < table["accuracy"]["mean"] <= table["accuracy"]["high"]
    assert table["accuracy"]["rows"] == command.record("run")["pairs"]
    assert f"puts {table['accuracy']['mean']:.0%} (" in done.error
    assert command.record("run")["credit"]


def test_credit_from_spans(command: Command, tmp_path: Path) -> None:
    data = write_credited(tmp_path / "spans.jsonl", command.data, rejected_spans=spans_of("bad words", -1.0, "rejected"))
    done = command.prefer("run", "--data", data, "objective:dpo", "credit:asr", "credit.signal:spans", "--max-steps", "2")
    assert done.code == 0, done.error
    line = command.lines("run")[0]
    assert 0.05 < line["credit/kept_rejected"] < 0.95
    assert "credit/kept_chosen" not in line, "no chosen answer is annotated: all of them train unmasked"
    assert command.record("run")["data"]["annotated"] == {"chosen": 0, "rejected": 24}
    assert "token_table" not in command.record("run")


def test_credit_from_a_column(command: Command, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(command.model)
    rewards = lambda role: lambda row: [(-1.0) ** index for index in range(len(tokenizer(row[role], add_special_tokens=False).input_ids) + 1)]
    data = write_credited(tmp_path / "rewards.jsonl", command.data, chosen_token_reward=rewards("chosen"), rejected_token_reward=rewards("rejected"))
    done = command.prefer("run", "--data", data, "objective:simpo", "credit:asr", "credit.segmenter:tokens", "--max-steps", "2")
    assert done.code == 0, done.error
    assert command.lines("run")[0]["credit/kept_chosen"] == pytest.approx(0.5, abs=0.1)


def test_credit_from_a_scorer(command: Command) -> None:
    moved(command.model, command.folder / "scorer", 1)
    done = command.prefer("run", "objective:dpo", "credit:asr", "--credit.scorer", command.folder / "scorer", "--max-steps", "2")
    assert done.code == 0, done.error
    assert "token_table" not in command.record("run")
    assert 0.05 < command.lines("run")[0]["credit/kept_chosen"] < 0.95


def test_credit_from_a_function(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def words(prompt, response, role, row):\n"
        "    word = 'good' if role == 'chosen' else 'bad'\n"
        "    start = response.index(word)\n"
        "    return [(start, start + len(word), 1.0)]\n"
    )
    path = f"{tmp_path / 'mine.py'}:words"
    done = command.prefer("run", "objective:dpo", "credit:function", "--credit.path", path, "--credit.outside", "0.25", "--max-steps", "2")
    assert done.code == 0, done.error
    assert 0.25 < command.lines("run")[0]["credit/kept_chosen"] < 0.7
    failing = command.prefer("broken", "objective:dpo", "credit:function", "--credit.path", path.replace(":words", ":wrods"))
    assert failing.code == 2
    assert "has no function 'wrods'" in failing.error


def test_dry_run_writes_nothing(command: Command) -> None:
    done = command.prefer("run", "objective:dpo", "--dry-run")
    assert done.code == 0, done.error
    assert done.result["status"] == "dry run"
    assert done.result["steps"] == 6
    assert done.result["rows"] == 22
    assert done.result["estimated_seconds"] >= 0
    assert not (command.folder / "run").exists()


def test_tensorboard(command: Command) -> None:
    pytest.importorskip("tensorboard")
    done = command.prefer("run", "--track", "tensorboard", "--max-steps", "3")
    assert done.code == 0, done.error
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = sorted({file.parent for file in (command.folder / "run").rglob("events.out.tfevents*")})
    found = EventAccumulator(str(folders[0]))
    found.Reload()
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3]
    assert [event.value for event in found.Scalars("loss")] == pytest.approx([line["loss"] for line in command.lines("run")])


def test_an_unknown_tracker(command: Command) -> None:
    done = command.prefer("run", "--track", "tensorbord", "--max-steps", "1")
    assert done.code == 2
    assert "tensorbord" in done.error


def test_config_file_and_flags(command: Command, tmp_path: Path) -> None:
    """YAML, a part of the settings; flags win, and its selectors give way to those of the command line."""
    file = tmp_path / "settings.yaml"
    settings = {
        "model": str(command.model),
        "data": str(command.data),
        "objective": {"method": "ipo", "beta": 0.3},
        "credit": {"method": "asr", "segmenter": {"choice": "tokens"}, "min_kept": 0.01},
        "common": {"max_steps": 2, "lr": 1.0e-4},
        "optim": {"schedule": "cosine"},
    }
    file.write_text(yaml.safe_dump(settings))
    done = command.prefer("run", "--config", file, "--lr", "1e-3")
    assert done.code == 0, done.error
    got = command.record("run")["settings"]
    assert got["objective"] == {"method": "ipo", "beta": 0.3}
    assert got["credit"]["segmenter"]["choice"] == "tokens"
    assert got["credit"]["min_kept"] == 0.01
    assert got["common"]["lr"] == 1e-3
    assert got["common"]["max_steps"] == 2
    assert got["optim"]["schedule"] == "cosine"
    other = command.prefer("other", "--config", file, "objective:dpo", "--objective.beta", "0.7")
    assert other.code == 0, other.error
    assert command.record("other")["settings"]["objective"] == {"method": "dpo", "beta": 0.7}


def test_resume_flag(command: Command) -> None:
    """A run that ended early goes on to the same end; without the flag an existing run is left alone."""
    base = ["objective:dpo", "--lr", "1e-3", "--save-every", "2"]
    assert command.prefer("part", *base).code == 0
    part = command.folder / "part"
    shutil.copytree(part, command.folder / "whole")
    assert (part / "checkpoint-4").is_dir()
    (part / "model.safetensors").unlink()
    refused = command.prefer("part", *base)
    assert refused.code == 7
    assert "--resume" in refused.error
    assert not (part / "model.safetensors").exists()
    assert command.prefer("part", *base, "--resume").code == 0
    assert not differ(command.folder / "whole", part)
    assert command.lines("whole") == command.lines("part")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dtype", "bfloat16"],
        pytest.param(["--dtype", "float64"], marks=pytest.mark.slow),
        pytest.param(["--gradient-checkpointing"], marks=pytest.mark.slow),
    ],
)
def test_lora(command: Command, arguments: list[str]) -> None:
    from peft import AutoPeftModelForCausalLM

    done = command.prefer("run", "objective:dpo", "credit:asr", "--max-steps", "3", "--lora.rank", "2", *arguments)
    assert done.code == 0, done.error
    run = command.folder / "run"
    assert (run / "adapter_model.safetensors").exists()
    assert not (run / "model.safetensors").exists()
    model = AutoPeftModelForCausalLM.from_pretrained(run)
    assert any(parameter.abs().max() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)
    assert command.record("run")["learning_rate"] == pytest.approx(1e-6 * 4096 / 32 * 10)
    on = command.prefer("on", "--model", run, "--max-steps", "2")
    assert on.code == 0, on.error
    assert command.lines("on")[0]["rewards/margins"] == pytest.approx(0, abs=1e-5), "the reference is base and adapter"


FEW = ("--max-steps", "3", "--lr", "1e-3")


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_arithmetic(command: Command, dtype: str) -> None:
    command.ready("float32", *FEW)
    done = command.prefer("run", *FEW, "--dtype", dtype)
    assert done.code == 0, done.error
    assert command.record("run")["settings"]["common"]["dtype"] == dtype
    assert weights(command.folder / "run")["model.norm.weight"].dtype == torch.float32, "saved as the checkpoint came"
    near = [abs(one["logps/chosen"] - other["logps/chosen"]) for one, other in zip(command.lines("float32"), command.lines("run"), strict=True)]
    assert 0 < max(near) < (1.0 if dtype == "bfloat16" else 1e-3)


def test_gradient_checkpointing_changes_nothing(command: Command) -> None:
    command.ready("plain", *FEW)
    assert command.prefer("less", *FEW, "--gradient-checkpointing").code == 0
    assert not differ(command.folder / "plain", command.folder / "less")


def test_conversations(command: Command, tmp_path: Path) -> None:
    """Explicit and implicit prompts; a template that marks the assistant's turns."""
    model = save_tiny(tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}<bos>{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}{% if add_generation_prompt %}<bos>assistant: {% endif %}"
    )
    tokenizer.save_pretrained(model)
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    turn = lambda role, text: {"role": role, "content": text}
    explicit = [{"prompt": [turn("user", r["prompt"])], **{s: [turn("assistant", r[s])] for s in ("chosen", "rejected")}} for r in rows]
    implicit = [{s: [turn("user", r["prompt"]), turn("assistant", r[s])] for s in ("chosen", "rejected")} for r in rows]
    for name, found in (("explicit", explicit), ("implicit", implicit)):
        write_rows(tmp_path / f"{name}.jsonl", found)
        done = command.prefer(name, "--model", model, "--data", tmp_path / f"{name}.jsonl", "--max-steps", "2")
        assert done.code == 0, done.error
    assert command.lines("explicit") == command.lines("implicit")
    assert AutoTokenizer.from_pretrained(tmp_path / "explicit").chat_template == tokenizer.chat_template


def test_evaluation_file(command: Command, tmp_path: Path) -> None:
    held = write_pairs(tmp_path / "held.jsonl", 7, seed=9)
    done = command.prefer("run", "--eval", held, "--lr", "1e-3", "--epochs", "3")
    assert done.code == 0, done.error
    evaluation = done.result["evaluation"]
    assert evaluation["eval_margin"]["rows"] == 7
    assert evaluation["eval_margin"]["low"] > 0
    assert command.record("run")["pairs"] == 24
    assert {"eval_loss", "eval_rewards/margins", "eval_rewards/accuracies"} <= evaluation.keys()
    assert command.record("run")["eval_data"]["rows"] == 7
    none = command.prefer("none", "--holdout", "0", "--max-steps", "1", "objective:kto")
    assert none.code == 0, none.error
    assert none.result["evaluation"] == {}


def test_from_python_with_a_model_object(command: Command, tmp_path: Path) -> None:
    """A callable as objective, a model in memory whose weights no file has: the reference is that model."""
    from finegrain.commands.settings import Common, Training
    from finegrain.ops.sequence import log_ratio
    from finegrain.recipes.prefer import prefer
    from finegrain.types import Pair

    model, tokenizer = AutoModelForCausalLM.from_pretrained(command.model), AutoTokenizer.from_pretrained(command.model)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(3.0)

    def square(pair: Pair) -> torch.Tensor:
        return (log_ratio(pair.chosen) - log_ratio(pair.rejected) - 1).square()

    common = Common(max_steps=2, device="cpu", lr=1e-3)
    training = Training(batch_size=4, samples=0)
    result = prefer(model, command.data, tmp_path / "run", objective=square, tokenizer=tokenizer, common=common, training=training)
    assert result["status"] == "finished"
    assert command.lines("run")[0]["loss"] == pytest.approx(1.0, abs=1e-5), "log-ratios start at 0"
