"""Findings about runs of online RL: each verdict fires on a run made to show it, and none on a healthy one."""

import html
import re
from pathlib import Path

import numpy as np
import pytest

from finegrain.diagnose import online
from finegrain.report.compare import compare_runs
from finegrain.report.online_findings import NO_GOLD, count_alarms, describe_alarms, make_online_findings
from finegrain.report.page import render
from finegrain.report.read import Run, read_run
from tests.report.online import FAULTS, HACKED, PEAK, metrics, rollouts, write_online


def verdicts(run: Run, tone: str = "") -> dict[str, str]:
    return {block.title: block.verdict for block in make_online_findings(run) if not tone or block.tone == tone}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("buffers", [12, 48, 200])
def test_a_healthy_run_raises_no_alarm(tmp_path: Path, buffers: int, seed: int) -> None:
    run = read_run(write_online(tmp_path / "run", metrics(buffers, seed=seed, noise=0.02), rollouts(buffers)))
    assert verdicts(run, "bad") == {}
    assert len(verdicts(run, "good")) == 11
    assert count_alarms(run) == "None of 11 checks calls for attention."
    assert describe_alarms(run) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(tmp_path: Path, fault: str) -> None:
    """And no other: a fault of one kind does not set off the other alarms."""
    run = read_run(
        write_online(tmp_path / "run", metrics(48, FAULTS[fault]), rollouts(48), record={"updates_skipped": 576 if "skipped" in fault else 0})
    )
    assert list(verdicts(run, "bad").values()) == [fault]
    assert make_online_findings(run)[0].verdict == fault, "what calls for attention comes first"
    assert count_alarms(run) == f"1 of {len(verdicts(run))} checks calls for attention: {fault}."
    assert describe_alarms(run)[0].startswith(f"{fault}: ")


def test_answers_that_became_the_same_are_a_collapse(tmp_path: Path) -> None:
    lines = [{name: value for name, value in line.items() if name != "entropy"} for line in metrics(48)]
    run = read_run(write_online(tmp_path / "run", lines, rollouts(48, same=True)))
    assert verdicts(run, "bad") == {"Entropy and variety": online.COLLAPSED}


@pytest.mark.parametrize("seed", range(5))
def test_hacking_is_named_before_gold_has_lost_a_tenth_of_its_rise(tmp_path: Path, seed: int) -> None:
    """The run as it stood when gold had lost a tenth of its rise: PEAK (1 + sqrt 0.1) of the whole."""
    buffers = 120
    at = int(PEAK * (1 + 0.1**0.5) * buffers) - 1
    lines = [line for line in metrics(buffers, HACKED, updates=1, seed=seed) if line["buffer"] <= at]
    run = read_run(write_online(tmp_path / "run", lines))
    assert verdicts(run, "bad") == {"Reward against gold": "reward hacking"}
    block = make_online_findings(run)[0]
    lost = next(shown.value for shown in block.numbers if shown.name == "gold lost since then")
    assert float(lost.split()[0]) < 12
    turning = re.search(r"highest at about buffer (\d+)", block.words)
    assert turning is not None
    assert abs(int(turning[1]) - PEAK * buffers) < 12


def test_without_gold_the_page_says_that_hacking_cannot_be_seen(tmp_path: Path) -> None:
    lines = [{name: value for name, value in line.items() if not name.startswith("gold/")} for line in metrics(48, HACKED)]
    run = read_run(write_online(tmp_path / "run", lines, rollouts(48)))
    assert verdicts(run)["Reward against gold"] == NO_GOLD
    assert verdicts(run, "bad") == {}
    assert count_alarms(run) == "None of 10 checks calls for attention. Reward hacking was not checked: there is no gold score."
    assert "--gold R" in html.unescape(render([run]))
    assert "--gold R" in describe_alarms(run)[0], "the terminal says it, too"


def test_a_terminal_reward_has_no_density_to_lose(tmp_path: Path) -> None:
    run = read_run(write_online(tmp_path / "run", metrics(48, FAULTS["density erased"]), rollouts(48, dense=False)))
    assert verdicts(run)["Density of the advantage"] == online.TERMINAL
    without = read_run(write_online(tmp_path / "bare", metrics(48, FAULTS["density erased"]), settings={"credit": {"choice": "terminal"}}))
    assert verdicts(without)["Density of the advantage"] == online.TERMINAL
    dense = read_run(write_online(tmp_path / "dense", metrics(48, FAULTS["density erased"])))
    assert verdicts(dense)["Density of the advantage"] == online.ERASED


