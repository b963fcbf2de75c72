"""`finegrain online --baseline`: what is subtracted, when it changes nothing, what is refused. Test of recipes/rollouts/baselines.py."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finegrain.credit.reward_signals import Head, PrefixDifference, Terminal
from finegrain.data.findings import Findings
from finegrain.data.questions import Question
from finegrain.data.records import Answer, Row
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.errors import DataError, UsageError
from finegrain.models.load import load_own_tokenizer
from finegrain.ops.aggregate import PerSample
from finegrain.ops.baseline import AboveOnly, BaselineStd, Difference, Max
from finegrain.recipes.rollouts.baselines import PromptBaselines, open_baselines
from finegrain.recipes.rollouts.prompts import Prompt
from finegrain.recipes.rollouts.rewards import Rewards, open_rewards
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.sequence import Sequence
from finegrain.scoring.records import Candidates
from finegrain.scoring.runtime import open_runtime
from tests.recipes.command import Command
from tests.recipes.online_runs import COUNTS_E, online, write_reward
from tests.recipes.reward_folder import save_reward
from tests.tiny import write_rows
from tests.train.harness import largest_difference

PROMPTS = [f"why {'so ' * (place % 3)}{place} ?" for place in range(12)]
SHORT = ["--max-steps", "2"]


def table(command: Command, prompts: list[str], *of: str | Path, name: str = "baseline.jsonl") -> Path:
    """Scores of fixed answers; the first prompt's come in two rows."""
    answers = ["the cat sat", "three eels eat", "eee eee"]
    rows = [{"prompt": prompt, "responses": answers} for prompt in prompts] + [{"prompt": prompts[0], "responses": ["eeeeeeee"]}]
    out = command.folder / name
    device = [] if "--reward" in of else ["--device", "cpu"]
    done = command("score", "baseline", "--data", write_rows(command.folder / "samples.jsonl", rows), "--out", out, *device, *of)
    assert done.code == 0, done.error
    return out


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_with_a_baseline(command: Command) -> None:
    reward = write_reward(command.folder, COUNTS_E)
    baseline = table(command, PROMPTS, "--reward", reward)
    asked = ["--baseline", baseline, "contrast.aggregate:max", "algorithm:ppo", *SHORT]
    done = online(command, "run", "--reward", reward, *asked)
    assert done.code == 0, done.error
    assert "baseline of reward: 37 scores of 12 prompts" in done.error
    line = lines_of(command.folder / "run")[0]
    plain = line["reward"]
    assert {"contrast/reward/mean", "contrast/reward/above"} <= line.keys()
    assert line["contrast/reward/mean"] <= plain - 5 / 8 + 1e-9  # the best of three answers has five letters e, or more
    assert 0 <= line["contrast/reward/above"] <= 1
    record = json.loads((command.folder / "run" / "run.json").read_text())
    (told,) = record["rewards"]["baselines"]
    assert (told["name"], told["prompts"], told["contrast"]["aggregate"]["choice"]) == ("baseline of reward", 12, "max")


@pytest.mark.parametrize(
    "asked", [["algorithm:rloo"], pytest.param(["algorithm:grpo", "--algorithm.epochs", "2"], marks=pytest.mark.slow)], ids=" ".join
)
def test_under_group_means_the_model_is_the_same(command: Command, asked: list[str]) -> None:
    reward = write_reward(command.folder, COUNTS_E)
    baseline = table(command, PROMPTS, "--reward", reward)
    for name, more in (("plain", []), ("relative", ["--baseline", baseline])):
        done = online(command, name, "--reward", reward, *asked, *SHORT, *more)
        assert done.code == 0, done.error
    one, other = (load_file(command.folder / name / "model.safetensors") for name in ("plain", "relative"))
    assert largest_difference(one, other) < 1e-6
    assert "contrast/reward/mean" in lines_of(command.folder / "relative")[0]


def test_a_changed_table_is_refused_on_resume(command: Command) -> None:
    reward = write_reward(command.folder, COUNTS_E)
    baseline = table(command, PROMPTS, "--reward", reward)
    asked = ["--reward", reward, "--baseline", baseline, "algorithm:grpo"]
    assert online(command, "run", *asked, "--max-steps", "1").code == 0
    baseline.write_text(baseline.read_text() + json.dumps({"prompt": "another", "scores": [1.0]}) + "\n")
    record = json.loads((command.folder / "run" / "run.json").read_text())
    (command.folder / "run" / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    done = online(command, "run", *asked, "--max-steps", "1", "--resume")
    assert done.code != 0
    assert "baseline of reward" in done.error


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["contrast:above-only"], "give --baseline"),
        (["--baseline", "missing.jsonl"], "cannot read the baseline"),
    ],
    ids=str,
)
def test_settings_that_contradict_themselves(command: Command, asked: list[str], words: str) -> None:
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:grpo", *asked, *SHORT)
    assert done.code != 0
    assert words in done.error


def test_a_prompt_that_is_missing_is_named(command: Command) -> None:
    reward = write_reward(command.folder, COUNTS_E)
    baseline = table(command, [prompt for prompt in PROMPTS if "7" not in prompt], "--reward", reward)
    done = online(command, "run", "--reward", reward, "--baseline", baseline, "--holdout", "0", "algorithm:grpo", *SHORT)
    assert done.code != 0
    assert "lacks 1 of 12 prompts: 'why so 7 ?'" in done.error
    assert not (command.folder / "run").exists()


def test_another_reward_is_refused(command: Command) -> None:
    baseline = table(command, PROMPTS, "--reward", write_reward(command.folder, COUNTS_E))
    other = write_reward(command.folder, COUNTS_E.replace("8", "9"), "other")
    done = online(command, "run", "--reward", other, "--baseline", baseline, "algorithm:grpo", *SHORT)
    assert done.code != 0
    assert "scores of another reward" in done.error
    assert "file" in done.error


