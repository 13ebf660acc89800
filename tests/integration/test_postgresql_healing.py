"""The healer on each version of PostgreSQL: what somebody did by hand, and a server that was restored from a copy of its files."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from rotation import driver, health, lifecycle, requests, retirement
from rotation.engines.postgresql import PostgresqlEngine
from rotation.model import Event, Installation, Login, Policy
from rotation.ports import Ports, Terms
from rotation.reconciliation import after_restore, reconcile
from rotation.requests import Asked
from rotation.sensitive import Sensitive
from rotation.states import ResourceState, Stage, Trigger
from rotation.store.migration import migrate
from rotation.store.sql import SqlStore
from rotation.store.tables import credentials
from tests.fakes.limiter import FakeLimiter
from tests.fakes.sealer import FakeSealer
from tests.fakes.sink import FakeSink
from tests.postgresql_servers import QUICK
from tests.postgresql_tenants import SystemClock, SystemEntropy, as_superuser, logs_in, new_tenant, prepare_admin, within
from tests.processes import eventually
from tests.sql_stores import AUDIT_KEY, sqlite_url
from tests.world import login_of
from worker.sandbox.postgresql import PrivatePostgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rotation.model import Credential, Resource
    from rotation.reconciliation import Line

SECOND = timedelta(seconds=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TERMS = Terms(login_check=0 * SECOND, mending=3 * SECOND, server_allowance=0 * SECOND, call_deadline=9 * SECOND, hint=SECOND / 2)


class Ward:
    """One resource on a real server and a real store, carried on by hand."""

    def __init__(self, server: PrivatePostgresql, directory: Path) -> None:
        self.server = server
        self.directory = directory
        admin, sealer, clock = prepare_admin(server), FakeSealer(), SystemClock()
        self.engine = PostgresqlEngine(lambda _: admin, sealer, clock, allow_private_hosts=True)
        self.sink = FakeSink()
        migrate(sqlite_url(directory))
        self.store = SqlStore(sqlite_url(directory), clock=clock, terms=TERMS, audit_key=AUDIT_KEY)
        self.ports = Ports(self.store, {"postgresql": self.engine}, self.sink, sealer, FakeLimiter(clock), clock, SystemEntropy(), TERMS)
        tenant = new_tenant(server)
        self.database = tenant.spec.database
        policy = Policy(grace=timedelta(hours=1), quiet=timedelta(0), blocked=timedelta(0))
        self.store.add_installation(Installation("icfg_1"), Event("installation_added", "test"))
        self.store.add_server(tenant.server, Event("server_added", "test"))
        self.adopted = Login(f"{self.database.name}_app", Sensitive("the first password, which a person chose"))
        self.root(
            f"CREATE ROLE {self.adopted.username} LOGIN PASSWORD '{self.adopted.password.reveal()}'",
            f"GRANT {self.adopted.username} TO rollover_admin WITH ADMIN OPTION",
            f"ALTER ROLE {self.adopted.username} SET search_path = app, public",
        )
        self.engine.adopt(tenant, self.adopted.username, within(), dry_run=False)
        spec = replace(tenant.spec, policy=policy)
        self.resource: Resource = requests.register(spec, self.adopted, "test", self.ports)

    def close(self) -> None:
        self.engine.close()
        self.store.dispose()

    def root(self, *statements: str) -> None:
        as_superuser(self.server, *statements, database=self.database.name)

    def rotate(self, *, grace: timedelta | None = None) -> None:
        asked = Asked(Trigger.MANUAL, "test", grace=grace)
        driver.advance(lifecycle.STORY, requests.trigger(self.resource.id, asked, self.ports).rotation_id or "", self.ports)

    def retire(self) -> None:
        with self.store.database.writing() as connection:  # a login that was made a moment ago would be retired a little later
            connection.execute(update(credentials).where(credentials.c.stage != Stage.PENDING.value).values(current_at=LONG_AGO))
        for one in self.store.due_credentials(10):
            driver.advance(retirement.STORY, one, self.ports)

    def retires_all(self) -> bool:
        """A login that was just made again is not taken away at once."""
        self.retire()
        return len(self.roles()) == 1

    def look(self) -> int:
        return sum(health.heal(one, self.ports) for one in health.look_after("pg", self.ports))

    def credential(self, generation: int) -> Credential:
        lines = self.store.views.credentials(self.resource.id)
        return next(one.credential for one in lines if one.credential.generation == generation)

    def held(self) -> Login:
        return login_of(self.sink.held["icfg_1", self.resource.spec.external_id]["DATABASE_URL"])

    def gets_in(self, login: Login) -> bool:
        return logs_in(self.server, self.database.name, login.username, login.password.reveal())

    def settings(self, username: str) -> str:
        rows = as_superuser(self.server, "SELECT rolname::text, rolconfig::text FROM pg_roles")
        return next(str(settings) for name, settings in rows if name == username)

    def roles(self) -> set[str]:
        rows = as_superuser(self.server, "SELECT rolname::text FROM pg_roles")
        return {name for (name,) in rows if self._is_mine(name)} - {self.database.owner_role}

    def compare(self, *, apply: bool) -> list[Line]:
        return [one for one in reconcile(self.resource.server, self.ports, apply=apply) if self._is_mine(one.login)]

    def bring_on(self) -> list[Line]:
        return [one for one in after_restore(self.resource.server, "test", self.ports, apply=True) if self._is_mine(one.login)]

    def _is_mine(self, name: str) -> bool:
        """Other tests leave their logins on the same server."""
        return name.startswith(f"{self.database.login_prefix}_")


@pytest.fixture
def ward(postgresql_any: PrivatePostgresql, tmp_path: Path) -> Iterator[Ward]:
    """A resource with one login in grace, which was adopted, and one that is current."""
    made = Ward(postgresql_any, tmp_path)
    made.rotate()
    yield made
    made.close()


def drop(ward: Ward, username: str) -> None:
    ward.root(f"DROP OWNED BY {username}", f"DROP ROLE {username}")


def forbid(ward: Ward, username: str) -> None:
    ward.root(f"ALTER ROLE {username} NOLOGIN")


def change_password(ward: Ward, username: str) -> None:
    ward.root(f"ALTER ROLE {username} PASSWORD 'another'")


def expire(ward: Ward, username: str) -> None:
    ward.root(f"ALTER ROLE {username} VALID UNTIL '2020-01-01'")


def starve(ward: Ward, username: str) -> None:
    ward.root(f"ALTER ROLE {username} CONNECTION LIMIT 0")


def expel(ward: Ward, username: str) -> None:
    """Who may not connect is refused as one whose customer was shut out on purpose."""
    ward.root(
        f"REVOKE CONNECT ON DATABASE {ward.database.name} FROM PUBLIC",
        f"REVOKE {ward.database.owner_role} FROM {username} GRANTED BY rollover_admin",
    )


HARMS = (drop, forbid, change_password, expire, starve, expel)


@pytest.mark.parametrize("harm", HARMS)
def test_what_somebody_did_by_hand_to_a_login_is_put_right(ward: Ward, harm: Callable[[Ward, str], None]) -> None:
    for login in (ward.held(), ward.adopted):
        harm(ward, login.username)
        assert not ward.gets_in(login)

        assert ward.look() == 1

        assert ward.gets_in(login)
        assert "search_path=app, public" in ward.settings(login.username)
        assert f"role={ward.database.owner_role}" in ward.settings(login.username)
    assert ward.look() == 0
    assert list(ward.store.verify_audit()) == []


def test_both_logins_of_a_resource_are_made_again_and_the_next_rotation_goes_as_ever(ward: Ward) -> None:
    for login in (ward.held(), ward.adopted):
        drop(ward, login.username)

    assert ward.look() == 2

    assert ward.gets_in(ward.held())
    assert ward.gets_in(ward.adopted)
    ward.rotate(grace=timedelta(0))
    assert eventually(ward.retires_all, 30)
    assert ward.roles() == {ward.held().username}
    assert ward.credential(1).stage is ward.credential(2).stage is Stage.RETIRED


def test_what_was_changed_by_hand_is_listed_and_put_right_and_the_current_login_is_the_model(ward: Ward) -> None:
    username = ward.held().username
    ward.root(f"ALTER ROLE {username} NOINHERIT", f"ALTER ROLE {username} SET work_mem = '1MB'")

    listed = ward.compare(apply=False)
    assert [(line.kind, line.mended) for line in listed] == [("changed", None)] * 2
    assert {line.login for line in listed} == {username, ward.adopted.username}
    assert [line.mended for line in ward.compare(apply=True)] == [True, True]

    assert ward.compare(apply=True) == []
    assert "work_mem=1MB" in ward.settings(ward.adopted.username)


def test_what_a_login_owns_by_itself_is_listed_and_left_to_a_person(ward: Ward) -> None:
    username = ward.held().username
    ward.root("CREATE TABLE stray (n int)", f"GRANT SELECT ON stray TO {username}")

    (line,) = ward.compare(apply=True)

    assert "has rights on 1 objects directly" in line.problem
    assert line.mended is False


def test_a_server_restored_from_a_copy_has_its_new_login_again_and_not_its_old_one(tmp_path: Path) -> None:
    with PrivatePostgresql(tmp_path / "postgresql", settings=QUICK) as server:
        ward = Ward(server, tmp_path)
        for _ in range(2):
            ward.rotate(grace=timedelta(0))
            ward.retire()
        server.stop()
        copy(server.data, tmp_path / "copy")
        server.start()
        of_the_copy = ward.roles()
        ward.rotate(grace=timedelta(0))
        ward.retire()
        held, dead = ward.held(), ward.credential(3)
        server.stop()
        shutil.rmtree(server.data)
        (tmp_path / "copy").rename(server.data)
        server.start()
        assert ward.roles() == of_the_copy == {dead.username}
        assert not ward.gets_in(held)

        healed = ward.look() or ward.look()  # the connections to the server that was are lost first

        assert healed == 2
        assert ward.gets_in(held)
        assert ward.roles() == {held.username}
        kinds = [line.event.kind for line in ward.store.views.events(ward.resource.id)]
        assert kinds[:2].count("credential_removed_again") == 1
        ward.close()


def copy(source: Path, target: Path) -> None:
    """The files of a server that stands still, with their owners: its programs run as another user than root's tests."""
    shutil.copytree(source, target, symlinks=True)
    for place in (source, *source.rglob("*")):
        owner = place.lstat()
        os.chown(target / place.relative_to(source), owner.st_uid, owner.st_gid, follow_symlinks=False)


def test_a_store_that_was_set_back_is_brought_on_with_a_real_server(ward: Ward) -> None:
    ward.store.dispose()
    shutil.copy(ward.directory / "store.db", ward.directory / "backup.db")
    ward.rotate(grace=timedelta(0))
    ward.retire()
    held = ward.held()
    ward.store.dispose()
    for end in ("-wal", "-shm"):
        (ward.directory / f"store.db{end}").unlink(missing_ok=True)
    shutil.copy(ward.directory / "backup.db", ward.directory / "store.db")

    assert ward.look() == 0
    assert ward.store.resource(ward.resource.id).state is ResourceState.PAUSED
    assert ward.store.views.status().held == 1
    (line,) = ward.bring_on()
    assert line.mended
    assert ward.gets_in(held)
    assert ward.credential(3).stage is Stage.CURRENT
    ward.retire()
    assert ward.credential(2).stage is Stage.RETIRED
    assert ward.store.views.status().held == 0
    assert list(ward.store.verify_audit()) == []
