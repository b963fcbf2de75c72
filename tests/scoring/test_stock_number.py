"""Adapters through the commands: with a score head they are reward models, with whole modules they are saved as they were trained."""

import json
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finegrain.scoring import reward_model as reward_judge
from tests.models.test_adapters import adapter
from tests.recipes.command import Command, Outcome

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@pytest.fixture(scope="module")
def scored(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What TRL's reward trainer writes with LoRA."""
    folder = tmp_path_factory.mktemp("adapter")
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["score"], task_type="SEQ_CLS", init_lora_weights=False)
    adapter(model, folder, config, auto=AutoModelForSequenceClassification)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def score(command: Command, model: Path) -> Outcome:
    (command.folder / "scores.jsonl").unlink(missing_ok=True)
    return command("score", "--model", model, "--data", command.data, "--out", command.folder / "scores.jsonl", "--device", "cpu", "--limit", "3")


def stock_numbers(model: AutoModelForSequenceClassification, tokenizer: Path, file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the file, and the stock class's own of the same texts."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    read = AutoTokenizer.from_pretrained(tokenizer)
    found = []
    for line in lines:
        ids = [read.bos_token_id, *read(line["prompt"]).input_ids, *read(line["response"]).input_ids, read.eos_token_id]
        with torch.no_grad():
            found.append(float(model.eval()(input_ids=torch.tensor([ids])).logits[0, 0]))
    return torch.tensor([line["score"]["mean"] for line in lines]), torch.tensor(found)


def test_an_adapter_with_a_score_head_in_every_command(command: Command, scored: Path, model: Path) -> None:
    done = score(command, scored)
    assert done.code == 0, done.error
    stock = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, pad_token_id=0)
    ours, theirs = stock_numbers(PeftModel.from_pretrained(stock, scored), scored, command.folder / "scores.jsonl")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    for refuses in ("prefer", "sft"):
        done = command.prefer("run", "--model", scored, command=refuses)
        assert done.code == 4
        assert "SEQ_CLS" in done.error
        assert "not of a causal language model" in done.error
    done = command.prefer("run", "--model", scored, "head:sequence", "--max-steps", "1", "--lr", "1e-12", command="reward")
    assert done.code == 0, done.error
    assert command.record("run")["start_head"] == "trained"
    assert score(command, command.folder / "run").code == 0
    after, _ = stock_numbers(stock, scored, command.folder / "scores.jsonl")
    torch.testing.assert_close(after, ours, rtol=0, atol=1e-4)


def test_an_adapter_with_whole_modules_becomes_a_reward_model(command: Command, model: Path) -> None:
    """Once, all training was done before it failed to be saved."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM", init_lora_weights=False)
    adapter(model, command.folder / "adapter", config)
    done = command.prefer("run", "--model", command.folder / "adapter", "head:sequence", "--max-steps", "1", command="reward")
    assert done.code == 0, done.error
    assert score(command, command.folder / "run").code == 0
    stock = AutoModelForSequenceClassification.from_pretrained(command.folder / "run")
    ours, theirs = stock_numbers(stock, model, command.folder / "scores.jsonl")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_what_could_not_be_saved_is_refused_before_the_first_step(command: Command, model: Path) -> None:
    adapter(model, command.folder / "adapter", peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"))
    done = command.prefer("run", "--model", command.folder / "adapter", "head:sequence", command="reward")
    assert done.code == 4
    assert "cannot be merged" in done.error
    assert not (command.folder / "run").exists()


def test_a_stock_class_that_makes_its_score_in_another_way_is_refused(
    command: Command, scored: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its padding token is its end token, it reads the token before; that one is read here too."""
    stock = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    torch.nn.init.normal_(stock.score.weight)
    stock.config.pad_token_id = stock.config.eos_token_id
    stock.save_pretrained(command.folder / "rm")
    AutoTokenizer.from_pretrained(model).save_pretrained(command.folder / "rm")
    done = score(command, command.folder / "rm")
    assert done.code == 0, done.error
    ours, theirs = stock_numbers(stock, model, command.folder / "scores.jsonl")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    monkeypatch.setattr(reward_judge, "before_padding", lambda example, pad: example)
    done = score(command, command.folder / "rm")
    assert done.code == 4
    assert "in another way" in done.error


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "T5"])
def test_encoders_are_refused_by_name(command: Command, model: Path, kind: str) -> None:
    import transformers

    small = {"vocab_size": 320, "num_labels": 1, "pad_token_id": 0}
    size = {
        "Bert": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        "DistilBert": {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2},
        "T5": {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8},
    }
    network = getattr(transformers, f"{kind}ForSequenceClassification")(getattr(transformers, f"{kind}Config")(**small, **size[kind]))
    network.save_pretrained(command.folder / "rm")
    AutoTokenizer.from_pretrained(model).save_pretrained(command.folder / "rm")
    done = score(command, command.folder / "rm")
    assert done.code == 4, done.error
    assert f"{kind}ForSequenceClassification" in done.error
    assert "encoder" in done.error
    assert not (command.folder / "scores.jsonl").exists()
    for more in ([], ["--dry-run"]):
        done = command.prefer("run", "--model", command.folder / "rm", "head:sequence", *more, command="reward")
        assert done.code == 4, done.error
        assert f"{kind}ForSequenceClassification" in done.error
        assert "encoder" in done.error
        assert not (command.folder / "run").exists()
