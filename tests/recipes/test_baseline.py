"""A baseline's table, scores relative to it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import finegrain
from finegrain.ops.baseline import AboveOnly, Max
from finegrain.recipes.score_files.baseline_table import HEADER
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from tests.recipes.command import Command, Outcome
from tests.recipes.reward_folder import save_reward
from tests.tiny import write_rows

FUNCTIONS = """
def length(prompts, completions, **columns):
    completions = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
    return [None if "skip" in text else float(len(text)) for text in completions]

def other(prompts, completions, **columns):
    return [float(len(text)) for text in completions]

def labelled(prompts, completions, key, **columns):
    return [float(one) for one in key]
"""
SAMPLES = [
    {"prompt": "why ?", "responses": ["xx", "xxxx", "xxxxxx"], "key": 3},
    {"prompt": "and", "responses": ["xxx"], "key": 4},
    {"prompt": "why ?", "responses": ["xxxxxxxx"], "key": 5},
]


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def mine(command: Command) -> Path:
    file = command.folder / "mine.py"
    file.write_text(FUNCTIONS)
    return file


@pytest.fixture
def samples(command: Command) -> Path:
    return write_rows(command.folder / "samples.jsonl", SAMPLES)


@pytest.fixture
def judge(command: Command, model: Path) -> Path:
    return save_reward(model, command.folder / "rm", "sequence", Sequence())


def made(command: Command, data: Path, *arguments: str | Path, name: str = "baseline.jsonl") -> Path:
    """A baseline that must succeed."""
    out = command.folder / name
    device = [] if "--reward" in arguments else ["--device", "cpu"]
    done = command("score", "baseline", "--data", data, "--out", out, *device, *arguments)
    assert done.code == 0, done.error
    assert done.result["prompts"] == len(lines_of(out)) - 1
    return out


def score(command: Command, data: Path, *arguments: str | Path, name: str = "scores.jsonl") -> Outcome:
    return command("score", "--data", data, "--out", command.folder / name, "--device", "cpu", *arguments)


def scored(command: Command, data: Path, *arguments: str | Path, name: str = "scores.jsonl") -> tuple[list[dict[str, Any]], Outcome]:
    done = score(command, data, *arguments, name=name)
    assert done.code == 0, done.error
    return [line["score"] for line in lines_of(command.folder / name)], done


def test_a_table_joins_rows_of_one_prompt(command: Command, samples: Path, mine: Path) -> None:
    out = command.folder / "baseline.jsonl"
    done = command("score", "baseline", "--reward", f"{mine}:length", "--data", samples, "--out", out)
    assert done.code == 0, done.error
    header, why, and_ = lines_of(out)
    assert header[HEADER]["kind"] == "function"
    assert why == {"prompt": "why ?", "scores": [2.0, 4.0, 6.0, 8.0], "mean": 5.0, "std": pytest.approx((20 / 3) ** 0.5), "count": 4}
    assert and_ == {"prompt": "and", "scores": [3.0], "mean": 3.0, "std": None, "count": 1}
    assert {name: done.result[name] for name in ("prompts", "answers", "rows", "unscored")} == {"prompts": 2, "answers": 5, "rows": 3, "unscored": 0}
    assert done.result["mean"]["mean"] == 4.0
    assert done.result["std_between_prompts"] == pytest.approx(2**0.5)
    assert done.result["std_within_prompts"] == pytest.approx((20 / 3) ** 0.5)


def test_relative_scores_and_their_summary(command: Command, samples: Path, mine: Path) -> None:
    """Lengths less 5 and 3; intervals are over prompts, an answer without a baseline has null and is named."""
    table = made(command, samples, "--reward", f"{mine}:length")
    rows = [
        {"prompt": "why ?", "chosen": "x" * 9, "rejected": "x" * 4},
        {"prompt": "and", "chosen": "x" * 5, "rejected": "skip"},
        {"prompt": "new", "chosen": "x", "rejected": "xx"},
        {"prompt": "why ?", "chosen": "x" * 5, "rejected": "x" * 7},
    ]
    data = write_rows(command.folder / "pairs.jsonl", rows)
    found, done = scored(command, data, "--reward", f"{mine}:length", "--baseline", table)
    assert [one["relative"] for one in found] == [4.0, -1.0, 2.0, None, None, None, 0.0, 2.0]
    chosen = done.result["relative"]["chosen"]
    assert (chosen["mean"]["mean"], chosen["mean"]["rows"]) == (2.0, 2), "prompts have (4 + 0) / 2 and 2"
    assert chosen["above"]["mean"] == pytest.approx((0.5 + 1) / 2), "0 is not above"
    assert chosen["win_rate"]["mean"] == pytest.approx(((1 + 0.5) / 2 + 1) / 2)
    assert chosen["above"]["low"] < chosen["above"]["mean"] < chosen["above"]["high"]
    rejected = done.result["relative"]["rejected"]
    assert rejected["mean"] == {"mean": 0.5, "low": None, "high": None, "rows": 1}
    assert rejected["win_rate"]["mean"] == pytest.approx((1.5 / 4 + 3 / 4) / 2), "4 ties once"
    assert done.result["without_baseline"] == {"answers": 2, "prompts": 1, "first": ["2/chosen", "2/rejected"]}
    assert "no baseline for 2 answers to 1 prompts" in done.error
    assert "2/chosen" in done.error
    assert done.result["unscored"] == 1
    assert "chosen: relative score 2 (" in done.error


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["contrast:above-only"], [4.0, 0.0]),
        (["contrast:difference", "contrast.aggregate:max"], [1.0, -4.0]),
        (["contrast.aggregate:min"], [7.0, 2.0]),
        (["contrast.aggregate:quantile", "--contrast.aggregate.level", "0.9"], [9 - 7.4, 4 - 7.4]),
        (["contrast.scale:baseline-std"], [4 / (20 / 3) ** 0.5, -1 / (20 / 3) ** 0.5]),
        (["contrast.scale:baseline-std", "--contrast.scale.floor", "8"], [0.5, -0.125]),
        (["contrast:above-only", "contrast.aggregate:min", "contrast.scale:baseline-std", "--contrast.scale.floor", "4"], [1.75, 0.5]),
    ],
)
def test_settings_are_read(command: Command, mine: Path, arguments: list[str], want: list[float]) -> None:
    samples = write_rows(command.folder / "samples.jsonl", [{"prompt": "why ?", "responses": ["xx", "xxxx", "xxxxxx", "xxxxxxxx"]}])
    table = made(command, samples, "--reward", f"{mine}:length")
    data = write_rows(command.folder / "pairs.jsonl", [{"prompt": "why ?", "chosen": "x" * 9, "rejected": "x" * 4}])
    found, _ = scored(command, data, "--reward", f"{mine}:length", "--baseline", table, *arguments)
    assert [one["relative"] for one in found] == pytest.approx(want)


def test_a_reward_model_scores_its_baseline_as_it_scores_answers(command: Command, judge: Path) -> None:
    """Ragged samples of a prompt, one at a time or together, have the scores that `score` gives; the mean of them is subtracted."""
    answers = {"why ?": [" so it is", " the cat sat on the mat", " yes"], "and": [" good people", " bad"], "the dog": [" ran"]}
    samples = write_rows(command.folder / "samples.jsonl", [{"prompt": prompt, "responses": own} for prompt, own in answers.items()])
    table = made(command, samples, "--model", judge)
    flat = [(prompt, answer) for prompt, own in answers.items() for answer in own]
    data = write_rows(command.folder / "rows.jsonl", [{"prompt": prompt, "completion": answer} for prompt, answer in flat])
    found, done = scored(command, data, "--model", judge, "--baseline", table)
    stored = {line["prompt"]: line for line in lines_of(table)[1:]}
    assert list(stored) == list(answers)
    assert [score for own in stored.values() for score in own["scores"]] == pytest.approx([one["mean"] for one in found], abs=1e-6)
    for (prompt, _), one in zip(flat, found, strict=True):
        assert one["relative"] == pytest.approx(one["mean"] - stored[prompt]["mean"], abs=1e-12)
    assert done.result["relative"]["answer"]["mean"]["mean"] == pytest.approx(0, abs=1e-6), "the sampler against itself"
    assert done.result["relative"]["answer"]["win_rate"]["mean"] == pytest.approx(0.5)
    assert done.result["without_baseline"]["answers"] == 0


def test_a_table_keeps_through_a_posterior_but_not_through_new_weights(command: Command, judge: Path) -> None:
    """What changes scores is in the identity; what says how sure they are is not. Another folder with the same files is the same reward."""
    table = made(command, command.data, "--model", judge)
    posterior = command("reward", "posterior", judge, "--data", command.data, "--device", "cpu")
    assert posterior.code == 0, posterior.error
    found, _ = scored(command, command.data, "--model", judge, "--baseline", table, "--limit", "2")
    assert found[0]["std"] is not None
    moved = judge.rename(command.folder / "moved")
    scored(command, command.data, "--model", moved, "--baseline", table, "--limit", "2", name="moved.jsonl")
    weights = load_file(moved / "reward_head.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, moved / "reward_head.safetensors")
    for file in moved.glob("posterior*"):
        file.unlink()
    assert "they differ in weights (" in refused(command, "--model", moved, "--baseline", table)


def test_bounds_are_part_of_a_reward(command: Command, judge: Path) -> None:
    """A cap fitted after the baseline changes scores of answers and not those of the table."""
    table = made(command, command.data, "--model", judge)
    bound = command("reward", "bound", judge, "--data", command.data, "--device", "cpu")
    assert bound.code == 0, bound.error
    assert "they differ in weights (" in refused(command, "--model", judge, "--baseline", table)


def test_the_chosen_answer_as_baseline(command: Command, judge: Path) -> None:
    """Every chosen answer is 0 above itself, and the sum over a pair is the negative margin."""
    table = made(command, command.data, "--model", judge, "--limit", "4")
    found, done = scored(command, command.data, "--model", judge, "--baseline", table, "--limit", "4")
    stored = {line["prompt"]: line for line in lines_of(table)[1:]}
    assert {line["count"] for line in stored.values()} == {1}
    for chosen, rejected in zip(found[::2], found[1::2], strict=True):
        assert chosen["relative"] == pytest.approx(0, abs=1e-6)
        assert rejected["relative"] == pytest.approx(rejected["mean"] - chosen["mean"], abs=1e-6)
    assert done.result["relative"]["chosen"]["mean"]["rows"] == len(stored)
    assert done.result["relative"]["chosen"]["above"]["mean"] == 0, "what another batch rounds differently is a tie"
    assert done.result["relative"]["chosen"]["win_rate"]["mean"] == 0.5


def test_the_same_chosen_answer_of_several_pairs_counts_once(command: Command, mine: Path) -> None:
    """Samples are draws and count as often as they come; an answer that is chosen in several pairs of its row is one answer."""
    row = {"prompt": "why ?", "chosen": ["xx", "xxxx"], "rejected": ["y", "yyy"], "num_correct": 2, "total_completions": 4, "subset": "s", "id": "1"}
    ranked = write_rows(command.folder / "ranked.jsonl", [row])
    done = command("score", "baseline", "--reward", f"{mine}:length", "--data", ranked, "--out", command.folder / "once.jsonl")
    assert done.code == 0, done.error
    assert lines_of(command.folder / "once.jsonl")[1]["scores"] == [2.0, 4.0]
    assert done.result["repeated"] == 2
    drawn = write_rows(command.folder / "drawn.jsonl", [{"prompt": "why ?", "responses": ["xx", "xx", "xxxx"]}])
    assert lines_of(made(command, drawn, "--reward", f"{mine}:length", name="drawn-table.jsonl"))[1]["scores"] == [2.0, 2.0, 4.0]


def test_columns_reach_the_function(command: Command, samples: Path, mine: Path) -> None:
    table = made(command, samples, "--reward", f"{mine}:labelled")
    assert [line["scores"] for line in lines_of(table)[1:]] == [[3.0, 3.0, 3.0, 5.0], [4.0]]


def test_what_is_left_out_is_counted(command: Command, mine: Path) -> None:
    samples = write_rows(command.folder / "samples.jsonl", [{"prompt": "a", "responses": []}, {"prompt": "b", "responses": ["skip", "x"]}])
    done = command("score", "baseline", "--reward", f"{mine}:length", "--data", samples, "--out", command.folder / "b.jsonl")
    assert done.code == 0, done.error
    assert (done.result["unscored"], done.result["answers"], done.result["prompts"]) == (1, 1, 1)
    assert "no_sample" in done.error


def refused(command: Command, *arguments: str | Path, code: int = 2) -> str:
    """The error of a `score` that must fail and leave no file."""
    done = score(command, command.data, *arguments, name="refused.jsonl")
    assert done.code == code, done.error
    assert "Traceback" not in done.error
    assert list(command.folder.glob("refused*")) == []
    return done.error


def test_another_reward_is_refused(command: Command, judge: Path, model: Path, mine: Path) -> None:
    table = made(command, command.data, "--model", judge, "--max-length", "64")
    assert "max_length (64 against 1024)" in refused(command, "--model", judge, "--baseline", table)
    assert "dtype (float32 against float64)" in refused(command, "--model", judge, "--baseline", table, "--max-length", "64", "--dtype", "float64")
    other = save_reward(model, command.folder / "other", "gaussian", Gaussian())
    error = refused(command, "--model", other, "--baseline", table, "--max-length", "64")
    assert "another reward" in error
    assert "weights" in error
    assert "head" in error
    assert "kind (reward model against function)" in refused(command, "--reward", f"{mine}:length", "--baseline", table)
    tokenizer = json.loads((judge / "tokenizer_config.json").read_text())
    (judge / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "chat_template": "{{ messages[0]['content'] }}"}))
    assert "they differ in tokenizer (" in refused(command, "--model", judge, "--baseline", table, "--max-length", "64")


def test_the_readout_is_part_of_a_reward(command: Command, model: Path) -> None:
    """The same weights whose head reads a mean in place of a sum."""
    folder = save_reward(model, command.folder / "token", "token", Token())
    table = made(command, command.data, "--model", folder)
    facts = json.loads((folder / "reward_head.json").read_text())
    facts["head"]["readout"] = {"choice": "mean"}
    (folder / "reward_head.json").write_text(json.dumps(facts))
    assert "they differ in head (" in refused(command, "--model", folder, "--baseline", table)


def test_a_changed_function_is_another_reward(command: Command, mine: Path) -> None:
    table = made(command, command.data, "--reward", f"{mine}:length")
    assert "name (length against other)" in refused(command, "--reward", f"{mine}:other", "--baseline", table)
    mine.write_text(FUNCTIONS + "\nX = 1\n")
    assert "they differ in file (" in refused(command, "--reward", f"{mine}:length", "--baseline", table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "identity of its reward"),
        ('{"prompt": "a", "scores": [1]}\n', "identity of its reward"),
        ("{\n", "line 1: no JSON"),
        ("[]\n", "line 1: expected an object"),
        ('HEAD{"prompt": "a"}\n', "line 2: expected a prompt and its scores"),
        ('HEAD{"prompt": "a", "scores": []}\n', "line 2: expected a prompt and its scores"),
        ('HEAD{"prompt": "a", "scores": [NaN]}\n', "line 2: expected a prompt and its scores"),
        ('HEAD{"prompt": "a", "scores": [true]}\n', "line 2: expected a prompt and its scores"),
        ('HEAD{"prompt": "a", "scores": [1]}\n{"prompt": "a", "scores": [2]}\n', "line 3: a second line of the prompt 'a'"),
    ],
)
def test_a_table_that_is_none(command: Command, mine: Path, text: str, words: str) -> None:
    file = command.folder / "table.jsonl"
    file.write_text(text.replace("HEAD", json.dumps({HEADER: {}}) + "\n"))
    assert words in refused(command, "--reward", f"{mine}:length", "--baseline", file, code=3)


def test_contradictions(command: Command, judge: Path, model: Path, mine: Path) -> None:
    table = made(command, command.data, "--model", judge, "--limit", "3")
    assert "cannot read the baseline" in refused(command, "--model", judge, "--baseline", "absent.jsonl", code=3)
    assert "give --baseline" in refused(command, "--model", judge, "contrast:above-only")
    assert "already relative to --reference" in refused(command, "--model", model, "--reference", model, "--baseline", table)
    assert "one baseline score" in refused(command, "--model", judge, "--baseline", table, "contrast.scale:baseline-std")
    assert "level must be" in refused(
        command, "--model", judge, "--baseline", table, "contrast.aggregate:quantile", "--contrast.aggregate.level", "2"
    )
    assert "abov-only" in refused(command, "--model", judge, "--baseline", table, "contrast:abov-only")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "one reward"),
        (["--model", "m", "--reward", "f.py:g"], 2, "one reward"),
        (["--reward", "rm"], 2, "file.py:name"),
        (["--reward", "MINE:absent"], 2, "no function 'absent'"),
        (["--model", "MODEL"], 4, "not a reward model"),
        (["--reward", "MINE:length", "--data", "LABELLED"], 2, "good and bad alike"),
        (["--reward", "MINE:length", "--data", "SKIPPED"], 3, "no answer was scored (1 were not judged)"),
        (["--reward", "MINE:length", "--data", "BROKEN"], 3, "expected a list of answers"),
        (["--reward", "MINE:length", "--data", "absent.jsonl"], 3, "no file absent.jsonl"),
    ],
)
def test_what_a_baseline_cannot_be_of(command: Command, mine: Path, model: Path, arguments: list[str], code: int, words: str) -> None:
    files = {
        "LABELLED": write_rows(command.folder / "labelled.jsonl", [{"prompt": "a", "completion": "b", "label": True}]),
        "SKIPPED": write_rows(command.folder / "skipped.jsonl", [{"prompt": "a", "responses": ["skip"]}]),
        "BROKEN": write_rows(command.folder / "broken.jsonl", [{"prompt": "a", "responses": "b"}]),
    }
    known = {"MODEL": model, **files}
    given = [str(known.get(one, one)).replace("MINE", str(mine)) for one in arguments]
    out = command.folder / "out.jsonl"
    data = [] if "--data" in given else ["--data", str(command.data)]
    done = command("score", "baseline", *given, *data, "--out", out)
    assert done.code == code, done.error
    assert words in done.error
    assert "Traceback" not in done.error
    assert not list(command.folder.glob("out.jsonl*"))


def test_a_file_is_not_replaced(command: Command, samples: Path, mine: Path) -> None:
    table = made(command, samples, "--reward", f"{mine}:length")
    done = command("score", "baseline", "--reward", f"{mine}:other", "--data", samples, "--out", table)
    assert done.code == 7
    assert "already exists" in done.error


def test_from_a_config_file(command: Command, mine: Path, samples: Path) -> None:
    """The settings as YAML names and values, the table's path among them."""
    table = made(command, samples, "--reward", f"{mine}:length")
    data = write_rows(command.folder / "rows.jsonl", [{"prompt": "why ?", "completion": "x" * 4}])
    config = command.folder / "config.yaml"
    config.write_text(f"reward: {mine}:length\nbaseline: {table}\ncontrast: {{choice: difference, aggregate: {{choice: quantile, level: 1.0}}}}\n")
    found, _ = scored(command, data, "--config", config)
    assert found[0]["relative"] == -4.0


def test_from_python(command: Command, judge: Path) -> None:
    table = made(command, command.data, "--model", judge, "--limit", "2")
    out = command.folder / "python.jsonl"
    contrast = AboveOnly(aggregate=Max())
    found = finegrain.score(command.data, out, model=judge, limit=2, device="cpu", baseline=table, contrast=contrast)
    assert set(found["relative"]) == {"chosen", "rejected"}
    assert all(line["score"]["relative"] >= 0 for line in lines_of(out))
