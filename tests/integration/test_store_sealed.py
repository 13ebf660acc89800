"""What is sealed in a store, on both databases: counted by key, wrapped anew while others work on it, found when its key is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from rotation.errors import NotFound
from rotation.model import Installation, Schedule, SealContext
from rotation.sensitive import Sensitive
from rotation.states import Stage
from rotation.store import sealed
from rotation.store.canaries import Canaries
from rotation.store.keyring import Key, Keyring, KeyUse
from rotation.store.sealed import SealedRows
from rotation.store.sealing import KeyringSealer
from rotation.store.tables import credentials, key_canaries
from tests.sql_stores import sqlite_url
from tests.store_samples import SERVER, blocked, credential, event, fresh, present, spec

if TYPE_CHECKING:
    from rotation.model import Credential
    from tests.sql_stores import SqlBench

ROOT = Path(__file__).parents[2]
OLD_KEYS = [Key.made(use) for use in KeyUse]
NEW_KEYS = [Key.made(KeyUse.SECRETS), Key.made(KeyUse.VERIFIERS)]
OLD, BOTH = KeyringSealer(Keyring(OLD_KEYS)), KeyringSealer(Keyring(OLD_KEYS + NEW_KEYS))
OLD_SECRETS, OLD_VERIFIERS = OLD_KEYS[0].id, OLD_KEYS[1].id
NEW_SECRETS, NEW_VERIFIERS = NEW_KEYS[0].id, NEW_KEYS[1].id
PASSWORD, VERIFIER, TOKEN = Sensitive("a password"), Sensitive("a verifier"), Sensitive("a token")


def place(one: Credential, purpose: str) -> SealContext:
    return SealContext("icfg_1", one.resource_id, one.id, purpose)


def sealed_by(sealer: KeyringSealer, one: Credential) -> Credential:
    return replace(
        one,
        sealed_password=sealer.seal(PASSWORD, place(one, "password")),
        sealed_verifier=sealer.seal(VERIFIER, place(one, "verifier")),
    )


def a_fleet(bench: SqlBench, count: int, sealer: KeyringSealer = OLD) -> list[Credential]:
    """An installation and so many resources with a login each, sealed by this ring."""
    store = bench.store
    store.add_server(SERVER, event("server_added"))
    token = sealer.seal(TOKEN, SealContext("icfg_1", "", "", "token"))
    store.add_installation(Installation("icfg_1", token), event("installation_added"))
    made = []
    for number in range(count):
        resource_id = fresh("res")
        one = sealed_by(sealer, credential(resource_id, 1, Stage.CURRENT, bench.clock.now()))
        store.register(spec(f"store_{number}"), resource_id, Schedule(), one, event("resource_registered"))
        made.append(one)
    return made


def opened(bench: SqlBench, one: Credential, sealer: KeyringSealer) -> tuple[Sensitive, Sensitive]:
    now = bench.credential(one.id)
    return (
        sealer.open(present(now.sealed_password), place(one, "password")),
        sealer.open(present(now.sealed_verifier), place(one, "verifier")),
    )


def test_an_empty_store_has_nothing_sealed(sql_bench: SqlBench) -> None:
    rows = SealedRows(sql_bench.store.database)
    assert rows.counts() == {}
    assert list(rows.rewrap(BOTH)) == []
    assert list(rows.resources_of(OLD_SECRETS)) == []


def test_what_each_key_seals_is_counted(sql_bench: SqlBench) -> None:
    a_fleet(sql_bench, 3)
    rows = SealedRows(sql_bench.store.database)
    assert rows.counts() == {OLD_SECRETS: {"passwords": 3, "tokens": 1}, OLD_VERIFIERS: {"verifiers": 3}}


def test_everything_is_wrapped_under_the_newest_keys_and_opens_as_before(sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "BATCH", 2)
    fleet = a_fleet(sql_bench, 5)
    rows = SealedRows(sql_bench.store.database)
    assert sum(one.rewrapped for one in rows.rewrap(BOTH)) == 11
    assert rows.counts() == {NEW_SECRETS: {"passwords": 5, "tokens": 1}, NEW_VERIFIERS: {"verifiers": 5}}
    only_new = KeyringSealer(Keyring(NEW_KEYS))
    assert all(opened(sql_bench, one, only_new) == (PASSWORD, VERIFIER) for one in fleet)
    token = present(sql_bench.store.installation("icfg_1").sealed_token)
    assert only_new.open(token, SealContext("icfg_1", "", "", "token")) == TOKEN
    assert list(rows.rewrap(BOTH)) == []


def test_ended_in_the_middle_it_goes_on_where_it_was(sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "BATCH", 2)
    fleet = a_fleet(sql_bench, 5)
    rows = SealedRows(sql_bench.store.database)
    for _ in zip(range(2), rows.rewrap(BOTH), strict=False):
        pass
    assert 0 < rows.counts()[NEW_SECRETS]["passwords"] < 5
    assert all(opened(sql_bench, one, BOTH) == (PASSWORD, VERIFIER) for one in fleet)
    assert sum(one.rewrapped for one in rows.rewrap(BOTH)) < 11
    assert set(rows.counts()) == {NEW_SECRETS, NEW_VERIFIERS}


def test_a_worker_that_holds_a_row_goes_on_and_loses_nothing(sql_bench: SqlBench) -> None:
    (one,) = a_fleet(sql_bench, 1)
    store = sql_bench.store
    with store.database.writing() as connection:
        connection.execute(update(credentials).values(stage="previous", due_at=sql_bench.clock.now() - timedelta(days=1)))
    case = present(store.claim_credential(one.id))
    list(SealedRows(store.database).rewrap(BOTH))
    assert BOTH.open(present(case.credential.sealed_password), place(one, "password")) == PASSWORD
    store.record_credential(case, blocked(case))  # which writes the whole row on SQLite, with the bytes that it had read
    assert opened(sql_bench, one, BOTH) == (PASSWORD, VERIFIER)
    left = 2 if store.database.dialect == "sqlite" else 0
    assert sum(batch.rewrapped for batch in SealedRows(store.database).rewrap(BOTH)) == left


def test_a_row_that_is_just_being_written_is_not_waited_for_and_left_for_the_next_run(postgresql_bench: SqlBench) -> None:
    busy, free = a_fleet(postgresql_bench, 2)
    database = postgresql_bench.store.database
    rows = SealedRows(database)
    with database.writing() as connection:
        connection.execute(update(credentials).where(credentials.c.id == busy.id).values(tries=1))
        assert sum(one.rewrapped for one in rows.rewrap(BOTH)) == 3
    assert rows.counts()[OLD_SECRETS] == {"passwords": 1}
    assert all(opened(postgresql_bench, one, BOTH) == (PASSWORD, VERIFIER) for one in (busy, free))
    assert sum(one.rewrapped for one in rows.rewrap(BOTH)) == 2


def test_killed_at_any_time_nothing_is_lost(tmp_path: Path, sqlite_bench: SqlBench) -> None:
    fleet = a_fleet(sqlite_bench, 20)
    text = "".join(f"{key.use} {key.material.reveal()}\n" for key in OLD_KEYS + NEW_KEYS)
    program = (
        "import os, signal, sys\n"
        "from rotation.sensitive import Sensitive\n"
        "from rotation.store import sealed\n"
        "from rotation.store.database import Database, make_engine\n"
        "from rotation.store.keyring import read_keys\n"
        "from rotation.store.sealing import KeyringSealer\n"
        "from worker.machine import MachineClock\n"
        "sealed.BATCH = 3\n"
        "sealer = KeyringSealer(read_keys(Sensitive(sys.stdin.read())))\n"
        "rewrap, left = sealer.rewrap, [int(sys.argv[2])]\n"
        "def once(value):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rewrap(value)\n"
        "sealer.rewrap = once\n"
        "list(sealed.SealedRows(Database(make_engine(sys.argv[1]), MachineClock())).rewrap(sealer))\n"
    )
    rows = SealedRows(sqlite_bench.store.database)
    for died_at in (1, 5, 11, 2):
        command = [sys.executable, "-c", program, sqlite_url(tmp_path), str(died_at)]
        done = subprocess.run(command, input=text, text=True, check=False, cwd=ROOT, timeout=60)  # noqa: S603 - our own interpreter
        assert done.returncode == -signal.SIGKILL
        assert all(opened(sqlite_bench, one, BOTH) == (PASSWORD, VERIFIER) for one in fleet)
    assert 0 < rows.counts()[NEW_SECRETS]["passwords"] < 20
    list(rows.rewrap(BOTH))
    assert set(rows.counts()) == {NEW_SECRETS, NEW_VERIFIERS}
    assert all(opened(sqlite_bench, one, KeyringSealer(Keyring(NEW_KEYS))) == (PASSWORD, VERIFIER) for one in fleet)


def test_what_a_missing_key_sealed_is_held_and_a_damaged_value_is_told(sql_bench: SqlBench) -> None:
    held, damaged, fine = a_fleet(sql_bench, 3)
    store, stranger = sql_bench.store, KeyringSealer(Keyring([Key.made(KeyUse.SECRETS), Key.made(KeyUse.VERIFIERS)]))
    with store.database.writing() as connection:
        other = sealed_by(stranger, held).sealed_password
        connection.execute(update(credentials).where(credentials.c.id == held.id).values(sealed_password=other))
        connection.execute(update(credentials).where(credentials.c.id == damaged.id).values(sealed_password=b"damaged"))
    rows = SealedRows(store.database)
    batches = list(rows.rewrap(BOTH))
    assert sum(one.held for one in batches) == 1
    assert [row_id for one in batches for row_id in one.damaged] == [damaged.id]
    assert rows.counts()["unknown"] == {"passwords": 1}
    assert opened(sql_bench, fine, BOTH) == (PASSWORD, VERIFIER)
    (lost,) = stranger.newest & set(rows.counts())
    assert list(rows.resources_of(lost)) == [held.resource_id]


def test_who_lost_something_is_found_page_by_page(sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "PAGE", 2)
    fleet = a_fleet(sql_bench, 5)
    rows = SealedRows(sql_bench.store.database)
    everybody = sorted(one.resource_id for one in fleet)
    assert list(rows.resources_of(OLD_SECRETS)) == everybody
    assert list(rows.resources_of(OLD_VERIFIERS)) == everybody
    assert list(rows.resources_of(NEW_SECRETS)) == []
    assert list(rows.installations_of(OLD_SECRETS)) == ["icfg_1"]
    for wrong in ("unknown", "markers-0011223344556677", "secrets-xyz", ""):
        with pytest.raises(NotFound):
            list(rows.resources_of(wrong))


def test_a_token_that_is_lost_is_destroyed_unless_there_is_another(sql_bench: SqlBench) -> None:
    a_fleet(sql_bench, 0)
    store = sql_bench.store
    before = store.installation("icfg_1")
    store.set_token("icfg_1", b"another", event("installation_token_set"))
    assert not store.forget_token(before, "the key is gone", event("installation_token_lost"))
    assert store.forget_token(store.installation("icfg_1"), "the key is gone", event("installation_token_lost"))
    after = store.installation("icfg_1")
    assert (after.sealed_token, after.parked_reason) == (None, "the key is gone")
    assert list(store.verify_audit()) == []


def test_a_canary_is_kept_for_each_key_that_seals_and_opens_as_long_as_it_is_here(sql_bench: SqlBench) -> None:
    canaries = Canaries(sql_bench.store.database)
    assert canaries.known() == {}
    assert canaries.keep(OLD) == canaries.keep(OLD)
    assert set(canaries.known()) == {OLD_SECRETS, OLD_VERIFIERS}
    assert canaries.keep(BOTH).missing == ()
    assert set(canaries.known()) == {OLD_SECRETS, OLD_VERIFIERS, NEW_SECRETS, NEW_VERIFIERS}
    report = canaries.keep(KeyringSealer(Keyring(NEW_KEYS)))
    assert set(report.missing) == {OLD_SECRETS, OLD_VERIFIERS}
    assert report.damaged == ()
    canaries.forget(OLD_SECRETS)
    assert OLD_SECRETS not in canaries.known()


def test_a_canary_that_was_altered_or_exchanged_is_damaged(sql_bench: SqlBench) -> None:
    database = sql_bench.store.database
    canaries = Canaries(database)
    canaries.keep(OLD)
    canaries.keep(BOTH)
    with database.writing() as connection:
        rows = {row.key_id: row.sealed for row in connection.execute(select(key_canaries))}
        for key_id, wrong in ((OLD_SECRETS, b"x"), (NEW_SECRETS, rows[OLD_SECRETS])):
            connection.execute(update(key_canaries).where(key_canaries.c.key_id == key_id).values(sealed=wrong))
    assert set(canaries.check(BOTH).damaged) == {OLD_SECRETS, NEW_SECRETS}


def test_two_processes_that_start_at_once_keep_one_canary(sql_bench: SqlBench) -> None:
    canaries = Canaries(sql_bench.store.database)
    canaries.keep(OLD)
    canaries._add(OLD_SECRETS, OLD.canaries()[OLD_SECRETS])
    assert set(canaries.known()) == {OLD_SECRETS, OLD_VERIFIERS}
