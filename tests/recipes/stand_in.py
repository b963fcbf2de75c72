"""A stand-in for an OpenAI-compatible server: standard library, one thread, replies by a function that a test gives."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Sent:
    """What the server sends back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    """Seconds before the first byte."""
    drop: bool = False
    """Close the connection without an answer."""


def completion(content: Any, finish: str = "stop", **message: Any) -> Sent:
    """A chat completion: text as it is, anything else as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return Sent(json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode())


def failed(status: int, words: str = "it failed", **headers: str) -> Sent:
    """An error in OpenAI's form."""
    return Sent(
        json.dumps({"error": {"message": words, "type": "error"}}).encode(),
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


class StandIn:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.answer: Callable[[Json, int], Sent] = lambda request, number: completion({})
        """From the request and its number, from 0."""
        self.requests: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.models: Any = {"object": "list", "data": [{"id": "judge-1", "object": "model"}]}
        self.lock = threading.Lock()

    @property
    def prompts(self) -> list[str]:
        """The first message of every request."""
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def serve() -> Iterator[StandIn]:
    """A server on a free port of this machine until the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stand_in.paths.append(self.path)
            stand_in.headers.append(dict(self.headers.items()))
            self._send(Sent(json.dumps(stand_in.models).encode()))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with stand_in.lock:
                number = len(stand_in.requests)
                stand_in.requests.append(body)
                stand_in.headers.append(dict(self.headers.items()))
                stand_in.paths.append(self.path)
            self._send(stand_in.answer(body, number))

        def _send(self, sent: Sent) -> None:
            time.sleep(sent.wait)
            self.close_connection = True
            if sent.drop:
                return
            try:
                self.send_response(sent.status)
                for name, value in {"content-type": "application/json", "content-length": str(len(sent.body)), **sent.headers}.items():
                    self.send_header(name, value)
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(sent.body)
            except OSError:  # the client did not wait
                pass

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    stand_in = StandIn(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
