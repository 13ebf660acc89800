"""A Vercel that tells on its callers: where ordered, its answer repeats the request wherever an answer has room for it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import defaultdict
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

import httpx

from rotation.vercel.outcomes import NOT_APPLIED

if TYPE_CHECKING:
    from types import TracebackType

HANG_SECONDS = 10
HUGE = 1_000
"""How often a body that is too long repeats itself."""
_RESET = struct.pack("ii", 1, 0)


class Ill(StrEnum):
    """Answers that are none."""

    HANG = "hang"
    RESET = "reset"
    EARLY = "ends early"
    HUGE = "huge"
    NONSENSE = "nonsense"


class Echo:
    """Stands before the local Vercel at `behind`; `given` counts the answers that were ordered."""

    def __init__(self, behind: str) -> None:
        self.given = 0
        self._behind = httpx.Client(base_url=behind, trust_env=False)
        self._orders: dict[str, list[int | Ill]] = defaultdict(list)
        self._closing = threading.Event()
        echo = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                echo._answer(self)

            do_GET = do_PATCH = do_POST = do_PUT  # noqa: N815 - the names that the standard library looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                """Nothing: this side may know what it was told."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._behind.close()

    def order(self, resource: str, *answers: int | Ill) -> None:
        """What the next pushes for a resource, by the provider's id, are answered with."""
        self._orders[resource].extend(answers)

    @property
    def left(self) -> list[str]:
        """The resources whose orders are not all given."""
        return sorted(name for name, answers in self._orders.items() if answers)

    def _answer(self, call: BaseHTTPRequestHandler) -> None:
        body = call.rfile.read(int(call.headers.get("Content-Length", "0")))
        segments = call.path.split("/")
        orders = self._orders.get(segments[segments.index("resources") + 1], []) if call.command == "PUT" else []
        order = orders.pop(0) if orders else None
        if order is None or order not in NOT_APPLIED:
            kept = {name: value for name, value in call.headers.items() if name.lower() in {"authorization", "content-type"}}
            real = self._behind.request(call.command, call.path, content=body, headers=kept)
            if order is None:
                head = f"HTTP/1.1 {real.status_code} Whatever\r\nContent-Length: {len(real.content)}\r\n\r\n"
                call.wfile.write(head.encode() + real.content)
                return
        self.given += 1
        if isinstance(order, Ill):
            self._misbehave(order, call, body)
        elif order is not None:
            call.wfile.write(_echoing(order, call, body))

    def _misbehave(self, order: Ill, call: BaseHTTPRequestHandler, body: bytes) -> None:
        call.close_connection = True
        answer = _echoing(201, call, body)
        match order:
            case Ill.HANG:
                self._closing.wait(HANG_SECONDS)
            case Ill.RESET:
                call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            case Ill.EARLY:
                call.wfile.write(answer[:-5])
            case Ill.HUGE:
                call.wfile.write(_echoing(201, call, body, times=HUGE))
            case Ill.NONSENSE:
                call.wfile.write(body + answer)


def _echoing(status: int, call: BaseHTTPRequestHandler, body: bytes, *, times: int = 1) -> bytes:
    """An answer that holds the token and the values in its reason, its headers and every part of its body that a client may read."""
    told = body.decode()
    token = str(call.headers.get("Authorization"))
    secret = json.loads(body)["secrets"][0]["value"]
    error = {"code": secret, "message": told, "token": token, "limit": {"reset": secret, "resetMs": token}}
    content = json.dumps({"error": error, **json.loads(body)}).encode() * times
    headers = {
        "Content-Length": len(content),
        "Content-Type": "application/json",
        "Retry-After": 1,
        "Location": f"https://{secret}@vercel.example/{secret}?token={token}",
        "X-RateLimit-Reset": secret,
        "Set-Cookie": f"session={secret}",
        "WWW-Authenticate": token,
        "X-Request": told,
    }
    head = "\r\n".join([f"HTTP/1.1 {status} {secret}", *(f"{name}: {value}" for name, value in headers.items()), "", ""])
    return head.encode() + content
