"""`finegrain reward bound` end to end: the cap on scores, the flag, what stock tools still load, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finegrain.data.holdout import split_holdout
from finegrain.data.load import load_examples
from finegrain.data.records import Shape
from finegrain.data.tokenise import Tokenise
from finegrain.models.bounds import BOUNDS_FILE, ClippedStates, load_guard
from finegrain.models.reward_models import load_reward_model
from finegrain.ops.readout import Last
from finegrain.ops.reward_weight import Attention
from finegrain.ops.segmenters import Tokens
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.mm_calibration import Bounds
from finegrain.rewards.rating import Rating
from finegrain.rewards.segment import Segment
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from tests.recipes.command import Command, Outcome
from tests.recipes.reward_folder import save_reward
from tests.recipes.test_posterior import ready
from tests.tiny import as_of_others

LENGTH = ("--max-length", "64", "--device", "cpu")
EPOCHS = ("--fit.epochs", "100")
"""A third of the default: bounds are found, not how good they get."""


@pytest.fixture
def run(command: Command) -> Path:
    """Six steps of a sequence head."""
    return ready(command, "run", "head:sequence", "--max-steps", "6")


def bound(command: Command, run: str, *arguments: str | Path) -> Outcome:
    given = {str(argument) for argument in arguments}
    data = () if "--data" in given else ("--data", command.data)
    return command("reward", "bound", command.folder / run, *data, *LENGTH, *EPOCHS, *arguments)


def scored(command: Command, run: str, out: str, *arguments: str | Path) -> tuple[Outcome, list[dict[str, Any]]]:
    file = command.folder / out
    done = command("score", "--model", command.folder / run, "--data", command.data, "--out", file, "--device", "cpu", *arguments)
    return done, [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def rewrite(command: Command, run: str, **changes: torch.Tensor) -> None:
    """Other numbers in bounds.safetensors."""
    file = command.folder / run / BOUNDS_FILE
    save_file({name: tensor.clone() for name, tensor in {**load_file(file), **changes}.items()}, file)


@pytest.mark.parametrize(
    "head",
    [
        ("head:sequence",),
        ("head:token", "head.readout:last"),
        ("head:gaussian", "head.readout:last"),
        pytest.param(("head:ensemble",), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_scores_are_clipped_after_it(command: Command, head: tuple[str, ...]) -> None:
    """No score exceeds the ceiling; raw is what it was before, gap the difference; stock tools see nothing."""
    ready(command, "run", *head, "--max-steps", "6")
    _, before = scored(command, "run", "before.jsonl")
    assert all(set(line["score"]) == {"mean", "std"} for line in before)
    kept = {file.name: file.read_bytes() for file in (command.folder / "run").iterdir() if file.is_file()}
    done = bound(command, "run", "--fit.price.agreement", "0.8")
    assert done.code == 0, done.error
    assert done.result["ceiling"] < done.result["ceiling_before"]
    assert done.result["agreement_fitted"] >= 0.8
    assert done.result["pairs"] + done.result["held_out"] == 24
    assert done.result["agreement"]["rows"] == done.result["held_out"] > 0
    assert {file.name: file.read_bytes() for file in (command.folder / "run").iterdir() if file.name in kept} == kept
    facts = json.loads((command.folder / "run/bounds.json").read_text())
    assert facts["ceiling"] == done.result["ceiling"]
    assert facts["settings"]["fit"]["price"]["agreement"] == 0.8
    outcome, after = scored(command, "run", "after.jsonl")
    assert outcome.code == 0, outcome.error
    for old, new in zip(before, after, strict=True):
        score = new["score"]
        assert score["raw"] == pytest.approx(old["score"]["mean"], rel=1e-4, abs=1e-5)
        assert score["gap"] == pytest.approx(score["raw"] - score["mean"], abs=1e-6)
        assert score["mean"] <= done.result["ceiling"] + 1e-5
        assert score["flag"] == (score["gap"] > done.result["threshold"])
        assert all(token[2] <= done.result["ceiling"] + 1e-5 for token in new["tokens"])
    assert outcome.result["bounds"]["flagged"] == sum(line["score"]["flag"] for line in after)
    assert any(line["score"]["gap"] > 0 for line in after)
    again = bound(command, "run")
    assert again.code == 7
    assert "already exists" in again.error


def test_clipping_by_hand_on_the_stock_model(command: Command, run: Path) -> None:
    """Last hidden states of transformers' own class, clamped, times its own weight."""
    assert bound(command, "run", "--fit.price.agreement", "0.8", "keep:same-labels").code == 0
    guard = load_guard(command.folder / "run")
    assert guard is not None
    model = load_reward_model(command.folder / "run")
    stock = AutoModelForSequenceClassification.from_pretrained(command.folder / "run", dtype=torch.float32).eval()
    _, lines = scored(command, "run", "scores.jsonl")
    wanted, raw = [], []
    with torch.no_grad():
        for line in lines:
            prompt, answer = (model.policy.tokenizer(line[part], add_special_tokens=False)["input_ids"] for part in ("prompt", "response"))
            ids = torch.tensor([[model.policy.tokenizer.bos_token_id, *prompt, *answer, model.policy.tokenizer.eos_token_id]])
            state = stock.base_model(input_ids=ids).last_hidden_state[0, -1]
            wanted.append(float(stock.score.weight[0].double() @ state.double().clamp(guard.bounds.low, guard.bounds.high)))
            raw.append(float(stock(input_ids=ids).logits))
    np.testing.assert_allclose([line["score"]["raw"] for line in lines], raw, atol=1e-4)
    np.testing.assert_allclose([line["score"]["mean"] for line in lines], wanted, atol=1e-4)


