"""The push over real sockets, against servers that misbehave in every way that a server can."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from rotation.model import PushOutcome, PushVerdict, RenderedSecret
from rotation.sensitive import Sensitive
from rotation.states import AttemptState
from rotation.vercel.deadlines import DeadlineTransport
from tests.vercel_peers import (
    LOGIN,
    TOKEN,
    Conversation,
    Peer,
    a_resource,
    a_sink,
    after_the_request,
    an_installation,
    answer,
    saying,
    wait_for,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from rotation.vercel.client import VercelSink

RESOURCE = a_resource()
CREATED = answer(201)
DEADLINE = 0.4
SOON = 1.5
"""Seconds by which a call with `DEADLINE` has surely ended, on a busy machine."""


def push(
    sink: VercelSink,
    *,
    may_send: Callable[[], bool] = lambda: True,
    seconds: float = 10.0,
    secrets: tuple[RenderedSecret, ...] | None = None,
) -> PushOutcome:
    return sink.push(RESOURCE, an_installation(), secrets or sink.render(RESOURCE, LOGIN), may_send, within(seconds))


def pushed_to(behave: Callable[[Conversation], None], seconds: float = 10.0) -> PushOutcome:
    with Peer(behave) as peer, a_sink(peer.url) as sink:
        return push(sink, seconds=seconds)


def timed(behave: Callable[[Conversation], None]) -> PushOutcome:
    began = time.monotonic()
    outcome = pushed_to(behave, DEADLINE)
    assert time.monotonic() - began < SOON
    return outcome


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (201, PushVerdict.APPLIED),
        *((status, PushVerdict.REFUSED) for status in (400, 413, 422)),
        *((status, PushVerdict.UNAUTHORIZED) for status in (401, 403)),
        *((status, PushVerdict.MISSING) for status in (404, 410)),
        (409, PushVerdict.CONFLICT),
        (429, PushVerdict.LIMITED),
        *((status, PushVerdict.UNKNOWN) for status in (200, 202, 204, 301, 302, 304, 307, 308, 402, 408, 418, 500, 502, 503, 504)),
    ],
)
def test_every_status_is_sorted_as_it_comes_from_a_real_server(status: int, verdict: PushVerdict) -> None:
    outcome = pushed_to(saying(answer(status)))
    assert (outcome.status, outcome.verdict) == (status, verdict)


def test_the_request_is_what_vercel_expects() -> None:
    with Peer(saying(CREATED)) as peer, a_sink(peer.url) as sink:
        push(sink)
    (raw,) = peer.received
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "PUT /v1/installations/icfg_1/resources/store_42/secrets HTTP/1.1"
    assert {f"Authorization: Bearer {TOKEN}", "Content-Type: application/json", "Accept-Encoding: identity"} <= set(lines)
    assert body.startswith(b'{"secrets":[{"name":"DATABASE_URL","value":"postgresql://')
    assert body.endswith(b'"partial":false}')


def test_an_answer_before_the_end_of_the_request_counts() -> None:
    def refuse_unread(peer: Conversation) -> None:
        peer.say(answer(413, b"", "Connection: close"))
        peer.read_all()

    assert pushed_to(refuse_unread).verdict is PushVerdict.REFUSED


# What ends early


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Len",
        b"HTTP/1.1 201",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n" + b"X: y\r\n" * 30_000,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_ends_early_or_is_none_is_unknown(text: bytes) -> None:
    def behave(peer: Conversation) -> None:
        peer.request()
        peer.say(text)

    assert pushed_to(behave).verdict is PushVerdict.UNKNOWN


def test_a_refusal_whose_body_ends_early_is_still_a_refusal() -> None:
    def behave(peer: Conversation) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\n\r\n{")

    assert pushed_to(behave).verdict is PushVerdict.REFUSED


def test_a_reset_after_the_request_is_unknown() -> None:
    assert pushed_to(after_the_request(lambda peer: peer.reset())).verdict is PushVerdict.UNKNOWN


@pytest.mark.parametrize(("status", "verdict"), [(201, PushVerdict.UNKNOWN), (400, PushVerdict.REFUSED)])
def test_an_endless_body_is_left_after_64_kib(status: int, verdict: PushVerdict) -> None:
    def behave(peer: Conversation) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 %d Whatever\r\nConnection: close\r\n\r\n" % status)
        while True:
            peer.say(b"x" * 65_536)

    outcome = pushed_to(behave)
    assert outcome.verdict is verdict
    assert outcome.note == f"{status} the body is too long"


# One deadline for everything


def test_a_server_that_drips_its_headers_does_not_outlast_the_deadline() -> None:
    assert timed(after_the_request(lambda peer: peer.drip(CREATED, 0.05))).verdict is PushVerdict.UNKNOWN


def test_a_server_that_drips_its_body_does_not_outlast_the_deadline() -> None:
    text = answer(201, b"x" * 1000)

    def behave(peer: Conversation) -> None:
        peer.request()
        peer.say(text[:-1000])
        peer.drip(text[-1000:], 0.02)

    outcome = timed(behave)
    assert (outcome.status, outcome.verdict) == (201, PushVerdict.UNKNOWN)


def test_a_server_that_drips_interim_answers_does_not_outlast_the_deadline() -> None:
    assert timed(after_the_request(lambda peer: peer.drip(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, 0.01))).verdict is PushVerdict.UNKNOWN


def test_a_silent_server_does_not_outlast_the_deadline() -> None:
    assert timed(after_the_request(lambda peer: peer.hold())).note == "timed out"


def test_a_server_that_reads_slowly_does_not_outlast_the_deadline() -> None:
    large = (RenderedSecret("A", Sensitive("x" * 16_000_000)),)
    with Peer(lambda peer: peer.read_slowly(0.02), receive_buffer=4096) as peer, a_sink(peer.url) as sink:
        began = time.monotonic()
        outcome = push(sink, seconds=DEADLINE, secrets=large)
        assert time.monotonic() - began < SOON
    assert outcome.verdict is PushVerdict.UNKNOWN


def test_one_slow_call_does_not_shorten_or_lengthen_another() -> None:
    def behave(peer: Conversation) -> None:
        first = (peer.request() or b"").startswith(b"GET")
        peer.hold() if first else peer.say(CREATED)

    with Peer(behave) as peer, a_sink(peer.url) as sink:
        answers: list[bool | None] = []
        slow = threading.Thread(target=lambda: answers.append(sink.resource_exists(RESOURCE, an_installation(), within(DEADLINE))))
        slow.start()
        assert push(sink).verdict is PushVerdict.APPLIED
        slow.join()
        assert answers == [None]


def test_a_deadline_that_is_over_sends_nothing() -> None:
    with Peer(saying(CREATED)) as peer, a_sink(peer.url) as sink:
        assert push(sink, seconds=-1).verdict is PushVerdict.UNSENT
        assert push(sink).verdict is PushVerdict.APPLIED
        assert len(b"".join(peer.received).split(b"PUT ")) == 2


# Nothing was sent


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_refused_connection_is_unsent() -> None:
    with a_sink(f"http://127.0.0.1:{free_port()}") as sink:
        outcome = push(sink)
    assert (outcome.verdict, outcome.note) == (PushVerdict.UNSENT, "could not connect: ECONNREFUSED")


def test_a_name_that_does_not_resolve_is_unsent() -> None:
    with a_sink("https://vercel.invalid") as sink:
        outcome = push(sink)
    assert (outcome.verdict, outcome.note) == (PushVerdict.UNSENT, "could not resolve the name")


def test_a_resolver_that_hangs_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def hang(*_: object, **__: object) -> None:
        ended.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with a_sink("https://vercel.invalid") as sink:
        began = time.monotonic()
        outcome = push(sink, seconds=DEADLINE)
        assert time.monotonic() - began < SOON
    ended.set()
    assert (outcome.verdict, outcome.note) == (PushVerdict.UNSENT, "could not resolve the name: timed out")


def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def two_addresses(host: str, port: int | None, family: int = 0, type: int = 0) -> list[Any]:  # noqa: A002 - the library's name
        if host != "localhost":
            return real(host, port, family, type)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.9.9.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with Peer(saying(CREATED)) as peer, a_sink(f"http://localhost:{peer.port}") as sink:
        assert push(sink).verdict is PushVerdict.APPLIED


def test_may_send_is_asked_when_the_connection_stands_and_false_sends_no_byte() -> None:
    with Peer(lambda peer: peer.read_all()) as peer, a_sink(peer.url) as sink:

        def may_send() -> bool:
            wait_for(lambda: len(peer.conversations) == 1, "the connection")
            return False

        outcome = push(sink, may_send=may_send)
    assert outcome.verdict is PushVerdict.UNSENT
    assert peer.received == [b""]


def test_what_may_send_raises_comes_out_and_sends_no_byte() -> None:
    def broken() -> bool:
        raise LookupError("the store is away")

    with Peer(lambda peer: peer.read_all()) as peer, a_sink(peer.url) as sink:
        with pytest.raises(LookupError, match="the store is away"):
            push(sink, may_send=broken)
        wait_for(lambda: len(peer.conversations) == 1, "the connection")
    assert peer.received == [b""]


# Kept connections


def test_a_connection_is_kept_for_the_next_push() -> None:
    with Peer(saying(CREATED)) as peer, a_sink(peer.url) as sink:
        for _ in range(3):
            assert push(sink).verdict is PushVerdict.APPLIED
        assert len(peer.conversations) == 1


def test_a_kept_connection_that_the_server_has_closed_is_not_used() -> None:
    closed = threading.Event()

    def once(peer: Conversation) -> None:
        peer.request()
        peer.say(CREATED)
        peer.connection.shutdown(socket.SHUT_WR)
        closed.set()
        peer.read_all()

    with Peer(once) as peer, a_sink(peer.url) as sink:
        push(sink)
        assert closed.wait(10)
        assert push(sink).verdict is PushVerdict.APPLIED
        assert len(peer.conversations) == 2


def test_a_kept_connection_that_closes_at_the_last_moment_is_unsent_not_unknown() -> None:
    close, closed = threading.Event(), threading.Event()

    def once(peer: Conversation) -> None:
        peer.request()
        peer.say(CREATED)
        close.wait(10)
        peer.connection.shutdown(socket.SHUT_WR)
        closed.set()
        peer.read_all()

    def may_send() -> bool:
        close.set()
        return closed.wait(10)

    with Peer(once) as peer, a_sink(peer.url) as sink:
        push(sink)
        outcome = push(sink, may_send=may_send)
        assert (outcome.verdict, outcome.note) == (PushVerdict.UNSENT, "the kept connection was closed")
        close.set()
        assert push(sink).verdict is PushVerdict.APPLIED
        assert b"".join(peer.received).count(b"PUT ") == 2


def test_a_connection_is_free_again_after_every_kind_of_end() -> None:
    texts = [answer(500, b"x" * 100_000), answer(201), b"HTTP/1.1 201 C\r\nContent-Length: 5\r\n\r\nx", answer(201)]

    def behave(peer: Conversation) -> None:
        while peer.request() is not None and texts:
            text = texts.pop(0)
            peer.say(text)
            if not text.endswith(b"\r\n\r\n"):
                return

    with Peer(behave) as peer, a_sink(peer.url) as sink:
        states = [push(sink).attempt_state for _ in range(4)]
    assert states == [AttemptState.UNKNOWN, AttemptState.APPLIED, AttemptState.UNKNOWN, AttemptState.APPLIED]


def test_calls_at_once_share_no_pool_and_calls_in_turn_share_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared pool of httpcore's closes, now and then, a connection on which another thread has just begun."""
    used: list[DeadlineTransport] = []
    handle = DeadlineTransport.handle_request

    def note(self: DeadlineTransport, request: httpx.Request) -> httpx.Response:
        used.append(self)
        return handle(self, request)

    monkeypatch.setattr(DeadlineTransport, "handle_request", note)
    with Peer(saying(CREATED)) as peer, a_sink(peer.url) as sink:
        inner: list[PushOutcome] = []

        def push_meanwhile() -> bool:
            inner.append(push(sink))
            return True

        assert push(sink, may_send=push_meanwhile).verdict is PushVerdict.APPLIED
        assert [one.verdict for one in inner] == [PushVerdict.APPLIED]
        first, second = used
        assert first is not second
        for _ in range(3):
            assert push(sink).verdict is PushVerdict.APPLIED
        assert len(peer.conversations) == 2
        assert set(used) == {first, second}


