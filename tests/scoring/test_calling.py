"""calling and function: ordinary GRPO reward functions run unchanged; what goes wrong in one stops with an error that says so."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row, Turn
from finegrain.errors import NonFiniteError, UsageError
from finegrain.scoring import calling
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates, Reward, TrainerState
from finegrain.scoring.sources import RewardOptions

FUNCTIONS = """
from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
import torch

from beside import SCALE


@dataclass
class Seen:
    calls: int = 0


seen = Seen()


def correctness_reward_func(prompts, completions, answer, **kwargs) -> list[float]:
    responses = [completion[0]["content"] for completion in completions]
    q = prompts[0][-1]["content"]
    assert q == "what ?", q
    return [2.0 if r == a else 0.0 for r, a in zip(responses, answer)]


def length_reward(completion_ids, trainer_state, **kwargs):
    return [-float(len(ids)) * trainer_state.global_step / trainer_state.max_steps for ids in completion_ids]


async def judge(completions, **kwargs):
    await asyncio.sleep(0.001)
    return [float(len(c)) for c in completions]


class Judge:
    async def __call__(self, completions, **kwargs):
        return [SCALE for _ in completions]


object_judge = Judge()


def only_completions(completions):
    return np.array([len(c) for c in completions])


def count(completions, **kwargs):
    seen.calls += 1
    return [float(seen.calls)] * len(completions)


def what_it_gets(**kwargs):
    return [float(len(kwargs))] * len(kwargs["completions"]) if set(kwargs) == {"prompts", "completions", "answer", "solution"} else [None]


def kinds(completions, **kwargs):
    return [torch.tensor(1.5), None, torch.tensor([1.0, 2.0]), [torch.tensor(1.0), np.float32(3)], [(0, 2, 1.0), (1, 3, -0.5)], 2, []]


def hangs(completions, **kwargs):
    time.sleep(20)


def naps(completions, **kwargs):
    time.sleep(0.2)


async def waits(completions, **kwargs):
    await asyncio.sleep(20)


def fails(completions, **kwargs):
    raise KeyError("no such thing")


async def fails_later(completions, **kwargs):
    raise RuntimeError("no server")


def short(completions, **kwargs):
    return [1.0] * (len(completions) - 1)


def text(completions, **kwargs):
    return "good"


def nothing(completions, **kwargs):
    pass


def nan(completions, **kwargs):
    return [1.0] * (len(completions) - 1) + [float("nan")]


def outside(completions, **kwargs):
    return [[(0, len(c) + 1, 1.0)] for c in completions]


def needs(completions, rating):
    return [1.0] * len(completions)


def out_of_time(completions, **kwargs):
    raise TimeoutError("the judge's own")
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "beside.py").write_text("SCALE = 0.25\n")
    (folder / "mine.py").write_text(FUNCTIONS)
    return folder / "mine.py"


def opened(file: Path, name: str, **options: Any) -> Reward:
    return open_reward(f"{file}:{name}", RewardOptions(runtime=lambda: None, max_length=64, **options))


def texts(*answers: str, **more: Any) -> list[Candidates]:
    columns = {"prompt": "why ?", "answer": "yes", "solution": 3}
    return [
        Candidates(row=row, made=Row(prompt="why ?", answers={"answer": Answer(content=one)}), columns=columns, **more)
        for row, one in enumerate(answers)
    ]


def numbers(reward: Reward, candidates: list[Candidates]) -> list[float | None]:
    found = [one["answer"] for one in reward.score(candidates)]
    return [None if one is None else float(one.answer.mean) for one in found]


def test_functions_of_a_grpo_script(file: Path) -> None:
    said = lambda text: Row(prompt=(Turn("user", "what ?"),), answers={"answer": Answer(content=(Turn("assistant", text),))})
    chats = [Candidates(row=row, made=said(text), columns={"answer": "yes"}) for row, text in enumerate(("yes", "no"))]
    assert numbers(opened(file, "correctness_reward_func"), chats) == [2.0, 0.0]
    sampled = texts("a", "b", ids={"answer": [5, 6, 7]}, trainer_state=TrainerState(global_step=1, max_steps=4))
    assert numbers(opened(file, "length_reward"), sampled) == [-0.75, -0.75]
    assert numbers(opened(file, "judge"), texts("abc", "d")) == [3.0, 1.0]
    assert opened(file, "length_reward").begin(sampled, Findings()) is None
    begun = opened(file, "object_judge").begin(texts("abc"), Findings())
    assert begun is not None
    assert [float(one["answer"].answer.mean) for one in begun] == [0.25]  # type: ignore[union-attr]
    assert numbers(opened(file, "object_judge"), texts("abc")) == [0.25]


