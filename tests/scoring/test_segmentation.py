"""Checkpoints of segments and steps: scored, tested, looked at and taken as credit, their answers cut as for their training."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from finegrain.models.load import load_policy
from finegrain.ops.location import LocationNormaliser
from finegrain.ops.readout import Last, Minimum
from finegrain.ops.segmenters import ChangePoint, Dynamic, Sign, Threshold, Tokens, TopK, Whole, Windows
from finegrain.ops.text_segmenters import EntropyCutoff
from finegrain.report.read import read_run
from finegrain.rewards.segment import Segment
from finegrain.rewards.step import Step
from finegrain.rewards.token import Token
from finegrain.scoring.segmentation import lines_of, start_model_facts
from finegrain.types import CharSpan
from tests.recipes.command import Command, Outcome
from tests.recipes.reward_folder import save_reward
from tests.tiny import save_tiny, write_rows

CUTOFF = 4.6
"""Nats, amid the tiny model's entropies."""
LOCATION = LocationNormaliser(mean_slope=0.5, std_slope=0.25, mean_at_end=0.2, std_at_end=2.0)
SEGMENTERS = {
    "entropy-cutoff": EntropyCutoff(cutoff=CUTOFF),
    "dynamic": Dynamic(),
    "threshold": Threshold(tau=0.05),
    "top-k": TopK(fraction=0.3),
    "sign": Sign(),
    "change-point": ChangePoint(),
    "windows": Windows(size=3),
    "tokens": Tokens(),
    "whole": Whole(),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, but sure of some tokens: its entropies must tell them apart."""
    folder = save_tiny(tmp_path_factory.mktemp("sure"))
    lm = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        lm.lm_head.weight.mul_(8)
    lm.save_pretrained(folder)
    return folder


def save_parts(model: Path, folder: Path, head: Segment | Step, **facts: Any) -> Path:
    """A checkpoint of a random head on the tiny model, which is its start model too."""
    save_reward(model, folder, type(head).__name__.lower(), head)
    file = folder / "reward_head.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "start_model": start_model_facts(load_policy(model)), **facts}))
    return folder


def score(command: Command, folder: Path, *arguments: str | Path, name: str = "scores") -> tuple[Outcome, list[dict[str, Any]]]:
    out = command.folder / f"{name}.jsonl"
    data = [] if "--data" in arguments else ["--data", command.data]
    done = command("score", "--model", folder, *data, "--out", out, "--device", "cpu", *arguments)
    return done, [json.loads(line) for line in out.read_text().splitlines()] if done.code == 0 else []


def of_data(command: Command) -> list[tuple[str, str]]:
    """(prompt, answer) of every answer, in the order of the scores."""
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    return [(row["prompt"], row[role]) for row in rows for role in ("chosen", "rejected")]


def naive(models: tuple[Any, Any, Any], prompt: str, answer: str, cutoff: float) -> tuple[list[float], list[int]]:
    """Scores and lengths of an answer's segments by stock classes and the authors' rule, one token after the other."""
    tokenizer, start, scorer = models
    before, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
    whole = torch.tensor([[tokenizer.bos_token_id, *before, *ids, tokenizer.eos_token_id]])
    first, last = 1 + len(before), whole.shape[1] - 1
    with torch.no_grad():
        logp = start(whole).logits.log_softmax(-1)[0]
        values = scorer(whole).logits[0, :, 0]
    scores, lengths, length = [], [], 0
    for place in range(first, last):
        length += 1
        entropy = -float((logp[place].exp() * logp[place]).sum())
        if entropy > cutoff or place == last - 1:
            if place == last - 1 or entropy > cutoff:
                scores.append(float(values[place]))
                lengths.append(length)
                length = 0
    return scores, lengths


def test_scores_are_those_of_stock_classes_and_the_authors_rule(command: Command, model: Path) -> None:
    """Segments end where the start model does not know how to go on; an answer scores their mean, and their tokens add up to them."""
    folder = save_parts(model, command.folder / "rm", Segment(segmenter=EntropyCutoff(cutoff=CUTOFF)))
    done, lines = score(command, folder)
    assert done.code == 0, done.error
    models = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForCausalLM.from_pretrained(model),
        AutoModelForTokenClassification.from_pretrained(folder),
    )
    counts, longest = [], 0
    for line, (prompt, answer) in zip(lines, of_data(command), strict=True):
        scores, lengths = naive(models, prompt, answer, CUTOFF)
        counts.append(len(scores))
        longest = max(longest, *lengths[:-1], 0)
        assert [part[2] for part in line["segments"]] == pytest.approx(scores, abs=1e-5)
        assert line["score"]["mean"] == pytest.approx(np.mean(scores), abs=1e-5)
        expected = [value / length for value, length in zip(scores, lengths, strict=True) for _ in range(length)]
        assert [token[2] for token in line["tokens"]] == pytest.approx([*expected, 0.0], abs=1e-5)
        assert (line["segments"][0][0], line["segments"][-1][1]) == (0, len(answer))
    assert len(set(counts)) > 2, "the cut-off tells answers apart"
    assert longest > 2, "and tokens"
    assert done.result["segments"] == {"segmenter": "entropy-cutoff", "start_model": str(model.resolve())}
    assert f"segments: entropy-cutoff on the entropies of {model.resolve()}, as in training" in done.error


QUICK = ("entropy-cutoff",)
"""The one that asks the start model; the others are slow."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SEGMENTERS])
def test_every_segmenter_from_training_to_score_eval_and_inspect(name: str, command: Command, model: Path) -> None:
    """A run's own page, the scores of its checkpoint, and the checkpoint's page have the same segments and the same scores."""
    settings = {"entropy-cutoff": ["--head.segmenter.cutoff", str(CUTOFF)], "windows": ["--head.segmenter.size", "3"]}.get(name, [])
    command.first(8)
    run = command.folder / "run"
    chosen = ["head:segment", f"head.segmenter:{name}", *settings, "--max-steps", "2", "--lr", "0.01", "--holdout", "0.25", "--examined", "64"]
    done = command.prefer("run", *chosen, command="reward")
    assert done.code == 0, done.error
    told = json.loads((run / "reward_head.json").read_text())
    reads = name not in ("windows", "tokens", "whole")
    assert ("start_model" in told) is reads
    found, lines = score(command, run)
    assert found.code == 0, found.error
    pairs = read_run(run).pairs
    assert pairs is not None
    by_id = {line["id"]: line for line in lines}
    for pair in pairs:
        for role, answer in pair.answers.items():
            line = by_id[f"{pair.row}/{role}"]
            assert answer.segment is not None
            assert line["score"]["mean"] == pytest.approx(answer.score, rel=1e-3, abs=2e-5)
            assert len(line["segments"]) == answer.segment.max() + 1
    right = np.mean([by_id[f"{row}/chosen"]["score"]["mean"] > by_id[f"{row}/rejected"]["score"]["mean"] for row in range(8)])
    tested = command("eval", "--reward", run, "--data", command.data, "--device", "cpu")
    assert tested.code == 0, tested.error
    assert tested.result["lines"][0]["accuracy"]["mean"] == pytest.approx(right)
    assert tested.result["read"] == [{"segments": {"segmenter": name, "start_model": str(model.resolve()) if reads else None}}]
    assert tested.result["batches"]["largest_difference"] < 1e-5
    looked = command("inspect", "--model", run, "--data", command.data, "--out", command.folder / "look.html")
    assert looked.code == 0, looked.error


def test_the_readout_is_the_heads_own(command: Command, model: Path) -> None:
    for readout, expected in ((Minimum(), min), (Last(), lambda values: values[-1])):
        name = type(readout).__name__
        folder = save_parts(model, command.folder / name, Segment(segmenter=Windows(size=2), readout=readout))
        _, lines = score(command, folder, name=name)
        for line in lines:
            assert line["score"]["mean"] == pytest.approx(expected([part[2] for part in line["segments"]]), abs=1e-6)


def test_scores_are_placed_and_scaled_as_asked(command: Command, model: Path) -> None:
    """By hand from the segments' scores: split, repeated, at ends; less the line of means, by the line of deviations."""
    folder = save_parts(model, command.folder / "rm", Segment(segmenter=Windows(size=3)), location=LOCATION.as_json())
    _, plain = score(command, folder, name="plain")
    placed = {name: score(command, folder, f"signal.spread:{name}", name=name)[1] for name in ("repeat", "end-only")}
    _, scaled = score(command, folder, "signal.scale:by-place", name="scaled")
    for place, line in enumerate(plain):
        values, count = [part[2] for part in line["segments"]], len(line["tokens"]) - 1
        lengths = [min(3, count - start) for start in range(0, count, 3)]
        pairs = list(zip(values, lengths, strict=True))
        rows = {name: [token[2] for token in own[place]["tokens"]] for name, own in placed.items()}
        assert rows["repeat"] == pytest.approx([*(value for value, length in pairs for _ in range(length)), 0.0])
        assert rows["end-only"] == pytest.approx([*(one for value, length in pairs for one in [0.0] * (length - 1) + [value]), 0.0])
        assert sum(token[2] for token in line["tokens"]) == pytest.approx(sum(values), abs=1e-6)
        p = np.arange(1, len(values) + 1) / len(values)
        expected = (np.array(values) - (0.5 * np.log(p) + 0.2)) / np.maximum(0.25 * np.log(p) + 2.0, 0.2)
        assert [part[2] for part in scaled[place]["segments"]] == pytest.approx(expected, abs=1e-6)
        assert [token[2] for token in scaled[place]["tokens"]][:3] == pytest.approx([expected[0] / lengths[0]] * 3, abs=1e-6)
        assert sum(token[2] for token in scaled[place]["tokens"]) == pytest.approx(sum(expected), abs=1e-6)
        assert scaled[place]["score"] == line["score"], "the answer's score stays the head's"


def test_credit_has_what_score_says(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments on one scale by place where the checkpoint has one, else as they are; the method trains on them."""
    from tests.recipes.test_reward_credit import captured

    command.first(8)
    for name, facts, scale in (("raw", {}, "raw"), ("placed", {"location": LOCATION.as_json()}, "by-place")):
        folder = save_parts(model, command.folder / name, Segment(segmenter=EntropyCutoff(cutoff=CUTOFF)), **facts)
        _, want = score(command, folder, f"signal.scale:{scale}", name=name)
        examples, scores = captured(command, monkeypatch, str(folder))
        for place, example in enumerate(examples):
            for side, role in enumerate(("chosen", "rejected")):
                values = [token[2] for token in want[2 * example.row + side]["tokens"]]
                assert scores[role][place].mean.tolist() == pytest.approx(values, abs=1e-5)
        monkeypatch.undo()
        monkeypatch.setenv("FINEGRAIN_CACHE", str(command.folder / "cache"))
        shutil.rmtree(command.folder / "run")


def test_asr_trains_with_segment_and_step_checkpoints(command: Command, model: Path) -> None:
    for name, head in (("segment", Segment(segmenter=Windows(size=2))), ("step", Step())):
        folder = save_parts(model, command.folder / f"{name}-rm", head, location=LOCATION.as_json())
        done = command.prefer(name, "objective:dpo", "credit:asr", "--credit.scorer", folder, "--credit.min-kept", "0.0001", "--max-steps", "2")
        assert done.code == 0, done.error
        assert f"credit: {name}s: " in done.error


STEPS = [["good people", "said\nyes", "bad words"], ["good"], ["bad", "words said"]]
LABELS: list[list[bool | None]] = [[True, False, True], [True], [True, None]]


def log_sigmoid(value: float) -> float:
    return float(np.log(1 / (1 + np.exp(-value))))


def test_steps_of_the_data_and_lines_elsewhere(command: Command, model: Path) -> None:
    """Given steps are taken, a step of two lines too, an unlabelled one is not; texts without steps are cut at line breaks, and that is said."""
    folder = save_parts(model, command.folder / "rm", Step())
    labelled = write_rows(
        command.folder / "steps.jsonl",
        [{"prompt": "why ?", "completions": steps, "labels": labels} for steps, labels in zip(STEPS, LABELS, strict=True)],
    )
    done, lines = score(command, folder, "--data", labelled, name="given")
    assert done.code == 0, done.error
    texts = [[line["response"][start:end] for start, end, _ in line["segments"]] for line in lines]
    assert texts == [STEPS[0], STEPS[1], ["bad"]]
    assert done.result["steps"] == {"answers": 3, "from_data": 3, "by_line": 0, "single_line": 0, "cut": 0}
    for line in lines:
        assert line["score"]["mean"] == pytest.approx(sum(log_sigmoid(part[2]) for part in line["segments"]), abs=1e-5)
    written = write_rows(command.folder / "texts.jsonl", [{"prompt": "why ?", "response": "\n".join(steps), "label": True} for steps in STEPS])
    done, plain = score(command, folder, "--data", written, name="plain")
    assert done.code == 0, done.error
    texts = [[line["response"][start:end] for start, end, _ in line["segments"]] for line in plain]
    assert texts == [["good people", "said", "yes", "bad words"], ["good"], ["bad", "words said"]]
    assert done.result["steps"] == {"answers": 3, "from_data": 0, "by_line": 3, "single_line": 1, "cut": 0}
    assert "3 answers without steps of their own are cut at line breaks, 1 of them are one line and so one step" in done.error
    labels = ([False, True], [None, None])
    others = write_rows(command.folder / "others.jsonl", [{"prompt": "why ?", "completions": STEPS[2], "labels": own} for own in labels])
    done, (both, unjudged) = score(command, folder, "--data", others, name="relabelled")
    assert done.code == 0, done.error
    assert both["segments"][0] == pytest.approx(lines[2]["segments"][0]), "a label says nothing of the score"
    assert unjudged["segments"] == [pytest.approx(part) for part in both["segments"]], "without a labelled step an answer is cut at line breaks"
    assert done.result["steps"] == {"answers": 2, "from_data": 1, "by_line": 1, "single_line": 0, "cut": 0}


def test_an_answer_without_a_whole_step_is_one(command: Command, model: Path) -> None:
    folder = save_parts(model, command.folder / "rm", Step())
    data = write_rows(command.folder / "texts.jsonl", [{"prompt": "why ?", "response": "good people said yes bad words", "label": True}])
    done, (line,) = score(command, folder, "--data", data, "--max-length", "8")
    assert done.code == 0, done.error
    assert line["truncated"]
    assert len(line["segments"]) == 1
    assert done.result["steps"]["cut"] == 1
    assert "no whole step" in done.error


def test_lines() -> None:
    assert lines_of("a\n\n  b c \n") == [CharSpan(0, 1, 0.0), CharSpan(5, 8, 0.0)]
    assert lines_of(" \n") == []


def test_a_step_run_is_scored_as_it_was_tested(command: Command) -> None:
    counts = [1 + row % 2 for row in range(16)]
    rows = [{"prompt": f"why {row} ?", "completions": ["good people", "bad words"][:n], "labels": [True, False][:n]} for row, n in enumerate(counts)]
    data = write_rows(command.folder / "steps.jsonl", rows)
    chosen = ["head:step", "loss:step-labels", "--data", data, "--max-steps", "2", "--lr", "0.01", "--holdout", "0.25", "--examined", "16"]
    assert command.prefer("run", *chosen, command="reward").code == 0
    done, lines = score(command, command.folder / "run", "--data", data)
    assert done.code == 0, done.error
    pairs = read_run(command.folder / "run").pairs
    assert pairs
    for pair in pairs:
        assert lines[pair.row]["score"]["mean"] == pytest.approx(pair.answers["answer"].score, rel=1e-3, abs=2e-5)
    tested = command("eval", "--reward", command.folder / "run", "--data", command.data, "--device", "cpu")
    assert tested.code == 0, tested.error
    assert tested.result["read"][0]["steps"]["by_line"] == 48
    assert "cut at line breaks" in tested.error


def test_the_start_model_must_be_there_and_the_same(command: Command, model: Path) -> None:
    start = shutil.copytree(model, command.folder / "start")
    folder = save_parts(start, command.folder / "rm", Segment())
    blind = save_parts(start, command.folder / "blind", Segment(segmenter=Windows()))
    moved = start.rename(command.folder / "moved")
    gone, _ = score(command, folder)
    assert gone.code != 0
    assert "start_model.source" in gone.error
    assert score(command, blind, name="blind")[0].code == 0, "windows ask no model"
    lm = AutoModelForCausalLM.from_pretrained(moved)
    with torch.no_grad():
        lm.model.norm.weight.mul_(1.5)
    lm.save_pretrained(start)
    AutoTokenizer.from_pretrained(moved).save_pretrained(start)
    changed, _ = score(command, folder)
    assert changed.code != 0
    assert "changed since" in changed.error
    file = folder / "reward_head.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in told.items() if name != "start_model"}))
    unnamed, _ = score(command, folder)
    assert unnamed.code != 0
    assert "names none" in unnamed.error
    assert "Traceback" not in gone.error + changed.error + unnamed.error


def test_what_is_refused(command: Command, model: Path) -> None:
    segment = save_parts(model, command.folder / "segment", Segment(segmenter=Windows(), readout=Last()))
    token = save_reward(model, command.folder / "token", "token", Token())
    for folder, argument, words in (
        (segment, "signal:prefix-difference", "ends of segments"),
        (segment, "signal:attention", "ends of segments"),
        (segment, "signal.scale:by-place", "no scale by place"),
        (segment, "segmenter:tokens", "segments or steps of its own"),
        (token, "signal.spread:repeat", "scores tokens itself"),
    ):
        done, _ = score(command, folder, argument)
        assert done.code == 2
        assert words in done.error
    refused = command("reward", "posterior", segment, "--data", command.data, "--device", "cpu")
    assert refused.code != 0
    assert "ends of segments" in refused.error


def test_a_second_stage_learns_from_segment_scores(command: Command, model: Path) -> None:
    """The targets are the checkpoint's scores, standardised."""
    folder = save_parts(model, command.folder / "rm", Segment(segmenter=EntropyCutoff(cutoff=CUTOFF)))
    _, lines = score(command, folder)
    done = command.prefer("two", "head:gaussian-ensemble", "loss:brme", "--model", folder, "--max-steps", "1", "--holdout", "0", command="reward")
    assert done.code == 0, done.error
    values = np.array([line["score"]["mean"] for line in lines])
    noted = command.record("two")["stage_1"]
    assert (noted["mean"], noted["std"]) == (pytest.approx(values.mean(), abs=1e-5), pytest.approx(values.std(), abs=1e-5))
    (line,) = command.lines("two")
    assert line["head/spread_chosen"] > 0
    for side in ("chosen", "rejected"):
        assert sum(line[f"head/wins/{member}_{side}"] for member in range(5)) == pytest.approx(1.0)
    before, after = (load_file(run / "model.safetensors") for run in (folder, command.folder / "two"))
    backbone = [name for name in before if "score" not in name]
    assert len(backbone) > 5
    assert all(torch.equal(before[name], after[name]) for name in backbone), "the backbone is frozen"
