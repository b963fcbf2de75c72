"""examples/judge_reward.py against a server of our own: it tries again, asks once about an answer, and leaves unjudged what is never rated."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finegrain.data.records import Answer, Row
from finegrain.scoring.opening import open_reward
from finegrain.scoring.records import Candidates
from finegrain.scoring.sources import RewardOptions

EXAMPLE = Path(__file__).parents[2] / "examples" / "judge_reward.py"
asked: Counter[str] = Counter()


class StandIn(BaseHTTPRequestHandler):
    """Fails once about `late`, rates `silent` never, others by their length."""

    def do_POST(self) -> None:
        """One question."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = body["messages"][0]["content"].rpartition("Answer:\n")[2]
        asked[answer] += 1
        late = answer == "late" and asked[answer] == 1
        reply = json.dumps({"choices": [{"message": {"content": "no idea" if answer == "silent" else f"{len(answer)}/10"}}]}).encode()
        self.send_response(503 if late else 200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setenv("JUDGE_URL", f"http://127.0.0.1:{running.server_port}/v1/")
    monkeypatch.setenv("JUDGE_CACHE", str(tmp_path / "ratings.jsonl"))
    asked.clear()
    yield
    running.shutdown()
    running.server_close()


def rate(*answers: str) -> list[float | None]:
    reward = open_reward(f"{EXAMPLE}:judge", RewardOptions(runtime=lambda: None, max_length=64, timeout=30.0))
    rows = [Candidates(row=row, made=Row(prompt="why ?", answers={"answer": Answer(content=one)})) for row, one in enumerate(answers)]
    return [None if (scores := found["answer"]) is None else float(scores.answer.mean) for found in reward.score(rows)]


@pytest.mark.usefixtures("server")
def test_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncio.sleep", no_wait)
    assert rate("good", "late", "good", "silent") == [0.4, 0.4, 0.4, None]
    assert asked == {"good": 1, "late": 2, "silent": 4}
    assert rate("good", "late", "better") == [0.4, 0.4, 0.6], "another run reads the file of ratings"
    assert asked == {"good": 1, "late": 2, "silent": 4, "better": 1}


async def no_wait(seconds: float) -> None:
    """In place of a pause between tries."""
