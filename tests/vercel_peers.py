"""What tests of the sink need: a resource, its installation, real clocks, and a server that does on the wire exactly what a test says."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from rotation.cases import Deadline
from rotation.model import Database, Endpoint, Installation, Login, Resource, ResourceSpec, SealContext, SecretTemplate, Server
from rotation.sensitive import Sensitive
from rotation.states import PushBy, ResourceState
from rotation.vercel.client import VercelSettings, VercelSink
from rotation.vercel.exchange import HttpClient
from rotation.vercel.tokens import StoredTokens
from tests.fakes.sealer import FakeSealer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from types import TracebackType

TOKEN = "tok_canary_1"
LOGIN = Login("orders_app_2", Sensitive("canary p@ss/w%rd"))
URL_TEMPLATE = "postgresql://{username}:{password}@{host}:{port}/{database}"
SEALER = FakeSealer()
PATIENCE = 10.0


class RealClock:
    """This machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def a_resource(
    *,
    external_id: str = "store_42",
    installation_id: str = "icfg_1",
    product: str = "postgres",
    owns_all: bool = True,
    push_by: PushBy = PushBy.RESOURCE,
    secrets: tuple[SecretTemplate, ...] = (SecretTemplate("DATABASE_URL", URL_TEMPLATE),),
    endpoints: tuple[Endpoint, ...] = (),
) -> Resource:
    database = Database("pg-eu-1", "orders", "orders_owner", "orders", endpoints)
    spec = ResourceSpec(installation_id, external_id, product, "postgresql", owns_all, database, secrets, push_by=push_by)
    return Resource("r-1", ResourceState.ACTIVE, 1, spec, Server("pg-eu-1", "postgresql", "db.example.com", 5432))


def an_installation(installation_id: str = "icfg_1", token: str = TOKEN) -> Installation:
    return Installation(installation_id, SEALER.seal(Sensitive(token), SealContext(installation_id, "", "", "token")))


def within(seconds: float = PATIENCE) -> Deadline:
    return Deadline(time.monotonic() + seconds)


@contextlib.contextmanager
def a_sink(url: str, *, ca_file: str | None = None) -> Iterator[VercelSink]:
    http = HttpClient(RealClock(), ca_file=ca_file)
    try:
        yield VercelSink(VercelSettings(url), http, StoredTokens(SEALER), RealClock())
    finally:
        http.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        select.select([], [], [], 0.005)


def in_tls(context: ssl.SSLContext, connection: socket.socket) -> ssl.SSLSocket:
    """The connection, in TLS. It waits for the first byte: Python loses a socket that is wrapped when its client is gone already."""
    connection.recv(1, socket.MSG_PEEK)
    return context.wrap_socket(connection, server_side=True)


class Peer:
    """A server on a free port. `behave` is called with each connection, on a thread; what it raises from a closed socket is ignored."""

    def __init__(
        self, behave: Callable[[Conversation], None], *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> None:
        self._behave = behave
        self._tls = tls
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._threads: list[threading.Thread] = []
        self.closing = threading.Event()
        self.conversations: list[Conversation] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def received(self) -> list[bytes]:
        """Everything that was read, by connection."""
        return [bytes(conversation.received) for conversation in self.conversations]

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for conversation in self.conversations:
            with contextlib.suppress(OSError):
                conversation.connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                connection = in_tls(self._tls, connection)
            with connection:
                conversation = Conversation(connection, self.closing)
                self.conversations.append(conversation)
                self._behave(conversation)


class Conversation:
    """One connection, from the server's side."""

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self.connection = connection
        self.received = bytearray()
        self._closing = closing
        self._taken = 0

    def request(self) -> bytes | None:
        """Read one whole request; None when the other side has closed."""
        while (end := self._end_of_request()) is None:
            if not self._more():
                return None
        request = bytes(self.received[self._taken : end])
        self._taken = end
        return request

    def read_all(self) -> None:
        """Read until the other side closes."""
        while self._more():
            pass

    def say(self, text: bytes) -> None:
        self.connection.sendall(text)

    def drip(self, text: bytes, seconds: float) -> None:
        """Say it one byte at a time."""
        for byte in text:
            if self._closing.wait(seconds):
                return
            self.say(bytes((byte,)))

    def hold(self) -> None:
        """Say nothing until the test is over."""
        self._closing.wait(PATIENCE)

    def read_slowly(self, seconds: float) -> None:
        """Take a kilobyte every so often."""
        while self.connection.recv(1024) and not self._closing.wait(seconds):
            pass

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def _more(self) -> bytes:
        got = self.connection.recv(65536)
        self.received += got
        return got

    def _end_of_request(self) -> int | None:
        head_end = self.received.find(b"\r\n\r\n", self._taken)
        if head_end < 0:
            return None
        length = 0
        for line in bytes(self.received[self._taken : head_end]).lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        end = head_end + 4 + length
        return end if len(self.received) >= end else None


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """A well formed answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def saying(*texts: bytes) -> Callable[[Conversation], None]:
    """Answer each request with the next text; the last one from then on."""
    left = list(texts)

    def behave(conversation: Conversation) -> None:
        while conversation.request() is not None:
            conversation.say(left.pop(0) if len(left) > 1 else left[0])

    return behave


def after_the_request(act: Callable[[Conversation], None]) -> Callable[[Conversation], None]:
    """Read one request, then do this."""

    def behave(conversation: Conversation) -> None:
        conversation.request()
        act(conversation)

    return behave
