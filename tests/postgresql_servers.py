"""PostgreSQL servers for tests, started once a test process on ports of their own: `postgresql`, and `postgresql_any` for each version."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from worker.sandbox.postgresql import PrivatePostgresql, server_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSIONS = ("15", "17", "18")
"""17 and 18 come with the development dependencies, 15 where the system has it."""

QUICK = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "60"}
"""Tests of crashes ask for a durable server of their own."""


def version_of(bin_directory: Path) -> str:
    """The major version of the server in this directory."""
    said = subprocess.run([bin_directory / "postgres", "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S603 - a server's binary
    return said.split()[2].split(".")[0]


BINARIES = {version: place for place in reversed(server_binaries()) if (version := version_of(place)) in VERSIONS}


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgresql]:
    """A running PostgreSQL, the version that the demo uses. Tests make databases and roles with names of their own."""
    with PrivatePostgresql(tmp_path_factory.mktemp("postgresql"), settings=QUICK) as server:
        yield server


class Versions:
    """A running PostgreSQL of each version that is at hand, started when first asked for."""

    def __init__(self, directory: Path, servers: ExitStack) -> None:
        self._directory = directory
        self._servers = servers
        self._running: dict[str, PrivatePostgresql] = {}

    def __getitem__(self, version: str) -> PrivatePostgresql:
        if version not in self._running:
            server = PrivatePostgresql(self._directory / version, bin_directory=BINARIES[version], settings=QUICK)
            self._running[version] = self._servers.enter_context(server)
        return self._running[version]


@pytest.fixture(scope="session")
def postgresql_versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    """The servers by their major version, e.g. `postgresql_versions["17"]`."""
    with ExitStack() as servers:
        yield Versions(tmp_path_factory.mktemp("postgresql-versions"), servers)


@pytest.fixture(params=sorted(BINARIES))
def postgresql_any(request: pytest.FixtureRequest, postgresql_versions: Versions) -> PrivatePostgresql:
    """A running PostgreSQL of each version that is at hand, one after the other."""
    return postgresql_versions[request.param]
