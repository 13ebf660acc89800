"""The ways on from the push: what Vercel's answer means, and how a rotation ends.

One function a way, each giving what to record. Only `fail` gives the new credential up, and only when Vercel cannot hold it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rotation import driver, generations, policy
from rotation.cases import Move, Wait
from rotation.model import Event, PushVerdict, Request, Rotation, new_id
from rotation.states import Alarm, AttemptState, ResourceState, RotationState, Trigger

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import RotationCase
    from rotation.model import Attempt, PushOutcome
    from rotation.ports import Ports

ACTOR = "rollover"

PARKED_BY_US = "Vercel refused its token"
"""How the reason begins for which we park: only then do we try whether it is taken again. What a person parked stays parked."""

PARKED_PROBE = timedelta(minutes=15)
MISSING_CONFIRMED_AFTER = timedelta(minutes=15)
CONFLICT_TRIES = 5
OFFER_ALARM_AFTER = timedelta(hours=1)


# -- what the answer means


def after_push(  # noqa: PLR0911  # a table: one line for each verdict reads best
    case: RotationCase,
    attempt: Attempt,
    outcome: PushOutcome,
    now: datetime,
    ports: Ports,
) -> Move | Wait:
    """What an answered attempt means for its rotation; each line is a row of Vercel's table of answers."""
    match outcome.verdict:
        case PushVerdict.APPLIED if attempt.clean:
            return _complete(case, attempt, now)
        case PushVerdict.APPLIED:
            return _settle(case, attempt, now)
        case PushVerdict.REFUSED:
            return _refused(case, attempt, now, ports)
        case PushVerdict.MISSING:
            return _missing(case, attempt, now, ports)
        case PushVerdict.UNAUTHORIZED:
            return Wait(
                until=now + PARKED_PROBE * 2 ** min(_answered(case, 401, 403), 4),
                setback=True,
                problem=f"Vercel refused the installation's token: {attempt.note}",
                advice=unpark(case),
                alarm=Alarm.INSTALLATION_PARKED,
                attempt=attempt,
                parks=f"{PARKED_BY_US}: {attempt.note}",
            )
        case PushVerdict.LIMITED:
            until = outcome.retry_at or now + timedelta(minutes=1)
            ports.limiter.learn(case.resource.spec.installation_id, blocked_until=until)
            return Wait(until=until, problem="Vercel's rate limit is reached", attempt=attempt)
        case PushVerdict.CONFLICT if _answered(case, 409) + 1 >= CONFLICT_TRIES:
            return _again(case, attempt, now, ports, problem="Vercel keeps answering 409", alarm=Alarm.PUSH_IN_CONFLICT)
        case PushVerdict.CONFLICT:
            return _again(case, attempt, now, ports, problem=outcome.note or outcome.verdict)
        case PushVerdict.UNKNOWN | PushVerdict.UNSENT:
            return _again(case, attempt, now, ports, problem=outcome.note or outcome.verdict, longest=policy.LONGEST_SILENCE)


def _complete(case: RotationCase, attempt: Attempt, now: datetime) -> Move:
    """A clean acknowledgement: in one transaction the new credential is current, the old ones previous, and their grace begins."""
    completed = onward(case, RotationState.COMPLETED, ended_at=now, due_at=None)
    if case.pushes_again:
        return Move(rotation=completed, attempt=attempt, unparks=parked_by_us(case), event=event(completed, why="pushed again"))
    grace = policy.grace(case.resource.spec.policy, case.requests)
    dated = policy.next_rotation(case.present_policy, case.resource.id, since=now, now=now)
    return Move(
        rotation=completed,
        credentials=generations.succession(case, now, grace),
        attempt=attempt,
        schedule=replace(
            case.resource.schedule,
            next_rotation_at=None if dated is None else dated.at,
            reason="only on demand" if dated is None else dated.reason,
            failures=0,
            completed_at=now,
        ),
        unparks=parked_by_us(case),
        event=event(
            completed,
            why=grace.reason,
            credential=case.rotation.credential_id,
            attempt=attempt.number,
            grace_seconds=int(grace.duration.total_seconds()),
        ),
    )


def _settle(case: RotationCase, attempt: Attempt, now: datetime) -> Wait:
    """Acknowledged, but an attempt of another value may still arrive after it: wait until it cannot, then push the current value again."""
    others = [one.expires_at for one in case.attempts if one.credential_id != attempt.credential_id and one.on_its_way(attempt.opened_at)]
    return Wait(until=max([now, *others]), problem="an older push may still be on its way", attempt=attempt)


