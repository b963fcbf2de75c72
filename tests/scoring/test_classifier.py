"""Text classifiers as rewards: any checkpoint, ours, calibration files, words that add up, and the laws of rewards."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from finegrain.credit.reward_signals import PrefixDifference
from finegrain.errors import ModelError, UsageError
from finegrain.recipes.rollouts.rewards import open_rewards
from finegrain.scoring.classifier import ClassifierReward
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Reward
from finegrain.scoring.runtime import open_runtime
from finegrain.scoring.sources import RewardOptions
from tests.recipes.command import Command
from tests.recipes.rollouts.test_rewards import sampled
from tests.scoring.laws import LAWS, Opened, rows
from tests.tiny import save_tiny, write_rows


def save_classifier(folder: Path, tokens: Path, labels: int, **more: Any) -> Path:
    """A small encoder with random weights, large enough ones that its beliefs differ."""
    torch.manual_seed(labels)
    names = {place: f"class{place}" for place in range(labels)}
    words = len(transformers.AutoTokenizer.from_pretrained(tokens))
    config = transformers.BertConfig(
        vocab_size=words, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
        pad_token_id=0, id2label=names, label2id={name: place for place, name in names.items()}, **more,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(60)
    model.save_pretrained(folder)
    for file in tokens.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module", autouse=True)
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("classifiers")
    tokens = save_tiny(folder / "model")
    for labels in (1, 2, 3):
        save_classifier(folder / f"bert-{labels}", tokens, labels)
    save_classifier(folder / "several", tokens, 3, problem_type="multi_label_classification")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def opened(path: str, **more: Any) -> Reward:
    options: Any = {"runtime": lambda: open_runtime("cpu", "float64"), "max_length": 48, **more}
    return open_reward(f"classifier:{path}", RewardOptions(**options))


def numbers(reward: Reward) -> list[float]:
    return [float(scores.answer.mean) for found in reward.score(rows()) for scores in found.values() if scores is not None]


def logits_of(folder: str) -> torch.Tensor:
    """By transformers, one text after the other."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [one.answer_text(role) for one in rows() for role in one.roles]
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def write_file(name: str, **reward: Any) -> str:
    model = reward.pop("model")
    Path(name).write_text(json.dumps({"model": model, "reward": reward}))
    return name


def test_forms_and_classes_of_a_checkpoint() -> None:
    two, three, one, several = (logits_of(folder) for folder in ("bert-2", "bert-3", "bert-1", "several"))
    assert float((two[:, 1] - two[:, 0]).std()) > 0.1
    assert numbers(opened("bert-2")) == pytest.approx((two[:, 1] - two[:, 0]).clamp(-3, 3).tolist(), abs=1e-6)
    file = write_file("p.json", model="bert-3", label="class1", form={"choice": "probability"}, temperature=2.0)
    assert numbers(opened(file)) == pytest.approx((three / 2).softmax(1)[:, 1].tolist(), abs=1e-6)
    file = write_file("log.json", model="bert-1", label="0", form={"choice": "log-probability"})
    assert numbers(opened(file)) == pytest.approx(torch.nn.functional.logsigmoid(-one[:, 0]).tolist(), abs=1e-6)
    file = write_file("several.json", model="several", label="class0", form={"choice": "logit", "clip": 99.0}, mean=0.5, std=2.0)
    assert numbers(opened(file)) == pytest.approx(((several[:, 0] - 0.5) / 2).tolist(), abs=1e-6)


def test_words_add_up_to_the_answer() -> None:
    plain, words = opened("bert-2"), opened("bert-2", signal=PrefixDifference())
    assert numbers(words) == pytest.approx(numbers(plain), abs=1e-9)
    given = rows()[0]
    (found,) = words.score([given])
    scores = found["a0"]
    assert scores is not None
    assert [given.answer_text("a0")[start:end] for start, end, *_ in scores.spans] == [" good ", "people ", "said ", "yes"]
    assert len({span.value for span in scores.spans}) > 1


def test_in_online_training_the_words_reach_the_tokens() -> None:
    make = lambda **more: open_rewards(["classifier:bert-2"], runtime=lambda: open_runtime("cpu", "float64"), max_length=64, **more)
    plain, dense = make(), make(credit=PrefixDifference())
    one, other = plain.score(sampled()), dense.score(sampled())
    torch.testing.assert_close(other.totals, one.totals)
    assert not any(tokens.any() for tokens in one.tokens)
    assert all((tokens[:, 0] != 0).sum() > 1 for tokens in other.tokens)
    assert plain.names == ("bert-2",)


def test_prompt_and_answer() -> None:
    file = write_file("both.json", model="bert-2", reads="prompt-and-answer")
    assert numbers(opened(file)) != pytest.approx(numbers(opened("bert-2")), abs=1e-3)


def test_calibration_is_on_the_scale_of_reference_texts(command: Command, desk: Path) -> None:
    texts = ["good people said yes", "bad words", "the cat sat", "a dog ran after it", "yes"]
    data = write_rows(desk / "references.jsonl", [{"simple": text} for text in texts] + [{"simple": ""}])
    asked = ["--model", desk / "bert-3", "--data", data, "--column", "simple", "--target", "class0", "--form.clip", "50", "--device", "cpu"]
    (desk / "made.json").unlink(missing_ok=True)
    done = command("reward", "calibrate", *asked, "--out", desk / "made.json", "--dtype", "float64")
    assert done.code == 0, done.error
    assert done.result["reward"]["texts"] == 5
    assert "no_text" in str(done.result["findings"])
    out = command.folder / "scores.jsonl"
    rows_ = write_rows(command.folder / "rows.jsonl", [{"prompt": "why ?", "completion": text} for text in texts])
    scored = command("score", "--reward", f"classifier:{desk / 'made.json'}", "--data", rows_, "--out", out)
    assert scored.code == 0, scored.error
    values = torch.tensor([json.loads(line)["score"]["mean"] for line in out.read_text().splitlines()])
    assert float(values.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(values.std()) == pytest.approx(1.0, abs=1e-5)


def test_other_weights_than_calibrated_are_refused(desk: Path) -> None:
    told = json.dumps({"model": "bert-2", "weights": "0" * 64, "reward": {}})
    (desk / "stale.json").write_text(told)
    with pytest.raises(ModelError, match="other weights"):
        opened("stale.json")


def test_texts_that_are_cut_are_counted() -> None:
    reward = opened("bert-2", max_length=4)
    assert isinstance(reward, ClassifierReward)
    list(reward.score(rows()))
    assert reward.facts()["texts_cut"] > 0
    assert "the end of" in reward.describe()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "cannot read"), ("{}", "says nothing"), ('{"reward": {"form": {"choice": "best"}}}', "cannot be read"), ('{"reward": {}}', "no linear")],
)
def test_a_file_that_is_none(desk: Path, text: str, words: str) -> None:
    (desk / "odd.json").write_text(text)
    with pytest.raises(ModelError, match=words):
        opened("odd.json")


def test_a_class_that_is_none() -> None:
    with pytest.raises(UsageError, match="class"):
        opened(write_file("none.json", model="bert-2", label="simple"))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("signal", [None, PrefixDifference()], ids=["answers", "words"])
def test_laws(law: Callable[[Opened], None], signal: PrefixDifference | None) -> None:
    law(lambda: opened("bert-2", signal=signal))
