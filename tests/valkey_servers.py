"""Brokers for tests, on ports of their own: `valkey` is started once a test process and emptied for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from worker.sandbox.broker import PrivateBroker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A running broker. A test that stops or freezes it makes one of its own."""
    with PrivateBroker(tmp_path_factory.mktemp("valkey")) as broker:
        yield broker


@pytest.fixture
def valkey(valkey_server: PrivateBroker) -> Iterator[redis.Redis]:
    """A client of the running broker, which is empty."""
    client = redis.Redis.from_url(valkey_server.url.reveal(), socket_timeout=5)
    client.flushall()
    yield client
    client.close()
