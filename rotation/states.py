"""The states of rotations, resources and attempts, the stages of credentials, and which moves between them are legal."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Trigger(StrEnum):
    """Who asked for a rotation."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    VERCEL = "vercel"
    EMERGENCY = "emergency"


class RotationState(StrEnum):
    """How far a rotation has come; each name says what is already true."""

    REQUESTED = "requested"
    PLANNED = "planned"
    CREATED = "created"
    VERIFIED = "verified"
    OFFERED = "offered"
    COMPLETED = "completed"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"


class Stage(StrEnum):
    """Where a credential stands."""

    PENDING = "pending"
    CURRENT = "current"
    PREVIOUS = "previous"
    BLOCKED = "blocked"
    RETIRED = "retired"
    DISCARDING = "discarding"
    DISCARDED = "discarded"
    RELEASED = "released"
    """Its resource left and a person kept the login: it works on, and we hold nothing of it any more."""


class ResourceState(StrEnum):
    """Whether a resource takes part: `paused` is held back by a person, `leaving` and `gone` are on their way out."""

    ACTIVE = "active"
    PAUSED = "paused"
    LEAVING = "leaving"
    GONE = "gone"


class InUse(StrEnum):
    """What to do at the end of grace when the old credential is still used."""

    WAIT = "wait"
    PROCEED = "proceed"


class PushBy(StrEnum):
    """Which of Vercel's two endpoints takes the secrets of a resource."""

    RESOURCE = "resource"
    PRODUCT = "product"


class AttemptState(StrEnum):
    """What is known of one push."""

    OPEN = "open"
    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"


class Alarm(StrEnum):
    """What wants a person. Each is a log line with `alarm=True`, a count in the metrics, and a line of `docs/runbook.md`."""

    INSTALLATION_PARKED = "installation_parked"
    PUSH_REFUSED = "push_refused"
    PUSH_IN_CONFLICT = "push_in_conflict"
    OFFER_STANDING_TOO_LONG = "offer_standing_too_long"
    ROTATION_STUCK = "rotation_stuck"
    ROTATION_FAILED = "rotation_failed"
    NAME_CLASH = "name_clash"
    RESOURCE_MISSING = "resource_missing"
    KEY_MISSING = "key_missing"
    KEYS_REFUSED = "keys_refused"
    """Of a worker that ended for it: told in its log alone, as it does not write to a store whose keys it has not."""
    MESSAGE_REFUSED = "message_refused"
    """Of a broker: told in the log alone, as who sends a thousand of them should not fill the store."""
    CREDENTIAL_STILL_USED = "credential_still_used"
    RETIREMENT_STUCK = "retirement_stuck"
    CLOCKS_DISAGREED = "clocks_disagreed"
    USE_UNREADABLE = "use_unreadable"
    ADMIN_REFUSED = "admin_refused"
    SERVER_UNREACHABLE = "server_unreachable"
    VERCEL_UNREACHABLE = "vercel_unreachable"
    WORK_OVERDUE = "work_overdue"
    LOGIN_LOST = "login_lost"
    LOGIN_NOT_HEALED = "login_not_healed"
    LOGIN_REVIVED = "login_revived"
    ORPHAN_FOUND = "orphan_found"
    RESOURCE_HELD = "resource_held"
    LOGINS_UNREADABLE = "logins_unreadable"


ROTATION_MOVES: Mapping[RotationState, frozenset[RotationState]] = {
    RotationState.REQUESTED: frozenset({RotationState.PLANNED, RotationState.FAILED, RotationState.ABANDONED}),
    RotationState.PLANNED: frozenset(
        {RotationState.CREATED, RotationState.VERIFIED, RotationState.OFFERED, RotationState.FAILED, RotationState.ABANDONED},
    ),
    RotationState.CREATED: frozenset({RotationState.VERIFIED, RotationState.OFFERED, RotationState.FAILED, RotationState.ABANDONED}),
    RotationState.VERIFIED: frozenset({RotationState.OFFERED, RotationState.FAILED, RotationState.ABANDONED}),
    RotationState.OFFERED: frozenset(
        {RotationState.COMPLETED, RotationState.FAILED, RotationState.SUPERSEDED, RotationState.ABANDONED},
    ),
    RotationState.COMPLETED: frozenset(),
    RotationState.FAILED: frozenset(),
    RotationState.SUPERSEDED: frozenset(),
    RotationState.ABANDONED: frozenset(),
}
"""The legal moves of a rotation. States between PLANNED and OFFERED may be passed over: all that is done there can be done again."""


STAGE_MOVES: Mapping[Stage, frozenset[Stage]] = {
    Stage.PENDING: frozenset({Stage.CURRENT, Stage.PREVIOUS, Stage.DISCARDING, Stage.RELEASED}),
    Stage.CURRENT: frozenset({Stage.PREVIOUS, Stage.RELEASED}),
    Stage.PREVIOUS: frozenset({Stage.BLOCKED, Stage.RELEASED}),
    Stage.BLOCKED: frozenset({Stage.RETIRED, Stage.PREVIOUS}),
    Stage.RETIRED: frozenset(),
    Stage.DISCARDING: frozenset({Stage.DISCARDED}),
    Stage.DISCARDED: frozenset(),
    Stage.RELEASED: frozenset(),
}
"""The legal moves of a credential. BLOCKED to PREVIOUS is the undo; PENDING to PREVIOUS is a supersession."""


OPEN_STATES = frozenset({RotationState.PLANNED, RotationState.CREATED, RotationState.VERIFIED, RotationState.OFFERED})
"""At most one rotation of a resource is in one of these, by a partial unique index."""


BEFORE_OFFER = frozenset({RotationState.REQUESTED, RotationState.PLANNED, RotationState.CREATED, RotationState.VERIFIED})
"""States in which a new request can still join, and in which giving up is safe."""


MADE_STATES = frozenset({RotationState.CREATED, RotationState.VERIFIED, RotationState.OFFERED})
"""States of a rotation whose new login is there."""


ALIVE_STAGES = frozenset({Stage.PENDING, Stage.CURRENT, Stage.PREVIOUS, Stage.BLOCKED, Stage.DISCARDING})
"""Stages whose login may exist in the database."""
