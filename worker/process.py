"""What one process holds while it runs: its ports, made when first asked for, so after a fork and never on import."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import structlog

from rotation.states import Alarm
from rotation.store.sql import SqlStore
from worker.settings import load
from worker.wiring import expect_keys, let_go, wire

if TYPE_CHECKING:
    from rotation.ports import Ports

_made: dict[int, Ports] = {}
_keys_seen: set[int] = set()
_making = threading.Lock()

log = structlog.get_logger()


def ports() -> Ports:
    """The ports of this process, with the keys of its store. A forked child makes its own: connections do not survive a fork.

    Raises `Invalid` for wrong settings, `Refused` for keys that are not those of the store, `Unavailable` when that does not answer.
    """
    here = os.getpid()
    with _making:
        if here not in _made:
            _made[here] = wire(load(os.environ))
        if here not in _keys_seen:
            for key_id in expect_keys(_made[here]):
                log.warning(Alarm.KEY_MISSING, alarm=True, key=key_id, advice=f"add it again, or `rollover keys abandon {key_id}`")
            _keys_seen.add(here)
        return _made[here]


def store() -> SqlStore:
    """The store of these ports, with what the audit trail needs beside what a rotation needs."""
    made = ports().store
    if not isinstance(made, SqlStore):
        raise TypeError(f"the wiring gives {type(made).__name__} for a store")
    return made


def close() -> None:
    """Close the connections to all others, where there are any; what is in use is closed when it is given back."""
    with _making:
        made = _made.pop(os.getpid(), None)
    if made is None:
        return
    let_go(made)
