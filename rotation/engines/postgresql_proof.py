"""Proving that a login works, and that one is dead.

psycopg gives no SQLSTATE for a failed login; 28000 is also the code for "no pg_hba.conf entry", and a pooler may answer 08P01 for a bad
password. So a login counts as dead only when the catalog says so, the server refuses it, and another login gets in by the same door.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from rotation.engines.postgresql_admin import PreparedQuery
from rotation.engines.postgresql_errors import sort_error
from rotation.engines.postgresql_logins import BAD_PASSWORD, NOT_PERMITTED, PROTOCOL_VIOLATION, Door
from rotation.engines.urls import endpoints, targets
from rotation.errors import Refused, Unavailable, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rotation.cases import Deadline
    from rotation.engines.deadlines import TimeLeft
    from rotation.engines.postgresql_admin import AdminSessions
    from rotation.engines.postgresql_logins import Logins
    from rotation.model import Login, RenderedSecret, Resource

WHO = sql.SQL("SELECT session_user, current_database()")

LEFT_OF = PreparedQuery(
    "rollover_left_of",
    2,
    """
SELECT (SELECT rolcanlogin FROM pg_roles WHERE rolname = $1),
       count(*) FILTER (WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = $1)),
       count(*) FILTER (WHERE datid = (SELECT oid FROM pg_database WHERE datname = $2)
                          AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = usesysid))
  FROM pg_stat_get_activity(NULL) WHERE usesysid IS NOT NULL""",
)
"""A session outlives its role, and then has no name: such a one in the resource's database may be this login's."""


class Proof:
    """Logins tried out at every door of a resource."""

    def __init__(self, logins: Logins, admin: AdminSessions) -> None:
        self._logins = logins
        self._admin = admin

    def check(self, resource: Resource, login: Login, secrets: Sequence[RenderedSecret], deadline: Deadline) -> None:
        """Returns only when every URL says what it must and the login got in at every endpoint, as itself."""
        time_left = self._admin.time_left(deadline)
        for place in targets(resource, login, secrets):
            self._enter(Door(resource.server, place, resource.spec.database.name), login, time_left)

    def prove_refused(self, resource: Resource, login: Login, control: Login | None, deadline: Deadline) -> None:
        """Returns only when the login is dead; `Refused` when it is alive, `Unavailable` when neither was proved."""
        self._look(resource, login.username, deadline)
        time_left = self._admin.time_left(deadline)
        for place in endpoints(resource):
            door = Door(resource.server, place, resource.spec.database.name)
            code = self._logins.refusal(door, login, time_left)
            if code is None:
                raise Refused(f"{door} still lets the login {login.username} in", advice="find out who keeps it alive")
            controlled = control is not None and self._controlled(door, control, time_left)
            if code not in _proving(through_pooler=bool(place.name), controlled=controlled):
                raise Unavailable(f"{door} answered {code}, which does not prove that {login.username} is dead")

    def _look(self, resource: Resource, username: str, deadline: Deadline) -> None:
        """Raises when the role is there, as one that was removed is again after a failover, or a session of it is."""
        database = resource.spec.database.name
        with self._admin.session(resource.server, deadline) as session:
            query = session.asking(LEFT_OF, username, database)
            can_log_in, own, nameless = session.rows("look for what is left of a login", query)[0]
        if can_log_in:
            raise Refused(f"{resource.server.name}: the login {username} exists and may log in", advice="find out who keeps it alive")
        if can_log_in is not None:
            raise Unavailable(f"{resource.server.name}: the login {username} is still there")
        if own or nameless:
            raise Unavailable(f"{resource.server.name}: {own + nameless} sessions of {username} are left")

    def _controlled(self, door: Door, control: Login, time_left: TimeLeft) -> bool:
        try:
            self._enter(door, control, time_left)
        except Refused:
            raise Unavailable(f"{door}: the control {control.username} was refused, too, which proves nothing") from None
        return True

    def _enter(self, door: Door, login: Login, time_left: TimeLeft) -> None:
        """Log in, and see as whom.

        The server itself has begun the session when it lets somebody in, and names its user then ("session_authorization", "Asynchronous
        Operations" of the protocol). A pooler may let somebody in before it has asked the server, so that one is asked.
        """
        with closing(self._logins.log_in(door, login, time_left)) as connection:
            if not door.place.name and connection.info.parameter_status("session_authorization") == login.username:
                return
            try:
                row = connection.execute(WHO).fetchone()
            except psycopg.Error as error:
                sorted_error = sort_error(error, "say who is logged in", str(door), sent=False)
                raise door.unreachable("gave no answer") if isinstance(sorted_error, Unreachable) else sorted_error from None
        if row != (login.username, door.database):
            raise Refused(f"{door} let {login.username} in as somebody else, or elsewhere", advice="look at the pooler's configuration")


def _proving(*, through_pooler: bool, controlled: bool) -> frozenset[str]:
    """The codes that prove that a login is dead, which is absent.

    From the server itself 28000 would mean that pg_hba.conf has no place for it.
    """
    return frozenset({BAD_PASSWORD, NOT_PERMITTED, PROTOCOL_VIOLATION} if through_pooler and controlled else {BAD_PASSWORD})
