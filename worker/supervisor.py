"""`rollover up`: one parent that starts everything, starts again what dies, and leaves nothing behind.

A child lives in a process group of its own, so that Ctrl-C reaches the parent alone, which then ends the children in order. When the
parent itself is killed, each child is told by the kernel (PR_SET_PDEATHSIG, prctl(2)) and also looks by itself whether its parent is
still there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

DRAIN_SECONDS = 45.0
"""How long a child may take to end its work: no step lasts longer than the longest claim."""

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, *, grace: float = DRAIN_SECONDS) -> None:
    """Let this process drain when its parent ends, and end it by force where it has not after `grace` seconds."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel knew that we care
        raise SystemExit(1)
    threading.Thread(target=_watch, args=(parent, grace), name="parent-watch", daemon=True).start()


def _watch(parent: int, grace: float) -> None:
    """The thread of `die_with`: where there is no prctl, and for a child that hangs in its last step."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGKILL)
