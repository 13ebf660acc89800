"""The evidence for a period: what happened then, in a file that proves itself to whoever has the audit key, without the store.

One JSON object a line, each with what it is under `is`:

    export       the format, the period, the one chain that was asked for (or none: all), the time by the store's clock
    chain        a chain with lines in the period: where they begin, and the hash of the line before
    line         a line of that chain with its hash, from the first in the period to the last, without a gap
    head         where each chain ends, and where it ended at the last checkpoint
    checkpoint   the checkpoints from the last one before the period on, each with its digest and its signature
    seal         how many lines there are, and a keyed hash over all of them

The lines' hashes prove what was said and in which order; the heads and the last checkpoint, that no chain is missing; the checkpoints'
signatures can be held against those that were logged when they were made; the seal, that nothing was taken from the file.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from rotation.errors import NotFound
from rotation.store.audit import NOTHING, AuditFault, chain_rows, lines_of, xor
from rotation.store.specs import canonical
from rotation.store.tables import chains, checkpoints, events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy import Connection

    from rotation.store.audit import AuditTrail
    from rotation.store.database import Database

FORMAT = 1
_TOLD = ("kind", "actor", "why", "rotation_id", "credential_id")


@dataclass(frozen=True, slots=True)
class Period:
    """From `begin` on, before `end`; both aware."""

    begin: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Whether it was then."""
        return self.begin <= at < self.end


# -- writing it down


def export(trail: AuditTrail, database: Database, period: Period, chain: str | None = None) -> Iterator[str]:
    """The lines of an export, at one instant of the store. Raises `NotFound` for an unknown chain, before the first line."""
    seal = hmac.new(trail.exports, digestmod="sha256")
    count = 0
    with database.snapshot() as connection:
        if chain is not None and connection.scalar(select(chains.c.id).where(chains.c.id == chain)) is None:
            raise NotFound("chain", chain)
        for told in _told(connection, period, chain, database.now_in(connection)):
            line = canonical(told)
            seal.update(line.encode() + b"\n")
            count += 1
            yield line
    yield canonical({"is": "seal", "lines": count, "seal": seal.hexdigest()})


def _told(connection: Connection, period: Period, chain: str | None, now: datetime) -> Iterator[dict[str, Any]]:
    yield {"is": "export", "format": FORMAT, "from": _time(period.begin), "to": _time(period.end), "chain": chain, "at": _time(now)}
    for row in chain_rows(connection):
        if chain in (None, row["id"]):
            yield from _chain(connection, row["id"], period)
            yield {
                "is": "head",
                "chain": row["id"],
                "length": row["length"],
                "head": row["head"].hex(),
                "sealed_length": row["sealed_length"],
                "sealed_head": row["sealed_head"].hex(),
            }
    yield from _checkpoints(connection, period)


def _chain(connection: Connection, chain: str, period: Period) -> Iterator[dict[str, Any]]:
    """From the first line of the period to the last: where a clock was set back, lines between them may say another time."""
    inside = (events.c.chain == chain, events.c.at >= period.begin, events.c.at < period.end)
    first, last = connection.execute(select(func.min(events.c.number), func.max(events.c.number)).where(*inside)).one()
    if first is None:
        return
    before = connection.scalar(select(events.c.hash).where(events.c.chain == chain, events.c.number == first - 1))
    yield {"is": "chain", "chain": chain, "first": first, "last": last, "before": (before or NOTHING).hex()}
    for line in lines_of(connection, chain, after=first - 1):
        if line["number"] > last:
            return
        told = {name: line[name] for name in ("chain", "number", *_TOLD)}
        yield told | {"is": "line", "at": _time(line["at"]), "detail": json.loads(line["detail"]), "hash": line["hash"].hex()}


def _checkpoints(connection: Connection, period: Period) -> Iterator[dict[str, Any]]:
    begin = connection.scalar(select(func.max(checkpoints.c.number)).where(checkpoints.c.at < period.begin)) or 0
    before = connection.scalar(select(checkpoints.c.signature).where(checkpoints.c.number == begin - 1))
    for row in connection.execute(select(checkpoints).where(checkpoints.c.number >= begin).order_by(checkpoints.c.number)).mappings():
        numbers = {name: row[name] for name in ("number", "chains", "events")}
        signed = {"digest": row["digest"].hex(), "before": (before or NOTHING).hex(), "signature": row["signature"].hex()}
        yield {"is": "checkpoint", "at": _time(row["at"]), **numbers, **signed}
        before = row["signature"]