def test_what_is_said_is_of_held_out_pairs(command: Command, run: Path) -> None:
    """Threshold, accuracies, order and shift again, from the lines of the pairs that were held out."""
    done = bound(command, "run", "--holdout", "0.4", "--deviations", "1.5", "--fit.price.agreement", "0.7", "--seed", "3")
    assert done.code == 0, done.error
    tokenizer = AutoTokenizer.from_pretrained(command.folder / "run")
    examples = load_examples(str(command.data), tokenizer, shape=Shape.PREFERENCE, settings=Tokenise(max_length=64)).examples
    held = [example.row for example in split_holdout(examples, 0.4, 3)[1]]
    assert len(held) == done.result["held_out"] == 10
    _, lines = scored(command, "run", "scores.jsonl")
    score = {line["id"]: line["score"] for line in lines}
    pairs = [(score[f"{row}/chosen"], score[f"{row}/rejected"]) for row in held]
    gaps = np.array([one["gap"] for pair in pairs for one in pair])
    assert gaps.std() > 0
    assert done.result["threshold"] == pytest.approx(gaps.mean() + 1.5 * gaps.std(), abs=1e-5)
    assert done.result["shift"] == pytest.approx(np.sqrt((gaps**2).mean()), abs=1e-5)
    for name, which in {"accuracy": "mean", "accuracy_raw": "raw"}.items():
        assert done.result[name]["mean"] == np.mean([good[which] > bad[which] for good, bad in pairs]), name
    kept = [(good["mean"] > bad["mean"]) == (good["raw"] > bad["raw"]) for good, bad in pairs]
    assert done.result["agreement"]["mean"] == np.mean(kept)


def test_an_answer_beyond_the_bounds_is_flagged(command: Command, run: Path) -> None:
    """Bounds around nothing: every unit is clipped to 0, and what has a score to lose is flagged; infinite bounds change nothing."""
    _, before = scored(command, "run", "before.jsonl")
    assert bound(command, "run").code == 0
    nothing = torch.zeros(32, dtype=torch.float64)
    rewrite(command, "run", low=nothing, high=nothing, threshold=torch.tensor([0.01], dtype=torch.float64))
    outcome, lines = scored(command, "run", "none.jsonl")
    assert outcome.code == 0, outcome.error
    assert all(line["score"]["mean"] == 0.0 for line in lines)
    assert [line["score"]["flag"] for line in lines] == [line["score"]["mean"] > 0.01 for line in before]
    assert 0 < outcome.result["bounds"]["flagged"] < len(lines)
    rewrite(command, "run", low=nothing - torch.inf, high=nothing + torch.inf, threshold=torch.zeros(1, dtype=torch.float64))
    outcome, lines = scored(command, "run", "free.jsonl")
    assert [line["score"]["mean"] for line in lines] == [line["score"]["mean"] for line in before]
    assert not any(line["score"]["gap"] or line["score"]["flag"] for line in lines)


