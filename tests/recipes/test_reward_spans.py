"""`finegrain reward` and `finegrain eval` on annotators' spans, end to end on a tiny model: planted word polarity is found in answers not seen.

Test of rewards/span_labels.py, recipes/training/reward_artifact.py, scoring/marked.py, report/marked.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification

from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row
from finegrain.recipes.training import frozen_features
from finegrain.scoring.records import Candidates
from finegrain.scoring.reward_model import load_model_reward
from finegrain.scoring.runtime import open_runtime
from finegrain.types import Json
from tests.recipes.command import Command
from tests.tiny import TEXT, write_rows

BAD = {"bad": "style", "dog": "facts"}
"""Words that annotators mark, with their aspects."""
SPANS = ["head:token", "head.readout:mean", "loss:span-labels"]
LEARN = ["--lr", "0.01", "--epochs", "8"]
SHORT = ["--max-steps", "4", "--save-every", "2", "--lr", "0.003"]


def marked_answer(rng: np.random.Generator) -> tuple[str, list[Json]]:
    """Random words and the spans of the bad ones."""
    text, spans = "", []
    for word in rng.choice(sorted({*TEXT.split()}), rng.integers(4, 12)):
        if word in BAD:
            spans.append({"start": len(text) + 1, "end": len(text) + 1 + len(word), "value": -1.0, "aspect": BAD[word]})
        text += f" {word}"
    return text, spans


def marked_pairs(file: Path, count: int, seed: int, unannotated: float = 0.0) -> Path:
    """Pairs of marked answers, the less marked one chosen, prompts all different."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in range(count):
        answers = sorted([marked_answer(rng), marked_answer(rng)], key=lambda own: len(own[1]))
        line: Json = {"prompt": f"why {seed} {row} ?"}
        for role, (text, spans) in zip(("chosen", "rejected"), answers, strict=True):
            line |= {role: text, f"{role}_spans": None if rng.random() < unannotated else spans}
        rows.append(line)
    return write_rows(file, rows)


def reward(command: Command, run: str, *arguments: str | Path) -> Any:
    return command.prefer(run, "--max-length", "64", "--examined", "4", *arguments, command="reward")


def weights(command: Command, run: str) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("model.safetensors", "reward_head.safetensors"):
        found |= {f"{name}/{key}": tensor for key, tensor in load_file(command.folder / run / name).items()}
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)


@pytest.fixture
def files(command: Command) -> tuple[Path, Path]:
    """Annotated pairs to train on and others to test on."""
    return marked_pairs(command.folder / "train.jsonl", 60, 0), marked_pairs(command.folder / "test.jsonl", 40, 1)


@pytest.mark.parametrize("head", ["token", pytest.param("gaussian", marks=pytest.mark.slow)])
def test_planted_words_are_found_from_spans_alone(command: Command, files: tuple[Path, Path], head: str) -> None:
    train, test = files
    choice = [f"head:{head}", *SPANS[1:], "--loss.pair-weight", "0", "--data", train, "--eval", test, *LEARN]
    outcome = reward(command, "run", *choice)
    assert outcome.code == 0, outcome.error
    found = outcome.result["evaluation"]
    assert found["eval_token_auroc"]["low"] > 0.95
    assert found["eval_token_auroc_within"]["low"] > 0.95
    assert found["eval_token_average_precision"]["mean"] > 0.8
    assert found["eval_token_auroc_place"]["mean"] < 0.65
    assert found["eval_token_auroc/facts"]["mean"] > 0.9
    assert found["eval_token_auroc/style"]["mean"] > 0.9
    assert command.record("run")["span_labels"]["annotated_answers"] == 200
    assert "held out: tokens marked: AUROC 0." in outcome.error or "held out: tokens marked: AUROC 1." in outcome.error
    assert "held out: tokens marked as facts: AUROC" in outcome.error
    page = (command.folder / "run/report.html").read_text()
    assert "Marked tokens" in page
    assert "token scores find what annotators marked, better than the place" in page


