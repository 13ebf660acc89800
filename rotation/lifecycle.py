"""One rotation, from first to last.

```
requested -> planned -> created -> verified -> offered -> completed
   requested, planned, created, verified -> failed
   offered -> failed        (only if every attempt is on record as refused)
   offered -> superseded    (when something urgent must go past it)
   requested, planned, created, verified, offered -> abandoned
```

1. `requested`: at least one request is on record, nothing else.
2. `planned`: the new credential, its sealed password and its verifier are on record; nothing outside changed.
3. `created`: the database knows the login, with the rights and settings of the current one.
4. `verified`: every secret that will be pushed was rendered, parsed strictly and logged in with, on every endpoint.
5. `offered`: the intent to push is on record. **The point of no return**: from here on Vercel may hold the new credential, so both
   must work until a push is cleanly acknowledged, however long that takes.
6. `completed`: Vercel acknowledged it, and nothing else can still be on its way there.

Each step below has one effect, takes its inputs from the case (which was read from the store), and returns what to record.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import driver, generations, policy
from rotation.errors import Invalid, KeyMissing, LostClaim, Refused
from rotation.model import (
    BEFORE_OFFER,
    AttemptState,
    AttemptTerms,
    Credential,
    Event,
    Login,
    Move,
    PushVerdict,
    Request,
    ResourceState,
    Rotation,
    RotationState,
    SealContext,
    Stage,
    Trigger,
    Wait,
    new_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from rotation.errors import RolloverError
    from rotation.model import Attempt, PushOutcome, RotationCase, Sensitive
    from rotation.ports import Ports

ACTOR = "rollover"

BEHIND_ANOTHER = timedelta(seconds=10)
"""How often a follow-up looks whether it may go, besides being told; and how long an emergency lets a push that is under way end."""

PARKED_PROBE = timedelta(minutes=15)
MISSING_CONFIRMED_AFTER = timedelta(minutes=15)
CONFLICT_TRIES = 5
OFFER_ALARM_AFTER = timedelta(hours=1)


# -- the steps, in the order in which they happen


def plan(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 1, `requested` to `planned`: make the password, once, and write it down sealed before anybody else hears of it."""
    if case.ahead is not None:
        return _behind(case, case.ahead)
    held = _held(case)
    if held is not None:
        return held
    generation = case.generations + 1
    credential_id = new_id("cred", case.now, ports.entropy.bytes(8))
    minted = ports.engines[case.resource.spec.engine].mint(case.resource, generation, ports.entropy)
    credential = Credential(
        id=credential_id,
        resource_id=case.resource.id,
        generation=generation,
        username=minted.username,
        stage=Stage.PENDING,
        sealed_password=ports.sealer.seal(minted.password, _context(case, credential_id, "password")),
        sealed_verifier=ports.sealer.seal(minted.verifier, _context(case, credential_id, "verifier")),
        recorded_at=case.now,
    )
    planned = replace(_onward(case, RotationState.PLANNED), credential_id=credential_id, planned_at=case.now)
    return Move(
        rotation=planned,
        new_credential=credential,
        event=_event(planned, why=_why(case), credential=credential_id, generation=generation, username=minted.username),
    )


