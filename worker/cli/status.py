"""`rollover status`: the fleet in numbers, and whether anything waits for a person."""

from typing import TYPE_CHECKING

import typer

from worker.cli import output, session

if TYPE_CHECKING:
    from collections.abc import ItemsView


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)
    app.command()(metrics)


def status(*, as_json: output.Json = False) -> None:
    """Show the fleet in numbers.

    What is due, under way, in grace, blocked, parked, what is late, and which alarms stand.
    """
    from rotation.states import Alarm  # noqa: PLC0415 - not for help

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
            ("alarms", _counted(found.alarms.items()) or "none"),
            ("logins lost", found.astray),
            ("logins without a row", found.orphans),
            ("held", found.held),
            ("oldest overdue", "nothing" if oldest is None else output.moment_and_distance(oldest, found.at)),
        )
    )
    if Alarm.WORK_OVERDUE in found.alarms:
        output.warn("something is late: do workers run? (`rollover up`, or `rollover worker` and `rollover beat`)")
    if found.astray or found.orphans or found.held:
        output.warn("logins are not as the store says: `rollover reconcile` lists them")
    if found.parked:
        output.warn("pushes are held: `rollover installation list` says why")


def metrics() -> None:
    """Print the fleet in numbers for Prometheus.

    Everything comes from the store, so that it is the same wherever it is asked: by a textfile collector or a script, say.
    """
    from worker import metrics as page  # noqa: PLC0415 - not for help

    with session.opened() as here:
        output.line(page.text(here.store.views.status()).rstrip())


def _counted(counts: "ItemsView[str, int]") -> str:
    return ", ".join(f"{count} {name}" for name, count in counts if count)
