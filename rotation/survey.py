"""How the logins of a server and the rows about them differ. It looks, and changes nothing.

Which logins must work is read before the server is asked, so that each of them was made by then; which rows a login has, after it was
seen, since a row is there before its login. So what moves meanwhile is not taken for a fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from rotation.cases import Deadline
from rotation.errors import NotAsked, OutcomeUnknown, Refused, Unavailable
from rotation.model import Login, SealContext
from rotation.states import ALIVE_STAGES, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from rotation.model import Credential, KnownLogin, Resource, Server, Standing
    from rotation.ports import Engine, Ports

ENDED = frozenset({Stage.RETIRED, Stage.DISCARDED})
TRIES_A_LOOK = 20
"""How many logins of a server are logged in with at one look: it must not feel it."""


class Kind(StrEnum):
    """What is wrong with a login."""

    LOST = "lost"
    """It must work, and does not: it is gone, may not log in, or refuses its password."""
    REVIVED = "revived"
    """It was proved dead, and is there again: the server was restored."""
    AHEAD = "ahead"
    """It carries our mark and has no row, and its generation is above all that the store knows: the store was set back."""
    ORPHAN = "orphan"
    """It carries our mark and has no row."""
    CHANGED = "changed"
    """Somebody has changed what it is or may do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One login that is not as its row says. `login` is what the server shows of it, where it shows anything."""

    kind: Kind
    server: str
    username: str
    problem: str
    credential: Credential | None = None
    login: KnownLogin | None = None
    resource_ids: tuple[str, ...] = ()
    """Whose it is, or may be: of a login without a row only its name tells that."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found on a server, which credentials were logged in with, and which of those had been astray before."""

    findings: tuple[Finding, ...]
    tried: tuple[str, ...]
    recovered: tuple[Credential, ...]
    present: frozenset[str]
    """The user names of all logins that were asked about and are there."""

    def of(self, *kinds: Kind) -> tuple[Finding, ...]:
        """The findings of these kinds."""
        return tuple(one for one in self.findings if one.kind in kinds)


def survey(server: Server, ports: Ports, *, tries: int | None = TRIES_A_LOOK) -> Survey:
    """Look at every login of ours on a server: the catalogs in two queries, and a few are logged in with, the longest untried first.

    `tries` None logs in with each of them. Raises `Refused`, `Unavailable` or `OutcomeUnknown` when the server cannot be read, and when
    whose the others are cannot: one of those may tell that the store was set back, and that what seems lost was ended.
    """
    engine = ports.engines[server.engine]
    owed = ports.store.owed_logins(server.name)
    marked = engine.list_logins(server, _deadline(ports))
    names = {one.username for one in marked}
    others = engine.find_logins(server, [one.username for one in owed if one.username not in names], _deadline(ports))
    there = {one.username: one for one in (*marked, *others)}
    lost = [found for one in owed if (found := _lost(one, there.get(one.username), server)) is not None]
    away = {one.username for one in lost}
    tried = _log_in([one for one in owed if one.username not in away], server, ports, tries)
    strays = _strays(marked, owed, server, engine, ports)
    return Survey(
        findings=(*lost, *tried.refused, *strays),
        tried=tried.ids,
        recovered=tried.recovered,
        present=frozenset(there),
    )


def get_in(credential: Credential, resource: Resource, ports: Ports, deadline: Deadline) -> bool:
    """Log in at the server's own door. False when nobody can open the password now, so that nothing was tried.

    Raises `Refused` when the login is refused, and `Unavailable` when that cannot be told. What is in front of the server is left
    out: making a login again mends no pooler.
    """
    context = SealContext(resource.spec.installation_id, resource.id, credential.id, "password")
    try:
        password = None if credential.sealed_password is None else ports.sealer.open(credential.sealed_password, context)
    except (Refused, Unavailable):
        password = None
    if password is None:
        return False
    itself = replace(resource, spec=replace(resource.spec, database=replace(resource.spec.database, endpoints=())))
    ports.engines[resource.spec.engine].check(itself, Login(credential.username, password), (), deadline)
    return True


def _deadline(ports: Ports) -> Deadline:
    return Deadline(ports.clock.monotonic() + ports.terms.call_deadline.total_seconds())


def _lost(credential: Credential, login: KnownLogin | None, server: Server) -> Finding | None:
    if login is None:
        problem = "its login is gone"
    elif not login.can_log_in:
        problem = "its login may not log in"
    elif not credential.adopted and login.credential_id not in (None, credential.id):
        problem = "its login carries the mark of another credential"
    else:
        return None
    return Finding(Kind.LOST, server.name, credential.username, problem, credential, login, (credential.resource_id,))


@dataclass(frozen=True, slots=True)
class _Tried:
    """The credentials that had their turn, what was found of those that did not get in, and who was astray before and is no more."""

    ids: tuple[str, ...]
    refused: tuple[Finding, ...]
    recovered: tuple[Credential, ...]


def _log_in(owed: Sequence[Credential], server: Server, ports: Ports, tries: int | None) -> _Tried:
    """Log in with those whose turn it is. One that cannot be told has had its turn; a server that hangs ends it for this time."""
    ids: list[str] = []
    refused: list[Finding] = []
    recovered: list[Credential] = []
    whole = _deadline(ports)
    for credential in owed if tries is None else _in_turn(owed, ports, tries):
        deadline = _deadline(ports) if tries is None else whole
        if deadline.left(ports.clock.monotonic()) <= 0:
            break
        ids.append(credential.id)
        try:
            got_in = get_in(credential, ports.store.resource(credential.resource_id), ports, deadline)
        except Refused as error:
            refused.append(_refused(credential, server, f"its login is refused: {error}"))
        except NotAsked:
            ids.pop()  # nor would the next one be asked for
            break
        except (Unavailable, OutcomeUnknown):
            continue
        else:
            if credential.astray_at is None:
                continue
            if got_in or _is_forgotten(credential):
                recovered.append(credential)
            else:
                refused.append(_refused(credential, server, "it was not as its row says, and nobody can open its password to try it"))
    return _Tried(tuple(ids), tuple(refused), tuple(recovered))


