"""`rollover credential list` and `rollover events`: which logins there were, and who did what."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import arguments, output, session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rotation.model import Credential
    from rotation.store.views import CredentialLine, EventLine

credentials = typer.Typer(name="credential", help="The logins of a resource, one a generation.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(credentials)
    root.command()(events)


@credentials.command("list")
def list_all(name: arguments.ResourceName, *, as_json: output.Json = False) -> None:
    """List the logins of a resource, the newest first, and who was seen using each."""
    with session.opened() as here:
        found = here.store.views.credentials(here.resource(name).id)
        now = here.store.now()
    if as_json:
        output.show([_plain(one) for one in found])
        return
    output.table(
        (">", "login", "stage", "ends", "last used", "by", "credential"),
        [
            (
                one.credential.generation,
                one.credential.username,
                "compromised, " * one.credential.compromised + one.credential.stage,
                output.distance(_end(one.credential), now),
                output.distance(one.credential.last_seen_at, now),
                tuple(f"{seen.client} {seen.application}".strip() for seen in one.sightings[:3]),
                one.credential.id,
            )
            for one in found
        ],
        nothing=f"there is no login yet: `rollover rotate {name}` makes the first one",
    )
    for one in found:
        if one.credential.problem:
            output.warn(f"{one.credential.username}: {one.credential.problem}")


def events(
    name: Annotated[str | None, typer.Argument(metavar="[RESOURCE]", help="Only of this resource.")] = None,
    *,
    limit: arguments.Limit = 50,
    as_json: output.Json = False,
) -> None:
    """Show who did what, and why.

    The newest first. `rollover audit verify` proves that nothing was changed.
    """
    with session.opened() as here:
        found = here.store.views.events(None if name is None else here.resource(name).id, limit=limit)
        names = {} if as_json else _names(here, found)
    if as_json:
        output.show([_told(one) for one in found])
        return
    output.table(
        ("when", "what", "about", "who", "why"),
        [(one.at, one.event.kind, names.get(one.chain) or _subject(one), one.event.actor, one.event.why) for one in found],
        nothing="nothing has happened yet",
    )


def _names(here: session.Session, found: "Sequence[EventLine]") -> dict[str, str]:
    """What people call the resources that the lines are about."""
    from rotation.store.rules import INSTALLATIONS  # noqa: PLC0415 - imported when it runs

    return {chain: here.store.resource(chain).name for chain in {one.chain for one in found} - {INSTALLATIONS}}


def _subject(line: "EventLine") -> object:
    """What a line of the other chain is about: an installation or a server, by its first detail."""
    return line.event.detail[0][1] if line.event.detail else None


def _end(credential: "Credential") -> "datetime | None":
    return credential.ended_at or credential.grace_ends_at


def _plain(line: "CredentialLine") -> dict[str, object]:
    """Everything but what is sealed."""
    one = line.credential
    shown = ("id", "generation", "username", "stage", "adopted", "compromised", "recorded_at", "current_at", "previous_at", "grace_ends_at")
    more = ("blocked_at", "ended_at", "due_at", "tries", "problem", "last_seen_at")
    return {name: getattr(one, name) for name in (*shown, *more)} | {"sightings": line.sightings}


def _told(line: "EventLine") -> dict[str, object]:
    event = line.event
    place = {"at": line.at, "chain": line.chain, "number": line.number}
    about = {"rotation": line.rotation_id, "credential": line.credential_id}
    return place | {"kind": event.kind, "actor": event.actor, "why": event.why, "detail": dict(event.detail)} | about
