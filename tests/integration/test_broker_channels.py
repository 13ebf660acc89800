"""kombu's channels as they are mended: one client for all commands, and another one with another pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu import Connection

from worker.transport import MendedTransport

if TYPE_CHECKING:
    from worker.sandbox.broker import PrivateBroker


def test_a_channel_keeps_its_client_as_long_as_its_connections(valkey_server: PrivateBroker) -> None:
    with Connection(valkey_server.url.reveal(), transport=MendedTransport) as connection:
        channel: Any = connection.channel()  # kombu's stubs know no transport's own channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
            assert first.ping()
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()


def test_two_channels_share_no_client(valkey_server: PrivateBroker) -> None:
    with Connection(valkey_server.url.reveal(), transport=MendedTransport) as connection:
        one: Any = connection.channel()  # as above
        other: Any = connection.channel()
        assert one._create_client() is not other._create_client()
