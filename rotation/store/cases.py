"""Reading a case: all that a step may look at, in one statement. Every statement is made once."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, text

from rotation.cases import CredentialCase, ResourceCase, RotationCase
from rotation.errors import NotFound
from rotation.model import Resource
from rotation.states import ResourceState, RotationState
from rotation.store.documents import DIALECTS, decoded, document, many, one, row, time_of
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
    resources,
    rotations,
    servers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, TextClause

    from rotation.cases import Claim
    from rotation.model import Attempt, Credential, Request, ResourceSpec
    from rotation.ports import Clock
    from rotation.store.documents import Document

SPECS_KEPT = 2_048


_RESOURCE_FROM = (
    "resources AS s JOIN servers AS v ON v.name = s.server"
    " JOIN resource_revisions AS present ON present.resource_id = s.id AND present.revision = s.revision"
)


def _resource_parts(dialect: str) -> dict[str, str]:
    now = "clock_timestamp()" if dialect == "postgresql" else "NULL"
    return {
        "now": now,
        "resource": row(dialect, resources, "s"),
        "server": row(dialect, servers, "v"),
        "present": "present.spec",
        "version": "(SELECT length FROM chains WHERE id = s.id)",
    }


def _resource_statement(dialect: str) -> str:
    return f"SELECT {document(dialect, **_resource_parts(dialect))} FROM {_RESOURCE_FROM} WHERE s.id = :row_id"  # noqa: S608 - all constants


def _alive(dialect: str) -> str:
    return many(dialect, credentials, "c", f"c.resource_id = s.id AND c.{ALIVE}")


def _rotation_statement(dialect: str) -> str:
    now = "(SELECT clock_timestamp())" if dialect == "postgresql" else ":now"
    requested = "(SELECT id FROM rotations WHERE resource_id = s.id AND state = 'requested')"
    parts = document(
        dialect,
        **_resource_parts(dialect),
        rotation=row(dialect, rotations, "r"),
        installation=row(dialect, installations, "i"),
        began="began.spec",
        generations="(SELECT coalesce(max(generation), 0) FROM credentials WHERE resource_id = s.id)",
        requests=many(dialect, requests, "q", f"q.rotation_id = r.id OR q.rotation_id = {requested}"),
        attempts=many(
            dialect, attempts, "a", f"a.rotation_id = r.id OR (a.resource_id = s.id AND a.{ON_ITS_WAY} AND a.expires_at > {now})"
        ),
        credentials=_alive(dialect),
        ahead=one(dialect, rotations, "o", f"r.state = 'requested' AND o.resource_id = s.id AND o.{OPEN}"),
    )
    return (
        f"SELECT {parts} FROM {_RESOURCE_FROM} JOIN rotations AS r ON r.resource_id = s.id"  # noqa: S608 - all constants
        " JOIN installations AS i ON i.id = s.installation_id"
        " JOIN resource_revisions AS began ON began.resource_id = s.id AND began.revision = r.revision WHERE r.id = :row_id"
    )


def _credential_statement(dialect: str) -> str:
    parts = document(dialect, **_resource_parts(dialect), credential=row(dialect, credentials, "r"), credentials=_alive(dialect))
    return f"SELECT {parts} FROM {_RESOURCE_FROM} JOIN credentials AS r ON r.resource_id = s.id WHERE r.id = :row_id"  # noqa: S608 - all constants


def _statements(build: Callable[[str], str]) -> Mapping[str, TextClause]:
    made = {dialect: text(build(dialect)) for dialect in DIALECTS}
    return {dialect: one.bindparams(bindparam("now", type_=UtcTime())) if ":now" in one.text else one for dialect, one in made.items()}


RESOURCE = _statements(_resource_statement)
ROTATION = _statements(_rotation_statement)
CREDENTIAL = _statements(_credential_statement)

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


def _read(connection: Connection, statements: Mapping[str, TextClause], row_id: str, clock: Clock) -> tuple[Document, datetime]:
    """The document of a row that is there, and the store's clock as it was read."""
    dialect = connection.dialect.name
    now = clock.now()
    place = {"row_id": row_id, "now": now} if dialect == "sqlite" and statements is ROTATION else {"row_id": row_id}
    read: Document = json.loads(connection.execute(statements[dialect], place).scalar_one())
    return read, now if read["now"] is None else time_of(read["now"])


def _resource(read: Document, spec: ResourceSpec) -> Resource:
    stored = decoded(resources, read["resource"])
    return Resource(
        id=stored["id"],
        state=ResourceState(stored["state"]),
        revision=stored["revision"],
        spec=spec,
        server=server_of(decoded(servers, read["server"])),
        schedule=schedule_of(stored),
    )


def _credentials(read: Document) -> tuple[Credential, ...]:
    rows = sorted(read["credentials"] or (), key=lambda one: one["generation"])
    return tuple(credential_of(decoded(credentials, one)) for one in rows)


def _attempts(read: Document) -> tuple[Attempt, ...]:
    rows = (attempt_of(decoded(attempts, one)) for one in read["attempts"] or ())
    return tuple(sorted(rows, key=lambda one: (one.opened_at, one.rotation_id, one.number)))


def _requests(read: Document) -> list[Request]:
    rows = (request_of(decoded(requests, one)) for one in read["requests"] or ())
    return sorted(rows, key=lambda one: (one.received_at, one.id))


def read_resource(connection: Connection, resource_id: str) -> Resource:
    """The resource with its newest revision. Raises `NotFound`."""
    found = connection.execute(RESOURCE[connection.dialect.name], {"row_id": resource_id}).scalar_one_or_none()
    if found is None:
        raise NotFound("resource", resource_id)
    read = json.loads(found)
    return _resource(read, _spec(read["present"]))


def read_rotation_case(connection: Connection, clock: Clock, claim: Claim) -> RotationCase:
    """The case of a rotation that is claimed."""
    read, now = _read(connection, ROTATION, claim.row_id, clock)
    rotation = rotation_of(decoded(rotations, read["rotation"]))
    asked = _requests(read)
    return RotationCase(
        claim=claim,
        now=now,
        rotation=rotation,
        resource=_resource(read, _spec(read["present" if rotation.state is RotationState.REQUESTED else "began"])),
        installation=installation_of(decoded(installations, read["installation"])),
        requests=tuple(one for one in asked if one.rotation_id == rotation.id),
        attempts=_attempts(read),
        credentials=_credentials(read),
        present_policy=_spec(read["present"]).policy,
        follow_up=tuple(one for one in asked if one.rotation_id != rotation.id),
        ahead=None if read["ahead"] is None else rotation_of(decoded(rotations, read["ahead"])),
        generations=read["generations"],
        version=read["version"],
    )


def read_credential_case(connection: Connection, clock: Clock, claim: Claim) -> CredentialCase:
    """The case of a credential that is claimed."""
    read, now = _read(connection, CREDENTIAL, claim.row_id, clock)
    credential = credential_of(decoded(credentials, read["credential"]))
    return CredentialCase(claim, now, credential, _resource(read, _spec(read["present"])), _credentials(read), read["version"])


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
