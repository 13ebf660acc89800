"""PostgreSQL: a fresh login each generation, whose rights come from one NOLOGIN group, the owner of the database's objects.

    mint      a name, a password and its SCRAM verifier, without a connection
    admit     CREATE ROLE … IN ROLE owner with our marker as its comment, acting as the owner, with the settings of the current login
    check     log in with what will be pushed, on every endpoint
    block     NOLOGIN: open sessions go on
    withdraw  NOLOGIN, end the sessions, hand over what it owns, DROP ROLE
    prove     refused by the right server, while the current login gets in

Every name in a statement is composed by psycopg. What is measured about PostgreSQL stands where it matters.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING

from psycopg import sql

from rotation.engines import logins, scram
from rotation.engines.hosts import Hosts
from rotation.engines.postgresql_admin import AdminLogin, AdminSessions, PreparedQuery
from rotation.engines.postgresql_adoption import adopt
from rotation.engines.postgresql_comparison import Comparison
from rotation.engines.postgresql_errors import NameTaken, NameUnknown
from rotation.engines.postgresql_logins import Logins
from rotation.engines.postgresql_preflight import preflight
from rotation.engines.postgresql_proof import Proof
from rotation.engines.postgresql_rehearsal import rehearse
from rotation.engines.postgresql_removal import block, end_nameless_sessions, find_login, is_still, remove_login, unblock
from rotation.engines.postgresql_roles import make_role, mend_role, read_roles, roles_of
from rotation.errors import Fault, NameClash, Refused, Unavailable
from rotation.model import APPLICATION_NAME, Capabilities, KnownLogin, Minted, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from rotation.cases import Deadline
    from rotation.engines.postgresql_admin import AdminSession, Row
    from rotation.engines.postgresql_roles import Role
    from rotation.model import Credential, Login, RenderedSecret, Resource, Server
    from rotation.ports import Clock, Entropy, Sealer
    from rotation.sensitive import Sensitive

__all__ = ["AdminLogin", "PostgresqlEngine"]

CAPABILITIES = Capabilities(most_generations=None, can_block=True, sees_which_secret=True)

SESSIONS = PreparedQuery(
    "rollover_sessions",
    1,
    """
