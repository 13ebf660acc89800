"""PostgreSQL's errors, sorted by what may be done next.

psycopg's own exceptions never leave the engine: they hold the connection, and with it the password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotation.errors import LostClaim, OutcomeUnknown, Refused, RolloverError, Unavailable, Unreachable

if TYPE_CHECKING:
    import psycopg

TOO_LATE = "22012"
"""Division by zero: the first and the last statement of every act divide by whether there is time left."""

RIGHTS = "42501"
NEW_NAME_TAKEN = "42710"
NAME_UNKNOWN = "42704"
STILL_NEEDED = "2BP01"

LACKS_RIGHT = "the admin login lacks a right: `rollover resource check` lists each with the SQL that grants it"
LACKS_SOMETHING = "`rollover resource check` shows what the server lacks"

_PASSING = (
    "08",  # connection trouble
    "25P",  # idle and whole transactions that took too long
    "40",  # serialisation failures and deadlocks
    "53",  # out of connections, memory or disk
    "55",  # locked, or in use
    "57",  # cancelled by a time-out, shutting down, starting up
    "58",  # the server's system
    "XX",  # internal errors, among them "tuple concurrently updated"
    STILL_NEEDED,  # something came to depend on the login in the meantime
)
"""SQLSTATEs, or how they begin, that may be gone the next time (PostgreSQL's manual, appendix A)."""


class NameTaken(Unavailable):
    """There is one of that name."""


class NameUnknown(Refused):
    """There is none of that name."""


def sort_error(error: psycopg.Error, act: str, system: str, *, sent: bool) -> RolloverError:
    """Our own error for one of psycopg's. `sent`: the statement that was lost might have changed something."""
    code = error.sqlstate
    if code is None:
        if sent:
            return OutcomeUnknown(f"{system}: the connection was lost while it was told to {act}")
        return Unreachable(f"{system}: no answer, while about to {act}")
    if code == TOO_LATE and sent:
        return LostClaim(f"{system}: too late to {act}; nothing was changed")
    message = f"{system}: PostgreSQL did not {act}: {code} {type(error).__name__}"
    if code == NEW_NAME_TAKEN:
        return NameTaken(message)
    if code.startswith(_PASSING):
        return Unavailable(message)
    refused = NameUnknown if code == NAME_UNKNOWN else Refused
    return refused(message, advice=LACKS_RIGHT if code == RIGHTS else LACKS_SOMETHING)
