"""`finegrain online` from the command line: recipes/online.py, recipes/rollouts/."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import finegrain
from finegrain.commands.online import OnlineTraining
from finegrain.commands.settings import Common
from finegrain.generate.sampling import Sampling
from finegrain.online.policy_loss import SeparateCritic
from finegrain.online.ppo import PPO
from finegrain.train import checkpoint
from tests.recipes.command import Command
from tests.recipes.online_runs import COUNTS_E, online, write_reward
from tests.tiny import write_rows

DENSE = """
def reward(completions, **columns):
    return [[(place, place + 1, 0.1) for place, letter in enumerate(text) if letter == "e"] or [(0, len(text), 0.0)] for text in completions]
"""
SHORT = ["--max-steps", "2"]


def lines_of(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def test_a_run_leaves_a_model_and_says_what_came_of_it(command: Command) -> None:
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:ppo", "--max-steps", "8", "--eval-every", "1")
    run = command.folder / "run"
    assert done.code == 0, done.error
    AutoModelForCausalLM.from_pretrained(run)
    record, lines, sampled = json.loads((run / "run.json").read_text()), lines_of(run), lines_of(run, "rollouts.jsonl")
    assert record["status"] == "finished"
    assert [line["buffer"] for line in lines if "buffer" in line] == [0, 1]
    assert {"reward", "kl", "advantage/density", "completions/clipped_ratio", "value/explained_variance", "seconds/generate"} <= lines[0].keys()
    assert "rewards/reward/mean" in lines[0]
    assert record["evaluation_before"]["eval_reward"]["rows"] == record["evaluation"]["eval_reward"]["rows"] == 2
    assert "eval_reward" in lines[3]
    assert (run / "report.html").exists()
    for line in sampled:
        starts = [start for start, end, *_ in line["spans"] if end > start]
        assert starts == sorted(starts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        ["algorithm:rloo"],
        ["algorithm:grpo", "leash:in-loss", "leash.control:adaptive-beta"],
        ["algorithm:reinforce-pp", "reference:moving-average"],
        ["algorithm:ppo", "algorithm.critic:separate-critic"],
        ["algorithm:ppo", "advantage:macro-gae"],
        ["algorithm:ppo", "--lora.rank", "4"],
        ["algorithm:ppo", "selection:best-random", "selection.draw:subset"],
        ["algorithm:grpo", "--kl-stop", "1e-9", "--algorithm.epochs", "3"],
    ],
    ids=" ".join,
)
def test_every_choice_trains_and_is_repeated(command: Command, asked: list[str]) -> None:
    assert online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), *asked, *SHORT).code == 0
    assert command("again", command.folder / "run" / "run.json", "--out", command.folder / "again", "--yes").code == 0
    name = "adapter_model.safetensors" if "--lora.rank" in asked else "model.safetensors"
    assert (command.folder / "run" / name).read_bytes() == (command.folder / "again" / name).read_bytes()


def test_updates_too_far_from_the_sampler_are_skipped(command: Command) -> None:
    asked = ["algorithm:ppo", "--kl-stop", "1e-9", "--algorithm.epochs", "4", "--max-steps", "8"]
    assert online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), *asked).code == 0
    record = json.loads((command.folder / "run" / "run.json").read_text())
    assert record["updates_skipped"] > 0
    assert len(lines_of(command.folder / "run")) == 8 - record["updates_skipped"]


def test_where_the_reward_is_reaches_the_advantages(command: Command) -> None:
    dense = online(command, "dense", "--reward", write_reward(command.folder, DENSE), "algorithm:reinforce-pp", *SHORT)
    assert dense.code == 0, dense.error
    flat = online(command, "flat", "--reward", write_reward(command.folder, COUNTS_E, "flat"), "algorithm:grpo", *SHORT)
    assert flat.code == 0
    assert float(str(lines_of(command.folder / "dense")[0]["advantage/density"])) > 0.01
    assert lines_of(command.folder / "flat")[0]["advantage/density"] == 0.0
    erased = online(command, "erased", "--reward", write_reward(command.folder, DENSE), "algorithm:grpo", *SHORT)
    assert "so that it is lost" in erased.error


def test_a_dry_run_shows_a_buffer_and_writes_nothing(command: Command) -> None:
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:grpo", "--dry-run")
    assert done.result["status"] == "dry run"
    assert done.result["answers"] == 8
    assert not (command.folder / "run").exists()


FAULTS = {
    "raises": ("def reward(completions, **columns):\n    raise ValueError('no judge')\n", 3, "no judge"),
    "is not a number": ("def reward(completions, **columns):\n    return [float('nan') for _ in completions]\n", 3, "a score is nan"),
    "is too short": ("def reward(completions, **columns):\n    return [1.0]\n", 3, "one item per completion"),
    "hangs": ("import time\ndef reward(completions, **columns):\n    time.sleep(5)\n    return [0.0 for _ in completions]\n", 3, "within 0.3 s"),
    "is outside": ("def reward(completions, **columns):\n    return [[(0, 999, 1.0)] for _ in completions]\n", 3, "999"),
    "judges nothing": ("def reward(completions, **columns):\n    return [None for _ in completions]\n", 0, "judged none of"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_reward_that_cannot_be_used(command: Command, name: str) -> None:
    code, expected, words = FAULTS[name]
    limit = ["--reward-timeout", "0.3"] if name == "hangs" else []
    done = online(command, "run", "--reward", write_reward(command.folder, code), "algorithm:grpo", *SHORT, *limit)
    assert (done.code != 0) == (expected != 0), done.error
    assert words in done.error
    assert "Traceback" not in done.error


def test_a_reward_that_fails_later_leaves_a_state_to_go_on_from(command: Command) -> None:
    fails = "def reward(completions, trainer_state):\n    assert trainer_state.global_step < 2, 'gone'\n    return [0.5 for _ in completions]\n"
    done = online(command, "run", "--reward", write_reward(command.folder, fails), "algorithm:grpo", "--max-steps", "4")
    assert done.code != 0
    assert "gone" in done.error
    assert (command.folder / "run" / "checkpoint-2").is_dir()
    assert json.loads((command.folder / "run" / "run.json").read_text())["status"] == "failed"


def test_groups_without_a_difference_are_counted(command: Command) -> None:
    same = "def reward(completions, **columns):\n    return [0.5 for _ in completions]\n"
    assert online(command, "run", "--reward", write_reward(command.folder, same), "algorithm:grpo", *SHORT).code == 0
    assert all(line["frac_reward_zero_std"] == 1.0 for line in lines_of(command.folder / "run"))


def test_prompts_that_cannot_be_used(command: Command) -> None:
    rows = [
        {"prompt": "why ?"},
        {"prompt": ""},
        {"prompt": None},
        {"prompt": "why ?"},
        {"prompt": "who ?"},
        {"prompt": [{"role": "user", "content": "hi"}]},
    ]
    data = write_rows(command.folder / "odd.jsonl", rows)
    done = online(command, "run", "--data", data, "--holdout", "0", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:grpo", *SHORT)
    assert done.code == 0, done.error
    report = json.loads((command.folder / "run" / "run.json").read_text())["data"]
    assert (report["prompts"], report["repeated"]) == (3, 1)
    assert sum(report["dropped"].values()) == 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--sampling.top-p", "0.9"], "top_p"),
        (["--sampling.max-new-tokens", "48"], "leaves no room"),
        (["--reward-weights", "1", "2"], "give one per reward"),
        (["--keep", "best"], "eval-every"),
        (["advantage:gae"], "reads values"),
        (["reference:other-model", "leash:in-loss"], "needs a checkpoint"),
        (["objective:dpo"], "takes no objective"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_contradict_themselves(command: Command, asked: list[str], words: str) -> None:
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:grpo", *asked)
    assert done.code != 0
    assert words in done.error


def test_a_full_disk_in_a_save(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:grpo", "--save-every", "1", "--max-steps", "3")
    assert done.code != 0
    assert "No space left" in done.error


def test_a_function_reads_the_answers_to_a_conversation(command: Command) -> None:
    code = (
        "import json, pathlib\n"
        "def reward(prompts, completions, completion_ids, **columns):\n"
        "    pathlib.Path(__file__).with_suffix('.json').write_text(json.dumps([prompts, completions]))\n"
        "    return [float(len(ids)) for ids in completion_ids]\n"
    )
    data = write_rows(command.folder / "chat.jsonl", [{"prompt": [{"role": "user", "content": f"why {place} ?"}]} for place in range(4)])
    done = online(command, "run", "--data", data, "--holdout", "0", "--reward", write_reward(command.folder, code), "algorithm:grpo", *SHORT)
    assert done.code == 0, done.error
    prompts, completions = json.loads((command.folder / "reward.json").read_text())
    assert all(turn["role"] == "user" for prompt in prompts for turn in prompt)
    texts = {turn["content"] for completion in completions for turn in completion}
    assert len(texts) > 1
    assert {line["text"] for line in lines_of(command.folder / "run", "rollouts.jsonl")} & texts


def test_one_answer_to_a_prompt_cannot_be_compared(command: Command) -> None:
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:rloo", "--sampling.answers", "1")
    assert done.code != 0
    assert "give at least 2" in done.error


def test_the_greedy_answer_is_the_baseline(command: Command) -> None:
    reward = write_reward(command.folder, COUNTS_E)
    asked = ["algorithm:reinforce-pp", "advantage:greedy-baseline", "leash:free", "algorithm.whitening:unwhitened", *SHORT]
    assert online(command, "run", "--reward", reward, *asked).code == 0
    by_prompt: dict[int, set[float]] = {}
    for line in lines_of(command.folder / "run", "rollouts.jsonl"):
        by_prompt.setdefault(line["buffer"], set()).add(round(line["rewards"]["reward"] - line["advantage"], 6))  # one prompt of each buffer is shown
    assert len(by_prompt) == 2
    for baselines in by_prompt.values():
        (baseline,) = baselines  # the same for both answers
        assert baseline * 8 == pytest.approx(round(baseline * 8), abs=1e-4)  # a count of e


def test_a_reward_that_fails_on_held_out_prompts_leaves_the_last_state(command: Command) -> None:
    fails = "calls = []\ndef reward(completions):\n    calls.append(1)\n    assert len(calls) != 4, 'gone'\n    return [0.5 for _ in completions]\n"
    file = write_reward(command.folder, fails)  # held out, two buffers, held out
    done = online(command, "run", "--reward", file, "algorithm:grpo", "--max-steps", "2")
    assert done.code != 0
    assert "gone" in done.error
    assert (command.folder / "run" / "checkpoint-2").is_dir()
    assert json.loads((command.folder / "run" / "run.json").read_text())["status"] == "failed"
    (command.folder / "reward.py").write_text("def reward(completions):\n    return [0.5 for _ in completions]\n")
    done = online(command, "run", "--reward", file, "algorithm:grpo", "--max-steps", "2", "--resume")
    assert done.code == 0, done.error
    assert "has changed" in done.error
    assert json.loads((command.folder / "run" / "run.json").read_text())["status"] == "finished"


def test_a_critic_that_diverges_leaves_the_state_before_its_step(command: Command) -> None:
    code = "def reward(completions, trainer_state):\n    return [1e30 * trainer_state.global_step + 0.1 * len(text) for text in completions]\n"
    critic = ["algorithm:ppo", "--algorithm.epochs", "1", "algorithm.critic:separate-critic", "--algorithm.critic.clip", "None", "leash:free"]
    done = online(command, "run", "--reward", write_reward(command.folder, code), *critic, "--max-steps", "4")
    assert done.code != 0
    assert "nothing was updated" in done.error
    assert (command.folder / "run" / "checkpoint-1").is_dir()


def test_prompts_are_cut_to_the_context_of_the_model(command: Command) -> None:
    data = write_rows(command.folder / "long.jsonl", [{"prompt": "why " * 400}, {"prompt": "who ?"}])
    asked = ["--data", data, "--holdout", "0", "--max-length", "4096", *SHORT]
    done = online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), "algorithm:grpo", *asked)
    assert done.code == 0, done.error
    assert json.loads((command.folder / "run" / "run.json").read_text())["data"]["longest_prompt"] < 4090


def test_a_critic_of_its_own_has_a_rate_of_its_own(command: Command) -> None:
    asked = ["algorithm:ppo", "--algorithm.epochs", "1", "algorithm.critic:separate-critic", "--lora.rank", "2", *SHORT]
    assert online(command, "run", "--reward", write_reward(command.folder, COUNTS_E), *asked).code == 0
    (first, *_) = lines_of(command.folder / "run")
    assert first["value/learning_rate"] < 2 * 9e-6 * 4096 / 8  # no adapter's factor of ten


def test_a_critic_of_its_own_beside_a_model_object(command: Command) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(command.model), AutoTokenizer.from_pretrained(command.model)
    data = write_rows(command.folder / "prompts.jsonl", [{"prompt": f"why {place} ?"} for place in range(4)])
    result = finegrain.train_online(
        model,
        data,
        command.folder / "run",
        tokenizer=tokenizer,
        reward=write_reward(command.folder, COUNTS_E),
        algorithm=PPO(epochs=1, critic=SeparateCritic()),
        sampling=Sampling(answers=2, max_new_tokens=4),
        common=Common(device="cpu", max_length=32, max_steps=2),
        training=OnlineTraining(prompts=2, holdout=0.0, samples=0),
    )
    assert result["status"] == "finished"
    assert all("value/loss" in line for line in lines_of(command.folder / "run"))
