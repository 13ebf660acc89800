"""The crashing worker: the real Celery application, the real tasks and the real ports, with an injector around the ports.

`celery -A tests.crash.application worker`, or `rollover worker` in a process that has imported this first. The order is in the
environment: which fault, and where the journal is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.boundaries import STORE, Fault
from tests.crash.injector import Injector
from tests.crash.journal import ORDER, Journal
from worker import hints, process, tasks
from worker.app import app
from worker.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rotation.ports import Ports
    from rotation.store.sql import SqlStore

__all__ = ["app"]


class Surroundings:
    """The ports and the store of this process, watched. A worker may make its ports anew, and is watched all the same."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        order = json.loads(environment[ORDER])
        fault = None if order["fault"] is None else Fault.read(order["fault"])
        patience = load(environment).terms().call_deadline
        self.injector = Injector(Journal(Path(order["journal"])), fault, order["servers"], patience, order["chance"])
        self._real: Ports | None = None
        self._watched: Ports | None = None
        self._real_store = process.store

    def ports(self) -> Ports:
        real = process.ports()
        if self._watched is None or real is not self._real:
            self._real, self._watched = real, self.injector.around(real)
        return self._watched

    def store(self) -> SqlStore:
        watched: SqlStore = self.injector.watched(STORE, self._real_store())
        return watched


_here = Surroundings(os.environ)
process.store = _here.store
for name, stand_in in {
    "ports": _here.ports,
    "send": _here.injector.broker("send", hints.send),
    "depth": _here.injector.broker("depth", hints.depth),
}.items():
    setattr(tasks, name, stand_in)  # the names by which the tasks reach what is outside
