"""Comparing store and servers for a person, who sees what differs and what would be done about it, and may have it done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rotation import health, restores
from rotation.errors import Conflict, OutcomeUnknown, Refused, Unavailable
from rotation.survey import Kind, changes, survey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rotation.model import KnownLogin, Server, Standing
    from rotation.ports import Ports
    from rotation.survey import Finding, Survey

REMEDIES = {
    Kind.LOST: "it is made again from the stored verifier",
    Kind.REVIVED: "it is removed again",
    Kind.CHANGED: "it is made like its siblings again",
    Kind.AHEAD: "its resource is held; with `--after-restore` it gets a row, and goes after the grace of the next rotation",
    Kind.ORPHAN: "it stays; with `--after-restore` it gets a row, and goes after the grace of the next rotation",
}
NOBODYS = "it stays, as no resource is known that it may belong to: find out whose it is, and remove it by hand"
SEVERAL = "it stays, as it may belong to any of {}: give all but its own another `login_prefix` with `rollover resource update`"
"""New resources of one server have prefixes of their own; a store of before may have some that share one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that differs: what is wrong, what is done about it, and whether that was done. None: nobody tried."""

    kind: str
    server: str
    login: str
    resource_id: str | None
    problem: str
    remedy: str
    mended: bool | None = None


def reconcile(server: Server, ports: Ports, *, apply: bool) -> tuple[Line, ...]:
    """Everything about the logins of a server that differs from the store, each login being logged in with. With `apply` all is put right
    that may be: no login without a row is ever removed here.

    Raises `Refused`, `Unavailable` or `OutcomeUnknown` when the server cannot be read.
    """
    seen = survey(server, ports, tries=None)
    lost = {one.username for one in seen.of(Kind.LOST)}
    owed = [one for one in ports.store.owed_logins(server.name) if one.username not in lost]
    changed = tuple(changes(server, owed, seen.present, ports))
    if not apply:
        return tuple(_line(one, None) for one in (*seen.findings, *changed))
    mended = _mend(server, seen, changed, ports)
    return tuple(_line(one, one.credential is not None and one.credential.id in mended) for one in (*seen.findings, *changed))


def _mend(server: Server, seen: Survey, changed: tuple[Finding, ...], ports: Ports) -> frozenset[str]:
    """The credentials whose logins are as their rows say now."""
    health.hold_ahead(seen, ports)
    astray = health.note(seen, ports, changed)
    mended = {one.id for one in astray if health.heal(one.id, ports)}
    again = [one.credential for one in changed if one.credential is not None]
    still = {one.credential.id for one in changes(server, again, seen.present, ports) if one.credential is not None} if again else set()
    ports.store.note_look(server.name, orphans=len(seen.of(Kind.ORPHAN, Kind.AHEAD)))
    return frozenset(mended - still)


def _line(finding: Finding, mended: bool | None) -> Line:  # noqa: FBT001 - as the field
    without_row = finding.kind in (Kind.AHEAD, Kind.ORPHAN)
    remedy = REMEDIES[finding.kind]
    if without_row and len(finding.resource_ids) != 1:
        remedy = SEVERAL.format(", ".join(finding.resource_ids)) if finding.resource_ids else NOBODYS
    whose = finding.resource_ids[0] if len(finding.resource_ids) == 1 else None
    return Line(finding.kind, finding.server, finding.username, whose, finding.problem, remedy, None if without_row else mended)


def after_restore(server: Server, actor: str, ports: Ports, *, apply: bool) -> tuple[Line, ...]:
    """What a store that was set back may have lost of the resources on a server; with `apply` each of them is brought on.

    One that may be behind a login of which nobody knows whose it is stays as it is: it would be held again at the next look. Raises as
    `reconcile` does.
    """
    seen = survey(server, ports, tries=0)
    unclear = {one for finding in seen.of(Kind.AHEAD) if len(finding.resource_ids) > 1 for one in finding.resource_ids}
    unknown = _by_resource(seen.of(Kind.AHEAD, Kind.ORPHAN))
    standings = ports.store.standings(server.name)
    concerned = [one for one in standings if one.resource.id in unknown or one.under_way or one.resource.held_because]
    clear = [one for one in concerned if one.resource.id not in unclear]
    lines = [_bring_on(one, unknown.get(one.resource.id, ()), server, actor, ports, apply=apply) for one in clear]
    others = [_line(one, None) for one in seen.of(Kind.AHEAD, Kind.ORPHAN) if len(one.resource_ids) != 1]
    return (*lines, *others)


def _by_resource(findings: Iterable[Finding]) -> dict[str, tuple[KnownLogin, ...]]:
    """The logins without a row, by the one resource that each may belong to."""
    found: dict[str, tuple[KnownLogin, ...]] = {}
    for one in findings:
        if len(one.resource_ids) == 1 and one.login is not None:
            found[one.resource_ids[0]] = (*found.get(one.resource_ids[0], ()), one.login)
    return found


def _bring_on(standing: Standing, unknown: tuple[KnownLogin, ...], server: Server, actor: str, ports: Ports, *, apply: bool) -> Line:
    resource = standing.resource
    problem = "; ".join(
        [f"{one.username} has no row" for one in unknown]
        + (["a rotation is under way, and may have been pushed"] if standing.under_way else [])
    )
    remedy = "whatever Vercel may hold is kept, and a new rotation is asked for: after its grace the others go"
    names = ", ".join(one.username for one in unknown)
    line = Line("restore", server.name, names, resource.id, problem or "it is held", remedy)
    if not apply:
        return line
    try:
        done = restores.bring_on(resource.id, unknown, actor, "the store was set back", ports)
    except (Refused, Unavailable, OutcomeUnknown, Conflict) as error:
        return Line(line.kind, line.server, names, resource.id, str(error), remedy, mended=False)
    if done is not None and done.paused:
        remedy += f"; it is paused: `rollover resource resume {resource.name}`"
    return Line(line.kind, line.server, names, resource.id, line.problem, remedy, mended=True)
