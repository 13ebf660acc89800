"""What lists and pages read. Nothing here is a decision, and nothing here is a secret. Long lists are read page by page, by key."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, func, or_, select, text, tuple_

from rotation.errors import NotFound
from rotation.model import Credential, Event, Rotation
from rotation.states import Alarm, ResourceState, RotationState, Stage
from rotation.store import alarms
from rotation.store.due import CREDENTIAL_GOES_ON, ROTATION_GOES_ON
from rotation.store.rows import attempt_of, credential_of, request_of, rotation_of
from rotation.store.tables import (
    ALIVE,
    OPEN,
    UNENDED,
    attempts,
    credentials,
    events,
    installations,
    requests,
    resources,
    rotations,
    servers,
    sightings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Column, Connection, RowMapping

    from rotation.model import Attempt, Request
    from rotation.store.database import Database

PAGE = 100

LATE = timedelta(seconds=60)
"""What is due for longer than this is late: no worker or no clock is at work, or too few."""


@dataclass(frozen=True, slots=True)
class ResourceLine:
    """One resource in a list."""

    id: str
    installation_id: str
    external_id: str
    engine: str
    server: str
    state: ResourceState
    next_rotation_at: datetime | None
    reason: str
    failures: int
    generation: int | None
    """The number of the current credential; None before the first rotation of an empty resource."""
    rotation_id: str | None
    rotation_state: RotationState | None
    """The rotation that is under way, if there is one."""

    @property
    def name(self) -> str:
        """How people and logs call it."""
        return f"{self.installation_id}/{self.external_id}"


@dataclass(frozen=True, slots=True)
class RotationLine:
    """One rotation in a list."""

    rotation: Rotation
    resource_name: str
    triggers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EventLine:
    """One line of the audit trail. `chain` is the resource's id, or `installations`."""

    chain: str
    number: int
    at: datetime
    event: Event
    rotation_id: str | None
    credential_id: str | None

    @property
    def place(self) -> tuple[datetime, str, int]:
        """Where it stands among all events: hand it back to read on from here."""
        return self.at, self.chain, self.number


@dataclass(frozen=True, slots=True)
class RotationStory:
    """Everything about one rotation."""

    rotation: Rotation
    resource_name: str
    requests: tuple[Request, ...]
    attempts: tuple[Attempt, ...]
    events: tuple[EventLine, ...]


@dataclass(frozen=True, slots=True)
class Sighting:
    """Who was seen using a credential, when last, with how many sessions then."""

    client: str
    application: str
    sessions: int
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class CredentialLine:
    """One generation of a resource, and who was seen using it."""

    credential: Credential
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """The fleet in numbers, at one instant of the store's clock."""

    at: datetime
    resources: Mapping[ResourceState, int]
    due: int
    """Active resources whose date has come."""
    rotations: Mapping[RotationState, int]
    """Rotations that are not ended."""
    credentials: Mapping[Stage, int]
    """Logins that are alive, the current ones left out."""
    in_grace: int
    waiting_for_use: int
    parked: int
    """Installations whose token is refused."""
    failing: int
    """Resources whose last rotation failed."""
    astray: int
    """Logins that must work, and do not."""
    orphans: int
    """Logins that carry our mark and have no row, as their servers were last looked at."""
    held: int
    """Resources that we hold back ourselves, as their servers have newer logins than the store knows."""
    oldest_look_at: datetime | None
    """When the server whose logins were not looked at for the longest was looked at."""
    oldest_due_at: datetime | None
    """Since when the longest overdue resource, rotation or credential waits to be moved on."""
    alarms: Mapping[str, int]
    """How many resources, rotations, credentials, servers and installations want a person now, by the alarm's name."""


