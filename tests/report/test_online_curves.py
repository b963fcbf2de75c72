"""Charts of online RL: which are drawn, on which scale, with which marks, and what hostile names do to them."""

from pathlib import Path

import numpy as np

from finegrain.report.charts import Chart
from finegrain.report.online_curves import draw_online_curves
from finegrain.report.page import render
from finegrain.report.read import read_run
from tests.report.online import HACKED, metrics, rollouts, write_online
from tests.report.test_page import HOSTILE, Elements


def charts(folder: Path, **given: object) -> dict[str, Chart]:
    return {drawn.title: drawn for drawn in draw_online_curves([read_run(write_online(folder, metrics(48, **given)))])}  # type: ignore[arg-type]


def test_what_is_drawn(tmp_path: Path) -> None:
    found = charts(tmp_path / "run")
    for title in ("Reward and gold", "KL, nats per token", "Length of answers, tokens", "Updates of each buffer", "Reward against KL"):
        assert title in found
    assert [line[0] for line in found["Reward and gold"].legend] == ["reward", "gold judge"]
    assert [line[0] for line in found["KL, nats per token"].legend] == ["to the leash's reference", "start"]
    assert "buffer 47" in found["Reward and gold"].svg
    assert "band" in found["Reward on held-out prompts, with its interval"].svg
    assert "faint" in found["Reward and gold"].svg
    assert "Answers not judged" not in found, "there were none"
    assert "Rewards by name" not in found, "there is one"


def test_numbers_of_each_reward_are_drawn_under_its_name(tmp_path: Path) -> None:
    """Rewards, and how the rewards were weighed where they are kept apart."""
    numbers = {
        f"{start}{name}{end}": (lambda t: 0.2 + 0.3 * t) for start, end in (("rewards/", "/mean"), ("pama/c/", "")) for name in ("good", "short")
    }
    found = charts(tmp_path / "run", changed=numbers)
    assert {"good", "short"} < {line[0] for line in found["Rewards by name"].legend}
    assert [line[0] for line in found["Weights of the rewards (PAMA)"].legend] == ["good", "short"]
    assert "Weights of the rewards (MGDA)" not in found


def test_gold_on_another_scale_is_rescaled(tmp_path: Path) -> None:
    found = charts(tmp_path / "run", changed={"gold/judge/mean": lambda t: 40 + 30 * t})
    title = "Reward and gold, each 0 at its start and 1 at its largest move"
    assert title in found
    assert [line[4] for line in found[title].legend] == ["1", "1"]


def test_where_gold_turns_is_marked_only_where_it_falls(tmp_path: Path) -> None:
    assert "gold highest" in charts(tmp_path / "hacked", changed=HACKED)["Reward and gold"].svg
    assert "gold highest" not in charts(tmp_path / "healthy")["Reward and gold"].svg


def test_where_the_time_went_adds_up(tmp_path: Path) -> None:
    found = next(drawn for title, drawn in charts(tmp_path / "run").items() if title.startswith("Where"))
    shares = [float(value.split(", ")[1].split()[0]) for _, _, _, value, _ in found.legend]
    assert np.isclose(sum(shares), 100, atol=0.2)
    assert found.title == f"Where {round(9.4 * 48)} seconds went" or abs(float(found.title.split()[1]) - 9.4 * 48) < 10


def test_no_buffers_no_charts(tmp_path: Path) -> None:
    assert draw_online_curves([read_run(write_online(tmp_path / "run", [{"step": 1, "loss": 0.1}]))]) == []


def test_hostile_names_and_texts_are_text(tmp_path: Path) -> None:
    """In names of rewards, gold scores and references, in prompts, answers, ends and settings."""
    lines = [{**line, f"rewards/{HOSTILE}/mean": 0.1, f"gold/{HOSTILE}/mean": 0.2, f"kl/{HOSTILE}": 0.1} for line in metrics(24)]
    given = [
        {
            **line,
            "prompt": HOSTILE + line["prompt"],
            "text": line["text"] + HOSTILE,
            "ended": HOSTILE,
            "rewards": {HOSTILE: 1.0},
            "gold": {HOSTILE: 1.0},
        }
        for line in rollouts(24)
    ]
    clean = Elements(render([read_run(write_online(tmp_path / "clean", metrics(24), rollouts(24)))]))
    page = render([read_run(write_online(tmp_path / "run", lines, given, settings={"algorithm": {"method": HOSTILE}}))] * 2)
    found = Elements(page)
    assert len(found.of("script")) == len(clean.of("script")) == 2
    assert found.of("img") == []
    assert "alert(1)" in page
    assert not any("src" in attributes or any(name.startswith("on") for name in attributes) for _, attributes in found.found)
    assert not any(sign in page for sign in "\u202a\u202e\u2028\u200b\x00")
