"""TLS to Vercel: verified, without a fallback, and its failure is not a push."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rotation.errors import Invalid
from rotation.model import PushOutcome, PushVerdict
from rotation.vercel.client import VercelSettings
from tests.vercel_peers import LOGIN, Peer, a_resource, a_sink, an_installation, answer, saying, within

if TYPE_CHECKING:
    import ssl
    from pathlib import Path


def push(url: str, ca_file: str | None = None, *, times: int = 1, seconds: float = 10.0) -> list[PushOutcome]:
    resource = a_resource()
    with a_sink(url, ca_file=ca_file) as sink:
        secrets = sink.render(resource, LOGIN)
        return [sink.push(resource, an_installation(), secrets, lambda: True, within(seconds)) for _ in range(times)]


def test_a_certificate_that_nobody_vouches_for_is_unsent(context: ssl.SSLContext) -> None:
    with Peer(saying(answer(201)), tls=context) as peer:
        (outcome,) = push(peer.url)
        assert b"".join(peer.received) == b""
    assert (outcome.verdict, outcome.note) == (PushVerdict.UNSENT, "TLS failed: CERTIFICATE_VERIFY_FAILED")


def test_a_certificate_of_another_host_is_unsent(context: ssl.SSLContext, certificate: Path) -> None:
    with Peer(saying(answer(201)), tls=context) as peer:
        (outcome,) = push(f"https://localhost:{peer.port}", str(certificate))
        assert b"".join(peer.received) == b""
    assert outcome.verdict is PushVerdict.UNSENT


def test_with_a_trusted_certificate_pushes_share_one_connection(context: ssl.SSLContext, certificate: Path) -> None:
    with Peer(saying(answer(201)), tls=context) as peer:
        outcomes = push(peer.url, str(certificate), times=3)
        assert len(peer.conversations) == 1
    assert {outcome.verdict for outcome in outcomes} == {PushVerdict.APPLIED}


def test_a_server_without_tls_is_unsent() -> None:
    with Peer(lambda peer: peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as peer:
        (outcome,) = push(f"https://127.0.0.1:{peer.port}")
    assert outcome.verdict is PushVerdict.UNSENT


def test_a_handshake_that_hangs_does_not_outlast_the_deadline() -> None:
    with Peer(lambda peer: peer.hold()) as peer:
        (outcome,) = push(f"https://127.0.0.1:{peer.port}", seconds=0.3)
    assert (outcome.verdict, outcome.note) == (PushVerdict.UNSENT, "TLS failed: timed out")


@pytest.mark.parametrize("url", ["https://api.vercel.com", "http://127.0.0.1:8000", "http://[::1]:8000/", "http://localhost"])
def test_https_is_taken_and_plain_http_on_this_machine(url: str) -> None:
    assert VercelSettings(url).api_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.vercel.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "ftp://127.0.0.1", "api.vercel.com", "", "https://",
        "https://user:canary@api.vercel.com", "https://api.vercel.com?x=1", "https://api.vercel.com#x", "https://h:99999", "https://[::1",
    ],
)  # fmt: skip
def test_any_other_address_is_a_fault(url: str) -> None:
    with pytest.raises(Invalid) as raised:
        VercelSettings(url)
    assert "canary" not in str(raised.value)
