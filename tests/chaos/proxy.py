"""A TCP proxy that spoils some of the connections through it, each in one way and after so many bytes, as networks do.

It runs on a thread of its own. What it draws follows from its `random.Random`; `share` is how many of the connections it spoils.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random
    from types import TracebackType

HOST = "127.0.0.1"
CHUNK = 64 * 1024
DRIPPED = 40
"""Bytes."""
LATEST = 6_000
"""Bytes, of both directions together, after which a connection is spoilt at the latest: some handshakes and some calls."""
LONGEST_LATE = 1.5
"""Seconds by which bytes come late at most. What is late by more than the server allowance would break a promise that nobody gave."""
_LINGER_NOTHING = struct.pack("ii", 1, 0)


class Fault(StrEnum):
    """What becomes of a connection when its bytes are through."""

    DELAY = "delay"
    """What comes next comes late; then all is well."""
    DROP = "drop"
    """Nothing comes through any more, and nobody is told."""
    RESET = "reset"
    HALF_CLOSE = "half_close"
    """The side that is sent to is told that nothing more comes; the other direction goes on."""
    DRIP = "drip"
    """What comes next comes byte by byte, for a while."""
    CUT = "cut"
    """Both sides are told that nothing more comes."""


@dataclass(slots=True)
class Plan:
    """What is to happen to a connection, after how many more bytes. No fault: nothing ever."""

    fault: Fault | None = None
    left: int = 0
    seconds: float = 0.0
    happened: bool = False


def drawn(chance: random.Random, share: float) -> Plan:
    """A fault for so many of the connections."""
    if chance.random() >= share:
        return Plan()
    return Plan(chance.choice(list(Fault)), chance.randrange(LATEST), chance.uniform(0.1, LONGEST_LATE))


class FaultProxy:
    """A proxy before a port of this machine, as a context manager. It listens on `port`."""

    def __init__(self, upstream: int, chance: random.Random, share: float = 0.0) -> None:
        self.share = share
        self.happened: Counter[Fault] = Counter()
        self._upstream = upstream
        self._chance = chance
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._served: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()
        self._loop.close()

    def draw(self) -> Plan:
        """What the next connection meets with."""
        return drawn(self._chance, self.share)

    def _run(self) -> None:
        self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._begin, sock=self._listener)
        await self._ending.wait()
        server.close()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_connection(HOST, self._upstream)
        except OSError:  # it does not run at the moment
            client.transport.abort()
            return
        plan = self.draw()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(client_reader, server, plan))
                both.create_task(self._pump(server_reader, client, plan))
        except* OSError:
            pass  # one side went away, or this was the plan
        finally:
            for writer in (client, server):
                if plan.happened and plan.fault is Fault.RESET and not writer.is_closing():
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, plan: Plan) -> None:
        """One direction, until it ends."""
        while chunk := await reader.read(CHUNK):
            if plan.fault is None or len(chunk) <= plan.left:
                plan.left -= len(chunk)
                await _send(to, chunk)
            elif not plan.happened:
                plan.happened = True
                self.happened[plan.fault] += 1
                await _send(to, chunk[: plan.left])
                await _spoil(to, chunk[plan.left :], plan)
                while plan.fault is Fault.HALF_CLOSE and await reader.read(CHUNK):
                    pass  # what still comes from there gets nowhere
            elif plan.fault is not Fault.DROP:
                await _send(to, chunk)
        with contextlib.suppress(OSError):
            to.write_eof()


async def _spoil(to: asyncio.StreamWriter, rest: bytes, plan: Plan) -> None:
    """What happens once. Raises `ConnectionError` when that ends the connection."""
    match plan.fault:
        case Fault.DELAY:
            await asyncio.sleep(plan.seconds)
            await _send(to, rest)
        case Fault.DRIP:
            for byte in rest[:DRIPPED]:
                await _send(to, bytes((byte,)))
                await asyncio.sleep(plan.seconds / DRIPPED)
            if len(rest) > DRIPPED:
                await _send(to, rest[DRIPPED:])
        case Fault.HALF_CLOSE:
            to.write_eof()
        case Fault.RESET | Fault.CUT:
            raise ConnectionResetError


async def _send(to: asyncio.StreamWriter, chunk: bytes) -> None:
    """Raises `ConnectionError` when nobody is there any more."""
    if to.is_closing():
        raise ConnectionResetError
    to.write(chunk)
    await to.drain()
