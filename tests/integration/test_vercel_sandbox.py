"""The local Vercel is as strict as its documents, and does what its script says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.vercel_peers import wait_for
from worker.sandbox.vercel import SandboxVercel
from worker.sandbox.vercel_client import SandboxFailed, SandboxVercelClient
from worker.sandbox.vercel_faults import FaultKind, ScriptedFault, answered, delayed, dripped, hung, reset

if TYPE_CHECKING:
    from collections.abc import Iterator

RESOURCE = "/v1/installations/icfg_1/resources/store_42"
BY_RESOURCE = f"{RESOURCE}/secrets"
BY_PRODUCT = "/v1/installations/icfg_1/products/postgres/resources/store_42/secrets"
GOOD = {"secrets": [{"name": "A", "value": "1"}]}
BAD_ROOTS: list[object] = [
    None,
    [],
    "x",
    {},
    {"secrets": {}},
    {"secrets": [], "other": 1},
    {"secrets": [], "partial": 1},
    {"secrets": [None]},
    {"secrets": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
    {"secrets": [{"name": f"A{n}", "value": "1"} for n in range(101)]},
    {"secrets": [{"name": f"A{n}", "value": "x" * 30_000} for n in range(3)]},
]
BAD_ITEMS: list[dict[str, object]] = [
    {},
    {"name": "A"},
    {"value": "1"},
    {"name": "", "value": "1"},
    {"name": "A", "value": ""},
    {"name": "A", "value": 1},
    {"name": "A", "value": None},
    {"name": "1A", "value": "1"},
    {"name": "A-B", "value": "1"},
    {"name": "A" * 257, "value": "1"},
    {"name": "A", "value": "1", "type": "x"},
    {"name": "A", "value": "1", "prefix": None},
    {"name": "A", "value": "1", "prefix": ""},
    {"name": "A", "value": "x" * 65_537},
    {"name": "A", "value": "1", "environmentOverrides": []},
    {"name": "A", "value": "1", "environmentOverrides": {"staging": "2"}},
    {"name": "A", "value": "1", "environmentOverrides": {"preview": ""}},
]


@pytest.fixture
def vercel() -> Iterator[SandboxVercel]:
    with SandboxVercel() as vercel:
        vercel.world.add_installation("icfg_1", "tok_1")
        vercel.world.add_installation("icfg_2", "tok_2")
        vercel.world.add_resource("icfg_1", "store_42", "postgres")
        yield vercel


@pytest.fixture
def http(vercel: SandboxVercel) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=vercel.url, headers={"Authorization": "Bearer tok_1"}, trust_env=False) as client:
        yield client


@pytest.fixture
def admin(vercel: SandboxVercel) -> Iterator[SandboxVercelClient]:
    with SandboxVercelClient(vercel.url, vercel.admin_token) as client:
        yield client


def connected(vercel: SandboxVercel) -> socket.socket:
    host, _, port = vercel.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)))


def put(http: httpx.Client, body: object, path: str = BY_RESOURCE) -> httpx.Response:
    return http.put(path, json=body)


@pytest.mark.parametrize("path", [BY_RESOURCE, BY_PRODUCT])
def test_a_good_push_is_answered_201_with_an_empty_body_and_the_limit(http: httpx.Client, vercel: SandboxVercel, path: str) -> None:
    before = time.time()
    response = put(http, GOOD, path)
    assert (response.status_code, response.content) == (201, b"")
    assert (response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Remaining"]) == ("240", "239")
    assert before < float(response.headers["X-RateLimit-Reset"]) < before + 62
    assert vercel.world.held("icfg_1", "store_42") == {"A": "1"}


@pytest.mark.parametrize("body", [*BAD_ROOTS, *({"secrets": [item]} for item in BAD_ITEMS)])
def test_a_body_that_vercel_forbids_is_refused_and_changes_nothing(http: httpx.Client, vercel: SandboxVercel, body: object) -> None:
    put(http, GOOD)
    response = put(http, body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_request"
    assert vercel.world.held("icfg_1", "store_42") == {"A": "1"}


def test_a_body_that_is_no_json_is_refused(http: httpx.Client) -> None:
    assert http.put(BY_RESOURCE, content=b"{").status_code == 400
    assert http.put(BY_RESOURCE, content=b"").status_code == 400


def test_partial_overwrites_only_what_is_given_and_its_absence_replaces_everything(http: httpx.Client, vercel: SandboxVercel) -> None:
    put(http, GOOD)
    put(http, {"secrets": [{"name": "B", "value": "2"}], "partial": True})
    assert vercel.world.held("icfg_1", "store_42") == {"A": "1", "B": "2"}
    put(http, {"secrets": [{"name": "C", "value": "3", "prefix": "ACME", "environmentOverrides": {"preview": "4"}}]})
    (held,) = vercel.world.held_secrets("icfg_1", "store_42").values()
    assert (held.name, held.value, held.prefix, held.overrides) == ("C", "3", "ACME", {"preview": "4"})


def test_tokens_open_only_their_own_installation(http: httpx.Client, vercel: SandboxVercel) -> None:
    for header, status in ((None, 401), ("Bearer wrong", 401), ("tok_1", 401), ("Bearer tok_2", 403)):
        http.headers.pop("Authorization", None)
        assert http.put(BY_RESOURCE, json=GOOD, headers={} if header is None else {"Authorization": header}).status_code == status
    vercel.world.add_installation("icfg_1", "tok_3")
    assert http.put(BY_RESOURCE, json=GOOD, headers={"Authorization": "Bearer tok_1"}).status_code == 401
    assert http.put(BY_RESOURCE, json=GOOD, headers={"Authorization": "Bearer tok_3"}).status_code == 201


@pytest.mark.parametrize(
    "path",
    ["/v1/installations/icfg_1/resources/store_43/secrets", BY_PRODUCT.replace("postgres", "redis"), "/v2/x", "/", f"{BY_RESOURCE}/x"],
)
def test_what_is_not_known_is_404(http: httpx.Client, path: str) -> None:
    assert put(http, GOOD, path).status_code == 404


def test_beyond_the_limit_it_answers_429_as_documented(http: httpx.Client, vercel: SandboxVercel) -> None:
    vercel.world.per_minute = 2
    assert [put(http, GOOD).status_code for _ in range(3)] == [201, 201, 429]
    response = put(http, GOOD)
    limit = response.json()["error"]["limit"]
    assert response.json()["error"]["code"] == "rate_limited"
    assert (limit["remaining"], limit["total"], str(limit["reset"])) == (0, 2, response.headers["X-RateLimit-Reset"])
    assert abs(limit["resetMs"] / 1000 - limit["reset"]) <= 1


def test_resources_are_read_without_their_secrets(http: httpx.Client) -> None:
    put(http, GOOD)
    one, many = http.get(RESOURCE), http.get("/v1/installations/icfg_1/resources")
    known = {"internalId": "store_1", "name": "store_42", "status": "ready", "productId": "postgres"}
    assert one.json() == {"id": "store_42", **known}
    assert many.json() == {"resources": [{"partnerId": "store_42", **known}]}


def test_a_notice_is_shown_and_cleared(http: httpx.Client, admin: SandboxVercelClient) -> None:
    notice = {"level": "warn", "title": "Redeploy", "message": "by noon"}
    assert http.patch(RESOURCE, json={"notification": notice}).status_code == 200
    assert admin.notification("icfg_1", "store_42") == notice
    assert http.patch(RESOURCE, json={"notification": None}).status_code == 200
    assert admin.notification("icfg_1", "store_42") is None
    for bad in (
        {"level": "loud", "title": "x"},
        {"level": "info"},
        {"level": "info", "title": "x" * 101},
        {"level": "info", "title": "x", "y": 1},
    ):
        assert http.patch(RESOURCE, json={"notification": bad}).status_code == 400


def test_an_event_is_kept(http: httpx.Client, admin: SandboxVercelClient) -> None:
    path = "/v1/installations/icfg_1/events"
    event = {"type": "resource.updated", "resourceId": "store_42"}
    assert http.post(path, json={"event": event}).status_code == 201
    assert http.post(path, json={"event": {"type": "other", "resourceId": "store_42"}}).status_code == 400
    assert http.post(path, json={"event": event}, headers={"Authorization": "Bearer tok_2"}).status_code == 403
    assert admin.events("icfg_1") == [event]


def test_the_history_says_what_came_when_and_what_became_of_it(http: httpx.Client, admin: SandboxVercelClient) -> None:
    put(http, GOOD)
    put(http, {}, BY_PRODUCT)
    first, second = admin.history()
    assert (first.by, first.status, first.applied, first.partial, first.values) == ("resource", 201, True, False, {"A": "1"})
    assert (second.by, second.status, second.applied, second.partial, second.values) == ("product", 400, False, None, {})
    assert admin.history(after=first.number) == [second]
    assert first.at <= second.at


@pytest.mark.parametrize(
    ("fault", "status", "applied"),
    [
        (answered(400, applies=False), 400, False),
        (answered(500, applies=False), 500, False),
        (answered(503, applies=True), 503, True),
        (answered(200, applies=True), 200, True),
        (answered(202, applies=False), 202, False),
        (delayed(0.05), 201, True),
        (dripped(0.001), 201, True),
        (ScriptedFault(FaultKind.HUGE, size=100_000), 201, True),
        (reset(applies=True), None, True),
        (reset(applies=False), None, False),
        (hung(0.05, applies=True), None, True),
        (hung(0.05, applies=False), None, False),
        (ScriptedFault(FaultKind.TRUNCATE), None, True),
    ],
)
def test_a_fault_of_the_script_happens_once(
    http: httpx.Client,
    admin: SandboxVercelClient,
    fault: ScriptedFault,
    status: int | None,
    applied: bool,  # noqa: FBT001 - the table's column
) -> None:
    admin.script([fault])
    try:
        seen = put(http, GOOD).status_code
    except httpx.TransportError:
        seen = None
    assert seen == status
    assert (admin.held("icfg_1", "store_42") == {"A": "1"}) == applied
    assert put(http, GOOD).status_code == 201


def test_a_fault_is_for_the_requests_that_it_names(http: httpx.Client, vercel: SandboxVercel) -> None:
    vercel.world.script(
        [
            ScriptedFault(FaultKind.ANSWER, 500, times=2, resource="store_42", method="GET"),
            ScriptedFault(FaultKind.ANSWER, 500, times=None, installation="icfg_2"),
        ],
    )
    assert put(http, GOOD).status_code == 201
    assert [http.get(RESOURCE).status_code for _ in range(3)] == [500, 500, 200]
    assert len(vercel.world.history()) == 1


def test_a_script_that_is_replaced_gives_what_nobody_has_met_with(http: httpx.Client, admin: SandboxVercelClient) -> None:
    admin.script([answered(500, applies=True), answered(503, applies=False, times=2), delayed(0.1)])
    assert [put(http, GOOD).status_code for _ in range(2)] == [500, 503]
    assert admin.script([]) == [answered(503, applies=False), delayed(0.1)]
    assert admin.script([]) == []


def test_what_would_be_refused_anyway_is_refused_properly_under_a_fault(http: httpx.Client, vercel: SandboxVercel) -> None:
    vercel.world.script([answered(504, applies=True)])
    assert put(http, {}).status_code == 400


def test_ending_it_ends_the_requests_that_a_fault_holds() -> None:
    began = time.monotonic()
    with SandboxVercel() as vercel:
        vercel.world.add_installation("icfg_1", "tok_1")
        vercel.world.script([hung(60, applies=False)])
        with connected(vercel) as connection:
            connection.sendall(f"PUT {BY_RESOURCE} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
            wait_for(lambda: bool(vercel.world.history()), "the request")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("head", "status"),
    [("Content-Length: x\r\n", 411), ("Transfer-Encoding: chunked\r\n", 411), ("Content-Length: 9999999\r\n", 413)],
)
def test_a_body_of_unknown_or_excessive_length_is_refused(vercel: SandboxVercel, head: str, status: int) -> None:
    with connected(vercel) as connection:
        connection.sendall(f"PUT {BY_RESOURCE} HTTP/1.1\r\n{head}\r\n".encode())
        assert connection.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())


# The inspection surface


@pytest.mark.parametrize(
    "kept", [len("PUT /v1/inst"), -len("_good\r\n\r\n"), -len("\r\n")], ids=["its first line", "its token", "its headers"]
)
def test_a_request_that_ends_in_the_middle_of_its_head_is_no_request(vercel: SandboxVercel, kept: int) -> None:
    head = f"PUT {BY_RESOURCE} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer tok_good\r\n\r\n"
    with connected(vercel) as connection:
        connection.sendall(head.encode()[:kept])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1024) == b""
    assert vercel.world.history() == []


def test_the_inspection_surface_wants_its_own_token(http: httpx.Client, vercel: SandboxVercel) -> None:
    assert http.get("/sandbox/health").status_code == 200
    assert http.get("/sandbox/history").status_code == 401
    with SandboxVercelClient(vercel.url, "wrong") as client, pytest.raises(SandboxFailed, match="answers 401"):
        client.history()


def test_another_process_can_set_up_and_look_at_everything(vercel: SandboxVercel, admin: SandboxVercelClient, http: httpx.Client) -> None:
    admin.add_installation("icfg/ü", "tok_9")
    admin.add_resource("icfg/ü", "store 1", "postgres", "Orders")
    assert admin.held("icfg/ü", "store 1") == {}
    admin.remove_resource("icfg/ü", "store 1")
    with pytest.raises(SandboxFailed, match="answers 404"):
        admin.held("icfg/ü", "store 1")
    admin.limit(1)
    assert [put(http, GOOD).status_code for _ in range(2)] == [201, 429]
    admin.limit(None)
    assert "X-RateLimit-Limit" not in put(http, GOOD).headers
    assert vercel.world.per_minute is None


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"{}",
        b"[1]",
        b'[{"status": 400}]',
        b'[{"kind": "odd"}]',
        b'[{"kind": "reset", "other": 1}]',
        b'[{"kind": "reset", "times": "1"}]',
    ],
)
def test_a_script_that_is_none_is_refused(vercel: SandboxVercel, script: bytes) -> None:
    headers = {"Authorization": f"Bearer {vercel.admin_token}"}
    assert httpx.put(f"{vercel.url}/sandbox/faults", content=script, headers=headers, trust_env=False).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "x"), ("GET", "installations"), ("POST", "faults"), ("GET", "installations/icfg_9/events")]
)
def test_unknown_paths_of_the_inspection_surface_are_404(vercel: SandboxVercel, method: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {vercel.admin_token}"}
    assert httpx.request(method, f"{vercel.url}/sandbox/{path}", headers=headers, trust_env=False).status_code == 404


SERVE = """
import json
from worker.sandbox.vercel import serve
serve(lambda vercel: print(json.dumps(vercel.url), flush=True), admin_token="adm")
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process_of_its_own_it_serves_until_it_is_told_to_end(how: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()})  # noqa: S603, PTH109 - our own program, from the checkout
    try:
        assert process.stdout is not None
        with SandboxVercelClient(json.loads(process.stdout.readline()), "adm") as client:
            assert client.is_ready()
            client.add_installation("icfg_1", "tok_1")
            process.send_signal(how)
            assert process.wait(10) == 0
            assert not client.is_ready()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
