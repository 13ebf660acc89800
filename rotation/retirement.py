"""One credential, from the end of its use to its proved end.

```
previous -> blocked -> retired
   blocked -> previous      (a person gave it a new end)
discarding -> discarded
```

* `previous`: in grace, then perhaps waiting for use. Early never: the store's clock and this worker's must agree that grace is over.
* `blocked`: no new login succeeds. For a short while a person can undo it with one command.
* `retired`: its sessions are ended, the login is removed, and the right server refused it. Password and verifier are destroyed.
* `discarding`: it never reached Vercel; `discarded` once the database says that it is absent.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import driver, generations, policy
from rotation.cases import Move, Wait
from rotation.errors import AdminRefused, KeyMissing, NotAsked, OutcomeUnknown, Refused, Unavailable
from rotation.model import Event, Login, SealContext
from rotation.sensitive import Sensitive
from rotation.states import ALIVE_STAGES, Alarm, InUse, ResourceState, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from rotation.cases import CredentialCase
    from rotation.errors import RolloverError
    from rotation.model import Credential
    from rotation.ports import Engine, Ports

ACTOR = "rollover"

PAUSED_LOOK = timedelta(minutes=1)

ALARM_TRIES = 8
"""After so many setbacks, some ten minutes, a person should know that a login is still alive."""


# -- the steps, in the order in which they happen


def end_grace(case: CredentialCase, ports: Ports) -> Move | Wait:
    """`previous` to `blocked`: the grace is over by both clocks, and nobody uses it, or somebody said that it must end all the same."""
    credential = case.credential
    if credential.unblock_until is not None and not _is_over(case):
        return _unblock(case, credential.unblock_until, ports)
    held = _paused(case) or _too_early(case, ports) or _mended(case)
    if held is not None:
        return held
    used = _waits_for_use(case, ports)
    if used is not None:
        return _let_in(case, used, ports) if credential.tries else used
    _engine(case, ports).block(case.resource, credential, driver.call_deadline(case, ports))
    now = driver.store_now(case, ports)
    blocked = replace(
        credential,
        stage=Stage.BLOCKED,
        blocked_at=now,
        unblock_until=None,
        due_at=now + credential.blocked_for if credential.blocked_for else case.now,  # not a moment ahead: it goes on at once
        tries=0,
        problem="",
        alarm=None,
    )
    return Move(credentials=(blocked,), event=_event(blocked, why=_why_ended(credential)))


def retire(case: CredentialCase, ports: Ports) -> Move | Wait:
    """`blocked` to `retired`: end its sessions, remove the login, and prove that it is dead while the current one still logs in."""
    held = _paused(case) or _mended(case)
    if held is not None:
        return held
    credential = case.credential
    engine = _engine(case, ports)
    # The proof needs passwords, the removal does not: a missing key must not keep a login alive.
    engine.withdraw(case.resource, credential, _keep(case), driver.call_deadline(case, ports))
    held = _just_made(case, ports)
    if held is not None:
        return held
    old = _login(case, credential, ports)
    control = None if case.current is None or case.current.found_at is not None else _login(case, case.current, ports)
    engine.prove_refused(case.resource, old, control, driver.call_deadline(case, ports))
    retired = _ended(credential, Stage.RETIRED, driver.store_now(case, ports))
    return _gone_with(case, retired, "login refused, no session left, login absent")


def discard(case: CredentialCase, ports: Ports) -> Move | Wait:
    """`discarding` to `discarded`: it never reached Vercel, so it may go as soon as nobody can still be creating it."""
    held = _mended(case)
    if held is not None:
        return held
    credential = case.credential
    _engine(case, ports).withdraw(case.resource, credential, _keep(case), driver.call_deadline(case, ports))
    discarded = _ended(credential, Stage.DISCARDED, driver.store_now(case, ports))
    return _gone_with(case, discarded, "it never reached Vercel")


STEPS: Mapping[Stage, Callable[[CredentialCase, Ports], Move | Wait]] = {
    Stage.PREVIOUS: end_grace,
    Stage.BLOCKED: retire,
    Stage.DISCARDING: discard,
}


def on_error(case: CredentialCase, error: RolloverError, ports: Ports) -> Wait:
    """A retirement never gives up: it waits, with an alarm when waiting alone will not help.

    A blocked one that comes here may have been removed before, also where its server was only not asked: that must be remembered.
    """
    problem, advice = driver.describe(error)
    draw = int.from_bytes(ports.entropy.bytes(4)) / 2**32
    until = case.now + driver.pause_after(error, policy.setback(case.credential.tries + 1, urgent=False, draw=draw))
    setback = case.credential.stage is Stage.BLOCKED or not isinstance(error, NotAsked)
    return Wait(until=until, setback=setback, problem=problem, advice=advice, alarm=_alarm(case, error))


def _alarm(case: CredentialCase, error: RolloverError) -> Alarm | None:
    """A server that does not answer, or refuses our admin login, has an alarm of its own."""
    if isinstance(error, NotAsked | AdminRefused):
        return None
    return Alarm.RETIREMENT_STUCK if isinstance(error, Refused | KeyMissing) or case.credential.tries >= ALARM_TRIES else None


STORY: driver.Story[CredentialCase] = driver.Story(
    name="credential",
    claim=lambda store, credential_id: store.claim_credential(credential_id),
    record=lambda store, case, decision: store.record_credential(case, decision),
    next_step=lambda case: STEPS[case.credential.stage],
    on_error=on_error,
)


# -- what holds a step back


def _paused(case: CredentialCase) -> Wait | None:
    """A person holds the resource back: nothing irreversible happens meanwhile.

    The time to undo a block stands still then, so a blocked one that comes here may have been removed before: that must be remembered.
    """
    if case.resource.state is not ResourceState.PAUSED:
        return None
    return Wait(
        until=case.now + PAUSED_LOOK,
        problem="the resource is paused",
        advice=f"`rollover resource resume {case.resource.name}`",
        setback=case.credential.stage is Stage.BLOCKED,
    )


def _too_early(case: CredentialCase, ports: Ports) -> Wait | None:
    """Never early: the later of the two clocks decides nothing, both must say that grace is over, and they must agree."""
    ends_at = case.credential.grace_ends_at
    if ends_at is None:
        return Wait(until=None)
    if case.now < ends_at:
        return Wait(until=ends_at)
    if case.credential.compromised and case.resource.state is not ResourceState.LEAVING:
        return None  # it was promised no grace, so there is none to be cut short by a clock; who leaves was told an end
    disagreement = driver.clocks_disagree(case, ports)
    if disagreement is not None:
        return disagreement
    ours = ports.clock.now()
    return Wait(until=case.now + (ends_at - ours)) if ours < ends_at else None


def _mended(case: CredentialCase) -> Wait | None:
    """Somebody may be making the login again, and would do so after it was taken away: that is over in a few seconds."""
    until = case.credential.mending_until
    return Wait(until=until) if until is not None and case.now < until else None


def _just_made(case: CredentialCase, ports: Ports) -> Wait | None:
    """The message that makes it may still be on its way to the server: it was current for less long than that may take.

    One that was adopted was not made by us, and whoever makes it again has said so on its row.
    """
    credential = case.credential
    until = (credential.current_at or credential.previous_at or credential.recorded_at) + ports.terms.call_deadline
    if credential.adopted or case.now >= until:
        return None
    return Wait(until=until, setback=True, problem="it was made a moment ago, and must be gone for good")


def _waits_for_use(case: CredentialCase, ports: Ports) -> Wait | None:
    """In use means seen within the quiet time; sessions that cannot be read count as use, and so does a time in which nobody looked."""
    credential = case.credential
    if credential.in_use is InUse.PROCEED or credential.compromised:
        return None
    if credential.in_use_until is not None and case.now >= credential.in_use_until:
        return None
    looks_at = case.now + min(ports.terms.usage_sample, max(credential.quiet, timedelta(seconds=1)))
    until = looks_at if credential.in_use_until is None else min(looks_at, credential.in_use_until)
    try:
        sessions = _engine(case, ports).usage(case.resource.server, driver.call_deadline(case, ports))
    except NotAsked:
        raise
    except (Refused, Unavailable, OutcomeUnknown) as error:  # no setback: nothing was done to it
        problem, advice = driver.describe(error)
        return Wait(until=until, problem=problem, advice=advice, alarm=_alarm(case, error))
    seen = any(session.username == credential.username for session in sessions)
    use = policy.in_use(case.now if seen else credential.last_seen_at, case.now, credential.quiet)
    watched = policy.watched(case.sampled, case.now, credential.quiet, ports.terms.usage_gap)
    if watched and not use.in_use:
        return None
    ports.store.see(case.resource.server, sessions)
    if not use.in_use:
        return Wait(until=until, problem="its grace is over, but nobody looked for a while whether it is still used")
    return Wait(
        until=until,
        problem=f"its grace is over, but it is still used: {use.reason}",
        advice="redeploy what still uses it; `rollover credential list` shows who",
        alarm=Alarm.CREDENTIAL_STILL_USED,
    )


def _let_in(case: CredentialCase, used: Wait, ports: Ports) -> Move:
    """It is used, and was to be blocked before, which may have happened though no answer came. From now on it waits with a clean slate,
    so that the healer looks after it.
    """
    credential, engine, deadline = case.credential, _engine(case, ports), driver.call_deadline(case, ports)
    if engine.find_logins(case.resource.server, (credential.username,), deadline):
        engine.unblock(case.resource, credential, deadline)
    waiting = replace(credential, due_at=used.until, tries=0, problem=used.problem, alarm=used.alarm)
    return Move(credentials=(waiting,), event=Event("credential_unblocked", ACTOR, used.problem, _detail(waiting)))


# -- small words


def _is_over(case: CredentialCase) -> bool:
    """Whether its grace is over by the store's clock."""
    ends_at = case.credential.grace_ends_at
    return ends_at is not None and ends_at <= case.now