SELECT usename::text, coalesce(host(client_addr), 'local'), coalesce(application_name, ''), coalesce(state, ''), count(*),
       min(backend_start)
  FROM pg_stat_activity
 WHERE usename IS NOT NULL AND backend_type = 'client backend' AND application_name <> $1
 GROUP BY 1, 2, 3, 4""",
)

SEES_SESSIONS = sql.SQL("SELECT pg_has_role('pg_read_all_stats', 'USAGE')")

CLOCK = sql.SQL("SELECT clock_timestamp()")

CAN_LOG_IN = "r.rolcanlogin AND r.rolconnlimit <> 0 AND coalesce(r.rolvaliduntil > clock_timestamp(), true)"
MARKED = sql.SQL(f"""
SELECT r.rolname::text, {CAN_LOG_IN}, d.description
  FROM pg_shdescription d JOIN pg_roles r ON r.oid = d.objoid WHERE d.classoid = 'pg_authid'::regclass""")  # noqa: S608 - a constant

NAMED = sql.SQL(f"""
SELECT r.rolname::text, {CAN_LOG_IN}, coalesce(d.description, '')
  FROM pg_roles r LEFT JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass
 WHERE r.rolname IN ({{names}})""")  # noqa: S608 - a constant


class PostgresqlEngine:
    """`rotation.ports.Engine` for PostgreSQL 15 and later.

    `admin_logins` gives a server's admin login whenever a connection is opened. Of the sealer only its marks are used.
    """

    def __init__(
        self, admin_logins: Callable[[Server], AdminLogin], sealer: Sealer, clock: Clock, *, allow_private_hosts: bool = False
    ) -> None:
        self._sealer = sealer
        doors = Logins(Hosts(allow_private=allow_private_hosts))
        self._admin = AdminSessions(admin_logins, doors, clock)
        self._proof = Proof(doors, self._admin)
        self._doors = doors

    def close(self) -> None:
        """Close the idle connections to all servers; the engine stays usable."""
        self._admin.close()

    @property
    def capabilities(self) -> Capabilities:
        """Any number of logins at once, each with sessions of its own."""
        return CAPABILITIES

    def mint(self, resource: Resource, generation: int, entropy: Entropy) -> Minted:
        """A fresh name, a password, and the verifier that PostgreSQL gets instead of it."""
        username = logins.new_username(resource.spec.database.login_prefix, generation, entropy)
        password = logins.new_password(resource.spec.password_length, entropy)
        return Minted(username, password, self.verifier(password, entropy))

    def preflight(self, resource: Resource, deadline: Deadline) -> tuple[Fault, ...]:
        """Every right that is missing, with the SQL that gives it."""
        return tuple(preflight(self._admin, self._doors, resource, deadline))

    def adopt(self, resource: Resource, username: str, deadline: Deadline, *, dry_run: bool) -> tuple[str, ...]:
        """Share what the login in use owns with the owner group, without a moment in which it cannot work."""
        return adopt(self._admin, resource, username, deadline, dry_run=dry_run)

    def rehearse(self, resource: Resource, username: str, like: str | None, deadline: Deadline) -> tuple[str, ...]:
        """The statements that make the new login, then those that end the one that it is like."""
        return tuple(rehearse(self._admin, resource, username, like, deadline))

    def admit(
        self, resource: Resource, credential: Credential, verifier: Sensitive, like: str | None, deadline: Deadline
    ) -> tuple[Fault, ...]:
        """Create the login, or mend it with the same verifier: another salt would strand poolers that keep the old one.

        One message makes a login without anything of its own and looks at it: most have nothing, and the others are mended.
        """
        self._admin.clocks.expect_time(resource.server, deadline, "create a login")
        comparison = Comparison(credential.username, like, resource.spec.database.owner_role)
        making = make_role(comparison.name, comparison.owner, verifier, self._sealer.mark(credential.id))
        with self._admin.session(resource.server, deadline) as session:
            try:
                seen = roles_of(session.act("create a login", [*making, comparison.query(session)]))
                finished = comparison.is_alike(seen)
            except NameTaken:
                seen = comparison.read(session)
                if not credential.adopted:
                    self._expect_ours(resource, seen.get(comparison.name), credential)
                finished = False
            model = seen.get(like) if like else None
            if like and model is None:
                # The healer makes it again: that is no reason to give up.
                raise Unavailable(f"{resource.server.name}: the login {like}, which the new one is to be like, does not exist")
            if not finished:
                session.act("mend a login", list(mend_role(seen[comparison.name], comparison.owner, verifier, model)))
                seen = comparison.read(session)
        return comparison.faults(seen)

    def check(self, resource: Resource, login: Login, secrets: Sequence[RenderedSecret], deadline: Deadline) -> None:
        """Log in with what will be pushed."""
        self._proof.check(resource, login, secrets, deadline)

    def parity(self, resource: Resource, username: str, like: str, deadline: Deadline) -> tuple[Fault, ...]:
        """Compare memberships, settings, limits and what either holds directly."""
        comparison = Comparison(username, like, resource.spec.database.owner_role)
        with self._admin.session(resource.server, deadline) as session:
            return comparison.faults(comparison.read(session))

    def block(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        """NOLOGIN."""
        self._admin.clocks.expect_time(resource.server, deadline, "block a login")
        with self._admin.session(resource.server, deadline) as session, suppress(NameUnknown):
            role = self._own(session, resource, credential)
            if role is not None and role.can_log_in:
                session.act("block a login", [block(role.name), is_still(role)])

    def unblock(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        """LOGIN again."""
        self._admin.clocks.expect_time(resource.server, deadline, "unblock a login")
        with self._admin.session(resource.server, deadline) as session:
            role = self._own(session, resource, credential)
            if role is None:
                raise Refused(f"{resource.server.name}: there is no login {credential.username} to unblock", advice="rotate instead")
            if not role.can_log_in:
                session.act("unblock a login", [unblock(role.name), is_still(role)])

    def withdraw(self, resource: Resource, credential: Credential, keep: Sequence[str], deadline: Deadline) -> None:
        """End the sessions, hand over what it owns, remove it."""
        self._admin.clocks.expect_time(resource.server, deadline, "remove a login")
        name = credential.username
        if name in keep:
            raise Refused(f"{resource.server.name}: {name} is to be kept and removed at once: nothing was done")
        with self._admin.session(resource.server, deadline) as session:
            found = find_login(session, name)
            if found is None:
                end_nameless_sessions(session, resource.spec.database.name)
                return
            if not credential.adopted:
                self._expect_ours(resource, found.role, credential)
        remove_login(self._admin, resource, found, deadline)

    def prove_refused(self, resource: Resource, login: Login, control: Login | None, deadline: Deadline) -> None:
        """Ask the catalog, and every door."""
        self._proof.prove_refused(resource, login, control, deadline)

    def usage(self, server: Server, deadline: Deadline) -> tuple[Session, ...]:
        """The open sessions by login, client, application and state. Raises `Refused` when the admin may not see those of others."""
        with self._admin.session(server, deadline) as session:
            ((sees,),), found = session.rows_of("read sessions", SEES_SESSIONS, session.asking(SESSIONS, APPLICATION_NAME))
        if not sees:
            raise Refused(f"{server.name}: the admin login cannot see sessions", advice="GRANT pg_monitor to it")
        return tuple(Session(*row) for row in found)

    def list_logins(self, server: Server, deadline: Deadline) -> tuple[KnownLogin, ...]:
        """The roles whose comment is a mark of ours."""
        with self._admin.session(server, deadline) as session:
            marked = session.rows("read marked logins", MARKED)
        return tuple(one for one in map(self._known, marked) if one.credential_id is not None)

    def find_logins(self, server: Server, usernames: Sequence[str], deadline: Deadline) -> tuple[KnownLogin, ...]:
        """The roles of these names."""
        if not usernames:
            return ()
        with self._admin.session(server, deadline) as session:
            named = session.rows("read logins", NAMED.format(names=sql.SQL(", ").join(map(sql.Literal, usernames))))
        return tuple(map(self._known, named))

    def verifier(self, password: Sensitive, entropy: Entropy) -> Sensitive:
        """A SCRAM verifier with a salt of its own."""
        return scram.verifier(password, scram.Salting(entropy.bytes(scram.SALT_BYTES)))

    def _known(self, row: Row) -> KnownLogin:
        name, can_log_in, comment = row
        return KnownLogin(name, self._sealer.recognise(comment), can_log_in, *logins.parts_of(name))

    def clock(self, server: Server, deadline: Deadline) -> datetime:
        """As `clock_timestamp()` tells it."""
        with self._admin.session(server, deadline) as session:
            read_at: datetime = session.rows("read the clock", CLOCK)[0][0]
        return read_at.astimezone(UTC)

    def _own(self, session: AdminSession, resource: Resource, credential: Credential) -> Role | None:
        """The credential's role; None when there is none of its name. Raises `NameClash` for another's."""
        role = read_roles(session, credential.username).get(credential.username)
        if role is not None and not credential.adopted:
            self._expect_ours(resource, role, credential)
        return role

    def _expect_ours(self, resource: Resource, role: Role | None, credential: Credential) -> None:
        if role is None or role.comment is None or self._sealer.recognise(role.comment) != credential.id:
            raise NameClash(
                f"{resource.server.name}: a login {credential.username} exists that is not this credential's: a name clash",
                advice="find out whose it is; the next rotation takes another name",
            )
