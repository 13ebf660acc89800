"""Alarms: those of servers and of Vercel, which have no row of their own, and how many of each name stand in the whole fleet."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, exists, func, select, text, update

from rotation.errors import Conflict
from rotation.states import Alarm
from rotation.store.tables import UNENDED, UtcTime, alarms, credentials, installations, resources, rotations, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

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

NOT_HEALED_AFTER = timedelta(minutes=1)
"""A login that is astray for so long, though it was begun to put it right, was not put right."""

_astray = select(func.count()).select_from(credentials).where(credentials.c.astray_at.is_not(None))
# One that was lost and then ended stays astray on record: that it is gone is as its row says.
_MUST, _REVIVED = "stage IN ('pending', 'current', 'previous')", "stage IN ('retired', 'discarded') AND astray_at >= ended_at"
# Where one thing is wrong many rows may say so, or none: all the rotations of a parked installation wait for the same.
COUNTS = {
    Alarm.INSTALLATION_PARKED: select(func.count()).select_from(installations).where(installations.c.parked_at.is_not(None)),
    Alarm.LOGIN_LOST: _astray.where(text(_MUST)),
    Alarm.LOGIN_REVIVED: _astray.where(text(_REVIVED)),
    Alarm.LOGIN_NOT_HEALED: _astray.where(
        text(f"({_MUST} OR {_REVIVED})"),
        credentials.c.mending_until >= credentials.c.astray_at,
        credentials.c.astray_at <= bindparam("since", type_=UtcTime()),
    ),
    Alarm.ORPHAN_FOUND: select(func.coalesce(func.sum(servers.c.orphans), 0)),
    Alarm.RESOURCE_HELD: select(func.count()).select_from(resources).where(text("state = 'paused'"), resources.c.held_because.is_not(None)),
}


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
    """How many rows, resources, servers, installations and logins without a row want a person, by the alarm's name."""
    found: Counter[str] = Counter()
    for name, number in _counted(connection, now):
        found[name] += number
    for alarm, count in COUNTS.items():
        found[str(alarm)] = connection.execute(count, {"since": now - NOT_HEALED_AFTER}).scalar_one()
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
