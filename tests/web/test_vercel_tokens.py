from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from rotation.errors import Unavailable
from tests.fakes.clock import FakeClock
from tests.web import vercel_signer as vercel
from tests.web.vercel_signer import KeyServer, claims, private_key, public_jwk, signed, system_claims
from worker.web.vercel_keys import VercelKeys
from worker.web.vercel_tokens import LEEWAY, LONGEST_TOKEN, Kind, NotAllowed, NotAuthenticated, VercelTokens

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCK = FakeClock()
NOW = CLOCK.now()
SECOND = timedelta(seconds=1)


def tokens(server: KeyServer | None = None, clock: FakeClock = CLOCK, account: str | None = vercel.ACCOUNT) -> VercelTokens:
    keys = VercelKeys("https://keys.example.com", server or KeyServer("vercel-1"), clock)  # type: ignore[arg-type]  # it sends as that does
    return VercelTokens(keys, clock, issuer=vercel.ISSUER, audience=vercel.AUDIENCE, account_of=lambda _: account)


def bearer(token: str) -> list[str]:
    return [f"Bearer {token}"]


def part(value: object) -> str:
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(header: object, payload: object, signature: bytes = b"") -> str:
    return f"{part(header)}.{part(payload)}.{part(signature)}"


def by_secret(secret: bytes) -> str:
    """HS256 with the public key for a secret, which a library that takes the algorithm from the token would accept."""
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    text = f"{part({'alg': 'HS256', 'kid': 'vercel-1'})}.{part(claims(NOW))}"
    return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def public(encoding: serialization.Encoding, form: serialization.PublicFormat) -> bytes:
    return private_key("vercel-1").public_key().public_bytes(encoding, form)


PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SPKI, PKCS1 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1
GOOD = claims(NOW)
SOON, PAST = int(NOW.timestamp()) + 60, int(NOW.timestamp()) - 60

NOT_AUTHENTIC: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: unsigned({"alg": "none", "kid": "vercel-1"}, GOOD),
    "no algorithm, in capitals": lambda: unsigned({"alg": "NONE", "kid": "vercel-1"}, GOOD),
    "an algorithm that is no text": lambda: unsigned({"alg": ["RS256"], "kid": "vercel-1"}, GOOD),
    "the public key as a secret, PEM": lambda: by_secret(public(PEM, SPKI)),
    "the public key as a secret, PEM without its last line's end": lambda: by_secret(public(PEM, SPKI).strip()),
    "the public key as a secret, PKCS 1": lambda: by_secret(public(PEM, PKCS1)),
    "the public key as a secret, DER": lambda: by_secret(public(DER, SPKI)),
    "the public key as a secret, JWK": lambda: by_secret(json.dumps(public_jwk("vercel-1")).encode()),
    "RS512": lambda: jwt.encode(GOOD, private_key("vercel-1"), "RS512", {"kid": "vercel-1"}),
    "PS256": lambda: jwt.encode(GOOD, private_key("vercel-1"), "PS256", {"kid": "vercel-1"}),
    "another key under a known id": lambda: jwt.encode(GOOD, private_key("another"), "RS256", {"kid": "vercel-1"}),
    "a key that is not published": lambda: signed(GOOD, by="another"),
    "no key id": lambda: jwt.encode(GOOD, private_key("vercel-1"), "RS256"),
    "a key id that is no text": lambda: unsigned({"alg": "RS256", "kid": 1}, GOOD, b"x" * 256),
    "a key id without end": lambda: unsigned({"alg": "RS256", "kid": "k" * 300}, GOOD, b"x" * 256),
    "an address of keys": lambda: signed(GOOD, headers={"jku": "https://evil.example.com/keys"}),
    "a key of its own": lambda: signed(GOOD, headers={"jwk": public_jwk("another")}),
    "an address of a certificate": lambda: signed(GOOD, headers={"x5u": "https://evil.example.com/certificate"}),
    "a certificate of its own": lambda: signed(GOOD, headers={"x5c": ["MIIB"]}),
    "an extension that must be understood": lambda: signed(GOOD, headers={"crit": ["b64"], "b64": False}),
    "its signature cut off": lambda: signed(GOOD).rpartition(".")[0] + ".",
    "its claims changed": lambda: ".".join((signed(GOOD).split(".")[0], part(claims(NOW, user_id="other")), signed(GOOD).split(".")[2])),
    "claims that are no object": lambda: jwt.PyJWS().encode(b"[1]", private_key("vercel-1"), "RS256", {"kid": "vercel-1"}),
    "claims that are no JSON": lambda: jwt.PyJWS().encode(b"{", private_key("vercel-1"), "RS256", {"kid": "vercel-1"}),
    "claims without a bottom": lambda: jwt.PyJWS().encode(b"[" * 3000, private_key("vercel-1"), "RS256", {"kid": "vercel-1"}),
    "expired": lambda: signed(claims(NOW, exp=PAST)),
    "no end": lambda: signed(claims(NOW, exp=None)),
    "an end that is a text": lambda: signed(claims(NOW, exp=None) | {"exp": str(SOON)}),
    "an end that is true": lambda: signed(claims(NOW) | {"exp": True}),
    "an end that is no number": lambda: signed(claims(NOW) | {"exp": float("nan")}),
    "an end that never comes": lambda: signed(claims(NOW) | {"exp": float("inf")}),
    "an end that is huge": lambda: signed(claims(NOW) | {"exp": 10**400}),
    "not valid yet": lambda: signed(claims(NOW, nbf=SOON)),
    "made in the future": lambda: signed(claims(NOW, iat=SOON)),
    "another issuer": lambda: signed(claims(NOW, iss="https://evil.example.com")),
    "an issuer that begins alike": lambda: signed(claims(NOW, iss=vercel.ISSUER + ".evil.example.com")),
    "an issuer with a slash": lambda: signed(claims(NOW, iss=vercel.ISSUER + "/")),
    "no issuer": lambda: signed(claims(NOW, iss=None)),
    "an audience of somebody else": lambda: signed(claims(NOW, aud="oac_another")),
    "an audience of us and another": lambda: signed(claims(NOW, aud=[vercel.AUDIENCE, "oac_another"])),
    "an audience that begins alike": lambda: signed(claims(NOW, aud=vercel.AUDIENCE + "x")),
    "no audience": lambda: signed(claims(NOW, aud=None)),
    "no account": lambda: signed(claims(NOW, account_id=None)),
    "an account that is no text": lambda: signed(claims(NOW, account_id=7)),
    "a user without a role": lambda: signed(claims(NOW, user_role=None)),
    "a user in its subject alone": lambda: signed(claims(NOW, user_id=None, user_role=None)),
    "a user that cannot stand in a log": lambda: signed(claims(NOW, user_id="user\n1")),
    "a user without end": lambda: signed(claims(NOW, user_id="u" * 300)),
    "a role without a user": lambda: signed(claims(NOW, user_id=None)),
    "a role that is no text": lambda: signed(claims(NOW, user_role=["ADMIN"])),
    "garbage": lambda: "garbage",
    "three dots": lambda: "...",
    "nothing": lambda: "",
    "letters of another alphabet": lambda: signed(GOOD)[:-1] + "ж",
    "a hundred kibibytes": lambda: signed(claims(NOW, more="x" * 100_000)),
}

