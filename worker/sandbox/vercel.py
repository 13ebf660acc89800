"""A local Vercel: the part of its public interface that a rotation needs, as strict as the documents, with faults to order.

In a program: `with SandboxVercel() as vercel:` serves on a thread at `vercel.url`, and `vercel.world` is what it knows. As a process of
its own: `serve(…)`, looked at and steered by `SandboxVercelClient`.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import threading
from http.server import HTTPServer
from typing import TYPE_CHECKING, Any, Self

from worker.sandbox.vercel_http import VercelHandler
from worker.sandbox.vercel_world import DEFAULT_PER_MINUTE, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

HOST = "127.0.0.1"


class SandboxVercel:
    """A local Vercel on a thread. `port` 0 takes a free one; `per_minute` None switches the limit off."""

    def __init__(
        self,
        *,
        host: str = HOST,
        port: int = 0,
        admin_token: str | None = None,
        per_minute: int | None = DEFAULT_PER_MINUTE,
    ) -> None:
        self.admin_token = admin_token or secrets.token_urlsafe(24)
        self.world = World(per_minute)
        self._closing = threading.Event()
        handler = type("Handler", (VercelHandler,), {"world": self.world, "admin_token": self.admin_token, "closing": self._closing})
        self._server = _Server((host, port), handler)
        self._thread = threading.Thread(target=self._server.accept_until, args=(self._closing,), name="sandbox-vercel", daemon=True)

    @property
    def url(self) -> str:
        """The address to use as Vercel's."""
        return f"http://{self._server.server_name}:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close every connection, also those that a fault holds, and end."""
        self._closing.set()
        with contextlib.suppress(OSError), socket.create_connection((self._server.server_name, self._server.server_port), timeout=1):
            self._thread.join()  # one last connection wakes it
        self._server.close()


def serve(
    ready: Callable[[SandboxVercel], None],
    *,
    host: str = HOST,
    port: int = 0,
    admin_token: str | None = None,
    per_minute: int | None = DEFAULT_PER_MINUTE,
) -> None:
    """Serve until SIGTERM or SIGINT; to be called on the main thread. `ready` is called once it listens."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with SandboxVercel(host=host, port=port, admin_token=admin_token, per_minute=per_minute) as vercel:
            ready(vercel)
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(HTTPServer):
    """One thread for each connection, and a way to end them all."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[VercelHandler]) -> None:
        super().__init__(address, handler)
        self._live: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, as HTTPServer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def accept_until(self, closing: threading.Event) -> None:
        """Serve every connection that comes. It waits in the kernel, not in turns, so that ending takes no time."""
        while not closing.is_set():
            try:
                request, client_address = self.get_request()
            except OSError:
                closing.wait(0.05)  # it was gone before it was served, or this process has too many files open
                continue
            self.process_request(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the signature of the standard library
        """Serve a new connection on a thread of its own."""
        thread = threading.Thread(target=self._converse, args=(request, client_address), name="sandbox-vercel-connection", daemon=True)
        with self._lock:
            self._live[request] = thread
        thread.start()

    def close(self) -> None:
        """Stop listening, cut every connection and wait for its thread."""
        self.server_close()
        with self._lock:
            live = dict(self._live)
        for connection, thread in live.items():
            with contextlib.suppress(OSError):  # it has ended on its own
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _converse(self, request: socket.socket, client_address: Any) -> None:  # noqa: ANN401 - as above
        try:
            self.finish_request(request, client_address)
        except (ConnectionError, TimeoutError):
            pass  # the caller went away, which callers may
        finally:
            with self._lock:
                del self._live[request]
            request.close()
