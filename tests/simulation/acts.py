"""What happens in a world: each act is one thing that somebody does, or that goes wrong. `ACTS` says how often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import driver, health, lifecycle, requests, retirement
from rotation.errors import LostClaim, Refused, Unavailable
from rotation.model import Event
from rotation.requests import Asked, Reception
from rotation.states import Stage, Trigger
from tests.simulation.boundaries import LAST_BOUNDARY
from tests.simulation.oracle import ENDED_STAGES
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from rotation.ports import Ports
    from rotation.requests import Received
    from tests.simulation.world import World

KEPT_STAGES = (Stage.CURRENT, Stage.PREVIOUS)
BATCH = 100


# -- the program at work


def go_on(world: World) -> None:
    """Somebody who has something in hand goes on with it; somebody else begins when nobody has."""
    ready = world.processes.ready()
    if ready:
        world.processes.go_on(world.draw.choice(ready))
    elif world.messages:
        take_message(world)
    else:
        tick(world)


def take_message(world: World) -> None:
    """A worker that has a free hand takes a message; the broker may lose it, or give it once more later."""
    now = world.time.seconds
    free = [one for one in world.workers if one.stopped_until <= now and world.processes.hands(one) < world.conditions.hands]
    if not free or not world.messages:
        return
    if world.draw.random() < 0.3:
        world.messages.rotate(1)
    kind, row_id = world.messages.popleft()
    fate = world.draw.random()
    if fate < world.conditions.lost_messages:
        return
    if fate > 1 - world.conditions.doubled_messages:
        world.messages.append((kind, row_id))
    advance(world, kind, row_id, world.draw.choice(free).name)


def advance(world: World, kind: str, row_id: str, name: str) -> None:
    machine = next(one for one in world.workers if one.name == name)
    world.start(machine, f"{kind} {row_id[-5:]}", lambda ports: TASKS[kind](world, row_id, ports))


def go_on_with_rotation(_: World, row_id: str, ports: Ports) -> None:
    driver.advance(lifecycle.STORY, row_id, ports)


def go_on_with_credential(_: World, row_id: str, ports: Ports) -> None:
    driver.advance(retirement.STORY, row_id, ports)


def sample_use(_: World, name: str, ports: Ports) -> None:
    health.sample_use(name, ports)


def look_after(world: World, name: str, ports: Ports) -> None:
    world.messages.extend(("login", one) for one in health.look_after(name, ports))


def heal(_: World, row_id: str, ports: Ports) -> None:
    health.heal(row_id, ports)


TASKS: Mapping[str, Callable[[World, str, Ports], None]] = {
    "rotation": go_on_with_rotation,
    "credential": go_on_with_credential,
    "use": sample_use,
    "server": look_after,
    "login": heal,
}
"""What the messages say, as the tasks do it."""


def tick(world: World) -> None:
    if world.beat.stopped_until <= world.time.seconds and not world.processes.hands(world.beat):
        world.start(world.beat, "a tick", lambda ports: sweep(world, ports))


def sweep(world: World, ports: Ports) -> None:
    """As the task does it."""
    store = ports.store
    world.messages.extend(("rotation", one) for one in store.due_rotations(BATCH, urgent=True))
    world.messages.extend(("credential", one) for one in store.due_credentials(BATCH))
    world.messages.extend(("use", one) for one in store.due_servers(BATCH))
    world.messages.extend(("server", one) for one in store.due_looks(BATCH))
    requests.request_due(ports, BATCH)
    world.messages.extend(("rotation", one) for one in store.due_rotations(BATCH, urgent=False))


def time_passes(world: World) -> None:
    world.time.advance(world.draw.choice(world.conditions.steps))
    world.forget_lost()


# -- what people ask


def ask(world: World) -> None:
    resource_id = _any_resource(world)
    urgent = world.draw.random() < world.conditions.emergencies
    trigger = Trigger.EMERGENCY if urgent else world.draw.choice((Trigger.MANUAL, Trigger.VERCEL, Trigger.VERCEL))
    key = f"key {world.draw.random()}"
    asked = Asked(trigger, "test", grace=world.draw.choice(world.conditions.graces), key=key)

    def trigger_once() -> None:
        began_at = world.store_clock.now()
        world.start(world.desk, f"{trigger}", lambda ports: _accept(world, requests.trigger(resource_id, asked, ports), began_at))

    trigger_once()
    if world.draw.random() < 0.2:
        world.unsure.append(trigger_once)


def ask_again(world: World) -> None:
    """Somebody who is not sure whether he was heard asks the same once more."""
    if world.unsure:
        world.unsure.pop(world.draw.randrange(len(world.unsure)))()


def push_again(world: World) -> None:
    resource_id, began_at = _any_resource(world), world.store_clock.now()
    world.start(
        world.desk,
        "push again",
        lambda ports: _accept(world, requests.push_again(resource_id, "test", "", ports), began_at, pushes_again=True),
    )


def _accept(world: World, received: Received, began_at: datetime, *, pushes_again: bool = False) -> None:
    world.tell(f"  {received.reception} {(received.rotation_id or '')[-5:]}")
    if received.reception in (Reception.OPENED, Reception.JOINED, Reception.FOLLOWS) and received.rotation_id is not None:
        world.owe(received.rotation_id, began_at, pushes_again=pushes_again)


def pause(world: World) -> None:
    resource_id = _any_resource(world)
    world.start(world.desk, "pause", lambda ports: requests.pause(resource_id, "test", "", ports))


def resume(world: World) -> None:
    resource_id = _any_resource(world)
    world.start(world.desk, "resume", lambda ports: requests.resume(resource_id, "test", "", ports))


def leave(world: World) -> None:
    resource_id, ends_in = _any_resource(world), world.draw.choice((timedelta(0), timedelta(hours=1), None))
    world.leaving_in[resource_id].append(ends_in)
    world.start(world.desk, "leave", lambda ports: requests.leave(resource_id, "test", "", ports, ends_in=ends_in))


def extend(world: World) -> None:
    old = [one for one in world.rows.credentials.values() if one.stage in (Stage.PREVIOUS, Stage.BLOCKED)]
    if not old:
        return
    credential = world.draw.choice(old)
    grace = world.draw.choice((timedelta(minutes=1), timedelta(hours=1), timedelta(hours=3)))

    def give_new_end(ports: Ports) -> None:
        began_at = world.store_clock.now()
        ends_at = requests.extend(credential.resource_id, credential.id, grace, "test", ports)
        world.tell(f"  {credential.username} goes on for {grace}")
        if ends_at < began_at + grace and not world.clocks_were_wrong:
            raise Violation("I2", f"{credential.username} goes on until {ends_at}, and {grace} were asked for at {began_at}")

    world.start(world.desk, "extend", give_new_end)


def revise(world: World) -> None:
    resource = world.rows.resources[_any_resource(world)]
    spec = replace(resource.spec, policy=world.draw.choice(world.conditions.policies), notify=world.draw.random() < 0.5)
    ports = replace(world.ports["desk"], store=world.store)
    try:
        requests.revise(resource, spec, "test", ports)
    except LostClaim:
        return
    world.backing.refresh()


def unpark(world: World) -> None:
    world.store.unpark(_any_installation(world), Event("installation_unparked", "test"))
    world.backing.refresh()


# -- what goes wrong


def kill(world: World) -> None:
    machine = world.draw.choice((*world.workers, world.beat, world.desk))
    killed = world.processes.kill(machine)
    world.tally.kills += killed
    if killed:
        world.tell(f"{machine.name} is killed")


def stop(world: World) -> None:
    """A whole machine stands still."""
    machine, seconds = world.draw.choice((*world.workers, world.beat)), world.draw.choice(world.conditions.pauses)
    world.tell(f"{machine.name} stands still for {seconds:g} s")
    at_the_last = any(one.machine is machine and one.at == LAST_BOUNDARY for one in world.processes.running)
    machine.stop(world.time.seconds + seconds, suspends=world.conditions.suspends and not at_the_last)


def store_outage(world: World) -> None:
    world.store_is_down = not world.store_is_down and world.conditions.trouble > 0
    world.tell(f"the store is {'down' if world.store_is_down else 'up'}")


def store_back(world: World) -> None:
    world.store_is_down = False


def server_outage(world: World) -> None:
    server = world.engine.servers[world.draw.choice(sorted(world.engine.servers))]
    server.reachable = not server.reachable or world.conditions.trouble == 0
    world.tell(f"a database server is {'up' if server.reachable else 'down'}")


def reload(world: World) -> None:
    """Poolers learn of the logins that they do not know yet."""
    world.dirty = world.dirty or bool(world.engine.shut_out)
    world.engine.shut_out.clear()


def servers_back(world: World) -> None:
    for server in world.engine.servers.values():
        server.reachable = True


def jump(world: World) -> None:
    """Somebody's clock is set wrong, or right again."""
    if not world.conditions.jumps:
        return
    seconds = world.draw.choice((0.0, 0.0, *world.conditions.jumps))
    servers = list(world.engine.servers.values())
    clocks = [one.clock for one in world.workers] + [world.store_clock] * 3
    chosen = world.draw.randrange(len(clocks) + len(servers))
    if chosen < len(clocks):
        world.clocks_were_wrong = world.clocks_were_wrong or seconds != 0
        if seconds:  # two clocks that are wrong by the same cannot be told from right ones: one kind is wrong at a time
            for one in clocks:
                one.ahead = one.ahead if (one is world.store_clock) is (clocks[chosen] is world.store_clock) else 0.0
        clocks[chosen].ahead = seconds
        world.tell(f"a clock is {seconds:g} s ahead: {world.name_of(clocks[chosen])}")
    else:
        servers[chosen - len(clocks)].clock_ahead = timedelta(seconds=seconds)
        world.tell(f"a database server's clock is {seconds:g} s ahead")


