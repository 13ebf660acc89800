"""Which path a push goes to, and whose token it carries."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from rotation.cases import Deadline
from rotation.errors import Invalid, Refused, Unavailable
from rotation.model import Installation, PushOutcome, PushVerdict
from rotation.sensitive import Sensitive
from rotation.states import PushBy
from rotation.vercel.client import VercelSettings, VercelSink
from rotation.vercel.exchange import HttpClient
from rotation.vercel.tokens import ClientCredentials, ClientCredentialsSettings, StoredTokens
from tests.fakes.clock import FakeClock
from tests.fakes.sealer import FakeSealer
from tests.vercel_peers import (
    LOGIN,
    SEALER,
    TOKEN,
    Conversation,
    Peer,
    RealClock,
    a_resource,
    a_sink,
    an_installation,
    answer,
    saying,
    within,
)
from worker.sandbox.vercel import SandboxVercel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rotation.model import Resource
    from rotation.vercel.tokens import TokenSource

STRANGE_IDS = ["store/42", "a b", "größe", "..%2F..", "a?b#c", "%41", "a+b&c=d", ".hidden", "日本", ";x", "a\\b"]


def pushed(sink: VercelSink, resource: Resource, installation: Installation, may_send: Callable[[], bool] = lambda: True) -> PushOutcome:
    return sink.push(resource, installation, sink.render(resource, LOGIN), may_send, within())


@pytest.mark.parametrize("push_by", PushBy)
@pytest.mark.parametrize("id_", STRANGE_IDS)
def test_an_id_of_any_characters_names_exactly_its_resource(id_: str, push_by: PushBy) -> None:
    with SandboxVercel(per_minute=None) as vercel, a_sink(vercel.url) as sink:
        vercel.world.add_installation(id_, TOKEN)
        vercel.world.add_resource(id_, id_, product=id_)
        resource = a_resource(external_id=id_, installation_id=id_, product=id_, push_by=push_by)
        assert pushed(sink, resource, an_installation(id_)).verdict is PushVerdict.APPLIED
        assert sink.resource_exists(resource, an_installation(id_), within()) is True
        assert [entry.by for entry in vercel.world.history()] == [push_by.value]


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_an_id_that_would_change_the_path_is_refused_before_anything_is_sent(id_: str) -> None:
    with Peer(saying(answer(201))) as peer, a_sink(peer.url) as sink:
        outcome = pushed(sink, a_resource(external_id=id_), an_installation())
        assert (outcome.verdict, outcome.note) == (PushVerdict.REFUSED, "id: cannot stand in Vercel's path")
        assert sink.resource_exists(a_resource(external_id=id_), an_installation(), within()) is None
        assert pushed(sink, a_resource(product=id_, push_by=PushBy.PRODUCT), an_installation()).verdict is PushVerdict.REFUSED
        assert peer.conversations == []


def test_an_address_with_a_path_keeps_it() -> None:
    with Peer(saying(answer(201))) as peer, a_sink(f"{peer.url}/api/") as sink:
        pushed(sink, a_resource(), an_installation())
    assert b"".join(peer.received).startswith(b"PUT /api/v1/installations/icfg_1/resources/store_42/secrets ")


@pytest.mark.parametrize(
    ("status", "exists"), [(200, True), (404, False), (410, False), (401, None), (500, None), (201, None), (302, None)]
)
def test_only_a_definite_answer_says_whether_a_resource_exists(status: int, exists: bool | None) -> None:  # noqa: FBT001 - the table's column
    with Peer(saying(answer(status))) as peer, a_sink(peer.url) as sink:
        assert sink.resource_exists(a_resource(), an_installation(), within()) is exists


def test_a_connection_that_fails_does_not_say_whether_a_resource_exists() -> None:
    with Peer(Conversation.reset) as peer, a_sink(peer.url) as sink:
        assert sink.resource_exists(a_resource(), an_installation(), within()) is None


# The stored token


def test_without_a_token_nothing_is_sent_and_the_note_says_what_to_do() -> None:
    with Peer(saying(answer(201))) as peer, a_sink(peer.url) as sink:
        outcome = pushed(sink, a_resource(), Installation("icfg_1"))
        assert peer.conversations == []
    assert outcome.verdict is PushVerdict.UNSENT
    assert "`rollover installation token icfg_1`" in outcome.note
    with pytest.raises(Unavailable, match="rollover installation token icfg_1"):
        StoredTokens(SEALER).token(Installation("icfg_1"), within())


def test_a_token_whose_key_is_missing_is_unsent() -> None:
    sealer = FakeSealer("another-key")
    http = HttpClient(RealClock())
    sink = VercelSink(VercelSettings("http://127.0.0.1:9"), http, StoredTokens(sealer), RealClock())
    assert pushed(sink, a_resource(), an_installation()).verdict is PushVerdict.UNSENT
    http.close()


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "größe", ""])
def test_a_token_that_cannot_stand_in_a_header_is_unauthorized_and_not_told(token: str) -> None:
    with Peer(saying(answer(201))) as peer, a_sink(peer.url) as sink:
        outcome = pushed(sink, a_resource(), an_installation(token=token))
        assert peer.conversations == []
    assert outcome.verdict is PushVerdict.UNAUTHORIZED
    assert not token or token not in outcome.note


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_stored_token_is_not_tried_twice(status: int) -> None:
    with Peer(saying(answer(status))) as peer, a_sink(peer.url) as sink:
        assert pushed(sink, a_resource(), an_installation()).verdict is PushVerdict.UNAUTHORIZED
    assert b"".join(peer.received).count(b"PUT ") == 1


# Client credentials


class Grants:
    """A token endpoint: counts its grants, and says what a test wants."""

    def __init__(self) -> None:
        self.forms: list[dict[str, list[str]]] = []
        self.lasts: object = 3600
        self.instead: bytes | None = None
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, peer: Conversation) -> None:
        while (request := peer.request()) is not None:
            self.forms.append(parse_qs(request.partition(b"\r\n\r\n")[2].decode()))
            self.hold.wait(10)
            granted = {"access_token": f"granted_{len(self.forms)}", "token_type": "Bearer", "expires_in": self.lasts}
            peer.say(self.instead or answer(200, json.dumps(granted).encode()))


@pytest.fixture
def grants() -> Grants:
    return Grants()


@pytest.fixture
def endpoint(grants: Grants) -> Iterator[Peer]:
    with Peer(grants) as peer:
        yield peer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source(endpoint: Peer, clock: FakeClock) -> Iterator[TokenSource]:
    http = HttpClient(RealClock())
    settings = ClientCredentialsSettings(f"{endpoint.url}/{{installation}}/token", "client-1", Sensitive("s&cret"))
    yield ClientCredentials(settings, http, clock)
    http.close()


def token_of(source: TokenSource, installation: str = "icfg_1", refused: str | None = None) -> str:
    turned_down = None if refused is None else Sensitive(refused)
    # Far away on both clocks: the source counts on the fake one, its HTTP client on the real one.
    return source.token(Installation(installation), within(10_000), refused=turned_down).reveal()


def test_a_token_is_asked_for_as_the_standard_says(source: TokenSource, grants: Grants, endpoint: Peer) -> None:
    assert token_of(source, "icfg/1") == "granted_1"
    assert grants.forms == [
        {"grant_type": ["client_credentials"], "client_id": ["client-1"], "client_secret": ["s&cret"], "installation_id": ["icfg/1"]},
    ]
    assert b"".join(endpoint.received).startswith(b"POST /icfg%2F1/token HTTP/1.1\r\n")


def test_a_token_is_kept_for_each_installation_and_renewed_before_it_ends(source: TokenSource, clock: FakeClock) -> None:
    assert [token_of(source), token_of(source), token_of(source, "icfg_2")] == ["granted_1", "granted_1", "granted_2"]
    clock.advance(timedelta(minutes=54))
    assert token_of(source) == "granted_1"
    clock.advance(timedelta(minutes=2))
    assert token_of(source) == "granted_3"


@pytest.mark.parametrize("lasts", [None, -1, 0, True, "3600", 1e300])
def test_a_token_without_a_sound_lifetime_is_kept_for_an_hour_at_most(
    source: TokenSource, grants: Grants, clock: FakeClock, lasts: object
) -> None:
    grants.lasts = lasts
    token_of(source)
    clock.advance(timedelta(minutes=50))
    assert token_of(source) == "granted_1"
    clock.advance(timedelta(minutes=10))
    assert token_of(source) == "granted_2"


def test_a_client_secret_is_never_sent_in_the_clear() -> None:
    with pytest.raises(Invalid, match="must begin with https://"):
        ClientCredentialsSettings("http://auth.example.com/token", "client-1", Sensitive("s&cret"))


def test_the_tokens_kept_are_bounded(source: TokenSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rotation.vercel.tokens._MOST_CACHED", 2)
    assert [token_of(source, name) for name in ("a", "b", "a", "c", "a", "b")] == [f"granted_{number}" for number in (1, 2, 1, 3, 1, 4)]


def test_a_refused_token_is_replaced_once_for_all(source: TokenSource, grants: Grants) -> None:
    token_of(source)
    assert [token_of(source, refused="granted_1") for _ in range(3)] == ["granted_2"] * 3
    assert len(grants.forms) == 2


def test_many_threads_fetch_one_token(source: TokenSource, grants: Grants) -> None:
    grants.hold.clear()
    tokens: list[str] = []
    threads = [threading.Thread(target=lambda: tokens.append(token_of(source))) for _ in range(6)]
    for thread in threads:
        thread.start()
    grants.hold.set()
    for thread in threads:
        thread.join()
    assert tokens == ["granted_1"] * 6
    assert len(grants.forms) == 1


def test_while_renewing_fails_the_old_token_serves_until_its_end(source: TokenSource, grants: Grants, clock: FakeClock) -> None:
    token_of(source)
    grants.instead = answer(503)
    clock.advance(timedelta(minutes=56))
    assert token_of(source) == "granted_1"
    clock.advance(timedelta(minutes=5))
    with pytest.raises(Unavailable, match="gave no token: 503"):
        token_of(source)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": "canary"}', b'{"access_token": 7}', b'"canary"'])
def test_an_answer_without_a_token_is_unavailable_and_not_told(source: TokenSource, grants: Grants, body: bytes) -> None:
    grants.instead = answer(200, body)
    with pytest.raises(Unavailable) as raised:
        token_of(source)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_client_is_refused(source: TokenSource, grants: Grants, status: int) -> None:
    grants.instead = answer(status, b'{"error": "invalid_client"}')
    with pytest.raises(Refused, match=f"refuses our client: {status}"):
        token_of(source)


def test_waiting_for_another_threads_token_ends_by_the_deadline(source: TokenSource, grants: Grants, clock: FakeClock) -> None:
    grants.hold.clear()
    first = threading.Thread(target=token_of, args=(source,))
    first.start()
    while not grants.forms:
        first.join(0.01)
    with pytest.raises(Unavailable, match="another thread"):
        source.token(Installation("icfg_1"), Deadline(clock.monotonic() + 0.05))
    grants.hold.set()
    first.join()


def test_a_push_with_a_refused_token_is_sent_once_more_with_a_fresh_one(source: TokenSource) -> None:
    asked: list[bool] = []

    def may_send() -> bool:
        asked.append(True)
        return True

    with SandboxVercel(per_minute=None) as vercel:
        vercel.world.add_installation("icfg_1", "granted_2")
        vercel.world.add_resource("icfg_1", "store_42", "postgres")
        http = HttpClient(RealClock())
        sink = VercelSink(VercelSettings(vercel.url), http, source, RealClock())
        outcome = pushed(sink, a_resource(), Installation("icfg_1"), may_send)
        assert sink.resource_exists(a_resource(), Installation("icfg_1"), within()) is True
        http.close()
        assert [entry.status for entry in vercel.world.history()] == [401, 201]
    assert outcome.verdict is PushVerdict.APPLIED
    assert len(asked) == 2


def test_may_send_can_stop_the_second_try(source: TokenSource) -> None:
    answers = [True, False]
    with Peer(saying(answer(401))) as peer:
        http = HttpClient(RealClock())
        sink = VercelSink(VercelSettings(peer.url), http, source, RealClock())
        outcome = pushed(sink, a_resource(), Installation("icfg_1"), lambda: answers.pop(0))
        http.close()
    assert outcome.verdict is PushVerdict.UNSENT
    assert b"".join(peer.received).count(b"PUT ") == 1


def test_a_second_refusal_is_unauthorized_and_a_silent_token_endpoint_is_not(source: TokenSource, grants: Grants) -> None:
    with Peer(saying(answer(403))) as peer:
        http = HttpClient(RealClock())
        sink = VercelSink(VercelSettings(peer.url), http, source, RealClock())
        outcome = pushed(sink, a_resource(), Installation("icfg_1"))
        assert (outcome.verdict, outcome.status) == (PushVerdict.UNAUTHORIZED, 403)
        grants.instead = answer(503)
        outcome = pushed(sink, a_resource(), Installation("icfg_1"))
        assert (outcome.verdict, outcome.status) == (PushVerdict.UNSENT, 403)
        http.close()