def _refused(case: RotationCase, attempt: Attempt, now: datetime, ports: Ports) -> Move | Wait:
    """The same values will be refused again. Giving up is safe only if every attempt is on record as not applied.

    What is only pushed again may be given up in any case: its credential stays current.
    """
    problem = f"Vercel refused the secrets ({attempt.status} {attempt.note})".rstrip()
    advice = "mend the secrets in the resource's file, say `rollover resource update`, then `rollover rotate`"
    own = (one for one in case.attempts if one.id != attempt.id and one.credential_id == case.rotation.credential_id)
    doubtful = any(one.state in _MAYBE_APPLIED for one in own)
    if (doubtful or superseding(case)) and not case.pushes_again:
        return Wait(
            until=now + MISSING_CONFIRMED_AFTER,
            setback=True,
            problem=problem,
            advice=advice,
            alarm=Alarm.PUSH_REFUSED,
            attempt=attempt,
        )
    return fail(case, ports, problem, advice, attempt=attempt)


def _missing(case: RotationCase, attempt: Attempt, now: datetime, ports: Ports) -> Move | Wait:
    """404 or 410: believed only when Vercel says so about the resource itself, twice, a quarter of an hour apart."""
    exists = ports.sink.resource_exists(case.resource, case.installation, driver.call_deadline(case, ports))
    if exists is not False:
        return _again(case, attempt, now, ports, problem=f"Vercel answered {attempt.status} to the push", alarm=Alarm.PUSH_REFUSED)
    said_at = driver.store_now(case, ports)  # the worker may have stood still since the push was answered
    since = case.rotation.missing_since if _last_status(case) in (404, 410) else None  # another answer in between: it is there
    if since is None or said_at - since < MISSING_CONFIRMED_AFTER:
        return Wait(
            until=(since or said_at) + MISSING_CONFIRMED_AFTER,
            problem="Vercel says that the resource is gone",
            attempt=attempt,
            missing_since=since or said_at,
        )
    why = "Vercel said twice that the resource is gone"
    lost = abandoned(case.rotation, now, why, alarm=Alarm.RESOURCE_MISSING)
    return Move(
        rotation=lost,
        credentials=generations.departure(
            case.credentials,
            case.rotation,
            now,
            ends_at=now + case.present_policy.grace,
            discard_at=now + ports.terms.claim,
        ),
        attempt=attempt,
        unparks=parked_by_us(case),
        resource_state=ResourceState.LEAVING,
        event=event(lost, why=why),
    )


def _again(
    case: RotationCase,
    attempt: Attempt,
    now: datetime,
    ports: Ports,
    *,
    problem: str,
    alarm: Alarm | None = None,
    longest: timedelta = policy.LONGEST_SETBACK,
) -> Wait:
    """The same values again, after a back-off; an alarm once the offer has been standing for an hour."""
    until = now + min(back_off(case, ports), longest)
    return Wait(until=until, setback=True, problem=problem, alarm=alarm or offer_alarm(case, now), attempt=attempt)


def offer_alarm(case: RotationCase, now: datetime) -> Alarm | None:
    """The alarm of a rotation whose offer has been standing for more than an hour."""
    offered_at = case.rotation.offered_at
    return Alarm.OFFER_STANDING_TOO_LONG if offered_at is not None and now - offered_at > OFFER_ALARM_AFTER else None


_MAYBE_APPLIED = frozenset({AttemptState.OPEN, AttemptState.UNKNOWN, AttemptState.APPLIED})


# -- how a rotation ends without it


def fail(
    case: RotationCase,
    ports: Ports,
    problem: str,
    advice: str,
    *,
    attempt: Attempt | None = None,
    alarm: Alarm | None = Alarm.ROTATION_FAILED,
) -> Move:
    """Record the failure first; the retirement story then removes the new login. The old one never stopped working."""
    failed = onward(case, RotationState.FAILED, ended_at=case.now, due_at=None, problem=problem, advice=advice, alarm=alarm)
    unparks = attempt is not None and attempt.status is not None and parked_by_us(case)  # the values were refused, not the token
    if case.pushes_again:
        return Move(rotation=failed, attempt=attempt, unparks=unparks, event=event(failed, why=problem, advice=advice))
    failures = case.resource.schedule.failures + 1
    retry = policy.after_failure(case.present_policy, case.resource.id, failures, case.now, urgent=case.rotation.urgent)
    discard_at = case.now + ports.terms.claim
    return Move(
        rotation=failed,
        credentials=() if case.rotation.credential_id is None else (generations.discarded(case.credential, discard_at),),
        attempt=attempt,
        schedule=replace(case.resource.schedule, next_rotation_at=retry.at, reason=retry.reason, failures=failures),
        unparks=unparks,
        event=event(failed, why=problem, advice=advice),
    )


