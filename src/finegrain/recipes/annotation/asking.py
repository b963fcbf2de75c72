"""Questions put to a server: several at a time, each tried again up to a limit, every usable reply kept, so that a stopped command goes on."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from finegrain.errors import EndpointError
from finegrain.files import replace_file
from finegrain.generate.endpoint import Chat, Endpoint, EndpointFailure, open_chat
from finegrain.recipes.annotation.replies import UnusableReply, parse_reply
from finegrain.recipes.annotation.rows import CheckedReply
from finegrain.types import Json

Read = Callable[[Json], CheckedReply]
FIRST_WAIT = 1.0
"""Seconds before the second try; every further wait is twice as long, 60 at most."""
STOP_AFTER = 20
"""Questions in a row that may fail for good."""
QUOTED_BACK = 4000
"""Characters of an unusable reply that the next try shows to the server."""
CACHE_VERSION = 1


@dataclass(frozen=True)
class ServerQuestion:
    """What is sent, and how the reply is read."""

    request: Json
    """The request's options; `messages` among them."""
    read: Read
    server: str

    @property
    def key(self) -> str:
        """What the reply depends on: the server and everything that it is sent."""
        facts = [CACHE_VERSION, self.server, self.request]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Settled(NamedTuple):
    """How a question ended."""

    value: Any
    """What the reply says; None where no try gave a usable one."""
    notes: tuple[tuple[str, str], ...] = ()
    """Kinds of what the reply had besides, with a description of each."""
    failure: str = ""
    """Why there is no value."""
    words: str = ""


@dataclass
class AskingCounts:
    """What happened on the way."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    """Tries that came to nothing, by kind; a later one may have succeeded."""

    def as_json(self) -> Json:
        """For the result."""
        return {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "failed_tries": dict(self.tries.most_common()),
        }


class ReplyCache:
    """Usable replies on disk, a small file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, question: ServerQuestion) -> CheckedReply | None:
        """What the kept reply says; None where there is none, or none that can be used."""
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, UnusableReply):
            return question.read(parse_reply(json.loads(self._file(question).read_text(encoding="utf-8"))["reply"]))
        return None

    def put(self, question: ServerQuestion, reply: str) -> None:
        """Keeps a reply's JSON."""
        file = self._file(question)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps({"reply": reply}))

    def _file(self, question: ServerQuestion) -> Path:
        key = question.key
        return self._folder / key[:2] / f"{key}.json"


class Asker:
    """Asks the questions that the cache does not answer; each result is told as soon as it is there."""

    def __init__(self, endpoint: Endpoint, cache: ReplyCache, *, retries: int, parallel: int, tell: Callable[[Settled], None]) -> None:
        self.counts = AskingCounts()
        self._endpoint, self._cache, self._retries, self._parallel, self._tell = endpoint, cache, retries, parallel, tell
        self._failed_in_a_row, self._reached = 0, False

    def __call__(self, questions: Mapping[str, ServerQuestion]) -> dict[str, Settled]:
        """By key, how each question ended; EndpointError where the server is of no use, KeyboardInterrupt after Ctrl-C."""
        found: dict[str, Settled] = {}
        if questions:
            asyncio.run(self._ask_all(questions, found))
        return found

    async def _ask_all(self, questions: Mapping[str, ServerQuestion], found: dict[str, Settled]) -> None:
        waiting = iter(questions.items())
        async with open_chat(self._endpoint) as chat:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._parallel, len(questions))):
                        group.create_task(self._work(chat, waiting, found))
            except BaseExceptionGroup as failed:  # the first one; the others were cancelled by it
                raise failed.exceptions[0] from None

    async def _work(self, chat: Chat, waiting: Iterator[tuple[str, ServerQuestion]], found: dict[str, Settled]) -> None:
        for key, question in waiting:
            settled = await self._ask(chat, question)
            if settled.failure == "no_server" and not self._reached:
                raise EndpointError(f"there is no server at {self._endpoint.url}: {settled.words}")
            found[key] = settled
            self._tell(settled)
            self._failed_in_a_row = self._failed_in_a_row + 1 if settled.failure else 0
            if self._failed_in_a_row >= STOP_AFTER:
                raise EndpointError(f"{STOP_AFTER} questions in a row failed, the last one as {settled.failure}: {settled.words}")

    async def _ask(self, chat: Chat, question: ServerQuestion) -> Settled:
        """The best reply of at most 1 + retries tries."""
        best: tuple[CheckedReply, str] | None = None
        failure, words, wait = "", "", 0.0
        added: list[dict[str, str]] = []
        for attempt in range(1 + self._retries):
            await asyncio.sleep(wait)
            wait, text = 0.0, ""
            try:
                text = await self._send(chat, question.request, added)
                reply = parse_reply(text)
                written = self._write(reply)
                checked = question.read(reply)
            except EndpointFailure as error:
                failure, words, wait = error.kind, str(error), max(error.wait, min(60.0, FIRST_WAIT * 2**attempt))
                self.counts.tries[failure] += 1
                if not error.again:
                    break
                continue
            except UnusableReply as error:
                failure, words = error.kind, str(error)
            else:
                if best is None or len(checked.notes) < len(best[0].notes):
                    best = checked, written
                if not checked.notes:
                    break
                failure, words = checked.notes[0]
            self.counts.tries[failure] += 1
            added = _say_again(text, words)
        if best is None:
            return Settled(None, (), failure, words)
        self._cache.put(question, best[1])
        return Settled(*best[0])

    def _write(self, reply: Json) -> str:
        """What is kept of a reply: its JSON, which does not repeat the key."""
        try:
            written = json.dumps(reply)
        except RecursionError:
            raise UnusableReply("wrong_form", "it is nested too deeply") from None
        if self._endpoint.has_key_in(written):
            raise UnusableReply("repeats_key", "it repeats the key of the server")
        return written

    async def _send(self, chat: Chat, request: Json, added: Sequence[Mapping[str, str]]) -> str:
        self.counts.requests += 1
        reply = await chat.complete({**request, "messages": [*request["messages"], *added]})
        self._reached = True
        self.counts.prompt_tokens += reply.prompt_tokens
        self.counts.completion_tokens += reply.completion_tokens
        return reply.text


def _say_again(reply: str, words: str) -> list[dict[str, str]]:
    """What follows the question in the next try: the reply, and what is wrong with it."""
    text = f"Your reply cannot be used as it is: {words}. Reply again, with JSON alone, in the form that was asked for."
    shown = reply[:QUOTED_BACK].encode("utf-8", "replace").decode()
    return [{"role": "assistant", "content": shown or "(empty)"}, {"role": "user", "content": text}]
