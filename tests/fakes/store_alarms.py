"""The alarms of the store in memory: those that have no row of their own, and how many stand of each name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rotation.ports import ALARM_STANDS, ALARM_TOLD_AGAIN
from rotation.states import Alarm, ResourceState, RotationState, Stage
from rotation.store.alarms import NOT_HEALED_AFTER
from rotation.store.rules import ENDED_STATES
from tests.fakes.store_memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from rotation.model import Credential

ENDED_BADLY = (RotationState.FAILED, RotationState.ABANDONED)


@dataclass(slots=True)
class StandingAlarm:
    """One row."""

    problem: str
    raised_at: datetime
    told_at: datetime
    stands_until: datetime


class Alarms(Memory):
    """What wants a person."""

    def raise_alarm(
        self, name: str, subject: str, problem: str, *, stands: timedelta = ALARM_STANDS, told_again: timedelta = ALARM_TOLD_AGAIN
    ) -> bool:
        with self._lock:
            now = self.now()
            known = self.alarms.get((name, subject))
            stood = known is not None and known.stands_until > now
            told = known is None or not stood or known.told_at <= now - told_again
            raised_at = known.raised_at if known is not None and stood else now
            told_at = now if known is None or told else known.told_at
            self.alarms[name, subject] = StandingAlarm(problem, raised_at, told_at, now + stands)
            return told

    def end_alarm(self, name: str, subject: str) -> None:
        with self._lock:
            self.alarms.pop((name, subject), None)

    def standing_alarms(self) -> Mapping[str, int]:
        """As a view of the real store counts them."""
        with self._lock:
            found = Counter(str(name) for name in self._raised())
            found[str(Alarm.INSTALLATION_PARKED)] = sum(one.parked for one in self.installations.values())
            found[str(Alarm.ORPHAN_FOUND)] = sum(one.orphans or 0 for one in self.looks.values())
            found[str(Alarm.RESOURCE_HELD)] = sum(
                one.state is ResourceState.PAUSED and bool(one.held_because) for one in self.resources.values()
            )
            return {name: number for name, number in found.items() if number}

    def _raised(self) -> Iterator[str]:
        now = self.now()
        unended = [one.alarm for one in self.rotations.values() if one.state not in ENDED_STATES]
        yield from (alarm for alarm in (*unended, *(one.alarm for one in self.credentials.values())) if alarm is not None)
        yield from (name for (name, _), one in self.alarms.items() if one.stands_until > now)
        for login in self.credentials.values():
            yield from _of_login(login, now)
        for resource in self.resources.values():
            of_it = [self.rotations[one] for one in self._of_resource[resource.id]]
            ended = [
                one
                for one in of_it
                if (one.state in ENDED_BADLY and one.alarm is not None)
                or (one.state is RotationState.COMPLETED and not resource.schedule.failures)
            ]
            last = max(ended, key=lambda one: one.id).alarm if ended else None
            leaving = resource.state is ResourceState.LEAVING
            if last is not None and resource.state is not ResourceState.GONE and (not leaving or last == Alarm.RESOURCE_MISSING):
                yield last


def _of_login(login: Credential, now: datetime) -> Iterator[Alarm]:
    must = login.stage in (Stage.PENDING, Stage.CURRENT, Stage.PREVIOUS)
    if login.astray_at is None or not (must or (login.ended_at is not None and login.astray_at >= login.ended_at)):
        return
    yield Alarm.LOGIN_LOST if must else Alarm.LOGIN_REVIVED
    if login.mending_until is not None and login.mending_until >= login.astray_at and login.astray_at <= now - NOT_HEALED_AFTER:
        yield Alarm.LOGIN_NOT_HEALED
