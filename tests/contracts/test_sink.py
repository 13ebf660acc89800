"""What every holder of secrets promises: the double, and Vercel's client against the local Vercel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Invalid
from rotation.model import Login, PushOutcome, PushVerdict, SecretTemplate
from rotation.sensitive import Sensitive
from rotation.states import AttemptState, PushBy
from tests.fakes import sink as fakes
from tests.vercel_peers import LOGIN, TOKEN, a_resource, a_sink, an_installation, within
from worker.sandbox import vercel_faults as faults
from worker.sandbox.vercel import SandboxVercel

if TYPE_CHECKING:
    from rotation.model import Resource
    from rotation.ports import SecretsSink

Arrange = Callable[[str], None]
STATUSES = {
    "refused": (400, PushVerdict.REFUSED, fakes.REFUSED),
    "unauthorized": (401, PushVerdict.UNAUTHORIZED, fakes.UNAUTHORIZED),
    "missing": (404, PushVerdict.MISSING, fakes.MISSING),
    "conflict": (409, PushVerdict.CONFLICT, fakes.CONFLICT),
}


@dataclass(frozen=True)
class Holder:
    """A sink with its other side: what it holds, how to make it go wrong, and how to forget the resource."""

    sink: SecretsSink
    held: Callable[[], dict[str, str]]
    arrange: Arrange
    forget: Callable[[], None]


@pytest.fixture(params=["fake", "vercel by resource", "vercel by product"])
def push_by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def holder(push_by: str) -> Iterator[Holder]:
    if push_by == "fake":
        yield fake_holder()
        return
    with SandboxVercel(per_minute=None) as vercel, a_sink(vercel.url) as sink:
        vercel.world.add_installation("icfg_1", TOKEN)
        vercel.world.add_resource("icfg_1", "store_42", "postgres")

        def arrange(what: str) -> None:
            scripted = {
                "applied but unknown": faults.answered(504, applies=True),
                "lost and unknown": faults.reset(applies=False),
                **{name: faults.answered(status, applies=False) for name, (status, _, _) in STATUSES.items()},
            }
            vercel.world.script([scripted[what]] * 2)

        yield Holder(
            sink,
            lambda: vercel.world.held("icfg_1", "store_42"),
            arrange,
            lambda: vercel.world.remove_resource("icfg_1", "store_42"),
        )


def fake_holder() -> Holder:
    sink = fakes.FakeSink()

    def arrange(what: str) -> None:
        scripted = {
            "applied but unknown": fakes.APPLIED_BUT_UNKNOWN,
            "lost and unknown": fakes.LOST_AND_UNKNOWN,
            **{name: answer for name, (_, _, answer) in STATUSES.items()},
        }
        sink.answers(scripted[what])

    def forget() -> None:
        sink.exists = False

    return Holder(sink, lambda: sink.held.get(("icfg_1", "store_42"), {}), arrange, forget)


@pytest.fixture
def resource(push_by: str) -> Resource:
    return a_resource(push_by=PushBy.PRODUCT if push_by == "vercel by product" else PushBy.RESOURCE)


def push(holder: Holder, resource: Resource, login: Login = LOGIN, *, may_send: Callable[[], bool] = lambda: True) -> PushOutcome:
    return holder.sink.push(resource, an_installation(), holder.sink.render(resource, login), may_send, within())


def test_what_was_pushed_is_held(holder: Holder, resource: Resource) -> None:
    assert push(holder, resource).verdict is PushVerdict.APPLIED
    assert holder.held() == {"DATABASE_URL": "postgresql://orders_app_2:canary%20p%40ss%2Fw%25rd@db.example.com:5432/orders"}


def test_pushing_the_same_again_is_harmless(holder: Holder, resource: Resource) -> None:
    push(holder, resource)
    before = holder.held()
    assert push(holder, resource).attempt_state is AttemptState.APPLIED
    assert holder.held() == before


def test_may_send_is_asked_once_and_false_sends_nothing(holder: Holder, resource: Resource) -> None:
    asked: list[bool] = []

    def may_not_send() -> bool:
        asked.append(True)
        return False

    outcome = push(holder, resource, may_send=may_not_send)
    assert outcome.verdict is PushVerdict.UNSENT
    assert asked == [True]
    assert holder.held() == {}


def test_owning_all_secrets_replaces_the_whole_set_and_not_owning_them_keeps_the_others(holder: Holder, push_by: str) -> None:
    by = PushBy.PRODUCT if push_by == "vercel by product" else PushBy.RESOURCE
    for owns_all, name in ((True, "A"), (False, "B"), (True, "C"), (False, "D")):
        push(holder, a_resource(owns_all=owns_all, push_by=by, secrets=(SecretTemplate(name, "{password}"),)))
    assert set(holder.held()) == {"C", "D"}


@pytest.mark.parametrize("what", STATUSES)
def test_a_refusal_changes_nothing_and_is_on_record_as_not_applied(holder: Holder, resource: Resource, what: str) -> None:
    push(holder, resource)
    before = holder.held()
    holder.arrange(what)
    outcome = push(holder, resource, Login("orders_app_3", Sensitive("next")))
    status, verdict, _ = STATUSES[what]
    assert (outcome.status, outcome.verdict, outcome.attempt_state) == (status, verdict, AttemptState.NOT_APPLIED)
    assert holder.held() == before


def test_an_unknown_outcome_may_have_been_applied(holder: Holder, resource: Resource) -> None:
    holder.arrange("applied but unknown")
    assert push(holder, resource).attempt_state is AttemptState.UNKNOWN
    assert set(holder.held()) == {"DATABASE_URL"}


def test_an_unknown_outcome_may_not_have_been_applied(holder: Holder, resource: Resource) -> None:
    holder.arrange("lost and unknown")
    assert push(holder, resource).attempt_state is AttemptState.UNKNOWN
    assert holder.held() == {}


def test_whether_the_resource_exists_is_known(holder: Holder, resource: Resource) -> None:
    assert holder.sink.resource_exists(resource, an_installation(), within()) is True
    holder.forget()
    assert holder.sink.resource_exists(resource, an_installation(), within()) is False


def test_a_template_that_cannot_be_rendered_is_invalid(holder: Holder) -> None:
    with pytest.raises(Invalid, match="unknown placeholder"):
        holder.sink.render(a_resource(secrets=(SecretTemplate("A", "{nothing}"),)), LOGIN)


def test_the_double_keeps_a_request_on_its_way_until_it_is_delivered(resource: Resource) -> None:
    sink = fakes.FakeSink()
    sink.answers(fakes.ON_ITS_WAY)
    holder = Holder(sink, dict, lambda _: None, lambda: None)
    assert push(holder, resource).attempt_state is AttemptState.UNKNOWN
    assert push(holder, resource, Login("orders_app_3", Sensitive("next"))).verdict is PushVerdict.APPLIED
    assert "orders_app_3" in (sink.value(resource) or "")
    assert sink.deliver() == 1
    assert "orders_app_2" in (sink.value(resource) or "")
    assert sink.in_flight == []


def test_the_double_keeps_a_scripted_answer_when_nothing_was_sent(resource: Resource) -> None:
    sink = fakes.FakeSink()
    at = datetime(2026, 11, 2, 9, 5, tzinfo=UTC) + timedelta(minutes=1)
    sink.answers(fakes.UNREACHABLE, fakes.limited(at))
    holder = Holder(sink, dict, lambda _: None, lambda: None)
    assert push(holder, resource).verdict is PushVerdict.UNSENT
    assert push(holder, resource, may_send=lambda: False).verdict is PushVerdict.UNSENT
    assert sink.not_sent == 1
    assert push(holder, resource).retry_at == at
    assert [one.answer.outcome.status for one in sink.pushes] == [429]
