"""Between rows and values. A row is read whole; a state that this version does not know raises `Refused`, and is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rotation.errors import Refused
from rotation.model import Attempt, Credential, Installation, Request, Rotation, Sampled, Schedule, Server
from rotation.states import AttemptState, InUse, RotationState, Stage, Trigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping

    from rotation.cases import Move

    Row = Mapping[str, Any] | RowMapping

CLAIM_COLUMNS = ("fence", "claimed_until", "hinted_until")
UNKNOWN_ADVICE = "a newer version wrote it: let that version go on"


def alarm_name(alarm: str | None) -> str | None:
    """The name as a driver takes it: psycopg would write an enumeration's member by the name that it has in Python."""
    return None if alarm is None else str(alarm)


def rotation_of(row: Row) -> Rotation:
    """A rotation from its row."""
    return Rotation(
        id=row["id"],
        resource_id=row["resource_id"],
        revision=row["revision"],
        state=_known(RotationState, row["state"]),
        urgent=row["urgent"],
        requested_at=row["requested_at"],
        credential_id=row["credential_id"],
        planned_at=row["planned_at"],
        created_at=row["created_at"],
        verified_at=row["verified_at"],
        offered_at=row["offered_at"],
        ended_at=row["ended_at"],
        due_at=row["due_at"],
        tries=row["tries"],
        problem=row["problem"],
        advice=row["advice"],
        alarm=row["alarm"],
        reserved_at=row["reserved_at"],
        missing_since=row["missing_since"],
        fence=row["fence"],
    )


def rotation_columns(value: Rotation) -> dict[str, Any]:
    """What a move writes of a rotation: all but its id, resource and claim."""
    return {
        "revision": value.revision,
        "state": value.state.value,
        "urgent": value.urgent,
        "requested_at": value.requested_at,
        "credential_id": value.credential_id,
        "planned_at": value.planned_at,
        "created_at": value.created_at,
        "verified_at": value.verified_at,
        "offered_at": value.offered_at,
        "ended_at": value.ended_at,
        "due_at": value.due_at,
        "tries": value.tries,
        "problem": value.problem,
        "advice": value.advice,
        "alarm": alarm_name(value.alarm),
        "reserved_at": value.reserved_at,
        "missing_since": value.missing_since,
    }


def credential_of(row: Row) -> Credential:
    """A credential from its row."""
    return Credential(
        id=row["id"],
        resource_id=row["resource_id"],
        generation=row["generation"],
        username=row["username"],
        stage=_known(Stage, row["stage"]),
        sealed_password=row["sealed_password"],
        sealed_verifier=row["sealed_verifier"],
        recorded_at=row["recorded_at"],
        adopted=row["adopted"],
        compromised=row["compromised"],
        current_at=row["current_at"],
        previous_at=row["previous_at"],
        grace_ends_at=row["grace_ends_at"],
        in_use=InUse(row["in_use"]),
        in_use_until=row["in_use_until"],
        quiet=row["quiet"],
        blocked_for=row["blocked_for"],
        unblock_until=row["unblock_until"],
        blocked_at=row["blocked_at"],
        ended_at=row["ended_at"],
        due_at=row["due_at"],
        tries=row["tries"],
        problem=row["problem"],
        alarm=row["alarm"],
        last_seen_at=row["last_seen_at"],
        astray_at=row["astray_at"],
        mending_until=row["mending_until"],
        tried_at=row["tried_at"],
        found_at=row["found_at"],
        fence=row["fence"],
    )


def credential_columns(value: Credential) -> dict[str, Any]:
    """What a move writes of a credential: all but its id, resource, generation, name and claim, and what only looking at it tells."""
    return {
        "stage": value.stage.value,
        "sealed_password": value.sealed_password,
        "sealed_verifier": value.sealed_verifier,
        "recorded_at": value.recorded_at,
        "adopted": value.adopted,
        "compromised": value.compromised,
        "current_at": value.current_at,
        "previous_at": value.previous_at,
        "grace_ends_at": value.grace_ends_at,
        "in_use": value.in_use.value,
        "in_use_until": value.in_use_until,
        "quiet": value.quiet,
        "blocked_for": value.blocked_for,
        "unblock_until": value.unblock_until,
        "blocked_at": value.blocked_at,
        "ended_at": value.ended_at,
        "due_at": value.due_at,
        "tries": value.tries,
        "problem": value.problem,
        "alarm": alarm_name(value.alarm),
        "found_at": value.found_at,
    }


