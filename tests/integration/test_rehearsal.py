"""The place to rehearse in: what is written, for whom, and what is left when it ends. The tour in the README rehearses in one."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.processes import Process, eventually
from worker.inventory import Rules, read_resource, read_server
from worker.sandbox.customers import Customer, Tally
from worker.sandbox.rehearsal import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
COMMAND = [sys.executable, "-P", "-m", "worker", "sandbox", "rehearse"]


def environment() -> dict[str, str]:
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_")}
    return foreign | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose name a shell has to be told about."""
    return tmp_path_factory.mktemp("rehearsal") / "a customer's"


@pytest.fixture(scope="module")
def rehearsal(place: Path) -> Iterator[Process]:
    process = Process("rehearsal", [*COMMAND, str(place)], environment(), place.parent / "rehearsal.log")
    try:
        assert eventually(lambda: "Ctrl-C" in process.log.read_text(), START_SECONDS), process.last_words()
        yield process
    finally:
        process.end()


def sourced(place: Path) -> dict[str, str]:
    """The settings as a shell reads them."""
    command = ["sh", "-c", '. "$1/env" && env', "sh", str(place)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": os.defpath}).stdout  # noqa: S603 - a constant
    return dict(line.split("=", 1) for line in told.splitlines() if line.startswith("ROLLOVER_"))


@pytest.mark.usefixtures("rehearsal")
def test_all_files_are_for_their_owner_alone(place: Path) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    files = {one.name: stat.S_IMODE(one.stat().st_mode) for one in place.iterdir() if one.is_file()}
    assert files == dict.fromkeys(
        ["accounts.password", "accounts.toml", "admin.url", "env", "installation.token", "orders.password", "orders.toml", "server.toml"],
        0o600,
    )


@pytest.mark.usefixtures("rehearsal")
def test_the_files_are_what_an_operator_would_write(place: Path) -> None:
    rules = Rules(allow_private_hosts=True)
    server = read_server(place / "server.toml", rules)
    assert server.warnings == ()
    for name in ("orders", "accounts"):
        read = read_resource(place / f"{name}.toml", rules, {})
        assert read.warnings == ()
        assert read.spec.database.server == server.server.name
        assert read.current is not None
        url = f"postgresql://{server.server.host}:{server.server.port}/{name}"
        with psycopg.connect(url, user=read.current.username, password=read.current.password.reveal()) as connection:
            assert connection.execute("SELECT count(*) >= 0 FROM visits").fetchone() == (True,)


@pytest.mark.usefixtures("rehearsal")
def test_the_settings_are_of_the_rehearsal_alone(place: Path) -> None:
    settings = sourced(place)
    assert settings["ROLLOVER_DATA_DIR"] == str(place / "rollover")
    assert settings["ROLLOVER_VERCEL_API_URL"].startswith("http://127.0.0.1:")


def test_what_is_printed_names_no_secret(rehearsal: Process, place: Path) -> None:
    told = rehearsal.log.read_text()
    for name in ("accounts.password", "orders.password", "installation.token", "admin.url"):
        assert (place / name).read_text() not in told


@pytest.mark.usefixtures("rehearsal")
def test_a_directory_with_something_in_it_is_left_alone(place: Path) -> None:
    before = sorted(place.iterdir())
    told = subprocess.run([*COMMAND, str(place)], check=False, capture_output=True, text=True, env=environment())  # noqa: S603 - our own
    assert told.returncode == 1
    assert "name a new one" in told.stderr
    assert sorted(place.iterdir()) == before


def test_ctrl_c_ends_the_servers_and_leaves_the_files(tmp_path: Path) -> None:
    place = tmp_path / "rehearsal"
    process = Process("rehearsal", [*COMMAND, str(place)], environment(), tmp_path / "rehearsal.log")
    try:
        assert eventually(lambda: "Ctrl-C" in process.log.read_text(), START_SECONDS), process.last_words()
        port = tomllib.loads((place / "server.toml").read_text())["port"]
        os.kill(process.pid, signal.SIGINT)
        assert process.ended() == 0
    finally:
        process.end()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://127.0.0.1:{port}/postgres")
    assert (place / "orders.toml").exists()
    assert "orders: " in process.last_words()


def test_a_report_tells_changes_alone() -> None:
    held = {"DATABASE_URL": "postgresql://first:x@db.example.com:5432/orders"}
    customer = Customer("orders", lambda: held, timedelta(seconds=1), random.Random(1))  # noqa: S311 - no secret
    report = Report(customer)
    assert list(report.news()) == []
    customer.tally = Tally(accepted=5, refused=1)
    assert list(report.news()) == ["orders: the login first is refused"]
    customer.tally = Tally(accepted=5, refused=2)
    assert list(report.news()) == []
    customer.tally = Tally(accepted=6, refused=2)
    assert list(report.news()) == ["orders: logs in again"]
    assert list(report.news()) == []
