"""What must be true of a run that has come to rest: I1 to I11 of the invariants, looked at from outside.

Most of them are `tests.promises`; these are what a run can tell beside those.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import redis

from rotation.sensitive import Sensitive
from rotation.states import RotationState, Stage
from rotation.store.rules import ENDED_STATES
from tests import promises
from worker.sandbox.customers import address

if TYPE_CHECKING:
    from rotation.model import Resource
    from tests.crash.rig import CrashRig
    from tests.witnesses import Witness

LATEST = timedelta(seconds=60)
"""I2: a promise is over at most so late."""


def assert_kept(rig: CrashRig, witness: Witness, subject: Resource, accepted: tuple[str, ...]) -> None:
    """All of them. `accepted` are the rotations that somebody was promised."""
    promises.assert_kept(rig, witness)
    assert_broker_is_clean(rig)
    rows = {one.id: one for one in rig.rotations(subject)}
    assert set(accepted) <= set(rows), "I8: a request that was accepted is not on record"
    assert {one.state for one in rows.values()} <= ENDED_STATES, "I4: a rotation has not ended"
    for one in rig.staged(subject, Stage.RETIRED):
        assert one.grace_ends_at is not None
        assert one.ended_at is not None
        assert one.grace_ends_at <= one.ended_at <= one.grace_ends_at + LATEST, f"I2: {one.username} ended early or late"
    assert len(rows) <= len(accepted) + 1, "I7: repeated triggers piled up"


def assert_not_lost(rig: CrashRig, subject: Resource) -> None:
    """I4: what was asked for was done. That a process died is never a reason for a rotation to fail."""
    states = {one.state for one in rig.rotations(subject)}
    assert RotationState.COMPLETED in states, f"I4: no rotation has completed: {states}"
    assert RotationState.FAILED not in states, "I4: a rotation failed because its worker died"


def assert_broker_is_clean(rig: CrashRig) -> None:
    """I5: nothing that waits in the broker, acknowledged or not, holds a password that Vercel was ever given."""
    pushed = [entry.values["DATABASE_URL"] for entry in rig.vercel.history() if entry.applied]
    passwords = {address(Sensitive(url)).login.password.reveal().encode() for url in pushed}
    with redis.Redis.from_url(rig.broker.url.reveal(), socket_timeout=5) as client:
        held = [_contents(client, key) for key in client.scan_iter()]
    assert not [one for one in held for password in passwords if password in one], "I5: the broker holds a password"


def _contents(client: redis.Redis, key: bytes) -> bytes:
    """All that is under a key, whatever its kind."""
    match client.type(key):
        case b"list":
            return repr(client.lrange(key, 0, -1)).encode()
        case b"hash":
            return repr(client.hgetall(key)).encode()
        case b"set":
            return repr(client.smembers(key)).encode()
        case b"zset":
            return repr(client.zrange(key, 0, -1)).encode()
        case _:
            return repr(client.get(key)).encode()
