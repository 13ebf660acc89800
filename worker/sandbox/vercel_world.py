"""What the local Vercel knows: installations and their tokens, resources and what they hold, a history, its limit and its script of faults.

No network here. One lock; every method may be called by any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from worker.sandbox.vercel_checks import BadBodyError, event_body, notification_body, secrets_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from worker.sandbox.vercel_checks import HeldSecret, SecretsBody
    from worker.sandbox.vercel_faults import ScriptedFault

DEFAULT_PER_MINUTE = 240
WINDOW_SECONDS = 60.0
HISTORY_LENGTH = 10_000


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a status, an object for the body (None: empty), and headers."""

    status: int
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the public interface, taken apart."""

    method: str
    installation: str
    resource: str = ""
    product: str | None = None
    token: str | None = None
    body: object = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One push that reached the local Vercel: when, by which endpoint, how it was answered, and the values that were taken over."""

    number: int
    at: datetime
    installation: str
    resource: str
    by: str
    status: int
    applied: bool
    partial: bool | None
    values: Mapping[str, str] = field(repr=False)


@dataclass(slots=True)
class _Resource:
    product: str
    internal_id: str
    name: str
    held: dict[str, HeldSecret] = field(default_factory=dict, repr=False)
    notification: Mapping[str, str] | None = None


@dataclass(slots=True)
class _Installation:
    resources: dict[str, _Resource] = field(default_factory=dict)
    events: list[Mapping[str, str]] = field(default_factory=list)
    window_ends: float = 0.0
    used: int = 0


class RefusedError(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"error": {"code": code, "message": message}})


