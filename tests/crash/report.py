"""What the crash points came to, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.crash.boundaries import Boundary
    from tests.crash.runs import Verdict


@dataclass(slots=True)
class Report:
    """Everything that was found out, while it is found out."""

    seed: int
    found: dict[Boundary, str] = field(default_factory=dict)
    """What runs without a fault passed, each with the scenario."""
    by_chance: set[Boundary] = field(default_factory=set)
    """What only some of the runs without a fault passed, so that it cannot be met at will."""
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0
    pairs: Counter[int] = field(default_factory=Counter)
    """How many histories felt so many of their two faults."""
    pairs_missed: int = 0
    """Histories in which not even the first one happened."""
    pairs_in_vain: int = 0
    """How many faults of pairs have changed nothing."""
    broken_pairs: int = 0
    pair_seconds: float = 0.0

    @property
    def tested(self) -> int:
        """How many boundaries something went wrong at."""
        felt = (one for one in self.verdicts if one.told.fired and not one.told.in_vain)
        return len({one.order.fault.boundary for one in felt if one.order.fault})

    @property
    def violations(self) -> int:
        return sum(bool(one.story) for one in self.verdicts)

    @property
    def missed(self) -> int:
        """Runs in which the fault that was ordered did not happen."""
        return sum(one.order.fault is not None and not one.told.fired for one in self.verdicts)

    @property
    def in_vain(self) -> int:
        """Faults that happened and changed nothing, as nothing was connected that could be cut."""
        return sum(one.told.in_vain for one in self.verdicts) + self.pairs_in_vain

    @property
    def is_clean(self) -> bool:
        """Whether something went wrong, as ordered, and no promise was broken. Of two faults, the first must happen."""
        return bool(self.tested or self.pairs) and not (self.violations or self.missed or self.broken_pairs or self.pairs_missed)

    def counted(self) -> dict[str, dict[str, int]]:
        """Runs by port and kind."""
        counts: dict[str, Counter[str]] = {}
        for one in self.verdicts:
            if one.order.fault:
                counts.setdefault(one.order.fault.boundary.port, Counter())[one.order.fault.kind] += 1
        return {port: dict(count) for port, count in sorted(counts.items())}

    def as_json(self) -> dict[str, object]:
        return {
            "seed": self.seed,
            "boundaries_found": len(self.found),
            "boundaries_met_by_chance": len(self.by_chance),
            "boundaries_tested": self.tested,
            "runs": len(self.verdicts),
            "runs_on_sqlite": sum(one.order.sqlite for one in self.verdicts),
            "runs_by_port_and_kind": self.counted(),
            "logins_of_customers": sum(one.logins for one in self.verdicts),
            "longest_to_rest": round(max((one.resumed for one in self.verdicts), default=0.0), 1),
            "faults_that_did_not_happen": self.missed + self.pairs_missed,
            "faults_without_effect": self.in_vain,
            "violations": self.violations,
            "seconds": round(self.seconds, 1),
            "pairs": sum(self.pairs.values()),
            "pairs_of_which_both_happened": self.pairs[2],
            "violations_of_pairs": self.broken_pairs,
            "seconds_of_pairs": round(self.pair_seconds, 1),
        }

    def lines(self) -> list[str]:
        """For a person."""
        told = self.as_json()
        counted = self.counted().items()
        table = [f"  {port:8}" + "".join(f"  {kind} {count}" for kind, count in sorted(kinds.items())) for port, kinds in counted]
        both = f"both happened in {told['pairs_of_which_both_happened']}, in {told['seconds_of_pairs']} s"
        return [
            f"boundaries: {told['boundaries_found']} found, {told['boundaries_tested']} tested; met by chance only: {len(self.by_chance)}",
            f"runs of real workers: {told['runs']}, {told['runs_on_sqlite']} of them on SQLite, in {told['seconds']} s (seed {self.seed})",
            *table,
            f"logins of customers: {told['logins_of_customers']}; longest from a fault to rest: {told['longest_to_rest']} s",
            f"pairs of faults, in process: {told['pairs']}, {both}",
            f"faults that did not happen: {told['faults_that_did_not_happen']}; without effect: {self.in_vain}",
            f"violations: {self.violations + self.broken_pairs}",
        ]
