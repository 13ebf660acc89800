"""What must be true when a rig has settled, whatever happened before: the promises, one function each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rotation.sensitive import Sensitive
from rotation.states import RotationState, Stage
from tests.rigs import roles
from worker.sandbox.customers import Answer, address, knock

if TYPE_CHECKING:
    from rotation.model import Resource
    from tests.rigs import Rig
    from tests.witnesses import Witness

PATH = (RotationState.REQUESTED, RotationState.PLANNED, RotationState.OFFERED, RotationState.COMPLETED)
"""The states that every completed rotation has a record of; those on the way to the offer may be recorded together with it."""


def assert_kept(rig: Rig, witness: Witness, *, unreachable: bool = False) -> None:
    """All of them. `unreachable`: the customers' server was away for a while, which is no refusal."""
    assert_nobody_was_turned_away(witness, unreachable=unreachable)
    for resource in rig.resources:
        assert_one_login_is_left(rig, resource)
        assert_what_is_retired_is_dead(rig, resource)
        assert_every_move_was_recorded_once(rig, resource)
    rig.store.checkpoint()
    assert list(rig.store.verify_audit()) == []
    assert_logs_are_clean(rig)


def assert_nobody_was_turned_away(witness: Witness, *, unreachable: bool) -> None:
    assert witness.refused == []
    assert all(tally.accepted for tally in witness.tallies.values())
    assert unreachable or witness.unreachable == 0


def assert_one_login_is_left(rig: Rig, resource: Resource) -> None:
    """Vercel holds the current one, it logs in, and the server has no other."""
    (current,) = rig.staged(resource, Stage.CURRENT)
    held = address(Sensitive(rig.held(resource)))
    assert held.login.username == current.username
    assert knock(held) is Answer.ACCEPTED
    assert roles(rig.server_of(resource), resource) == {current.username: True}


def assert_what_is_retired_is_dead(rig: Rig, resource: Resource) -> None:
    """Every value that Vercel ever held, but the present one, is refused by the server."""
    (current,) = rig.staged(resource, Stage.CURRENT)
    pushed = [entry for entry in rig.vercel.history() if entry.applied and entry.resource == resource.spec.external_id]
    doors = {door.login.username: door for door in (address(Sensitive(entry.values["DATABASE_URL"])) for entry in pushed)}
    answers = {name: knock(door) for name, door in doors.items() if name != current.username}
    assert answers == dict.fromkeys(answers, Answer.REFUSED)
    assert set(answers) <= {one.username for one in rig.staged(resource, Stage.RETIRED)}


def assert_every_move_was_recorded_once(rig: Rig, resource: Resource) -> None:
    """One event for each state that a rotation came to, and for each end of a credential; generations without a gap."""
    lines = rig.store.views.events(resource.id, limit=10_000)
    moves = Counter((line.rotation_id, line.event.kind) for line in lines)
    for rotation in rig.rotations(resource):
        if rotation.state is RotationState.COMPLETED:
            kinds = [f"rotation_{state}" for state in PATH]
            told = {kind: moves[rotation.id, kind] for kind in kinds}
            told[kinds[0]] += moves[rotation.id, "push_requested"]  # asked for as the same values once more
            assert told == dict.fromkeys(kinds, 1)
            assert moves[rotation.id, f"rotation_{RotationState.CREATED}"] <= 1
    ends = Counter(dict(line.event.detail).get("credential") for line in lines if line.event.kind == "credential_retired")
    assert ends == Counter(one.id for one in rig.staged(resource, Stage.RETIRED))
    credentials = rig.credentials(resource)
    assert [one.generation for one in credentials] == list(range(1, len(credentials) + 1))


def assert_logs_are_clean(rig: Rig) -> None:
    """No crash, no task that fell over, and no password that Vercel was ever given."""
    passwords = {
        address(Sensitive(entry.values["DATABASE_URL"])).login.password.reveal() for entry in rig.vercel.history() if entry.applied
    }
    for process in rig.processes:
        crashes = [line for line in process.lines() if is_crash(line)]
        assert crashes == [], process.name
        text = process.log.read_text()
        assert not any(password in text for password in passwords), f"{process.log} holds a password"


def is_crash(line: dict[str, object]) -> bool:
    """A process or a task that fell over. Celery calls it critical that a message cannot be acknowledged, which is harmless here."""
    if "level" not in line:
        return str(line["event"]).startswith("Traceback")
    if line["logger"] == "celery.app.trace":
        return line["level"] == "error"
    return line["level"] == "critical" and line["logger"] != "celery.worker.request"
