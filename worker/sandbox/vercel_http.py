"""The HTTP surface of the local Vercel: the public paths, the inspection surface under `/sandbox/`, and the faults on the wire."""

from __future__ import annotations

import hmac
import io
import json
import socket
import struct
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from worker.sandbox.vercel_faults import FaultKind, faults_from_json, faults_to_json
from worker.sandbox.vercel_world import Call, Reply

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from worker.sandbox.vercel_faults import ScriptedFault
    from worker.sandbox.vercel_world import HistoryEntry, World

LARGEST_REQUEST = 1024 * 1024
_FIRST_ERROR = 300
_LINGER_NOTHING = struct.pack("ii", 1, 0)
_REASONS = {
    200: "OK",
    201: "Created",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
}

_BY_PRODUCT = ("v1", "installations", "*", "products", "*", "resources", "*", "secrets")
_BY_RESOURCE = ("v1", "installations", "*", "resources", "*", "secrets")
_RESOURCE = ("v1", "installations", "*", "resources", "*")
_RESOURCES = ("v1", "installations", "*", "resources")
_EVENTS = ("v1", "installations", "*", "events")


class ClosedError(Exception):
    """The connection ends without a proper answer."""


class _Lines(io.BufferedReader):
    """What comes in on a connection. `whole`: the last line that was read has its end; where the connection ends, it has none."""

    whole = True

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.whole = line.endswith(b"\n")
        return line


