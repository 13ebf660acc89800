"""The end of every history: nothing goes wrong any more, nobody asks for anything, and everything must come to an end by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import driver, requests
from rotation.states import ALIVE_STAGES, AttemptState, ResourceState, RotationState, Stage
from rotation.store.rules import ENDED_STATES
from tests.simulation import acts, conditions
from tests.simulation.oracle import LEFT, check_trail
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rotation.model import Resource, Rotation
    from tests.simulation.world import Owed, World

HOUR = timedelta(hours=1)
HEALED = timedelta(minutes=15)
"""Within this every login that a server has lost or brought back is as its row says: a failed try is repeated after five at most."""
LATE = timedelta(minutes=1)
"""How long after its promised end a login may still let somebody in."""
SOON = 5 * HOUR
"""Within this everything that was under way has ended. Most of it takes seconds; what was held by a wrong clock, a 404 or a refused
token is looked at again after a quarter of an hour, or when the clock says so."""


def rest(world: World) -> None:
    """Let the world come to rest. Raises `Violation` when it does not, or when it is not as it must be then."""
    world.tell("-- nothing goes wrong any more")
    _let_everybody_finish(world)
    _mend(world)
    began_at = world.store_clock.now()
    under_way = [one.id for one in world.rows.rotations.values() if one.state not in ENDED_STATES]
    _run(world, HEALED)
    if not world.clocks_were_wrong:  # dates that were made by a wrong clock may have to come first
        world.oracle.check_mended()
    _run(world, SOON - HEALED)
    late = [one for one in under_way if world.rows.rotations[one].state not in ENDED_STATES]
    if late:
        raise Violation("I4", f"not ended: {[_told(world.rows.rotations[one]) for one in late]}")
    _stop_the_schedule(world)
    for _ in range(20):
        if not _under_way(world):
            break
        _run(world, 4 * HOUR)
    else:
        raise Violation("I4", f"not settled: {_under_way(world)}")
    world.dirty = True
    world.check()
    world.oracle.check_mended()
    _check_punctual(world, began_at)
    _check_ends(world)
    check_trail(world.rows.rotations.values(), world.rows.credentials.values(), world.backing.lines())
    world.tally.rotations += len(world.rows.rotations)


def _let_everybody_finish(world: World) -> None:
    """Who stands still goes on when his time has come, and what is on its way arrives or not."""
    world.store_is_down = False
    acts.servers_back(world)
    acts.reload(world)
    while world.processes.running:
        ready = world.processes.ready()
        if ready:
            world.processes.go_on(world.draw.choice(ready))
            world.check()
        else:
            world.time.advance(world.processes.next_at() - world.time.seconds)
        world.forget_lost()
        if world.sink.in_flight and world.draw.random() < 0.5:
            acts.late_push(world)
            world.check()
    while world.late_acts:
        acts.late_act(world)
        world.check()


def _mend(world: World) -> None:
    for machine in (*world.workers, world.beat, world.desk):
        machine.clock.ahead = 0.0
        machine.start_again()
    world.store_clock.ahead = 0.0
    world.sink.in_flight.clear()
    world.limiter.answers.clear()
    world.limiter.blocked_until.clear()
    acts.find_keys(world)
    acts.log_out(world)
    for place in world.engine.servers.values():
        place.clock_ahead = timedelta(0)
    for server, username in world.foreign:  # a person has found out whose it is
        del world.engine.servers[server].roles[username]
    world.foreign.clear()
    ports = replace(world.ports["desk"], store=world.store)
    for resource in list(world.rows.resources.values()):
        if resource.state is ResourceState.PAUSED:
            requests.resume(resource.id, "test", "", ports)
    world.backing.refresh()


def _stop_the_schedule(world: World) -> None:
    """From now on there are rotations on demand only, so that the last one of each resource can be seen to its end."""
    ports = replace(world.ports["desk"], store=world.store)
    for resource in list(world.rows.resources.values()):
        if resource.state is ResourceState.ACTIVE:
            _check_next_date(resource, world)
            requests.revise(resource, replace(resource.spec, policy=replace(resource.spec.policy, every=None)), "test", ports)
    world.backing.refresh()


def _check_next_date(resource: Resource, world: World) -> None:
    under_way = any(one.resource_id == resource.id and one.state not in ENDED_STATES for one in world.rows.rotations.values())
    owed = resource.spec.policy.every is not None or resource.schedule.failures
    if owed and not under_way and resource.schedule.next_rotation_at is None:
        raise Violation("I4", f"{resource.name} has no next date: {resource.schedule}")


def _run(world: World, for_: timedelta) -> None:
    """Everything that is due now and in the time to come, in order, the clock moved from date to date."""
    until = world.time.now() + for_
    while True:
        found = _sweep(world)
        next_at = _next_due(world)
        if next_at is None or next_at > until:
            world.time.advance_to(until)
            return
        world.time.advance_to(max(next_at, world.time.now() + timedelta(seconds=1 if found else 10)))


def _sweep(world: World) -> int:
    """What is due now, as the beat finds it and a worker takes it. Gives how much that was."""
    ports = world.ports[world.draw.choice(world.workers).name]
    world.messages.clear()
    acts.sweep(world, ports)
    found = len(world.messages)
    while world.messages:
        kind, row_id = world.messages.popleft()
        acts.TASKS[kind](world, row_id, ports)
    world.check()
    return found


def _next_due(world: World) -> datetime | None:
    rotations = (one.due_at for one in world.rows.rotations.values() if one.state not in ENDED_STATES)
    credentials = (one.due_at for one in world.rows.credentials.values() if one.stage in ALIVE_STAGES)
    dates = (one.schedule.next_rotation_at for one in world.rows.resources.values() if one.state is ResourceState.ACTIVE)
    astray = world.lost or world.returned
    looks = [world.time.now() + timedelta(minutes=1)] if astray else []  # nothing else has a date for that
    return min((at for at in (*rotations, *credentials, *dates, *looks, *_next_samples(world)) if at is not None), default=None)


def _next_samples(world: World) -> Iterator[datetime]:
    """When somebody looks at the sessions again, where that counts: from before the quiet time at the end of a grace on, without a gap."""
    now, apart = world.time.now(), world.terms.usage_sample
    for one in world.rows.credentials.values():
        if one.stage is Stage.PREVIOUS and one.grace_ends_at is not None:
            begins = one.grace_ends_at - one.quiet - apart
            yield max(begins, now + apart)


def _under_way(world: World) -> list[str]:
    rotations = [_told(one) for one in world.rows.rotations.values() if one.state not in ENDED_STATES]
    stages = ALIVE_STAGES - {Stage.CURRENT}
    return rotations + [f"{one.username} {one.stage}: {one.problem}" for one in world.rows.credentials.values() if one.stage in stages]


def _told(rotation: Rotation) -> str:
    return f"{rotation.id[-5:]} {rotation.state} due {rotation.due_at}: {rotation.problem}"


# -- how everything must be then


def _check_punctual(world: World, began_at: datetime) -> None:
    """I2: no old credential ends late, where nothing holds it up any more but a back-off, its use before, and the time to undo."""
    longest = max(policy.blocked for policy in conditions.POLICIES)  # an emergency may have cut short what was begun
    if world.clocks_were_wrong:
        longest += timedelta(seconds=max(world.conditions.jumps))  # a date that was made by a wrong clock
    # A machine that was suspended, or whose server's clock was set, finds that out at its next act there, and lets go of the row.
    late = LATE + driver.LOOKS_AGAIN_AFTER * len(world.workers)
    for one in world.rows.credentials.values():
        if one.stage is Stage.RETIRED and one.ended_at is not None and one.grace_ends_at is not None:
            quiet_at = began_at + one.quiet + timedelta(minutes=6)
            if one.ended_at > max(one.grace_ends_at, quiet_at) + longest + timedelta(minutes=3):
                raise Violation("I2", f"{one.username} ended late: {one.ended_at}, promised until {one.grace_ends_at}")
            if one.blocked_at is None or one.grace_ends_at < began_at or world.clocks_were_wrong:
                continue
            if one.blocked_at > max(one.grace_ends_at, quiet_at) + late:
                raise Violation("I2", f"{one.username} was blocked late: {one.blocked_at}, promised until {one.grace_ends_at}")


def _check_ends(world: World) -> None:
    for resource in list(world.rows.resources.values()):
        if resource.state in LEFT:
            if resource.state is not ResourceState.GONE:
                raise Violation("I4", f"{resource.name} is {resource.state}, and nothing is left to do")
        else:
            _check_at_rest(world, resource)
    for owed in world.owed:
        _check_answered(world, owed)


def _check_at_rest(world: World, resource: Resource) -> None:
    """One login is left, it is the current one, and Vercel holds it; what was sealed of the others is destroyed."""
    mine = [one for one in world.rows.credentials.values() if one.resource_id == resource.id]
    current = [one.username for one in mine if one.stage is Stage.CURRENT]
    held = world.oracle.login(world.sink.held[resource.spec.installation_id, resource.spec.external_id])[0]
    if current != [held]:
        raise Violation("I1", f"{current} is current, and Vercel holds {held}")
    prefix = f"{resource.spec.database.login_prefix}_"
    logins = [name for name in world.engine.servers[resource.server.name].roles if name.startswith(prefix)]
    if logins != current:
        raise Violation("I3", f"{logins} are left, and {current} is current")
    for one in mine:
        destroyed = one.sealed_password is None and one.sealed_verifier is None
        if destroyed != (one.stage in (Stage.RETIRED, Stage.DISCARDED)):
            raise Violation("I9", f"{one.username} is {one.stage}, and its password is {'' if destroyed else 'not '}destroyed")


def _check_answered(world: World, owed: Owed) -> None:
    """I4 and I8: what was accepted was followed by a push that it could wait for, or has failed on record."""
    rotation = world.rows.rotations.get(owed.rotation_id)
    if rotation is None:
        raise Violation("I8", f"{owed.rotation_id} was answered and is not on record")
    if world.rows.resources[rotation.resource_id].state in LEFT:
        return
    later = [one.id for one in world.rows.rotations.values() if one.resource_id == rotation.resource_id and _pushed_after(world, one, owed)]
    if rotation.state is RotationState.COMPLETED and rotation.id not in later:
        raise Violation("I4", f"{rotation.id} completed by a push that was sent before it was asked for")
    if rotation.state is RotationState.SUPERSEDED and not later:
        raise Violation("I4", f"{rotation.id} was gone past, and nothing answers for it")
    if rotation.state is RotationState.ABANDONED and not (owed.pushes_again and later):
        raise Violation("I4", f"{rotation.id} was abandoned, and its resource is there")


def _pushed_after(world: World, rotation: Rotation, owed: Owed) -> bool:
    """Whether it completed by a push that came after that. By clocks that were set back nobody can tell, so then it only completed."""
    if rotation.state is not RotationState.COMPLETED:
        return False
    attempts = [one for one in world.rows.attempts.values() if one.rotation_id == rotation.id]
    clean = [one for one in attempts if one.state is AttemptState.APPLIED and one.clean]
    return bool(clean) and (world.clocks_were_wrong or any(one.opened_at >= owed.at for one in clean))
