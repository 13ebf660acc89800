"""The push to Vercel, and whether it still knows a resource.

Vercel has two endpoints for a resource's secrets, with the same body: by resource, and by product, which is deprecated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from rotation.errors import Fault, Invalid, Refused, Unavailable
from rotation.model import PushOutcome, PushVerdict
from rotation.states import PushBy
from rotation.vercel import secrets as templates
from rotation.vercel.exchange import check_address
from rotation.vercel.outcomes import NOT_APPLIED, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from rotation.cases import Deadline
    from rotation.model import Installation, Login, RenderedSecret, Resource
    from rotation.ports import Clock
    from rotation.sensitive import Sensitive
    from rotation.vercel.exchange import HttpClient
    from rotation.vercel.tokens import TokenSource

_OK = 200


@dataclass(frozen=True, slots=True)
class VercelSettings:
    """Where Vercel is. Raises `Invalid` for anything but HTTPS, except on this machine itself."""

    api_url: str = "https://api.vercel.com"

    def __post_init__(self) -> None:
        """Refuse to send tokens and passwords in the clear."""
        if urlsplit(check_address("vercel_api_url", self.api_url)).query:
            raise Invalid([Fault("vercel_api_url", "has a query", "like https://api.vercel.com")])


class VercelSink:
    """Vercel as the holder of secrets: the port `SecretsSink`."""

    def __init__(self, settings: VercelSettings, http: HttpClient, tokens: TokenSource, clock: Clock) -> None:
        self._api_url = settings.api_url.rstrip("/")
        self._http = http
        self._tokens = tokens
        self._clock = clock

    def close(self) -> None:
        """Close the idle connections; the sink stays usable."""
        self._http.close()

    def render(self, resource: Resource, login: Login) -> tuple[RenderedSecret, ...]:
        """The resource's secrets for this login. Raises `Invalid` for a template that cannot be rendered."""
        return templates.render(resource.spec, resource.server, login)

    def pause(self, installation: Installation, *, emergency: bool) -> timedelta | None:  # noqa: ARG002 - whoever counts what comes of pushes knows
        """Nothing is remembered here of how earlier pushes ended."""
        return None

    def push(
        self,
        resource: Resource,
        installation: Installation,
        secrets: Sequence[RenderedSecret],
        may_send: Callable[[], bool],
        deadline: Deadline,
    ) -> PushOutcome:
        """Send all secrets in one request. A refused token is replaced and the request sent once more, with `may_send` asked again."""
        body = templates.payload(secrets, owns_all=resource.spec.owns_all_secrets)
        try:
            url = self._api_url + secrets_path(resource)
            token = self._tokens.token(installation, deadline)
        except (Invalid, Refused, Unavailable) as error:
            return _unsendable(error)
        outcome = self._put(url, token, body, may_send, deadline)
        if outcome.verdict is not PushVerdict.UNAUTHORIZED:
            return outcome
        try:
            token = self._tokens.token(installation, deadline, refused=token)
        except Refused:
            return outcome
        except Unavailable as error:
            return replace(_unsendable(error), status=outcome.status)
        return self._put(url, token, body, may_send, deadline)

    def resource_exists(self, resource: Resource, installation: Installation, deadline: Deadline) -> bool | None:
        """Whether Vercel knows the resource; None when it gave no definite answer, a refused token included."""
        try:
            url = self._api_url + resource_path(resource)
            token = self._tokens.token(installation, deadline)
            exists, status = self._look(url, token, deadline)
            if NOT_APPLIED.get(status) is PushVerdict.UNAUTHORIZED:
                exists, _ = self._look(url, self._tokens.token(installation, deadline, refused=token), deadline)
        except (Invalid, Refused, Unavailable):
            return None
        return exists

    def _put(self, url: str, token: Sensitive, body: bytes, may_send: Callable[[], bool], deadline: Deadline) -> PushOutcome:
        headers = {"Authorization": f"Bearer {token.reveal()}", "Content-Type": "application/json"}
        answer = self._http.send("PUT", url, deadline, headers=headers, body=body, may_send=may_send)
        return outcome_of(answer, self._clock.now())

    def _look(self, url: str, token: Sensitive, deadline: Deadline) -> tuple[bool | None, int]:
        answer = self._http.send("GET", url, deadline, headers={"Authorization": f"Bearer {token.reveal()}"})
        if answer.status == _OK:
            return True, _OK
        status = answer.status or 0
        return (False if NOT_APPLIED.get(status) is PushVerdict.MISSING else None), status


def resource_path(resource: Resource) -> str:
    """The path of one resource of an installation. Raises `Invalid` for an id that cannot stand in a path."""
    spec = resource.spec
    return f"/v1/installations/{_segment('installation', spec.installation_id)}/resources/{_segment('id', spec.external_id)}"


def secrets_path(resource: Resource) -> str:
    """Where the resource's secrets are put: by resource, or by product where its spec says so. Raises `Invalid` as above."""
    spec = resource.spec
    if spec.push_by is PushBy.RESOURCE:
        return f"{resource_path(resource)}/secrets"
    installation, product = _segment("installation", spec.installation_id), _segment("product", spec.product)
    return f"/v1/installations/{installation}/products/{product}/resources/{_segment('id', spec.external_id)}/secrets"


def _unsendable(error: Invalid | Refused | Unavailable) -> PushOutcome:
    """What came of a push that had no token or no address. Without a token the installation waits, as if it had been refused."""
    match error:
        case Invalid():
            verdict = PushVerdict.REFUSED
        case Refused():
            verdict = PushVerdict.UNAUTHORIZED
        case Unavailable():
            verdict = PushVerdict.UNSENT
    return PushOutcome(verdict, note=str(error), asked=False)


def _segment(field: str, text: str) -> str:
    # Dots need no encoding, so that a path of "." or ".." would be resolved on the way and name something else.
    if not text or text in {".", ".."}:
        raise Invalid([Fault(field, "cannot stand in Vercel's path")])
    return quote(text, safe="")
