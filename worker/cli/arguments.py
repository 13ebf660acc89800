"""Arguments and options that several commands share."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Fault, Invalid
from worker.durations import format_duration, parse_duration

if TYPE_CHECKING:
    from rotation.sensitive import Sensitive

ResourceName = Annotated[str, typer.Argument(metavar="RESOURCE", help="installation/id, or the id alone where it is unique.")]
InstallationId = Annotated[str, typer.Argument(metavar="INSTALLATION", help="Vercel's id of the installation, e.g. icfg_1.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest first.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

LONGEST_TOKEN = 16_384


def duration(option: str, written: str, longest: timedelta | None = None) -> timedelta:
    """A duration that somebody wrote. Raises `Invalid` for anything else, and for one that is longer than `longest`."""
    try:
        parsed = parse_duration(written)
    except ValueError as error:
        raise Invalid([Fault(option, str(error))]) from None
    if longest is not None and parsed > longest:
        raise Invalid([Fault(option, f"is longer than {format_duration(longest)}", "ROLLOVER_MAX_GRACE allows more")])
    return parsed


def token(file: Path | None) -> "Sensitive":
    """A token from a file, else from a hidden prompt at a terminal, else from the standard input; never from the command line.

    Raises `Invalid` when it cannot be one.
    """
    import sys  # noqa: PLC0415 - only here

    from rotation.sensitive import Sensitive  # noqa: PLC0415 - not for help

    if file is not None:
        text = _file_text(file)
    elif sys.stdin.isatty():
        text = str(typer.prompt("Token", hide_input=True))
    else:
        text = sys.stdin.read(LONGEST_TOKEN + 2)
    text = text.strip()
    if not text:
        raise Invalid([Fault("token", "is empty", "give it by --token-file, on the standard input, or type it when asked")])
    if len(text) > LONGEST_TOKEN or not all("!" <= one <= "~" for one in text):
        raise Invalid([Fault("token", "is not one", "it is a line of printable characters without spaces")])
    return Sensitive(text)


def _file_text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(LONGEST_TOKEN + 2)
    except OSError as error:
        raise Invalid([Fault("--token-file", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise Invalid([Fault("--token-file", "is not text")]) from None
