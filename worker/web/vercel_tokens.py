"""Whether a call comes from Vercel, and in whose name: the token that it brings (Vercel's guide "Native integration concepts", OIDC).

All of it is verified: that it is signed by RS256 with a key that Vercel publishes, for us, now, for this installation, and by somebody who
may ask. Whatever is wrong with it ends in one of three refusals, never in an error of ours; which one of many, the log tells, and the
caller does not learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeGuard

import jwt

from rotation.errors import RolloverError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jwt.types import Options

    from rotation.ports import Clock
    from worker.web.vercel_keys import VercelKeys

LONGEST_TOKEN = 8192
LONGEST_KEY_ID = LONGEST_NAME = 256
LEEWAY = timedelta(seconds=5)
"""How far Vercel's clock and ours may be apart."""
LATEST = 253_402_300_800
"""The year 10000, in seconds: what is later is no time."""
FOREIGN_KEYS = ("jku", "jwk", "x5u", "x5c", "crit")
"""Headers by which a token names its own key, or wants something that we do not know (RFC 7515, section 4.1)."""
MAY_ROTATE = "ADMIN"
SIGNATURE_ALONE: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""Times, audience and issuer are compared here: PyJWT takes a text for a time, and one audience of many."""


class Kind(StrEnum):
    """In whose name Vercel calls: the values of `X-Vercel-Auth`."""

    USER = "user"
    SYSTEM = "system"


class NotAuthenticated(RolloverError):
    """The token is not Vercel's, not for us, or not for now."""


class NotAllowed(RolloverError):
    """It is Vercel's, and for another installation."""


class RoleTooLow(NotAllowed):
    """It is Vercel's, and who stands behind it is no administrator."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a member of the customer's team by the id that Vercel has of him, or Vercel itself."""

    kind: Kind
    account: str
    user: str = ""
    role: str = ""

    @property
    def actor(self) -> str:
        """As the audit trail names it."""
        return f"vercel:{self.user}:{self.role.lower()}" if self.kind is Kind.USER else "vercel:system"


class VercelTokens:
    """Verifies tokens. `audience` is the id of our integration, `account_of` tells which account an installation was made by, if known."""

    def __init__(
        self, keys: VercelKeys, clock: Clock, *, issuer: str, audience: str, account_of: Callable[[str], str | None] = lambda _: None
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._account_of = account_of

    def caller(self, installation_id: str, authorizations: Sequence[str], kinds: Sequence[str]) -> Caller:
        """Who calls for this installation, by all `Authorization` and `X-Vercel-Auth` headers of the request.

        Raises `NotAuthenticated`, `NotAllowed`, and `Unavailable` when Vercel's keys cannot be looked up.
        """
        claims = self._verified(_token(authorizations))
        self._expect_ours_and_now(claims)
        caller = _caller(claims)
        if len(kinds) > 1 or (kinds and kinds[0] != caller.kind):
            raise NotAuthenticated("X-Vercel-Auth does not agree with the token")
        self._expect_installation(claims, caller, installation_id)
        if caller.kind is Kind.USER and caller.role != MAY_ROTATE:
            raise RoleTooLow("the user's role may not do this")
        return caller

    def _verified(self, token: str) -> Mapping[str, Any]:
        """What a token says whose signature is one of Vercel's."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise NotAuthenticated("it is no token") from None
        key_id = header.get("kid")
        if header.get("alg") != "RS256" or any(name in header for name in FOREIGN_KEYS):
            raise NotAuthenticated("it is signed otherwise than by RS256 with a published key")
        if not isinstance(key_id, str) or not 0 < len(key_id) <= LONGEST_KEY_ID:
            raise NotAuthenticated("it names no key")
        key = self._keys.find(key_id)
        if key is None:
            raise NotAuthenticated("it is signed with a key that Vercel does not publish")
        try:
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], options=SIGNATURE_ALONE)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise NotAuthenticated("its signature is wrong") from None
        return claims

    def _expect_ours_and_now(self, claims: Mapping[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise NotAuthenticated("it has another issuer")
        if claims.get("aud") not in (self._audience, [self._audience]):
            raise NotAuthenticated("it is for somebody else")
        now, leeway = self._clock.now().timestamp(), LEEWAY.total_seconds()
        expires_at = _time(claims, "exp")
        if expires_at is None or now >= expires_at + leeway:
            raise NotAuthenticated("it has expired, or does not say when it does")
        for name in ("nbf", "iat"):
            begins_at = _time(claims, name)
            if begins_at is not None and now < begins_at - leeway:
                raise NotAuthenticated("it is not valid yet")

    def _expect_installation(self, claims: Mapping[str, Any], caller: Caller, installation_id: str) -> None:
        claimed = claims.get("installation_id")
        if claimed is not None and claimed != installation_id:
            raise NotAllowed("it is for another installation")
        # A call of Vercel's own may name none: then it must be for the account that made the installation.
        if claimed is None and (caller.kind is Kind.USER or self._account_of(installation_id) != caller.account):
            raise NotAllowed("it names no installation, and is not for the account that made this one")


def _token(authorizations: Sequence[str]) -> str:
    if len(authorizations) != 1:
        raise NotAuthenticated("there must be one Authorization header")
    scheme, _, token = authorizations[0].partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > LONGEST_TOKEN or not token.isascii():
        raise NotAuthenticated("there must be a bearer token, and none so long")
    return token


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Seconds since 1970; None where there are none. Only a number is a time."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST:  # nor NaN, nor infinity
        raise NotAuthenticated(f"its {name} is no time")
    return float(value)


def _caller(claims: Mapping[str, Any]) -> Caller:
    account, user, role, subject = (claims.get(name) for name in ("account_id", "user_id", "user_role", "sub"))
    if not _is_name(account):
        raise NotAuthenticated("it names no account")
    if user is None and role is None:
        if subject is not None and (not isinstance(subject, str) or ":user:" in subject):
            raise NotAuthenticated("its subject is a user, and it names none")
        return Caller(Kind.SYSTEM, account)
    if not _is_name(user) or not isinstance(role, str):
        raise NotAuthenticated("it names a user without a role, or a role without a user")
    return Caller(Kind.USER, account, user, role)


def _is_name(value: object) -> TypeGuard[str]:
    """Whether it can stand in the audit trail."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isascii() and value.isprintable()
