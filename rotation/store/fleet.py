"""What a person registers: installations, servers, resources. A resource's events go to its own chain, all others to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, text, update

from rotation.errors import Conflict, LostClaim, NotFound
from rotation.states import ResourceState
from rotation.store.cases import read_resource
from rotation.store.moves import insert_credential
from rotation.store.rows import installation_of, schedule_columns, server_columns, server_of
from rotation.store.rules import INSTALLATIONS, prefix_taken, prefixed
from rotation.store.specs import spec_to_json
from rotation.store.tables import ALIVE, UNENDED, UtcTime, credentials, installations, resource_revisions, resources, rotations, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from rotation.model import Credential, Event, Installation, Resource, ResourceSpec, Schedule, Server
    from rotation.store.audit import AuditTrail
    from rotation.store.database import Database

OTHER_RESOURCE = "a revision cannot give a resource another installation or id: register a new resource"

_woken = (
    select(rotations.c.id)
    .join(resources, resources.c.id == rotations.c.resource_id)
    .where(resources.c.installation_id == bindparam("of_installation"), text(f"rotations.{UNENDED}"))
    .order_by(rotations.c.id)
    .with_for_update(of=rotations, key_share=True)
    .cte("woken")
)
WAKE = (
    update(rotations)
    .where(rotations.c.id.in_(select(_woken.c.id)))
    .values(due_at=bindparam("woken_at", type_=UtcTime()), fence=rotations.c.fence + 1, claimed_until=None, hinted_until=None)
)


class Fleet:
    """Installations, servers and resources. Each change is one transaction with its event."""

    def __init__(self, database: Database, audit: AuditTrail) -> None:
        self.database = database
        self.audit = audit

    def add_installation(self, installation: Installation, event: Event) -> None:
        """Raises `Conflict` when it exists already."""
        row = {"id": installation.id, "sealed_token": installation.sealed_token, "parked_at": installation.parked_at}
        with self.database.writing() as connection:
            _refuse_known(connection.scalar(select(installations.c.id).where(installations.c.id == installation.id)), "installation")
            connection.execute(insert(installations), {**row, "parked_reason": installation.parked_reason})
            self._tell(connection, event)

    def set_token(self, installation_id: str, sealed_token: bytes, event: Event) -> None:
        """A new token: the installation is parked no more. Raises `NotFound`."""
        with self.database.writing() as connection:
            self._tell(connection, event)
            place = installations.c.id == installation_id
            changed = update(installations).where(place).values(sealed_token=sealed_token, parked_at=None, parked_reason="")
            if connection.execute(changed).rowcount != 1:
                raise NotFound("installation", installation_id)
        self._wake(installation_id)

    def forget_token(self, installation: Installation, why: str, event: Event) -> bool:
        """The token that was read can never be opened again: destroy it and hold all pushes until there is another. False when there is."""
        with self.database.writing() as connection:
            end = self.audit.lock(self.database, connection, INSTALLATIONS)
            place = (installations.c.id == installation.id, installations.c.sealed_token == installation.sealed_token)
            parked = {"sealed_token": None, "parked_at": end.now, "parked_reason": why}
            if connection.execute(update(installations).where(*place).values(parked)).rowcount != 1:
                return False
            self.audit.append(connection, end, event)
        return True

    def park(self, installation_id: str, why: str, event: Event, *, seen: Installation | None = None) -> bool:
        """Hold all pushes of an installation. False when it was parked already: nothing is written. Raises `NotFound`.

        `seen` is the installation whose token was refused: when it has another one by now, nothing is written either.
        """
        with self.database.writing() as connection:
            end = self.audit.lock(self.database, connection, INSTALLATIONS)
            present = _read_installation(connection, installation_id)
            if present.parked or (seen is not None and seen.sealed_token != present.sealed_token):
                return False
            place = installations.c.id == installation_id
            connection.execute(update(installations).where(place).values(parked_at=end.now, parked_reason=why))
            self.audit.append(connection, end, event)
        return True

    def unpark(self, installation_id: str, event: Event) -> bool:
        """Let an installation push again; its rotations are due now. False when it was not parked. Raises `NotFound`."""
        with self.database.writing() as connection:
            end = self.audit.lock(self.database, connection, INSTALLATIONS)
            parked = _read_installation(connection, installation_id).parked
            if parked:
                place = installations.c.id == installation_id
                connection.execute(update(installations).where(place).values(parked_at=None, parked_reason=""))
                self.audit.append(connection, end, event)
        self._wake(installation_id)
        return parked

    def _wake(self, installation_id: str) -> None:
        """All rotations, as they wait in any state. Who works on one has seen the installation parked, so it takes the next fence.

        Repeated by the next unpark.
        """
        with self.database.writing() as connection:
            connection.execute(WAKE, {"of_installation": installation_id, "woken_at": self.database.now_in(connection)})

    def installation(self, installation_id: str) -> Installation:
        """Raises `NotFound`."""
        with self.database.reading() as connection:
            return _read_installation(connection, installation_id)

    def installations(self) -> tuple[Installation, ...]:
        """All of them, by id."""
        with self.database.reading() as connection:
            rows = connection.execute(select(installations).order_by(installations.c.id)).mappings()
            return tuple(installation_of(row) for row in rows)

    def add_server(self, server: Server, event: Event) -> None:
        """Raises `Conflict` when the name is taken."""
        with self.database.writing() as connection:
            _refuse_known(connection.scalar(select(servers.c.name).where(servers.c.name == server.name)), "server")
            connection.execute(insert(servers), server_columns(server))
            self._tell(connection, event)

    def change_server(self, server: Server, event: Event) -> None:
        """Everything about a server but its name. Raises `NotFound`."""
        with self.database.writing() as connection:
            changed = update(servers).where(servers.c.name == server.name).values(server_columns(server))
            if connection.execute(changed).rowcount != 1:
                raise NotFound("server", server.name)
            self._tell(connection, event)

    def server(self, name: str) -> Server:
        """Raises `NotFound`."""
        with self.database.reading() as connection:
            return _read_server(connection, name)

    def servers(self) -> tuple[Server, ...]:
        """All of them, by name."""
        with self.database.reading() as connection:
            return tuple(server_of(row) for row in connection.execute(select(servers).order_by(servers.c.name)).mappings())

    def register(self, spec: ResourceSpec, resource_id: str, schedule: Schedule, current: Credential | None, event: Event) -> Resource:
        """As in the port."""
        with self.database.writing() as connection:
            _read_server(connection, spec.database.server, lock=True)
            _read_installation(connection, spec.installation_id)
            self._refuse_twin(connection, spec)
            _refuse_prefix(connection, spec, resource_id)
            now = self.database.now_in(connection)
            connection.execute(insert(resources), _resource_row(spec, resource_id, schedule, now))
            _insert_revision(connection, resource_id, 1, spec, now)
            if current is not None:
                _refuse_login(connection, spec.database.server, (current.username,))
                insert_credential(connection, current)
            beginning = self.audit.begin(connection, resource_id, now)
            self.audit.append(connection, beginning, event, credential_id=None if current is None else current.id)
            return read_resource(connection, resource_id)

    def obstacles(self, spec: ResourceSpec, username: str | None) -> Iterator[NotFound | Conflict]:
        """All that `register` would refuse now, so that several resources can be looked at before any is registered."""
        looks: tuple[Callable[[Connection], object], ...] = (
            lambda connection: _read_server(connection, spec.database.server),
            lambda connection: _read_installation(connection, spec.installation_id),
            lambda connection: self._refuse_twin(connection, spec),
            lambda connection: _refuse_prefix(connection, spec, None),
            lambda connection: _refuse_login(connection, spec.database.server, () if username is None else (username,)),
        )
        with self.database.reading() as connection:
            for look in looks:
                try:
                    look(connection)
                except (NotFound, Conflict) as obstacle:
                    yield obstacle

    def revise(
        self, resource_id: str, spec: ResourceSpec, schedule: Schedule, event: Event, *, instead_of: Schedule | None = None
    ) -> Resource:
        """As in the port. The resource's live logins go with it to another server."""
        with self.database.writing() as connection:
            end = self.audit.lock(self.database, connection, resource_id)
            before = read_resource(connection, resource_id)
            if (before.spec.installation_id, before.spec.external_id) != (spec.installation_id, spec.external_id):
                raise Conflict(OTHER_RESOURCE)
            if instead_of is not None and before.schedule != instead_of:
                raise LostClaim(f"resource {resource_id} has another schedule by now")
            _read_server(connection, spec.database.server, lock=True)
            if prefixed(spec) != prefixed(before.spec):  # a store of before may have twins, which can still be revised
                _refuse_prefix(connection, spec, resource_id)
            if spec.database.server != before.server.name:
                _move_logins(connection, resource_id, spec.database.server)
            revision = before.revision + 1
            _insert_revision(connection, resource_id, revision, spec, end.now)
            changed = {**_written(spec), "revision": revision, **schedule_columns(schedule)}
            connection.execute(update(resources).where(resources.c.id == resource_id).values(changed))
            self.audit.append(connection, end, event)
            return read_resource(connection, resource_id)

    def resource(self, resource_id: str) -> Resource:
        """Raises `NotFound`."""
        with self.database.reading() as connection:
            return read_resource(connection, resource_id)

    def find_resource(self, name: str) -> Resource:
        """A resource by its id, by the provider's own id, or by `installation/id`; of one that is gone only if no other is called so.

        Raises `NotFound`, and `Conflict` when two installations have a resource of that id.
        """
        installation_id, _, external_id = name.rpartition("/")
        named = select(resources.c.id, resources.c.state).where(resources.c.external_id == external_id)
        if installation_id:
            named = named.where(resources.c.installation_id == installation_id)
        with self.database.reading() as connection:
            found = connection.execute(named.union(select(resources.c.id, resources.c.state).where(resources.c.id == name))).all()
            here = [row.id for row in found if row.state != ResourceState.GONE.value]
            # Ids sort by age: of several that are gone, the last.
            ids = here or sorted(row.id for row in found)[-1:]
            if not ids:
                raise NotFound("resource", name)
            if len(ids) > 1:
                raise Conflict(f"there are {len(ids)} resources {name!r}: say installation/id")
            return read_resource(connection, ids[0])

    def record_event(self, event: Event) -> None:
        """An event that is about no resource and changes no row: keys added, a checkpoint exported."""
        with self.database.writing() as connection:
            self._tell(connection, event)

    def _tell(self, connection: Connection, event: Event) -> None:
        self.audit.append(connection, self.audit.lock(self.database, connection, INSTALLATIONS), event)

    @staticmethod
    def _refuse_twin(connection: Connection, spec: ResourceSpec) -> None:
        twin = select(resources.c.id).where(
            resources.c.installation_id == spec.installation_id,
            resources.c.external_id == spec.external_id,
            resources.c.state != text("'gone'"),
        )
        if connection.scalar(twin) is not None:
            raise Conflict(f"the resource {spec.installation_id}/{spec.external_id} exists already")


