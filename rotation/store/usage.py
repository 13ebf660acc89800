"""Use sampling: when which credential was seen in use, and by whom."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, case, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from rotation.store.tables import ALIVE, UtcTime, credentials, servers, sightings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection

    from rotation.model import Session
    from rotation.store.database import Database

AT_ONCE = 500
"""How many logins one transaction notes, so that it never holds many rows for long."""

# In one order for everyone, as a move that writes several credentials locks them.
LOCK_SEEN = (
    select(credentials.c.id, credentials.c.username)
    .where(credentials.c.server == bindparam("on_server"), credentials.c.username.in_(bindparam("usernames", expanding=True)), text(ALIVE))
    .order_by(credentials.c.id)
    .with_for_update(key_share=True)
)
NOTE_SEEN = (
    update(credentials)
    .where(credentials.c.id.in_(bindparam("ids", expanding=True)))
    .values(last_seen_at=bindparam("seen_at", type_=UtcTime()))
)
_KEY = ["credential_id", "client", "application"]
_new_sqlite = sqlite.insert(sightings)
_new_postgresql = postgresql.insert(sightings)
UPSERT = {
    "sqlite": _new_sqlite.on_conflict_do_update(
        index_elements=_KEY, set_={"sessions": _new_sqlite.excluded.sessions, "last_seen_at": _new_sqlite.excluded.last_seen_at}
    ),
    "postgresql": _new_postgresql.on_conflict_do_update(
        index_elements=_KEY, set_={"sessions": _new_postgresql.excluded.sessions, "last_seen_at": _new_postgresql.excluded.last_seen_at}
    ),
}


_now = bindparam("sampled_now", type_=UtcTime())
_unbroken = and_(servers.c.sampled_at >= bindparam("gap_after", type_=UtcTime()), servers.c.sampled_since <= _now)
NOTE_SAMPLED = (
    update(servers)
    .where(servers.c.name == bindparam("on_server"))
    .values(sampled_at=_now, sampled_since=case((_unbroken, servers.c.sampled_since), else_=_now))
)


def see(database: Database, server: str, sessions: Sequence[Session], gap: timedelta) -> None:
    """Note at the store's clock which live credentials of a server are in use; last of all that it was looked at."""
    counts: dict[str, dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
    for session in sessions:
        counts[session.username][session.client, session.application] += session.count
    for usernames in _batches(counts):
        with database.writing() as connection:
            _note(database, connection, server, {name: counts[name] for name in usernames})
    with database.writing() as connection:
        now = database.now_in(connection)
        connection.execute(NOTE_SAMPLED, {"on_server": server, "sampled_now": now, "gap_after": now - gap})


def _note(database: Database, connection: Connection, server: str, counts: dict[str, dict[tuple[str, str], int]]) -> None:
    seen = {row.id: row.username for row in connection.execute(LOCK_SEEN, {"on_server": server, "usernames": list(counts)})}
    if not seen:
        return
    now = database.now_in(connection)
    connection.execute(NOTE_SEEN, {"ids": list(seen), "seen_at": now})
    rows = [
        {"credential_id": credential_id, "client": client, "application": application, "sessions": count, "last_seen_at": now}
        for credential_id, username in seen.items()
        for (client, application), count in sorted(counts[username].items())
    ]
    connection.execute(UPSERT[database.dialect], rows)


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(sorted(names))
    while batch := list(islice(remaining, AT_ONCE)):
        yield batch
