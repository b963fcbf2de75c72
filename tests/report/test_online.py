"""Reading a run of online RL: lines by buffer, sampled answers, what is damaged, doubled or absent."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import CheckpointError
from finegrain.report.online import collect_buffers, distinct_shares, read_rollouts
from finegrain.report.read import read_run
from tests.report.online import answer, metrics, rollouts, write_online


def test_lines_belong_to_the_buffer_named_last() -> None:
    """Means of what several lines say, sums of seconds and of unjudged answers; what stands before the first buffer belongs to it."""
    found = collect_buffers(
        [
            {"step": 0, "eval_reward": 0.1},
            {"step": 1, "buffer": 0, "reward": 1.0, "loss": 0.2, "clip_ratio/region_mean": 0.0, "seconds/update": 1.0, "updates_skipped": 0},
            {"step": 2, "loss": 0.1, "clip_ratio/region_mean": 0.2, "seconds/update": 2.0, "unjudged": 3},
            {"step": 5, "buffer": 2, "reward": float("nan"), "loss": 0.1, "words": "no number", "flag": True, "updates_skipped": 2},
        ],
        skipped=5,
    )
    assert found is not None
    assert found.buffers.tolist() == [0, 2]
    assert found.read("reward")[0] == 1.0
    assert found.read("clip_ratio/region_mean")[0] == pytest.approx(0.1)
    assert found.read("seconds/update")[0] == 3.0
    assert found.read("eval_reward")[0] == 0.1
    assert found.read("unjudged")[0] == 3
    assert np.isnan(found.read("reward")[1])
    assert found.taken.tolist() == [2.0, 1.0]
    assert found.skipped.tolist() == [2.0, 3.0], "the count so far, then the run's total"
    assert collect_buffers([{"step": 1, "buffer": 0, "advantage/density": 7e-33}]).read("advantage/density").tolist() == [0.0]  # type: ignore[union-attr]
    assert not found.has("words")
    assert not found.has("flag")
    assert collect_buffers([{"step": 1, "loss": 0.1}]) is None


def test_names_of_gold_and_of_references() -> None:
    lines = [{"step": 1, "buffer": 0, "approx_kl": 0.1, "kl/answer": 0.1, "kl/soup": 0.2, "kl": 0.3, "gold/judge/mean": 0.5, "eval_gold/judge": 0.4}]
    found = collect_buffers(lines)
    assert found is not None
    assert found.references() == ["kl", "kl/soup"]
    assert list(found.golds()) == ["judge"]
    assert found.golds()["judge"].tolist() == [0.5]
    only_held_out = collect_buffers([{"step": 1, "buffer": 0, "eval_gold/judge": 0.4}])
    assert only_held_out is not None
    assert only_held_out.golds()["judge"].tolist() == [0.4]


def test_answers_of_a_resumed_run_count_once_and_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    twice = [answer(0, 1, "first try"), answer(0, 1, "second try"), answer(0, 2, "another")]
    folder = write_online(tmp_path / "run", metrics(12), twice)
    file = folder / "rollouts.jsonl"
    file.write_text(file.read_text() + json.dumps(answer(1, 1, "cut short"))[:-9])
    found = read_rollouts(folder)
    assert [each.text for each in found] == ["second try", "another"]
    assert found[0].dense
    assert found[0].reward == pytest.approx(found[0].rewards["helpful"])


@pytest.mark.parametrize(
    "line", ['{"buffer": 0}', "[1]", '{"buffer": 0, "row": 1, "prompt": "", "text": "ab", "spans": [[0, 3, 1, 1, 1]]}', "nonsense"]
)
def test_a_damaged_answer_is_named(tmp_path: Path, line: str) -> None:
    folder = write_online(tmp_path / "run", metrics(12))
    (folder / "rollouts.jsonl").write_text(line + "\n" + json.dumps(answer(0, 1, "fine")) + "\n")
    with pytest.raises(CheckpointError, match=r"rollouts.jsonl:1 is not a sampled answer"):
        read_run(folder)


def test_what_is_not_known_is_nan(tmp_path: Path) -> None:
    bare = {
        "buffer": 0,
        "row": 1,
        "prompt": "",
        "text": "ab",
        "rewards": {"helpful": None},
        "spans": [[0, 1, None, 0.5, None], [1, 2, 0.0, 0.5, None]],
    }
    found = read_rollouts(write_online(tmp_path / "run", metrics(12), [bare]))[0]
    assert math.isnan(found.reward)
    assert math.isnan(found.advantage)
    assert np.isnan(found.signals["kl"]).all()
    assert not found.dense


def test_distinct_texts_are_counted_where_a_buffer_has_enough(tmp_path: Path) -> None:
    assert distinct_shares([]).tolist() == []
    found = read_rollouts(write_online(tmp_path / "run", metrics(12), rollouts(9, same=True)))
    shares = distinct_shares(found)
    assert shares[0] == 1.0
    assert shares[-1] == 0.2
    assert distinct_shares(found[:3]).tolist() == []


def test_what_a_run_lacks_is_said(tmp_path: Path) -> None:
    run = read_run(write_online(tmp_path / "run", [{"step": 1, "loss": 0.3}], record={"status": "interrupted", "reason": "stopped"}))
    words = " ".join(run.missing)
    assert "no line of metrics.jsonl names a buffer" in words
    assert "rollouts.jsonl is absent" in words
    assert "stopped" in words
    assert "pairs.jsonl" not in words
