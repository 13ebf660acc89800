"""A child of `rollover up` does not outlive it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
LOOK_SECONDS = 1.0


def die_with(parent: int, *, drain: float) -> None:
    """Let this process drain when its parent ends, and end by force where that takes longer than `drain` seconds."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it ended before the kernel knew that we care
        raise SystemExit(1)
    threading.Thread(target=_watch, args=(parent, drain), name="orphan-watch", daemon=True).start()


def _watch(parent: int, drain: float) -> None:
    """Look for the parent: where there is no prctl, and for a child that hangs in its last step."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain)
    os.kill(os.getpid(), signal.SIGKILL)
