"""What the crash points came to, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.boundaries import Boundary
    from tests.crash.runs import Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found out. `found` are the boundaries of the runs without a fault."""

    found: Sequence[Boundary]
    verdicts: Sequence[Verdict]
    seed: int
    seconds: float

    @property
    def tested(self) -> int:
        """How many boundaries something went wrong at."""
        return len({one.order.fault.boundary for one in self.verdicts if one.order.fault and one.fired})

    @property
    def violations(self) -> list[Verdict]:
        return [one for one in self.verdicts if one.story]

    @property
    def missed(self) -> list[Verdict]:
        """Runs in which the fault that was ordered did not happen."""
        return [one for one in self.verdicts if one.order.fault and not one.fired]

    def counted(self) -> dict[str, dict[str, int]]:
        """Runs by port and kind."""
        counts: dict[str, Counter[str]] = {}
        for one in self.verdicts:
            if one.order.fault:
                counts.setdefault(one.order.fault.boundary.port, Counter())[one.order.fault.kind] += 1
        return {port: dict(count) for port, count in counts.items()}

    def as_json(self) -> dict[str, object]:
        return {
            "boundaries_found": len(self.found),
            "boundaries_tested": self.tested,
            "runs": len(self.verdicts),
            "runs_by_port": self.counted(),
            "on_sqlite": sum(one.order.sqlite for one in self.verdicts),
            "logins": sum(one.logins for one in self.verdicts),
            "violations": len(self.violations),
            "did_not_fire": len(self.missed),
            "longest_to_rest": round(max((one.resumed for one in self.verdicts), default=0.0), 1),
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
        }

    def lines(self) -> list[str]:
        """For a person."""
        told = self.as_json()
        counts = self.counted()
        table = [f"  {port:8} " + "  ".join(f"{kind} {count}" for kind, count in sorted(counts[port].items())) for port in sorted(counts)]
        return [
            f"boundaries: {told['boundaries_found']} found, {told['boundaries_tested']} tested",
            f"runs: {told['runs']}, of which {told['on_sqlite']} on SQLite, in {told['seconds']} s (seed {self.seed})",
            *table,
            f"logins of customers: {told['logins']}; longest from a fault to rest: {told['longest_to_rest']} s",
            f"faults that did not happen: {told['did_not_fire']}",
            f"violations: {told['violations']}",
        ]