class World:
    """Everything that the local Vercel knows. `per_minute` is the limit of pushes for each installation; None: no limit."""

    def __init__(self, per_minute: int | None = DEFAULT_PER_MINUTE) -> None:
        self.per_minute = per_minute
        self._lock = threading.RLock()
        self._installations: dict[str, _Installation] = {}
        self._owners: dict[str, str] = {}
        self._faults: list[ScriptedFault] = []
        self._history: deque[HistoryEntry] = deque(maxlen=HISTORY_LENGTH)
        self._numbers = 0

    # What a test or the demo sets up and looks at

    def add_installation(self, installation: str, *tokens: str) -> None:
        """Make the installation known, with these tokens instead of those that it had."""
        with self._lock:
            self._installations.setdefault(installation, _Installation())
            self._owners = {token: owner for token, owner in self._owners.items() if owner != installation}
            self._owners.update(dict.fromkeys(tokens, installation))

    def add_resource(self, installation: str, resource: str, product: str, name: str = "") -> None:
        """Make a resource known by the provider's id. Raises `KeyError` for an unknown installation."""
        with self._lock:
            resources = self._installations[installation].resources
            resources.setdefault(resource, _Resource(product, f"store_{len(resources) + 1}", name or resource)).product = product

    def remove_resource(self, installation: str, resource: str) -> None:
        """Forget a resource and all that it holds."""
        with self._lock:
            self._installations[installation].resources.pop(resource, None)

    def held(self, installation: str, resource: str) -> dict[str, str]:
        """The values that the resource holds now, by their bare names. Raises `KeyError` for what is unknown."""
        return {name: secret.value for name, secret in self.held_secrets(installation, resource).items()}

    def held_secrets(self, installation: str, resource: str) -> dict[str, HeldSecret]:
        """The same with prefixes and the values of single environments."""
        with self._lock:
            return dict(self._installations[installation].resources[resource].held)

    def notification(self, installation: str, resource: str) -> Mapping[str, str] | None:
        """The notice that the resource shows."""
        with self._lock:
            return self._installations[installation].resources[resource].notification

    def events(self, installation: str) -> list[Mapping[str, str]]:
        """The events that were posted for the installation."""
        with self._lock:
            return list(self._installations[installation].events)

    def history(self, after: int = 0) -> list[HistoryEntry]:
        """The pushes with a number above `after`, oldest first; only the latest 10,000 are kept."""
        with self._lock:
            return [entry for entry in self._history if entry.number > after]

    def script(self, faults: Iterable[ScriptedFault]) -> list[ScriptedFault]:
        """Replace the script of faults; nothing: all is well again. Gives what no request has met with of the one before."""
        with self._lock:
            left, self._faults = self._faults, list(faults)
            return left

    def next_fault(self, call: Call) -> ScriptedFault | None:
        """The first fault of the script that is meant for this request, counted down."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.matches(call.method, call.installation, call.resource):
                    if fault.times is not None:
                        self._faults[index : index + 1] = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                    return fault
            return None

    # What Vercel's public interface does

    def put_secrets(self, call: Call) -> Reply:
        """Take over the values of a push."""
        with self._lock:
            limits: dict[str, str] = {}
            body: SecretsBody | None = None
            try:
                installation = self._authorized(call)
                limits = self._take(installation)
                resource = self._resource(installation, call)
                body = secrets_body(call.body)
            except RefusedError as error:
                reply = error.reply
            except BadBodyError as error:
                reply = RefusedError(400, "bad_request", f"Invalid request: {error}").reply
            else:
                kept = resource.held if body.partial else {}
                resource.held = {**kept, **{secret.name: secret for secret in body.secrets}}
                reply = Reply(201)
            self._note(call, reply.status, body if reply.status == 201 else None)  # noqa: PLR2004 - Created
            return replace(reply, headers={**limits, **reply.headers})

    def note_unprocessed(self, call: Call, status: int) -> None:
        """Keep in the history a push that a fault stopped before anything was done."""
        with self._lock:
            self._note(call, status, None)

    def get_resource(self, call: Call) -> Reply:
        """One resource, never with its secrets."""
        with self._lock:
            try:
                resource = self._resource(self._authorized(call), call)
            except RefusedError as error:
                return error.reply
            return Reply(200, {"id": call.resource, **_described(resource)})

    def list_resources(self, call: Call) -> Reply:
        """Every resource of the installation."""
        with self._lock:
            try:
                installation = self._authorized(call)
            except RefusedError as error:
                return error.reply
            listed = [{"partnerId": id_, **_described(resource)} for id_, resource in installation.resources.items()]
            return Reply(200, {"resources": listed})

    def notify(self, call: Call) -> Reply:
        """Show or clear the notice of a resource."""
        with self._lock:
            try:
                resource = self._resource(self._authorized(call), call)
                resource.notification = notification_body(call.body)
            except RefusedError as error:
                return error.reply
            except BadBodyError as error:
                return RefusedError(400, "bad_request", f"Invalid request: {error}").reply
            return Reply(200, {"id": call.resource, **_described(resource)})

    def post_event(self, call: Call) -> Reply:
        """Keep an event."""
        with self._lock:
            try:
                installation = self._authorized(call)
                installation.events.append(event_body(call.body))
            except RefusedError as error:
                return error.reply
            except BadBodyError as error:
                return RefusedError(400, "bad_request", f"Invalid request: {error}").reply
            return Reply(201)

    def _authorized(self, call: Call) -> _Installation:
        owner = self._owners.get(call.token or "")
        if owner is None:
            raise RefusedError(401, "unauthorized", "Not authorized")
        if owner != call.installation:
            raise RefusedError(403, "forbidden", "Not authorized for this installation")
        return self._installations[owner]

    def _resource(self, installation: _Installation, call: Call) -> _Resource:
        resource = installation.resources.get(call.resource)
        if resource is None or call.product not in {None, resource.product}:
            raise RefusedError(404, "not_found", "Resource not found")
        return resource

    def _take(self, installation: _Installation) -> dict[str, str]:
        if self.per_minute is None:
            return {}
        now = time.time()
        if now >= installation.window_ends:
            installation.window_ends, installation.used = now + WINDOW_SECONDS, 0
        installation.used += 1
        remaining = max(0, self.per_minute - installation.used)
        headers = {
            "X-RateLimit-Limit": str(self.per_minute),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(int(installation.window_ends) + 1),
        }
        if installation.used > self.per_minute:
            limit = {
                "remaining": 0,
                "reset": int(installation.window_ends) + 1,
                "resetMs": int(installation.window_ends * 1000) + 1,
                "total": self.per_minute,
            }
            error = RefusedError(429, "rate_limited", "Too many requests")
            error.reply = Reply(429, {"error": {"code": "rate_limited", "message": "Too many requests", "limit": limit}}, headers)
            raise error
        return headers

    def _note(self, call: Call, status: int, body: SecretsBody | None) -> None:
        self._numbers += 1
        values = {} if body is None else {secret.name: secret.value for secret in body.secrets}
        self._history.append(
            HistoryEntry(
                self._numbers,
                datetime.now(UTC),
                call.installation,
                call.resource,
                "resource" if call.product is None else "product",
                status,
                body is not None,
                None if body is None else body.partial,
                values,
            ),
        )


def _described(resource: _Resource) -> dict[str, object]:
    return {"internalId": resource.internal_id, "name": resource.name, "status": "ready", "productId": resource.product}
