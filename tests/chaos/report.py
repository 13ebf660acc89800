"""What a run of chaos came to, for people and as JSON, and whether every promise was kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RESUMED_SECONDS = 60.0
"""After so long the system must have gone on, whatever was killed, and with every rotation that was in hand then. So long after the chaos
every rotation must have ended, and so long after its grace, or after the chaos, every login that nobody uses."""
EMERGENCY_SECONDS = 30.0
"""After so long an emergency must have ended the old login, where nothing else goes wrong."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took, in seconds."""

    count: int = 0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread:
        ranked = sorted(seconds)
        if not ranked:
            return cls()
        return cls(len(ranked), *(round(ranked[int(share * (len(ranked) - 1))], 3) for share in (0.5, 0.99, 1.0)))

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} s, p99 {self.p99:.2f} s, max {self.longest:.2f} s ({self.count})"


@dataclass(slots=True)
class Report:
    """Everything that was done and found. Counts but for what says otherwise."""

    seed: int
    resources: int = 0
    seconds: float = 0.0
    """How long chaos lasted."""
    rotations: Counter[str] = field(default_factory=Counter)
    """By how they ended."""
    retired: int = 0
    kills: int = 0
    freezes: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    """Of servers and the broker, by what was restarted."""
    processes_restarted: int = 0
    ended_by_themselves: Counter[str] = field(default_factory=Counter)
    """Processes that nobody had killed, by name."""
    flushes: int = 0
    vercel_faults: Counter[str] = field(default_factory=Counter)
    """That a push met with, by kind."""
    spoilt_connections: Counter[str] = field(default_factory=Counter)
    """By what the proxies did to them."""
    asked: int = 0
    """Requests that were accepted."""
    watched: int = 0
    """Resources whose customers log in all the time."""
    probes: int = 0
    probes_a_second: float = 0.0
    """For each of those resources."""
    visited: int = 0
    """Resources whose customers log in now and then."""
    visits: int = 0
    after_grace: int = 0
    """Refused when it was no longer promised."""
    unreachable: int = 0
    refused: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stalled: list[str] = field(default_factory=list)
    """Rotations in hand at a kill that nobody went on with for a minute."""
    overdue: list[str] = field(default_factory=list)
    """Rotations that had not ended a minute after the chaos."""
    late: list[str] = field(default_factory=list)
    """Logins that were let in for more than a minute after their grace, when nothing went wrong any more."""
    slow: list[str] = field(default_factory=list)
    """Logins that were let in for too long after an emergency, when nothing went wrong any more."""
    broken: list[str] = field(default_factory=list)
    """Any other promise that was not kept."""
    next_act: Spread = field(default_factory=Spread)
    """From a kill to the next thing that anybody recorded."""
    resumed: Spread = field(default_factory=Spread)
    """From a kill until somebody took the next step of each rotation that was in hand then, or tried to."""
    ended: Spread = field(default_factory=Spread)
    """From the end of the chaos until each rotation that was under way then had ended."""
    blocked: Spread = field(default_factory=Spread)
    """In the chaos, from when a login had no grace left and no user until it was blocked. It is told, not judged."""
    blocked_afterwards: Spread = field(default_factory=Spread)
    """The same after the chaos, from its end at the earliest."""
    emergency: Spread = field(default_factory=Spread)
    """In the chaos, from when an emergency was asked for until the login was blocked that was current then. It is told, not judged."""
    emergency_afterwards: Spread = field(default_factory=Spread)
    """After the chaos, until the old login let nobody in any more, seen from outside."""
    settled_seconds: float = 0.0
    """From the end of the chaos until no rotation was under way, and no login on its way out."""

    @property
    def faults(self) -> list[str]:
        """Why it is not clean; nothing: it is."""
        found = {
            "a login was refused": self.refused,
            "a login was retired early": self.early,
            "an orphan was left": self.orphans,
            "a rotation was lost": self.lost,
            "a rotation stood still": self.stalled,
            "a rotation ended late after the chaos": self.overdue,
            "a login was blocked late": self.late,
            "an emergency was slow": self.slow,
            "a promise was broken": self.broken,
        }
        lines = [f"{what}: {one}" for what, ones in found.items() for one in ones]
        nothing = {
            "rotated": self.rotations["completed"],
            "killed": self.kills,
            "tried by customers": self.probes + self.visits - self.unreachable,
            "blocked after the chaos": self.blocked_afterwards.count,
            "asked for as an emergency after the chaos": self.emergency_afterwards.count,
        }
        lines += [f"nothing was {what}" for what, count in nothing.items() if not count]
        if self.next_act.longest > RESUMED_SECONDS:
            lines.append(f"after a kill nothing was done for {self.next_act.longest:.0f} s")
        return lines

    def as_json(self) -> dict[str, Any]:
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        spreads = {name: asdict(value) for name, value in told.items() if isinstance(value, Spread)}
        return {**told, **spreads, "clean": not self.faults}

    def lines(self) -> list[str]:
        """For a person."""
        ended = _counted(self.ended_by_themselves)
        logins = f"probes: {self.probes}, {self.probes_a_second:.1f} a second for each of {self.watched} resources"
        visits = f"visits: {self.visits} of {self.visited} others"
        kept = {
            "refused": self.refused,
            "early": self.early,
            "late": self.late,
            "orphans": self.orphans,
            "lost": self.lost,
            "stalled": self.stalled,
            "overdue": self.overdue,
            "slow emergencies": self.slow,
        }
        return [
            f"chaos on {self.resources} resources for {self.seconds:.0f} s (seed {self.seed})",
            f"rotations: {self.rotations.total()} ({_counted(self.rotations)}); logins retired: {self.retired}; asked for: {self.asked}",
            f"kills: {self.kills}; freezes: {self.freezes}; started again: {self.processes_restarted}; ended by themselves: {ended}",
            f"restarts: {self.restarts.total()} ({_counted(self.restarts)}); broker wiped: {self.flushes}",
            f"faults of Vercel: {self.vercel_faults.total()} ({_counted(self.vercel_faults)})",
            f"spoilt connections: {self.spoilt_connections.total()} ({_counted(self.spoilt_connections)})",
            f"{logins}; {visits}; unreachable: {self.unreachable}; refused after their grace: {self.after_grace}",
            f"from a kill to the next act: {self.next_act}",
            f"from a kill until a rotation in hand went on: {self.resumed}",
            f"from a grace's end to the block: {self.blocked}; after the chaos: {self.blocked_afterwards}",
            f"from an emergency to the block: {self.emergency}; after the chaos until it was refused: {self.emergency_afterwards}",
            f"from the end of the chaos to the end of a rotation: {self.ended}; everything had settled in {self.settled_seconds:.1f} s",
            "; ".join(f"{what}: {len(ones)}" for what, ones in {**kept, "other broken promises": self.broken}.items()),
            *self.faults,
        ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


SUMMED = ("kills", "freezes", "flushes", "processes_restarted", "asked", "retired", "probes", "visits", "unreachable", "seconds")
COUNTED = ("rotations", "restarts", "vercel_faults", "spoilt_connections")
LISTED = ("refused", "early", "late", "orphans", "lost", "stalled", "overdue", "slow", "broken")
SPREAD = ("next_act", "resumed", "ended", "blocked", "blocked_afterwards", "emergency", "emergency_afterwards")


def summed(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several runs, as `as_json` told of each, as one."""
    return {
        "runs": len(reports),
        "seeds": [one["seed"] for one in reports],
        **{name: round(sum(one[name] for one in reports), 1) for name in SUMMED},
        **{name: dict(sum((Counter(one[name]) for one in reports), Counter())) for name in COUNTED},
        **{name: [fault for one in reports for fault in one[name]] for name in LISTED},
        **{f"{name}_count": sum(one[name]["count"] for one in reports) for name in SPREAD},
        **{f"{name}_longest": max((one[name]["longest"] for one in reports), default=0.0) for name in SPREAD},
        "settled_seconds_longest": max((one["settled_seconds"] for one in reports), default=0.0),
        "clean": bool(reports) and all(one["clean"] for one in reports),
    }
