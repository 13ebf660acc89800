"""Alarms: those of servers and of Vercel, which have no row of their own, and how many of each name stand in the whole fleet."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, select, text, update

from rotation.errors import Conflict
from rotation.states import Alarm
from rotation.store.tables import UNENDED, alarms, credentials, installations, resources, rotations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement, Connection

    from rotation.store.database import Database

# What ended in an alarm stands until the resource completes a rotation, and where its new login failed, one with a new login. One that
# leaves rotates no more: it is told why it leaves.
_later = rotations.alias("later")
_BADLY = "state IN ('failed', 'abandoned')"
ENDED_BADLY = (
    select(rotations.c.alarm, func.count())
    .join(resources, resources.c.id == rotations.c.resource_id)
    .where(
        rotations.c.alarm.is_not(None),
        text(f"rotations.{_BADLY}"),
        text("(resources.state = 'leaving' AND rotations.alarm = 'resource_missing' OR resources.state NOT IN ('leaving', 'gone'))"),
        ~exists(
            select(_later.c.id).where(
                _later.c.resource_id == rotations.c.resource_id,
                _later.c.id > rotations.c.id,
                text(f"(later.alarm IS NOT NULL AND later.{_BADLY} OR later.state = 'completed' AND resources.failures = 0)"),
            )
        ),
    )
    .group_by(rotations.c.alarm)
)
OF_ROTATIONS = select(rotations.c.alarm, func.count()).where(rotations.c.alarm.is_not(None), text(UNENDED)).group_by(rotations.c.alarm)
OF_CREDENTIALS = select(credentials.c.alarm, func.count()).where(credentials.c.alarm.is_not(None)).group_by(credentials.c.alarm)
OF_INSTALLATIONS = select(func.count()).select_from(installations).where(installations.c.parked_at.is_not(None))


def raise_alarm(database: Database, name: str, subject: str, problem: str, *, stands: timedelta, told_again: timedelta) -> bool:
    """The alarm stands for so long from now on. Whether it is to be told: it did not stand, or was told as long ago as `told_again`."""
    try:
        with database.writing() as connection:
            now = database.now_in(connection)
            name = str(name)  # as a driver takes it
            place = _place(name, subject)
            known = connection.execute(select(alarms).where(*place).with_for_update()).one_or_none()
            told = known is None or known.stands_until <= now or known.told_at <= now - told_again
            written = {"problem": problem, "stands_until": now + stands}
            if known is None:
                row = {"name": name, "subject": subject, "raised_at": now, "told_at": now}
                connection.execute(alarms.insert(), row | written)
            else:
                since = {"raised_at": now} if known.stands_until <= now else {}
                connection.execute(update(alarms).where(*place).values(written | since | ({"told_at": now} if told else {})))
    except Conflict:  # another process raised it for the first time in the same moment, and tells it
        return False
    return told


def end_alarm(database: Database, name: str, subject: str) -> None:
    """It stands no more. None that does: a no-op."""
    with database.writing() as connection:
        connection.execute(delete(alarms).where(*_place(str(name), subject)))


def standing(connection: Connection, now: datetime) -> Mapping[str, int]:
    """How many rows, resources, servers and installations want a person, by the alarm's name."""
    found: Counter[str] = Counter()
    for name, number in _counted(connection, now):
        found[name] += number
    parked = connection.execute(OF_INSTALLATIONS).scalar_one()
    # All the rotations of a parked installation wait for the same thing: it is one alarm.
    found[str(Alarm.INSTALLATION_PARKED)] = parked
    return {name: number for name, number in sorted(found.items()) if number}


def _counted(connection: Connection, now: datetime) -> Iterator[tuple[str, int]]:
    for one in (
        OF_ROTATIONS,
        OF_CREDENTIALS,
        ENDED_BADLY,
        select(alarms.c.name, func.count()).where(alarms.c.stands_until > now).group_by(alarms.c.name),
    ):
        yield from ((name, number) for name, number in connection.execute(one))


def _place(name: str, subject: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return alarms.c.name == name, alarms.c.subject == subject
