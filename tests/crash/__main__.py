"""`python -m tests.crash`: every crash point, with a real worker that dies there."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.conftest import CUSTOMERS, STORE
from tests.crash.boundaries import faults_at
from tests.crash.lanes import Lanes
from tests.crash.runs import Order, Servers
from tests.crash.scenarios import SCENARIOS
from tests.rigs import prepared
from worker.sandbox.postgresql import PrivatePostgresql


def main() -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash") as place:
        directory = Path(place)
        with PrivatePostgresql(directory / "customers", settings=CUSTOMERS) as customers, PrivatePostgresql(directory / "store", settings=STORE) as store:
            servers = Servers(prepared("customers", customers, directory), store)
            with Lanes(4, servers) as lanes:
                found = {}
                for verdict in lanes.verdicts([Order(n, name) for n, name in enumerate(SCENARIOS)]):
                    print(verdict.order, verdict.seconds, verdict.logins, verdict.story)
                    for one in verdict.boundaries:
                        found.setdefault(one, verdict.order.scenario)
                for b, s in found.items():
                    print("  ", s, b, len(faults_at(b)))
                faults = [(f, s) for b, s in found.items() for f in faults_at(b)]
                print(len(found), len(faults), time.monotonic() - began)
                if len(sys.argv) > 1:
                    faults = [(f, s) for f, s in faults if sys.argv[1] in f"{s}: {f}"]
                    for verdict in lanes.verdicts([Order(100 + n, s, f) for n, (f, s) in enumerate(faults)]):
                        print(f"{time.monotonic() - began:.0f}", verdict.order, f"{verdict.seconds:.1f} {verdict.resumed:.1f}", verdict.logins, "" if verdict.fired else "DID NOT FIRE", verdict.story, flush=True)
    return 0


sys.exit(main())
