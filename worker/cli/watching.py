"""Looks on while a rotation goes its way. It only reads: ending it changes nothing."""

from collections.abc import Iterator
from datetime import datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING

from rotation.model import Rotation
from rotation.states import ROTATION_MOVES
from worker.cli import output

if TYPE_CHECKING:
    from worker.cli.session import Session

LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 10.0
"""So long without a move of a rotation that is due means that nobody works."""


def watch(here: "Session", rotation_id: str) -> Rotation:
    """Tell each step as it is recorded, on the error stream; gives the rotation when it has ended."""
    told: set[str] = set()
    seen: tuple[object, ...] = ()
    moved_at = monotonic()
    while True:
        rotation = here.store.views.rotation(rotation_id).rotation
        for state, at in _steps(rotation):
            if state not in told:
                told.add(state)
                output.done(f"{at.astimezone():%H:%M:%S}  {state}")
        if not ROTATION_MOVES[rotation.state]:
            return rotation
        now = (rotation.state, rotation.tries, rotation.fence, rotation.problem)
        if now != seen:
            seen, moved_at = now, monotonic()
            if rotation.problem:
                output.done(f"          {rotation.problem}" + (f" ({rotation.advice})" if rotation.advice else ""))
        elif monotonic() - moved_at > PATIENCE_SECONDS:
            moved_at = monotonic()
            output.done(f"          {_why_still(rotation, here.store.now())}")
        sleep(LOOK_SECONDS)


def _steps(rotation: Rotation) -> Iterator[tuple[str, datetime]]:
    """What is on record by now, in the order of the path."""
    yield "requested", rotation.requested_at
    for state in ("planned", "created", "verified", "offered"):
        at = getattr(rotation, f"{state}_at")
        if at is not None:
            yield state, at
    if rotation.ended_at is not None:
        yield rotation.state.value, rotation.ended_at


def _why_still(rotation: Rotation, now: datetime) -> str:
    if rotation.due_at is not None and rotation.due_at > now:
        return f"it goes on {output.distance(rotation.due_at, now)}"
    if rotation.due_at is None:
        return "it waits for somebody: `rollover status` says for whom"
    return "nothing has moved for a while: no worker seems to run (`rollover up`, or `rollover worker` and `rollover beat`)"
