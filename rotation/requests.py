"""What a person, Vercel or the schedule may ask: register, revise, trigger and join, pause, resume, leave, give a new end.

Each function reads the resource under its lock, decides, and writes in the same transaction; when it returns, its answer is durable.
No password is minted here and nothing outside is touched.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from rotation import endings, generations, policy
from rotation.cases import Move
from rotation.errors import Conflict, LostClaim
from rotation.holds import held_back
from rotation.model import Credential, Event, Request, Rotation, Schedule, SealContext, new_id
from rotation.states import BEFORE_OFFER, ResourceState, RotationState, Stage, Trigger

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from rotation.cases import ResourceCase
    from rotation.model import Login, Resource, ResourceSpec
    from rotation.ports import Ports

SCHEDULER = "schedule"


class Reception(StrEnum):
    """What became of a request."""

    OPENED = "opened"
    """It began a rotation."""
    JOINED = "joined"
    """It joined one that has not been offered yet, or that has not begun."""
    FOLLOWS = "follows"
    """A rotation is at `offered`: only a push that comes after it answers this request, so a follow-up waits behind it."""
    REPEATED = "repeated"
    """The same request, with the same key, was taken before."""
    NOTHING = "nothing"
    """A schedule changes nothing while a rotation is offered."""


@dataclass(frozen=True, slots=True)
class Received:
    """The answer to a trigger: which rotation will answer it, and how it was taken."""

    reception: Reception
    rotation_id: str | None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A trigger as it arrives: who, why, with which key, and the grace that was asked for explicitly."""

    trigger: Trigger
    actor: str
    reason: str = ""
    key: str | None = None
    grace: timedelta | None = None


# -- registering


def register(spec: ResourceSpec, current: Login | None, actor: str, ports: Ports) -> Resource:
    """Take a resource in. Nothing in the database changes, nothing is due before its policy's first date.

    `current` is the login that is in use now; without one the resource is empty and never due by itself. Raises `Conflict` when the
    resource or the login is known already, `NotFound` for an unknown installation or server.
    """
    now = ports.store.now()
    resource_id = new_id("res", now, ports.entropy.bytes(8))
    credential = None if current is None else _adopted(spec, resource_id, current, now, ports)
    return ports.store.register(
        spec,
        resource_id,
        _dated(policy.registration(spec.policy, resource_id, now, has_login=current is not None)),
        credential,
        Event("resource_registered", actor, detail=(("name", f"{spec.installation_id}/{spec.external_id}"),)),
    )


def revise(resource: Resource, spec: ResourceSpec, actor: str, ports: Ports) -> Resource:
    """Replace what is said about a resource. A rotation that is under way keeps what it began with."""
    if (spec.installation_id, spec.external_id) != (resource.spec.installation_id, resource.spec.external_id):
        raise Conflict("a resource keeps its installation and id: remove it and add the other one")
    if spec.database.server != resource.spec.database.server or spec.engine != resource.spec.engine:
        raise Conflict("a resource stays on its server: its logins live there")
    while True:
        before, after = ports.store.amend(resource.id, lambda case: (None, (case.resource.schedule, _revised(case, spec))))
        with suppress(LostClaim):  # a rotation began or ended meanwhile: the date follows from that
            return ports.store.revise(resource.id, spec, after, Event("resource_revised", actor), instead_of=before)


def _revised(case: ResourceCase, spec: ResourceSpec) -> Schedule:
    """The date by the new policy. Failures keep their retry, and an empty resource is never due by itself."""
    schedule = case.resource.schedule
    if schedule.failures or not case.credentials:
        return schedule
    since = schedule.completed_at or min(one.recorded_at for one in case.credentials)
    dated = policy.next_rotation(spec.policy, case.resource.id, since=since, now=case.now)
    return replace(_dated(dated), completed_at=schedule.completed_at)


def _dated(dated: policy.Dated | None) -> Schedule:
    return Schedule(reason="only on demand") if dated is None else Schedule(dated.at, dated.reason)


def _adopted(spec: ResourceSpec, resource_id: str, current: Login, now: datetime, ports: Ports) -> Credential:
    credential_id = new_id("cred", now, ports.entropy.bytes(8))
    context = SealContext(spec.installation_id, resource_id, credential_id, "password")
    return Credential(
        id=credential_id,
        resource_id=resource_id,
        generation=1,
        username=current.username,
        stage=Stage.CURRENT,
        sealed_password=ports.sealer.seal(current.password, context),
        sealed_verifier=None,
        recorded_at=now,
        adopted=True,
        current_at=now,
    )


