"""Bringing a resource on after the store was set back: restored from a backup, or failed over without its last commits.

What the rows say is then the past. Since then logins may have been made that no row knows, and Vercel may hold one of them; a rotation
may have been offered that the row calls planned; a login may have been proved dead that the row calls current. So nothing is removed
that a lost push may have carried:

* a login of ours without a row gets one, as if its rotation had been superseded: it is `previous`, and its clock stands still. Its password
  is not known, and nobody needs it;
* where the current login is gone and there is a newer one, the newest is `current`, and what is gone is retired, with its proof;
* a rotation that is under way is gone past, in whatever state it seems to be: its login counts as one that Vercel may hold;
* a push of before, of which there may be no attempt on record, is presumed to be on its way, and gets one;
* a rotation is asked for. When Vercel has acknowledged it cleanly, the clocks of all these begin, and they go after their grace. It
  begins when that push has arrived or never will. If somebody has it begin sooner, it pushes once more then.

All of it is one move of the resource. The generations go on above all that were seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rotation import generations
from rotation.cases import Deadline, Move
from rotation.model import Attempt, Credential, Event, new_id
from rotation.replacements import gone_past, replacement
from rotation.requests import Asked
from rotation.states import AttemptState, ResourceState, RotationState, Stage, Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rotation.cases import ResourceCase
    from rotation.model import KnownLogin, Rotation
    from rotation.ports import Ports


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a resource: how many logins got a row, which rotation was gone past, which one replaces all of it."""

    resource_id: str
    found: int
    passed_rotation_id: str | None
    rotation_id: str | None
    paused: bool
    """A person holds it back, so that nothing goes on before `resume`."""


def bring_on(resource_id: str, unknown: Sequence[KnownLogin], actor: str, why: str, ports: Ports) -> Restored | None:
    """Go past all that may have been lost. `unknown` are the logins of this resource without a row. None when there is nothing to do.

    Raises `Unavailable` or `Refused` when the server does not say which logins it has; repeating it is harmless.
    """
    resource = ports.store.resource(resource_id)
    names = ports.store.amend(resource_id, lambda case: (None, tuple(one.username for one in case.credentials)))
    deadline = Deadline(ports.clock.monotonic() + ports.terms.call_deadline.total_seconds())
    engine = ports.engines[resource.spec.engine]
    present = frozenset(one.username for one in engine.find_logins(resource.server, names, deadline))

    def decide(case: ResourceCase) -> tuple[Move | None, Restored | None]:
        known = {one.id for one in case.credentials}
        new = sorted((one for one in unknown if one.credential_id not in known), key=lambda one: one.generation)
        nothing = not new and case.open_rotation is None and not case.resource.held_because
        if nothing or case.resource.state is ResourceState.GONE:
            return None, None
        return _brought_on(case, new, present, Asked(Trigger.MANUAL, actor, why), ports)

    return ports.store.amend(resource_id, decide)


