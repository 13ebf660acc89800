"""Vercel's side of a token: keys of its own, which it publishes, and tokens signed with them as its documents describe."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from rotation.vercel.exchange import Answer

if TYPE_CHECKING:
    from datetime import datetime

ISSUER = "https://marketplace.vercel.com"
AUDIENCE = "oac_ours"
INSTALLATION = "icfg_1"
ACCOUNT = "account-of-icfg-1"


@cache
def private_key(name: str, size: int = 2048) -> rsa.RSAPrivateKey:
    """The same for the same name, as making one takes long."""
    assert name
    return rsa.generate_private_key(65537, size)


def public_jwk(name: str, **more: object) -> dict[str, Any]:
    listed: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(private_key(name).public_key()))
    return {**listed, "kid": name, "alg": "RS256", "use": "sig", **more}


def claims(at: datetime, **changed: object) -> dict[str, Any]:
    """Of an administrator of the customer's team; None takes one away."""
    now = int(at.timestamp())
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "account_id": ACCOUNT,
        "sub": "account:0a:user:0b",
        "installation_id": INSTALLATION,
        "user_id": "user-1",
        "user_role": "ADMIN",
        "type": "access_token",
        "iat": now,
        "exp": now + 300,
    }
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def system_claims(at: datetime, **changed: object) -> dict[str, Any]:
    return claims(at, **{"user_id": None, "user_role": None, "sub": "account:0a", **changed})


def signed(payload: dict[str, Any], *, by: str = "vercel-1", headers: dict[str, Any] | None = None) -> str:
    return jwt.encode(payload, private_key(by), "RS256", {"kid": by, **(headers or {})})


class KeyServer:
    """Where Vercel publishes its keys. None: it does not answer."""

    def __init__(self, *names: str) -> None:
        self.body: bytes | None = json.dumps({"keys": [public_jwk(name) for name in names]}).encode()
        self.asked = 0

    def send(self, *_: object, **__: object) -> Answer:
        self.asked += 1
        return Answer(None, True, problem="timed out") if self.body is None else Answer(200, True, True, body=self.body)