def _refused(credential: Credential, server: Server, problem: str) -> Finding:
    return Finding(Kind.LOST, server.name, credential.username, problem, credential, None, (credential.resource_id,))


def _is_forgotten(credential: Credential) -> bool:
    """Nothing is on record that it could be tried with, now or later, or made again from: that it is there is all that can be known."""
    return credential.sealed_password is None and credential.sealed_verifier is None


def _in_turn(owed: Sequence[Credential], ports: Ports, tries: int) -> list[Credential]:
    """Those that are to be logged in with now, the longest untried first: what was astray, and the others.

    Neither takes more than half of the tries while the other needs them: what nobody can put right must not keep all others untried.
    """
    since = ports.store.now() - ports.terms.login_check

    def turn(one: Credential) -> datetime:
        return one.tried_at or one.recorded_at - ports.terms.login_check

    astray = sorted((one for one in owed if one.astray_at is not None), key=turn)
    others = sorted((one for one in owed if one.astray_at is None and (one.tried_at is None or one.tried_at <= since)), key=turn)
    again = astray[: max(tries // 2, tries - len(others))]
    return [*again, *others[: tries - len(again)]]


# -- logins that must not be there


def _strays(marked: Sequence[KnownLogin], owed: Sequence[Credential], server: Server, engine: Engine, ports: Ports) -> tuple[Finding, ...]:
    must = {one.id: one.username for one in owed}
    others = [one for one in marked if one.credential_id is not None and must.get(one.credential_id) != one.username]
    if not others:
        return ()
    ids, names = [one.credential_id for one in others if one.credential_id], [one.username for one in others]
    rows = {one.id: one for one in ports.store.credentials_by_id(ids, server=server.name, usernames=names)}
    # A login that we made and lost sight of may have been adopted since: whose it is, a person has said.
    adopted = {one.username for one in rows.values() if one.adopted and one.stage in ALIVE_STAGES}
    strays = [one for one in others if one.username not in adopted and _is_stray(one, rows)]
    if not strays:
        return ()
    # What was removed between the two looks was removed by its own retirement.
    still = {one.username for one in engine.find_logins(server, [one.username for one in strays], _deadline(ports))}
    whose: dict[str, list[Standing]] = {}
    for standing in ports.store.standings(server.name, sorted({one.prefix for one in strays if one.generation})):
        whose.setdefault(standing.resource.spec.database.login_prefix, []).append(standing)
    return tuple(_stray(one, rows, server, whose.get(one.prefix, ())) for one in strays if one.username in still)


def _is_stray(login: KnownLogin, rows: Mapping[str, Credential]) -> bool:
    row = rows.get(login.credential_id or "")
    return row is None or row.username != login.username or row.stage in ENDED


def _stray(login: KnownLogin, rows: Mapping[str, Credential], server: Server, whose: Sequence[Standing]) -> Finding:
    """`whose` are the resources that make names as this one's is."""
    row = rows.get(login.credential_id or "")
    if row is not None and row.username == login.username:
        problem = f"its credential is {row.stage}, and its login is there again"
        return Finding(Kind.REVIVED, server.name, login.username, problem, row, login, (row.resource_id,))
    if row is not None:
        problem = f"it carries the mark of {row.username}"
        return Finding(Kind.ORPHAN, server.name, login.username, problem, None, login)
    behind = tuple(one.resource.id for one in whose if login.generation > one.generations)
    if behind:
        problem = "it has no row, and is newer than all that the store knows: was the store set back?"
        return Finding(Kind.AHEAD, server.name, login.username, problem, None, login, behind)
    ids = tuple(one.resource.id for one in whose)
    return Finding(Kind.ORPHAN, server.name, login.username, "it carries our mark and has no row", None, login, ids)


# -- what was changed


def model(credential: Credential, owed: Sequence[Credential], present: frozenset[str]) -> str | None:
    """The user name of a login of the same resource that is there, for this one to be like: the current one's, else the newest.

    A current one that is there itself is like nobody: what is changed about it on purpose, every later one takes over.
    """
    if credential.stage is Stage.CURRENT and credential.username in present:
        return None
    others = [one for one in owed if one.resource_id == credential.resource_id and one.id != credential.id and one.username in present]
    best = max(others, key=lambda one: (one.stage is Stage.CURRENT, one.generation), default=None)
    return None if best is None else best.username


def changes(server: Server, owed: Sequence[Credential], present: frozenset[str], ports: Ports) -> Iterator[Finding]:
    """What somebody has changed about logins that are there: the others compared with the current one, that one with what it must be."""
    engine = ports.engines[server.engine]
    for credential in owed:
        if credential.username not in present:
            continue
        like = model(credential, owed, present) or credential.username
        resource = ports.store.resource(credential.resource_id)
        faults = engine.parity(resource, credential.username, like, _deadline(ports))
        own = dict.fromkeys(str(one) for one in faults if one.field != like or like == credential.username)
        if own:
            problem = "; ".join(own)
            yield Finding(Kind.CHANGED, server.name, credential.username, problem, credential, None, (credential.resource_id,))
