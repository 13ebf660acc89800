"""Keys are replaced under a whole store while somebody kills it again and again: nothing is lost, and the old keys may go.

`CANARY_ROWS` says how many rows there are (`make canary`: 100,000), and how long each run lives before it is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from rotation.ports import Terms
from rotation.store.keyring import KeyUse, add_key, create_key_file, load_key_file
from rotation.store.migration import migrate
from rotation.store.sealed import SealedRows
from rotation.store.sealing import KeyringSealer
from rotation.store.sql import SqlStore
from tests.canary.sealed_rows import fill, sealed_values, secret_of
from tests.rigs import ROOT
from tests.sql_stores import AUDIT_KEY, new_database, sqlite_url
from worker.machine import MachineClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ROWS = int(os.environ.get("CANARY_ROWS", "2000"))
MANY = 50_000
SECONDS_TO_LIVE = 1.0 if ROWS >= MANY else 0.1
PROGRAM = """
from sqlalchemy.dialects import postgresql, sqlite
import psycopg, rich.progress
from rotation.store import canaries, sealed, sql
from worker import wiring
from worker.cli.main import main
print("begun", flush=True)
main()
"""
"""The command, with a word when it has loaded what it needs: only from then on is its time counted."""

pytestmark = pytest.mark.timeout(120 + ROWS / 25)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    url = make_url(sqlite_url(tmp_path)) if request.param == "sqlite" else new_database(request.getfixturevalue("postgresql"), "rewrapped")
    migrate(url)
    store = SqlStore(url, clock=MachineClock(), terms=Terms(), audit_key=AUDIT_KEY)
    yield store
    store.dispose()


def test_killed_again_and_again_it_ends_with_everything_under_the_newest_key(
    store: SqlStore, tmp_path: Path, figure: Callable[[str, int], None]
) -> None:
    keys = tmp_path / "keys"
    create_key_file(keys)
    fill(store, KeyringSealer(load_key_file(keys)), resources=2, generations=ROWS // 2)
    before = set(SealedRows(store.database).counts())
    added = {key.id for key in add_key(keys)}
    environment = settings_for(store, keys, tmp_path)
    kills, seconds, left = 0, SECONDS_TO_LIVE, older(store, before)
    while not rewrapped(environment, seconds):
        kills += 1
        if older(store, before) == left:  # on a busy machine it has not come far enough to begin
            seconds *= 2
        left = older(store, before)
    assert kills
    assert set(SealedRows(store.database).counts()) == added
    remove_oldest(keys)
    newest = KeyringSealer(load_key_file(keys))
    assert not any(newest.knows(one) for one in before)
    opened = 0
    for place, sealed in sealed_values(store):
        assert newest.open(sealed, place) == secret_of(place)
        opened += 1
    assert opened == 2 * ROWS + 2
    figure("rows re-wrapped", ROWS)
    figure("kills while re-wrapping", kills)


def older(store: SqlStore, keys: set[str]) -> int:
    """How much these keys still seal."""
    return sum(sum(counted.values()) for key, counted in SealedRows(store.database).counts().items() if key in keys)


def rewrapped(environment: Mapping[str, str], seconds: float) -> bool:
    """Whether the command came to its end; where it takes longer than that, it is killed."""
    command = [sys.executable, "-P", "-c", PROGRAM, "keys", "rewrap"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return False
        assert process.returncode == 0, process.communicate()[1]
        return True


def settings_for(store: SqlStore, keys: Path, directory: Path) -> dict[str, str]:
    url_file = directory / "store.url"
    url_file.touch(mode=0o600)
    url_file.write_text(store.database.engine.url.render_as_string(hide_password=False))
    ours = {"STORE_URL_FILE": str(url_file), "KEYS_FILE": str(keys), "DATA_DIR": str(directory / "data")}
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_")}
    return {**foreign, **{f"ROLLOVER_{name}": value for name, value in ours.items()}, "PYTHONPATH": str(ROOT)}


def remove_oldest(keys: Path) -> None:
    """Take the first key of each use that seals out of the file."""
    lines = [line for line in keys.read_text().splitlines() if not line.startswith("#")]
    for use in (KeyUse.SECRETS, KeyUse.VERIFIERS):
        lines.remove(next(line for line in lines if line.startswith(use)))
    keys.write_text("\n".join(lines) + "\n")
