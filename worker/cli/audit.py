"""`rollover audit`: whether the audit trail is as it was written, and the evidence for a period."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Fault, Invalid
from worker.cli import output, session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotation.store.audit import AuditFault

app = typer.Typer(name="audit", help="The audit trail.", no_args_is_help=True)

SEAL_DIGITS = 64
Seals = Annotated[
    list[str] | None,
    typer.Option(
        "--seal", metavar="NUMBER:SEAL", help="A checkpoint from the log line audit_sealed, which must still be there. Repeatable."
    ),
]
File = Annotated[Path | None, typer.Option("--file", help="An export instead of the store: only the audit key is needed.")]


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.callback()
def _audit() -> None:
    """The audit trail."""


@app.command()
def verify(*, file: File = None, seal: Seals = None, as_json: output.Json = False) -> None:
    """Read the whole trail and find every line that was changed, removed or put elsewhere. Exits with 1 when there is one.

    A store that was set back as a whole shows only by a seal that was kept elsewhere: give one with --seal.
    """
    seals = _seals(seal or ())
    if file is None:
        with session.opened() as here:
            faults = list(here.store.verify_audit(seals))
    else:
        faults = _of_file(file, seals)
    if as_json:
        output.show({"ok": not faults, "faults": faults})
    elif faults:
        output.table(("chain", ">line", "what is wrong"), [(one.chain, one.number, one.problem) for one in faults], nothing="")
    else:
        output.done("the trail is whole")
    if faults:
        raise typer.Exit(output.FAILED)


@app.command()
def export(
    *,
    begin: Annotated[str, typer.Option("--from", metavar="TIME", help="From then on, e.g. 2026-03-01 or 2026-03-01T12:00+01:00.")],
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Until before then. Default: now.")] = None,
    resource: Annotated[str | None, typer.Option(help="Only of this resource.")] = None,
    written: Annotated[Format, typer.Option("--format", help="How it is written: one JSON object a line.")] = Format.JSONL,
) -> None:
    """Print the evidence for a period: every line of it with its hash, the heads of the chains, the signed checkpoints.

    Times without a zone are UTC. Whoever has the audit key verifies it without the store: `rollover audit verify --file`.
    """
    from rotation.store.evidence import Period  # noqa: PLC0415 - imported when it runs

    del written  # there is one
    period = Period(_moment("--from", begin), datetime.now(UTC) if end is None else _moment("--to", end))
    if period.begin >= period.end:
        raise Invalid([Fault("--to", "is not after --from")])
    with session.opened() as here:
        chain = None if resource is None else here.resource(resource).id
        for line in here.store.export_audit(period, chain):
            typer.echo(line)


def _of_file(file: Path, seals: "Mapping[int, bytes]") -> "list[AuditFault]":
    from rotation.store import evidence  # noqa: PLC0415 - imported when it runs
    from worker.wiring import audit_trail  # noqa: PLC0415

    trail = audit_trail(session.settings())
    try:
        with file.open(encoding="utf-8") as lines:
            return list(evidence.verify(trail, lines, seals))
    except OSError as error:
        raise Invalid([Fault("--file", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise Invalid([Fault("--file", "is not text")]) from None


def _moment(option: str, written: str) -> datetime:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise Invalid([Fault(option, "is not a time", "like 2026-03-01 or 2026-03-01T12:00:00Z")]) from None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _seals(given: "Sequence[str]") -> dict[int, bytes]:
    seals = {}
    for one in given:
        number, _, digits = one.partition(":")
        try:
            seals[int(number)] = bytes.fromhex(digits)
        except ValueError:
            digits = ""
        if len(digits) != SEAL_DIGITS:
            raise Invalid([Fault("--seal", "is not a number and 64 hex digits", "both are in the log line audit_sealed: NUMBER:SEAL")])
    return seals
