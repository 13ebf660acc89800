"""The command `rollover` with a worker whose ports fail as ordered: `python -m tests.canary.program worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.canary.faults import Orders, failing
from worker import process, wiring
from worker.cli.main import main

if TYPE_CHECKING:
    from rotation.ports import Ports
    from worker.settings import Settings

ORDERS = "CANARY_ORDERS"
"""The variable that names the directory of the orders."""


def wire(settings: Settings) -> Ports:
    """The real ports, wrapped."""
    return failing(wiring.wire(settings), Orders(Path(os.environ[ORDERS])))


if __name__ == "__main__":
    process.wire = wire  # type: ignore[attr-defined]  # in this process alone
    main()
