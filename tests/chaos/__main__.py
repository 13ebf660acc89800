"""`python -m tests.chaos`: chaos on the whole system, and whether any promise was broken."""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from tests.acceptance.conftest import CUSTOMERS, STORE, new_database
from tests.chaos import verdicts
from tests.chaos.customers import Customers
from tests.chaos.emergencies import ask_for_all
from tests.chaos.mayhem import Mayhem
from tests.chaos.report import Report, summed
from tests.chaos.rig import ChaosRig
from tests.chaos.supervisor import Supervisor
from tests.crash.nursery import Nursery
from tests.rigs import prepared
from worker.durations import format_duration, parse_duration
from worker.sandbox.postgresql import PrivatePostgresql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.mayhem import Deeds

RESOURCES = 200
FEWER, SHORT = 60, timedelta(minutes=4)
"""In a short run every resource shall rotate several times, and the whole shall be over soon."""
WATCHED = 6
"""Each of these customers logs in some 20 times a second: together they take one of two cores."""
SETTLED_WITHIN = 150.0
"""Seconds after the chaos. Open rotations go on within 60; after them come graces and what waits behind others."""
EMERGENCIES = 8
"""Asked for when everything has settled, to see how soon each is through."""
TELL_SECONDS, SHOWN = 15.0, 6
"""How often, and of how much of what is under way, somebody who watches is told."""
DURABLE = {"synchronous_commit": "on", "fsync": "off"}
"""Servers are killed, the machine is not: what they have written is there again, though not on the disk."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    if options.sum:
        total = summed([json.loads(path.read_text()) for path in options.sum])
        sys.stdout.write(json.dumps(total, indent=2) + "\n")
        return 0 if total["clean"] else 1
    report = Report(options.seed, seconds=options.lasts.total_seconds())
    os.environ["SSL_CERT_FILE"] = os.devnull  # nothing here is TLS, and to read the system's certificates for each context takes long
    with Nursery() as nursery, tempfile.TemporaryDirectory(prefix="chaos") as place, capture_logs():
        _run(report, options, nursery, Path(place))
    sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n" if options.json else "\n".join(report.lines()) + "\n")
    return 1 if report.faults else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--for", dest="lasts", type=parse_duration, default=timedelta(minutes=10), help="how long, e.g. 3m (10m)")
    parser.add_argument("--resources", type=int, help=f"how many ({RESOURCES}; {FEWER} in less than {format_duration(SHORT)})")
    parser.add_argument("--watched", type=int, default=WATCHED, help=f"of how many of them the customers log in all the time ({WATCHED})")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of all draws; printed at the end")
    parser.add_argument("--json", action="store_true", help="the report as JSON, on the standard output")
    parser.add_argument("--sum", type=Path, nargs="+", metavar="FILE", help="nothing is run: the sum of reports that --json has told")
    options = parser.parse_args(arguments)
    if options.resources is None:
        options.resources = FEWER if options.lasts < SHORT else RESOURCES
    return options


def _run(report: Report, options: argparse.Namespace, nursery: Nursery, place: Path) -> None:
    chance = random.Random(options.seed)  # noqa: S311 - the same draws each time
    with (
        PrivatePostgresql(place / "store", settings={**STORE, **DURABLE}) as store,
        PrivatePostgresql(place / "direct", settings={**CUSTOMERS, **DURABLE}) as direct,
        PrivatePostgresql(place / "proxied", settings={**CUSTOMERS, **DURABLE}) as proxied,
    ):
        servers = [prepared("direct", direct, place), prepared("proxied", proxied, place)]
        with ChaosRig(place, servers, new_database(store), nursery, chance) as rig:
            _tell("registering the fleet")
            rig.add_fleet(options.resources)
            supervisor = Supervisor(rig)
            watched = chance.sample(rig.resources, min(options.watched, len(rig.resources)))
            calm, hurried = watched[len(watched) // 4 :], watched[: len(watched) // 4]
            promises = {one.spec.external_id: one.spec.policy.grace for one in calm}
            promises |= {one.spec.external_id: timedelta(0) for one in hurried}
            visited = [one.spec.external_id for one in rig.resources if one not in watched]
            customers = Customers(rig.vercel, promises, {rig.before_server.port: proxied.port}, visited)
            mayhem = Mayhem(rig, supervisor, store, calm, chance)
            suffering = [one for one in rig.resources if one not in calm]
            suffering = chance.sample(suffering, min(EMERGENCIES, len(suffering)))
            with customers:
                _tell("chaos")
                mayhem.run(report.seconds)
                mayhem.deeds.over = rig.steadily(rig.store.now)
                _tell("settling")
                rig.steadily(rig.unschedule)
                report.settled_seconds = _settle(rig, supervisor)
                _tell("emergencies")
                verdicts.judge_emergencies(report, ask_for_all(rig, customers, suffering, mayhem.deeds))
                _settle(rig, supervisor)
            _tell("judging")
            _fill(report, rig, supervisor, mayhem.deeds, customers)


def _settle(rig: ChaosRig, supervisor: Supervisor) -> float:
    """How long it took until no rotation was under way, and no login on its way out."""
    began = told = time.monotonic()
    while (moving := rig.steadily(rig.moving)) and time.monotonic() < began + SETTLED_WITHIN:
        supervisor.look()
        if time.monotonic() > told + TELL_SECONDS:
            told = time.monotonic()
            _tell(f"{len(moving.rotations)} rotations and {len(moving.logins)} logins under way", *moving.lines()[:SHOWN])
        time.sleep(rig.look)
    return time.monotonic() - began


def _fill(report: Report, rig: ChaosRig, supervisor: Supervisor, deeds: Deeds, customers: Customers) -> None:
    report.resources = len(rig.resources)
    report.kills, report.freezes, report.flushes = len(deeds.kills), deeds.freezes, deeds.flushes
    report.restarts, report.vercel_faults, report.asked = deeds.restarts, deeds.vercel, len(deeds.accepted)
    report.processes_restarted = supervisor.restarts
    report.ended_by_themselves.update(supervisor.ended_by_themselves)
    for proxy in (rig.before_server, rig.before_vercel):
        report.spoilt_connections.update({fault.value: count for fault, count in proxy.happened.items()})
    report.watched, report.visited = len(customers.watched), len(customers.visited)
    report.probes, report.visits = customers.tried(customers.watched), customers.tried(customers.visited)
    report.probes_a_second = round(report.probes / customers.seconds / max(report.watched, 1), 1)
    report.unreachable = customers.unreachable
    report.after_grace = customers.late
    verdicts.count(report, rig, deeds)
    verdicts.judge(report, rig, customers, deeds)


def _tell(what: str, *more: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n" + "".join(f"  {one}\n" for one in more))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
