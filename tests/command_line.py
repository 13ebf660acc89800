"""The command line on a store of its own, with the database servers in memory: what a test types, and what came of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tests.fakes.engine import FakeEngine
from tests.fakes.sealer import FakeSealer
from worker import wiring
from worker.cli.main import app
from worker.machine import MachineClock
from worker.sandbox.vercel import SandboxVercel
from worker.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rotation.ports import Ports
    from worker.settings import Settings

TOKEN = "CANARY-token-of-vercel"
PASSWORD = "CANARY-password-of-orders"

SERVER_FILE = """
name = "pg-eu-1"
engine = "postgresql"
host = "db.example.com"
port = 5432
sslmode = "verify-full"
admin_url_file = "admin.url"
"""

RESOURCE_FILE = """
installation = "icfg_1"
id = "store_42"
product = "postgres"
engine = "postgresql"
owns_all_secrets = true

[database]
server = "pg-eu-1"
name = "orders"
owner_role = "orders_owner"
login_prefix = "orders"

[policy]
every = "30d"

[[secrets]]
name = "DATABASE_URL"
value = "postgresql://{username}:{password}@{host}:{port}/{database}"

[current]
username = "orders_app"
password_file = "current.password"
"""

PREFIX = 'login_prefix = "orders"'
"""In the file of a second resource there must be another one."""


class Answer:
    """What one command came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def data(self) -> Any:  # noqa: ANN401 - whatever the command prints
        """What `--json` printed."""
        return json.loads(self.out)


class CommandLine:
    """`rollover`, as somebody types it. A traceback fails the test, and so does a secret on either stream."""

    def __init__(self, directory: Path, engine: FakeEngine) -> None:
        self.directory = directory
        self.engine = engine

    def __call__(self, *words: str, typed: str = "") -> Answer:
        result = CliRunner().invoke(app, list(words), input=typed, prog_name="rollover")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "CANARY" not in result.stdout + result.stderr
        return Answer(result.exit_code, result.stdout, result.stderr)

    def done(self, *words: str, typed: str = "") -> Answer:
        """The same, for a command that must succeed."""
        answer = self(*words, typed=typed)
        assert answer.code == 0, answer.err
        return answer

    def refused(self, *words: str, code: int, typed: str = "") -> str:
        """The same, for a command that must fail and write nothing; what it said."""
        before = self.events()
        answer = self(*words, typed=typed)
        assert answer.code == code, answer.err
        assert answer.err
        assert self.events() == before
        return answer.err

    def events(self) -> list[str]:
        """Everything on record, the oldest first."""
        return [one["kind"] for one in reversed(self.done("events", "--json", "--limit", "10000").data)]

    def file(self, name: str, text: str, mode: int = 0o600) -> str:
        """A file of the operator's; gives its path."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    @property
    def key_file(self) -> Path:
        """Where the keys are that were made for this store."""
        path = load(os.environ).keys_path
        assert path is not None
        return path

    def with_installation(self) -> None:
        self.done("installation", "add", "icfg_1", typed=TOKEN + "\n")

    def with_server(self) -> None:
        self.file("admin.url", "postgresql://admin:CANARY@db.example.com/postgres")
        self.done("server", "add", self.file("server.toml", SERVER_FILE))

    def with_resource(self) -> str:
        """An installation, a server and a resource on it; gives the resource's name."""
        self.with_installation()
        self.with_server()
        self.file("current.password", PASSWORD)
        self.done("resource", "add", self.file("resource.toml", RESOURCE_FILE))
        return "icfg_1/store_42"


@pytest.fixture
def local_vercel() -> Iterator[str]:
    """The address of a local Vercel, so that no test asks the real one."""
    with SandboxVercel() as vercel:
        yield vercel.url


@pytest.fixture
def bare_rollover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line before anything was done, without a store."""
    for name in [one for one in os.environ if one.startswith("ROLLOVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("ROLLOVER_DATA_DIR", str(tmp_path / "state"))
    engine = FakeEngine(FakeSealer(), MachineClock())
    wire = wiring.wire

    def wire_with_servers_in_memory(settings: Settings) -> Ports:
        return replace(wire(settings), engines={"postgresql": engine})

    monkeypatch.setattr(wiring, "wire", wire_with_servers_in_memory)
    return CommandLine(tmp_path, engine)


@pytest.fixture
def rollover(bare_rollover: CommandLine) -> CommandLine:
    """The command line on an empty store."""
    bare_rollover.done("migrate")
    return bare_rollover