def _refuse_known(found: str | None, kind: str) -> None:
    if found is not None:
        raise Conflict(f"the {kind} {found} exists already")


def _refuse_login(connection: Connection, server: str, usernames: tuple[str, ...]) -> None:
    taken = select(credentials.c.username).where(credentials.c.server == server, credentials.c.username.in_(usernames), text(ALIVE))
    found = connection.scalar(taken)
    if found is not None:
        raise Conflict(f"the login {found} on {server} belongs to another credential")


def _refuse_prefix(connection: Connection, spec: ResourceSpec, resource_id: str | None) -> None:
    """Two resources that name their logins alike could not be told apart by a login of which no row is left."""
    server, prefix = prefixed(spec)
    named = (resources.c.server == server, resources.c.login_prefix == prefix, resources.c.state != text("'gone'"))
    others = select(resources.c.installation_id, resources.c.external_id).where(*named, resources.c.id != (resource_id or ""))
    other = connection.execute(others.limit(1)).one_or_none()
    if other is not None:
        raise prefix_taken(spec, f"{other.installation_id}/{other.external_id}")


def _move_logins(connection: Connection, resource_id: str, server: str) -> None:
    alive = select(credentials.c.username).where(credentials.c.resource_id == resource_id, text(ALIVE))
    _refuse_login(connection, server, tuple(connection.scalars(alive)))
    connection.execute(update(credentials).where(credentials.c.resource_id == resource_id, text(ALIVE)).values(server=server))