def late_push(world: World) -> None:
    world.forget_lost()
    if world.sink.in_flight:
        world.deliver(world.draw.choice(world.sink.in_flight))


def late_act(world: World) -> None:
    """An act on a database arrives for whose answer nobody waits any more."""
    if not world.late_acts:
        return
    late = world.late_acts.pop(world.draw.randrange(len(world.late_acts)))
    world.tell(f"arrives late: {late.what}")
    try:
        late.effect()
    except (Refused, Unavailable, LostClaim) as error:
        world.tell(f"  refused: {error}")


def fail_over(world: World) -> None:
    """A database server goes on without its last commits: logins that were made are gone, others that were removed are back."""
    server = world.draw.choice(sorted(world.engine.servers))
    before, place = world.earlier_roles(server), world.engine.servers[server]
    world.tell(f"{server} fails over")
    for one in world.rows.credentials.values():
        if world.server_of[one.resource_id] != server or (server, one.username) in world.foreign:
            continue
        was, now = before.get(one.username), place.roles.get(one.username)
        # A login that was adopted carries no mark of ours, so nobody can tell that one which is back after its end was ours.
        if was == now or (was is not None and was.marker is None and (one.stage not in KEPT_STAGES or not one.adopted)):
            continue
        world.tell(f"  {one.username} is {'gone' if was is None else 'as it was'}")
        if was is None:
            del place.roles[one.username]
        else:
            place.roles[one.username] = was
        if one.stage not in ENDED_STAGES:
            world.lost[one.username] = server
            if was is not None and now is None:
                world.brought_back[one.username] = server
        elif was is not None:
            world.returned.add(one.username)
    place.sessions.clear()
    world.dirty = True