def new_rotation_row(value: Rotation) -> dict[str, Any]:
    """The row of a new rotation, claimed by nobody."""
    return {"id": value.id, "resource_id": value.resource_id, **rotation_columns(value), "fence": 0}


def new_credential_row(value: Credential) -> dict[str, Any]:
    """The row of a new credential, claimed by nobody and never seen. Its server is the one of its resource."""
    named = {"id": value.id, "resource_id": value.resource_id, "generation": value.generation, "username": value.username}
    return {**named, **credential_columns(value), "fence": 0}


def request_of(row: Row) -> Request:
    """A request from its row."""
    return Request(
        id=row["id"],
        resource_id=row["resource_id"],
        trigger=Trigger(row["trigger"]),
        actor=row["actor"],
        received_at=row["received_at"],
        reason=row["reason"],
        key=row["key"],
        grace=row["grace"],
        rotation_id=row["rotation_id"],
    )


def request_row(value: Request) -> dict[str, Any]:
    """The row of a request."""
    return {
        "id": value.id,
        "resource_id": value.resource_id,
        "rotation_id": value.rotation_id,
        "trigger": value.trigger.value,
        "actor": value.actor,
        "received_at": value.received_at,
        "reason": value.reason,
        "key": value.key,
        "grace": value.grace,
    }


def attempt_of(row: Row) -> Attempt:
    """An attempt from its row."""
    return Attempt(
        id=row["id"],
        resource_id=row["resource_id"],
        rotation_id=row["rotation_id"],
        credential_id=row["credential_id"],
        number=row["number"],
        state=AttemptState(row["state"]),
        opened_at=row["opened_at"],
        send_before=row["send_before"],
        expires_at=row["expires_at"],
        clean=row["clean"],
        fence=row["fence"],
        answered_at=row["answered_at"],
        status=row["status"],
        note=row["note"],
    )


def server_of(row: Row) -> Server:
    """A server from its row."""
    return Server(
        name=row["name"],
        engine=row["engine"],
        host=row["host"],
        port=row["port"],
        sslmode=row["sslmode"],
        sslrootcert=row["sslrootcert"],
        admin_url_file=row["admin_url_file"],
        admin_url_env=row["admin_url_env"],
        connections=row["connections"],
    )


def sampled_of(row: Row) -> Sampled | None:
    """How a server's sessions were looked at, from its row; None when they never were."""
    return None if row["sampled_at"] is None else Sampled(since=row["sampled_since"], at=row["sampled_at"])


def server_columns(value: Server) -> dict[str, Any]:
    """The row of a server."""
    return {
        "name": value.name,
        "engine": value.engine,
        "host": value.host,
        "port": value.port,
        "sslmode": value.sslmode,
        "sslrootcert": value.sslrootcert,
        "admin_url_file": value.admin_url_file,
        "admin_url_env": value.admin_url_env,
        "connections": value.connections,
    }


def installation_of(row: Row) -> Installation:
    """An installation from its row."""
    return Installation(row["id"], row["sealed_token"], row["parked_at"], row["parked_reason"])


def schedule_of(row: Row) -> Schedule:
    """A resource's schedule from the resource's row."""
    return Schedule(row["next_rotation_at"], row["schedule_reason"], row["failures"], row["completed_at"])


def schedule_columns(value: Schedule) -> dict[str, Any]:
    """The columns of a schedule."""
    return {
        "next_rotation_at": value.next_rotation_at,
        "schedule_reason": value.reason,
        "failures": value.failures,
        "completed_at": value.completed_at,
    }


def state_columns(move: Move) -> dict[str, Any]:
    """The columns of a resource's new state, and of why and over what we hold it."""
    if move.resource_state is None:
        return {}
    over_pause = move.held_over_pause if move.held_because else None
    return {"state": move.resource_state.value, "held_because": move.held_because or None, "held_over_pause": over_pause}


def _known(kind: type[Any], stored: str) -> Any:  # noqa: ANN401 - a member of the enumeration that the caller names
    try:
        return kind(stored)
    except ValueError:
        raise Refused(f"{kind.__name__} {stored!r} is unknown to this version", advice=UNKNOWN_ADVICE) from None
