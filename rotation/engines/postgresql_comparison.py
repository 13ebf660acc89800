"""A login beside the one that it is to be like: what the catalogs show of both, and what that comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rotation.engines.postgresql_roles import read_roles, roles_query, wanted_settings
from rotation.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg import sql

    from rotation.engines.postgresql_admin import AdminSession
    from rotation.engines.postgresql_roles import Role

KINDS = {"o": "owns", "a": "has rights on", "r": "is named by policies on"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A login, the one that it is to be like if there is one, and the owner."""

    name: str
    like: str | None
    owner: str

    def query(self, session: AdminSession) -> sql.Composed:
        """Both logins, to be read by `roles_of`."""
        return roles_query(session, self.name, *([self.like] if self.like else []))

    def read(self, session: AdminSession) -> dict[str, Role]:
        """Both logins and the owner, each that exists."""
        return read_roles(session, self.name, self.owner, *([self.like] if self.like else []))

    def is_alike(self, seen: Mapping[str, Role]) -> bool:
        """Whether the login has the groups, the settings and the limit of the other. What the owner has need not be known then."""
        role, like = seen[self.name], seen.get(self.like or "")
        if like is None:
            return set(role.settings) == set(wanted_settings(self.owner, None))
        return (
            role.connection_limit == like.connection_limit
            and set(role.memberships) == set(like.memberships)
            and set(role.settings) == set(wanted_settings(self.owner, like))
        )

    def faults(self, seen: Mapping[str, Role]) -> tuple[Fault, ...]:
        """What the login may do less, more or otherwise than the one that it is to be like. Of missing roles nothing else is told."""
        if self.like is None:
            return ()
        missing = [name for name in (self.name, self.like) if name not in seen]
        if not missing and self.owner not in seen and not self.is_alike(seen):
            missing = [self.owner]
        if missing:
            return tuple(Fault(name, "does not exist") for name in missing)
        groups = seen[self.owner].memberships if self.owner in seen else ()
        return tuple(_differences(seen[self.name], seen[self.like], self.owner, groups))


def _differences(role: Role, like: Role, owner: str, groups: Sequence[str]) -> Iterator[Fault]:
    """What `role` may do less, more or otherwise than `like`.

    Both act as the owner from their first statement on, so that with the same memberships and settings their rights and their search
    path are the same; what only one of them holds directly is the rest. Groups that the owner is a member of (`groups`) count for neither.
    """
    for one in (role, like):
        if one.acts_as != owner or owner not in one.memberships:
            yield Fault(one.name, f"does not act as {owner}", "adopt the login that is in use first: `rollover resource adopt`")
        for thing in one.held:
            if thing.kind in KINDS:
                place = f"in the database {thing.database}" if thing.database else "shared by all databases"
                yield Fault(one.name, f"{KINDS[thing.kind]} {thing.count} objects directly, {place}", f"give that to {owner} instead")
    if (set(role.memberships) ^ set(like.memberships)) - set(groups):
        yield Fault(role.name, f"is not a member of the same groups as {like.name}", f"make {owner} a member of them")
    if not role.inherits:
        yield Fault(role.name, "does not inherit the rights of its groups", "ALTER ROLE … INHERIT")
    if role.connection_limit != like.connection_limit:
        yield Fault(role.name, f"has another connection limit than {like.name}", "ALTER ROLE … CONNECTION LIMIT")
    if set(role.settings) != set(like.settings):
        yield Fault(role.name, f"has other settings than {like.name}", "ALTER ROLE … SET, as \\drds shows them")