def supersede(case: RotationCase, ports: Ports, why: str) -> Move:
    """Go past this rotation: its credential keeps working, as Vercel may hold it, and a follow-up begins, or one that waits goes on.

    What was asked of this one is asked of that one: how long the old credential works was promised when it was asked for.
    """
    now = case.now
    superseded = onward(case, RotationState.SUPERSEDED, ended_at=now, due_at=None, problem=why)
    waiting = case.follow_up[0].rotation_id if case.follow_up else None
    follow_up_id = waiting or new_id("rot", now, ports.entropy.bytes(8))
    request = Request(
        id=new_id("req", now, ports.entropy.bytes(8)),
        resource_id=case.resource.id,
        trigger=_heaviest(case.requests),
        actor=ACTOR,
        received_at=now,
        reason=f"goes past {case.rotation.id}: {why}",
        grace=max((one.grace for one in case.requests if one.grace is not None), default=None),
        rotation_id=follow_up_id,
    )
    return Move(
        rotation=superseded,
        credentials=(generations.passed_over(case.credential, now),),
        new_rotation=None
        if waiting
        else Rotation(
            id=follow_up_id,
            resource_id=case.resource.id,
            revision=case.resource.revision,
            state=RotationState.REQUESTED,
            urgent=True,
            requested_at=now,
            due_at=now,
        ),
        new_requests=(request,),
        event=event(superseded, why=why),
    )


def _heaviest(requests: tuple[Request, ...]) -> Trigger:
    """The trigger that decides most about the old credential; a date alone is as good as a person's wish by now."""
    triggers = {one.trigger for one in requests}
    return next((one for one in (Trigger.EMERGENCY, Trigger.VERCEL) if one in triggers), Trigger.MANUAL)


def abandoned(rotation: Rotation, now: datetime, why: str, *, alarm: Alarm | None = None) -> Rotation:
    """A rotation that has lost its object."""
    return replace(rotation, state=RotationState.ABANDONED, ended_at=now, due_at=None, tries=0, problem=why, alarm=alarm)


# -- small words


def onward(case: RotationCase, state: RotationState, **told: datetime | str | int | None) -> Rotation:
    """The rotation in its next state: with a clean slate and due to go on at once, but for what is told."""
    clean: dict[str, Any] = {"tries": 0, "problem": "", "advice": "", "alarm": None, "due_at": case.now}
    return replace(case.rotation, state=state, **(clean | told))


def event(rotation: Rotation, why: str = "", **detail: str | int | None) -> Event:
    """The audit event of a rotation's move."""
    return Event(kind=f"rotation_{rotation.state}", actor=ACTOR, why=why, detail=(("rotation", rotation.id), *detail.items()))


def emergency(case: RotationCase) -> bool:
    """Whether an emergency asked for it."""
    return any(request.trigger is Trigger.EMERGENCY for request in case.requests)


def superseding(case: RotationCase) -> bool:
    """Whether it went past another that Vercel may hold, so that it must complete: only then does the clock of that other begin."""
    return any(generations.clock_stopped(one) for one in case.credentials)


def _last_status(case: RotationCase) -> int | None:
    answered = [one for one in case.attempts if one.rotation_id == case.rotation.id and one.state is not AttemptState.OPEN]
    return max(answered, key=lambda one: one.number).status if answered else None


def _answered(case: RotationCase, *statuses: int) -> int:
    """How often this rotation has been answered so before."""
    return sum(one.rotation_id == case.rotation.id and one.status in statuses for one in case.attempts)


def parked_by_us(case: RotationCase) -> bool:
    """Whether the installation is parked because its token was refused, so that we try now and then whether it is taken again."""
    return case.installation.parked_reason.startswith(PARKED_BY_US)


def held_by_parking(case: RotationCase) -> Wait | None:
    """A parked installation holds its rotations: what a person parked until a person says so, otherwise for a quarter of an hour."""
    if case.installation.parked_at is None:
        return None
    until = case.installation.parked_at + PARKED_PROBE if parked_by_us(case) else case.now + PARKED_PROBE
    return Wait(until=until, problem=parked(case), advice=unpark(case)) if until > case.now else None


def refused_last(case: RotationCase) -> bool:
    """Whether Vercel's latest answer was that it will never take these values."""
    return _last_status(case) in (400, 413, 422)


def back_off(case: RotationCase, ports: Ports) -> timedelta:
    """How long to wait after one more setback."""
    draw = int.from_bytes(ports.entropy.bytes(4)) / 2**32
    return policy.setback(case.rotation.tries + 1, urgent=case.rotation.urgent, draw=draw)


def parked(case: RotationCase) -> str:
    """What a person is told about a rotation that its parked installation holds."""
    return f"the installation {case.installation.id} is parked: {case.installation.parked_reason}"


def unpark(case: RotationCase) -> str:
    """What a person can do about it."""
    return f"`rollover installation token {case.installation.id}` with a new token, or `rollover installation unpark`"
