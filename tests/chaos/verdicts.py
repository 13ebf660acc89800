"""What must be true when chaos is over and everything has settled, looked at from outside: the promises of the whole system."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import func, select

from rotation.engines.logins import ALPHABET, SHORTEST_PASSWORD
from rotation.states import ResourceState, Stage, Trigger
from rotation.store.rules import ENDED_STATES
from rotation.store.tables import credentials, events, requests, rotations
from tests.chaos.deadlines import end_after_emergency, ends_of_graces, ends_of_rotations, longer_than, seconds_of
from tests.chaos.report import EMERGENCY_SECONDS, RESUMED_SECONDS, Spread
from tests.promises import assert_every_move_was_recorded_once, is_crash
from worker.sandbox.customers import Answer, knock
from worker.sandbox.fleet import ADMIN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from rotation.model import Resource
    from tests.chaos.customers import Customers
    from tests.chaos.deadlines import Took
    from tests.chaos.mayhem import Deeds, Kill
    from tests.chaos.report import Report
    from tests.chaos.rig import ChaosRig
    from tests.rigs import CustomersServer
    from tests.witnesses import Held

OURS = ("rollover", "schedule")
"""Who acts in the name of workers and beats."""
LIKE_A_PASSWORD = re.compile(f"[{ALPHABET}]{{{SHORTEST_PASSWORD},}}")
"""A whole run of the characters that passwords are made of."""
KNOCKERS = 8
"""How many logins are tried at once."""


def judge(report: Report, rig: ChaosRig, customers: Customers, deeds: Deeds) -> None:
    """Write into the report whatever was broken."""
    report.refused += [
        f"{one.username} of {one.resource} ({one.said}), {one.seconds_held:.2f} s after Vercel got it" for one in customers.refused
    ]
    report.early += early(rig)
    currents = [(resource, credential.username) for resource in rig.resources for credential in rig.staged(resource, Stage.CURRENT)]
    report.orphans += [one for server in rig.customers for one in orphans(server, wanted(server, currents))]
    report.lost += lost(rig, deeds.accepted)
    helds = [held for resource in rig.resources for held in customers.diary.of(resource.spec.external_id)]
    logs = [process.log for process in rig.processes] + [server.postgresql.log for server in rig.customers]
    report.broken += itertools.chain(not_well(rig), not_dead(rig, helds), badly_recorded(rig), crashes(rig), told(logs, helds))
    judge_deadlines(report, rig, deeds)


def judge_deadlines(report: Report, rig: ChaosRig, deeds: Deeds) -> None:
    """How soon everything ended, and what was late when nothing went wrong any more."""
    assert deeds.over is not None
    ended = list(ends_of_rotations((one for resource in rig.resources for one in rig.rotations(resource)), deeds.over))
    graces = ends_of_graces((one for resource in rig.resources for one in rig.credentials(resource)), deeds.over)
    report.ended = Spread.of(seconds_of(ended))
    report.overdue += longer_than(RESUMED_SECONDS, ended)
    report.blocked = Spread.of(seconds_of(graces.meanwhile))
    report.blocked_afterwards = Spread.of(seconds_of(graces.afterwards))
    report.late += longer_than(RESUMED_SECONDS, graces.afterwards)
    asked = select(requests.c.resource_id, requests.c.received_at)
    asked = asked.where(requests.c.trigger == Trigger.EMERGENCY, requests.c.received_at <= deeds.over)
    with rig.store.database.reading() as connection:
        emergencies = [(resource_id, at) for resource_id, at in connection.execute(asked)]
    logins = {resource.id: rig.credentials(resource) for resource in rig.resources}
    report.emergency = Spread.of(seconds_of(end for resource_id, at in emergencies for end in end_after_emergency(logins[resource_id], at)))


def judge_emergencies(report: Report, ends: Sequence[Took]) -> None:
    """Those that were asked for when nothing went wrong any more."""
    report.emergency_afterwards = Spread.of(seconds_of(ends))
    report.slow += longer_than(EMERGENCY_SECONDS, ends)


def count(report: Report, rig: ChaosRig, deeds: Deeds) -> None:
    """What there was, and how soon it went on after each kill."""
    retired = select(func.count()).where(credentials.c.stage == Stage.RETIRED)
    moves = select(events.c.at, events.c.rotation_id).where(events.c.actor.in_(OURS)).order_by(events.c.at)
    with rig.store.database.reading() as connection:
        report.rotations.update(connection.scalars(select(rotations.c.state)))
        report.retired = connection.scalar(retired) or 0
        recorded = [(at.timestamp(), one) for at, one in connection.execute(moves)]
    report.next_act = Spread.of(next_acts(deeds.kills, [at for at, _ in recorded]))
    acts: dict[str, list[float]] = {}
    for at, rotation_id in sorted([(at, one) for at, one in recorded if one is not None] + list(setbacks(rig))):
        acts.setdefault(rotation_id, []).append(at)
    waited = [(after, one) for kill in deeds.kills for one in kill.in_hand for after in next_acts([kill], acts.get(one, ()))]
    report.resumed = Spread.of(after for after, _ in waited)
    report.stalled += [f"{one} for {after:.0f} s" for after, one in sorted(waited, reverse=True) if after > RESUMED_SECONDS]


def setbacks(rig: ChaosRig) -> Iterator[tuple[float, str]]:
    """When a worker tried a rotation's next step in vain, which the audit trail does not tell, by the logs."""
    for process in rig.processes:
        for line in process.lines():
            if "rotation" in line and "problem" in line:
                yield datetime.fromisoformat(line["timestamp"]).timestamp(), line["rotation"]