# -- triggering


def trigger(resource_id: str, asked: Asked, ports: Ports) -> Received:
    """Ask for a rotation. When this returns, the request is durable and will be answered, whatever crashes.

    Raises `Conflict` for a paused or leaving resource and for a key that was used for another request, `NotFound` for an unknown one.
    """
    return ports.store.amend(resource_id, lambda case: _receive(case, asked, ports), key=asked.key)


def push_again(resource_id: str, actor: str, reason: str, ports: Ports) -> Received:
    """Ask for the current credential's values to be pushed once more: with new templates, or because Vercel lost them.

    Raises `Conflict` for a resource that has no credential yet or is not active.
    """

    def decide(case: ResourceCase) -> tuple[Move | None, Received]:
        _refuse_unless_active(case.resource)
        current = next((one for one in case.credentials if one.stage is Stage.CURRENT), None)
        if current is None:
            raise Conflict(f"{case.resource.name} has no credential yet: `rollover rotate {case.resource.name}` makes one")
        if case.requested_rotation is not None:
            return None, Received(Reception.JOINED, case.requested_rotation.id)
        rotation = replace(new_rotation(case, ports, urgent=True), credential_id=current.id)
        request = replace(new_request(case, Asked(Trigger.MANUAL, actor, reason), ports), rotation_id=rotation.id)
        detail = (("rotation", rotation.id), ("credential", current.id))
        move = Move(event=Event("push_requested", actor, reason, detail), new_rotation=rotation, new_requests=(request,))
        return move, Received(Reception.OPENED if case.open_rotation is None else Reception.FOLLOWS, rotation.id, request.id)

    return ports.store.amend(resource_id, decide)


def request_due(ports: Ports, limit: int) -> int:
    """Ask for the rotations whose date has come, the longest overdue first. Gives how many were asked for."""
    due = ports.store.due_resources(limit)
    for resource_id in due:
        ports.store.amend(resource_id, lambda case: _receive_if_due(case, ports))
    return len(due)


def _receive_if_due(case: ResourceCase, ports: Ports) -> tuple[Move | None, Received]:
    """The date is looked at again under the lock, as another beat may have been faster; a missed one waits for its window to open."""
    due_at = case.resource.schedule.next_rotation_at
    if case.resource.state is not ResourceState.ACTIVE or due_at is None or due_at > case.now:
        return None, Received(Reception.NOTHING, None)
    opens = policy.opening(case.resource.spec.policy, case.resource.id, case.now)
    if opens.at > case.now:
        postponed = replace(case.resource.schedule, next_rotation_at=opens.at, reason=opens.reason)
        return Move(event=Event("rotation_postponed", SCHEDULER, opens.reason), schedule=postponed), Received(Reception.NOTHING, None)
    return _receive(case, Asked(Trigger.SCHEDULE, SCHEDULER, reason=case.resource.schedule.reason), ports)


def _receive(case: ResourceCase, asked: Asked, ports: Ports) -> tuple[Move | None, Received]:
    if case.keyed_request is not None:
        return None, _repeated(case.keyed_request, asked)
    _refuse_unless_active(case.resource)
    open_rotation = case.open_rotation
    only_pushed = open_rotation is not None and _pushes_again(case, open_rotation)
    offered = open_rotation is not None and (open_rotation.state is RotationState.OFFERED or only_pushed)
    if offered and not only_pushed and asked.trigger is Trigger.SCHEDULE:
        reason = "a rotation is being pushed: a schedule changes nothing"
        return Move(event=_event("request_ignored", asked, None), schedule=_no_date(case, reason)), Received(Reception.NOTHING, None)
    joined = case.requested_rotation if open_rotation is None or offered else open_rotation
    request = new_request(case, asked, ports)
    if joined is not None:
        return _join(case, joined, request, asked)
    rotation = new_rotation(case, ports, urgent=asked.trigger is not Trigger.SCHEDULE)
    move = Move(
        event=_event("rotation_requested", asked, rotation.id),
        new_rotation=rotation,
        new_requests=(replace(request, rotation_id=rotation.id),),
        credentials=_compromised(case, asked),
        schedule=_no_date(case, "a rotation is under way"),
    )
    return move, Received(Reception.FOLLOWS if offered else Reception.OPENED, rotation.id, request.id)


