"""What becomes of a resource when a key is gone for good, so that nobody can open what it sealed.

A login keeps working without us knowing its password: no application notices. But what cannot be opened cannot be verified, pushed,
healed or proved, so it is gone past:

* a rotation that has not been offered fails, and its login is discarded; an offered one is superseded, because Vercel may hold it;
* the current login, and one whose rotation ended so, is replaced: a rotation is asked for, which needs only its name;
* a previous or blocked login keeps its promised grace and is then blocked, and that is where it stays, with an alarm: `retired` would
  say that the right server refused its password, and a refusal of another password, or a look at the catalog alone, is not that proof.

What was sealed is destroyed, so that nothing waits for the key any more. It is all one move of the resource, with one line of its trail.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rotation import generations
from rotation.cases import Move
from rotation.errors import Refused
from rotation.model import Event
from rotation.replacements import gone_past, replacement
from rotation.requests import Asked
from rotation.states import ResourceState, RotationState, Stage, Trigger

if TYPE_CHECKING:
    from rotation.cases import ResourceCase
    from rotation.model import Credential, Rotation
    from rotation.ports import Ports

PROVED_BY_LOGIN = frozenset({Stage.CURRENT, Stage.PREVIOUS, Stage.BLOCKED})
"""Stages of logins that Vercel held, and whose end must therefore be proved with their own password."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a lost key meant for one resource: how many logins it sealed, of these those that can never be proved dead, and what is done."""

    logins: int
    unprovable: int
    ended_rotation_id: str | None
    rotation_id: str | None
    """The rotation that replaces what was lost, where something must be replaced and nothing under way does so."""


def abandon_key(resource_id: str, key_id: str, actor: str, why: str, ports: Ports) -> Loss | None:
    """Go past everything of a resource that only this key opens. None when there is nothing: repeating it is harmless."""

    def decide(case: ResourceCase) -> tuple[Move | None, Loss | None]:
        lost = tuple(one for one in case.credentials if _sealed_by(one, key_id, ports))
        return _gone_past(case, lost, key_id, Asked(Trigger.MANUAL, actor, why), ports) if lost else (None, None)

    return ports.store.amend(resource_id, decide)


def _sealed_by(credential: Credential, key_id: str, ports: Ports) -> bool:
    for sealed in (credential.sealed_password, credential.sealed_verifier):
        try:
            if sealed is not None and ports.sealer.key_of(sealed) == key_id:
                return True
        except Refused:  # damaged: whose it was cannot be told, so it is not this key's
            continue
    return False


def _gone_past(case: ResourceCase, lost: tuple[Credential, ...], key_id: str, asked: Asked, ports: Ports) -> tuple[Move, Loss]:
    under_way = case.open_rotation
    holds_lost = under_way is not None and under_way.credential_id in {one.id for one in lost}
    ended = gone_past(under_way, case.now, asked.reason) if under_way is not None and holds_lost else None
    current_is_lost = any(one.stage is Stage.CURRENT for one in lost)
    stays = case.resource.state not in (ResourceState.LEAVING, ResourceState.GONE)
    replaced = stays and (ended is not None or (current_is_lost and under_way is None))
    rotation, requested = replacement(case, asked, case.now, ports) if replaced else (None, None)
    loss = Loss(
        logins=len(lost),
        unprovable=sum(one.stage in PROVED_BY_LOGIN or _passed_over(one, ended) for one in lost),
        ended_rotation_id=None if ended is None else ended.id,
        rotation_id=None if rotation is None else rotation.id,
    )
    is_new = rotation is not None and case.requested_rotation is None
    return Move(
        event=Event("key_abandoned", asked.actor, asked.reason, _detail(loss, key_id, ended)),
        rotation=None if is_new else rotation,
        superseded=ended,
        new_rotation=rotation if is_new else None,
        credentials=tuple(_without_secrets(one, ended, case, ports) for one in lost),
        new_requests=() if requested is None else (requested,),
        schedule=replace(case.resource.schedule, next_rotation_at=None, reason="a rotation is under way") if replaced else None,
    ), loss


def _passed_over(credential: Credential, ended: Rotation | None) -> bool:
    return credential.stage is Stage.PENDING and ended is not None and ended.state is RotationState.SUPERSEDED


def _without_secrets(credential: Credential, ended: Rotation | None, case: ResourceCase, ports: Ports) -> Credential:
    emptied = replace(credential, sealed_password=None, sealed_verifier=None)
    if credential.stage is not Stage.PENDING or ended is None:
        return emptied
    if ended.state is RotationState.SUPERSEDED:
        return generations.passed_over(emptied, case.now)
    return generations.discarded(emptied, case.now + ports.terms.claim)


def _detail(loss: Loss, key_id: str, ended: Rotation | None) -> tuple[tuple[str, str | int | bool | None], ...]:
    return (
        ("key", key_id),
        ("logins", loss.logins),
        ("unprovable", loss.unprovable),
        ("rotation", loss.ended_rotation_id),
        ("ended_as", None if ended is None else ended.state.value),
        ("follow_up", loss.rotation_id),
    )