class Views:
    """Read models on the store's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def resources(self, *, after: str = "", limit: int = PAGE, state: ResourceState | None = None) -> tuple[ResourceLine, ...]:
        """The resources in the order of their ids, beginning behind `after`."""
        wanted = _RESOURCES.where(resources.c.id > after).order_by(resources.c.id).limit(limit)
        if state is not None:
            wanted = wanted.where(resources.c.state == state.value)
        with self._database.reading() as connection:
            return tuple(_resource_line(row) for row in connection.execute(wanted).mappings())

    def rotations(
        self, resource_id: str | None = None, *, before: str | None = None, limit: int = PAGE, under_way: bool = False
    ) -> tuple[RotationLine, ...]:
        """Rotations, the newest first, beginning behind the one with the id `before`."""
        wanted = _ROTATIONS.order_by(rotations.c.id.desc()).limit(limit)
        if resource_id is not None:
            wanted = wanted.where(rotations.c.resource_id == resource_id)
        if before is not None:
            wanted = wanted.where(rotations.c.id < before)
        if under_way:
            wanted = wanted.where(text(f"rotations.{UNENDED}"))
        with self._database.snapshot() as connection:
            rows = connection.execute(wanted).mappings().all()
            triggers = _triggers(connection, [row["id"] for row in rows])
            return tuple(RotationLine(rotation_of(row), _resource_name(row), triggers[row["id"]]) for row in rows)

    def rotation(self, rotation_id: str) -> RotationStory:
        """One rotation with its requests, attempts and events. Raises `NotFound`."""
        asked = select(requests).where(requests.c.rotation_id == rotation_id).order_by(requests.c.received_at, requests.c.id)
        pushed = select(attempts).where(attempts.c.rotation_id == rotation_id).order_by(attempts.c.number)
        told = select(events).where(events.c.rotation_id == rotation_id).order_by(events.c.number)
        with self._database.snapshot() as connection:
            row = connection.execute(_ROTATIONS.where(rotations.c.id == rotation_id)).mappings().one_or_none()
            if row is None:
                raise NotFound("rotation", rotation_id)
            return RotationStory(
                rotation=rotation_of(row),
                resource_name=_resource_name(row),
                requests=tuple(request_of(one) for one in connection.execute(asked).mappings()),
                attempts=tuple(attempt_of(one) for one in connection.execute(pushed).mappings()),
                events=tuple(_event_line(one) for one in connection.execute(told).mappings()),
            )

    def credential(self, credential_id: str) -> Credential:
        """Raises `NotFound`."""
        with self._database.reading() as connection:
            row = connection.execute(select(credentials).where(credentials.c.id == credential_id)).mappings().one_or_none()
        if row is None:
            raise NotFound("credential", credential_id)
        return credential_of(row)

    def credentials(self, resource_id: str) -> tuple[CredentialLine, ...]:
        """Every generation of a resource, the newest first."""
        here = credentials.c.resource_id == resource_id
        seen_here = select(sightings).join(credentials, credentials.c.id == sightings.c.credential_id).where(here)
        with self._database.snapshot() as connection:
            seen: dict[str, list[Sighting]] = defaultdict(list)
            for row in connection.execute(seen_here.order_by(sightings.c.last_seen_at.desc())):
                seen[row.credential_id].append(Sighting(row.client, row.application, row.sessions, row.last_seen_at))
            rows = connection.execute(select(credentials).where(here).order_by(credentials.c.generation.desc())).mappings()
            return tuple(CredentialLine(credential_of(row), tuple(seen[row["id"]])) for row in rows)

    def events(
        self, chain: str | None = None, *, before: tuple[datetime, str, int] | None = None, limit: int = PAGE
    ) -> tuple[EventLine, ...]:
        """Events of one chain (a resource's id, or `installations`) or of all, the newest first, beginning behind the place `before`."""
        wanted = select(events).limit(limit)
        if chain is not None:
            wanted = wanted.where(events.c.chain == chain).order_by(events.c.number.desc())
            if before is not None:
                wanted = wanted.where(events.c.number < before[2])
        else:
            wanted = wanted.order_by(events.c.at.desc(), events.c.chain.desc(), events.c.number.desc())
            if before is not None:
                wanted = wanted.where(tuple_(events.c.at, events.c.chain, events.c.number) < before)
        with self._database.reading() as connection:
            return tuple(_event_line(row) for row in connection.execute(wanted).mappings())

    def late(self) -> timedelta:
        """For how long the longest overdue row waits to be moved on. It costs no more than a look at what is due."""
        with self._database.snapshot() as connection:
            now = self._database.now_in(connection)
            return now - (_oldest(connection, now) or now)

    def status(self) -> Status:
        """The fleet in numbers. It counts the resources, so it costs what the fleet is large: for people, not for the tick."""
        with self._database.snapshot() as connection:
            now = self._database.now_in(connection)
            oldest = _oldest(connection, now)
            in_grace = _ending(or_(credentials.c.grace_ends_at > now, credentials.c.grace_ends_at.is_(None)))
            return Status(
                at=now,
                resources={ResourceState(name): number for name, number in _grouped(connection, resources.c.state)},
                due=_count(connection, select(resources.c.id).where(_DATED, resources.c.next_rotation_at <= now)),
                rotations={RotationState(name): number for name, number in _grouped(connection, rotations.c.state, UNENDED)},
                credentials={Stage(name): number for name, number in _grouped(connection, credentials.c.stage, _NOT_CURRENT)},
                in_grace=_count(connection, in_grace),
                waiting_for_use=_count(connection, _ending(credentials.c.grace_ends_at <= now)),
                parked=_count(connection, select(installations.c.id).where(installations.c.parked_at.is_not(None))),
                failing=_count(connection, select(resources.c.id).where(text("failures > 0"), resources.c.state != text("'gone'"))),
                oldest_due_at=oldest,
                alarms=_alarms(connection, now, oldest),
                astray=_count(connection, select(credentials.c.id).where(text("astray_at IS NOT NULL"), credentials.c.stage.in_(_MUST))),
                orphans=connection.scalar(select(func.coalesce(func.sum(servers.c.orphans), 0))) or 0,
                held=_count(connection, select(resources.c.id).where(text("state = 'paused'"), resources.c.held_because.is_not(None))),
                oldest_look_at=connection.scalar(select(func.min(servers.c.looked_at))),
            )


def _alarms(connection: Connection, now: datetime, oldest: datetime | None) -> Mapping[str, int]:
    late = {str(Alarm.WORK_OVERDUE): 1} if oldest is not None and now - oldest > LATE else {}
    return {**alarms.standing(connection, now), **late}


_DATED = text("state = 'active' AND next_rotation_at IS NOT NULL")
_MUST = ("pending", "current", "previous")
_NOT_CURRENT = "stage IN ('pending', 'previous', 'blocked', 'discarding')"

_current = credentials.alias("present")
_under_way = rotations.alias("under_way")
_RESOURCES = (
    select(resources, _current.c.generation, _under_way.c.id.label("rotation_id"), _under_way.c.state.label("rotation_state"))
    .outerjoin(_current, (_current.c.resource_id == resources.c.id) & (_current.c.stage == text("'current'")))
    .outerjoin(_under_way, (_under_way.c.resource_id == resources.c.id) & text(f"under_way.{OPEN}"))
)
_ROTATIONS = select(rotations, resources.c.installation_id, resources.c.external_id).join(
    resources, resources.c.id == rotations.c.resource_id
)


def _ending(condition: Any) -> Select[Any]:  # noqa: ANN401 - a condition on credentials
    return select(credentials.c.id).where(credentials.c.stage == text("'previous'"), condition)


def _count(connection: Connection, rows: Select[Any]) -> int:
    return connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one()


def _grouped(connection: Connection, column: Any, condition: str = "true") -> Sequence[tuple[str, int]]:  # noqa: ANN401 - a column
    rows = connection.execute(select(column, func.count()).where(text(condition)).group_by(column))
    return [(name, number) for name, number in rows]


def _oldest(connection: Connection, now: datetime) -> datetime | None:
    """Of what would be sent to the workers: what a paused resource holds waits for a person, not for us."""
    waiting = (
        _first(resources.c.next_rotation_at, now).where(_DATED),
        _first(rotations.c.due_at, now).where(text(f"rotations.{UNENDED}"), ROTATION_GOES_ON).join(resources),
        _first(credentials.c.due_at, now).where(text(f"credentials.{ALIVE}"), CREDENTIAL_GOES_ON).join(resources),
    )
    found: list[datetime] = [at for one in waiting if (at := connection.scalar(one)) is not None]
    return min(found, default=None)


def _first(date: Column[Any], now: datetime) -> Select[Any]:
    return select(date).where(date.is_not(None), date <= now).order_by(date).limit(1)


def _triggers(connection: Connection, rotation_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = defaultdict(tuple)
    asked = (
        select(requests.c.rotation_id, requests.c.trigger).where(requests.c.rotation_id.in_(rotation_ids)).order_by(requests.c.received_at)
    )
    for rotation_id, trigger in connection.execute(asked):
        found[rotation_id] += (trigger,)
    return found


def _resource_name(row: RowMapping) -> str:
    return f"{row['installation_id']}/{row['external_id']}"


def _resource_line(row: RowMapping) -> ResourceLine:
    return ResourceLine(
        id=row["id"],
        installation_id=row["installation_id"],
        external_id=row["external_id"],
        engine=row["engine"],
        server=row["server"],
        state=ResourceState(row["state"]),
        next_rotation_at=row["next_rotation_at"],
        reason=row["schedule_reason"],
        failures=row["failures"],
        generation=row["generation"],
        rotation_id=row["rotation_id"],
        rotation_state=None if row["rotation_state"] is None else RotationState(row["rotation_state"]),
    )


def _event_line(row: RowMapping) -> EventLine:
    detail = tuple((name, value) for name, value in json.loads(row["detail"]))
    event = Event(row["kind"], row["actor"], row["why"], detail)
    return EventLine(row["chain"], row["number"], row["at"], event, row["rotation_id"], row["credential_id"])
