"""Servers for the acceptance tests, shared by those that do not harm them. Each rig has databases, store, broker and Vercel of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.rigs import CustomersServer, prepared
from worker.sandbox.postgresql import PrivatePostgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CUSTOMERS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}
STORE = {"max_connections": "200"}
"""Durable, as a store must be."""
STORES = ("sqlite", "postgresql")

_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a rig runs in one process: a module, and of it each store by itself. First, since xdist then reads the marks."""
    for item in items:
        if item.path.parent.name == "acceptance":
            store = next((store for store in STORES if store in item.name), "")
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {store}"))


@pytest.fixture(scope="session")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CustomersServer]:
    """The database server of the customers. A test that stops or freezes one makes one of its own."""
    directory = tmp_path_factory.mktemp("customers")
    with PrivatePostgresql(directory / "postgresql", settings=CUSTOMERS) as postgresql:
        yield prepared("customers", postgresql, directory)


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgresql]:
    """The server of the stores that are on PostgreSQL."""
    with PrivatePostgresql(tmp_path_factory.mktemp("store"), settings=STORE) as postgresql:
        yield postgresql


@pytest.fixture(scope="session")
def new_store(request: pytest.FixtureRequest) -> Callable[[str], str | None]:
    """The URL of a new, empty store of a kind; None for SQLite, which a rig makes itself."""

    def make(kind: str) -> str | None:
        return None if kind == "sqlite" else new_database(request.getfixturevalue("store_server"))

    return make


def new_database(server: PrivatePostgresql) -> str:
    """The URL of a new database."""
    name = f"store{next(_numbers)}"
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.superuser_url(name)
