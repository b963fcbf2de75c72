"""A judge model behind an OpenAI-like server as a reward function: asked about many answers at once, again where it fails, once about each answer.

    JUDGE_URL=http://127.0.0.1:8000/v1 finegrain score --reward examples/judge_reward.py:judge --data answers.jsonl --out judged.jsonl

Environment: JUDGE_URL, the server; JUDGE_MODEL, the model's name there; JUDGE_KEY, its key, if it wants one; JUDGE_CACHE, a file that keeps
the ratings for the next run. An answer that the judge does not rate after all tries gets None: it is not judged.
"""

import asyncio
import hashlib
import json
import os
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

TRIES = 4
PATIENCE = 60.0
"""Seconds for one request."""
AT_ONCE = 8
"""Requests that are under way at the same time."""
QUESTION = """Rate how well the answer serves the request, from 0 (not at all) to 10 (perfectly). Reply with the number alone.

Request:
{prompt}

Answer:
{answer}"""

ratings: dict[str, float] = {}
"""By hash of judge, request and answer."""


async def judge(prompts: list[Any], completions: list[Any], **kwargs: Any) -> list[float | None]:
    """Ratings from 0 to 1; all answers of a call are asked about together."""
    _read_cache()
    gate = asyncio.Semaphore(AT_ONCE)
    questions = [QUESTION.format(prompt=_text(prompt), answer=_text(answer)) for prompt, answer in zip(prompts, completions, strict=True)]
    found = dict(zip(set(questions), await asyncio.gather(*(_rate(question, gate) for question in set(questions))), strict=True))
    return [found[question] for question in questions]


async def _rate(question: str, gate: asyncio.Semaphore) -> float | None:
    """The rating of one answer, from the cache or from the server."""
    key = hashlib.sha256(json.dumps([_url(), os.environ.get("JUDGE_MODEL", ""), question]).encode()).hexdigest()
    for attempt in range(TRIES if key not in ratings else 0):
        async with gate:
            try:
                reply = await asyncio.to_thread(_ask, question)
            except OSError as error:  # refused, timed out, or an error of the server's
                print(f"judge: {error}", file=sys.stderr)
                reply = ""
        number = re.search(r"\d+(\.\d+)?", reply)
        if number and 0 <= float(number[0]) <= 10:
            _keep(key, float(number[0]) / 10)
            break
        if attempt + 1 < TRIES:
            await asyncio.sleep(0.1 * 4**attempt)
    return ratings.get(key)


def _ask(question: str) -> str:
    """The judge's reply."""
    body = {"model": os.environ.get("JUDGE_MODEL", ""), "temperature": 0, "max_tokens": 8, "messages": [{"role": "user", "content": question}]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('JUDGE_KEY', '')}"}
    request = urllib.request.Request(f"{_url()}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        try:
            return str(json.load(response)["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError):
            return ""


def _url() -> str:
    return os.environ.get("JUDGE_URL", "http://127.0.0.1:8000/v1").rstrip("/")


def _text(text: Any) -> str:
    """A string as it is, messages one after another."""
    return text if isinstance(text, str) else "\n\n".join(f"{message['role']}: {message['content']}" for message in text)


def _read_cache() -> None:
    """The ratings of earlier runs, once."""
    path = os.environ.get("JUDGE_CACHE")
    if path and not ratings and Path(path).exists():
        ratings.update(json.loads(line) for line in Path(path).read_text().splitlines() if line.endswith("]"))


def _keep(key: str, rating: float) -> None:
    ratings[key] = rating
    if path := os.environ.get("JUDGE_CACHE"):
        with Path(path).open("a") as stream:
            stream.write(json.dumps([key, rating]) + "\n")