def next_acts(kills: Iterable[Kill], acts: Sequence[float]) -> Iterator[float]:
    """How long after each kill something was done; kills after the last act are left out."""
    for kill in kills:
        place = bisect_right(acts, kill.at)
        if place < len(acts):
            yield acts[place] - kill.at


def early(rig: ChaosRig) -> Iterator[str]:
    """Logins that ended before the end of their grace, or whose grace was shorter than promised without an emergency."""
    for resource in rig.resources:
        hurried = any(one.compromised for one in rig.credentials(resource))
        for one in rig.staged(resource, Stage.RETIRED):
            if one.compromised:
                continue
            if one.grace_ends_at is None or one.blocked_at is None or one.previous_at is None:
                yield f"{one.username} was retired without a grace"
            elif one.blocked_at < one.grace_ends_at:
                yield f"{one.username} was blocked {one.grace_ends_at - one.blocked_at} before its end"
            elif not hurried and one.grace_ends_at < one.previous_at + resource.spec.policy.grace:
                yield f"{one.username} got a grace of {one.grace_ends_at - one.previous_at} only"


def wanted(server: CustomersServer, currents: Iterable[tuple[Resource, str]]) -> set[str]:
    """The roles that a server shall have: the current login of each of its own resources, and the group that owns what is in it."""
    here = [(resource, username) for resource, username in currents if resource.server.name == server.name]
    return {username for _, username in here} | {resource.spec.database.owner_role for resource, _ in here}


def orphans(server: CustomersServer, expected: Collection[str]) -> Iterator[str]:
    """Roles that a server has beside those that it shall have, by its own list: with a mark of ours or without, let in or not."""
    with psycopg.connect(server.postgresql.superuser_url()) as connection:
        found = connection.execute(
            "SELECT rolname::text FROM pg_roles WHERE NOT rolsuper AND NOT starts_with(rolname, 'pg_') AND rolname <> %s", [ADMIN]
        )
        there = {name for (name,) in found}
    yield from (f"{name} on {server.name}" for name in sorted(there.difference(expected)))


def lost(rig: ChaosRig, accepted: Iterable[str]) -> Iterator[str]:
    """Rotations that were promised and are not on record, and those that never ended."""
    with rig.store.database.reading() as connection:
        states = {row.id: row.state for row in connection.execute(select(rotations.c.id, rotations.c.state))}
    yield from (f"{one} was accepted and is not on record" for one in sorted(set(accepted) - set(states)))
    yield from (f"{one} is {state}" for one, state in sorted(states.items()) if state not in ENDED_STATES)


def not_well(rig: ChaosRig) -> Iterator[str]:
    """Resources that were given up, whose current login is not the one that Vercel holds, or that shut a door to it."""
    states = {line.id: line.state for line in rig.store.views.resources(limit=len(rig.resources))}
    for resource in rig.resources:
        if states.get(resource.id) is not ResourceState.ACTIVE:
            yield f"{resource.name} is {states.get(resource.id)}"
        currents = rig.staged(resource, Stage.CURRENT)
        doors = rig.doors(rig.held(resource))
        held = doors[0]
        if [one.username for one in currents] != [held.login.username]:
            yield f"{resource.name}: Vercel holds {held.login.username}, current is {[one.username for one in currents]}"
        elif held.database != resource.spec.database.name:
            yield f"{resource.name}: Vercel holds a login for {held.database}"
        for door in doors:
            if knock(door) is not Answer.ACCEPTED:
                yield f"{resource.name}: {held.login.username} does not log in on port {door.port}"


def not_dead(rig: ChaosRig, helds: Sequence[Held]) -> Iterator[str]:
    """Values that Vercel once held and that still log in, or that nobody could tell of."""
    current = {credential.username for resource in rig.resources for credential in rig.staged(resource, Stage.CURRENT)}
    retired = {credential.username for resource in rig.resources for credential in rig.staged(resource, Stage.RETIRED)}
    doors = {held.door.login.username: held.door for held in helds if held.door.login.username not in current}
    yield from (f"{name} was held by Vercel and is not retired" for name in sorted(doors.keys() - retired))
    with ThreadPoolExecutor(KNOCKERS) as pool:
        for name, answer in zip(doors, pool.map(knock, doors.values()), strict=True):
            if answer is not Answer.REFUSED:
                yield f"{name} is not current, and was {answer}"


def badly_recorded(rig: ChaosRig) -> Iterator[str]:
    """Moves without a record or with two, and an audit trail that does not verify."""
    for resource in rig.resources:
        try:
            assert_every_move_was_recorded_once(rig, resource)
        except AssertionError as error:
            yield f"{resource.name}: {error}"
    rig.store.checkpoint()
    yield from (f"the audit trail: {one}" for one in rig.store.verify_audit())


def crashes(rig: ChaosRig) -> Iterator[str]:
    """Processes and tasks that fell over."""
    for process in rig.processes:
        yield from (f"{process.name} fell over: {line['event']}" for line in process.lines() if is_crash(line))


def told(logs: Iterable[Path], helds: Iterable[Held]) -> Iterator[str]:
    """Passwords that Vercel was ever given, in the log of a process or of a server."""
    passwords = {held.door.login.password.reveal(): held.door.login.username for held in helds}
    for log in logs:
        words = set(LIKE_A_PASSWORD.findall(log.read_text(errors="replace")))
        yield from (f"{log.name} tells the password of {passwords[one]}" for one in sorted(words & passwords.keys()))