def lose_login(world: World) -> None:
    """Somebody drops a login of ours by hand."""
    there = [
        (one.username, server)
        for one in world.rows.credentials.values()
        if one.stage not in ENDED_STAGES and one.username in world.engine.servers[server := world.server_of[one.resource_id]].roles
    ]
    lost = [(username, server) for username, server in there if (server, username) not in world.foreign]
    if not lost:
        return
    username, server = world.draw.choice(lost)
    world.tell(f"somebody drops the login {username}")
    del world.engine.servers[server].roles[username]
    world.engine.close_sessions(server, username)
    world.lost[username] = server
    world.dirty = True


def clash(world: World) -> None:
    """Somebody else makes a login of the very name that one of ours is to have."""
    for one in world.rows.credentials.values():
        roles = world.engine.servers[world.server_of[one.resource_id]].roles
        if world.is_planned(one) and one.username not in roles and world.draw.random() < 0.5:
            world.tell(f"somebody else makes a login {one.username}")
            world.add_foreign(world.server_of[one.resource_id], one.username)


def limit(world: World) -> None:
    world.limiter.answers.append(world.time.now() + timedelta(seconds=world.draw.choice((1.0, 11.0, 46.0, 360.0))))


def flush(world: World) -> None:
    world.tell("the broker forgets everything")
    world.messages.clear()


def lose_key(world: World) -> None:
    key = world.draw.choice(("key-1", "verifier-key-1"))
    world.sealer.lose_key(key)
    world.tell(f"{key} is lost")


def find_keys(world: World) -> None:
    for key in ("key-1", "verifier-key-1"):
        world.sealer.bring_key_back(key)


# -- customers


def log_in(world: World) -> None:
    """An application holds a session with what Vercel holds."""
    key = world.draw.choice(sorted(world.sink.held))
    resource_id, server = world.place_of(key)
    if world.rows.resources[resource_id].state.value in ("active", "paused"):
        world.engine.open_session(server, world.oracle.login(world.sink.held[key])[0])


def log_out(world: World) -> None:
    for server in world.engine.servers.values():
        server.sessions.clear()


def _any_resource(world: World) -> str:
    return world.draw.choice(sorted(world.server_of))


def _any_installation(world: World) -> str:
    return world.draw.choice(sorted({installation for installation, _ in world.places}))


ACTS: dict[Callable[[World], None], float] = {
    go_on: 100,
    take_message: 40,
    tick: 12,
    time_passes: 40,
    ask: 9,
    ask_again: 2,
    push_again: 1.5,
    pause: 1,
    resume: 4,
    leave: 0.4,
    extend: 2,
    revise: 2,
    unpark: 1,
    kill: 3,
    stop: 3,
    store_outage: 0.5,
    store_back: 3,
    server_outage: 0.5,
    servers_back: 3,
    reload: 3,
    jump: 2,
    late_push: 8,
    late_act: 5,
    fail_over: 1,
    lose_login: 0.1,
    clash: 0.4,
    limit: 1,
    flush: 1,
    lose_key: 0.3,
    find_keys: 2,
    log_in: 1,
    log_out: 2,
}
"""How often each happens, beside the others."""
