"""Celery's way to its broker, mended in one place: a worker outlives the loss of its broker while it has work in hand."""

from __future__ import annotations

import ssl
from typing import Any, Literal
from urllib.parse import urlsplit

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker import messages

SCHEMES = ("redis", "rediss")
RECONNECT = {"max_retries": 1, "interval_start": 0, "interval_max": 0}
"""How to publish where the connection may be lost: over AMQP it is made anew by a second try only. That one comes at once."""


def tls(url: str) -> dict[str, Any] | Literal[False]:
    """How the broker has to prove who it is: by a certificate of the host in the URL. False where the URL asks for no TLS.

    kombu 5.7 on its own takes any certificate for `rediss://`, and any host's for `amqps://`.
    """
    match urlsplit(url).scheme:
        case "rediss":
            return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
        case "amqps":
            return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": urlsplit(url).hostname}
    return False


def mend() -> None:
    """Let every connection of this process to Redis go through `MendedTransport`. Doing it twice is harmless."""
    TRANSPORT_ALIASES.update(dict.fromkeys(SCHEMES, f"{__name__}:{MendedTransport.__name__}"))
    # kombu reads what comes out of a queue or is published in several places, and what it cannot read ends the worker in each of them.
    redis.loads = messages.read  # type: ignore[attr-defined]  # the stubs leave it out


class MendedChannel(redis.Channel):
    """A channel that says "no connection" when it has been closed.

    When the broker is lost, kombu 5.7 still uses the closed channel: to give back what was not acknowledged, and to acknowledge a task
    that ends later. There is no address left to connect to, and the AttributeError that follows ends the worker; an error of the
    connection is told in the log. Nothing is lost with either: the row is on record, and the sweep finds what is due.
    """

    _kept_client: Any = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - the library's signature
        if getattr(self.connection, "client", None) is None:
            raise RedisConnectionError("the connection to the broker was closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]  # the stubs leave it out
        return parameters

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - the library's signature
        """One client for all commands of a channel: kombu makes one for each, several a task, which takes longer than most commands."""
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # the stubs leave it out
        if self._kept_client is None or self._kept_client.connection_pool is not self.pool:  # a lost connection takes its pool along
            self._kept_client = super()._create_client()  # type: ignore[misc]  # as above
        return self._kept_client


class MendedTransport(redis.Transport):
    """kombu's transport with mended channels, which hands on only what is in the form of a message."""

    Channel = MendedChannel

    def _deliver(self, message: object, queue: str | None) -> None:
        problem = messages.fault_of_envelope(message)
        if problem is None:
            super()._deliver(message, queue)
        else:
            messages.refuse(problem, message.size if isinstance(message, messages.Unreadable) else len(repr(message)))