def _join(case: ResourceCase, joined: Rotation, request: Request, asked: Asked) -> tuple[Move, Received]:
    """A request joins a rotation that has not been offered; it may bring date and urgency forward, nothing else.

    Bringing forward takes the next fence, so that a worker in the middle of a step starts again with the new urgency.
    """
    urgent = joined.urgent or asked.trigger is not Trigger.SCHEDULE
    waits = joined.due_at is None or joined.due_at > case.now
    # One that was to push a credential again becomes a rotation, which pushes everything as well.
    only_pushed = joined.state is RotationState.REQUESTED and joined.credential_id is not None
    forward = None
    if only_pushed or (urgent and (waits or not joined.urgent)):
        credential_id = None if only_pushed else joined.credential_id
        reserved_at = joined.reserved_at if joined.urgent else None  # another place among the urgent would be a later one
        forward = replace(joined, urgent=urgent, credential_id=credential_id, due_at=case.now, reserved_at=reserved_at)
    move = Move(
        event=_event("request_joined", asked, joined.id),
        rotation=forward,
        new_requests=(replace(request, rotation_id=joined.id),),
        credentials=_compromised(case, asked),
        schedule=_no_date(case, "a rotation is under way"),
    )
    return move, Received(Reception.JOINED, joined.id, request.id)


def _pushes_again(case: ResourceCase, rotation: Rotation) -> bool:
    """Whether a rotation only pushes the current credential again, so that it does not answer a request for a new one."""
    return any(one.id == rotation.credential_id and one.stage is Stage.CURRENT for one in case.credentials)


def _repeated(earlier: Request, asked: Asked) -> Received:
    """The same key is the same request, compared after parsing; another content under it is a conflict."""
    if (earlier.trigger, earlier.reason, earlier.grace) != (asked.trigger, asked.reason, asked.grace):
        raise Conflict("this key was used for another request: repeat it unchanged, or take a new key")
    return Received(Reception.REPEATED, earlier.rotation_id, earlier.id)


def _refuse_unless_active(resource: Resource) -> None:
    match resource.state:
        case ResourceState.PAUSED if resource.held_because:
            raise Conflict(_held(resource))
        case ResourceState.PAUSED:
            raise Conflict(f"{resource.name} is paused: `rollover resource resume {resource.name}` first")
        case ResourceState.LEAVING | ResourceState.GONE:
            raise Conflict(f"{resource.name} is {resource.state}: it is not rotated any more")
        case ResourceState.ACTIVE:
            return


def _held(resource: Resource) -> str:
    return f"{resource.name} is held, as {resource.held_because}: `rollover reconcile --after-restore` first"


def _compromised(case: ResourceCase, asked: Asked) -> tuple[Credential, ...]:
    """After an emergency whatever was in use is never extended, and gets no grace when its successor is acknowledged.

    A login that has not been offered yet was never outside, so it stays as it is.
    """
    if asked.trigger is not Trigger.EMERGENCY:
        return ()
    offered = case.open_rotation if case.open_rotation is not None and case.open_rotation.state not in BEFORE_OFFER else None
    held = (one for one in case.credentials if one.stage is Stage.CURRENT or (offered is not None and one.id == offered.credential_id))
    return tuple(replace(one, compromised=True) for one in held)


# -- holding back and leaving


def pause(resource_id: str, actor: str, why: str, ports: Ports) -> None:
    """Hold a resource back: no rotation begins or is offered and nothing is retired until `resume`. What was offered goes on.

    A login that is blocked can be given a new end for as long as that lasts.
    """

    def decide(case: ResourceCase) -> tuple[Move | None, None]:
        if case.resource.state is ResourceState.PAUSED:
            return None, None
        _refuse_unless_active(case.resource)
        return held_back(case, Event("resource_paused", actor, why)), None

    ports.store.amend(resource_id, decide)


def resume(resource_id: str, actor: str, why: str, ports: Ports) -> None:
    """Let a paused resource go on: what became due meanwhile is due now, once."""

    def decide(case: ResourceCase) -> tuple[Move | None, None]:
        if case.resource.state is ResourceState.ACTIVE:
            return None, None
        if case.resource.state is not ResourceState.PAUSED:
            raise Conflict(f"{case.resource.name} is {case.resource.state}: it cannot be resumed")
        if case.resource.held_because:
            raise Conflict(_held(case.resource))
        waiting = case.open_rotation or case.requested_rotation
        return Move(
            event=Event("resource_resumed", actor, why),
            resource_state=ResourceState.ACTIVE,
            rotation=None if waiting is None or waiting.state is RotationState.OFFERED else replace(waiting, due_at=case.now),
            credentials=generations.with_time_to_undo_over(case.credentials, case.now),
        ), None

    ports.store.amend(resource_id, decide)