NOT_ALLOWED: dict[str, dict[str, Any]] = {
    "a plain user": claims(NOW, user_role="USER"),
    "an administrator in small letters": claims(NOW, user_role="admin"),
    "a role that nobody knows": claims(NOW, user_role="OWNER"),
    "another installation": claims(NOW, installation_id="icfg_2"),
    "Vercel itself, for another installation": system_claims(NOW, installation_id="icfg_2"),
    "an installation that is no text": claims(NOW, installation_id=["icfg_1"]),
    "a user without an installation": claims(NOW, installation_id=None),
    "Vercel itself, for another account": system_claims(NOW, installation_id=None, account_id="another"),
}


@pytest.mark.parametrize("name", NOT_AUTHENTIC)
def test_what_is_not_vercels_token_is_refused(name: str) -> None:
    with pytest.raises(NotAuthenticated):
        tokens().caller(vercel.INSTALLATION, bearer(NOT_AUTHENTIC[name]()), [])


@pytest.mark.parametrize("name", NOT_ALLOWED)
def test_who_may_not_ask_is_refused(name: str) -> None:
    with pytest.raises(NotAllowed):
        tokens().caller(vercel.INSTALLATION, bearer(signed(NOT_ALLOWED[name])), [])


@pytest.mark.parametrize(
    "headers",
    [[], [signed(GOOD)], [f"Basic {signed(GOOD)}"], ["Bearer"], [f"Bearer {signed(GOOD)}", f"Bearer {signed(GOOD)}"]],
    ids=["none", "no scheme", "another scheme", "no token", "two"],
)
def test_there_must_be_one_bearer_token(headers: list[str]) -> None:
    with pytest.raises(NotAuthenticated):
        tokens().caller(vercel.INSTALLATION, headers, [])


def test_an_administrator_of_the_team_may_ask() -> None:
    caller = tokens().caller(vercel.INSTALLATION, bearer(signed(GOOD)), ["user"])
    assert (caller.kind, caller.account, caller.actor) == (Kind.USER, vercel.ACCOUNT, "vercel:user-1:admin")


@pytest.mark.parametrize("payload", [system_claims(NOW), system_claims(NOW, installation_id=None), system_claims(NOW, sub=None)])
def test_vercel_itself_may_ask(payload: dict[str, Any]) -> None:
    caller = tokens().caller(vercel.INSTALLATION, bearer(signed(payload)), ["system"])
    assert (caller.kind, caller.actor) == (Kind.SYSTEM, "vercel:system")


def test_an_installation_whose_account_is_unknown_is_not_guessed() -> None:
    with pytest.raises(NotAllowed):
        tokens(account=None).caller(vercel.INSTALLATION, bearer(signed(system_claims(NOW, installation_id=None))), [])


