"""What must be true when chaos is over and everything has settled, looked at from outside: the promises of the whole system."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import func, select

from rotation.sensitive import Sensitive
from rotation.states import Stage
from rotation.store.rules import ENDED_STATES
from rotation.store.tables import credentials, events, rotations
from tests.chaos.report import RESUMED_SECONDS, Spread
from tests.promises import assert_every_move_was_recorded_once, is_crash
from worker.sandbox.customers import Answer, address, knock
from worker.sandbox.fleet import ADMIN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from rotation.model import Resource
    from tests.chaos.customers import Customers
    from tests.chaos.mayhem import Deeds, Kill
    from tests.chaos.report import Report
    from tests.chaos.rig import ChaosRig
    from tests.rigs import CustomersServer

OURS = ("rollover", "schedule")
"""Who acts in the name of workers and beats."""
KNOCKERS = 8
"""How many logins are tried at once."""


def judge(report: Report, rig: ChaosRig, customers: Customers, deeds: Deeds) -> None:
    """Write into the report whatever was broken."""
    report.refused += [
        f"{one.username} of {one.resource} ({one.code}), {one.seconds_held:.2f} s after Vercel got it" for one in customers.refused
    ]
    report.early += early(rig)
    currents = [(resource, credential.username) for resource in rig.resources for credential in rig.staged(resource, Stage.CURRENT)]
    report.orphans += [one for server in rig.customers for one in orphans(server, wanted(server, currents))]
    report.lost += lost(rig, deeds.accepted)
    report.broken += itertools.chain(not_well(rig), not_dead(rig, customers), badly_recorded(rig), crashes(rig))


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
    """Resources whose current login is not the one that Vercel holds, or does not let its customer in."""
    for resource in rig.resources:
        currents = rig.staged(resource, Stage.CURRENT)
        held = address(Sensitive(rig.held(resource)))
        if [one.username for one in currents] != [held.login.username]:
            yield f"{resource.name}: Vercel holds {held.login.username}, current is {[one.username for one in currents]}"
        elif knock(held) is not Answer.ACCEPTED:
            yield f"{resource.name}: {held.login.username} does not log in"


def not_dead(rig: ChaosRig, customers: Customers) -> Iterator[str]:
    """Values that Vercel once held and that still log in, or that nobody could tell of."""
    current = {credential.username for resource in rig.resources for credential in rig.staged(resource, Stage.CURRENT)}
    retired = {credential.username for resource in rig.resources for credential in rig.staged(resource, Stage.RETIRED)}
    helds = [held for resource in rig.resources for held in customers.diary.of(resource.spec.external_id)]
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
