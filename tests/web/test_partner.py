from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from rotation import requests
from rotation.errors import NotFound, Unavailable
from rotation.states import RotationState, Stage, Trigger
from tests.web import vercel_signer as vercel
from tests.web.vercel_signer import KeyServer, claims, signed, system_claims
from tests.world import World
from worker.web import app
from worker.web.app import LARGEST_BODY, application
from worker.web.partner import Partner
from worker.web.vercel_keys import VercelKeys
from worker.web.vercel_tokens import VercelTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rotation.model import Resource

HOUR = timedelta(hours=1)
DELAY = "delayOldSecretsExpirationHours"


class Directory:
    """Knows the world's resource by its name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.down = False

    def find_resource(self, name: str) -> Resource:
        if self.down:
            raise Unavailable("the store does not answer")
        resource = self.world.store.resource(self.world.resource_id)
        if name != resource.name:
            raise NotFound("resource", name)
        return resource


class Door:
    """The application, and Vercel before it."""

    def __init__(self) -> None:
        self.world = World()
        self.directory = Directory(self.world)
        self.server = KeyServer("vercel-1")
        keys = VercelKeys("https://keys.example.com", self.server, self.world.clock)  # type: ignore[arg-type]  # it sends as that does
        tokens = VercelTokens(keys, self.world.clock, issuer=vercel.ISSUER, audience=vercel.AUDIENCE)
        partner = Partner(self.world.ports, self.directory, tokens, max_grace=timedelta(days=10))
        self.hints: list[str] = []
        self.application = application(partner, self.hints.append)

    def rotate(self, body: object = None, *, token: str | None = None, resource: str = "store_42", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {token or signed(claims(self.world.clock.now()))}", **headers}
        path = f"/v1/installations/{vercel.INSTALLATION}/resources/{resource}/secrets/rotate"
        return self.send("POST", path, content=content, headers=sent)

    def send(self, method: str, path: str, content: bytes = b"", headers: dict[str, str] | None = None) -> httpx.Response:
        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(self.application, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://rollover.test") as client:
                return await client.request(method, path, content=content, headers=headers)

        return asyncio.run(sent())


@pytest.fixture
def door() -> Door:
    return Door()


def error(answer: httpx.Response) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()["error"]
    assert told["code"]
    assert told["message"]
    return told


def test_a_click_of_a_customer_is_a_rotation_whose_old_login_ends_when_it_was_asked_to(door: Door) -> None:
    answer = door.rotate({"reason": "an employee left", DELAY: 2.5}, **{"X-Vercel-Auth": "user", "Idempotency-Key": "one"})

    assert (answer.status_code, answer.json()) == (202, {"sync": False})
    (request,) = door.world.store.requests.values()
    assert (request.trigger, request.actor, request.reason) == (Trigger.VERCEL, "vercel:user-1:admin", "an employee left")
    assert door.hints == [request.rotation_id]
    door.world.run(for_=HOUR / 60)
    assert door.world.states() == [RotationState.COMPLETED]
    previous = door.world.credential(1)
    assert previous.previous_at is not None
    assert previous.grace_ends_at == previous.previous_at + 2.5 * HOUR


@pytest.mark.parametrize(
    ("body", "grace"),
    [
        (None, None),
        (b"", None),
        (b"  ", None),
        ({}, None),
        ({DELAY: None}, None),
        ({DELAY: 0}, timedelta(0)),
        ({DELAY: 0.0001}, timedelta(seconds=0.36)),
        ({DELAY: 24}, 24 * HOUR),
        ({DELAY: "24"}, 24 * HOUR),
        ({DELAY: "2.5"}, 2.5 * HOUR),
        ({DELAY: "0.016666666666666666"}, HOUR / 60),
        ({DELAY: 240}, 240 * HOUR),
        ({"something": "new", DELAY: 1}, HOUR),
    ],
)
def test_the_delay_is_taken_as_vercel_sends_it(door: Door, body: object, grace: timedelta | None) -> None:
    assert door.rotate(body).status_code == 202
    (request,) = door.world.store.requests.values()
    assert request.grace == grace


@pytest.mark.parametrize(
    "given", [-1, 720.5, 1e300, "a day", "", "1e3", "-1", "NaN", "٣", " 2", True, [1], {"hours": 1}, 240.5, 10**400], ids=str
)
def test_a_delay_that_is_none_is_told_with_its_field(door: Door, given: object) -> None:
    answer = door.rotate({DELAY: given})
    told = error(answer)
    assert (answer.status_code, told["code"]) == (400, "validation_error")
    assert [one["key"] for one in told["fields"]] == [DELAY]
    assert not door.world.store.requests


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"7", b"null", b"\xff\xfe", b"[" * 5000, b'{"delayOldSecretsExpirationHours": NaN}', {"reason": 7}]
)
def test_a_body_that_cannot_be_understood_is_refused(door: Door, body: object) -> None:
    answer = door.rotate(body)
    assert (answer.status_code, error(answer)["code"]) == (400, "validation_error")
    assert not door.world.store.requests


def test_a_body_without_end_is_not_read(door: Door) -> None:
    assert door.rotate(b" " * LARGEST_BODY).status_code == 202
    answer = door.rotate(b" " * (LARGEST_BODY + 1))
    assert (answer.status_code, error(answer)["code"]) == (413, "validation_error")


def test_a_reason_is_one_line_and_not_long(door: Door) -> None:
    door.rotate({"reason": "first\r\nsecond" + "x" * 1000})
    (request,) = door.world.store.requests.values()
    assert request.reason.startswith("first  second")
    assert len(request.reason) == 500


def test_the_same_key_is_the_same_rotation(door: Door) -> None:
    for body in ({"reason": "why", DELAY: 2}, {DELAY: "2", "reason": "why", "more": 1}, {DELAY: 2.0, "reason": "why"}):
        assert door.rotate(body, **{"Idempotency-Key": "one"}).status_code == 202
    assert len(door.world.store.requests) == 1
    answer = door.rotate({"reason": "why", DELAY: 3}, **{"Idempotency-Key": "one"})
    assert (answer.status_code, error(answer)["code"]) == (409, "conflict")
    assert len(door.world.store.requests) == 1
    door.world.run(for_=HOUR / 60)
    assert door.rotate({"reason": "why", DELAY: 2}, **{"Idempotency-Key": "one"}).status_code == 202
    assert door.world.states() == [RotationState.COMPLETED]


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb"])
def test_a_key_that_cannot_be_kept_is_refused(door: Door, key: str) -> None:
    assert door.rotate({}, **{"Idempotency-Key": key}).status_code == 400


def test_who_may_not_ask_learns_no_more_than_that(door: Door) -> None:
    now = door.world.clock.now()
    for token, status, code in (
        ("garbage", 401, "unauthorized"),
        (signed(claims(now, user_role="USER")), 403, "forbidden"),
        (signed(claims(now, installation_id="icfg_2")), 403, "forbidden"),
    ):
        answer = door.rotate({}, token=token)
        assert (answer.status_code, error(answer)["code"]) == (status, code)
    assert not door.world.store.requests
    assert "user" in error(door.rotate({}, token=signed(claims(now, user_role="USER"))))
    assert door.rotate({}, token=signed(system_claims(now))).status_code == 202


def test_a_token_in_the_query_is_none(door: Door) -> None:
    token = signed(claims(door.world.clock.now()))
    path = f"/v1/installations/{vercel.INSTALLATION}/resources/store_42/secrets/rotate?access_token={token}"
    assert door.send("POST", path).status_code == 401


def test_what_is_not_there_is_not_found(door: Door) -> None:
    assert error(door.rotate({}, resource="store_43"))["code"] == "not_found"
    for resource in ("..%2Fstore_42", "store_42%00", "s" * 300, "store_42/"):
        assert error(door.rotate({}, resource=resource))["code"] == "not_found"
    assert error(door.send("GET", "/"))["code"] == "not_found"
    assert door.send("GET", f"/v1/installations/{vercel.INSTALLATION}/resources/store_42/secrets/rotate").headers["Allow"] == "POST"
    assert door.send("POST", f"/v1/installations/{vercel.INSTALLATION}/resources/store_42/secrets/rotate/").status_code == 404


def test_a_resource_that_a_person_has_paused_is_a_conflict_with_a_word_for_the_customer(door: Door) -> None:
    requests.pause(door.world.resource_id, "test", "", door.world.ports)
    answer = door.rotate({})
    told = error(answer)
    assert (answer.status_code, told["code"]) == (409, "conflict")
    assert "support" in told["user"]["message"]
    assert "rollover" not in answer.text


def test_while_the_store_is_down_vercel_may_ask_again(door: Door) -> None:
    door.directory.down = True
    answer = door.rotate({}, **{"Idempotency-Key": "one"})
    assert (answer.status_code, error(answer)["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    door.directory.down = False
    assert door.rotate({}, **{"Idempotency-Key": "one"}).status_code == 202


def test_while_vercels_keys_cannot_be_looked_up_it_may_ask_again(door: Door) -> None:
    door.server.body = None
    answer = door.rotate({})
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1


def test_many_clicks_are_one_rotation_and_those_after_the_offer_one_more(door: Door) -> None:
    for _ in range(5):
        assert door.rotate({}).status_code == 202
    assert len(door.world.store.rotations) == 1
    pushed = door.world.sink.push

    def push(*arguments: Any) -> object:  # noqa: ANN401 - as the sink's
        for _ in range(3):
            assert door.rotate({}).status_code == 202
        door.world.sink.push = pushed  # type: ignore[method-assign]  # once
        return pushed(*arguments)

    door.world.sink.push = push  # type: ignore[method-assign,assignment]  # something else happens while the push is under way
    door.world.run(for_=HOUR / 60)
    assert door.world.states() == [RotationState.COMPLETED, RotationState.COMPLETED]
    assert door.world.stages()[-1] is Stage.CURRENT


def test_who_goes_away_in_the_middle_of_a_call_leaves_nothing(door: Door) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:  # noqa: ANN401 - as the server's
        sent.append(message)

    path = f"/v1/installations/{vercel.INSTALLATION}/resources/store_42/secrets/rotate"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    asyncio.run(door.application(scope, receive, send))
    assert not door.world.store.requests


def test_more_calls_at_once_than_can_be_taken_are_told_to_come_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_AT_ONCE", 0)
    answer = door.rotate({})
    assert (answer.status_code, error(answer)["code"]) == (503, "unavailable")


def test_a_body_that_does_not_come_is_not_waited_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.01)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(door.application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://rollover.test") as client:
            return await client.post(f"/v1/installations/{vercel.INSTALLATION}/resources/store_42/secrets/rotate", content=slow())

    assert asyncio.run(sent()).status_code == 408
