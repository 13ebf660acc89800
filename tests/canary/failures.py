"""Every failure of every step, driven on a running house: what adapters answer, what Vercel says, what breaks around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotation.model import Event
from rotation.states import RotationState
from tests.canary.echo import Ill
from tests.canary.faults import Kind
from tests.rigs import logins_locked, waits_for_lock
from worker.sandbox import fleet
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rotation.model import Resource
    from tests.canary.house import House

ALONG_THE_WAY = ("engine.mint", "engine.admit", "engine.check", "engine.block", "engine.withdraw", "engine.prove_refused")
"""What a rotation and a retirement ask an engine for."""

STORIES: tuple[Mapping[str, Kind], ...] = (
    *(dict.fromkeys(ALONG_THE_WAY, kind) for kind in (Kind.UNAVAILABLE, Kind.UNKNOWN, Kind.LOST)),
    *({call: Kind.REFUSED} for call in ("engine.mint", "engine.admit", "engine.check")),
    dict.fromkeys(("engine.block", "engine.withdraw", "engine.prove_refused"), Kind.REFUSED),
    dict.fromkeys(("engine.mint", "engine.withdraw"), Kind.CRASH),
    dict.fromkeys(("engine.admit", "engine.block"), Kind.CRASH),
    dict.fromkeys(("engine.check", "engine.prove_refused"), Kind.CRASH),
    dict.fromkeys(("sink.render", "sink.push"), Kind.CRASH),
    {"sink.render": Kind.INVALID},
    {"engine.admit": Kind.WRONG},
    {"engine.check": Kind.WRONG},
)
"""The faults of one resource's rotation and of what follows from it, one at a time."""

ANSWERS: tuple[tuple[int | Ill, ...], ...] = (
    (500, 502, 503, 504),
    (200, 204, 302, 307),
    (Ill.HANG, Ill.RESET, Ill.EARLY),
    (Ill.HUGE, Ill.NONSENSE, 409),
    (404, 410, 429),
    (400,),
    (413,),
    (422,),
)
"""What Vercel answers to the pushes of one resource, one after the other, with the request repeated in every part of the answer."""
USE = (Kind.REFUSED, Kind.UNAVAILABLE, Kind.UNKNOWN, Kind.CRASH)

ENDED = (RotationState.COMPLETED, RotationState.FAILED)


def drive(house: House) -> int:
    """Drive them all; gives how many failures there were. Afterwards nothing moves any more."""
    resources = [one for count in (10, 10, len(STORIES) + len(ANSWERS) - 20) for one in house.add(count)]
    for resource, faults in zip(resources, STORIES, strict=False):
        house.orders.order(resource.spec.external_id, faults)
    for resource, answers in zip(resources[len(STORIES) :], ANSWERS, strict=True):
        house.echo.order(resource.spec.external_id, *answers)
    house.orders.order(resources[-4].spec.external_id, {"sink.resource_exists": Kind.CRASH})
    for kind in USE:
        house.orders.order(resources[0].server.name, {"engine.usage": kind})
    ordered = len(house.orders.left())
    for resource in resources:
        house.trigger(resource)
    house.wait("everything that was ordered has happened", lambda: not house.orders.left() and not house.echo.left)
    house.wait_until_settled()
    for act in AROUND:
        act(house, resources[0])
    return ordered + house.echo.given + len(AROUND)


# -- what breaks around the steps


def _misled(house: House, _: Resource) -> None:
    (resource,) = house.add()
    house.mislead(resource)
    rotation_id = house.trigger(resource)
    house.wait_for(rotation_id, RotationState.FAILED)
    assert "names a host and port" in house.rotation(rotation_id).problem


def _admin_refused(house: House, resource: Resource) -> None:
    with house.admin_refused():
        rotation_id = house.trigger(resource)
        house.wait_for(rotation_id, RotationState.FAILED)
    assert "28000" in house.rotation(rotation_id).problem


def _logins_locked(house: House, resource: Resource) -> None:
    server = house.server_of(resource)
    with logins_locked(server):
        rotation_id = house.trigger(resource)
        house.wait("its login is being made", lambda: waits_for_lock(server))
        house.wait("that took too long", lambda: house.rotation(rotation_id).problem)
    house.wait_for(rotation_id, RotationState.COMPLETED)


def _customers_restarted(house: House, resource: Resource) -> None:
    server = house.server_of(resource)
    server.kill()
    rotation_id = house.trigger(resource)
    house.wait("its server is missed", lambda: house.rotation(rotation_id).problem)
    server.start()
    house.wait_for(rotation_id, RotationState.COMPLETED)


def _store_away(house: House, resource: Resource) -> None:
    rotation_id = house.trigger(resource)
    with house.store_away():
        house.wait_until_said("store_unavailable")
    house.wait_for(rotation_id, RotationState.COMPLETED)


def _broker_restarted(house: House, resource: Resource) -> None:
    house.broker.stop()
    rotation_id = house.trigger(resource)
    house.wait_until_said("Connection to broker lost")
    house.broker.start()
    house.traffic.listen()
    house.wait_for(rotation_id, RotationState.COMPLETED)
    house.wait_until_settled()


def _token_refused(house: House, resource: Resource) -> None:
    house.echo.order(resource.spec.external_id, 401)
    rotation_id = house.trigger(resource)
    house.wait("the installation is parked", lambda: house.store.installation(fleet.INSTALLATION).parked)
    house.echo.order(resource.spec.external_id, 403)
    house.store.unpark(fleet.INSTALLATION, Event("installation_unparked", "canary"))
    house.wait("it is parked again", lambda: house.store.installation(fleet.INSTALLATION).parked)
    house.store.unpark(fleet.INSTALLATION, Event("installation_unparked", "canary"))
    house.wait_for(rotation_id, RotationState.COMPLETED)
    house.wait_until_settled()


def _key_missing(house: House, _: Resource) -> None:
    """A login that nobody can open, and then a worker that has none of the store's keys."""
    resource = house.add_sealed_with_a_lost_key()
    house.resources.remove(resource)  # it never settles
    house.trigger(resource)
    house.wait_until_said("is not in the keyring")
    stranger = house.start_stranger("keyless", {PREFIX + "KEYS_FILE": str(house.lost_keys), PREFIX + "AUDIT_KEY_FILE": ""})
    house.wait("it misses the keys", lambda: "key_missing" in stranger.log.read_text())
    stranger.kill()


AROUND: tuple[Callable[[House, Resource], None], ...] = (
    _misled,
    _admin_refused,
    _logins_locked,
    _customers_restarted,
    _store_away,
    _broker_restarted,
    _token_refused,
    _key_missing,
)
