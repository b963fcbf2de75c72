"""Where texts may go, what is sent beside them, and what of the environment has no say in it."""

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from finegrain.errors import UsageError
from finegrain.generate.endpoint import ChatReply, Endpoint, check_address, open_chat, read_key
from tests.recipes.stand_in import StandIn, completion, serve

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve() as stand_in:
        stand_in.answer = lambda request, number: completion("Hi")
        yield stand_in


def ask(endpoint: Endpoint) -> ChatReply:
    """One reply."""

    async def asked() -> ChatReply:
        async with open_chat(endpoint) as chat:
            return await chat.complete(REQUEST)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://127.8.9.1/v1/", "http://localhost:1/v1", "http://LOCALHOST/v1", "https://[::1]:8/v1"]
)
def test_loopback_needs_no_name(url: str) -> None:
    assert check_address(url, None) == url.rstrip("/")


ELSEWHERE = (
    "https://api.example.com/v1",
    "http://10.0.0.5:8000/v1",
    "http://0.0.0.0:8000/v1",
    "http://localhost.example.com/v1",
    "http://127.0.0.1.example.com/v1",
    "http://[::2]/v1",
    "http://127.1/v1",
    "http://2130706433/v1",
    "http://localhost./v1",
)


@pytest.mark.parametrize("url", ELSEWHERE)
def test_any_other_host_must_be_named(url: str) -> None:
    with pytest.raises(UsageError, match="which is not this machine; if that is meant, name it: --host"):
        check_address(url, None)


def test_a_named_host_must_be_that_of_the_address() -> None:
    assert check_address("https://API.example.com/v1", "api.Example.com") == "https://API.example.com/v1"
    for url in ("https://example.com/v1", "http://127.0.0.1/v1", "https://api.example.com.evil.org/v1"):
        with pytest.raises(UsageError, match="is not the host of --by"):
            check_address(url, "api.example.com")


NO_ADDRESS = (
    *("127.0.0.1:8000/v1", "localhost", "ftp://127.0.0.1/v1", "file:///etc/passwd", "http://", "http://127.0.0.1:x/v1", "http://[::1/v1", ""),
    *("http://key@127.0.0.1/v1", "http://a:b@127.0.0.1/v1", "http://127.0.0.1/v1?key=1", "http://127.0.0.1/v1#a", "http://127.0.0.1@evil.org/v1"),
    *("http://127.0.0.1/v1\n", "http://127.0.0.1/\x01", "http://127.0.0.1/v 1", "http://127.0.0.1/é", "http://127.0.0.1/\udc80"),
)


@pytest.mark.parametrize("url", NO_ADDRESS)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="--by"):
        check_address(url, None)


@pytest.mark.parametrize("url", ["http://u:SECRET@host:99999/v1", "http://u:SECRET", "u:SECRET@host/v1", "http://u:SECRET/x@host/v1"])
def test_a_password_in_a_broken_address_is_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_address(url, None)
    assert "secret" not in str(caught.value).lower()


def test_an_address_that_the_client_cannot_read() -> None:
    with pytest.raises(UsageError, match="--by: expected an address"):
        ask(Endpoint(url=check_address("http://999.999.999.999/v1", "999.999.999.999")))


def test_keys() -> None:
    local = "http://127.0.0.1/v1"
    assert read_key(None, {"OPENAI_API_KEY": "k"}, local) is None, "a key is sent only where its variable is named"
    assert read_key("K", {"K": " abc\n"}, local) == "abc"
    for environment in ({}, {"K": " "}):
        with pytest.raises(UsageError, match="--key-env K: this environment variable is not set or empty"):
            read_key("K", environment, local)
    for bad in ("a\nb", "é", "a b"):
        with pytest.raises(UsageError, match="characters that no key has") as caught:
            read_key("K", {"K": bad}, local)
        assert bad not in str(caught.value)
    with pytest.raises(UsageError, match="unencrypted"):
        read_key("K", {"K": "abc"}, "http://example.com/v1")
    assert read_key("K", {"K": "abc"}, "https://example.com/v1") == "abc"
    assert "abc" not in repr(Endpoint(url=local, key="abc"))


def test_nothing_of_the_environment_is_sent_or_used(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies lead nowhere, so a request that read them would fail."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    named = ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
    for name in named:
        monkeypatch.setenv(name, f"secret-{name}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: secret-header\nAuthorization: Bearer secret-custom")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert ask(Endpoint(url=server.url)) == ChatReply("Hi", 100, 10)
    (headers,) = server.headers
    assert {name.lower() for name in headers} == {"host", "accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent"}
    assert not any("secret" in value or "Bearer" in value for value in headers.values())
    assert ask(Endpoint(url=server.url, key="k")).text == "Hi"
    assert server.headers[1]["authorization"] == "Bearer k"
    assert server.requests == [REQUEST, REQUEST]


def test_the_key_is_in_no_log(server: StandIn) -> None:
    """Of the client and of its transport, at their most talkative."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    loggers = [logging.getLogger(name) for name in ("openai", "httpx2", "httpcore2")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        ask(Endpoint(url=server.url, key="sk-secret-123"))
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
    assert "chat/completions" in text.getvalue(), "something was logged"
    assert "sk-secret-123" not in text.getvalue()


def test_odd_counts_of_tokens(server: StandIn) -> None:
    sent = completion("Hi")
    for usage in ('{"prompt_tokens": -5, "completion_tokens": "many"}', "3", "null"):
        body = sent.body.partition(b', "usage"')[0] + f', "usage": {usage}}}'.encode()
        server.answer = lambda request, number, body=body: type(sent)(body)
        assert ask(Endpoint(url=server.url)) == ChatReply("Hi", 0, 0)