@pytest.fixture
def judge(command: Command, model: Path) -> Path:
    return save_reward(model, command.folder / "rm", "sequence", Sequence())


def prompts_of(model: Path, *texts: str) -> list[Prompt]:
    tokenizer = load_own_tokenizer(str(model))
    rows = [Row(prompt=text, answers={"answer": Answer(content="x")}) for text in texts]
    examples = list(tokenise(enumerate(rows), tokenizer, Tokenise(max_length=64), Findings()))
    return [
        Prompt(Question(number, {"prompt": text}, row), example)
        for number, (text, row, example) in enumerate(zip(texts, rows, examples, strict=True))
    ]


def opened(*sources: str | Path, **more: Any) -> Rewards:
    return open_rewards([str(one) for one in sources], runtime=lambda: open_runtime("cpu", "float32"), max_length=64, **more)


def baselines(model: Path, rewards: Rewards, *files: Path, contrast: Any = None) -> PromptBaselines:
    found = open_baselines(files, contrast or Difference(), rewards, prompts_of(model, *PROMPTS[:3]), load_own_tokenizer(str(model)))
    assert found is not None
    return found


def test_a_reward_model_and_a_function_each_have_their_own(command: Command, model: Path, judge: Path) -> None:
    function = write_reward(command.folder, COUNTS_E)
    of_model = table(command, PROMPTS, "--model", judge, "--max-length", "64", name="model.jsonl")
    of_function = table(command, PROMPTS, "--reward", function, name="function.jsonl")
    found = baselines(model, opened(function, "column:quality", judge), of_model, of_function)
    scores = {json.loads(line)["prompt"]: json.loads(line)["scores"] for line in of_model.read_text().splitlines()[1:]}
    rows = found.read([Candidates(row=1), Candidates(row=0), Candidates(row=1)])
    assert rows.baseline.shape == (3, 3)
    assert bool(rows.baseline[:, 1].isnan().all())
    assert rows.baseline[0, 0] == pytest.approx((1 + 5 + 6) / 8 / 3)
    assert rows.baseline[1, 0] == pytest.approx((1 + 5 + 6 + 8) / 8 / 4)  # rows of one prompt are one
    assert rows.baseline[0, 2] == pytest.approx(sum(scores[PROMPTS[1]]) / 3)
    assert rows.baseline_scale.tolist() == [[1.0] * 3] * 3
    scaled = baselines(model, opened(function), of_function, contrast=AboveOnly(aggregate=Max(), scale=BaselineStd(floor=10.0)))
    assert scaled.above_only
    assert scaled.read([Candidates(row=1)]).baseline_scale.tolist() == [[10.0]]
    assert scaled.read([Candidates(row=1)]).baseline[0, 0] == pytest.approx(6 / 8)
    assert scaled.read([]).baseline.shape == (0, 1)


def test_two_files_of_one_reward_are_joined(command: Command, model: Path) -> None:
    function = write_reward(command.folder, COUNTS_E)
    one, other = (table(command, PROMPTS, "--reward", function, name=f"{name}.jsonl") for name in ("one", "other"))
    found = baselines(model, opened(function), one, other).read([Candidates(row=2)])
    assert found.baseline[0, 0] == pytest.approx((1 + 5 + 6) / 8 / 3)


def test_what_a_table_cannot_say(command: Command, model: Path, judge: Path) -> None:
    of_model = table(command, PROMPTS, "--model", judge, "--max-length", "64", name="model.jsonl")
    for credit in (Head(), PrefixDifference()):
        rewards = opened(judge, credit=Terminal())
        with pytest.raises(UsageError, match="do not add up"):
            open_baselines([of_model], Difference(), Rewards(tuple(_dense(one) for one in rewards.rewards), (1.0,), credit, None), [], None)
    with pytest.raises(UsageError, match="max_length"):
        baselines(model, opened(judge), table(command, PROMPTS, "--model", judge, "--max-length", "63", name="short.jsonl"))
    single = write_rows(command.folder / "single.jsonl", [{"prompt": prompt, "responses": ["e"]} for prompt in PROMPTS])
    function = write_reward(command.folder, COUNTS_E)
    assert command("score", "baseline", "--reward", function, "--data", single, "--out", command.folder / "one.jsonl").code == 0
    with pytest.raises(UsageError, match="one baseline score has no standard deviation"):
        baselines(model, opened(function), command.folder / "one.jsonl", contrast=Difference(scale=BaselineStd()))
    with pytest.raises(DataError, match="lacks"):
        open_baselines(
            [command.folder / "one.jsonl"], Difference(), opened(function), prompts_of(model, "unheard of"), load_own_tokenizer(str(model))
        )


def _dense(one: Any) -> Any:
    return replace(one, on_tokens=True)


def test_the_penalised_reward_has_a_baseline_of_its_own(command: Command, model: Path) -> None:
    folder = save_reward(model, command.folder / "ensemble", "ensemble", Ensemble(members=3))
    plain = table(command, PROMPTS, "--model", folder, "--max-length", "64", name="plain.jsonl")
    least = table(command, PROMPTS, "--model", folder, "--max-length", "64", "aggregate:per-sample", name="least.jsonl")
    rewards = opened(folder, aggregate=PerSample())
    with pytest.raises(UsageError, match="aggregate"):
        baselines(model, rewards, plain)
    low = baselines(model, rewards, least).read([Candidates(row=1)]).baseline
    mean = baselines(model, opened(folder), plain).read([Candidates(row=1)]).baseline
    assert float(low) < float(mean)
