"""Values and moves for tests of the store: the shortest legal path of a rotation, without any story's decisions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from rotation.cases import AttemptTerms, Move
from rotation.model import (
    Credential,
    Database,
    Event,
    Installation,
    Policy,
    Request,
    ResourceSpec,
    Rotation,
    Schedule,
    SecretTemplate,
    Server,
    Session,
)
from rotation.states import AttemptState, RotationState, Stage, Trigger
from tests.fakes.clock import START

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import CredentialCase, ResourceCase, RotationCase

INSTALLATION = Installation("icfg_1", sealed_token=b"sealed")
SERVER = Server("pg-eu-1", "postgresql", "127.0.0.1", 5432, admin_url_env="ADMIN_URL")
TERMS = AttemptTerms(send_within=timedelta(seconds=5), travels_for=timedelta(seconds=60))

Value = TypeVar("Value")
_numbers = itertools.count(1)


def fresh(kind: str) -> str:
    """An id that no other test has."""
    return f"{kind}_{next(_numbers):06}"


def present(value: Value | None) -> Value:
    """The value, which must be there."""
    assert value is not None
    return value


def spec(external_id: str = "store_1", *, server: str = SERVER.name, grace: timedelta = timedelta(hours=24)) -> ResourceSpec:
    return ResourceSpec(
        installation_id=INSTALLATION.id,
        external_id=external_id,
        product="postgres",
        engine="postgresql",
        owns_all_secrets=True,
        database=Database(server, "orders", "orders_owner", external_id),
        secrets=(SecretTemplate("DATABASE_URL", "postgresql://{username}:{password}@{host}:{port}/{database}"),),
        policy=Policy(every=timedelta(days=30), grace=grace),
    )


def event(kind: str, why: str = "") -> Event:
    return Event(kind, "test", why, (("n", 1), ("ok", True), ("what", "ä"), ("nothing", None)))


def credential(resource_id: str, generation: int, stage: Stage, at: datetime, username: str | None = None) -> Credential:
    credential_id = fresh("cred")
    return Credential(
        id=credential_id,
        resource_id=resource_id,
        generation=generation,
        username=username or f"login_{credential_id}",
        stage=stage,
        sealed_password=b"sealed password",
        sealed_verifier=b"sealed verifier",
        recorded_at=at,
    )


def ask(
    case: ResourceCase, *, trigger: Trigger = Trigger.MANUAL, key: str | None = None, urgent: bool = False, due_at: datetime | None = None
) -> tuple[Move, str]:
    """A decision for `amend`: join the requested rotation or the open one before its offer, else request one."""
    open_one = case.open_rotation if case.open_rotation and case.open_rotation.state is not RotationState.OFFERED else None
    joined = case.requested_rotation or open_one
    rotation = joined or Rotation(
        id=fresh("rot"),
        resource_id=case.resource.id,
        revision=case.resource.revision,
        state=RotationState.REQUESTED,
        urgent=urgent,
        requested_at=case.now,
        due_at=due_at or case.now,
    )
    request = Request(fresh("req"), case.resource.id, trigger, "test", case.now, "why", key, rotation_id=rotation.id)
    if joined is None:
        schedule = replace(case.resource.schedule, next_rotation_at=None, reason="a rotation is under way")
        return Move(event("rotation_requested"), new_rotation=rotation, new_requests=(request,), schedule=schedule), rotation.id
    return Move(event("request_joined"), new_requests=(request,)), rotation.id


def planned(case: RotationCase) -> Move:
    new = credential(case.resource.id, case.generations + 1, Stage.PENDING, case.now)
    revision = case.resource.revision
    rotation = replace(case.rotation, state=RotationState.PLANNED, revision=revision, credential_id=new.id, planned_at=case.now)
    return Move(event("rotation_planned"), rotation=rotation, new_credential=new)


def verified(case: RotationCase) -> Move:
    rotation = replace(case.rotation, state=RotationState.VERIFIED, created_at=case.now, verified_at=case.now)
    return Move(event("rotation_verified"), rotation=rotation)


def offered(case: RotationCase) -> Move:
    rotation = replace(case.rotation, state=RotationState.OFFERED, offered_at=case.now)
    return Move(event("rotation_offered"), rotation=rotation, opens_attempt=TERMS)


def completed(case: RotationCase, *, grace: timedelta = timedelta(hours=24)) -> Move:
    """Acknowledge the newest attempt; the rotation's credential becomes current, the current one previous."""
    attempt = replace(case.attempts[-1], state=AttemptState.APPLIED, answered_at=case.now, status=201)
    end = case.now + grace
    before = (
        () if case.current is None else (replace(case.current, stage=Stage.PREVIOUS, previous_at=case.now, grace_ends_at=end, due_at=end),)
    )
    return Move(
        event("rotation_completed"),
        rotation=replace(case.rotation, state=RotationState.COMPLETED, ended_at=case.now, due_at=None),
        credentials=(replace(case.credential, stage=Stage.CURRENT, current_at=case.now), *before),
        attempt=attempt,
        schedule=Schedule(case.now + timedelta(days=30), "30 days after the last one", 0, case.now),
    )


def failed(case: RotationCase) -> Move:
    """Give up before the offer; the new credential, if there is one, is to be discarded."""
    new = () if case.rotation.credential_id is None else (replace(case.credential, stage=Stage.DISCARDING, due_at=case.now),)
    rotation = replace(case.rotation, state=RotationState.FAILED, ended_at=case.now, due_at=None, problem="no")
    return Move(event("rotation_failed"), rotation=rotation, credentials=new, schedule=Schedule(case.now, "again", 1))


def blocked(case: CredentialCase) -> Move:
    value = replace(case.credential, stage=Stage.BLOCKED, blocked_at=case.now, due_at=case.now)
    return Move(event("credential_blocked"), credentials=(value,))


def retired(case: CredentialCase) -> Move:
    value = replace(case.credential, stage=Stage.RETIRED, ended_at=case.now, due_at=None, sealed_password=None, sealed_verifier=None)
    return Move(event("credential_retired"), credentials=(value,))


def session(username: str, client: str = "10.0.0.1", count: int = 1) -> Session:
    return Session(username, client, "shop", "idle", count, START)
