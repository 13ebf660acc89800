"""What is looked at besides the rows that are due: who uses which credential, and whether every login is as its row says.

Use is not an instant. Serverless clients hold no session between requests, so the sessions of each server are sampled every minute, and
a credential counts as in use while it was seen within its quiet time.

The healer puts right what a server has lost or brought back, by a failover, a restore or somebody's hand:

1. `look_after` reads the catalogs of a server once a minute, and notes which logins are *astray*: not as their rows say.
2. `heal` says on the row that it is about to put the login right, which whoever takes the login away waits for, and reads the row again.
3. It does it, by an act that refuses itself when that time is over.
4. It records that the login is as its row says, with one event.

A worker that dies or stands still anywhere in between changes nothing that the next look does not find.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from rotation import driver
from rotation.cases import Deadline
from rotation.errors import LostClaim, NotAsked, OutcomeUnknown, Refused, Unavailable
from rotation.holds import hold
from rotation.model import Event, SealContext
from rotation.states import ALIVE_STAGES, Alarm, Stage
from rotation.survey import ENDED, Finding, Kind, get_in, model, survey

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import CredentialCase
    from rotation.model import Credential
    from rotation.ports import Ports
    from rotation.sensitive import Sensitive
    from rotation.survey import Survey

ACTOR = "rollover"

SOON = timedelta(seconds=10)
"""When a server is looked at again that has logins to be put right."""

LONGEST_PAUSE = timedelta(minutes=5)
"""Between two tries to put a login right."""

log = structlog.get_logger()


def sample_use(server_name: str, ports: Ports) -> int:
    """Note who is logged in on a server now. Gives how many groups of sessions were seen.

    A server that does not answer is only told: until it does, retirement counts its credentials as in use.
    """
    server = ports.store.server(server_name)
    deadline = Deadline(ports.clock.monotonic() + ports.terms.call_deadline.total_seconds())
    try:
        sessions = ports.engines[server.engine].usage(server, deadline)
    except NotAsked as error:
        log.info("use_not_sampled", server=server_name, problem=str(error))
        return 0
    except (Refused, Unavailable, OutcomeUnknown) as error:
        if ports.store.raise_alarm(Alarm.USE_UNREADABLE, server_name, str(error)):
            log.warning(Alarm.USE_UNREADABLE, alarm=True, server=server_name, problem=str(error))
        return 0
    ports.store.see(server, sessions)
    return len(sessions)


# -- the healer


def look_after(server_name: str, ports: Ports) -> tuple[str, ...]:
    """Look at every login of ours on a server, and tell of each that is not as its row says. Gives the credentials to `heal` now.

    A login without a row is never removed; a resource whose rows are older than its logins is held. Raises `Unavailable` when the store
    does not answer.
    """
    server = ports.store.server(server_name)
    try:
        seen = survey(server, ports)
    except NotAsked as error:
        log.info("logins_not_looked_at", server=server_name, problem=str(error))
        return ()
    except (Refused, Unavailable, OutcomeUnknown) as error:
        if ports.store.raise_alarm(Alarm.LOGINS_UNREADABLE, server_name, str(error)):
            log.warning(Alarm.LOGINS_UNREADABLE, alarm=True, server=server_name, problem=str(error))
        return ()
    for finding in seen.findings:
        _tell(finding)
    hold_ahead(seen, ports)
    astray = note(seen, ports)
    orphans = seen.of(Kind.ORPHAN, Kind.AHEAD)
    now = ports.store.now()
    ports.store.note_look(server_name, orphans=len(orphans), again=_looks_again_in(astray, now, ports))
    return tuple(one.id for one in astray if now >= _tries_again_at(one, now, ports))


def note(seen: Survey, ports: Ports, changed: tuple[Finding, ...] = ()) -> tuple[Credential, ...]:
    """Write down what was seen: who is astray, who no longer is, and who was logged in with. Gives those to be put right, the most
    needed first. `changed` are others that are to be put right.
    """
    held = {one for finding in seen.of(Kind.AHEAD) for one in finding.resource_ids}
    wrong = (one.credential for one in (*seen.of(Kind.LOST, Kind.REVIVED), *changed) if one.credential is not None)
    astray = {one.id: one for one in wrong if one.resource_id not in held or one.stage in ENDED}
    if seen.tried:
        ports.store.note_tried(seen.tried)
    if astray:
        ports.store.note_astray(tuple(astray))
    for one in seen.recovered:
        ports.store.end_mending(one.id, _healed(one, "it works again"))
    return tuple(sorted(astray.values(), key=lambda one: (one.stage is not Stage.CURRENT, one.stage is not Stage.PENDING, one.id)))


def heal(credential_id: str, ports: Ports) -> bool:
    """Make one login as its row says: there again and like its siblings if it must work, gone again if it has ended.

    False when there is nothing to do, somebody is at it, or it did not succeed, which is told. Raises `Unavailable` or `OutcomeUnknown`
    when the store does not answer: the next look finds the login as it is then.
    """
    with structlog.contextvars.bound_contextvars(credential=credential_id):
        case = ports.store.begin_mending(credential_id)
        if case is None:
            return False
        try:
            event = _remove_again(case, ports) if case.credential.stage in ENDED else _make_again(case, ports)
        except LostClaim as lost:
            log.info("claim_lost", why=str(lost))
            ports.store.leave_mending(case.credential)  # the act has refused itself: the next look need not wait for its end
            return False
        except NotAsked as error:
            log.info("healing_put_off", username=case.credential.username, problem=str(error))
            ports.store.leave_mending(case.credential)
            return False
        except (Refused, Unavailable, OutcomeUnknown) as error:
            problem, advice = driver.describe(error)
            log.warning(Alarm.LOGIN_NOT_HEALED, alarm=True, username=case.credential.username, problem=problem, advice=advice)
            return False
        if not ports.store.end_mending(credential_id, event) or event is None:
            return False
        log.info(event.kind, why=event.why, username=case.credential.username)
        return True


def _make_again(case: CredentialCase, ports: Ports) -> Event:
    """From the stored verifier, like a login of the resource that is there; and it is proved by logging in."""
    credential, deadline = case.credential, driver.call_deadline(case, ports)
    engine = ports.engines[case.resource.spec.engine]
    verifier = _verifier(case, ports)
    names = [one.username for one in case.credentials if one.stage in (Stage.CURRENT, Stage.PREVIOUS, Stage.PENDING)]
    present = frozenset(one.username for one in engine.find_logins(case.resource.server, names, deadline))
    engine.admit(case.resource, credential, verifier, model(credential, case.credentials, present), deadline)
    get_in(credential, case.resource, ports, Deadline(ports.clock.monotonic() + ports.terms.call_deadline.total_seconds()))
    return _healed(credential, "its login was changed" if credential.username in present else "its login was gone")


def _verifier(case: CredentialCase, ports: Ports) -> Sensitive:
    """As it was given to the database; an adopted login has none on record, so another is made of its password."""
    credential = case.credential
    place = case.resource.spec.installation_id, case.resource.id, credential.id
    if credential.sealed_verifier is not None:
        return ports.sealer.open(credential.sealed_verifier, SealContext(*place, "verifier"))
    if credential.sealed_password is None:
        raise Refused(f"the password of {credential.id} is not known", advice="say `rollover rotate`: the next login replaces it")
    password = ports.sealer.open(credential.sealed_password, SealContext(*place, "password"))
    return ports.engines[case.resource.spec.engine].verifier(password, ports.entropy)


def _remove_again(case: CredentialCase, ports: Ports) -> Event | None:
    """It was proved dead before it was restored, so nobody is owed it. Only one that carries our mark is removed.

    None where it is not there, as it was lost and then its end came; and where a person has registered it again since it was found.
    """
    credential, deadline = replace(case.credential, adopted=False), driver.call_deadline(case, ports)
    engine, server = ports.engines[case.resource.spec.engine], case.resource.server
    if not engine.find_logins(server, (credential.username,), deadline):
        return None
    namesakes = ports.store.credentials_by_id((), server=server.name, usernames=(credential.username,))
    if any(one.id != credential.id and one.stage in ALIVE_STAGES for one in namesakes):
        return None
    keep = tuple(one.username for one in case.credentials if one.stage in ALIVE_STAGES)
    engine.withdraw(case.resource, credential, keep, deadline)
    if engine.find_logins(server, (credential.username,), deadline):
        raise Unavailable(f"{server.name}: the login {credential.username} is still there")
    return _event("credential_removed_again", credential, "its login was there again after its end was proved")


def hold_ahead(seen: Survey, ports: Ports) -> None:
    """Hold each resource whose server shows a login that is newer than all its rows."""
    for finding in seen.of(Kind.AHEAD):
        for resource_id in finding.resource_ids:
            if hold(resource_id, finding.username, ports):
                log.warning(Alarm.RESOURCE_HELD, alarm=True, resource=resource_id, username=finding.username, problem=finding.problem)


# -- small words


def _tell(finding: Finding) -> None:
    """What is found for the first time. That it cannot be put right is told again with each try, an orphan with each look."""
    if finding.credential is not None and finding.credential.astray_at is not None:
        return
    told = {"server": finding.server, "username": finding.username, "problem": finding.problem}
    match finding.kind:
        case Kind.LOST:
            log.warning(Alarm.LOGIN_LOST, alarm=True, credential=finding.credential and finding.credential.id, **told)
        case Kind.REVIVED:
            log.warning(Alarm.LOGIN_REVIVED, alarm=True, credential=finding.credential and finding.credential.id, **told)
        case Kind.AHEAD | Kind.ORPHAN:
            log.warning(Alarm.ORPHAN_FOUND, alarm=True, **told)


def _looks_again_in(astray: tuple[Credential, ...], now: datetime, ports: Ports) -> timedelta | None:
    """Sooner than usual where something is to be tried again soon."""
    if not astray:
        return None
    first = min(_tries_again_at(one, now, ports) for one in astray)
    return min(max(SOON, first - now), ports.terms.look)


def _tries_again_at(credential: Credential, now: datetime, ports: Ports) -> datetime:
    """At once, and after a try that failed with pauses that grow with the time for which it has been astray.

    A try that would last longer than any does was noted by a clock that has been set right since.
    """
    if credential.mending_until is None or credential.astray_at is None or credential.mending_until > now + ports.terms.mending:
        return now
    pause = max(credential.mending_until - credential.astray_at, timedelta(0)) / 2
    return credential.mending_until + min(pause, LONGEST_PAUSE)


def _healed(credential: Credential, why: str) -> Event:
    return _event("credential_healed", credential, why)


def _event(kind: str, credential: Credential, why: str) -> Event:
    return Event(kind, ACTOR, why, (("credential", credential.id), ("generation", credential.generation)))
