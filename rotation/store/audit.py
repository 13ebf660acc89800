"""The audit trail: a keyed hash chain for each resource and one for installations, and signed checkpoints of all heads.

Each line's hash is HMAC-SHA-256(key, hash of the line before + canonical JSON of the line), written in the transaction of the move that
it tells of. The key is not in the store: who can write to the database alone can neither change nor add a line unseen.

A checkpoint vouches for the heads and lengths of all chains, so that a removed chain or a truncated one shows. It costs what has changed
since the one before: the digest of all chains is the XOR of one keyed hash a chain, so that a chain that has grown is taken out as it
was and put in as it is. Each signature covers the one before it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select, text, update

from rotation.errors import Conflict, NotFound
from rotation.store.database import SERVER_NOW
from rotation.store.specs import canonical
from rotation.store.tables import chains, checkpoints, events, resources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, RowMapping

    from rotation.model import Event
    from rotation.store.database import Database

VERSION = 1
HASH_BYTES = 32
NOTHING = bytes(HASH_BYTES)
"""The head of an empty chain."""

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class ChainHead:
    """Where a chain ends; `now` is the store's clock."""

    chain: str
    length: int
    head: bytes
    now: datetime


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What all chains came to at one instant. Its signature, kept elsewhere (a log will do), also proves a store that was set back."""

    number: int
    at: datetime
    chains: int
    events: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class AuditFault:
    """A place in the trail that is not as it was written."""

    chain: str
    number: int
    problem: str


_lock = select(chains.c.length, chains.c.head).where(chains.c.id == bindparam("chain")).with_for_update(key_share=True)
LOCK = {"sqlite": _lock, "postgresql": _lock.add_columns(SERVER_NOW.scalar_subquery().label("now"))}

UNSEALED = (
    select(chains)
    .where(text("length <> sealed_length"))
    .with_hint(chains, "INDEXED BY ix_chains_unsealed", "sqlite")
    .order_by(chains.c.id)
    .limit(BATCH)
    .with_for_update(skip_locked=True, key_share=True)
)
"""Both databases would read all chains here: SQLite without the hint, PostgreSQL without the order, which its small index has."""

CHAINLESS = select(resources.c.id).outerjoin(chains, chains.c.id == resources.c.id).where(func.coalesce(chains.c.length, 0) == 0)
"""Registering a resource begins its chain: one without is as good as a chain that was removed."""

_insert = insert(events)
_grow = update(chains).where(chains.c.id == bindparam("grown")).values(length=bindparam("number"), head=bindparam("hash"))
_grow_with_line = _grow.add_cte(
    insert(events).values({column.name: bindparam(column.name, type_=column.type) for column in events.c}).cte("line")
)
"""On PostgreSQL the line and the chain's new head go in one statement."""


