"""Emergencies when all is well again: how soon the old login lets nobody in any more, seen from outside.

Whether what Vercel holds logs in meanwhile, the customers see.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rotation import requests
from rotation.states import Trigger
from tests.chaos.deadlines import Took
from worker.sandbox.customers import Answer, knock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rotation.model import Resource
    from tests.chaos.customers import Customers
    from tests.chaos.mayhem import Deeds
    from tests.chaos.rig import ChaosRig
    from worker.sandbox.customers import Address

PATIENCE = 60.0
"""Seconds; twice what is promised, so that it can be told how much too long it took."""
KNOCK_SECONDS = 0.1


def ask_for_all(rig: ChaosRig, customers: Customers, resources: Sequence[Resource], deeds: Deeds) -> list[Took]:
    """One of each resource, all at once. The old login of each, and how long it still let somebody in from when that was accepted."""

    def ask(resource: Resource) -> Took:
        old = customers.diary.of(resource.spec.external_id)[-1].door
        asked = requests.Asked(Trigger.EMERGENCY, "chaos", "a password was seen in a log")
        received = rig.steadily(lambda: requests.trigger(resource.id, asked, rig.ports))
        assert received.rotation_id is not None
        deeds.accepted.append(received.rotation_id)
        return Took(old.login.username, _until_refused(old))

    with ThreadPoolExecutor(max(len(resources), 1)) as pool:
        return list(pool.map(ask, resources))


def _until_refused(door: Address) -> float | None:
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        if knock(door) is Answer.REFUSED:
            return time.monotonic() - began
        time.sleep(KNOCK_SECONDS)
    return None
