"""What one process holds while it runs: its ports, made when first asked for, so after a fork and never on import."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from worker.settings import load
from worker.wiring import wire

if TYPE_CHECKING:
    from rotation.ports import Ports


def ports() -> Ports:
    """The ports of this process. Raises `Invalid` when a setting is wrong."""
    return _ports(os.getpid())


@cache
def _ports(_process: int) -> Ports:
    """A forked child makes its own: connections do not survive a fork."""
    return wire(load(os.environ))