class AuditTrail:
    """Writes, checkpoints and verifies the chains with one key."""

    def __init__(self, key: bytes) -> None:
        self._lines, self._heads, self._checkpoints = (_mac(key, purpose) for purpose in (b"lines", b"heads", b"checkpoints"))
        self.exports = _mac(key, b"exports")
        """The key that an export is sealed with."""

    def lock(self, database: Database, connection: Connection, chain: str) -> ChainHead:
        """Lock a chain, so that all writers of a resource come one after the other. Raises `NotFound` when there is none.

        It is the first lock of every transaction that writes a resource: that order is what keeps deadlocks away.
        """
        row = connection.execute(LOCK[database.dialect], {"chain": chain}).one_or_none()
        if row is None:
            raise NotFound("resource", chain)
        return ChainHead(chain, row.length, row.head, database.clock.now() if database.dialect == "sqlite" else row.now)

    def begin(self, connection: Connection, chain: str, now: datetime) -> ChainHead:
        """Begin an empty chain."""
        connection.execute(insert(chains), {"id": chain, "length": 0, "head": NOTHING, "sealed_length": 0, "sealed_head": NOTHING})
        return ChainHead(chain, 0, NOTHING, now)

    def append(
        self, connection: Connection, end: ChainHead, event: Event, rotation_id: str | None = None, credential_id: str | None = None
    ) -> bytes:
        """Write one line at the end of a chain that is locked, once a transaction. Gives the chain's new head."""
        line = self.line(end, event, rotation_id, credential_id)
        if connection.dialect.name == "postgresql":
            connection.execute(_grow_with_line, {**line, "grown": end.chain})
        else:
            connection.execute(_insert, line)
            connection.execute(_grow, {"grown": end.chain, "number": line["number"], "hash": line["hash"]})
        head: bytes = line["hash"]
        return head

    def line(self, end: ChainHead, event: Event, rotation_id: str | None, credential_id: str | None) -> dict[str, Any]:
        """The row of the line that comes after this end of a chain."""
        line: dict[str, Any] = {
            "chain": end.chain,
            "number": end.length + 1,
            "at": end.now,
            "kind": event.kind,
            "actor": event.actor,
            "why": event.why,
            "detail": canonical([list(one) for one in event.detail]),
            "rotation_id": rotation_id,
            "credential_id": credential_id,
        }
        line["hash"] = self.line_hash(end.head, line)
        return line

    def line_hash(self, before: bytes, line: Mapping[str, Any] | RowMapping) -> bytes:
        """What a line is sealed with, after the one whose hash is `before`."""
        told = {name: line[name] for name in ("chain", "number", "kind", "actor", "why", "detail", "rotation_id", "credential_id")}
        told["at"] = line["at"].isoformat(timespec="microseconds")
        return _mac(self._lines, before + canonical({**told, "version": VERSION}).encode())

    def checkpoint(self, database: Database) -> Checkpoint | None:
        """Sign what has changed since the last one, up to a thousand chains at once. None when nothing has, or another was quicker."""
        try:
            with database.writing() as connection:
                return self._checkpoint(database, connection)
        except Conflict:
            return None

    def _checkpoint(self, database: Database, connection: Connection) -> Checkpoint | None:
        grown = connection.execute(UNSEALED).mappings().all()
        if not grown:
            return None
        before = connection.execute(select(checkpoints).order_by(checkpoints.c.number.desc()).limit(1)).mappings().one_or_none()
        digest = NOTHING if before is None else before["digest"]
        for row in grown:
            digest = xor(digest, self.head_hash(row["id"], row["sealed_length"], row["sealed_head"]))
            digest = xor(digest, self.head_hash(row["id"], row["length"], row["head"]))
        connection.execute(
            update(chains)
            .where(chains.c.id.in_([row["id"] for row in grown]))
            .values(sealed_length=chains.c.length, sealed_head=chains.c.head)
        )
        signed: dict[str, Any] = {
            "number": 1 if before is None else before["number"] + 1,
            "at": database.now_in(connection),
            "chains": (0 if before is None else before["chains"]) + sum(row["sealed_length"] == 0 for row in grown),
            "events": (0 if before is None else before["events"]) + sum(row["length"] - row["sealed_length"] for row in grown),
            "digest": digest,
        }
        signature = self.signature(NOTHING if before is None else before["signature"], signed)
        connection.execute(insert(checkpoints), {**signed, "signature": signature})
        return Checkpoint(signed["number"], signed["at"], signed["chains"], signed["events"], signature)

    def head_hash(self, chain: str, length: int, head: bytes) -> bytes:
        """A chain's part in the digest of a checkpoint."""
        return NOTHING if length == 0 else _mac(self._heads, canonical([chain, length, head.hex()]).encode())

    def signature(self, before: bytes, row: Mapping[str, Any] | RowMapping) -> bytes:
        """What a checkpoint is signed with, after the one whose signature is `before`."""
        told = {name: row[name] for name in ("number", "chains", "events")}
        told |= {"at": row["at"].isoformat(timespec="microseconds"), "digest": row["digest"].hex(), "version": VERSION}
        return _mac(self._checkpoints, before + canonical(told).encode())

    def verify(self, database: Database, seals: Mapping[int, bytes] | None = None) -> Iterator[AuditFault]:
        """Every place that was changed, removed, put elsewhere, cut off or sealed with another key. None: the trail is whole.

        `seals` are signatures of checkpoints by their numbers, as somebody outside has kept them: without one, a store that was set
        back as a whole, checkpoints and all, looks as it did then. Reads everything, in batches, at one instant.
        """
        with database.snapshot() as connection:
            digest, counted = NOTHING, {"chains": 0, "events": 0}
            known = 0
            for row in chain_rows(connection):
                yield from self._verify_chain(connection, row)
                digest = xor(digest, self.head_hash(row["id"], row["sealed_length"], row["sealed_head"]))
                counted["chains"] += row["sealed_length"] > 0
                counted["events"] += row["sealed_length"]
                known += row["length"]
            if connection.scalar(select(func.count()).select_from(events)) != known:
                yield AuditFault("", 0, "there are lines beyond the end of a chain, or of no chain")
            for (resource_id,) in connection.execute(CHAINLESS):
                yield AuditFault(resource_id, 0, "the resource has no chain")
            yield from self._verify_checkpoints(connection, digest, counted)
            yield from _verify_seals(connection, seals or {})

    def _verify_chain(self, connection: Connection, chain: RowMapping) -> Iterator[AuditFault]:
        head, number = NOTHING, 0
        sealed_matches = chain["sealed_length"] == 0
        for line in lines_of(connection, chain["id"]):
            number += 1
            if line["number"] != number:
                yield AuditFault(chain["id"], number, "the line is missing")
                return
            if not hmac.compare_digest(self.line_hash(head, line), line["hash"]):
                yield AuditFault(chain["id"], number, "the line was changed, or sealed with another key")
                return
            head = line["hash"]
            sealed_matches = sealed_matches or (number == chain["sealed_length"] and head == chain["sealed_head"])
        if (number, head) != (chain["length"], chain["head"]):
            yield AuditFault(chain["id"], number, f"the chain ends here, though it had {chain['length']} lines")
        elif not sealed_matches:
            yield AuditFault(chain["id"], chain["sealed_length"], "the chain is not the one that the last checkpoint saw")

    def _verify_checkpoints(self, connection: Connection, digest: bytes, counted: Mapping[str, int]) -> Iterator[AuditFault]:
        signature, number, last = NOTHING, 0, None
        for row in connection.execute(select(checkpoints).order_by(checkpoints.c.number)).mappings():
            number += 1
            if row["number"] != number or not hmac.compare_digest(self.signature(signature, row), row["signature"]):
                yield AuditFault("checkpoints", number, "the checkpoint was changed or removed, or signed with another key")
                return
            signature, last = row["signature"], row
        vouched = (NOTHING, 0, 0) if last is None else (last["digest"], last["chains"], last["events"])
        if vouched != (digest, counted["chains"], counted["events"]):
            yield AuditFault("checkpoints", number, "the last checkpoint saw other chains: some were removed, cut off or set back")


