"""Under which conditions a world lives: drawn from its seed, because some faults show under few of them only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from rotation.model import Policy
from rotation.states import InUse
from tests.fakes import sink as answers

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from tests.fakes.sink import Answer

SECOND, MINUTE, HOUR, DAY = 1.0, 60.0, 3600.0, 86400.0
A_SECOND = timedelta(seconds=1)


def _policy(**changes: object) -> Policy:
    usual: dict[str, object] = {"grace": timedelta(hours=2), "blocked": timedelta(minutes=10), "quiet": timedelta(minutes=10)}
    return Policy(**(usual | changes))  # type: ignore[arg-type]  # the fields of a policy, by name


POLICIES = (
    _policy(every=timedelta(days=3), grace_vercel=timedelta(hours=1)),
    _policy(every=timedelta(days=2), grace=timedelta(hours=1), blocked=timedelta(0), quiet=timedelta(minutes=1)),
    _policy(every=timedelta(hours=5), grace=timedelta(hours=8), blocked=timedelta(minutes=1)),
    _policy(blocked=timedelta(minutes=1)),
    _policy(in_use=InUse.PROCEED, grace=timedelta(minutes=2), grace_vercel=timedelta(0), blocked=timedelta(0)),
)

HURRIED_POLICIES = (
    _policy(grace=20 * A_SECOND, grace_vercel=5 * A_SECOND, blocked=timedelta(0), quiet=A_SECOND),
    _policy(grace=timedelta(minutes=1), blocked=20 * A_SECOND, quiet=5 * A_SECOND),
    _policy(every=timedelta(minutes=5), grace=timedelta(minutes=2), blocked=timedelta(0), quiet=A_SECOND),
    POLICIES[1],
)
GRACES = (None, None, None, timedelta(0), timedelta(minutes=30), timedelta(hours=3), timedelta(hours=9))
HURRIED_GRACES = (None, None, timedelta(0), 20 * A_SECOND, timedelta(minutes=2))

STEPS = {
    "quick": (0.2, 1.0, 2.0, 11.0),
    "usual": (1.0, 2.0, 11.0, 46.0, 6 * MINUTE, 16 * MINUTE, HOUR, 3 * HOUR),
    "long": (11.0, 46.0, 6 * MINUTE, HOUR, 5 * HOUR, 30 * HOUR),
}
HURRIED_STEPS = (0.2, 1.0, 2.0, 11.0, 21.0, 46.0)
PAUSES = {
    "short": (0.5, 5.0, 19.0, 21.0),
    "around a claim": (11.0, 44.0, 46.0, 60.0, 100.0),
    "around an allowance": (46.0, 200.0, 5 * MINUTE, 6 * MINUTE, 7 * MINUTE),
    "long": (46.0, 7 * MINUTE, 2 * HOUR, 3 * HOUR, 9 * HOUR),
}
JUMPS = (-3 * HOUR, -20 * MINUTE, -5 * MINUTE, -31.0, -20.0, 20.0, 31.0, 5 * MINUTE, 20 * MINUTE, 3 * HOUR)

TAKEN = (answers.APPLIED,)
DOUBTFUL = (answers.APPLIED_BUT_UNKNOWN, answers.LOST_AND_UNKNOWN, answers.ON_ITS_WAY, answers.ON_ITS_WAY)
REFUSING = (answers.REFUSED, answers.UNAUTHORIZED, answers.MISSING, answers.CONFLICT, answers.UNREACHABLE)


class Temper(StrEnum):
    """What kind of trouble a world is fond of: most faults need company to show."""

    USUAL = "usual"
    HURRIED = "hurried"
    """Everything happens within minutes, people ask all the time, and pushes linger."""
    WRONG_CLOCKS = "wrong clocks"
    GONE = "gone"
    """Vercel says that it does not know resources."""
    FAILING = "failing"
    """Databases lose what was done, and answers of it."""
    SUSPENDED = "suspended"
    """Machines are suspended as they are about to push, and wake up when others have gone on."""
    LOSING = "losing"
    """Servers lose logins while people are in a hurry to be rid of them."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How large the world is, how often what goes wrong, and how long things take. Rates are per opportunity; times in seconds."""

    temper: Temper
    resources: int
    policies: tuple[Policy, ...]
    graces: tuple[timedelta | None, ...]
    """What people ask for by name; None: what the policy says."""
    installations: int
    servers: int
    acts: int
    switching: float
    """How often a worker that crosses a boundary lets others go on there."""
    trouble: float
    """How often a boundary is where something goes wrong."""
    late: float
    """How often an act on a database is done when nobody waits for it any more, beside what goes wrong anyway."""
    shut_out: float
    """How often a login that was made is not known in front of its server yet."""
    before_sending: float
    """How often somebody is stopped when he is about to ask for the last time whether he may push, beside what goes wrong anyway."""
    steps: tuple[float, ...]
    pauses: tuple[float, ...]
    suspends: bool
    """Whether a machine's monotonic clock stands still with it, as when a virtual machine is suspended."""
    look: float
    """How often the logins of a server are looked at."""
    flight: float
    """How long a push that was let go may take to arrive, at most."""
    answers: tuple[Answer, ...]
    emergencies: float
    """How many of those who ask are in a hurry."""
    gone: float
    """How often Vercel says of a resource that it is not there."""
    lost_messages: float
    doubled_messages: float
    jumps: tuple[float, ...]
    """By how much a clock may be set; empty: clocks are right."""
    hands: int
    """How many messages one worker has in hand at most."""
    favoured: Mapping[str, float]
    """How much more often some acts happen than usual, by name."""


