"""A server that speaks OpenAI's chat completions (vLLM, llama.cpp, ...), asked through the `openai` client.

Texts go to the named host and to no other: a loopback address, or a host that was named a second time. Redirects are not followed, and the
environment is not read: no proxy, no netrc, no key, organisation or header that the client would take from a variable. A reply is read up to a limit
and checked here; nothing relies on the types that the client declares.
"""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from finegrain.data.text_file import is_utf8
from finegrain.errors import EndpointError, UsageError
from finegrain.types import Json

MOST_BYTES = 4 << 20
"""Of one reply."""
SHOWN = 200
"""Characters of a server's message that an error shows."""
SHORTEST_SECRET = 16
"""Characters of a key that is looked for in data; a shorter one may be an ordinary word."""
NO_ADDRESS = "--by: expected an address such as http://127.0.0.1:8000/v1"
"""Without what was given, which may have a password in it."""
SENT_HEADERS = frozenset({"host", "accept", "connection", "content-length", "content-type", "transfer-encoding"})
"""Of the client's own headers those that are sent; the others describe this machine or come from the environment."""
STOPS = {
    401: "refuses the key; --key-env NAME says which environment variable holds it",
    403: "does not allow this; --key-env NAME says which environment variable holds the key",
    404: "does not know this model or path; check --model, and that --by ends as the server's documentation says (usually /v1)",
    405: "takes no chat completions under this path; check that --by ends as the server's documentation says (usually /v1)",
}
"""Answers to one request that all others would get."""
PASSING = {408: "timeout", 409: "server_error", 425: "server_error", 429: "rate_limit"}
"""Kinds of errors that a later try may not meet, besides 500 and above (`server_error`)."""


class EndpointFailure(Exception):
    """One request came to nothing."""

    def __init__(self, kind: str, words: str, *, again: bool, wait: float = 0.0) -> None:
        super().__init__(words)
        self.kind, self.again, self.wait = kind, again, wait
        """`again`: whether another try may succeed; `wait`: seconds that the server asks for."""


