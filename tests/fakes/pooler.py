"""A pooler in front of a PostgreSQL that refuses bad logins as newer PgBouncers do: with 08P01, whatever the server said."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

from rotation.model import Endpoint

if TYPE_CHECKING:
    from worker.sandbox.postgresql import PrivatePostgresql

ERROR = b"E"
_FIELDS = b"SFATAL\0C08P01\0Mpassword authentication failed\0\0"
REFUSAL = ERROR + struct.pack("!i", len(_FIELDS) + 4) + _FIELDS
"""An ErrorResponse of PostgreSQL's protocol, version 3."""


class FakePooler:
    """Passes everything on, and replaces the first error of each connection. `answer`, when set, is all that anybody hears."""

    def __init__(self, server: PrivatePostgresql) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.answer = b""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("pooled", "127.0.0.1", self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        acceptor = threading.Thread(target=self._accept)
        acceptor.start()
        self._threads.append(acceptor)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=[client])
                thread.start()
                self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.answer:
                client.recv(65536)
                client.sendall(self.answer)
                return
            with socket.create_connection((self._server.host, self._server.port)) as server:
                self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]  # only sockets are registered
                    if not data:
                        return
                    if key.fileobj is server and data.startswith(ERROR):
                        client.sendall(REFUSAL)
                        return
                    key.data.sendall(data)