def drawn(draw: random.Random) -> Conditions:  # noqa: PLR0911 - one for each temper
    """The conditions of one world."""
    doubt, refusals = draw.choice((0, 0, 1, 3)), draw.choice((0, 0, 1, 1))
    usual = Conditions(
        temper=draw.choice((Temper.USUAL, *Temper)),
        resources=draw.choice((1, 1, 2, 3)),
        policies=POLICIES,
        graces=GRACES,
        installations=draw.choice((1, 1, 2)),
        servers=draw.choice((1, 1, 2)),
        acts=draw.choice((120, 240, 480)),
        switching=draw.choice((0.1, 0.4, 1.0)),
        trouble=draw.choice((0.0, 0.01, 0.03, 0.08)),
        late=0.0,
        shut_out=draw.choice((0.0, 0.0, 0.3)),
        before_sending=0.0,
        steps=draw.choice((STEPS["quick"], STEPS["usual"], STEPS["usual"], STEPS["long"])),
        pauses=draw.choice(tuple(PAUSES.values())),
        suspends=draw.random() < 0.3,
        look=draw.choice((5.0, MINUTE)),
        flight=draw.choice((5.0, 100.0, 299.0)),
        answers=TAKEN * 4 + DOUBTFUL * doubt + REFUSING * refusals,
        emergencies=0.2,
        gone=0.25,
        lost_messages=draw.choice((0.0, 0.0, 0.05, 0.4)),
        doubled_messages=draw.choice((0.0, 0.05, 0.4)),
        jumps=(),
        hands=draw.choice((1, 2, 4)),
        favoured={},
    )
    hurried = replace(
        usual,
        resources=1,
        acts=960,
        switching=min(usual.switching, 0.4),
        policies=HURRIED_POLICIES,
        graces=HURRIED_GRACES,
        steps=HURRIED_STEPS,
    )
    match usual.temper:
        case Temper.HURRIED:
            favoured = {"ask": 3.0, "push_again": 5.0, "extend": 6.0, "late_push": draw.choice((0.2, 2.0)), "leave": 2.0}
            answers_ = TAKEN * 3 + DOUBTFUL * 2 + REFUSING * refusals
            return replace(
                hurried,
                late=draw.choice((0.0, 0.5)),
                flight=299.0,
                answers=answers_,
                emergencies=0.5,
                favoured=favoured,
            )
        case Temper.WRONG_CLOCKS:
            favoured = {"jump": 3.0, "ask": 3.0}
            return replace(usual, jumps=JUMPS, favoured=favoured, steps=draw.choice((STEPS["usual"], HURRIED_STEPS)), trouble=0.01)
        case Temper.GONE:
            return replace(usual, gone=0.8, answers=TAKEN + (answers.MISSING,) * 4)
        case Temper.FAILING:
            favoured = {"fail_over": 10.0, "clash": 8.0, "late_act": 2.0, "server_outage": 3.0}
            return replace(usual, trouble=draw.choice((0.03, 0.08)), favoured=favoured)
        case Temper.SUSPENDED:
            favoured = {"ask": 3.0, "stop": 2.0}
            return replace(
                hurried,
                trouble=min(usual.trouble, 0.01),
                before_sending=0.3,
                pauses=(46.0, 7 * MINUTE, 20 * MINUTE),
                suspends=True,
                flight=5.0,
                answers=TAKEN,
                favoured=favoured,
            )
        case Temper.LOSING:
            favoured = {"lose_login": 30.0, "fail_over": 3.0, "ask": 2.0, "late_act": draw.choice((0.2, 1.0)), "time_passes": 0.3}
            return replace(
                hurried,
                trouble=draw.choice((0.01, 0.03)),
                late=0.3,
                steps=STEPS["quick"],
                look=1.0,
                favoured=favoured,
                emergencies=0.7,
            )
        case _:
            return usual
