"""What becomes of a resource when a key is gone for good, so that nobody can open what it sealed.

A login keeps working without us knowing its password: no application notices. But what cannot be opened cannot be verified, pushed or
proved, so it is gone past:

* a rotation that has not been offered fails, and its login is discarded; an offered one is superseded, because Vercel may hold it;
* the current login, and one whose rotation ended so, is replaced: a rotation is asked for, which needs only its name;
* a previous or blocked login keeps its promised grace and is then blocked, and that is where it stays, with an alarm: `retired` would
  say that the right server refused its password, and a refusal of another password, or a look at the catalog alone, is not that proof.

A verifier alone is missed only by a login that is still to be made: of any other the password makes another one.

What the key sealed is destroyed, so that nothing waits for it any more, and nothing else is: with what another key sealed of a login it
can still be healed, or proved dead. It is all one move of the resource, with one line of its trail.
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
        left = (_without(one, key_id, ports) for one in case.credentials)
        touched = tuple(after for before, after in zip(case.credentials, left, strict=True) if after != before)
        return _gone_past(case, touched, key_id, Asked(Trigger.MANUAL, actor, why), ports) if touched else (None, None)

    return ports.store.amend(resource_id, decide)


def _without(credential: Credential, key_id: str, ports: Ports) -> Credential:
    """The credential without what this key sealed of it."""
    return replace(
        credential,
        sealed_password=_kept(credential.sealed_password, key_id, ports),
        sealed_verifier=_kept(credential.sealed_verifier, key_id, ports),
    )


def _kept(sealed: bytes | None, key_id: str, ports: Ports) -> bytes | None:
    try:
        return None if sealed is None or ports.sealer.key_of(sealed) == key_id else sealed
    except Refused:  # damaged: whose it was cannot be told, so it is not this key's
        return sealed


def _is_lost(emptied: Credential) -> bool:
    """Whether too little is left of it to go on with it."""
    return emptied.sealed_password is None or (emptied.stage is Stage.PENDING and emptied.sealed_verifier is None)


def _gone_past(case: ResourceCase, touched: tuple[Credential, ...], key_id: str, asked: Asked, ports: Ports) -> tuple[Move, Loss]:
    """`touched` are the credentials of which the key sealed something, without that."""
    under_way = case.open_rotation
    holds_lost = under_way is not None and any(_is_lost(one) and one.id == under_way.credential_id for one in touched)
    ended = gone_past(under_way, case.now, asked.reason) if under_way is not None and holds_lost else None
    current_is_lost = any(one.stage is Stage.CURRENT and _is_lost(one) for one in touched)
    stays = case.resource.state not in (ResourceState.LEAVING, ResourceState.GONE)
    replaced = stays and (ended is not None or (current_is_lost and under_way is None))
    rotation, requested = replacement(case, asked, case.now, ports) if replaced else (None, None)
    loss = Loss(
        logins=len(touched),
        unprovable=sum(one.sealed_password is None and (one.stage in PROVED_BY_LOGIN or _passed_over(one, ended)) for one in touched),
        ended_rotation_id=None if ended is None else ended.id,
        rotation_id=None if rotation is None else rotation.id,
    )
    is_new = rotation is not None and case.requested_rotation is None
    return Move(
        event=Event("key_abandoned", asked.actor, asked.reason, _detail(loss, key_id, ended)),
        rotation=None if is_new else rotation,
        superseded=ended,
        new_rotation=rotation if is_new else None,
        credentials=tuple(_ended_with(one, ended, case, ports) for one in touched),
        new_requests=() if requested is None else (requested,),
        schedule=replace(case.resource.schedule, next_rotation_at=None, reason="a rotation is under way") if replaced else None,
    ), loss


def _passed_over(credential: Credential, ended: Rotation | None) -> bool:
    return credential.stage is Stage.PENDING and ended is not None and ended.state is RotationState.SUPERSEDED


def _ended_with(emptied: Credential, ended: Rotation | None, case: ResourceCase, ports: Ports) -> Credential:
    if emptied.stage is not Stage.PENDING or ended is None:
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
