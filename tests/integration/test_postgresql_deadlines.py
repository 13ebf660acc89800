"""Time: a frozen server, locks, late acts, a worker whose clock stands still, and the connections that all of it shares."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from rotation.cases import Deadline
from rotation.errors import AdminRefused, LostClaim, NotAsked, OutcomeUnknown, Refused, RolloverError, Unavailable, Unreachable
from rotation.model import Login
from rotation.sensitive import Sensitive
from tests.fakes.store import FakeStore
from tests.postgresql_tenants import (
    ADMIN,
    SystemClock,
    SystemEntropy,
    as_superuser,
    credential_of,
    engine_for,
    logs_in,
    new_tenant,
    within,
)
from worker.alarms import StandingAlarms
from worker.guarded_engine import GuardedEngine
from worker.sandbox.postgresql import PrivatePostgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rotation.engines.postgresql import PostgresqlEngine
    from rotation.model import Credential, Minted, Resource

ENTROPY = SystemEntropy()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgresql]:
    """A server that these tests may freeze and kill."""
    with PrivatePostgresql(tmp_path_factory.mktemp("private"), settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
def engine(private: PrivatePostgresql) -> Iterator[PostgresqlEngine]:
    engine = engine_for(private)
    yield engine
    engine.close()


@pytest.fixture
def resource(private: PrivatePostgresql) -> Resource:
    return new_tenant(private)


def planned(engine: PostgresqlEngine, resource: Resource) -> tuple[Credential, Minted]:
    minted = engine.mint(resource, 1, ENTROPY)
    return credential_of(resource, minted, 1), minted


def exists(server: PrivatePostgresql, username: str) -> bool:
    return (username,) in as_superuser(server, "SELECT rolname FROM pg_roles")


def test_every_call_ends_in_time_when_the_server_is_frozen(
    private: PrivatePostgresql, engine: PostgresqlEngine, resource: Resource
) -> None:
    credential, minted = planned(engine, resource)
    login = Login(minted.username, minted.password)
    engine.admit(resource, credential, minted.verifier, None, within())
    calls = (
        lambda: engine.admit(resource, credential, minted.verifier, None, within(0.3)),
        lambda: engine.check(resource, login, (), within(0.3)),
        lambda: engine.parity(resource, login.username, login.username, within(0.3)),
        lambda: engine.block(resource, credential, within(0.3)),
        lambda: engine.withdraw(resource, credential, (), within(0.3)),
        lambda: engine.prove_refused(resource, login, login, within(0.3)),
        lambda: engine.usage(resource.server, within(0.3)),
        lambda: engine.preflight(resource, within(0.3)),
    )
    private.freeze()
    try:
        for call in calls:
            began = time.monotonic()
            with pytest.raises((Unavailable, OutcomeUnknown)):
                call()
            assert time.monotonic() - began < 2
    finally:
        private.thaw()


def test_a_server_that_freezes_in_the_middle_of_an_act_leaves_its_outcome_unknown(
    private: PrivatePostgresql, engine: PostgresqlEngine, resource: Resource
) -> None:
    credential, minted = planned(engine, resource)
    with psycopg.connect(private.superuser_url(), autocommit=False) as blocker:
        blocker.execute("LOCK TABLE pg_authid IN EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as pool:
            act = pool.submit(engine.admit, resource, credential, minted.verifier, None, within(1.0))
            wait_for(lambda: waits_for_lock(private))
            private.freeze()
            try:
                with pytest.raises(OutcomeUnknown):
                    act.result(10)
            finally:
                private.thaw()

    engine.admit(resource, credential, minted.verifier, None, within())
    assert logs_in(private, resource.spec.database.name, minted.username, minted.password.reveal())


def test_an_act_that_waits_for_a_lock_gives_up_in_time_and_changes_nothing(
    private: PrivatePostgresql, engine: PostgresqlEngine, resource: Resource
) -> None:
    credential, minted = planned(engine, resource)
    with psycopg.connect(private.superuser_url(), autocommit=False) as blocker:
        blocker.execute("LOCK TABLE pg_authid IN EXCLUSIVE MODE")
        with pytest.raises((Unavailable, OutcomeUnknown)):
            engine.admit(resource, credential, minted.verifier, None, within(0.5))
    wait_for(lambda: not waits_for_lock(private))

    assert not exists(private, minted.username)


class StandingClock(SystemClock):
    """A worker that was frozen: it does not know how late it is."""

    def __init__(self) -> None:
        self.stands_at: float | None = None

    def monotonic(self) -> float:
        return time.monotonic() if self.stands_at is None else self.stands_at


def test_a_worker_that_does_not_know_how_late_it_is_is_told_so_by_the_server(private: PrivatePostgresql, resource: Resource) -> None:
    clock = StandingClock()
    engine = engine_for(private, clock=clock)
    credential, minted = planned(engine, resource)
    kept, kept_minted = planned(engine, resource)
    engine.admit(resource, kept, kept_minted.verifier, None, within())

    clock.stands_at = time.monotonic()
    deadline = Deadline(clock.stands_at + 0.2)
    wait_for(lambda: time.monotonic() > deadline.at + 0.1)

    with pytest.raises(LostClaim):
        engine.admit(resource, credential, minted.verifier, None, deadline)
    with pytest.raises(LostClaim):
        engine.block(resource, kept, deadline)
    with pytest.raises(LostClaim):
        engine.withdraw(resource, kept, (), deadline)

    assert not exists(private, minted.username)
    assert logs_in(private, resource.spec.database.name, kept_minted.username, kept_minted.password.reveal())
    engine.close()


def test_a_machine_whose_clock_stood_still_between_two_readings_loses_its_claim_once(
    private: PrivatePostgresql, resource: Resource
) -> None:
    clock = StandingClock()
    clock.stands_at = 1000.0
    engine = engine_for(private, clock=clock)
    credential, minted = planned(engine, resource)
    engine.usage(resource.server, Deadline(1020))
    # Set back, so that the reading is not believed any more and the server's clock seems to have run ahead.
    clock.stands_at = 990.0

    with pytest.raises(LostClaim, match="stood still"):
        engine.admit(resource, credential, minted.verifier, None, Deadline(1020))
    assert not exists(private, minted.username)
    engine.admit(resource, credential, minted.verifier, None, Deadline(1020))
    engine.close()


def test_connections_that_the_server_closed_are_not_used_again(
    private: PrivatePostgresql, engine: PostgresqlEngine, resource: Resource
) -> None:
    engine.usage(resource.server, within())
    private.restart()

    engine.usage(resource.server, within())


def test_a_server_that_is_down_or_frozen_is_unreachable_which_is_more_than_unavailable(
    private: PrivatePostgresql, engine: PostgresqlEngine, resource: Resource
) -> None:
    engine.usage(resource.server, within())
    private.freeze()
    try:
        for _ in range(2):  # once on the connection that is kept, once while a new one is opened
            with pytest.raises(Unreachable):
                engine.usage(resource.server, within(0.3))
    finally:
        private.thaw()
    private.stop()
    try:
        with pytest.raises(Unreachable):
            engine.usage(resource.server, within())
    finally:
        private.start()
    engine.usage(resource.server, within())


def test_a_server_that_hangs_keeps_few_threads_busy_and_soon_nobody_asks_it_until_it_is_back(
    private: PrivatePostgresql, engine: PostgresqlEngine, resource: Resource
) -> None:
    clock, store = SystemClock(), FakeStore()
    guarded = GuardedEngine(engine, clock, ENTROPY, StandingAlarms(store, clock), threads=2)
    guarded.usage(resource.server, within())
    private.freeze()
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: raised_by(lambda: guarded.usage(resource.server, within(2.0))), range(8)))
        assert time.monotonic() - began < 4
        assert outcomes.count(NotAsked) == 6
        assert outcomes.count(Unreachable) == 2
        assert raised_by(lambda: guarded.usage(resource.server, within(0.3))) is Unreachable
        began = time.monotonic()
        assert [raised_by(lambda: guarded.usage(resource.server, within())) for _ in range(100)] == [NotAsked] * 100
        assert time.monotonic() - began < 1
    finally:
        private.thaw()
    wait_for(lambda: raised_by(lambda: guarded.usage(resource.server, within())) is None, seconds=10)


def test_no_more_connections_are_open_than_the_server_allows(private: PrivatePostgresql) -> None:
    first = new_tenant(private, connections=2)
    # The same server, as its pool sees it.
    other = replace(new_tenant(private, connections=2), server=first.server)
    engine = engine_for(private)
    # Counted by the server under a lock: pg_stat_activity shows its sessions as of slightly different instants.
    end_sessions_of_other_tests(private)
    as_superuser(private, f"ALTER ROLE {ADMIN} CONNECTION LIMIT 2")
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda one: engine.preflight(one, within(60)), [first, other] * 16))
    finally:
        as_superuser(private, f"ALTER ROLE {ADMIN} CONNECTION LIMIT -1")
        engine.close()
    assert found == [()] * 32


def test_a_connection_that_makes_room_has_left_the_server_before_the_next_is_opened(
    private: PrivatePostgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rotation.engines.deadlines.FAREWELL_SECONDS", 30.0)
    end_sessions_of_other_tests(private)
    first = new_tenant(private, connections=1)
    other = replace(new_tenant(private, connections=1), server=first.server)
    engine = engine_for(private)
    engine.preflight(first, within())
    with psycopg.connect(private.superuser_url(), autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        ours = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", (ADMIN,))]
        os.kill(ours[0], signal.SIGSTOP)
        try:
            result = pool.submit(engine.preflight, other, within(60))
            # Without the wait it is through long before: two hundred looks take longer than two connections.
            for _ in range(200):
                count = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (ADMIN,)).fetchone()
                assert count == (1,)
                assert not result.done()
        finally:
            os.kill(ours[0], signal.SIGCONT)
        assert result.result(60) == ()
    engine.close()


def test_who_finds_no_free_connection_in_time_is_told_so(private: PrivatePostgresql) -> None:
    resource = new_tenant(private, connections=1)
    engine = engine_for(private)
    credential, minted = planned(engine, resource)
    with psycopg.connect(private.superuser_url(), autocommit=False) as blocker, ThreadPoolExecutor(1) as pool:
        blocker.execute("LOCK TABLE pg_authid IN EXCLUSIVE MODE")
        act = pool.submit(engine.admit, resource, credential, minted.verifier, None, within(20))
        wait_for(lambda: waits_for_lock(private))
        with pytest.raises(Unavailable, match="in use"):
            engine.usage(resource.server, within(0.1))
        blocker.rollback()
        act.result()
    engine.close()


def test_a_forked_child_opens_connections_of_its_own(private: PrivatePostgresql, engine: PostgresqlEngine, resource: Resource) -> None:
    engine.usage(resource.server, within())

    child = os.fork()
    if child == 0:
        try:
            engine.usage(resource.server, within())
            engine.close()
        except RolloverError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    engine.usage(resource.server, within())


def test_an_admin_that_is_refused_is_a_matter_for_a_person(private: PrivatePostgresql, resource: Resource) -> None:
    engine = engine_for(private)
    as_superuser(private, f"ALTER ROLE {ADMIN} NOLOGIN")
    try:
        with pytest.raises(AdminRefused, match="28000"):
            engine.usage(resource.server, within())
    finally:
        as_superuser(private, f"ALTER ROLE {ADMIN} LOGIN")


def test_no_error_and_no_log_of_the_server_holds_a_password(tmp_path: Path) -> None:
    settings = {"fsync": "off", "log_statement": "all", "log_min_error_statement": "error", "log_connections": "on"}
    with PrivatePostgresql(tmp_path, settings=settings) as server:
        engine = engine_for(server)
        resource = new_tenant(server)
        credential, minted = planned(engine, resource)
        engine.admit(resource, credential, minted.verifier, None, within())
        as_superuser(server, f"REVOKE {resource.spec.database.owner_role} FROM {ADMIN} CASCADE", f"ALTER ROLE {ADMIN} NOCREATEROLE")
        other, other_minted = planned(engine, resource)
        wrong = Login(minted.username, Sensitive("canary" + "x" * 32))
        errors: list[Refused] = []
        calls: tuple[Callable[[], object], ...] = (
            lambda: engine.admit(resource, other, other_minted.verifier, None, within()),
            lambda: engine.check(resource, wrong, (), within()),
            lambda: engine.prove_refused(resource, wrong, None, within()),
        )
        for call in calls:
            with pytest.raises(Refused) as refused:
                call()
            errors.append(refused.value)
        engine.close()
        said = server.log.read_text()
    for error in errors:
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
        said += repr(error) + error.advice
    for secret in (minted.password, other_minted.password, wrong.password):
        assert secret.reveal() not in said


def end_sessions_of_other_tests(server: PrivatePostgresql) -> None:
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = %s", (ADMIN,))


def raised_by(call: Callable[[], object]) -> type[RolloverError] | None:
    try:
        call()
    except RolloverError as error:
        return type(error)
    return None


def waits_for_lock(server: PrivatePostgresql) -> bool:
    rows = as_superuser(server, "SELECT usename FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return (ADMIN,) in rows


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