@pytest.mark.slow
def test_eval_of_the_saved_model_gives_the_same_figures(command: Command, files: tuple[Path, Path]) -> None:
    train, test = files
    aspects = ["--head.aspects", "facts", "style"]
    trained = reward(command, "run", *SPANS, *aspects, "--data", train, "--eval", test, *LEARN)
    assert trained.code == 0, trained.error
    outcome = command("eval", "--reward", command.folder / "run", "--data", test, "--max-length", "64", "--device", "cpu")
    assert outcome.code == 0, outcome.error
    found = outcome.result["marked_tokens"]
    assert {name.partition("/")[0] for name in found} == {
        *("auroc", "auroc_within", "average_precision", "auroc_place", "auroc_within_place", "average_precision_place", "marked", "ece")
    }
    for name, interval in found.items():
        recorded = trained.result["evaluation"][f"eval_token_{name}"]
        for key, value in interval.items():
            assert recorded[key] == pytest.approx(value, abs=1e-6), (name, key)
    assert "tokens marked as style: AUROC" in outcome.error
    other = trained.result["evaluation"]
    assert min(other[f"eval_token_auroc/{name}"]["mean"] for name in ("facts", "style")) > 0.95
    attributes = outcome.result["attributes"]
    assert set(attributes) == {"facts", "style"}


def test_aspects_are_told_apart(command: Command, files: tuple[Path, Path]) -> None:
    """Each output is lowest at the words of its own aspect."""
    train, test = files
    alone = ["--loss.pair-weight", "0", "--head.aspects", "facts", "style", "--epochs", "16"]  # a pair moves both outputs alike
    outcome = reward(command, "run", *SPANS, "--data", train, "--eval", test, *LEARN[:2], *alone)
    assert outcome.code == 0, outcome.error
    AutoModelForTokenClassification.from_pretrained(command.folder / "run")
    assert "here, a head that stock classes do not hold" not in outcome.error
    text = Row(prompt="why not ?", answers={"answer": Answer(content=" the dog sat bad cat")})
    model = load_model_reward(open_runtime("cpu", "auto"), str(command.folder / "run"), max_length=64)
    (found,) = model.score(model.read([Candidates(row=0, made=text)], Findings()))
    scores = found["answer"]
    assert scores is not None
    assert scores.response is not None
    pieces = [scores.response.text[start:end].strip() for start, end in scores.response.offsets]
    dog, bad = pieces.index("do"), pieces.index("bad")
    facts, style = scores.token_aspects["facts"], scores.token_aspects["style"]
    assert facts[dog] < facts[bad] - 1
    assert style[bad] < style[dog] - 1


@pytest.mark.parametrize("frozen", [[], ["--loss.frozen-backbone", "--batch-size", "12", "--holdout", "0"]], ids=["whole model", "head alone"])
def test_resumed_bit_for_bit(command: Command, frozen: list[str]) -> None:
    data = marked_pairs(command.folder / "pairs.jsonl", 24, 2, unannotated=0.5)
    choice = [*SPANS, "loss.weighting:balanced-tokens", "--data", data, *SHORT, *frozen]
    assert reward(command, "whole", *choice).code == 0
    assert reward(command, "cut", *choice).code == 0
    (command.folder / "cut/model.safetensors").unlink()
    assert reward(command, "cut", *choice, "--resume").code == 0
    assert command.lines("whole") == command.lines("cut")
    assert same(weights(command, "whole"), weights(command, "cut"))


def test_the_split_into_micro_batches_does_not_matter(command: Command) -> None:
    data = marked_pairs(command.folder / "pairs.jsonl", 24, 2, unannotated=0.5)
    for run, more in (("whole", []), ("small", ["--micro-tokens", "20"])):
        assert reward(command, run, *SPANS, "--data", data, *SHORT, "--dtype", "float64", *more).code == 0
    for one, two in zip(command.lines("whole"), command.lines("small"), strict=True):
        assert one["loss/tokens"] == pytest.approx(two["loss/tokens"], rel=1e-9)
        assert one["loss/pairs"] == pytest.approx(two["loss/pairs"], rel=1e-9)


HEAD_ALONE = ["loss:span-labels", "--loss.frozen-backbone", "--holdout", "0.25", "--batch-size", "6", "--lr", "0.01", "--eval-every", "4"]


