"""Vercel's calls over HTTP: a real `rollover web`, a real store, real workers, and keys that are really fetched."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest

from rotation.states import RotationState, Trigger
from tests.acceptance.conftest import STORES
from tests.rigs import Rig
from tests.web.vercel_signer import AUDIENCE, ISSUER, claims, public_jwk, signed
from worker.sandbox import fleet
from worker.sandbox.postgresql import free_port
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rotation.model import Resource
    from tests.processes import Process
    from tests.rigs import CustomersServer


class Keys(BaseHTTPRequestHandler):
    """Where Vercel publishes its keys."""

    def do_GET(self) -> None:
        body = json.dumps({"keys": [public_jwk("vercel-1")]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """It says nothing."""


@pytest.fixture(scope="module")
def keys_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/jwks"
        server.shutdown()
        thread.join()


@pytest.fixture(params=STORES)
def rig(
    request: pytest.FixtureRequest,
    tmp_path: pytest.TempPathFactory,
    customers: CustomersServer,
    new_store: Callable[[str], str | None],
    keys_url: str,
) -> Iterator[Rig]:
    with Rig(tmp_path, [customers], new_store(request.param)) as rig:  # type: ignore[arg-type]  # a path
        ours = {"VERCEL_INTEGRATION_ID": AUDIENCE, "VERCEL_ISSUER": ISSUER, "VERCEL_KEYS_URL": keys_url, "WEB_PORT": str(free_port())}
        rig.environment |= {PREFIX + name: value for name, value in ours.items()}
        yield rig


def serving(rig: Rig) -> Process:
    process = rig.start_web()
    rig.wait("it answers", lambda: answers(rig))
    return process


def url(rig: Rig, resource: Resource | None = None) -> str:
    port = rig.environment[f"{PREFIX}WEB_PORT"]
    external_id = "none" if resource is None else resource.spec.external_id
    return f"http://127.0.0.1:{port}/v1/installations/{fleet.INSTALLATION}/resources/{external_id}/secrets/rotate"


def answers(rig: Rig) -> bool:
    try:
        return httpx.post(url(rig), trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    except httpx.TransportError:
        return False


def click(rig: Rig, resource: Resource, key: str, hours: float) -> int:
    token = signed(claims(datetime.now(UTC), installation_id=fleet.INSTALLATION))
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key, "X-Vercel-Auth": "user"}
    body = {"reason": "an employee left", "delayOldSecretsExpirationHours": hours}
    return httpx.post(url(rig, resource), json=body, headers=headers, trust_env=False).status_code


def test_a_click_of_a_customer_ends_in_a_rotation_whose_old_login_ends_when_it_was_asked_to(rig: Rig) -> None:
    serving(rig)
    rig.start(workers=1)
    (resource,) = rig.add(grace=timedelta(days=1))

    assert click(rig, resource, "one", 0.001) == 202

    rig.wait("it is completed", lambda: [one.state for one in rig.rotations(resource)] == [RotationState.COMPLETED])
    old = min(rig.credentials(resource), key=lambda one: one.generation)
    assert old.previous_at is not None
    assert old.grace_ends_at == old.previous_at + timedelta(hours=0.001)
    (rotation,) = rig.rotations(resource)
    (request,) = rig.store.views.rotation(rotation.id).requests
    assert (request.trigger, request.actor, request.reason) == (Trigger.VERCEL, "vercel:user-1:admin", "an employee left")


def test_what_was_answered_is_on_record_though_the_process_is_killed_and_the_broker_is_gone(rig: Rig) -> None:
    process = serving(rig)
    (resource,) = rig.add()
    rig.broker.stop()

    assert click(rig, resource, "one", 1) == 202
    process.kill()

    assert [one.state for one in rig.rotations(resource)] == [RotationState.REQUESTED]
    serving(rig)
    assert click(rig, resource, "one", 1) == 202
    assert click(rig, resource, "one", 2) == 409
    assert len(rig.rotations(resource)) == 1


def test_it_does_not_start_without_knowing_whom_the_calls_are_for(rig: Rig) -> None:
    del rig.environment[f"{PREFIX}VERCEL_INTEGRATION_ID"]
    process = rig.start_web()
    assert process.ended() == 2
    assert "ROLLOVER_VERCEL_INTEGRATION_ID" in process.last_words()
