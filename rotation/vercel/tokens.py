"""Whose token a push carries: the one that Vercel delivered with the installation, or one fetched with the provider's own credentials.

Vercel delivers a token when an installation is made or changed. Long-lived tokens are deprecated; short-lived ones last an hour and come
from a client-credentials grant (RFC 6749, section 4.4), whose address and parameters are settings here.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode

from rotation.errors import Refused, Unavailable
from rotation.model import SealContext
from rotation.sensitive import Sensitive
from rotation.vercel.exchange import check_address

if TYPE_CHECKING:
    from rotation.cases import Deadline
    from rotation.model import Installation
    from rotation.ports import Clock, Sealer
    from rotation.vercel.exchange import Answer, HttpClient

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_LASTS_WHEN_NOT_SAID = timedelta(hours=1)
_LONGEST = timedelta(days=1)
_MOST_CACHED = 10_000


class TokenSource(Protocol):
    """Where the access token of an installation comes from."""

    def token(self, installation: Installation, deadline: Deadline, *, refused: Sensitive | None = None) -> Sensitive:
        """A token of the installation, another one than `refused`, which Vercel has just turned down.

        Raises `Refused` when there is no other to be had, `Unavailable` when there is none now.
        """
        ...


class StoredTokens:
    """The token that was delivered with the installation and is kept sealed with it."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def token(self, installation: Installation, deadline: Deadline, *, refused: Sensitive | None = None) -> Sensitive:  # noqa: ARG002 - the port's parameters; nothing here takes time
        """The token as it is kept."""
        if installation.sealed_token is None:
            raise Unavailable(f"the installation {installation.id} has no token: give it one with {_command(installation)}")
        token = self._sealer.open(installation.sealed_token, SealContext(installation.id, "", "", "token"))
        if refused is not None and token == refused:
            raise Refused("Vercel refuses the stored token", advice=f"store a new one with {_command(installation)}")
        return _checked(token, f"store it again with {_command(installation)}")


@dataclass(frozen=True, slots=True)
class ClientCredentialsSettings:
    """How to ask for a token. `{installation}` in `url` becomes the installation's id, and so does the form's `installation_field`.

    Raises `Invalid` for an address that would send the secret in the clear.
    """

    url: str
    client_id: str
    client_secret: Sensitive
    installation_field: str | None = "installation_id"
    renew_before: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        """Refuse to send the client's secret in the clear."""
        check_address("vercel_token_url", self.url)


@dataclass(slots=True)
class _Kept:
    """The token of one installation. Whoever fetches holds `fetching`; times are seconds on the monotonic clock."""

    fetching: threading.Lock = field(default_factory=threading.Lock)
    token: Sensitive | None = None
    renew_at: float = 0.0
    ends_at: float = 0.0


class ClientCredentials:
    """Short-lived tokens, one kept for each installation, renewed early, by one thread at a time."""

    def __init__(self, settings: ClientCredentialsSettings, http: HttpClient, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def token(self, installation: Installation, deadline: Deadline, *, refused: Sensitive | None = None) -> Sensitive:
        """The kept token while it is good, else a new one. While another thread renews early, the old one serves."""
        kept = self._place(installation.id)
        good = self._good(kept, refused)
        if good is not None and self._clock.monotonic() < kept.renew_at:
            return good
        if not kept.fetching.acquire(timeout=0 if good is not None else max(0.0, deadline.left(self._clock.monotonic()))):
            if good is not None:
                return good
            raise Unavailable("another thread is still fetching a token for this installation")
        try:
            return self._renewed(kept, installation, deadline, refused)
        finally:
            kept.fetching.release()

    def _renewed(self, kept: _Kept, installation: Installation, deadline: Deadline, refused: Sensitive | None) -> Sensitive:
        good = self._good(kept, refused)
        if good is not None and self._clock.monotonic() < kept.renew_at:
            return good  # somebody else fetched it while this thread waited
        try:
            return self._fetch(kept, installation, deadline)
        except Unavailable:
            if good is None:
                raise
            return good  # renewing early failed; there is still time

    def _fetch(self, kept: _Kept, installation: Installation, deadline: Deadline) -> Sensitive:
        settings = self._settings
        form = {"grant_type": "client_credentials", "client_id": settings.client_id, "client_secret": settings.client_secret.reveal()}
        if settings.installation_field is not None:
            form[settings.installation_field] = installation.id
        asked_at = self._clock.monotonic()
        answer = self._http.send(
            "POST",
            settings.url.replace("{installation}", quote(installation.id, safe="")),
            deadline,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
        )
        token, lasts = _granted(answer)
        kept.ends_at = asked_at + lasts.total_seconds()
        kept.renew_at = kept.ends_at - min(settings.renew_before, lasts / 5).total_seconds()
        kept.token = token
        return token

    def _good(self, kept: _Kept, refused: Sensitive | None) -> Sensitive | None:
        token = kept.token
        return token if token is not None and token != refused and self._clock.monotonic() < kept.ends_at else None

    def _place(self, installation_id: str) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(installation_id, _Kept())
            self._kept.move_to_end(installation_id)
            if len(self._kept) > _MOST_CACHED:
                self._kept.popitem(last=False)
            return kept


def _command(installation: Installation) -> str:
    return f"`rollover installation token {installation.id}`"


def _checked(token: Sensitive, advice: str) -> Sensitive:
    if not _TOKEN.fullmatch(token.reveal()):
        raise Refused("the token has characters that no token has, or none", advice=advice)
    return token


def _granted(answer: Answer) -> tuple[Sensitive, timedelta]:
    if answer.status in {400, 401, 403}:
        raise Refused(f"the token endpoint refuses our client: {answer.status}", advice="check the client's id and secret in the settings")
    if answer.status != 200 or not answer.whole:  # noqa: PLR2004 - RFC 6749, section 5.1
        raise Unavailable(f"the token endpoint gave no token: {answer.status or answer.problem}")
    try:
        granted = json.loads(answer.body)
    except ValueError:
        granted = None
    token = granted.get("access_token") if isinstance(granted, dict) else None
    if not isinstance(token, str):
        raise Unavailable("the token endpoint gave no token: its answer has no access_token")
    return _checked(Sensitive(token), "ask whoever runs the token endpoint"), _lasts(granted.get("expires_in"))


def _lasts(seconds: object) -> timedelta:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= _LONGEST.total_seconds():
        return timedelta(seconds=seconds)
    return _LASTS_WHEN_NOT_SAID