class VercelHandler(BaseHTTPRequestHandler):
    """One connection to the local Vercel. Subclassed by the server with its world, admin token and the event that it closes."""

    world: World
    admin_token: str
    closing: threading.Event
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 0
    timeout = 300

    def setup(self) -> None:
        """Make the connection ready."""
        super().setup()
        self._lines = _Lines(self.rfile)
        self.rfile = self._lines

    def parse_request(self) -> bool:
        """Read the head of a request. One that ends in the middle is none, as to every server: half a token must not be answered 401."""
        parsed = self._lines.whole and super().parse_request() and self._lines.whole
        self.close_connection = self.close_connection or not parsed
        return parsed

    def answer(self) -> None:
        """Read a request, find what it asks for, send the reply."""
        try:
            raw = self._read_body()
            path = urlsplit(self.path)
            segments = tuple(unquote(segment) for segment in path.path.split("/")[1:])
            if segments[:1] == ("sandbox",):
                self._send(self._inspect(segments[1:], parse_qs(path.query), raw))
            else:
                self._serve(segments, raw)
        except (ClosedError, ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the names that the standard library looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - the signature of the standard library
        """Nothing: the history tells what happened."""

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self._send(_error(411, "length_required"))
            raise ClosedError
        if int(length) > LARGEST_REQUEST:
            self._send(_error(413, "too_large"))
            raise ClosedError
        raw = self.rfile.read(int(length))
        if len(raw) < int(length):
            raise ClosedError
        return raw

    # The public interface

    def _serve(self, segments: tuple[str, ...], raw: bytes) -> None:
        routed = _route(self.command, segments)
        if routed is None:
            self._send(_error(404, "not_found"))
            return
        method, ids = routed
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None  # refused by the checks, as any body that is not an object
        call = Call(self.command, token=_bearer(self.headers.get("Authorization")), body=body, **ids)
        work: Callable[[Call], Reply] = getattr(self.world, method)
        fault = self.world.next_fault(call)
        if fault is None:
            self._send(work(call))
        else:
            self._go_wrong(fault, call, work)

    def _go_wrong(self, fault: ScriptedFault, call: Call, work: Callable[[Call], Reply]) -> None:
        if fault.kind is FaultKind.DELAY:
            self.closing.wait(fault.seconds)
        if fault.applies:
            reply = work(call)
            if reply.status >= _FIRST_ERROR:  # what is refused anyway is refused properly
                self._send(reply)
                return
        elif call.method == "PUT":
            self.world.note_unprocessed(call, fault.status)
        match fault.kind:
            case FaultKind.ANSWER | FaultKind.DELAY:
                error = {"error": {"code": fault.code, "message": "scripted"}} if fault.status >= _FIRST_ERROR else None
                self._send(Reply(fault.status, error))
            case FaultKind.HUGE:
                self._send(Reply(fault.status, {"padding": "x" * fault.size}))
            case FaultKind.DRIP:
                self._drip(_wire(Reply(fault.status, {"drip": "x" * 64})), fault.seconds)
            case FaultKind.HANG | FaultKind.RESET | FaultKind.TRUNCATE:
                self._break_off(fault)

    def _break_off(self, fault: ScriptedFault) -> NoReturn:
        if fault.kind is FaultKind.HANG:
            self.closing.wait(fault.seconds)
        elif fault.kind is FaultKind.RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
        else:
            self.wfile.write(_wire(Reply(fault.status, {"ends": "early"}))[:-5])
        raise ClosedError

    def _drip(self, answer: bytes, seconds: float) -> None:
        for byte in answer:
            if self.closing.wait(seconds):
                raise ClosedError
            self.wfile.write(bytes((byte,)))

    def _send(self, reply: Reply) -> None:
        self.wfile.write(_wire(reply))

    # The inspection surface

    def _inspect(self, segments: tuple[str, ...], query: Mapping[str, list[str]], raw: bytes) -> Reply:
        if (self.command, segments) == ("GET", ("health",)):
            return Reply(200, {"ok": True})
        if not hmac.compare_digest((_bearer(self.headers.get("Authorization")) or "").encode(), self.admin_token.encode()):
            return _error(401, "unauthorized")
        try:
            reply = (
                self._inspect_installations(segments, raw)
                if segments[:1] == ("installations",)
                else self._inspect_whole(segments, query, raw)
            )
        except KeyError:
            return _error(404, "not_found")
        except (ValueError, TypeError):
            return _error(400, "bad_request")
        return reply or _error(404, "not_found")

    def _inspect_installations(self, segments: tuple[str, ...], raw: bytes) -> Reply | None:
        world = self.world
        match self.command, segments:
            case "PUT", (_, installation):
                world.add_installation(installation, *map(str, json.loads(raw)["tokens"]))
                return Reply(200)
            case "GET", (_, installation, "events"):
                return Reply(200, {"events": world.events(installation)})
            case "PUT", (_, installation, "resources", resource):
                given = json.loads(raw)
                world.add_resource(installation, resource, str(given["product"]), str(given.get("name", "")))
                return Reply(200)
            case "DELETE", (_, installation, "resources", resource):
                world.remove_resource(installation, resource)
                return Reply(200)
            case "GET", (_, installation, "resources", resource):
                return Reply(200, {"held": world.held(installation, resource), "notification": world.notification(installation, resource)})
            case _:
                return None

    def _inspect_whole(self, segments: tuple[str, ...], query: Mapping[str, list[str]], raw: bytes) -> Reply | None:
        match self.command, segments:
            case "GET", ("history",):
                entries = self.world.history(int(query.get("after", ["0"])[0]))
                return Reply(200, {"history": [_history_entry(entry) for entry in entries]})
            case "PUT", ("faults",):
                return Reply(200, {"left": faults_to_json(self.world.script(faults_from_json(raw)))})
            case "PUT", ("limit",):
                per_minute = json.loads(raw)["per_minute"]
                self.world.per_minute = None if per_minute is None else int(per_minute)
                return Reply(200)
            case _:
                return None


def _route(command: str, segments: tuple[str, ...]) -> tuple[str, dict[str, str]] | None:
    """The name of the world's method for a path, and the ids that stand in the path."""
    for (method, pattern), (name, keys) in _ROUTES.items():
        if method == command and len(pattern) == len(segments) and all(p in {"*", s} for p, s in zip(pattern, segments, strict=True)):
            values = [segment for part, segment in zip(pattern, segments, strict=True) if part == "*"]
            return name, dict(zip(keys, values, strict=True))
    return None


_ROUTES: Mapping[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]]] = {
    ("PUT", _BY_RESOURCE): ("put_secrets", ("installation", "resource")),
    ("PUT", _BY_PRODUCT): ("put_secrets", ("installation", "product", "resource")),
    ("GET", _RESOURCE): ("get_resource", ("installation", "resource")),
    ("GET", _RESOURCES): ("list_resources", ("installation",)),
    ("PATCH", _RESOURCE): ("notify", ("installation", "resource")),
    ("POST", _EVENTS): ("post_event", ("installation",)),
}


def _wire(reply: Reply) -> bytes:
    body = b"" if reply.body is None else json.dumps(reply.body).encode()
    headers = {**reply.headers, "Content-Length": str(len(body))}
    if body:
        headers["Content-Type"] = "application/json"
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _error(status: int, code: str) -> Reply:
    return Reply(status, {"error": {"code": code, "message": code}})


def _bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _history_entry(entry: HistoryEntry) -> dict[str, object]:
    return {
        "number": entry.number,
        "at": entry.at.isoformat(),
        "installation": entry.installation,
        "resource": entry.resource,
        "by": entry.by,
        "status": entry.status,
        "applied": entry.applied,
        "partial": entry.partial,
        "values": dict(entry.values),
    }
