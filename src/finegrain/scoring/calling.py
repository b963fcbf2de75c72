"""Calls of a user's reward function as GRPOTrainer calls it: every column under its name, coroutines awaited, within a time limit.

A function gets those of the arguments that its signature takes. Coroutines of all functions run on one event loop, in a thread of its own, so
that a client which a function keeps serves later calls, and functions that are asked at the same time wait together.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import cache, partial
from threading import Thread
from typing import Any

from finegrain.data.records import Text
from finegrain.errors import UsageError
from finegrain.scoring.text_reward import Completion
from finegrain.types import Json

OWN = ("prompts", "completions", "completion_ids", "trainer_state")
"""Arguments that are no columns."""
TAKEN = frozenset({"prompt", "completion", *OWN})
"""Columns that are not passed: those of the texts, as in GRPOTrainer, and those of the names above."""
THREAD = "finegrain reward function"
"""Name of the threads of functions with a time limit."""


def call_function(path: str, function: Callable[..., Any], timeout: float | None, asked: Sequence[Completion]) -> Sequence[Any]:
    """What it says of each answer, all of them in one call; raises UsageError where it fails, says too little, or takes longer than `timeout` s."""
    return start_function(path, function, timeout, asked)()


def start_function(path: str, function: Callable[..., Any], timeout: float | None, asked: Sequence[Completion]) -> Callable[[], Sequence[Any]]:
    """The same in two parts: calls the function and returns what gives its result, for which an async one is waited for only then."""
    rows = f"rows {asked[0].row} to {asked[-1].row}" if asked else "no rows"
    arguments = choose_arguments(path, function, make_arguments(asked))
    called = partial(_told, path, rows, timeout)
    done = called(lambda: _call_within(lambda: function(**arguments), timeout))
    if not inspect.isawaitable(done):
        return lambda: _check_list(path, done, rows, len(asked))
    until = None if timeout is None else time.monotonic() + timeout
    future = asyncio.run_coroutine_threadsafe(_finish(done), _event_loop(os.getpid()))
    return lambda: _check_list(path, called(lambda: _result(future, until)), rows, len(asked))


def _told(path: str, rows: str, timeout: float | None, call: Callable[[], Any]) -> Any:
    """What the call returns; its errors as ours."""
    try:
        return call()
    except _OutOfTimeError:
        raise UsageError(f"{path} did not return within {timeout:g} s on {rows}; give it more time, or let it return None") from None
    except (Exception, SystemExit) as error:  # a user's code may fail in any way
        raise UsageError(f"{path} failed on {rows}: {type(error).__name__}: {error}") from error


def _check_list(path: str, done: Any, rows: str, count: int) -> Sequence[Any]:
    found = done.tolist() if hasattr(done, "tolist") else done
    listed = isinstance(found, Sequence) and not isinstance(found, str)
    if not listed or len(found) != count:
        told = f"{len(found)} items" if listed else type(found).__name__
        raise UsageError(f"{path} must return a list with one item per completion, {count} on {rows}; it returned {told}")
    return found  # type: ignore[no-any-return]


def make_arguments(asked: Sequence[Completion]) -> dict[str, Any]:
    """All that a function may be given; a column that only some rows have is None for the others."""
    columns = sorted({name for one in asked for name in one.columns} - TAKEN)
    arguments: dict[str, Any] = {"prompts": [_plain(one.prompt) for one in asked], "completions": [_plain(one.completion) for one in asked]}
    arguments |= {name: [one.columns.get(name) for one in asked] for name in columns}
    if asked and all(one.ids is not None for one in asked):
        arguments["completion_ids"] = [list(one.ids or ()) for one in asked]
    if asked and asked[0].trainer_state is not None:
        arguments["trainer_state"] = asked[0].trainer_state
    return arguments


def choose_arguments(path: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the function's signature takes; raises UsageError for one that it needs and that is not there."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # code without a signature
        return dict(given)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [one.name for one in parameters if one.kind in by_name and one.default is inspect.Parameter.empty]
    if missing := [name for name in needed if name not in given]:
        hints = {"completion_ids": "answers have token ids only where they were sampled", "trainer_state": "nothing is being trained"}
        there = f"the data's columns are {', '.join(sorted(set(given) - set(OWN))) or 'none'}"
        raise UsageError(f"{path} needs the argument {missing[0]!r}, which is not there: {hints.get(missing[0], there)}")
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        return dict(given)
    taken = {one.name for one in parameters if one.kind in by_name}
    return {name: value for name, value in given.items() if name in taken}


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calls of it return coroutines."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - the method itself


class _OutOfTimeError(Exception):
    """The time limit has passed."""


def _call_within(call: Callable[[], Any], timeout: float | None) -> Any:
    """The result; with a limit the call runs in a thread that is left behind once the time is over, and does not keep the process alive."""
    if timeout is None:
        return call()
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # so that a thread which is left behind may still end

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)

    Thread(target=work, daemon=True, name=THREAD).start()
    return _result(future, time.monotonic() + timeout)


async def _finish(awaited: Awaitable[Any]) -> Any:
    return await awaited


def _result(future: "Future[Any]", until: float | None) -> Any:
    """What the future gives by that time."""
    try:
        if wait([future], None if until is None else max(0.0, until - time.monotonic())).not_done:
            raise _OutOfTimeError
        return future.result()
    except BaseException:
        future.cancel()
        raise


@cache
def _event_loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of this process; a forked one has none of its parent's threads."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True, name="finegrain reward functions").start()
    return loop


def _plain(text: Text) -> str | list[Json]:
    """A string, or messages as dictionaries."""
    return text if isinstance(text, str) else [turn.message() for turn in text]