def test_signals_and_eval_read_clipped_scores(command: Command, run: Path) -> None:
    assert bound(command, "run").code == 0
    nothing = torch.zeros(32, dtype=torch.float64)
    rewrite(command, "run", low=nothing, high=nothing)
    for signal in ("signal:prefix-difference", "signal:attention"):
        outcome, lines = scored(command, "run", f"{signal[7:]}.jsonl", signal, "--limit", "6")
        assert outcome.code == 0, outcome.error
        assert len(lines) == 12
        assert all(line["score"]["raw"] != 0 and not any(token[2] for token in line["tokens"]) for line in lines)
    tested = command("eval", "--reward", command.folder / "run", "--data", command.data, "--device", "cpu")
    assert tested.code == 0, tested.error
    assert tested.result["tied"] == 24, "all clipped to 0"
    assert "ceiling" in tested.result["read"][0]["bounds"]


def test_a_posterior_beside_them_is_of_clipped_features(command: Command, run: Path) -> None:
    assert bound(command, "run", "--fit.price.agreement", "0.8").code == 0
    _, before = scored(command, "run", "before.jsonl")
    assert command("reward", "posterior", command.folder / "run", "--data", command.data, *LENGTH).code == 0
    outcome, after = scored(command, "run", "after.jsonl")
    assert outcome.code == 0, outcome.error
    for old, new in zip(before, after, strict=True):
        assert new["score"]["mean"] == pytest.approx(old["score"]["mean"], rel=1e-4, abs=1e-5)
        assert new["score"]["gap"] == pytest.approx(old["score"]["gap"], abs=1e-5)
        assert new["score"]["std"] > 0
    nothing = torch.zeros(32, dtype=torch.float64)
    rewrite(command, "run", low=nothing, high=nothing)
    _, none = scored(command, "run", "none.jsonl")
    assert max(line["score"]["std"] for line in none) < 1e-5, "of the origin a linear reward has no doubt"


def test_the_two_things_to_keep_differ(command: Command, run: Path) -> None:
    """At one price scores and labels do not hold the same bounds."""
    found = {}
    for keep in ("same-scores", "same-labels"):
        done = bound(command, "run", f"keep:{keep}", "--fit.price.factor", "1.0")
        assert done.code == 0, done.error
        found[keep] = done.result["shift"]
        assert json.loads((command.folder / "run/bounds.json").read_text())["settings"]["keep"]["choice"] == keep
        (command.folder / "run" / BOUNDS_FILE).unlink()
    assert abs(found["same-scores"] - found["same-labels"]) > 1e-3