def _verify_seals(connection: Connection, seals: Mapping[int, bytes]) -> Iterator[AuditFault]:
    for number, seal in sorted(seals.items()):
        signature = connection.scalar(select(checkpoints.c.signature).where(checkpoints.c.number == number))
        if signature is None or not hmac.compare_digest(signature, seal):
            yield AuditFault("checkpoints", number, "the checkpoint is not the one that was seen outside: the store was set back")


def chain_rows(connection: Connection) -> Iterator[RowMapping]:
    """Every chain with its head, in the order of the ids."""
    after = ""
    while rows := connection.execute(select(chains).where(chains.c.id > after).order_by(chains.c.id).limit(BATCH)).mappings().all():
        yield from rows
        after = rows[-1]["id"]


def lines_of(connection: Connection, chain: str, *, after: int = -1) -> Iterator[RowMapping]:
    """The lines of a chain in their order, behind the number `after`."""
    place = select(events).where(events.c.chain == chain).order_by(events.c.number).limit(BATCH)
    while rows := connection.execute(place.where(events.c.number > after)).mappings().all():
        yield from rows
        after = rows[-1]["number"]


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def xor(one: bytes, other: bytes) -> bytes:
    """Both digests in one: the same again takes it out."""
    return bytes(left ^ right for left, right in zip(one, other, strict=True))