@pytest.mark.parametrize(
    ("payload", "kinds"), [(GOOD, ["system"]), (system_claims(NOW), ["user"]), (GOOD, ["user", "user"]), (GOOD, ["User"])]
)
def test_the_kind_that_is_sent_agrees_with_the_token(payload: dict[str, Any], kinds: list[str]) -> None:
    with pytest.raises(NotAuthenticated):
        tokens().caller(vercel.INSTALLATION, bearer(signed(payload)), kinds)


def test_a_clock_that_is_a_little_off_refuses_nothing() -> None:
    ours = tokens()
    just = int(LEEWAY.total_seconds()) - 1
    for payload in (
        claims(NOW, exp=int(NOW.timestamp()) - just),
        claims(NOW, iat=int(NOW.timestamp()) + just),
        claims(NOW, aud=[vercel.AUDIENCE]),
    ):
        assert ours.caller(vercel.INSTALLATION, bearer(signed(payload)), []).kind is Kind.USER


def test_a_token_may_be_as_long_as_the_limit() -> None:
    token = signed(claims(NOW, more="x" * 5000))
    assert 5000 < len(token) <= LONGEST_TOKEN
    assert tokens().caller(vercel.INSTALLATION, bearer(token), []).kind is Kind.USER


# -- keys


def test_keys_are_fetched_once() -> None:
    server = KeyServer("vercel-1")
    ours = tokens(server)
    for _ in range(3):
        ours.caller(vercel.INSTALLATION, bearer(signed(GOOD)), [])
    assert server.asked == 1


def test_a_new_key_is_found() -> None:
    server = KeyServer("vercel-1")
    ours = tokens(server)
    ours.caller(vercel.INSTALLATION, bearer(signed(GOOD)), [])
    server.body = KeyServer("vercel-1", "vercel-2").body
    assert ours.caller(vercel.INSTALLATION, bearer(signed(GOOD, by="vercel-2")), []).kind is Kind.USER
    assert server.asked == 2


def test_a_thousand_unknown_keys_are_two_fetches_a_minute() -> None:
    server, clock = KeyServer("vercel-1"), FakeClock()
    ours = tokens(server, clock)
    refusals = unavailable = 0
    for number in range(1000):
        with pytest.raises((NotAuthenticated, Unavailable)) as refused:
            ours.caller(vercel.INSTALLATION, bearer(unsigned({"alg": "RS256", "kid": f"made-up-{number}"}, GOOD, b"x" * 256)), [])
        refusals += 1
        unavailable += isinstance(refused.value, Unavailable)
    assert (refusals, unavailable, server.asked) == (1000, 998, 2)
    assert ours.caller(vercel.INSTALLATION, bearer(signed(GOOD)), []).kind is Kind.USER
    clock.advance(60 * SECOND)
    with pytest.raises(NotAuthenticated):
        ours.caller(vercel.INSTALLATION, bearer(signed(claims(clock.now()), by="another")), [])
    assert server.asked == 3


def test_while_the_server_of_keys_is_down_known_ones_stay_good_and_unknown_ones_may_come_again() -> None:
    server, clock = KeyServer("vercel-1"), FakeClock()
    ours = tokens(server, clock)
    ours.caller(vercel.INSTALLATION, bearer(signed(GOOD)), [])
    server.body = None
    clock.advance(timedelta(days=1))
    fresh = claims(clock.now())
    assert ours.caller(vercel.INSTALLATION, bearer(signed(fresh)), []).kind is Kind.USER
    with pytest.raises(Unavailable) as unknown:
        ours.caller(vercel.INSTALLATION, bearer(signed(fresh, by="vercel-2")), [])
    assert unknown.value.retry_after == 60 * SECOND


def test_a_key_that_was_withdrawn_is_believed_for_an_hour_at_most() -> None:
    server, clock = KeyServer("vercel-1", "vercel-2"), FakeClock()
    ours = tokens(server, clock)
    ours.caller(vercel.INSTALLATION, bearer(signed(GOOD)), [])
    server.body = KeyServer("vercel-2").body
    clock.advance(timedelta(hours=1) + SECOND)
    with pytest.raises(NotAuthenticated):
        ours.caller(vercel.INSTALLATION, bearer(signed(claims(clock.now()))), [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 7}',
        b'{"keys": []}',
        b'{"keys": [7, {}]}',
        b"[" * 5000,
        b'{"keys": [{"kty": "RSA", "kid": "vercel-1", "n": "", "e": ""}]}',
    ],
)
def test_what_is_no_set_of_keys_is_none(body: bytes) -> None:
    server = KeyServer()
    server.body = body
    with pytest.raises(Unavailable):
        tokens(server).caller(vercel.INSTALLATION, bearer(signed(GOOD)), [])


@pytest.mark.parametrize("more", [{"use": "enc"}, {"alg": "RS512"}, {"kty": "EC"}, {"kid": 5}])
def test_keys_for_something_else_are_not_used(more: dict[str, object]) -> None:
    server = KeyServer()
    server.body = json.dumps({"keys": [public_jwk("vercel-1", **more), public_jwk("vercel-2")]}).encode()
    with pytest.raises(NotAuthenticated):
        tokens(server).caller(vercel.INSTALLATION, bearer(signed(GOOD)), [])