class ChatReply(NamedTuple):
    """The text of a reply, and the tokens that the server counted (0 where it does not say)."""

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server and how it is asked."""

    url: str
    """Base URL, checked by `check_address`."""
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    """Seconds that one request may take as a whole."""

    def has_key_in(self, written: str) -> bool:
        """Whether the key stands in JSON as `json.dumps` writes it; a key that may be an ordinary word does not count."""
        return self.key is not None and len(self.key) >= SHORTEST_SECRET and _escape(self.key) in written


def check_address(url: str, host: str | None) -> str:
    """The base URL, if texts may go there.

    Loopback is `localhost`, 127.0.0.0/8 and ::1; names are not resolved to find out. Any other host must equal `host`.
    """
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise UsageError("--by: an address has no spaces, and no characters but those of ASCII that can be printed")
    parts = _split(url)
    name = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not name:
        raise UsageError(NO_ADDRESS)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            "--by: an address without name, password, query and fragment is expected; a key is read from the variable that --key-env names"
        )
    if host is not None and host.lower() != name:
        raise UsageError(f"--host {host} is not the host of --by, which is {name}")
    if host is None and not _is_loopback(name):
        raise UsageError(f"--by would send your data to {name}, which is not this machine; if that is meant, name it: --host {name}")
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise UsageError(NO_ADDRESS) from None
    return parts


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def read_key(name: str | None, environment: Mapping[str, str], url: str) -> str | None:
    """The key in the environment variable of this name; no name: no key. A key goes to another machine by https only."""
    if name is None:
        return None
    key = environment.get(name, "").strip()
    if not key:
        raise UsageError(f"--key-env {name}: this environment variable is not set or empty")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"--key-env {name}: its value has characters that no key has")
    parts = _split(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise UsageError(f"--key-env {name}: the key would travel to {parts.hostname} unencrypted; give --by https://...")
    return key


class Chat:
    """An open connection to a server."""

    def __init__(self, endpoint: Endpoint, client: Any, response: type[Any]) -> None:
        """`response`: the client's class of an answer as it came."""
        self._endpoint, self._client, self._response = endpoint, client, response

    async def list_models(self) -> list[str]:
        """The names under which the server has models."""
        body = await self._call(self._client.get("/models", cast_to=self._response))
        data = body.get("data")
        names = [one.get("id") for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        return [name for name in names if isinstance(name, str) and name and is_utf8(name) and not self._endpoint.has_key_in(json.dumps(name))]

    async def complete(self, request: Json) -> ChatReply:
        """The reply to `model`, `messages` and options; EndpointFailure where there is none, EndpointError where no request would get one."""
        body = await self._call(self._client.post("/chat/completions", cast_to=self._response, body=request))
        choices = body.get("choices")
        choice = _object(choices[0] if isinstance(choices, list) and choices else None)
        message = _object(choice.get("message"))
        if choice.get("finish_reason") == "length":
            raise EndpointFailure("cut_off", "the reply was cut off at --max-tokens", again=False)
        if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
            raise EndpointFailure("refused", "the server refuses to answer this", again=False)
        text = message.get("content")
        if not isinstance(text, str):
            raise EndpointFailure("no_completion", "the body is no chat completion with a text", again=True)
        usage = _object(body.get("usage"))
        return ChatReply(text, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))

    async def _call(self, request: Any) -> Json:
        """The body of an answer as an object."""
        import httpx2
        import openai

        try:
            async with asyncio.timeout(self._endpoint.timeout):
                answer = await request
        except (TimeoutError, openai.APITimeoutError):
            raise EndpointFailure("timeout", f"no answer within {self._endpoint.timeout:g} seconds", again=True) from None
        except openai.APIStatusError as error:
            raise self._explain(error) from None
        except openai.APIConnectionError as error:
            words = self._shorten(str(error.__cause__ or error))
            kind = "no_server" if isinstance(error.__cause__, httpx2.ConnectError) else "no_connection"
            raise EndpointFailure(kind, words or "the connection broke off", again=True) from None
        try:
            body = json.loads(answer.content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise EndpointFailure("no_completion", "the body is no JSON object", again=True)
        return body

    def _explain(self, error: Any) -> Exception:
        """What an answer with an error status means for this request, or for all."""
        status = int(error.status_code)
        words = f"{status}: {self._shorten(error.response.text)}"
        if status in STOPS:
            return EndpointError(f"the server at {self._endpoint.url} {STOPS[status]} ({words})")
        if 300 <= status < 400:
            return EndpointError(f"the server at {self._endpoint.url} sends requests on to another address, which is not followed ({status})")
        if status in PASSING or status >= 500:
            return EndpointFailure(PASSING.get(status, "server_error"), words, again=True, wait=_seconds(error.response.headers.get("retry-after")))
        return EndpointFailure("rejected_request", words, again=False)

    def _shorten(self, text: str) -> str:
        """One line of what the server said, without the key."""
        with suppress(ValueError, RecursionError):  # so that the key has one spelling
            text = json.dumps(json.loads(text), ensure_ascii=False)
        if self._endpoint.key:
            text = text.replace(_escape(self._endpoint.key), "(key)").replace(self._endpoint.key, "(key)")
        return " ".join(text.split())[:SHOWN]


def _escape(text: str) -> str:
    """The text as it stands within a JSON string."""
    return json.dumps(text)[1:-1]


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if type(value) is int and 0 <= value < 1 << 40 else 0


def _seconds(value: str | None) -> float:
    """What a Retry-After header asks for; dates are not read."""
    try:
        return min(max(float(value or 0), 0.0), 60.0)
    except ValueError:
        return 0.0


@asynccontextmanager
async def open_chat(endpoint: Endpoint) -> AsyncIterator[Chat]:
    """The client, closed at the end; UsageError where the package is not installed."""
    try:
        import httpx2
        import openai
    except ImportError as error:
        raise UsageError(
            "a server is asked through the openai client, which is not installed: pip install -c constraints.txt -e '.[annotate]'"
        ) from error
    try:
        own = httpx2.URL(endpoint.url)
    except httpx2.InvalidURL:
        raise UsageError(NO_ADDRESS) from None

    class LimitedStream(httpx2.AsyncByteStream):  # type: ignore[misc, unused-ignore]
        """The body of an answer, up to MOST_BYTES."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            total = 0
            async for chunk in self._stream:
                total += len(chunk)
                if total > MOST_BYTES:
                    raise EndpointFailure("too_long", f"the body has more than {MOST_BYTES} bytes", again=False)
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def check_request(request: Any) -> None:
        if (request.url.scheme, request.url.host, request.url.port) != (own.scheme, own.host, own.port):
            raise EndpointError(f"a request to {request.url.host} was stopped: only {own.host} was named")
        for name in [name for name in request.headers if name.lower() not in SENT_HEADERS]:
            del request.headers[name]
        request.headers.update({"accept-encoding": "identity", "user-agent": "finegrain"})
        if endpoint.key:
            request.headers["authorization"] = f"Bearer {endpoint.key}"

    async def check_response(response: Any) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":  # a small body could unpack to any size
            raise EndpointFailure("no_completion", "the body is compressed, which was not asked for", again=False)
        response.stream = LimitedStream(response.stream)

    hooks = {"request": [check_request], "response": [check_response]}
    http = openai.DefaultAsyncHttpxClient(trust_env=False, follow_redirects=False, event_hooks=hooks)
    key = endpoint.key or "none"
    async with openai.AsyncOpenAI(base_url=endpoint.url, api_key=key, timeout=endpoint.timeout, max_retries=0, http_client=http) as client:
        yield Chat(endpoint, client, httpx2.Response)
