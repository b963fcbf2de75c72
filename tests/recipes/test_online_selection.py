"""`finegrain online` with a selection, a mask and --filters. Test of recipes/online.py, recipes/rollouts/filters.py."""

import json
from pathlib import Path

import pytest

from finegrain.recipes.rollouts.source import OnlineSource
from tests.recipes.command import Command
from tests.recipes.online_runs import COUNTS_E, NOISY, online, write_reward
from tests.recipes.test_online import DENSE, SHORT, lines_of
from tests.recipes.test_online_resume import INSIDE, stop_after
from tests.tiny import without_times

GOLD = "def reward(completions, **columns):\n    return [text.count('e') / 8 - len(text) / 500 for text in completions]\n"


def test_a_selection_reaches_the_updates(command: Command) -> None:
    asked = ["--reward", write_reward(command.folder, COUNTS_E), "algorithm:ppo", "--algorithm.epochs", "1", "--max-steps", "3"]
    done = online(command, "run", *asked, "selection:best-worst", "selection.draw:subset", "--selection.no-drop-ties")
    assert done.code == 0, done.error
    for line in lines_of(command.folder / "run"):
        assert line["selection/rows"] == 4.0
        assert line["selection/kept"] == 0.5
        assert line["selection/ties"] in (0.0, 1.0, 2.0)


def test_a_buffer_without_a_difference_trains_nothing_and_says_so(command: Command) -> None:
    same = "def reward(completions, **columns):\n    return [0.5 for _ in completions]\n"
    done = online(command, "run", "--reward", write_reward(command.folder, same), "algorithm:grpo", "selection:best-random", *SHORT)
    assert done.code == 0, done.error
    assert "keeps no answer" in done.error
    assert json.loads((command.folder / "run" / "run.json").read_text())["updates_skipped"] == 2


def test_a_run_with_draws_goes_on_inside_a_buffer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["--reward", write_reward(command.folder, NOISY), "selection:even", "--selection.no-drop-ties", *INSIDE]
    monkeypatch.setenv("RUN_OF_THE_TEST", str(command.folder / "whole"))
    assert online(command, "whole", *asked).code == 0
    monkeypatch.setenv("RUN_OF_THE_TEST", str(command.folder / "cut"))
    stop_after(command, "cut", monkeypatch, 3, *asked)
    restored = []
    honest = OnlineSource.restore

    def restore(self: OnlineSource, *arguments: object) -> None:
        honest(self, *arguments)  # type: ignore[arg-type]
        assert self.buffer is not None
        restored.append(list(self.buffer.rows))

    monkeypatch.setattr(OnlineSource, "restore", restore)
    assert online(command, "cut", *asked, "--resume").code == 0
    assert restored
    assert restored[0] != list(range(8))  # drawn with replacement: some twice, some not
    whole, cut = command.folder / "whole", command.folder / "cut"
    assert without_times(lines_of(whole)) == without_times(lines_of(cut))
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()


def test_appo_needs_rewards_on_tokens_and_trains_with_them(command: Command) -> None:
    dense = online(command, "run", "--reward", write_reward(command.folder, DENSE), "algorithm:ppo", "mask:appo", "mask.segmenter:tokens", *SHORT)
    assert dense.code == 0, dense.error
    line = lines_of(command.folder / "run")[0]
    assert 0 <= float(str(line["mask/kept"])) < 1
    flat = online(command, "flat", "--reward", write_reward(command.folder, COUNTS_E, "flat"), "algorithm:ppo", "mask:appo", *SHORT)
    assert flat.code != 0
    assert "credit:head" in flat.error
    assert "Traceback" not in flat.error


def test_filters_are_ranked_on_the_start_model(command: Command) -> None:
    gold = write_reward(command.folder, GOLD, "gold")
    asked = ["--reward", write_reward(command.folder, COUNTS_E), "algorithm:ppo", "--filters"]
    done = online(command, "run", *asked, "--gold", gold, "selection:top-bottom", "--selection.top", "0.3", "--selection.bottom", "0.1")
    assert done.code == 0, done.error
    assert not Path(command.folder / "run").exists()
    found = done.result
    assert (found["status"], found["answers"], found["judged"]) == ("filters", 32, 32)
    assert {"none", "best-only", "best-random", "best-worst", "power-1", "power-2", "power-3", "selection"} == found["filters"].keys()
    assert found["filters"]["selection"]["selection"]["top"] == 0.3
    numbers = {name: one["r2"] for name, one in found["filters"].items() if one["r2"] is not None}
    assert numbers["none"] > 0.5
    assert found["largest"] == max(numbers, key=numbers.__getitem__)
    assert "<- largest" in done.error
    missing = online(command, "run", *asked)
    assert missing.code != 0
    assert "--gold" in missing.error