def create(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 2, `planned` to `created`: the database learns the login, from the stored verifier."""
    held = _held(case)
    if held is not None:
        return held
    credential = case.credential
    verifier = _open(case, credential, "verifier", ports)
    like = None if case.current is None else case.current.username
    engine = ports.engines[case.resource.spec.engine]
    engine.admit(case.resource, credential, verifier, like, driver.call_deadline(case, ports))
    created = replace(_onward(case, RotationState.CREATED), created_at=case.now)
    return Move(rotation=created, event=_event(created))


def verify(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 3, `created` to `verified`: log in with exactly what will be pushed, and compare the rights with the current login's."""
    held = _held(case)
    if held is not None:
        return held
    credential = case.credential
    engine = ports.engines[case.resource.spec.engine]
    login = Login(credential.username, _open(case, credential, "password", ports))
    engine.check(case.resource, login, ports.sink.render(case.resource, login), driver.call_deadline(case, ports))
    if case.current is not None:
        differences = engine.parity(case.resource, credential.username, case.current.username, driver.call_deadline(case, ports))
        if differences:
            raise Refused(
                "the new login differs from the current one: " + "; ".join(str(one) for one in differences),
                advice="run `rollover resource check` and grant to the owner what it lists",
            )
    verified = replace(_onward(case, RotationState.VERIFIED), verified_at=case.now)
    return Move(rotation=verified, event=_event(verified))


def offer(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 4, `verified` to `offered`: write down that we are about to push. The point of no return."""
    held = _held(case) or _limited(case, ports)
    if held is not None:
        return held
    offered = replace(_onward(case, RotationState.OFFERED), offered_at=case.now, reserved_at=None)
    return Move(rotation=offered, opens_attempt=_attempt_terms(ports), event=_event(offered))


def push(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 5, `offered` to `completed`: push the stored values until an acknowledgement leaves no doubt about what Vercel holds."""
    if case.resource.revision > case.rotation.revision and _refused_last(case):
        return _supersede(case, ports, "its values were refused, and the resource has been revised since")
    if case.installation.parked and not _probes(case):
        return Wait(until=case.now + PARKED_PROBE, problem=_parked(case), advice=_unpark(case))
    if _unsent(case) is None:
        limited = _limited(case, ports)
        if limited is not None:
            return limited
        case = ports.store.open_attempt(case, _attempt_terms(ports))
    attempt = _unsent(case)
    if attempt is None:
        raise LostClaim("the attempt that was opened is not there")
    login = Login(case.credential.username, _open(case, case.credential, "password", ports))
    outcome = ports.sink.push(
        case.resource,
        case.installation,
        ports.sink.render(case.resource, login),
        lambda: ports.store.may_send(case.claim, attempt),
        driver.call_deadline(case, ports),
    )
    answered = replace(attempt, state=outcome.attempt_state, status=outcome.status, note=outcome.note, answered_at=ports.store.now())
    return _after_push(case, answered, outcome, ports)


STEPS: Mapping[RotationState, Callable[[RotationCase, Ports], Move | Wait]] = {
    RotationState.REQUESTED: plan,
    RotationState.PLANNED: create,
    RotationState.CREATED: verify,
    RotationState.VERIFIED: offer,
    RotationState.OFFERED: push,
}


# -- what an answer to the push means


def _after_push(  # noqa: PLR0911  # a table: one line for each verdict reads best
    case: RotationCase,
    attempt: Attempt,
    outcome: PushOutcome,
    ports: Ports,
) -> Move | Wait:
    now = attempt.answered_at or case.now
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
                until=now + PARKED_PROBE * 2 ** min(case.rotation.tries, 4),
                setback=True,
                problem=f"Vercel refused the installation's token ({attempt.status})",
                advice=_unpark(case),
                alarm="installation_parked",
                attempt=attempt,
                parks=f"Vercel answered {attempt.status}",
            )
        case PushVerdict.LIMITED:
            until = outcome.retry_at or now + timedelta(minutes=1)
            ports.limiter.learn(case.resource.spec.installation_id, blocked_until=until)
            return Wait(until=until, problem="Vercel's rate limit is reached", attempt=attempt)
        case PushVerdict.CONFLICT if case.rotation.tries >= CONFLICT_TRIES:
            return _again(case, attempt, now, ports, problem="Vercel keeps answering 409", alarm="push_in_conflict")
        case PushVerdict.CONFLICT | PushVerdict.UNKNOWN | PushVerdict.UNSENT:
            return _again(case, attempt, now, ports, problem=outcome.note or outcome.verdict)


def _complete(case: RotationCase, attempt: Attempt, now: datetime) -> Move:
    """A clean acknowledgement: in one transaction the new credential is current, the old ones previous, and their grace begins."""
    completed = replace(_onward(case, RotationState.COMPLETED), ended_at=now, due_at=None)
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
        unparks=case.installation.parked,
        event=_event(
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
    """The same values will be refused again. Giving up is safe only if every attempt is on record as not applied."""
    problem = f"Vercel refused the secrets ({attempt.status} {attempt.note})".rstrip()
    advice = "mend the secrets in the resource's file, say `rollover resource update`, then `rollover rotate`"
    doubtful = any(one.id != attempt.id and one.rotation_id == case.rotation.id and one.state in _MAYBE_APPLIED for one in case.attempts)
    if doubtful or _superseding(case):
        return Wait(
            until=now + MISSING_CONFIRMED_AFTER,
            setback=True,
            problem=problem,
            advice=advice,
            alarm="push_refused",
            attempt=attempt,
        )
    return _fail(case, ports, problem, advice, attempt=attempt)


def _missing(case: RotationCase, attempt: Attempt, now: datetime, ports: Ports) -> Move | Wait:
    """404 or 410: believed only when Vercel says so about the resource itself, twice, a quarter of an hour apart."""
    exists = ports.sink.resource_exists(case.resource, case.installation, driver.call_deadline(case, ports))
    if exists is not False:
        return _again(case, attempt, now, ports, problem=f"Vercel answered {attempt.status} to the push", alarm="push_refused")
    since = case.rotation.missing_since
    if since is None or now - since < MISSING_CONFIRMED_AFTER:
        return Wait(
            until=(since or now) + MISSING_CONFIRMED_AFTER,
            problem="Vercel says that the resource is gone",
            attempt=attempt,
            missing_since=since or now,
        )
    abandoned = replace(_onward(case, RotationState.ABANDONED), ended_at=now, due_at=None, problem="Vercel says that the resource is gone")
    return Move(
        rotation=abandoned,
        credentials=generations.departure(
            case.credentials,
            case.rotation.state,
            now,
            ends_at=now + case.present_policy.grace,
            discard_at=now + ports.terms.claim,
        ),
        attempt=attempt,
        resource_state=ResourceState.LEAVING,
        event=_event(abandoned, why="Vercel said twice that the resource is gone"),
    )


def _again(case: RotationCase, attempt: Attempt, now: datetime, ports: Ports, *, problem: str, alarm: str | None = None) -> Wait:
    """The same values again, after a back-off; an alarm once the offer has been standing for an hour."""
    offered_at = case.rotation.offered_at
    if alarm is None and offered_at is not None and now - offered_at > OFFER_ALARM_AFTER:
        alarm = "offer_standing_too_long"
    return Wait(until=now + _back_off(case, ports), setback=True, problem=problem, alarm=alarm, attempt=attempt)


_MAYBE_APPLIED = frozenset({AttemptState.OPEN, AttemptState.UNKNOWN, AttemptState.APPLIED})


# -- leaving the path


def on_error(case: RotationCase, error: RolloverError, ports: Ports) -> Move | Wait:
    """What an error of the other side means: before the offer it may end the rotation, after it there is only forward."""
    problem, advice = driver.describe(error)
    until = case.now + _back_off(case, ports)
    if isinstance(error, KeyMissing):
        return Wait(until=max(until, case.now + timedelta(minutes=1)), problem=problem, advice=advice, alarm="key_missing")
    if case.rotation.state not in BEFORE_OFFER or _superseding(case):
        return Wait(until=until, setback=True, problem=problem, advice=advice, alarm="rotation_stuck")
    gives_up = policy.give_up(_setback(case, error), case.rotation.tries + 1, since=_since(case), now=case.now)
    if gives_up is not None:
        return _fail(case, ports, f"{problem}: {gives_up}", advice)
    return Wait(until=until, setback=True, problem=problem, advice=advice)


STORY: driver.Story[RotationCase] = driver.Story(
    name="rotation",
    claim=lambda store, rotation_id: store.claim_rotation(rotation_id),
    record=lambda store, case, decision: store.record_rotation(case, decision),
    next_step=lambda case: STEPS[case.rotation.state],
    on_error=on_error,
)


def _fail(case: RotationCase, ports: Ports, problem: str, advice: str, *, attempt: Attempt | None = None) -> Move:
    """Record the failure first; the retirement story then removes the new login. The old one never stopped working."""
    failed = replace(_onward(case, RotationState.FAILED), ended_at=case.now, due_at=None, problem=problem, advice=advice)
    failures = case.resource.schedule.failures + 1
    retry = policy.after_failure(case.present_policy, case.resource.id, failures, case.now, urgent=case.rotation.urgent)
    discard_at = case.now + ports.terms.claim
    return Move(
        rotation=failed,
        credentials=() if case.rotation.credential_id is None else (generations.discarded(case.credential, discard_at),),
        attempt=attempt,
        schedule=replace(case.resource.schedule, next_rotation_at=retry.at, reason=retry.reason, failures=failures),
        event=_event(failed, why=problem, advice=advice),
    )


def _supersede(case: RotationCase, ports: Ports, why: str) -> Move:
    """Go past this rotation: its credential keeps working, as Vercel may hold it, and a follow-up begins."""
    now = case.now
    superseded = replace(_onward(case, RotationState.SUPERSEDED), ended_at=now, due_at=None, problem=why)
    follow_up_id = new_id("rot", now, ports.entropy.bytes(8))
    request = Request(
        id=new_id("req", now, ports.entropy.bytes(8)),
        resource_id=case.resource.id,
        trigger=Trigger.MANUAL,
        actor=ACTOR,
        received_at=now,
        reason=f"goes past {case.rotation.id}: {why}",
        rotation_id=follow_up_id,
    )
    already = bool(case.follow_up)
    return Move(
        rotation=superseded,
        credentials=(generations.passed_over(case.credential, now),),
        new_rotation=None
        if already
        else Rotation(
            id=follow_up_id,
            resource_id=case.resource.id,
            revision=case.resource.revision,
            state=RotationState.REQUESTED,
            urgent=True,
            requested_at=now,
            due_at=now,
        ),
        new_requests=() if already else (request,),
        event=_event(superseded, why=why),
    )


# -- what holds a step back


def _behind(case: RotationCase, ahead: Rotation) -> Move | Wait:
    """A follow-up waits for the rotation ahead of it, unless it is an emergency: that goes past an offer that does not end."""
    emergency = any(request.trigger is Trigger.EMERGENCY for request in case.requests)
    stuck = ahead.tries > 0 or ahead.offered_at is None or case.now - ahead.offered_at > BEHIND_ANOTHER
    if ahead.state is not RotationState.OFFERED or not emergency:
        return Wait(until=case.now + BEHIND_ANOTHER)
    if not stuck:
        return Wait(until=case.now + timedelta(seconds=1))
    passed = next(one for one in case.credentials if one.id == ahead.credential_id)
    why = f"an emergency rotation goes past it: {case.rotation.id}"
    return Move(
        rotation=replace(case.rotation, due_at=case.now),
        superseded=replace(ahead, state=RotationState.SUPERSEDED, ended_at=case.now, due_at=None, problem=why),
        credentials=(generations.passed_over(passed, case.now),),
        event=Event(kind="rotation_superseded", actor=ACTOR, why=why, detail=(("rotation", ahead.id),)),
    )


def _held(case: RotationCase) -> Wait | None:
    """Before the offer a person's pause and a parked installation hold a rotation where it is; resume and unpark make it due."""
    if case.resource.state is ResourceState.PAUSED:
        return Wait(
            until=case.now + PARKED_PROBE, problem="the resource is paused", advice=f"`rollover resource resume {case.resource.name}`"
        )
    if case.installation.parked:
        return Wait(until=case.now + PARKED_PROBE, problem=_parked(case), advice=_unpark(case))
    return None


def _limited(case: RotationCase, ports: Ports) -> Wait | None:
    """A place in Vercel's rate limit. One that lies ahead is kept on the row and used when the row comes back."""
    kept = case.rotation.reserved_at
    if kept is not None:
        return Wait(until=kept) if kept > case.now else None
    reserved_at = ports.limiter.reserve(case.resource.spec.installation_id, urgent=case.rotation.urgent)
    if reserved_at is None:
        return None
    return Wait(until=reserved_at, reserved_at=reserved_at, problem="")


# -- small words


def _onward(case: RotationCase, state: RotationState) -> Rotation:
    return replace(case.rotation, state=state, tries=0, problem="", advice="", due_at=case.now)


def _event(rotation: Rotation, why: str = "", **detail: str | int | None) -> Event:
    return Event(kind=f"rotation_{rotation.state}", actor=ACTOR, why=why, detail=(("rotation", rotation.id), *detail.items()))


def _context(case: RotationCase, credential_id: str, purpose: str) -> SealContext:
    return SealContext(case.resource.spec.installation_id, case.resource.id, credential_id, purpose)


def _open(case: RotationCase, credential: Credential, purpose: str, ports: Ports) -> Sensitive:
    sealed = credential.sealed_password if purpose == "password" else credential.sealed_verifier
    if sealed is None:
        raise Refused(f"the {purpose} of {credential.id} was destroyed", advice="say `rollover rotate` for a new one")
    return ports.sealer.open(sealed, _context(case, credential.id, purpose))


def _attempt_terms(ports: Ports) -> AttemptTerms:
    return AttemptTerms(send_within=ports.terms.call_deadline, travels_for=ports.terms.call_deadline + ports.terms.server_allowance)


def _unsent(case: RotationCase) -> Attempt | None:
    """The attempt that was opened under this very claim: it has not been sent, as a claim sends once and records what came of it."""
    own = (one for one in case.attempts if one.rotation_id == case.rotation.id and one.fence == case.claim.fence)
    return next((one for one in own if one.state is AttemptState.OPEN), None)


def _last_status(case: RotationCase) -> int | None:
    answered = [one for one in case.attempts if one.rotation_id == case.rotation.id and one.state is not AttemptState.OPEN]
    return max(answered, key=lambda one: one.number).status if answered else None


def _probes(case: RotationCase) -> bool:
    """Whether this rotation met the refusal that parked its installation: it tries again now and then, for all the others."""
    return _last_status(case) in (401, 403)


def _refused_last(case: RotationCase) -> bool:
    return _last_status(case) in (400, 413, 422)


def _superseding(case: RotationCase) -> bool:
    """Whether it went past another that Vercel may hold, so that it must complete: only then does the clock of that other begin."""
    return any(generations.clock_stopped(one) for one in case.credentials)


def _setback(case: RotationCase, error: RolloverError) -> policy.Setback:
    """A login that is refused while it is verified may only not have reached a replica or a pooler yet."""
    if isinstance(error, Refused | Invalid):
        return policy.Setback.UNVERIFIED if case.rotation.state is RotationState.CREATED else policy.Setback.REFUSED
    return policy.Setback.UNAVAILABLE


def _since(case: RotationCase) -> datetime:
    """When the rotation came to its present state."""
    rotation = case.rotation
    return rotation.verified_at or rotation.created_at or rotation.planned_at or rotation.requested_at


def _why(case: RotationCase) -> str:
    """Who asked, and why, for the record."""
    return "; ".join(f"{one.trigger} by {one.actor}" + (f": {one.reason}" if one.reason else "") for one in case.requests)


def _back_off(case: RotationCase, ports: Ports) -> timedelta:
    draw = int.from_bytes(ports.entropy.bytes(4)) / 2**32
    return policy.setback(case.rotation.tries + 1, urgent=case.rotation.urgent, draw=draw)


def _parked(case: RotationCase) -> str:
    return f"the installation {case.installation.id} is parked: {case.installation.parked_reason}"


def _unpark(case: RotationCase) -> str:
    return f"`rollover installation token {case.installation.id}` with a new token, or `rollover installation unpark`"
