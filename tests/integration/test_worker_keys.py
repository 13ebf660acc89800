"""A process and the keys of its store: missing ones are told and held, others stop it before it takes a message."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from sqlalchemy import delete, update

from rotation.errors import Refused, Unavailable
from rotation.store.canaries import Canaries
from rotation.store.keyring import create_key_file
from rotation.store.migration import migrate
from rotation.store.tables import key_canaries
from tests.processes import Process, eventually
from worker import process, tasks
from worker.settings import load
from worker.wiring import open_keyring

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.sandbox.broker import PrivateBroker

ROOT = Path(__file__).parents[2]
CELERY = [sys.executable, "-P", "-m", "celery", "-A", "worker.app", "worker", "-c", "1"]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """A process with a migrated store of its own, which has not looked at its keys."""
    for name in [one for one in os.environ if one.startswith("ROLLOVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROLLOVER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ROLLOVER_LOG_FORMAT", "json")
    monkeypatch.setattr(process, "_keys_seen", set())
    migrate(load(os.environ).store)
    yield os.environ
    process.close()


def alter_canaries() -> None:
    with process.store().database.writing() as connection:
        connection.execute(update(key_canaries).values(sealed=b"altered"))


def begin_anew() -> None:
    """As another process."""
    process.close()
    process._keys_seen.clear()


def exchange_keys(directory: Path) -> None:
    (directory / "rollover.keys").unlink()
    create_key_file(directory / "rollover.keys")


@pytest.mark.usefixtures("environment")
def test_the_first_process_keeps_a_canary_of_each_key_that_seals() -> None:
    with structlog.testing.capture_logs() as told:
        process.ports()
    assert told == []
    assert [one.partition("-")[0] for one in sorted(Canaries(process.store().database).known())] == ["secrets", "verifiers"]


@pytest.mark.usefixtures("environment")
def test_a_missing_key_is_told_once_and_everything_else_goes_on(tmp_path: Path) -> None:
    process.ports()
    exchange_keys(tmp_path)
    begin_anew()
    with structlog.testing.capture_logs() as told:
        process.ports()
        process.ports()
    assert sorted((one["event"], one["alarm"], one["key"].partition("-")[0]) for one in told) == [
        ("key_missing", True, "secrets"),
        ("key_missing", True, "verifiers"),
    ]
    assert len(Canaries(process.store().database).known()) == 4


@pytest.mark.usefixtures("environment")
def test_a_canary_that_does_not_open_stops_the_process() -> None:
    process.ports()
    alter_canaries()
    begin_anew()
    with pytest.raises(Refused, match="canary"):
        process.ports()
    with pytest.raises(Refused):  # not only the first time
        process.ports()
    with structlog.testing.capture_logs() as told, pytest.raises(SystemExit) as ended:
        tasks._expect_keys()
    assert ended.value.code == 1
    assert [one["event"] for one in told] == ["keys_refused"]


@pytest.mark.usefixtures("environment")
def test_a_worker_whose_store_is_away_waits_for_it(tmp_path: Path) -> None:
    migrate(load(os.environ).store, "base")
    with structlog.testing.capture_logs() as told:
        tasks._expect_keys()
    assert [one["event"] for one in told] == ["store_unavailable"]
    with pytest.raises(Unavailable):
        process.ports()
    migrate(load(os.environ).store)
    process.ports()


def test_a_key_file_is_made_only_where_nothing_is_sealed_yet(environment: Mapping[str, str], tmp_path: Path) -> None:
    settings = load(environment)
    first = open_keyring(settings)
    process.ports()
    (tmp_path / "rollover.keys").unlink()
    with pytest.raises(Refused, match=first.keys[0].id):
        open_keyring(settings)
    assert not (tmp_path / "rollover.keys").exists()
    with process.store().database.writing() as connection:
        connection.execute(delete(key_canaries))
    assert open_keyring(settings).keys


def test_a_real_worker_ends_before_it_takes_a_message(environment: Mapping[str, str], valkey_server: PrivateBroker, tmp_path: Path) -> None:
    process.ports()
    alter_canaries()
    variables = {**environment, "ROLLOVER_BROKER_URL": valkey_server.url.reveal(), "PYTHONPATH": str(ROOT)}
    for pool in ("threads", "prefork"):
        worker = Process("worker", [*CELERY, "--pool", pool], variables, tmp_path / f"{pool}.log")
        try:
            assert worker.ended(60) == 1, worker.last_words()
            assert [one for one in worker.lines() if one.get("event") == "keys_refused"]
            assert not [one for one in worker.lines() if "ready" in str(one.get("event"))]
        finally:
            worker.end()


def test_a_real_worker_starts_with_the_keys_of_its_store(
    environment: Mapping[str, str], valkey_server: PrivateBroker, tmp_path: Path
) -> None:
    variables = {**environment, "ROLLOVER_BROKER_URL": valkey_server.url.reveal(), "PYTHONPATH": str(ROOT)}
    worker = Process("worker", CELERY, variables, tmp_path / "worker.log")
    try:
        assert eventually(lambda: any("ready" in str(one.get("event")) for one in worker.lines()), 60), worker.last_words()
        assert len(Canaries(process.store().database).known()) == 2
    finally:
        worker.end()
