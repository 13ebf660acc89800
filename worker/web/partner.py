"""What Vercel asks of us: a rotation of one resource's secrets (Vercel's "Marketplace API", operation "Request Secrets Rotation").

An answer is one transaction of the store: once it is given, the rotation is on record and will be done, whatever crashes. Vercel repeats a
call that it got no answer to with the same key, and then gets the same answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from rotation import requests
from rotation.errors import Fault, Invalid, NotFound
from rotation.states import ResourceState, Trigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotation.model import Resource
    from rotation.ports import Ports
    from worker.web.vercel_tokens import VercelTokens

MOST_HOURS = 720
"""Thirty days: the longest delay that Vercel sends."""
LONGEST_REASON = 500
LONGEST_ID = 256
LONGEST_KEY = 255
NUMBER = re.compile(r"[0-9]{1,4}(\.[0-9]{1,32})?")


class Directory(Protocol):
    """What finds resources by their names."""

    def find_resource(self, name: str) -> Resource:
        """As in the store: by `installation/id`. Raises `NotFound`."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A request of Vercel's: every `Authorization`, `X-Vercel-Auth` and `Idempotency-Key` header that it has, and its body."""

    installation_id: str
    resource_id: str
    authorizations: Sequence[str] = field(default=(), repr=False)
    kinds: Sequence[str] = ()
    keys: Sequence[str] = ()
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call asks for: why, and for how long the old secrets are to work; None where it does not say."""

    reason: str
    grace: timedelta | None


class Partner:
    """Answers Vercel's calls. `max_grace` is the longest that we give."""

    def __init__(self, ports: Ports, directory: Directory, tokens: VercelTokens, *, max_grace: timedelta) -> None:
        self._ports = ports
        self._directory = directory
        self._tokens = tokens
        self._max_grace = max_grace

    def rotate(self, call: Call) -> requests.Received:
        """Take a rotation in.

        Raises `NotAuthenticated` and `NotAllowed` for who may not ask, `NotFound`, `Conflict` where the resource's state or an earlier
        call with this key forbids it, `Invalid` for what cannot be understood, and `Unavailable` or `OutcomeUnknown` where the store
        does not answer: Vercel may ask again.
        """
        caller = self._tokens.caller(call.installation_id, call.authorizations, call.kinds)
        key, wish = _key(call.keys), _wish(call.body, self._max_grace)
        resource = self._resource(call)
        return requests.trigger(resource.id, requests.Asked(Trigger.VERCEL, caller.actor, wish.reason, key, wish.grace), self._ports)

    def _resource(self, call: Call) -> Resource:
        """The installation's own resource of that id, which is not gone."""
        if not all(len(name) <= LONGEST_ID and name.isprintable() for name in (call.installation_id, call.resource_id)):
            raise NotFound("resource", "of that id")
        found = self._directory.find_resource(f"{call.installation_id}/{call.resource_id}")
        named = (found.spec.installation_id, found.spec.external_id) == (call.installation_id, call.resource_id)
        if not named or found.state is ResourceState.GONE:
            raise NotFound("resource", call.resource_id)
        return found


def _key(keys: Sequence[str]) -> str | None:
    if not keys:
        return None
    if len(keys) > 1 or not 0 < len(keys[0]) <= LONGEST_KEY or not keys[0].isprintable():
        raise Invalid([Fault("Idempotency-Key", f"must be one line of 1 to {LONGEST_KEY} characters", "send it once, or not at all")])
    return keys[0]


def _wish(body: bytes, max_grace: timedelta) -> Wish:
    """An empty body asks for a rotation with our own grace."""
    try:
        asked = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise Invalid([Fault("body", "is not JSON", "send an object, or nothing")]) from None
    if not isinstance(asked, dict):
        raise Invalid([Fault("body", "is not an object", "send an object, or nothing")])
    faults: list[Fault] = []
    wish = Wish(_reason(asked, faults), _delay(asked, max_grace, faults))
    if faults:
        raise Invalid(faults)
    return wish


def _reason(asked: Mapping[str, Any], faults: list[Fault]) -> str:
    """As it goes on record: one line, and cut off where it is long, since a rotation must not fail for its reason."""
    reason = asked.get("reason")
    if reason is None:
        return ""
    if not isinstance(reason, str):
        faults.append(Fault("reason", "is not a text"))
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in reason[:LONGEST_REASON]).strip()


def _delay(asked: Mapping[str, Any], max_grace: timedelta, faults: list[Fault]) -> timedelta | None:
    """`delayOldSecretsExpirationHours`: a number, which Vercel's own sample sends as a text. None and absent: it does not say."""
    name = "delayOldSecretsExpirationHours"
    given = asked.get(name)
    if given is None:
        return None
    if isinstance(given, str) and NUMBER.fullmatch(given):
        given = float(given)
    most = min(timedelta(hours=MOST_HOURS), max_grace)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= MOST_HOURS:  # nor NaN
        faults.append(Fault(name, f"is not a number of hours from 0 to {most / timedelta(hours=1):g}"))
        return None
    delay = timedelta(hours=given)
    if delay > most:
        faults.append(Fault(name, f"is longer than the {most / timedelta(hours=1):g} hours that this provider gives"))
        return None
    return delay