def test_gap_is_exactly_zero_inside() -> None:
    """In units and out of them, by hand: w = (2, -1), box [-1, 3] x [-2, 1]."""
    head = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, -1.0]]))
    module = ClippedStates(head, head.weight[0], Bounds(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, 1.0])))
    outputs = module(torch.tensor([[0.3, 0.7], [5.0, -4.0], [-9.0, 9.0]]))
    assert outputs[0, 1] == 0
    torch.testing.assert_close(outputs[1:], torch.tensor([[8.0, 14.0 - 8.0], [-3.0, -27.0 + 3.0]]))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (Token(), "the sum of its tokens"),
        (Gaussian(reward_weight=Attention(), readout=Last()), "weighs its tokens"),
        (Segment(segmenter=Tokens()), "ends of segments"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_heads_are_refused_in_words(command: Command, head: RewardHead, words: str) -> None:
    save_reward(command.model, command.folder / "run", type(head).__name__.lower(), head)
    refused = bound(command, "run")
    assert refused.code == 4, refused.error
    assert words in refused.error
    assert not (command.folder / "run" / BOUNDS_FILE).exists()


def test_heads_that_are_no_linear_map_are_refused_in_words(command: Command) -> None:
    ready(command, "run", "head:diverse-preferences", "loss:diverse-preferences", "--loss.phi", "0.01", "--max-steps", "1")
    refused = bound(command, "run")
    assert refused.code == 4, refused.error
    assert "linear score" in refused.error
    assert not (command.folder / "run" / BOUNDS_FILE).exists()


def test_ratings_are_refused_in_words(command: Command) -> None:
    save_reward(command.model, command.folder / "run", "rating", Rating())
    refused = bound(command, "run")
    assert refused.code == 4
    assert "5 logits per answer" in refused.error


def test_a_checkpoint_of_others_and_what_reads_it(command: Command, run: Path) -> None:
    """A plain sequence classifier of one label; its report and its credit are of clipped scores too."""
    as_of_others(command.folder / "run")
    assert bound(command, "run").code == 0
    nothing = torch.zeros(32, dtype=torch.float64)
    rewrite(command, "run", low=nothing, high=nothing)
    outcome, lines = scored(command, "run", "scores.jsonl")
    assert outcome.code == 0, outcome.error
    assert {line["score"]["mean"] for line in lines} == {0.0}
    assert "every answer has the same score" in outcome.result["warnings"][0] or "every score is 0" in outcome.result["warnings"][0]
    page = command.folder / "page.html"
    seen = command("inspect", "--model", command.folder / "run", "--data", command.data, "--out", page, "--device", "cpu")
    assert seen.code == 0, seen.error
    assert "no score exceeds 0" in seen.error
    identical = command.prefer("pr", "credit:asr", "--credit.scorer", command.folder / "run", "--max-steps", "1")
    assert "bounds: features are clipped" in identical.error


def test_hidden_states_that_are_not_finite_are_an_error(command: Command, run: Path) -> None:
    file = command.folder / "run/model.safetensors"
    state = load_file(file)
    save_file({**state, "model.norm.weight": torch.full_like(state["model.norm.weight"], 3e38)}, file, metadata={"format": "pt"})
    refused = bound(command, "run")
    assert refused.code == 3, refused.error
    assert "not finite" in refused.error
    assert not (command.folder / "run" / BOUNDS_FILE).exists()


def test_bounds_of_other_weights_and_damaged_ones_are_refused(command: Command, run: Path) -> None:
    save_reward(command.model, command.folder / "other", "sequence", Sequence())
    assert bound(command, "run").code == 0
    (command.folder / "other" / BOUNDS_FILE).write_bytes((command.folder / "run" / BOUNDS_FILE).read_bytes())
    refused, _ = scored(command, "other", "x.jsonl")
    assert refused.code == 4
    assert "fit it again: `finegrain reward bound`" in refused.error
    for damage in ({"low": torch.ones(32).double() * 99}, {"high": torch.full((32,), torch.nan).double()}, {"low": torch.zeros(3).double()}):
        file = command.folder / "run" / BOUNDS_FILE
        whole = file.read_bytes()
        rewrite(command, "run", **damage)
        assert "cannot read the bounds" in scored(command, "run", "y.jsonl")[0].error
        file.write_bytes(whole)
    (command.folder / "run" / BOUNDS_FILE).write_bytes(b"nothing")
    refused, _ = scored(command, "run", "z.jsonl")
    assert refused.code == 4
    assert "cannot read the bounds" in refused.error


def test_bad_input(command: Command, run: Path) -> None:
    assert command("reward", "bound", command.folder / "nothing", "--data", command.data).code == 4
    assert command("reward", "bound", command.model, "--data", command.data).code == 4
    for wrong in (
        ("--deviations", "-1"),
        ("--holdout", "0"),
        ("--fit.start", "0.4"),
        ("--fit.lr", "0"),
        ("--fit.price.factor", "0.5"),
        ("keep:all",),
    ):
        assert bound(command, "run", *wrong).code == 2, wrong
    one = command.folder / "one.jsonl"
    one.write_text(command.data.read_text().splitlines()[0] + "\n")
    refused = bound(command, "run", "--data", one)
    assert refused.code == 3, refused.error
    assert not (command.folder / "run" / BOUNDS_FILE).exists()
