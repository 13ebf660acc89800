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

from rotation import driver, endings, generations, policy, survey
from rotation.cases import AttemptTerms, Move, Wait
from rotation.errors import AdminRefused, Invalid, KeyMissing, LostClaim, NameClash, NotAsked, OutcomeUnknown, Refused, Unavailable
from rotation.holds import while_held
from rotation.model import Credential, Event, Login, Rotation, SealContext, new_id
from rotation.states import BEFORE_OFFER, Alarm, AttemptState, ResourceState, RotationState, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from rotation.cases import RotationCase
    from rotation.errors import Fault, RolloverError
    from rotation.model import Attempt, KnownLogin, RenderedSecret
    from rotation.ports import Ports
    from rotation.sensitive import Sensitive

BEHIND_ANOTHER = timedelta(seconds=10)
"""How often a follow-up looks whether it may go, besides being told; and how long an emergency lets a push that is under way end."""

VERIFIED_FOR = timedelta(minutes=1)
"""How long a login that was proved is taken to be there. A later failover is the healer's business."""


# -- the steps, in the order in which they happen


def plan(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 1, `requested` to `planned`: make the password, once, and write it down sealed before anybody else hears of it."""
    if case.ahead is not None:
        return _behind(case, case.ahead)
    if case.resource.state in (ResourceState.LEAVING, ResourceState.GONE):
        return _too_late(case)
    held = _held(case, ports)
    if held is not None:
        return held
    # After a supersession only a new credential will do: its completion starts the clock of the one that was passed over.
    if case.rotation.credential_id is not None and case.current is not None and not endings.superseding(case):
        return _plan_again(case, case.current)
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
    planned = endings.onward(
        case,
        RotationState.PLANNED,
        revision=case.resource.revision,
        credential_id=credential_id,
        planned_at=case.now,
    )
    return Move(
        rotation=planned,
        new_credential=credential,
        event=endings.event(planned, why=_why(case), credential=credential_id, generation=generation, username=minted.username),
    )


def create(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 2, `planned` to `created`: the database learns the login, from the stored verifier.

    All up to the offer can be done again, so when the next steps succeed at once, the offer alone is recorded, for all of them.
    """
    held = _held(case, ports)
    if held is not None:
        return held
    differences = _admitted(case, ports)
    created = endings.onward(case, RotationState.CREATED, created_at=driver.store_now(case, ports))
    try:
        return _verify(replace(case, rotation=created), differences, ports)
    except (Refused, Unavailable, OutcomeUnknown, Invalid):
        return Move(rotation=created, event=endings.event(created))  # it is verified again from here, and what stands in the way is told


def verify(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 3, `created` to `verified`: log in with exactly what will be pushed, and compare the rights with the current login's.

    What brings a rotation here is that this failed before. So the login is made once more: the server may have lost it in a failover.
    """
    held = _held(case, ports)
    if held is not None:
        return held
    return _verify(case, _admitted(case, ports), ports)


def offer(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 4, `verified` to `offered`: write down that we are about to push. The point of no return.

    What was verified some time ago, before it had to wait, is verified once more.
    """
    held = _held(case, ports) or _limited(case, ports)
    if held is not None:
        return held
    verified_at = case.rotation.verified_at
    if verified_at is None or case.now - verified_at > VERIFIED_FOR:
        return _verify(case, _admitted(case, ports), ports)
    return _offered(case, ports)


def push(case: RotationCase, ports: Ports) -> Move | Wait:
    """Step 5, `offered` to `completed`: push the stored values until an acknowledgement leaves no doubt about what Vercel holds."""
    revised = case.resource.revision > case.rotation.revision and endings.refused_last(case) and not case.pushes_again
    held = while_held(case.resource, case.now) or (None if revised else endings.held_by_parking(case))
    if held is not None:
        return held
    if revised:
        return endings.supersede(case, ports, "its values were refused, and the resource has been revised since")
    if _unsent(case) is None:
        held = _clocks_disagree(case, ports) or _limited(case, ports)
        if held is not None:
            return held
        case = ports.store.open_attempt(case, _attempt_terms(ports))
    attempt = _unsent(case)
    if attempt is None:
        raise LostClaim("the attempt that was opened is not there")
    disagreement = _clocks_disagree(case, ports)
    if disagreement is not None:  # the attempt has its times by a clock that may be wrong: it must not be sent
        return replace(disagreement, attempt=_not_sent(attempt, case, ports))
    login = Login(case.credential.username, _open(case, case.credential, "password", ports))
    secrets = ports.sink.render(case.resource, login)
    try:
        return _sent(case, attempt, secrets, ports)
    except (Refused, Unavailable, OutcomeUnknown) as error:
        # It may have been sent. Left open, it would be taken for one that was not, and the answer to another push be written on it.
        lost = replace(attempt, state=AttemptState.UNKNOWN, note=str(error), answered_at=driver.store_now(case, ports))
        return replace(on_error(case, error, ports), attempt=lost)


def _sent(case: RotationCase, attempt: Attempt, secrets: Sequence[RenderedSecret], ports: Ports) -> Move | Wait:
    outcome = ports.sink.push(
        case.resource,
        case.installation,
        secrets,
        lambda: ports.store.may_send(case.claim, attempt),
        driver.call_deadline(case, ports),
    )
    # A machine that was suspended meanwhile knows less time to have passed: the grace must not begin before the answer.
    answered_at = ports.store.now() if driver.clocks_disagree(case, ports) else driver.store_now(case, ports)
    answered = replace(attempt, state=outcome.attempt_state, status=outcome.status, note=outcome.note, answered_at=answered_at)
    return endings.after_push(case, answered, outcome, answered_at, ports)


STEPS: Mapping[RotationState, Callable[[RotationCase, Ports], Move | Wait]] = {
    RotationState.REQUESTED: plan,
    RotationState.PLANNED: create,
    RotationState.CREATED: verify,
    RotationState.VERIFIED: offer,
    RotationState.OFFERED: push,
}


# -- leaving the path


def on_error(case: RotationCase, error: RolloverError, ports: Ports) -> Move | Wait:
    """What an error of the other side means: before the offer it may end the rotation, after it there is only forward."""
    problem, advice = driver.describe(error)
    until = case.now + driver.pause_after(error, endings.back_off(case, ports))
    if isinstance(error, NotAsked):
        return Wait(until=min(until, case.now + policy.LONGEST_URGENT_SETBACK) if case.rotation.urgent else until, problem=problem)
    if isinstance(error, KeyMissing) and case.pushes_again and not endings.superseding(case):
        return endings.fail(case, ports, problem, advice)  # else a rotation, which would help, waits behind it for ever
    if isinstance(error, KeyMissing):
        return Wait(until=max(until, case.now + timedelta(minutes=1)), problem=problem, advice=advice, alarm=Alarm.KEY_MISSING)
    if case.rotation.state not in BEFORE_OFFER or endings.superseding(case):
        return Wait(until=until, setback=True, problem=problem, advice=advice, alarm=Alarm.ROTATION_STUCK)
    gives_up = policy.give_up(_setback(case, error), case.rotation.tries + 1, since=_since(case), now=case.now)
    if gives_up is not None:
        return endings.fail(case, ports, f"{problem}: {gives_up}", advice, alarm=_alarm(error))
    return Wait(until=until, setback=True, problem=problem, advice=advice)


STORY: driver.Story[RotationCase] = driver.Story(
    name="rotation",
    claim=lambda store, rotation_id: store.claim_rotation(rotation_id),
    record=lambda store, case, decision: store.record_rotation(case, decision),
    next_step=lambda case: STEPS[case.rotation.state],
    on_error=on_error,
)


# -- what holds a step back


def _behind(case: RotationCase, ahead: Rotation) -> Move | Wait:
    """A follow-up waits for the rotation ahead of it, unless it is an emergency: that goes past an offer that does not end.

    But only past the first one: going past that again would leave one more login alive, and one more push to wait for, each time
    that somebody asks.
    """
    stuck = ahead.tries > 0 or ahead.offered_at is None or case.now - ahead.offered_at > BEHIND_ANOTHER
    if ahead.state is not RotationState.OFFERED or not endings.emergency(case) or endings.superseding(case):
        return Wait(until=case.now + BEHIND_ANOTHER)
    if not stuck:
        return Wait(until=case.now + timedelta(seconds=1))
    passed = [one for one in case.credentials if one.id == ahead.credential_id and one.stage is Stage.PENDING]
    why = f"an emergency rotation goes past it: {case.rotation.id}"
    return Move(
        rotation=replace(case.rotation, due_at=case.now),
        superseded=replace(ahead, state=RotationState.SUPERSEDED, ended_at=case.now, due_at=None, problem=why, alarm=None),
        credentials=tuple(generations.passed_over(one, case.now) for one in passed),
        event=Event(kind="rotation_superseded", actor=endings.ACTOR, why=why, detail=(("rotation", ahead.id),)),
    )


def _held(case: RotationCase, ports: Ports) -> Wait | None:
    """Before the offer a person's pause and a parked installation hold a rotation where it is; resume and unpark make it due.

    Somebody must find out when the token is taken again. Those that are offered do so by pushing; the one that went past such a one
    takes its place, and any other goes on once Vercel shows it its resource.
    """
    if case.resource.state is ResourceState.PAUSED:
        return while_held(case.resource, case.now) or Wait(
            until=case.now + endings.PARKED_PROBE,
            problem="the resource is paused",
            advice=f"`rollover resource resume {case.resource.name}`",
        )
    if endings.parked_by_us(case) and endings.superseding(case):
        return None
    held = endings.held_by_parking(case)
    if held is not None or not case.installation.parked:
        return held
    if ports.sink.resource_exists(case.resource, case.installation, driver.call_deadline(case, ports)):
        return None
    return Wait(until=case.now + endings.PARKED_PROBE, problem=endings.parked(case), advice=endings.unpark(case))


def _clocks_disagree(case: RotationCase, ports: Ports) -> Wait | None:
    """By a wrong clock a grace would begin too early, and an older push would seem to have expired.

    An emergency promises no grace, so it waits only when there is such a push.
    """
    doubtful = any(one.unanswered and one.credential_id != case.rotation.credential_id for one in case.attempts)
    return driver.clocks_disagree(case, ports) if doubtful or not endings.emergency(case) else None


def _limited(case: RotationCase, ports: Ports) -> Wait | None:
    """Whether Vercel answers at all, and a place in its rate limit. One that lies ahead is kept on the row and used when it comes back.

    Where Vercel does not answer, no attempt is opened: one that was not sent would have to be settled all the same. A place is given
    back then, or all those who waited would use theirs at the same moment.
    """
    pause = ports.sink.pause(case.installation, emergency=endings.emergency(case))
    if pause is not None:
        alarm = endings.offer_alarm(case, case.now)
        return Wait(until=case.now + pause, problem="Vercel has not answered lately", alarm=alarm, returns_place=True)
    kept = case.rotation.reserved_at
    if kept is not None:
        return Wait(until=kept) if kept > case.now else None
    reserved_at = ports.limiter.reserve(case.resource.spec.installation_id, urgent=case.rotation.urgent)
    if reserved_at is None:
        return None
    return Wait(until=reserved_at, reserved_at=reserved_at, problem="")


# -- small words


def _verify(case: RotationCase, differences: tuple[Fault, ...], ports: Ports) -> Move:
    """The new login works, and does not differ from the current one: it is offered at once, if there is a place in the rate limit."""
    credential = case.credential
    verifier = None if credential.sealed_verifier is None else _open(case, credential, "verifier", ports)
    login = Login(credential.username, _open(case, credential, "password", ports), verifier)
    engine = ports.engines[case.resource.spec.engine]
    engine.check(case.resource, login, ports.sink.render(case.resource, login), driver.call_deadline(case, ports))
    if differences:
        raise Refused(
            "the new login differs from the current one: " + "; ".join(str(one) for one in differences),
            advice="run `rollover resource check` and grant to the owner what it lists",
        )
    verified = endings.onward(case, RotationState.VERIFIED, verified_at=driver.store_now(case, ports))
    limited = _limited(case, ports)
    if limited is not None:
        waiting = replace(verified, due_at=limited.until, reserved_at=limited.reserved_at, problem=limited.problem)
        return Move(rotation=waiting, event=endings.event(verified))
    return _offered(replace(case, rotation=verified), ports)


def _offered(case: RotationCase, ports: Ports) -> Move:
    offered = endings.onward(case, RotationState.OFFERED, offered_at=driver.store_now(case, ports), reserved_at=None)
    return Move(rotation=offered, opens_attempt=_attempt_terms(ports), event=endings.event(offered))


def _plan_again(case: RotationCase, current: Credential) -> Move:
    """Push again what is current by now: a successor that was pushed meanwhile may have been pushed before this was asked for."""
    planned = endings.onward(
        case,
        RotationState.PLANNED,
        revision=case.resource.revision,
        credential_id=current.id,
        planned_at=case.now,
    )
    return Move(rotation=planned, event=endings.event(planned, why=_why(case), credential=current.id))


def _too_late(case: RotationCase) -> Move:
    """A follow-up whose resource was found to be gone while it waited."""
    why = f"the resource is {case.resource.state}"
    abandoned = endings.abandoned(case.rotation, case.now, why)
    return Move(rotation=abandoned, event=endings.event(abandoned, why=why))


def _context(case: RotationCase, credential_id: str, purpose: str) -> SealContext:
    return SealContext(case.resource.spec.installation_id, case.resource.id, credential_id, purpose)


def _admitted(case: RotationCase, ports: Ports) -> tuple[Fault, ...]:
    """The database knows the login, made from the stored verifier. Gives what it may do less, more or otherwise than its model."""
    if case.pushes_again:  # its login exists
        return ()
    credential = case.credential
    verifier = _open(case, credential, "verifier", ports)
    engine = ports.engines[case.resource.spec.engine]
    return engine.admit(case.resource, credential, verifier, _model(case, ports), driver.call_deadline(case, ports))


def _model(case: RotationCase, ports: Ports) -> str | None:
    """The user name of the login that the new one is to be like: the current one's, which the healer makes again where it is gone.

    Where the healer has tried that in vain, another login of the resource that is there for certain takes its place, and nobody where
    there is none: a rotation is all that helps then, and it must not need what is lost.
    """
    if case.current is None or not generations.mended_in_vain(case.current, case.now):
        return None if case.current is None else case.current.username
    used = {one.username: one for one in case.credentials if one.stage in (Stage.CURRENT, Stage.PREVIOUS)}
    found = ports.engines[case.resource.spec.engine].find_logins(case.resource.server, list(used), driver.call_deadline(case, ports))
    ours = (one.username for one in found if _is_of(used[one.username], one))
    return survey.model(case.credential, case.credentials, frozenset(ours))


def _is_of(credential: Credential, login: KnownLogin) -> bool:
    """Whether a login of that name is the credential's, and not a stranger's who took its name."""
    return login.credential_id == credential.id or (credential.adopted and login.credential_id is None)


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


def _alarm(error: RolloverError) -> Alarm | None:
    """The alarm of a rotation that is given up. An admin login that is refused is one alarm of its server, not of each rotation."""
    match error:
        case AdminRefused():
            return None
        case NameClash():
            return Alarm.NAME_CLASH
        case _:
            return Alarm.ROTATION_FAILED


def _not_sent(attempt: Attempt, case: RotationCase, ports: Ports) -> Attempt:
    now = driver.store_now(case, ports)
    return replace(attempt, state=AttemptState.NOT_APPLIED, answered_at=now, note="not sent: the clocks disagree")


def _setback(case: RotationCase, error: RolloverError) -> policy.Setback:
    """A login that is refused while it is verified may only not have reached a replica or a pooler yet."""
    if isinstance(error, Refused | Invalid):
        made = case.rotation.state in (RotationState.CREATED, RotationState.VERIFIED)
        return policy.Setback.UNVERIFIED if made else policy.Setback.REFUSED
    return policy.Setback.UNAVAILABLE


def _since(case: RotationCase) -> datetime:
    """When the rotation came to its present state."""
    rotation = case.rotation
    return rotation.verified_at or rotation.created_at or rotation.planned_at or rotation.requested_at


def _why(case: RotationCase) -> str:
    """Who asked, and why, for the record."""
    return "; ".join(f"{one.trigger} by {one.actor}" + (f": {one.reason}" if one.reason else "") for one in case.requests)