def _unblock(case: CredentialCase, until: datetime, ports: Ports) -> Move | Wait:
    """A person gave it a new end: the database lets it in again, and once more when no slower worker can still block it."""
    credential = case.credential
    _engine(case, ports).unblock(case.resource, credential, driver.call_deadline(case, ports))
    if case.now < until:
        return Wait(until=until)
    unblocked = replace(credential, unblock_until=None, due_at=credential.grace_ends_at, tries=0, problem="", alarm=None)
    return Move(credentials=(unblocked,), event=Event("credential_unblocked", ACTOR, detail=_detail(unblocked)))


def _engine(case: CredentialCase, ports: Ports) -> Engine:
    return ports.engines[case.resource.spec.engine]


def _keep(case: CredentialCase) -> tuple[str, ...]:
    return tuple(one.username for one in case.credentials if one.id != case.credential.id and one.stage in ALIVE_STAGES)


def _login(case: CredentialCase, credential: Credential, ports: Ports) -> Login:
    """What its end is proved with: its own password, or any where that was never known here, as it was found without a row."""
    if credential.found_at is not None:
        return Login(credential.username, Sensitive(ports.entropy.bytes(16).hex()))
    if credential.sealed_password is None:
        raise Refused(
            f"the password of {credential.id} was destroyed with its key, so that its end cannot be proved",
            advice="its login was removed; see for yourself that it is refused",
        )
    place = case.resource.spec.installation_id, case.resource.id, credential.id
    password = ports.sealer.open(credential.sealed_password, SealContext(*place, "password"))
    sealed = credential.sealed_verifier
    return Login(credential.username, password, None if sealed is None else ports.sealer.open(sealed, SealContext(*place, "verifier")))


