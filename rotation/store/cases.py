"""Reading a case: all that a step may look at, in as few queries as it takes. Every statement is made once."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, bindparam, func, or_, select, text

from rotation.errors import NotFound
from rotation.model import CredentialCase, Resource, ResourceCase, ResourceState, RotationCase, RotationState
from rotation.store.rows import attempt_of, credential_of, installation_of, request_of, rotation_of, schedule_of, server_of
from rotation.store.specs import spec_from_json
from rotation.store.tables import (
    ALIVE,
    ON_ITS_WAY,
    OPEN,
    UNENDED,
    UtcTime,
    attempts,
    credentials,
    installations,
    requests,
    resource_revisions,
    resources,
    rotations,
    servers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from rotation.model import Claim, Credential, ResourceSpec, Rotation

SPECS_KEPT = 2_048

_present = resource_revisions.alias("present")
_began = resource_revisions.alias("began")


def _named(*tables: Any) -> list[Any]:  # noqa: ANN401 - tables and aliases
    """The columns of several tables in one row, each by table and name."""
    return [column.label(f"{table.name}_{column.name}") for table in tables for column in table.c]


def _part(row: Row[Any], table: Any) -> Mapping[str, Any]:  # noqa: ANN401 - a table or an alias
    """The columns of one of the tables."""
    mapping = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    return {column.name: mapping[f"{table.name}_{column.name}"] for column in table.c}


def _of_resource(*tables: Any) -> Select[Any]:  # noqa: ANN401 - tables and aliases
    here = resources.join(servers, servers.c.name == resources.c.server).join(
        _present, (_present.c.resource_id == resources.c.id) & (_present.c.revision == resources.c.revision)
    )
    return select(*_named(resources, servers, *tables), _present.c.spec.label("present_spec")).select_from(here)


RESOURCE = _of_resource().where(resources.c.id == bindparam("resource_id"))

_generations = select(func.max(credentials.c.generation)).where(credentials.c.resource_id == resources.c.id).scalar_subquery()
ROTATION = (
    _of_resource(rotations, installations)
    .add_columns(_began.c.spec.label("began_spec"), func.coalesce(_generations, 0).label("generations"))
    .join(rotations, rotations.c.resource_id == resources.c.id)
    .join(installations, installations.c.id == resources.c.installation_id)
    .join(_began, (_began.c.resource_id == resources.c.id) & (_began.c.revision == rotations.c.revision))
    .where(rotations.c.id == bindparam("rotation_id"))
)
CREDENTIAL = (
    _of_resource(credentials)
    .join(credentials, credentials.c.resource_id == resources.c.id)
    .where(credentials.c.id == bindparam("credential_id"))
)

ALIVE_CREDENTIALS = (
    select(credentials).where(credentials.c.resource_id == bindparam("resource_id"), text(ALIVE)).order_by(credentials.c.generation)
)
ATTEMPTS = (
    select(attempts)
    .where(
        attempts.c.resource_id == bindparam("resource_id"),
        or_(
            attempts.c.rotation_id == bindparam("rotation_id"),
            text(ON_ITS_WAY) & (attempts.c.expires_at > bindparam("now", type_=UtcTime())),
        ),
    )
    .order_by(attempts.c.opened_at, attempts.c.rotation_id, attempts.c.number)
)
_requested = (
    select(rotations.c.id)
    .where(rotations.c.resource_id == bindparam("resource_id"), rotations.c.state == text("'requested'"))
    .scalar_subquery()
)
REQUESTS = (
    select(requests)
    .where(or_(requests.c.rotation_id == bindparam("rotation_id"), requests.c.rotation_id == _requested))
    .order_by(requests.c.received_at, requests.c.id)
)
AHEAD = select(rotations).where(rotations.c.resource_id == bindparam("resource_id"), text(OPEN))

LOCKED_ROTATIONS = (
    select(rotations)
    .where(rotations.c.resource_id == bindparam("resource_id"), text(UNENDED))
    .order_by(rotations.c.id)
    .with_for_update(key_share=True)
)
LOCKED_CREDENTIALS = (
    select(credentials)
    .where(credentials.c.resource_id == bindparam("resource_id"), text(ALIVE))
    .order_by(credentials.c.id)
    .with_for_update(key_share=True)
)
KEYED_REQUEST = select(requests).where(requests.c.resource_id == bindparam("resource_id"), requests.c.key == bindparam("request_key"))


@lru_cache(SPECS_KEPT)
def _spec(stored: str) -> ResourceSpec:
    return spec_from_json(stored)


def _resource(row: Row[Any], spec: ResourceSpec) -> Resource:
    part = _part(row, resources)
    return Resource(
        id=part["id"],
        state=ResourceState(part["state"]),
        revision=part["revision"],
        spec=spec,
        server=server_of(_part(row, servers)),
        schedule=schedule_of(part),
    )


def read_resource(connection: Connection, resource_id: str) -> Resource:
    """The resource with its newest revision. Raises `NotFound`."""
    row = connection.execute(RESOURCE, {"resource_id": resource_id}).one_or_none()
    if row is None:
        raise NotFound("resource", resource_id)
    return _resource(row, _spec(row.present_spec))


def _alive(connection: Connection, resource_id: str) -> tuple[Credential, ...]:
    return tuple(credential_of(row) for row in connection.execute(ALIVE_CREDENTIALS, {"resource_id": resource_id}).mappings())


def read_rotation_case(connection: Connection, rotation_id: str, claim: Claim, now: datetime) -> RotationCase:
    """The case of a rotation that is claimed."""
    row = connection.execute(ROTATION, {"rotation_id": rotation_id}).one()
    rotation = rotation_of(_part(row, rotations))
    place = {"resource_id": rotation.resource_id, "rotation_id": rotation.id}
    asked = [request_of(one) for one in connection.execute(REQUESTS, place).mappings()]
    return RotationCase(
        claim=claim,
        now=now,
        rotation=rotation,
        resource=_resource(row, _spec(row.present_spec if rotation.state is RotationState.REQUESTED else row.began_spec)),
        installation=installation_of(_part(row, installations)),
        requests=tuple(one for one in asked if one.rotation_id == rotation.id),
        attempts=tuple(attempt_of(one) for one in connection.execute(ATTEMPTS, {**place, "now": now}).mappings()),
        credentials=_alive(connection, rotation.resource_id),
        present_policy=_spec(row.present_spec).policy,
        follow_up=tuple(one for one in asked if one.rotation_id != rotation.id),
        ahead=_ahead(connection, rotation),
        generations=row.generations,
    )


def _ahead(connection: Connection, rotation: Rotation) -> Rotation | None:
    if rotation.state is not RotationState.REQUESTED:
        return None
    row = connection.execute(AHEAD, {"resource_id": rotation.resource_id}).mappings().one_or_none()
    return None if row is None else rotation_of(row)


def read_credential_case(connection: Connection, credential_id: str, claim: Claim, now: datetime) -> CredentialCase:
    """The case of a credential that is claimed."""
    row = connection.execute(CREDENTIAL, {"credential_id": credential_id}).one()
    credential = credential_of(_part(row, credentials))
    return CredentialCase(claim, now, credential, _resource(row, _spec(row.present_spec)), _alive(connection, credential.resource_id))


def read_resource_case(connection: Connection, resource_id: str, key: str | None, now: datetime) -> ResourceCase:
    """All that a request may look at, with its rows locked until the transaction ends: who claims one of them waits for that."""
    place = {"resource_id": resource_id}
    unended = [rotation_of(row) for row in connection.execute(LOCKED_ROTATIONS, place).mappings()]
    alive = [credential_of(row) for row in connection.execute(LOCKED_CREDENTIALS, place).mappings()]
    keyed = None if key is None else connection.execute(KEYED_REQUEST, {**place, "request_key": key}).mappings().one_or_none()
    return ResourceCase(
        now=now,
        resource=read_resource(connection, resource_id),
        open_rotation=next((one for one in unended if one.state is not RotationState.REQUESTED), None),
        requested_rotation=next((one for one in unended if one.state is RotationState.REQUESTED), None),
        credentials=tuple(sorted(alive, key=lambda one: one.generation)),
        keyed_request=None if keyed is None else request_of(keyed),
    )
