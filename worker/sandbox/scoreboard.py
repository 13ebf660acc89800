"""What the demo shows and what it says at the end: values of the store and of the customers, and the promises that they prove. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation.states import ALIVE_STAGES, RotationState, Stage
from worker.sandbox.customers import Answer, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from rotation.states import PushBy

ROTATES_WITHIN = timedelta(seconds=10)
"""A run that is longer than this has no excuse for showing no rotation."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One credential of a resource, as the store has it."""

    number: int
    username: str
    stage: Stage
    grace_ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One resource, as the store has it. `state` is that of its rotation; None while nothing is under way."""

    name: str
    push_by: PushBy
    state: RotationState | None
    next_rotation_at: datetime | None
    completed: int
    failed: int
    problem: str
    generations: tuple[Generation, ...]

    @property
    def current(self) -> int | None:
        """The generation that is in force."""
        return next((one.number for one in self.generations if one.stage is Stage.CURRENT), None)

    def generation_of(self, username: str) -> int | None:
        """Which generation a login is."""
        return next((one.number for one in self.generations if one.username == username), None)

    def staged(self, *stages: Stage) -> tuple[Generation, ...]:
        """The generations in these stages, the oldest first."""
        return tuple(sorted((one for one in self.generations if one.stage in stages), key=lambda one: one.number))


@dataclass(frozen=True, slots=True)
class Board:
    """One look at everything: the store at its own time `now`, and each customer's application by the resource's name."""

    now: datetime
    elapsed: timedelta
    standings: tuple[Standing, ...]
    tallies: Mapping[str, Tally]
    deployed: Mapping[str, str]
    worker: int | None = None
    """The process id of a worker."""

    @property
    def rotations(self) -> int:
        """How many rotations have completed."""
        return sum(one.completed for one in self.standings)

    @property
    def retirements(self) -> int:
        """How many old logins were proved dead."""
        return sum(len(one.staged(Stage.RETIRED)) for one in self.standings)

    @property
    def in_grace(self) -> int:
        """How many old logins still work beside the current ones."""
        return sum(len(one.staged(Stage.PREVIOUS)) for one in self.standings)

    @property
    def total(self) -> Tally:
        """All applications together."""
        return together(self.tallies.values())


@dataclass(frozen=True, slots=True)
class Findings:
    """What the database server itself said at the end, when nothing moved any more: answers by user name, and logins that nobody owns."""

    held: Mapping[str, Answer]
    """The logins that Vercel holds."""
    in_grace: Mapping[str, Answer]
    retired: Mapping[str, Answer]
    orphans: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of the demo came to."""

    board: Board
    findings: Findings

    @property
    def promises(self) -> dict[str, bool]:
        """Each promise, and whether it was held."""
        total = self.board.total
        enough = self.board.elapsed >= ROTATES_WITHIN
        return {
            "logins were rotated": self.board.rotations > 0 or not enough,
            "no login was refused": total.refused == 0 and total.accepted > 0,
            "every login reached the database": total.unreachable == 0,
            "no open session was broken": total.broken == 0,
            "what Vercel holds logs in": _all(self.findings.held, Answer.ACCEPTED),
            "what is in grace logs in": _all(self.findings.in_grace, Answer.ACCEPTED),
            "what is retired is refused": _all(self.findings.retired, Answer.REFUSED),
            "every retired login was tried": len(self.findings.retired) == self.board.retirements,
            "no login was left behind": not self.findings.orphans,
        }

    @property
    def held(self) -> bool:
        """Whether every promise was held."""
        return all(self.promises.values())

    def figures(self) -> dict[str, object]:
        """The summary for machines."""
        total = self.board.total
        return {
            "seconds": round(self.board.elapsed.total_seconds(), 1),
            "resources": len(self.board.standings),
            "rotations": self.board.rotations,
            "rotations_failed": sum(one.failed for one in self.board.standings),
            "retirements_proved": self.board.retirements,
            "credentials_in_grace": self.board.in_grace,
            "deployments": total.deployments,
            "logins_tried": total.tried,
            "logins_accepted": total.accepted,
            "logins_refused": total.refused,
            "connection_errors": total.unreachable,
            "queries": total.queries,
            "queries_broken": total.broken,
            "orphan_logins": len(self.findings.orphans),
            "promises": self.promises,
        }


def together(tallies: Iterable[Tally]) -> Tally:
    """The sum of several tallies."""
    total = Tally()
    for one in tallies:
        total = replace(
            total,
            accepted=total.accepted + one.accepted,
            refused=total.refused + one.refused,
            unreachable=total.unreachable + one.unreachable,
            queries=total.queries + one.queries,
            broken=total.broken + one.broken,
            deployments=total.deployments + one.deployments,
        )
    return total


def changes(before: Board | None, after: Board) -> tuple[str, ...]:
    """What happened between two looks, a sentence each."""
    if before is None:
        return ()
    known = {one.name: one for one in before.standings}
    return tuple(sentence for standing in after.standings for sentence in _told(known[standing.name], standing, before, after))


def orphans(found: Iterable[str], standings: Iterable[Standing]) -> tuple[str, ...]:
    """Of the logins that the server has of us, those that the store does not know or says are gone."""
    alive = {one.username for standing in standings for one in standing.generations if one.stage in ALIVE_STAGES}
    return tuple(sorted(set(found) - alive))


def _told(earlier: Standing, standing: Standing, before: Board, after: Board) -> Iterator[str]:
    stages = {one.number: one.stage for one in earlier.generations}
    for one in sorted(standing.generations, key=lambda one: one.number):
        if one.stage is stages.get(one.number):
            continue
        match one.stage:
            case Stage.CURRENT:
                yield f"{standing.name}: generation {one.number} logs in, Vercel holds it"
            case Stage.PREVIOUS if one.grace_ends_at is not None:
                yield f"{standing.name}: generation {one.number} keeps working for {seconds(one.grace_ends_at - after.now)}"
            case Stage.RETIRED:
                yield f"{standing.name}: generation {one.number} is gone, the database refused it"
            case _:
                pass
    if standing.failed > earlier.failed:
        yield f"{standing.name}: a rotation failed: {standing.problem}"
    username = after.deployed.get(standing.name)
    if username and username != before.deployed.get(standing.name):
        yield f"{standing.name}: the customer redeployed and uses generation {standing.generation_of(username)}"
    if after.tallies[standing.name].refused > before.tallies[standing.name].refused:
        yield f"{standing.name}: A LOGIN WAS REFUSED"


def seconds(left: timedelta) -> str:
    """A short time, such as `8s`."""
    return f"{max(0, round(left.total_seconds()))}s"


def _all(answers: Mapping[str, Answer], expected: Answer) -> bool:
    return all(answer is expected for answer in answers.values())
