"""Reading a case: all that a step may look at, in one statement. Every statement is made once."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import bindparam, func, select, text

from rotation.cases import CredentialCase, ResourceCase, RotationCase
from rotation.errors import NotFound
from rotation.model import DOUBTED_FOR, Resource
from rotation.states import ResourceState, RotationState
from rotation.store import due
from rotation.store.direct import CompiledStatement
from rotation.store.documents import DIALECTS, decoded, document, many, one, row, time_of
from rotation.store.due import CLAIM_CREDENTIAL, CLAIM_ROTATION
from rotation.store.rows import attempt_of, credential_of, installation_of, request_of, rotation_of, sampled_of, schedule_of, server_of
from rotation.store.specs import spec_from_json
from rotation.store.tables import (
    ALIVE,
    ON_ITS_WAY,
    OPEN,
    UNENDED,
    UtcTime,
    attempts,
    chains,
    credentials,
    installations,
    requests,
    resources,
    rotations,
    servers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, TextClause
    from sqlalchemy.sql.dml import ReturningUpdate

    from rotation.cases import Claim
    from rotation.model import Attempt, Credential, Request, ResourceSpec
    from rotation.ports import Clock
    from rotation.store.database import Database
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
        "chain": one(dialect, chains, "h", "h.id = s.id"),
    }


def _resource_statement(dialect: str) -> str:
    return f"SELECT {document(dialect, **_resource_parts(dialect))} FROM {_RESOURCE_FROM} WHERE s.id = :row_id"  # noqa: S608 - all constants


def _alive(dialect: str) -> str:
    return many(dialect, credentials, "c", f"c.resource_id = s.id AND c.{ALIVE}")


def _rotation_parts(dialect: str) -> dict[str, str]:
    since = f"(SELECT clock_timestamp()) - interval '{DOUBTED_FOR.days} days'" if dialect == "postgresql" else ":since"
    requested = "(SELECT id FROM rotations WHERE resource_id = s.id AND state = 'requested')"
    return {
        **_resource_parts(dialect),
        "rotation": row(dialect, rotations, "r"),
        "installation": row(dialect, installations, "i"),
        "began": "CASE WHEN began.revision <> present.revision THEN began.spec END",
        "generations": "(SELECT coalesce(max(generation), 0) FROM credentials WHERE resource_id = s.id)",
        "requests": many(dialect, requests, "q", f"q.rotation_id = r.id OR q.rotation_id = {requested}"),
        "attempts": many(
            dialect, attempts, "a", f"a.rotation_id = r.id OR (a.resource_id = s.id AND a.{ON_ITS_WAY} AND a.expires_at > {since})"
        ),
        "credentials": _alive(dialect),
        "ahead": one(dialect, rotations, "o", f"r.state = 'requested' AND o.resource_id = s.id AND o.{OPEN}"),
    }


def _credential_parts(dialect: str) -> dict[str, str]:
    return {**_resource_parts(dialect), "credential": row(dialect, credentials, "r"), "credentials": _alive(dialect)}


def _case(dialect: str, parts: Mapping[str, str], source: str) -> str:
    """The case of the one row of `source`, which has the columns of a rotation or a credential."""
    began = (
        " JOIN installations AS i ON i.id = s.installation_id"
        " JOIN resource_revisions AS began ON began.resource_id = s.id AND began.revision = r.revision"
    )
    joined = began if "began" in parts else ""
    return f"SELECT {document(dialect, **parts)} FROM {_RESOURCE_FROM} JOIN {source} AS r ON r.resource_id = s.id{joined}"  # noqa: S608


def _rotation_statement(dialect: str) -> str:
    return f"{_case(dialect, _rotation_parts(dialect), rotations.name)} WHERE r.id = :row_id"


def _credential_statement(dialect: str) -> str:
    return f"{_case(dialect, _credential_parts(dialect), credentials.name)} WHERE r.id = :row_id"


def _claimed(claim: Mapping[str, ReturningUpdate[Any]], parts: Mapping[str, str]) -> CompiledStatement:
    """On PostgreSQL a row is claimed and its case read in one statement. What else it reads is as it was when the statement began: if
    somebody moved the resource while it waited for the row, the chain's length shows it as soon as something is to be recorded.
    """
    return CompiledStatement(claim["postgresql"], around=("WITH claimed AS (", f") {_case('postgresql', parts, 'claimed')}"))


def _statements(build: Callable[[str], str]) -> Mapping[str, TextClause]:
    made = {dialect: text(build(dialect)) for dialect in DIALECTS}
    return {dialect: one.bindparams(bindparam("since", type_=UtcTime())) if ":since" in one.text else one for dialect, one in made.items()}


RESOURCE = _statements(_resource_statement)
ROTATION = _statements(_rotation_statement)
CREDENTIAL = _statements(_credential_statement)
CLAIMED_ROTATION = _claimed(CLAIM_ROTATION, _rotation_parts("postgresql"))
CLAIMED_CREDENTIAL = _claimed(CLAIM_CREDENTIAL, _credential_parts("postgresql"))

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
GENERATIONS = select(func.coalesce(func.max(credentials.c.generation), 0)).where(credentials.c.resource_id == bindparam("resource_id"))
KEYED_REQUEST = select(requests).where(requests.c.resource_id == bindparam("resource_id"), requests.c.key == bindparam("request_key"))


@lru_cache(SPECS_KEPT)
def _spec(stored: str) -> ResourceSpec:
    return spec_from_json(stored)


def _read(connection: Connection, statements: Mapping[str, TextClause], row_id: str, clock: Clock) -> Document:
    """The document of a row that is there, with the store's clock as it was read."""
    dialect = connection.dialect.name
    now = clock.now()
    place = {"row_id": row_id, "since": now - DOUBTED_FOR} if dialect == "sqlite" and statements is ROTATION else {"row_id": row_id}
    read: Document = json.loads(connection.execute(statements[dialect], place).scalar_one())
    return read if read["now"] else {**read, "now": now.isoformat()}