# What must not happen


def test_a_redirect_is_not_followed() -> None:
    with Peer(saying(CREATED)) as elsewhere:
        outcome = pushed_to(saying(answer(307, b"", f"Location: {elsewhere.url}/v1")))
        assert elsewhere.conversations == []
    assert outcome.verdict is PushVerdict.UNKNOWN


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(saying(answer(500))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert pushed_to(saying(CREATED)).verdict is PushVerdict.APPLIED
        assert proxy.conversations == []


def test_no_cookie_of_one_customer_is_sent_for_another() -> None:
    with Peer(saying(answer(201, b"", "Set-Cookie: session=canary; Path=/"))) as peer, a_sink(peer.url) as sink:
        push(sink)
        push(sink)
    assert b"cookie" not in b"".join(peer.received).lower()


@pytest.mark.parametrize(
    "behave",
    [
        saying(CREATED),
        saying(answer(400, b'{"error": {"code": "bad_request", "message": "canary"}}')),
        saying(b"canary\r\n\r\n"),
        after_the_request(Conversation.reset),
    ],
)
def test_nothing_sensitive_is_logged_or_told(behave: Callable[[Conversation], None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    outcome = pushed_to(behave)
    for canary in ("canary", TOKEN, "p@ss"):
        assert canary not in outcome.note
        told = [record.getMessage() for record in caplog.records if not record.getMessage().startswith("receive_response")]
        assert canary not in "\n".join(told)
