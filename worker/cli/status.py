"""`rollover status`: the fleet in numbers, and whether anything waits for a person."""

from typing import TYPE_CHECKING

import typer

from worker.cli import output, session

if TYPE_CHECKING:
    from collections.abc import ItemsView

LATE_SECONDS = 60
"""What is due for longer than this is late: somebody should see whether workers run."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(*, as_json: output.Json = False) -> None:
    """Show the fleet in numbers.

    What is due, under way, in grace, blocked, parked, and what is late.
    """
    with session.opened() as here:
        found = here.store.views.status()
    if as_json:
        output.show(found)
        return
    oldest = found.oldest_due_at
    output.details(
        (
            ("resources", _counted(found.resources.items()) or "none: `rollover resource add FILE` adds one"),
            ("due now", found.due),
            ("under way", _counted(found.rotations.items()) or "none"),
            ("old logins", _counted(found.credentials.items()) or "none"),
            ("in grace", found.in_grace),
            ("in use, though over", found.waiting_for_use),
            ("failing", found.failing),
            ("parked", found.parked),
            ("logins lost", found.astray),
            ("logins without a row", found.orphans),
            ("held", found.held),
            ("oldest overdue", "nothing" if oldest is None else output.moment_and_distance(oldest, found.at)),
        )
    )
    if oldest is not None and (found.at - oldest).total_seconds() > LATE_SECONDS:
        output.warn("something is late: do workers run? (`rollover up`, or `rollover worker` and `rollover beat`)")
    if found.astray or found.orphans or found.held:
        output.warn("logins are not as the store says: `rollover reconcile` lists them")
    if found.parked:
        output.warn("pushes are held: `rollover installation list` says why")


def _counted(counts: "ItemsView[str, int]") -> str:
    return ", ".join(f"{count} {name}" for name, count in counts if count)