def _time(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")


# -- reading it


def verify(trail: AuditTrail, written: Iterable[str], seals: Mapping[int, bytes] | None = None) -> Iterator[AuditFault]:
    """Every place of an export that is not as it was written. None: it is whole, and was made with this key.

    `seals` are signatures of checkpoints by number, as somebody has kept them elsewhere: each must be in the export.
    """
    reading = _Reading(trail, dict(seals or {}))
    yield from reading.faults(written)


class _Reading:
    """What is known at some line of an export."""

    def __init__(self, trail: AuditTrail, seals: dict[int, bytes]) -> None:
        self._trail = trail
        self._seals = seals
        self._seal = hmac.new(trail.exports, digestmod="sha256")
        self._count = 0
        self._header: Mapping[str, Any] = {}
        self._segment: Mapping[str, Any] = {}
        self._hash, self._number = NOTHING, 0
        self._digest, self._chains, self._events = NOTHING, 0, 0
        self._signature: bytes | None = None
        self._checkpoint: Mapping[str, Any] | None = None
        self._sealed = False

    def faults(self, written: Iterable[str]) -> Iterator[AuditFault]:
        for text in written:
            line = text.rstrip("\r\n")
            try:
                yield from self._line(line, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                yield AuditFault("", self._count + 1, "this is no line of an export")
                return
            self._count += 1
        if not self._sealed:
            yield AuditFault("", self._count, "the export ends without its seal")
        elif not self._header.get("chain"):
            yield from self._whole()
        for number in sorted(self._seals):
            yield AuditFault("checkpoints", number, "the checkpoint that was seen outside is not here")

    def _line(self, line: str, told: Mapping[str, Any]) -> Iterator[AuditFault]:
        if self._sealed:
            yield AuditFault("", self._count + 1, "there are lines behind the seal")
        if (self._count == 0) != (told["is"] == "export"):
            yield AuditFault("", self._count + 1, "this is not where an export begins")
        yield from self._kinds[told["is"]](self, told)
        if told["is"] != "seal":
            self._seal.update(line.encode() + b"\n")

    def _begin(self, told: Mapping[str, Any]) -> Iterator[AuditFault]:
        self._header = told
        if told["format"] != FORMAT:
            yield AuditFault("", 1, "it has another format than this version writes")

    def _chain(self, told: Mapping[str, Any]) -> Iterator[AuditFault]:
        yield from self._segment_ends()
        self._segment, self._hash, self._number = told, bytes.fromhex(told["before"]), told["first"] - 1
        if (told["first"] == 1) != (self._hash == NOTHING):
            yield AuditFault(told["chain"], told["first"], "the chain does not begin here")

    def _event(self, told: Mapping[str, Any]) -> Iterator[AuditFault]:
        chain, self._number = told["chain"], self._number + 1
        if (chain, told["number"]) != (self._segment["chain"], self._number):
            yield AuditFault(chain, told["number"], "the line stands where another one should")
        line = {**told, "at": datetime.fromisoformat(told["at"]), "detail": canonical(told["detail"])}
        if not hmac.compare_digest(self._trail.line_hash(self._hash, line), bytes.fromhex(told["hash"])):
            yield AuditFault(chain, told["number"], "the line was changed, or sealed with another key")
        self._hash = bytes.fromhex(told["hash"])

    def _segment_ends(self) -> Iterator[AuditFault]:
        if self._segment and self._number != self._segment["last"]:
            yield AuditFault(self._segment["chain"], self._number, "lines are missing behind this one")
        self._segment = {}

    def _head(self, told: Mapping[str, Any]) -> Iterator[AuditFault]:
        segment = self._segment
        yield from self._segment_ends()
        for length, head in ((told["length"], told["head"]), (told["sealed_length"], told["sealed_head"])):
            if segment and self._number == length and self._hash != bytes.fromhex(head):
                yield AuditFault(told["chain"], length, "the chain ends otherwise than its head says")
        sealed = told["sealed_length"], bytes.fromhex(told["sealed_head"])
        self._digest = xor(self._digest, self._trail.head_hash(told["chain"], *sealed))
        self._chains += told["sealed_length"] > 0
        self._events += told["sealed_length"]

    def _signed(self, told: Mapping[str, Any]) -> Iterator[AuditFault]:
        before = bytes.fromhex(told["before"])
        row = {**told, "at": datetime.fromisoformat(told["at"]), "digest": bytes.fromhex(told["digest"])}
        follows = self._checkpoint is None or (told["number"] == self._checkpoint["number"] + 1 and before == self._signature)
        self._signature = bytes.fromhex(told["signature"])
        self._checkpoint = told
        if self._seals.get(told["number"]) == self._signature:
            del self._seals[told["number"]]
        if not follows or not hmac.compare_digest(self._trail.signature(before, row), self._signature):
            yield AuditFault("checkpoints", told["number"], "the checkpoint was changed or removed, or signed with another key")

    def _end(self, told: Mapping[str, Any]) -> Iterator[AuditFault]:
        self._sealed = True
        if told["lines"] != self._count or not hmac.compare_digest(self._seal.hexdigest(), told["seal"]):
            yield AuditFault("", self._count + 1, "the export was changed, or sealed with another key")

    def _whole(self) -> Iterator[AuditFault]:
        """Whether the last checkpoint vouches for the heads: all of them are here where no one chain was asked for."""
        last = self._checkpoint
        vouched = (NOTHING.hex(), 0, 0) if last is None else (last["digest"], last["chains"], last["events"])
        if vouched != (self._digest.hex(), self._chains, self._events):
            yield AuditFault("checkpoints", 0, "the last checkpoint saw other chains: some were removed, cut off or set back")

    _kinds: Mapping[str, Callable[[_Reading, Mapping[str, Any]], Iterator[AuditFault]]] = {
        "export": _begin,
        "chain": _chain,
        "line": _event,
        "head": _head,
        "checkpoint": _signed,
        "seal": _end,
    }
