"""What our processes import and hold: no more than they need, and nothing after their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from rotation.model import Event, Installation
from rotation.store.migration import migrate
from worker import process, tasks
from worker.app import NEVER, celery_settings
from worker.redaction import is_telling
from worker.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOR_PEOPLE = {"rich", "pygments", "typer", "alembic", "mako", "starlette", "uvicorn", "jinja2"}
FOR_THE_STORE = {"sqlalchemy", "psycopg", "httpx", "rotation.lifecycle"}


def imported(*modules: str) -> set[str]:
    """Everything that a new process has imported after these."""
    program = f"import json, sys, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return set(json.loads(subprocess.check_output([sys.executable, "-P", "-c", program], env=environment)))  # noqa: S603 - this interpreter


def opened(directory: Path) -> list[Path]:
    """What this process has open there."""
    found = list(Path("/proc/self/fd").iterdir())
    return [one.readlink() for one in found if one.is_symlink() and one.readlink().is_relative_to(directory)]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Settings of a process with a store of its own."""
    ours = {"ROLLOVER_DATA_DIR": str(tmp_path), "ROLLOVER_BROKER_URL": "redis://127.0.0.1:1/0", "ROLLOVER_TICK_SECONDS": "7"}
    for name in [one for one in os.environ if one.startswith("ROLLOVER_")]:
        monkeypatch.delenv(name)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    yield ours
    process.close()


def test_a_worker_imports_nothing_that_is_for_people() -> None:
    assert FOR_PEOPLE & imported("worker.app", "worker.tasks", "celery.apps.worker", "celery.worker.consumer") == set()


def test_the_clock_imports_neither_tasks_nor_store() -> None:
    assert (FOR_PEOPLE | FOR_THE_STORE) & imported("worker.app", "celery.apps.beat") == set()


def test_help_imports_nothing_that_is_for_work() -> None:
    assert {"celery", "sqlalchemy", "pydantic", "structlog", "psycopg", "httpx"} & imported("worker.cli.main") == set()


def test_the_first_tick_is_due_when_the_clock_starts(environment: dict[str, str]) -> None:
    entries = celery_settings(load(environment))["beat_schedule"].values()
    assert {entry["task"]: entry["schedule"] for entry in entries} == {
        "rollover.tick": 7.0,
        "rollover.seal_audit": 60.0,
        "rollover.watch": 60.0,
    }
    assert {entry["last_run_at"] for entry in entries} == {NEVER}
    assert all(entry["options"]["expires"] == entry["schedule"] for entry in entries)


@pytest.mark.usefixtures("environment")
def test_a_process_has_one_set_of_ports_and_leaves_no_connection_behind(tmp_path: Path) -> None:
    migrate(load(os.environ).store)
    assert process.ports() is process.ports()
    store = process.store()
    store.servers()
    assert opened(tmp_path)
    process.close()
    assert not opened(tmp_path)
    assert process.store() is not store


@pytest.mark.usefixtures("environment")
def test_the_audit_trail_is_signed_once_for_what_has_grown() -> None:
    migrate(load(os.environ).store)
    store = process.store()
    store.add_installation(Installation("icfg_1"), Event("installation_added", "test"))
    with structlog.testing.capture_logs() as told:
        tasks.seal_audit()
        tasks.seal_audit()
    (sealed,) = told
    assert (sealed["event"], sealed["number"], sealed["chains"], sealed["events"]) == ("audit_sealed", 1, 1, 1)
    assert not is_telling("seal")
    assert list(store.verify_audit()) == []


@pytest.mark.usefixtures("environment")
def test_a_store_that_is_away_is_told_and_left_to_the_next_minute() -> None:
    with structlog.testing.capture_logs() as told:
        tasks.seal_audit()
        tasks.tick()
    # The tick asks the broker first how much it takes, which is none of this test's business.
    assert [one["event"] for one in told if one["event"] != "broker_unavailable"] == ["store_unavailable"] * 2


def test_closing_what_was_never_opened_does_nothing() -> None:
    process.close()
    process.close()
