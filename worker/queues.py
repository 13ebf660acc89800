"""The queues, by urgency: Celery serves the queues of one worker round robin, so what is urgent has workers of its own."""

from __future__ import annotations

from enum import StrEnum


class Queue(StrEnum):
    """Where a hint goes."""

    URGENT = "rollover.urgent"
    """Rotations that a person, Vercel or an emergency asked for."""
    SCHEDULED = "rollover.scheduled"
    """Rotations that the schedule asked for."""
    RETIREMENT = "rollover.retirement"
    """Credentials whose grace is over; their own queue, so that an outage of Vercel does not hold them up."""
    HEALING = "rollover.healing"
    """Logins that are not as their rows say; their own queue, so that a server that has lost a thousand holds up no emergency."""
    TICK = "rollover.tick"
    """The sweep itself, never behind a backlog."""
