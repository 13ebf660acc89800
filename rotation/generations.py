"""How the credentials of a resource change together: when a rotation completes, is superseded or fails, or when the resource leaves.

Values in, values out. Each function gives only the credentials that changed, to be written in one transaction.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import policy
from rotation.states import ALIVE_STAGES, MADE_STATES, InUse, RotationState, Stage, Trigger

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import ResourceCase, RotationCase
    from rotation.model import Credential, Rotation


def clock_stopped(credential: Credential) -> bool:
    """Whether the credential was superseded and Vercel may still hold it: its grace begins when the newest rotation completes."""
    return credential.stage is Stage.PREVIOUS and credential.grace_ends_at is None


def succession(case: RotationCase, now: datetime, grace: policy.Grace) -> tuple[Credential, ...]:
    """The rotation completed at `now`: its credential is current, all others are previous, and the grace periods begin.

    The predecessor and those whose clock was stopped get the full grace. Generations that were already in grace keep their promise,
    unless somebody said explicitly when the old ones must end. A compromised credential gets none.
    """
    emergency = any(request.trigger is Trigger.EMERGENCY for request in case.requests)
    changed = [replace(case.credential, stage=Stage.CURRENT, current_at=now, due_at=None, tries=0, problem="", alarm=None)]
    for credential in case.credentials:
        if credential.stage is Stage.CURRENT or clock_stopped(credential):
            changed.append(_begun(credential, case, now, grace))
        elif emergency and credential.stage in (Stage.PREVIOUS, Stage.BLOCKED):
            changed.append(ended_at_once(credential, now))
        elif credential.stage is Stage.PREVIOUS:
            ends_at = policy.grace_end(credential, now, grace).at
            if ends_at != credential.grace_ends_at:
                changed.append(replace(credential, grace_ends_at=ends_at, due_at=_due(credential, ends_at)))
    return tuple(changed)


def _begun(credential: Credential, case: RotationCase, now: datetime, grace: policy.Grace) -> Credential:
    """The credential as its grace begins, with all that the policy says of its end fixed now: a later revision changes nothing."""
    rules = case.resource.spec.policy
    use = policy.in_use_rule(rules, case.requests, compromised=credential.compromised)
    ends_at = policy.grace_end(credential, now, grace).at
    return replace(
        credential,
        stage=Stage.PREVIOUS,
        previous_at=credential.previous_at or now,
        grace_ends_at=ends_at,
        in_use=use.rule,
        in_use_until=None if use.cap is None else ends_at + use.cap,
        quiet=policy.quiet(rules, grace.duration),
        blocked_for=policy.blocked_for(rules, case.requests, compromised=credential.compromised),
        due_at=ends_at,
        tries=0,
        problem="",
        alarm=None,
    )


def ended_at_once(credential: Credential, now: datetime) -> Credential:
    """A previous or blocked credential that an emergency ends now, used or not."""
    return replace(
        credential,
        grace_ends_at=min(now, credential.grace_ends_at or now),
        in_use=InUse.PROCEED,
        in_use_until=None,
        blocked_for=timedelta(0),
        unblock_until=None,
        due_at=now,
    )


def passed_over(credential: Credential, now: datetime) -> Credential:
    """The credential of a superseded rotation: Vercel may hold it, so it is previous, and its clock stands still for now."""
    return replace(credential, stage=Stage.PREVIOUS, previous_at=now, grace_ends_at=None, due_at=None, tries=0, problem="", alarm=None)


def discarded(credential: Credential, at: datetime) -> Credential:
    """The credential of a failed rotation, to be removed from `at` on: after every claim under which it may still be created."""
    return replace(credential, stage=Stage.DISCARDING, due_at=at, tries=0, problem="", alarm=None)


def released(credential: Credential, now: datetime) -> Credential:
    """The login of a resource that left, kept by a person: it works on, and what was sealed of it is destroyed."""
    return replace(
        credential,
        stage=Stage.RELEASED,
        ended_at=now,
        due_at=None,
        sealed_password=None,
        sealed_verifier=None,
        tries=0,
        problem="",
        alarm=None,
    )


def is_owed(credential: Credential, now: datetime, *, made: bool) -> bool:
    """Whether the login must work now, so that it is made again when its server has lost it. `made`: its rotation has made it before.

    One whose grace is over is left to its retirement, unless that only waits for the login's use to end. One that has `tries` may be
    blocked already.
    """
    match credential.stage:
        case Stage.CURRENT:
            return True
        case Stage.PENDING:
            return made
        case Stage.PREVIOUS:
            in_grace = credential.grace_ends_at is None or now < credential.grace_ends_at
            waits = credential.tries == 0 and credential.due_at is not None and now < credential.due_at
            return in_grace or (waits and not credential.compromised)
        case _:
            return False


def may_be_mended(credential: Credential, case: ResourceCase) -> bool:
    """Whether its login may be made as its row says: there again if it must work, gone again if it has ended.

    While we hold the resource back, its rows are known to be older than its logins.
    """
    if credential.stage in (Stage.RETIRED, Stage.DISCARDED):
        return True
    rotation = case.open_rotation
    made = rotation is not None and rotation.state in MADE_STATES and rotation.credential_id == credential.id
    return not case.resource.held_because and is_owed(credential, case.now, made=made)


def mended_in_vain(credential: Credential, now: datetime) -> bool:
    """Whether its login was tried to be made as its row says, and still is not so."""
    astray_at, until = credential.astray_at, credential.mending_until
    return astray_at is not None and until is not None and astray_at < until <= now


def departure(
    credentials: tuple[Credential, ...],
    open_rotation: Rotation | None,
    now: datetime,
    *,
    ends_at: datetime | None,
    discard_at: datetime,
) -> tuple[Credential, ...]:
    """The resource leaves: nothing is pushed any more, and every login goes, none later than `ends_at`; None keeps them all.

    A login that was never offered goes either way. One that is being removed already is given as it is: who works on it looks again, so
    that the last one takes the resource with it.
    """
    offered = open_rotation is not None and open_rotation.state is RotationState.OFFERED
    over = {one.id: one for one in with_time_to_undo_over(credentials, now)}
    changed = []
    for credential in credentials:
        if credential.stage in (Stage.BLOCKED, Stage.DISCARDING):
            changed.append(over.get(credential.id, credential))
        elif credential.stage is Stage.PENDING and not offered:
            changed.append(discarded(credential, discard_at))
        elif credential.stage in (Stage.PENDING, Stage.CURRENT, Stage.PREVIOUS):
            changed.append(released(credential, now) if ends_at is None else _ending(credential, now, ends_at))
    return tuple(changed)


def _ending(credential: Credential, now: datetime, ends_at: datetime) -> Credential:
    end = min(ends_at, credential.grace_ends_at or ends_at)
    return replace(
        credential,
        stage=Stage.PREVIOUS,
        previous_at=credential.previous_at or now,
        grace_ends_at=end,
        in_use=InUse.PROCEED,
        in_use_until=None,
        blocked_for=timedelta(0),
        due_at=_due(credential, end),
    )


def _due(credential: Credential, ends_at: datetime) -> datetime:
    """When a credential that ends then is looked at: sooner, if it is yet to be let in again."""
    return ends_at if credential.unblock_until is None else min(ends_at, credential.due_at or ends_at)


def may_be_removed(blocked: Credential, now: datetime) -> bool:
    """Whether its login may be gone already, or go at this moment: the time to undo the block is over, or a removal was begun."""
    return blocked.tries > 0 or (blocked.due_at is not None and blocked.due_at <= now)


def with_time_to_undo_stopped(credentials: tuple[Credential, ...], now: datetime) -> tuple[Credential, ...]:
    """The resource is paused: those that are blocked and certainly still there are looked at no more until it goes on."""
    blocked = (one for one in credentials if one.stage is Stage.BLOCKED)
    return tuple(replace(one, due_at=None) for one in blocked if not may_be_removed(one, now))


def with_time_to_undo_over(credentials: tuple[Credential, ...], now: datetime) -> tuple[Credential, ...]:
    """The resource is paused no more: whoever wanted to undo a block has done so."""
    return tuple(replace(one, due_at=now) for one in credentials if one.stage is Stage.BLOCKED and one.due_at is None)


def is_emptied(credentials: tuple[Credential, ...], changed: tuple[Credential, ...]) -> bool:
    """Whether no login of the resource is left to us once `changed` is written."""
    after = {one.id: one for one in (*credentials, *changed)}
    return not any(one.stage in ALIVE_STAGES for one in after.values())