def _read_installation(connection: Connection, installation_id: str) -> Installation:
    row = connection.execute(select(installations).where(installations.c.id == installation_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("installation", installation_id)
    return installation_of(row)


def _read_server(connection: Connection, name: str, *, lock: bool = False) -> Server:
    """`lock`: nobody else gives a resource to this server, or changes it, before the transaction ends."""
    found = select(servers).where(servers.c.name == name)
    row = connection.execute(found.with_for_update(key_share=True) if lock else found).mappings().one_or_none()
    if row is None:
        raise NotFound("server", name)
    return server_of(row)


def _written(spec: ResourceSpec) -> dict[str, Any]:
    """What stands on the resource's row of each revision, so that it can be looked for."""
    return {"server": spec.database.server, "engine": spec.engine, "login_prefix": spec.database.login_prefix}


def _resource_row(spec: ResourceSpec, resource_id: str, schedule: Schedule, now: datetime) -> dict[str, Any]:
    return {
        "id": resource_id,
        "installation_id": spec.installation_id,
        "external_id": spec.external_id,
        **_written(spec),
        "state": "active",
        "revision": 1,
        "registered_at": now,
        **schedule_columns(schedule),
    }


def _insert_revision(connection: Connection, resource_id: str, revision: int, spec: ResourceSpec, now: datetime) -> None:
    row = {"resource_id": resource_id, "revision": revision, "spec": spec_to_json(spec), "recorded_at": now}
    connection.execute(insert(resource_revisions), row)
