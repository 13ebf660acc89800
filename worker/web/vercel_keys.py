"""Vercel's public keys, by which its tokens are verified: fetched when they are first needed, and kept.

An unknown key is looked for, but not as often as somebody sends one: a thousand tokens with made-up keys are two fetches a minute at most.
While Vercel's server of keys is down, the keys that are known stay good.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from rotation.cases import Deadline
from rotation.errors import Unavailable

if TYPE_CHECKING:
    from rotation.ports import Clock
    from rotation.vercel.exchange import HttpClient

FETCHES_A_MINUTE = 2
MINUTE = 60.0
KEPT_SECONDS = 3600.0
"""After so long the keys are fetched anew, so that one that was withdrawn is not believed for ever."""
FETCH_SECONDS = 3.0
MOST_KEYS = 100
SMALLEST_KEY = 2048
OK = 200

log = structlog.get_logger()


class VercelKeys:
    """The keys of one address, by their ids. Used by several threads at once."""

    def __init__(self, url: str, http: HttpClient, clock: Clock) -> None:
        self._url = url
        self._http = http
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, RSAPublicKey] = {}
        self._known_at: float | None = None
        self._fetches: deque[float] = deque(maxlen=FETCHES_A_MINUTE)
        """When they were fetched last."""

    def find(self, key_id: str) -> RSAPublicKey | None:
        """The key of that id; None when Vercel has none. Raises `Unavailable` when that cannot be told now.

        One thread fetches. The others do not wait for it: they would be all that answers.
        """
        if key_id in self._keys and not self._are_old():
            return self._keys[key_id]
        if self._lock.acquire(blocking=False):
            try:
                if self._pause() == 0:
                    self._fetches.append(self._clock.monotonic())
                    self._keys = self._fetch()
                    self._known_at = self._clock.monotonic()
                    return self._keys.get(key_id)
            except Unavailable as error:
                log.warning("vercel_keys_not_fetched", problem=str(error))
            finally:
                self._lock.release()
        key = self._keys.get(key_id)
        if key is None:
            raise Unavailable("the keys of Vercel's tokens cannot be looked up now", retry_after=timedelta(seconds=max(1.0, self._pause())))
        return key

    def _are_old(self) -> bool:
        return self._known_at is None or self._clock.monotonic() - self._known_at > KEPT_SECONDS

    def _pause(self) -> float:
        """Seconds until the keys may be fetched again."""
        fetches = tuple(self._fetches)
        return 0 if len(fetches) < FETCHES_A_MINUTE else max(0.0, fetches[0] + MINUTE - self._clock.monotonic())

    def _fetch(self) -> dict[str, RSAPublicKey]:
        deadline = Deadline(self._clock.monotonic() + FETCH_SECONDS)
        answer = self._http.send("GET", self._url, deadline, headers={"Accept": "application/json"})
        if answer.status != OK or answer.problem:
            raise Unavailable(f"the server of Vercel's keys: {answer.problem or answer.status}")
        try:
            listed = json.loads(answer.body)["keys"]
            found = dict(filter(None, map(_key, listed[:MOST_KEYS])))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Unavailable("the server of Vercel's keys: what it answers is no set of keys") from None
        if not found:
            raise Unavailable("the server of Vercel's keys: none of its keys is of use")
        return found


def _key(listed: Any) -> tuple[str, RSAPublicKey] | None:  # noqa: ANN401 - whatever was sent
    """A key that signs by RS256; others, which there may be, are none of ours."""
    if not isinstance(listed, dict) or listed.get("kty") != "RSA" or not isinstance(listed.get("kid"), str):
        return None
    if listed.get("alg", "RS256") != "RS256" or listed.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK.from_dict(listed, "RS256").key
    except jwt.PyJWTError:
        return None
    return (listed["kid"], key) if isinstance(key, RSAPublicKey) and key.key_size >= SMALLEST_KEY else None
