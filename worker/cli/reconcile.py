"""`rollover reconcile`: whether every login on the database servers is as the store says, and what to do after a restore."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import OutcomeUnknown, Refused, Unavailable
from worker.cli import output, session

if TYPE_CHECKING:
    from rotation.model import Server
    from rotation.reconciliation import Line

ServerName = Annotated[str | None, typer.Option("--server", metavar="SERVER", help="One server; all of them otherwise.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do what is shown. A login without a row is never removed by it.")]
AfterRestore = Annotated[
    bool, typer.Option("--after-restore", help="Bring on what a store that was set back may have lost, instead of comparing.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reconcile)


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of one server."""

    server: str
    lines: "tuple[Line, ...]" = ()
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is left to do."""
        return not self.problem and all(one.mended for one in self.lines)


def reconcile(
    server: ServerName = None, *, apply: Apply = False, after_restore: AfterRestore = False, as_json: output.Json = False
) -> None:
    """Compare every login on the database servers with the store.

    It logs in with each that must work, and lists what is lost, revived, changed by hand, or without a row, and what it would do about it.
    Without --apply nothing is changed. Exits with 1 while something is left to do.
    """
    with session.opened() as here, session.log_lines_to_people():
        servers = here.store.servers() if server is None else (here.store.server(server),)
        found = [_compare(one, here, apply=apply, after_restore=after_restore) for one in servers]
    if as_json:
        output.show({"servers": [{"server": one.server, "ok": one.ok, "problem": one.problem, "lines": _plain(one)} for one in found]})
    else:
        _tell(found, apply=apply)
    if not all(one.ok for one in found):
        raise typer.Exit(output.FAILED)


def _compare(server: "Server", here: session.Session, *, apply: bool, after_restore: bool) -> Compared:
    """One server that does not answer keeps no other from its turn."""
    from rotation import reconciliation  # noqa: PLC0415 - imported when it runs

    try:
        if after_restore:
            lines = reconciliation.after_restore(server, session.actor(), here.ports, apply=apply)
        else:
            lines = reconciliation.reconcile(server, here.ports, apply=apply)
    except (Refused, Unavailable, OutcomeUnknown) as error:
        return Compared(server.name, problem=str(error))
    return Compared(server.name, lines)


def _plain(compared: Compared) -> list[dict[str, object]]:
    return [asdict(one) for one in compared.lines]


def _tell(found: list[Compared], *, apply: bool) -> None:
    lines = [one for compared in found for one in compared.lines]
    output.table(
        ("server", "login", "what", "problem", "what is done", "done"),
        [(one.server, one.login, one.kind, one.problem, one.remedy, one.mended) for one in lines],
        nothing="every login is as the store says",
    )
    for one in found:
        if one.problem:
            output.warn(f"{one.server} cannot be compared: {one.problem}")
    if lines and not apply:
        output.warn("nothing was changed: `--apply` does it")
