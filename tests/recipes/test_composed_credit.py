"""`credit:compose` from the command line: its parts read a run's models, texts and columns. Test of recipes/training/credit_context.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from finegrain.recipes.training.columns import _Maker
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.train.collate import TrainingSet
from tests.recipes.command import Command
from tests.recipes.reward_folder import moved, save_reward
from tests.tiny import write_rows

STEP = ("--max-steps", "1", "--holdout", "0")
LEARN = ("objective:token-distillation", "credit:compose")


def columns_of(command: Command, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> TrainingSet:
    """What a run of one step trained on."""
    found: list[TrainingSet] = []
    before = _Maker.train

    def spy(self: Any, job: Any, plan: Any) -> TrainingSet:
        found.append(before(self, job, plan))
        return found[-1]

    with monkeypatch.context() as patch:
        patch.setattr(_Maker, "train", spy)
        done = command.prefer(f"run-{len(list(command.folder.iterdir()))}", *STEP, *arguments)
    assert done.code == 0, done.error
    return found[0]


def test_implicit_dynamic_and_mask_train_as_asr(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = moved(model, command.folder / "scorer", 0)
    plain = columns_of(command, monkeypatch, "credit:asr", "--credit.scorer", scorer, "--credit.min-kept", "0", "--credit.max-kept", "1")
    parts = ("credit:compose", "credit.signal:implicit", "credit.segmenter:dynamic", "credit.allocation:mask")
    bounds = ("--credit.allocation.min-kept", "0", "--credit.allocation.max-kept", "1")
    composed = columns_of(command, monkeypatch, *parts, "--credit.scorer", scorer, *bounds)
    for role in ("chosen", "rejected"):
        for part in ("weight", "reward", "segment"):
            both = zip(getattr(plain.token_columns[role], part), getattr(composed.token_columns[role], part), strict=True)
            assert all(one.tolist() == other.tolist() for one, other in both)
    assert any(weight.any() and not weight.all() for weight in plain.token_columns["chosen"].weight)


def test_attention_tokens_and_interpolation_are_what_score_says(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = save_reward(model, command.folder / "rm", "sequence", Sequence()), command.folder / "scores.jsonl"
    assert command("score", "--model", folder, "--data", command.data, "--out", out, "--device", "cpu", "signal:attention").code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    parts = ("credit.signal:attention", "credit.segmenter:tokens", "credit.allocation:interpolate")
    rows = columns_of(command, monkeypatch, *LEARN, *parts, "--credit.scorer", folder)
    for place, example in enumerate(rows.examples):
        for side, role in enumerate(("chosen", "rejected")):
            want = [token[2] for token in lines[2 * example.row + side]["tokens"]]
            assert rows.token_columns[role].reward[place].tolist() == pytest.approx(want, abs=1e-6)


SEVERAL = {
    "prefix differences, mixed": (
        "sequence",
        ("credit.signal:prefix-difference", "credit.allocation:interpolate", "--credit.allocation.share", "0.5"),
    ),
    "equal shares at the ends of sentences": (
        "sequence",
        ("credit.signal:uniform", "credit.segmenter:sentences", "credit.allocation:redistribute", "credit.allocation.within:end-only"),
    ),
    "levels of gradients by place": (
        "token",
        ("credit.signal:saliency", "credit.segmenter:windows", "--credit.segmenter.size", "2", "credit.allocation:by-location"),
    ),
    "levels by place": ("token", ("credit.signal:head", "credit.segmenter:windows", "--credit.segmenter.size", "2", "credit.allocation:by-location")),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_rewards_of_a_reward_model(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    method, parts = SEVERAL[name]
    folder = save_reward(model, command.folder / "rm", method, Token() if method == "token" else Sequence())
    rows = columns_of(command, monkeypatch, *LEARN, *parts, "--credit.scorer", folder)
    column = rows.token_columns["chosen"]
    assert all(weight is None for weight in column.weight)
    assert any(reward.any() for reward in column.reward)


def test_members_of_a_reward_model_give_soft_weights(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_reward(model, command.folder / "rm", "ensemble", Ensemble(members=3))
    parts = ("credit.signal:prefix-difference", "credit.segmenter:whole", "credit.allocation:soft-weight")
    rows = columns_of(command, monkeypatch, "credit:compose", *parts, "--credit.scorer", folder)
    assert all(0 < weight.max() < 1 for weight in rows.token_columns["chosen"].weight)


WEIGHTS = {
    "lexical": ("credit.signal:lexical", "credit.segmenter:perplexity", "credit.allocation:mask", "credit.allocation.baseline:batch-mean"),
    "least-edit": ("credit.signal:least-edit", "credit.segmenter:random-ngram", "credit.allocation:top-k"),
    "entropy": ("credit.signal:entropy", "credit.segmenter:entropy-cutoff", "--credit.segmenter.cutoff", "1.0", "credit.allocation:dynamic-top-k"),
    "activations": ("credit.signal:activations", "credit.allocation:top-k"),
    "random": ("credit.signal:entropy", "credit.segmenter:tokens", "credit.allocation:random-quantile"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_without_a_scorer(command: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    rows = columns_of(command, monkeypatch, "credit:compose", *WEIGHTS[name])
    weights = [weight for role in ("chosen", "rejected") for weight in rows.token_columns[role].weight]
    assert any(weight.any() for weight in weights)
    assert any(not weight.all() for weight in weights)


def test_the_runs_own_scorer_gives_soft_weights_of_sentences(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [{"chosen": "good people said .", "rejected": "bad words ."}, {"chosen": "good people .", "rejected": "bad people said ."}]
    command.data = write_rows(command.folder / "many.jsonl", [{"prompt": f"why {row} ?", **sides[row % 2]} for row in range(30)])
    parts = ("credit.signal:table", "credit.segmenter:sentences", "credit.allocation:soft-weight")
    composed = columns_of(command, monkeypatch, "credit:compose", *parts)
    plain = columns_of(command, monkeypatch, "credit:confidence", *parts[:2])
    for role in ("chosen", "rejected"):
        both = zip(plain.token_columns[role].weight, composed.token_columns[role].weight, strict=True)
        assert all(one.tolist() == other.tolist() for one, other in both)
    assert any(weight.max() > 0.6 for weight in composed.token_columns["chosen"].weight)


def test_parses_of_a_column_cut_an_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {"chosen": "good people said", "rejected": "bad words"}
    parses = {"chosen_parse": "(S (NP (JJ good) (NN people)) (VP (VB said)))", "rejected_parse": "(S (JJ bad) (NN words))"}
    command.data = write_rows(command.folder / "parsed.jsonl", [{"prompt": f"why {row} ?", **sides, **parses} for row in range(6)])
    parts = ("credit.signal:least-edit", "credit.segmenter:constituents", "--credit.segmenter.most", "3", "credit.allocation:top-k")
    rows = columns_of(command, monkeypatch, "credit:compose", *parts)
    for example, ids in zip(rows.examples, rows.token_columns["chosen"].segment, strict=True):
        starts = [int(example.responses["chosen"].offsets[place, 0]) for place in range(len(ids)) if place == 0 or ids[place] != ids[place - 1]]
        assert starts[0] == 0
        assert set(starts) <= {0, 4, 5, 11, 12}
        assert len(starts) > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("credit:compose", "credit.signal:entropy"), "so nothing agrees"),
        (("credit:asr", "credit.signal:attention", "--credit.scorer", "rm"), "credit:asr keeps what agrees with the label"),
        (("credit:compose", "credit.signal:attention", "credit.allocation:top-k"), "name one, --credit.scorer REWARD_MODEL"),
        (("credit:compose", "credit.signal:implicit"), "credit.signal:implicit needs a scorer"),
        (("credit:compose", "credit.allocation:redistribute"), "credit:compose writes no weight, token rewards alone"),
    ],
)
def test_a_combination_that_means_nothing_stops_before_a_model_is_loaded(command: Command, arguments: tuple[str, ...], words: str) -> None:
    done = command.prefer("run", "--model", command.folder / "no-model", *arguments)
    assert done.code == 2
    assert words in done.error


def test_a_policy_gives_no_signal_of_a_reward_model(command: Command, model: Path) -> None:
    done = command.prefer("run", *LEARN, "credit.signal:uniform", "credit.allocation:redistribute", "--credit.scorer", model)
    assert done.code == 5
    assert "credit.signal:uniform is read from a reward model" in done.error


def test_a_head_of_tokens_has_no_attention_to_its_score(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "rm", "token", Token())
    done = command.prefer("run", *LEARN, "credit.signal:attention", "credit.allocation:interpolate", "--credit.scorer", folder)
    assert "take signal:head" in done.error