def leave(resource_id: str, actor: str, why: str, ports: Ports, *, ends_in: timedelta | None) -> None:
    """The resource is removed: nothing is pushed any more, and its rotation is abandoned.

    All its logins go after `ends_in`; None keeps them as they are, and forgets their passwords.
    """

    def decide(case: ResourceCase) -> tuple[Move | None, None]:
        if case.resource.state in (ResourceState.LEAVING, ResourceState.GONE):
            return None, None
        under_way = [one for one in (case.open_rotation, case.requested_rotation) if one is not None]
        ended = [endings.abandoned(one, case.now, why) for one in under_way]
        changed = generations.departure(
            case.credentials,
            case.open_rotation,
            case.now,
            ends_at=None if ends_in is None else case.now + ends_in,
            discard_at=case.now + ports.terms.claim,
        )
        return Move(
            event=Event("resource_left", actor, why, (("keeps_logins", ends_in is None),)),
            resource_state=ResourceState.GONE if generations.is_emptied(case.credentials, changed) else ResourceState.LEAVING,
            rotation=ended[0] if ended else None,
            superseded=ended[1] if len(ended) > 1 else None,
            credentials=changed,
            schedule=_no_date(case, "the resource leaves"),
        ), None

    ports.store.amend(resource_id, decide)


# -- giving an old credential a new end


def extend(resource_id: str, credential_id: str, grace: timedelta, actor: str, ports: Ports) -> datetime:
    """Let a previous or blocked credential go on for `grace` from now; the worker lets it in again. Gives its new end.

    Raises `Conflict` when it is compromised or past undoing.
    """

    def decide(case: ResourceCase) -> tuple[Move | None, datetime]:
        credential = next((one for one in case.credentials if one.id == credential_id), None)
        if credential is None or credential.stage not in (Stage.PREVIOUS, Stage.BLOCKED):
            raise Conflict(f"{credential_id} cannot be given a new end: it is not in grace or blocked")
        if credential.compromised:
            raise Conflict(f"{credential_id} is compromised: it is never extended")
        if credential.stage is Stage.BLOCKED and generations.may_be_removed(credential, case.now):
            raise Conflict(f"{credential_id} is being removed: that cannot be undone")
        ends_at = case.now + grace
        if credential.grace_ends_at is None or (credential.stage is Stage.PREVIOUS and credential.grace_ends_at >= ends_at):
            return None, credential.grace_ends_at or ends_at
        extended = replace(
            credential,
            stage=Stage.PREVIOUS,
            grace_ends_at=ends_at,
            unblock_until=case.now + ports.terms.claim,
            blocked_at=None,
            due_at=case.now,
            in_use_until=None,
        )
        detail = (("credential", credential_id), ("ends_at", ends_at.isoformat()))
        return Move(event=Event("credential_extended", actor, detail=detail), credentials=(extended,)), ends_at

    return ports.store.amend(resource_id, decide)


# -- rows and small words


def new_rotation(case: ResourceCase, ports: Ports, *, urgent: bool) -> Rotation:
    """A rotation of the resource that is asked for, and due now."""
    return Rotation(
        id=new_id("rot", case.now, ports.entropy.bytes(8)),
        resource_id=case.resource.id,
        revision=case.resource.revision,
        state=RotationState.REQUESTED,
        urgent=urgent,
        requested_at=case.now,
        due_at=case.now,
    )


def new_request(case: ResourceCase, asked: Asked, ports: Ports) -> Request:
    """What was asked for, as it is kept. Which rotation answers it is still to be said."""
    return Request(
        id=new_id("req", case.now, ports.entropy.bytes(8)),
        resource_id=case.resource.id,
        trigger=asked.trigger,
        actor=asked.actor,
        received_at=case.now,
        reason=asked.reason,
        key=asked.key,
        grace=asked.grace,
    )


def _no_date(case: ResourceCase, reason: str) -> Schedule:
    """While a rotation is under way there is no next date: its end sets one."""
    return replace(case.resource.schedule, next_rotation_at=None, reason=reason)


def _event(kind: str, asked: Asked, rotation_id: str | None) -> Event:
    grace = None if asked.grace is None else int(asked.grace.total_seconds())
    return Event(kind, asked.actor, asked.reason, (("trigger", asked.trigger), ("rotation", rotation_id), ("grace_seconds", grace)))