def _resource(read: Document, spec: ResourceSpec) -> Resource:
    stored = decoded(resources, read["resource"])
    return Resource(
        id=stored["id"],
        state=ResourceState(stored["state"]),
        revision=stored["revision"],
        spec=spec,
        server=server_of(decoded(servers, read["server"])),
        schedule=schedule_of(stored),
        held_because=stored["held_because"] or "",
        held_over_pause=bool(stored["held_over_pause"]),
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


def claim_rotation_case(database: Database, rotation_id: str, lasting: timedelta, claim: Callable[[int], Claim]) -> RotationCase | None:
    """Hold a rotation, and read its case; `claim` makes the claim of a fence. None when it is not due, has ended, or is held."""
    if database.dialect == "postgresql":
        read = _claim_and_read(database, CLAIMED_ROTATION, rotation_id, lasting)
        return None if read is None else _rotation_case(read, claim(read["rotation"]["fence"]))
    fence = due.claim(database, rotations, rotation_id, lasting)
    if fence is None:
        return None
    with database.reading() as connection:
        return read_rotation_case(connection, database.clock, claim(fence))


def claim_credential_case(
    database: Database, credential_id: str, lasting: timedelta, claim: Callable[[int], Claim]
) -> CredentialCase | None:
    """The same for a credential."""
    if database.dialect == "postgresql":
        read = _claim_and_read(database, CLAIMED_CREDENTIAL, credential_id, lasting)
        return None if read is None else _credential_case(read, claim(read["credential"]["fence"]))
    fence = due.claim(database, credentials, credential_id, lasting)
    if fence is None:
        return None
    with database.reading() as connection:
        return read_credential_case(connection, database.clock, claim(fence))


def _claim_and_read(database: Database, statement: CompiledStatement, row_id: str, lasting: timedelta) -> Document | None:
    with database.direct() as direct:
        answer = direct.answer(statement.text, statement.values({"row_id": row_id, "until": f"{lasting.total_seconds()} seconds"}))
    return None if answer is None else cast("Document", json.loads(answer))


def read_rotation_case(connection: Connection, clock: Clock, claim: Claim) -> RotationCase:
    """The case of a rotation that is claimed."""
    return _rotation_case(_read(connection, ROTATION, claim.row_id, clock), claim)


def read_credential_case(connection: Connection, clock: Clock, claim: Claim) -> CredentialCase:
    """The case of a credential that is claimed."""
    return _credential_case(_read(connection, CREDENTIAL, claim.row_id, clock), claim)


def _rotation_case(read: Document, claim: Claim) -> RotationCase:
    rotation = rotation_of(decoded(rotations, read["rotation"]))
    asked, began = _requests(read), read["began"]
    chain = decoded(chains, read["chain"])
    return RotationCase(
        claim=claim,
        now=time_of(read["now"]),
        rotation=rotation,
        resource=_resource(read, _spec(began if began and rotation.state is not RotationState.REQUESTED else read["present"])),
        installation=installation_of(decoded(installations, read["installation"])),
        requests=tuple(one for one in asked if one.rotation_id == rotation.id),
        attempts=_attempts(read),
        credentials=_credentials(read),
        present_policy=_spec(read["present"]).policy,
        follow_up=tuple(one for one in asked if one.rotation_id != rotation.id),
        ahead=None if read["ahead"] is None else rotation_of(decoded(rotations, read["ahead"])),
        generations=read["generations"],
        version=chain["length"],
        head=chain["head"],
    )


def _credential_case(read: Document, claim: Claim) -> CredentialCase:
    credential = credential_of(decoded(credentials, read["credential"]))
    chain = decoded(chains, read["chain"])
    resource = _resource(read, _spec(read["present"]))  # its server is decoded from here on
    return CredentialCase(
        claim=claim,
        now=time_of(read["now"]),
        credential=credential,
        resource=resource,
        # The list may show it as it was just before it was claimed.
        credentials=tuple(credential if one.id == credential.id else one for one in _credentials(read)),
        version=chain["length"],
        head=chain["head"],
        sampled=sampled_of(read["server"]),
    )


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
        generations=connection.execute(GENERATIONS, place).scalar_one(),
    )
