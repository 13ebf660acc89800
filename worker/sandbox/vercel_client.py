"""A typed client for the inspection surface of a local Vercel that runs as another process."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx

from rotation.errors import RolloverError
from worker.sandbox.vercel_faults import faults_from_json, faults_to_json
from worker.sandbox.vercel_world import HistoryEntry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from worker.sandbox.vercel_faults import ScriptedFault

_OK = 200


class SandboxFailed(RolloverError):
    """The local Vercel did not do what it was asked."""


class SandboxVercelClient:
    """Sets up, looks at and steers a local Vercel. Every method raises `SandboxFailed` when it cannot be reached or refuses."""

    def __init__(self, url: str, admin_token: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {admin_token}"}, trust_env=False, timeout=5)

    def __enter__(self) -> Self:
        """Use it; the connections are closed at the end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            self._ask("GET", "health")
        except SandboxFailed:
            return False
        return True

    def add_installation(self, installation: str, *tokens: str) -> None:
        """Make the installation known, with these tokens instead of those that it had."""
        self._ask("PUT", f"installations/{_part(installation)}", {"tokens": tokens})

    def add_resource(self, installation: str, resource: str, product: str, name: str = "") -> None:
        """Make a resource known by the provider's id."""
        self._ask("PUT", _resource(installation, resource), {"product": product, "name": name})

    def remove_resource(self, installation: str, resource: str) -> None:
        """Forget a resource and all that it holds."""
        self._ask("DELETE", _resource(installation, resource))

    def held(self, installation: str, resource: str) -> dict[str, str]:
        """The values that the resource holds now, by their bare names."""
        return dict(self._ask("GET", _resource(installation, resource))["held"])

    def notification(self, installation: str, resource: str) -> dict[str, str] | None:
        """The notice that the resource shows."""
        notice = self._ask("GET", _resource(installation, resource))["notification"]
        return None if notice is None else dict(notice)

    def events(self, installation: str) -> list[dict[str, str]]:
        """The events that were posted for the installation."""
        return list(self._ask("GET", f"installations/{_part(installation)}/events")["events"])

    def history(self, after: int = 0) -> list[HistoryEntry]:
        """The pushes with a number above `after`, oldest first."""
        entries = self._ask("GET", f"history?after={after}")["history"]
        return [HistoryEntry(**{**entry, "at": datetime.fromisoformat(entry["at"])}) for entry in entries]

    def script(self, faults: Iterable[ScriptedFault]) -> list[ScriptedFault]:
        """Replace the script of faults; nothing: all is well again. Gives what no request has met with of the one before."""
        left = self._ask("PUT", "faults", faults_to_json(faults))["left"]
        return faults_from_json(json.dumps(left).encode())

    def limit(self, per_minute: int | None) -> None:
        """Change how many pushes a minute an installation may send; None: any number."""
        self._ask("PUT", "limit", {"per_minute": per_minute})

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            answer = self._http.request(method, f"/sandbox/{path}", json=body)
        except httpx.TransportError as error:
            raise SandboxFailed(f"the local Vercel cannot be reached: {type(error).__name__}") from None
        if answer.status_code != _OK:
            raise SandboxFailed(f"the local Vercel answers {answer.status_code} to {method} /sandbox/{path}")
        return dict(answer.json()) if answer.content else {}


def _part(text: str) -> str:
    return quote(text, safe="")


def _resource(installation: str, resource: str) -> str:
    return f"installations/{_part(installation)}/resources/{_part(resource)}"
