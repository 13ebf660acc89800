"""`python -m tests.mutants`: which safeguard is missed by how many worlds when it is left out, and by which one first."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

from tests.mutants.safeguards import mutants
from tests.simulation import runs

FEW = 3
"""A mutant is caught for certain when so many worlds have broken a promise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one mutant: in how many worlds it was looked for, how many broke a promise, the first one, and which promises.

    `argued` says why none can, where that is so.
    """

    name: str
    seeds: int
    caught: int
    first: int | None
    invariants: dict[str, int]
    argued: str

    @property
    def is_held(self) -> bool:
        """Whether somebody would notice that the safeguard is gone."""
        return bool(self.caught or self.argued)


def judge(name: str, first: int, most: int) -> Verdict:
    """Play worlds until enough of them have broken a promise. One that is hard to catch is looked for in all of them."""
    runs.quieten()
    broken: list[runs.Broken] = []
    seeds = 0
    mutant = mutants()[name]
    most = min(most, runs.CHUNK) if mutant.argued else most
    with mutant.on():
        for seed in range(first, first + most):
            seeds += 1
            try:
                runs.play(seed)
            except Exception as error:  # noqa: BLE001  # a crash is caught as well
                broken.append(runs.Broken(seed, getattr(error, "invariant", type(error).__name__), str(error)))
            if len(broken) >= FEW:
                break
    first_seed = broken[0].seed if broken else None
    return Verdict(name, seeds, len(broken), first_seed, dict(Counter(one.invariant for one in broken)), mutant.argued)


def main() -> int:
    """Judge them all. Gives 1 when one was neither caught nor argued for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3_000, help="how many worlds a mutant is looked for in at most (3000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--only", nargs="*", choices=sorted(mutants()), help="these mutants alone")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    arguments = parser.parse_args()
    names = arguments.only or list(mutants())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        verdicts = []
        for verdict in pool.map(judge, names, [arguments.first] * len(names), [arguments.seeds] * len(names)):
            verdicts.append(verdict)
            if not arguments.json:
                print(line(verdict), flush=True)  # noqa: T201  # it is a command
    if arguments.json:
        print(json.dumps([asdict(one) for one in verdicts], indent=2))  # noqa: T201
    missed = [one.name for one in verdicts if not one.is_held]
    if not arguments.json:
        caught = sum(one.caught > 0 for one in verdicts)
        print(f"{caught} of {len(verdicts)} mutants caught, {len(verdicts) - caught - len(missed)} argued for, {len(missed)} missed")  # noqa: T201
    return 1 if missed else 0


def line(one: Verdict) -> str:
    """One verdict for a person."""
    by = ", ".join(f"{name} {count}" for name, count in sorted(one.invariants.items()))
    unseen = f"argued for: {one.argued}" if one.argued else f"MISSED in {one.seeds} worlds"
    found = f"{one.caught} of {one.seeds} worlds, first seed {one.first} ({by})" if one.caught else unseen
    return f"{one.name:22} {found}"


if __name__ == "__main__":
    sys.exit(main())