def test_dead_groups_are_no_alarm_for_an_algorithm_that_does_not_compare_within_groups(tmp_path: Path) -> None:
    lines = metrics(48, FAULTS["most groups dead"])
    run = read_run(write_online(tmp_path / "run", lines, settings={"algorithm": {"method": "ppo"}}))
    assert verdicts(run)["Groups without a difference"] == online.SOME_DEAD


def test_a_reward_that_does_not_rise_with_the_sum_is_named(tmp_path: Path) -> None:
    lines = [{**line, **({"rewards/correct/mean": 0.01 * (line["step"] % 3)} if "buffer" in line else {})} for line in metrics(48)]
    run = read_run(write_online(tmp_path / "run", lines))
    words = next(block.words for block in make_online_findings(run) if block.title == "Reward")
    assert "Not so correct: what rises is the rest of the sum." in words
    assert "helpful" not in words
    assert "with algorithm grpo, credit prefix-difference and reward rules.py:helpful, 192 steps" in html.unescape(render([run]))


def test_a_run_of_a_few_buffers_and_one_of_bare_lines(tmp_path: Path) -> None:
    """Trends are not judged; shares are. What was not logged is not spoken of."""
    few = read_run(write_online(tmp_path / "few", metrics(3, FAULTS["most answers cut"])))
    assert verdicts(few)["Reward"] == online.TOO_FEW
    assert verdicts(few)["Truncation"] == online.MOST_CUT
    bare = read_run(write_online(tmp_path / "bare", [{"step": step, "buffer": step - 1, "reward": 0.5} for step in range(1, 30)]))
    assert list(verdicts(bare)) == ["Reward", "Reward against gold"]
    assert "nan" not in render([few]).split('id="data"')[0].lower().replace("finance", "")


def test_every_number_has_an_interval_or_a_reason(tmp_path: Path) -> None:
    run = read_run(write_online(tmp_path / "run", metrics(48, HACKED), rollouts(48)))
    shown = [shown for block in make_online_findings(run) for shown in block.numbers]
    assert len(shown) > 20
    assert [entry for entry in shown if not re.search(r"\d.* to |no interval|recorded", entry.interval)] == []


def test_held_out_prompts_before_and_after_are_those_of_the_record(tmp_path: Path) -> None:
    results = {"eval_reward": {"mean": 0.4, "low": 0.3, "high": 0.5, "rows": 20}}
    record = {"evaluation_before": {"eval_reward": {"mean": 0.2, "low": 0.1, "high": 0.3, "rows": 20}}, "evaluation": results}
    run = read_run(write_online(tmp_path / "run", metrics(12), record=record))
    block = next(block for block in make_online_findings(run) if block.title == "Reward")
    assert [(shown.value, shown.interval) for shown in block.numbers if "held-out" in shown.name] == [
        ("0.2", "0.1 to 0.3, 20 rows"),
        ("0.4", "0.3 to 0.5, 20 rows"),
    ]


def test_strange_numbers_do_not_stop_the_page(tmp_path: Path) -> None:
    lines = [{"step": step, "buffer": step - 1, "reward": np.inf, "kl": np.nan, "gold/x/mean": -np.inf, "entropy": "low"} for step in range(1, 15)]
    text = render([read_run(write_online(tmp_path / "run", lines))])
    assert "no answer judged" in text


def test_two_runs_are_compared_at_equal_kl(tmp_path: Path) -> None:
    """The run that buys the same reward with half the KL has more of it at every KL; gold is compared where both have it."""
    near = read_run(write_online(tmp_path / "near", metrics(48, {"kl": lambda t: 0.1 * t, "reward": lambda t: t})))
    far = read_run(write_online(tmp_path / "far", metrics(48, {"kl": lambda t: 0.2 * t, "reward": lambda t: t})))
    lines = compare_runs([near, far])
    start = next(place for place, line in enumerate(lines) if line.name == "At equal KL")
    rewards = [line.cells for line in lines[start + 1 :] if line.name.startswith("reward, KL")]
    assert len(rewards) == 4
    for one, other in rewards[1:]:
        assert float(one[0]) > float(other[0]) * 1.5
        assert "buffers" in one[1]
    assert any(line.name.startswith("gold judge, KL") for line in lines)
    assert not any("paired by row" in line.name for line in lines)
