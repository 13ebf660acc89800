"""A sealed known text for each key that ever sealed here: whether a key is missing or another one shows before anything depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from rotation.errors import Conflict
from rotation.store.tables import key_canaries

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.store.database import Database
    from rotation.store.sealing import CanaryReport, KeyringSealer


class Canaries:
    """The canaries of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self) -> dict[str, datetime]:
        """The keys that have one, the oldest first, and since when."""
        with self._database.reading() as connection:
            rows = connection.execute(select(key_canaries.c.key_id, key_canaries.c.added_at).order_by(key_canaries.c.added_at))
            return {row.key_id: row.added_at for row in rows}

    def check(self, sealer: KeyringSealer) -> CanaryReport:
        """Open every canary. Nothing is written."""
        with self._database.reading() as connection:
            return sealer.check_canaries({row.key_id: row.sealed for row in connection.execute(select(key_canaries))})

    def keep(self, sealer: KeyringSealer) -> CanaryReport:
        """Keep a canary of each key that seals now, and open all of them. To be called before the first thing is sealed."""
        for key_id in sealer.newest - set(self.known()):
            self._add(key_id, sealer.canaries()[key_id])
        return self.check(sealer)

    def forget(self, key_id: str) -> None:
        """Ask for the key no more: nothing is sealed by it."""
        with self._database.writing() as connection:
            connection.execute(delete(key_canaries).where(key_canaries.c.key_id == key_id))

    def _add(self, key_id: str, sealed: bytes) -> None:
        try:
            with self._database.writing() as connection:
                row = {"key_id": key_id, "sealed": sealed, "added_at": self._database.now_in(connection)}
                connection.execute(insert(key_canaries), row)
        except Conflict:  # another process was faster: its canary is as good
            return