def _brought_on(
    case: ResourceCase, new: Sequence[KnownLogin], present: frozenset[str], asked: Asked, ports: Ports
) -> tuple[Move, Restored]:
    held = bool(case.resource.held_because)
    paused = case.resource.state is ResourceState.PAUSED and (not held or case.resource.held_over_pause)
    leaves = case.resource.state is ResourceState.LEAVING
    passed = None if case.open_rotation is None or leaves else gone_past(case.open_rotation, case.now, asked.reason)
    gone = [one for one in case.credentials if one.username not in present and one.stage in (Stage.CURRENT, Stage.PREVIOUS)] if new else []
    found = _found(case, new, gone)
    replaced = not leaves and (passed is not None or bool(found))
    settled_at = case.now + ports.terms.call_deadline + ports.terms.server_allowance
    rotation, request = replacement(case, asked, settled_at, ports) if replaced else (None, None)
    of_before = found[-1].id if found else None if passed is None else passed.credential_id
    presumed = None if rotation is None or of_before is None else _presumed(case, rotation, of_before, settled_at, ports)
    is_new = rotation is not None and case.requested_rotation is None
    changed = {one.id: one for one in generations.with_time_to_undo_over(case.credentials, case.now)} if held and not paused else {}
    changed |= {one.id: _ended(one, case) for one in gone}
    if passed is not None:
        changed |= {one.id: one for one in _of_passed(passed, case, present, ports)}
    restored = Restored(
        case.resource.id,
        len(found),
        None if passed is None else passed.id,
        None if rotation is None else rotation.id,
        paused,
    )
    detail = (("found", len(found)), ("passed", restored.passed_rotation_id), ("rotation", restored.rotation_id))
    return Move(
        event=Event("resource_restored", asked.actor, asked.reason, detail),
        resource_state=None if not held else ResourceState.PAUSED if paused else ResourceState.ACTIVE,
        superseded=passed,
        rotation=None if is_new else rotation,
        new_rotation=rotation if is_new else None,
        new_requests=() if request is None else (request,),
        credentials=tuple(changed.values()),
        found=found,
        presumed=presumed,
        schedule=replace(case.resource.schedule, next_rotation_at=None, reason="a rotation is under way") if replaced else None,
    ), restored


def _presumed(case: ResourceCase, rotation: Rotation, credential_id: str, settled_at: datetime, ports: Ports) -> Attempt:
    """A push that was lost with its attempt. Of which login it is does not matter, as long as it is not the next one's."""
    return Attempt(
        id=new_id("att", case.now, ports.entropy.bytes(8)),
        resource_id=case.resource.id,
        rotation_id=rotation.id,
        credential_id=credential_id,
        number=0,
        state=AttemptState.UNKNOWN,
        opened_at=case.now,
        send_before=case.now,
        expires_at=settled_at,
        clean=False,
        fence=0,
        note="may have been sent before the store was set back",
    )


def _of_passed(rotation: Rotation, case: ResourceCase, present: frozenset[str], ports: Ports) -> tuple[Credential, ...]:
    """Its login may be held by Vercel, whatever the row says; one that was never made and never offered is not."""
    pending = (one for one in case.credentials if one.id == rotation.credential_id and one.stage is Stage.PENDING)
    kept = rotation.state is RotationState.SUPERSEDED
    return tuple(
        generations.passed_over(one, case.now)
        if kept or one.username in present
        else generations.discarded(one, case.now + ports.terms.claim)
        for one in pending
    )


def _ended(credential: Credential, case: ResourceCase) -> Credential:
    """It was removed after what we were set back to: its end is proved now."""
    previous = replace(credential, stage=Stage.PREVIOUS, previous_at=credential.previous_at or case.now)
    return generations.ended_at_once(previous, case.now)


def _found(case: ResourceCase, new: Sequence[KnownLogin], gone: Sequence[Credential]) -> tuple[Credential, ...]:
    """Their rows, the oldest first. The number in a name is kept where it is above all others, as it mostly is."""
    highest, found = case.generations, []
    for login in new:
        highest = max(login.generation, highest + 1)
        found.append(_row(case, login, highest))
    if found and any(one.stage is Stage.CURRENT for one in gone):
        found[-1] = replace(found[-1], stage=Stage.CURRENT, current_at=case.now, previous_at=None, grace_ends_at=None, due_at=None)
    return tuple(found)


def _row(case: ResourceCase, login: KnownLogin, generation: int) -> Credential:
    leaves = case.resource.state is ResourceState.LEAVING
    ends_at = case.now + case.resource.spec.policy.grace if leaves else None
    return Credential(
        id=login.credential_id or "",
        resource_id=case.resource.id,
        generation=generation,
        username=login.username,
        stage=Stage.PREVIOUS,
        sealed_password=None,
        sealed_verifier=None,
        recorded_at=case.now,
        previous_at=case.now,
        grace_ends_at=ends_at,
        due_at=ends_at,
        found_at=case.now,
    )
