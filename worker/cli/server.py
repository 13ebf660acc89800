"""`rollover server`: the database servers that resources live on."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import RolloverError
from worker.cli import output, session

if TYPE_CHECKING:
    from rotation.model import Server

app = typer.Typer(name="server", help="Database servers.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The server's TOML file.")]
Name = Annotated[str, typer.Argument(metavar="SERVER", help="The server's name.")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.command()
def add(file: File) -> None:
    """Add a server as its file describes it. Nothing is connected."""
    from rotation.model import Event  # noqa: PLC0415 - imported when it runs

    with session.opened() as here:
        server = _read(file, here)
        here.store.add_server(server, Event("server_added", session.actor(), detail=(("server", server.name),)))
    output.done(f"added {server.name}: `rollover server check {server.name}` tries it")


@app.command()
def update(file: File) -> None:
    """Replace what is said about a server by what its file says now."""
    from rotation.model import Event  # noqa: PLC0415 - imported when it runs

    with session.opened() as here:
        server = _read(file, here)
        here.store.change_server(server, Event("server_changed", session.actor(), detail=(("server", server.name),)))
    output.done(f"changed {server.name}")


@app.command("list")
def list_all(*, as_json: output.Json = False) -> None:
    """List the servers."""
    with session.opened() as here:
        found = here.store.servers()
    if as_json:
        output.show([asdict(one) for one in found])
        return
    output.table(
        ("server", "engine", "address", "tls", ">connections"),
        [(one.name, one.engine, _address(one), one.sslmode, one.connections) for one in found],
        nothing="there is no server: `rollover server add FILE` adds one",
    )


@app.command()
def show(name: Name, *, as_json: output.Json = False) -> None:
    """Show one server; of its admin login, only where it is kept."""
    with session.opened() as here:
        server = here.store.server(name)
    if as_json:
        output.show(asdict(server))
        return
    output.details(
        (
            ("server", server.name),
            ("engine", server.engine),
            ("address", _address(server)),
            ("tls", server.sslmode),
            ("certificate", server.sslrootcert),
            ("admin login", server.admin_url_file or f"the environment variable {server.admin_url_env}"),
            ("connections", server.connections),
        )
    )


@app.command()
def check(name: Name, *, as_json: output.Json = False) -> None:
    """Log in as the admin, look at the sessions and at the logins that carry our mark. Changes nothing."""
    with session.opened() as here:
        server = here.store.server(name)
        engine = here.engine(server.engine)
        try:
            sessions = sum(one.count for one in engine.usage(server, here.deadline()))
            logins = len(engine.list_logins(server, here.deadline()))
        except RolloverError as error:
            if as_json:
                output.show({"server": name, "ok": False, "problem": str(error)})
            raise
    if as_json:
        output.show({"server": name, "ok": True, "sessions": sessions, "logins": logins})
    else:
        output.done(f"{name} answers: {logins} logins of ours, {sessions} open sessions")


def _read(file: Path, here: session.Session) -> "Server":
    from worker.inventory import read_server  # noqa: PLC0415 - imported when it runs

    read = read_server(file, here.rules())
    for warning in read.warnings:
        output.warn(f"{file}: {warning}")
    return read.server


def _address(server: "Server") -> str:
    return f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"