@pytest.mark.parametrize(
    "head",
    [
        ["head:token", "--head.aspects", "facts", "style"],
        pytest.param(["head:token", "head.readout:mean"], marks=pytest.mark.slow),
        pytest.param(["head:gaussian"], marks=pytest.mark.slow),
    ],
)
def test_a_head_alone_reads_states_that_are_computed_once(command: Command, monkeypatch: pytest.MonkeyPatch, head: list[str], tmp_path: Path) -> None:
    data = marked_pairs(tmp_path / "pairs.jsonl", 24, 2, unannotated=0.3)
    choice = [*head, *HEAD_ALONE, "--data", data, "--epochs", "3", "--dtype", "float32"]
    fast = reward(command, "fast", *choice)
    assert fast.code == 0, fast.error
    with monkeypatch.context() as patch:
        patch.setattr(frozen_features, "MOST_BYTES", 0)
        slow = reward(command, "slow", *choice)
    assert slow.code == 0, slow.error
    assert "computed in every epoch" in slow.error
    assert "computed in every epoch" not in fast.error
    one, two = (command.lines(run) for run in ("fast", "slow"))
    assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in two], rel=1e-4)
    measured = [[line["eval_loss"] for line in lines if "eval_loss" in line] for lines in (one, two)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)
    assert sum(line["num_tokens"] for line in one) < sum(line["num_tokens"] for line in two), "no prompt is read"
    heads = [load_file(command.folder / run / "reward_head.safetensors") for run in ("fast", "slow")]
    for name, values in heads[0].items():
        torch.testing.assert_close(values, heads[1][name], rtol=1e-3, atol=1e-5)
    again = reward(command, "again", *choice)
    assert any("token-features: read from the cache" in note for note in command.record("again")["beside_training"]["notes"]), again.error
    assert command.lines("again") == one
    assert reward(command, "once", *choice, "--epochs", "1").code == 0
    assert not any("token-features" in note for note in command.record("once")["beside_training"]["notes"]), "rows read once are not stored"


def test_single_answers_and_a_frozen_model(command: Command, model: Path) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for row in range(40):
        text, spans = marked_answer(rng)
        rows.append({"prompt": f"why {row} ?", "completion": text, "spans": spans})
    data = write_rows(command.folder / "answers.jsonl", rows)
    choice = [*SPANS, "loss.rows:answers", "--loss.frozen-backbone", "--data", data, "--holdout", "0.3", "--lr", "0.05", "--epochs", "4"]
    outcome = reward(command, "run", *choice, "--dtype", "float32")
    assert outcome.code == 0, outcome.error
    assert outcome.result["evaluation"]["eval_token_auroc"]["mean"] > 0.7
    before, after = load_file(model / "model.safetensors"), load_file(command.folder / "run/model.safetensors")
    shared = [name for name in before if name in after]
    assert len(shared) > 5
    assert all(bool((before[name] == after[name]).all()) for name in shared)


def test_bad_input_stops_before_training(command: Command) -> None:
    without = reward(command, "run", *SPANS, "--max-steps", "1")
    assert without.code != 0
    assert "is annotated: loss:span-labels learns from the columns" in without.error
    data = marked_pairs(command.folder / "pairs.jsonl", 24, 2)
    unknown = reward(command, "run2", *SPANS, "--head.aspects", "tone", "--data", data, "--max-steps", "1")
    assert unknown.code != 0
    assert "no token of the training answers is marked with tone" in unknown.error
    other = reward(command, "run3", "head:token", "--head.aspects", "facts", "--data", data, "--max-steps", "1")
    assert other.code == 2
    assert "only SpanLoss fits every part of a Token head" in other.error


def test_a_hostile_aspect_stays_text(command: Command) -> None:
    """Names of aspects come from data, and stand in the report, the model card and the terminal."""
    rng = np.random.default_rng(4)
    rows = []
    for row in range(24):
        (text, spans), (other, _) = marked_answer(rng), marked_answer(rng)
        spans = [{**span, "aspect": "<script>x</script>|\x1b[31m"} for span in spans]
        rows.append({"prompt": f"why {row} ?", "chosen": other, "rejected": text, "rejected_spans": spans})
    data = write_rows(command.folder / "hostile.jsonl", rows)
    outcome = reward(command, "run", *SPANS, "--data", data, "--max-steps", "1", "--holdout", "0.4")
    assert outcome.code == 0, outcome.error
    assert "\x1b[31m" not in outcome.error
    assert "<script>x" not in (command.folder / "run/report.html").read_text()
    card = (command.folder / "run/README.md").read_text()
    assert "eval_token_auroc/_script_x_/script_" in card
    assert "<script>" not in card
