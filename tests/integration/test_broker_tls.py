"""TLS to the broker: its certificate is verified, for its own host, by all three that connect to it."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from rotation.sensitive import Sensitive
from tests.vercel_peers import in_tls
from worker.app import celery_settings
from worker.limits import connect
from worker.settings import load
from worker.transport import tls

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 5


class Listener:
    """Something that speaks TLS and nothing else; `met` are the clients that took its certificate."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(SECONDS)
        self.port = self._socket.getsockname()[1]
        self.met = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                with client, suppress(OSError), in_tls(self._context, client) as secured:
                    secured.recv(1)  # with TLS 1.3 a client that refuses says so after the handshake
                    self.met += 1


@contextmanager
def listening(context: ssl.SSLContext) -> Iterator[Listener]:
    listener = Listener(context)
    try:
        yield listener
    finally:
        listener.close()


def reach(scheme: str, host: str, port: int) -> None:
    """As a worker does it. What is behind the TLS is no broker, so that this ends badly in any case."""
    settings = load({"ROLLOVER_BROKER_URL": f"{scheme}://user:password@{host}:{port}//"[: None if scheme == "amqps" else -2]})
    with Celery("reaching", set_as_current=False) as app:
        app.config_from_object(celery_settings(settings))
        with app.connection_for_write() as connection, suppress(OperationalError, *connection.connection_errors):
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=SECONDS)


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_broker_that_nobody_vouches_for_is_not_spoken_to(scheme: str, context: ssl.SSLContext) -> None:
    with listening(context) as listener:
        reach(scheme, "127.0.0.1", listener.port)
        assert listener.met == 0


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_one_with_the_certificate_of_another_host_is_not_spoken_to(
    scheme: str, context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with listening(context) as listener:
        reach(scheme, "localhost", listener.port)
        assert listener.met == 0


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_one_that_a_root_of_ours_vouches_for_is(
    scheme: str, context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with listening(context) as listener:
        reach(scheme, "127.0.0.1", listener.port)
        assert listener.met > 0


def test_the_limiter_asks_for_a_certificate_too(context: ssl.SSLContext) -> None:
    with listening(context) as listener, connect(Sensitive(f"rediss://127.0.0.1:{listener.port}/0")) as client:
        with pytest.raises(redis.ConnectionError):
            client.ping()
        assert listener.met == 0


@pytest.mark.parametrize("url", ["redis://127.0.0.1/0", "amqp://127.0.0.1//"])
def test_a_url_without_tls_asks_for_none(url: str) -> None:
    assert tls(url) is False