def test_arguments(file: Path) -> None:
    assert numbers(opened(file, "only_completions"), texts("abc", "d")) == [3.0, 1.0]
    assert numbers(opened(file, "what_it_gets"), texts("abc")) == [4.0]
    with pytest.raises(UsageError, match=r"mine.py:needs needs the argument 'rating'.* columns are answer, solution"):
        numbers(opened(file, "needs"), texts("abc"))
    with pytest.raises(UsageError, match=r"'completion_ids'.* only where they were sampled"):
        numbers(opened(file, "length_reward"), texts("abc"))


def test_a_column_of_some_rows(file: Path, tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("def some(completions, level):\n    return [0.0 if one is None else one for one in level]\n")
    first, second = texts("a", "b")
    rows = [first, Candidates(row=1, made=second.made, columns={"level": 2.0})]
    assert numbers(open_reward(f"{tmp_path / 'some.py'}:some", RewardOptions(runtime=lambda: None, max_length=64)), rows) == [0.0, 2.0]


def test_functions_of_one_file_share_it(file: Path) -> None:
    files: dict[str, Any] = {}
    assert [numbers(opened(file, "count", files=files, block=2), texts("a", "b", "c")) for _ in range(2)] == [[1.0, 1.0, 2.0], [3.0, 3.0, 4.0]]
    assert numbers(opened(file, "count", files=files, block=None), texts("a", "b", "c")) == [5.0] * 3
    assert numbers(opened(file, "count"), texts("a")) == [1.0], "another command's are fresh"


def test_kinds_of_items(file: Path) -> None:
    found = [one["answer"] for one in opened(file, "kinds").score(texts(*["abcdef"] * 7))]
    assert [None if one is None else float(one.answer.mean) for one in found] == [1.5, None, 3.0, 4.0, 0.5, 2.0, 0.0]
    assert [list(one.numbers) for one in found if one is not None and one.numbers] == [[1.0, 2.0], [1.0, 3.0]]
    assert [len(one.spans) for one in found if one is not None] == [0, 0, 0, 2, 0, 0]


@pytest.mark.parametrize("name", ["hangs", "waits"])
def test_a_function_that_hangs(file: Path, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError, match=rf"mine.py:{name} did not return within 0.05 s on rows 0 to 1"):
        numbers(opened(file, name, timeout=0.05), texts("a", "b"))
    assert time.monotonic() - started < 5
    assert numbers(opened(file, "judge", timeout=5.0), texts("abc")) == [3.0], "others go on"


def test_a_thread_that_is_left_behind_ends_quietly(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    monkeypatch.setattr(threading, "excepthook", heard.append)
    with pytest.raises(UsageError, match="did not return"):
        numbers(opened(file, "naps", timeout=0.01), texts("a"))
    for thread in threading.enumerate():
        if thread.name == calling.THREAD:
            thread.join(0.5)
    assert heard == []


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "failed on rows 0 to 1: KeyError: 'no such thing'"),
        ("fails_later", "failed on rows 0 to 1: RuntimeError: no server"),
        ("short", "one item per completion, 2 on rows 0 to 1; it returned 1 items"),
        ("text", "must return a list .* it returned str"),
        ("nothing", "must return a list .* it returned NoneType"),
        ("outside", r"row 0: the span 0..2 does not lie in an answer of 1 characters"),
        ("out_of_time", "failed on rows 0 to 1: TimeoutError: the judge's own"),
    ],
)
def test_functions_that_go_wrong(file: Path, name: str, message: str, timeout: float | None) -> None:
    with pytest.raises(UsageError, match=message):
        numbers(opened(file, name, timeout=timeout), texts("a", "b"))


def test_not_a_number(file: Path) -> None:
    with pytest.raises(NonFiniteError, match="row 1: a score is nan"):
        numbers(opened(file, "nan"), texts("a", "b"))