def _ended(credential: Credential, stage: Stage, now: datetime) -> Credential:
    """Nothing of it is needed any more: what was sealed is destroyed, the record stays."""
    return replace(
        credential,
        stage=stage,
        ended_at=now,
        due_at=None,
        sealed_password=None,
        sealed_verifier=None,
        tries=0,
        problem="",
        alarm=None,
    )


def _gone_with(case: CredentialCase, ended: Credential, why: str) -> Move:
    """The last login of a leaving resource takes the resource with it.

    Two that end at the same moment would each see the other one left. So the others are written too, unchanged: who works on one of
    them looks again, and sees this one gone.
    """
    if case.resource.state is not ResourceState.LEAVING:
        return Move(credentials=(ended,), event=_event(ended, why))
    others = tuple(one for one in case.credentials if one.id != ended.id)
    empty = generations.is_emptied(others, (ended,))
    return Move(credentials=(ended, *others), event=_event(ended, why), resource_state=ResourceState.GONE if empty else None)


def _why_ended(credential: Credential) -> str:
    if credential.compromised:
        return "it is compromised"
    return "its grace is over" if credential.in_use is InUse.WAIT else "its grace is over, used or not"


def _event(credential: Credential, why: str) -> Event:
    return Event(kind=f"credential_{credential.stage}", actor=ACTOR, why=why, detail=_detail(credential))


def _detail(credential: Credential) -> tuple[tuple[str, str | int | bool | None], ...]:
    return (("credential", credential.id), ("generation", credential.generation))
