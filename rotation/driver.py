"""Claim a row, take its next step, record what came of it; sort errors in one place. Below both stories.

A story is a dict that joins states to steps. A step has one effect and returns what to record: a `Move` (something is now true) or a
`Wait` (come back later). The store records it by compare-and-set on (fence, state), so a step may be done twice but is recorded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from rotation import policy
from rotation.cases import Deadline, Move, RotationCase, Wait
from rotation.errors import Conflict, Invalid, KeyMissing, LostClaim, OutcomeUnknown, Refused, Unavailable, Unreachable
from rotation.states import Alarm, RotationState

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rotation.cases import CredentialCase
    from rotation.errors import RolloverError
    from rotation.ports import Ports, Store

Case = TypeVar("Case", "RotationCase", "CredentialCase")

log = structlog.get_logger()

ON_THE_WAY = frozenset({RotationState.CREATED, RotationState.VERIFIED, RotationState.OFFERED})

LOOKS_AGAIN, LOOKS_AGAIN_AFTER = 3, timedelta(seconds=5)
"""How often at once, and after what pause then, a step is taken anew because something else was written meanwhile."""


@dataclass(frozen=True, slots=True)
class Story(Generic[Case]):
    """What the driver needs to know of a story: how its rows are claimed and recorded, its next step, and what an error means in it."""

    name: str
    claim: Callable[[Store, str], Case | None]
    record: Callable[[Store, Case, Move | Wait], Case | None]
    next_step: Callable[[Case], Callable[[Case, Ports], Move | Wait]]
    on_error: Callable[[Case, RolloverError, Ports], Move | Wait]


def advance(story: Story[Case], row_id: str, ports: Ports) -> int:
    """Take one row as far as it will go now. Gives the number of decisions recorded; zero when there was nothing to do.

    Raises `Unavailable` or `OutcomeUnknown` when the store itself does not answer, and `IllegalMove` for a bug: nothing is lost in
    either case, because the row is still due and its claim ends by itself.
    """
    recorded = 0
    with structlog.contextvars.bound_contextvars(**{story.name: row_id}):
        try:
            case = story.claim(ports.store, row_id)
            while case is not None:
                case = _take(story, case, ports)
                recorded += 1
        except LostClaim as lost:
            log.info("claim_lost", why=str(lost))
    return recorded


def _take(story: Story[Case], case: Case, ports: Ports) -> Case | None:
    """One step and its record; the case as it is then, None when the row is at rest."""
    decision = _decide(story, case, ports)
    try:
        after = story.record(ports.store, case, decision)
    except (LostClaim, Conflict) as lost:
        return _look_again(story, case, decision, lost, ports)
    _tell(case, decision)
    return after


def _look_again(story: Story[Case], case: Case, decision: Move | Wait, lost: LostClaim | Conflict, ports: Ports) -> Case | None:
    """The case as it is now, when not our row but another was written meanwhile. Raises `LostClaim` when the row is not ours any more.

    What is known of an attempt is kept: otherwise an answered push would count as on its way. It counts as a setback, so that
    something that never fits is not tried for ever at once.
    """
    log.info("case_outdated", why=str(lost))
    until = case.now if _tries(case) < LOOKS_AGAIN else case.now + LOOKS_AGAIN_AFTER
    return story.record(
        ports.store, case, Wait(until=until, problem="something else was written meanwhile", setback=True, attempt=decision.attempt)
    )


def _tries(case: RotationCase | CredentialCase) -> int:
    """How many setbacks the row has had in its present state."""
    return case.rotation.tries if isinstance(case, RotationCase) else case.credential.tries


def call_deadline(case: RotationCase | CredentialCase, ports: Ports) -> Deadline:
    """By when a call made for this case must have ended: its own total deadline, and never after the claim."""
    return Deadline(min(ports.clock.monotonic() + ports.terms.call_deadline.total_seconds(), case.claim.deadline.at))


def store_now(case: RotationCase | CredentialCase, ports: Ports) -> datetime:
    """The store's clock now, without asking it: its reading when the case was read, and the time since.

    It may be ahead by as long as that reading took, and behind only on a machine that was suspended since, for as long as that lasted.
    """
    read_at = case.claim.deadline.at - ports.terms.claim.total_seconds()
    return case.now + timedelta(seconds=ports.clock.monotonic() - read_at)


def clocks_disagree(case: RotationCase | CredentialCase, ports: Ports) -> Wait | None:
    """What to do when the store's clock and this worker's are too far apart for one of them to be believed: nothing, with an alarm.

    A grace that begins or ends by a wrong clock is too short, and so is the time that an attempt is held to be on its way.
    """
    theirs, tolerance = store_now(case, ports), ports.terms.clock_tolerance
    apart = abs(ports.clock.now() - theirs)
    if apart <= tolerance:
        return None
    return Wait(
        until=theirs + tolerance,
        problem=f"this worker's clock and the store's are {int(apart.total_seconds())} s apart",
        advice="mend the clocks (NTP); nothing is pushed and nothing is retired until they agree",
        alarm=Alarm.CLOCKS_DISAGREED,
    )


def _decide(story: Story[Case], case: Case, ports: Ports) -> Move | Wait:
    """Take the step. An error of the other side is a fact to be recorded, not an exception to be lost.

    An act that came too late has changed nothing. If the claim holds all the same, as on a machine that slept and cannot tell when, the row
    is let go of, so that nobody has to wait for the claim's end; if not, the record is refused.
    """
    try:
        return story.next_step(case)(case, ports)
    except LostClaim as late:
        return Wait(until=store_now(case, ports) + LOOKS_AGAIN_AFTER, setback=True, problem=str(late))
    except (Refused, Unavailable, OutcomeUnknown, Invalid) as error:
        return story.on_error(case, error, ports)


def pause_after(error: RolloverError, back_off: timedelta) -> timedelta:
    """How long to wait after an error: as long as it says itself, and not for long where the other side was only silent."""
    if isinstance(error, Unavailable) and error.retry_after is not None:
        return error.retry_after
    return min(back_off, policy.LONGEST_SILENCE) if isinstance(error, Unreachable | OutcomeUnknown) else back_off


def describe(error: RolloverError) -> tuple[str, str]:
    """An error as the row keeps it: what went wrong, and what a person should do."""
    match error:
        case Refused():
            return str(error), error.advice
        case Invalid():
            return str(error), "mend the resource's file and say `rollover resource update`"
        case KeyMissing():
            return str(error), f"put the key back into the key file, or say `rollover keys abandon {error.key_id}`"
        case _:
            return str(error), ""


def _tell(case: RotationCase | CredentialCase, decision: Move | Wait) -> None:
    """One log line a decision; an alarm is a warning, so that it is seen at any level a person would choose. Steps on the way are told
    to who debugs: what began, where, and how it ended is enough for a fleet, and every move is in the audit trail.

    An alarm is told when it is new, and after each try that has failed again.
    """
    if isinstance(decision, Move):
        if decision.rotation is not None and decision.rotation.state in ON_THE_WAY:
            log.debug(decision.event.kind)
            return
        told = {"why": decision.event.why, **dict(decision.event.detail)}
        alarm = None if decision.rotation is None else decision.rotation.alarm
        if alarm is not None:
            log.warning(alarm, alarm=True, ended_as=decision.event.kind, **told)
        else:
            log.info(decision.event.kind, **told)
    elif decision.alarm is not None and (decision.setback or decision.alarm != _standing(case)):
        log.warning(decision.alarm, alarm=True, problem=decision.problem, until=decision.until)
    elif decision.setback:
        log.info("step_set_back", problem=decision.problem, until=decision.until)
    else:
        log.debug("row_waits", until=decision.until)


def _standing(case: RotationCase | CredentialCase) -> str | None:
    """The alarm that the row raised before."""
    return case.rotation.alarm if isinstance(case, RotationCase) else case.credential.alarm
