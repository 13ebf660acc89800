"""`rollover installation`: customers' installations, and the tokens that we push with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Fault, Invalid
from worker.cli import arguments, output, session

if TYPE_CHECKING:
    from rotation.model import Installation

app = typer.Typer(name="installation", help="Customers' installations, and their tokens.", no_args_is_help=True)

TokenFile = Annotated[
    Path | None, typer.Option(help="A file that holds the token. Without it: the standard input, or a prompt at a terminal.")
]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.command()
def add(
    installation: arguments.InstallationId,
    *,
    token_file: TokenFile = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="It has none yet, or short-lived tokens are fetched.")] = False,
) -> None:
    """Add an installation with its token. A token is never given on the command line, where others can read it."""
    from rotation.model import Event, Installation, SealContext  # noqa: PLC0415 - imported when it runs

    _check_id(installation)
    if no_token and token_file is not None:
        raise typer.BadParameter("--no-token and --token-file contradict each other")
    token = None if no_token else arguments.token(token_file)
    with session.opened(seals=token is not None) as here:
        sealed = None if token is None else here.ports.sealer.seal(token, SealContext(installation, "", "", "token"))
        event = Event("installation_added", session.actor(), detail=(("installation", installation),))
        here.store.add_installation(Installation(installation, sealed), event)
    output.done(f"added {installation}" + ("; it has no token yet" if no_token else ""))


@app.command("list")
def list_all(*, as_json: output.Json = False) -> None:
    """List the installations."""
    with session.opened() as here:
        found = here.store.installations()
    if as_json:
        output.show([_plain(one) for one in found])
        return
    output.table(
        ("installation", "state", "since", "why"),
        [(one.id, _state(one), output.moment_and_distance(one.parked_at), one.parked_reason) for one in found],
        nothing="there is no installation: `rollover installation add ID` adds one",
    )


@app.command()
def show(installation: arguments.InstallationId, *, as_json: output.Json = False) -> None:
    """Show one installation. Its token is never shown."""
    with session.opened() as here:
        found = here.store.installation(installation)
    if as_json:
        output.show(_plain(found))
        return
    output.details(
        (
            ("installation", found.id),
            ("state", _state(found)),
            ("token", "none" if found.sealed_token is None else "kept, sealed"),
            ("parked", found.parked_at and output.moment_and_distance(found.parked_at)),
            ("why", found.parked_reason),
        )
    )


@app.command()
def token(installation: arguments.InstallationId, *, token_file: TokenFile = None) -> None:
    """Give an installation a new token. A parked one goes on at once."""
    from rotation.model import Event, SealContext  # noqa: PLC0415 - imported when it runs

    with session.opened(seals=True) as here:
        here.store.installation(installation)
        sealed = here.ports.sealer.seal(arguments.token(token_file), SealContext(installation, "", "", "token"))
        event = Event("installation_token_set", session.actor(), detail=(("installation", installation),))
        here.store.set_token(installation, sealed, event)
    output.done(f"{installation} has a new token")


@app.command()
def park(installation: arguments.InstallationId, *, reason: arguments.Reason = "") -> None:
    """Hold all pushes for an installation; rotations wait before their push."""
    from rotation.model import Event  # noqa: PLC0415 - imported when it runs
    from rotation.store.rules import INSTALLATION_PARKED  # noqa: PLC0415

    why = reason or "parked by a person"
    with session.opened() as here:
        event = Event(INSTALLATION_PARKED, session.actor(), why, (("installation", installation),))
        changed = here.store.park(installation, why, event)
    output.done(f"parked {installation}" if changed else f"{installation} was parked already")


@app.command()
def unpark(installation: arguments.InstallationId, *, reason: arguments.Reason = "") -> None:
    """Let an installation push again; what waited goes on at once."""
    from rotation.model import Event  # noqa: PLC0415 - imported when it runs
    from rotation.store.rules import INSTALLATION_UNPARKED  # noqa: PLC0415

    with session.opened() as here:
        event = Event(INSTALLATION_UNPARKED, session.actor(), reason, (("installation", installation),))
        changed = here.store.unpark(installation, event)
    output.done(f"unparked {installation}" if changed else f"{installation} was not parked")


def _check_id(installation: str) -> None:
    if not installation or installation in (".", "..") or "/" in installation or not installation.isprintable() or " " in installation:
        raise Invalid([Fault("INSTALLATION", "is not an installation's id", "Vercel's look like icfg_1a2b3c")])


def _state(installation: "Installation") -> str:
    if installation.parked:
        return "parked"
    return "no token" if installation.sealed_token is None else "ready"


def _plain(installation: "Installation") -> dict[str, object]:
    return {
        "id": installation.id,
        "state": _state(installation),
        "has_token": installation.sealed_token is not None,
        "parked_at": installation.parked_at,
        "parked_reason": installation.parked_reason,
    }
