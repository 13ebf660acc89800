"""The end of the demo, when nothing moves any more: what the database server itself says about every login that there ever was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg

from rotation.sensitive import Sensitive
from rotation.states import Stage
from worker.sandbox import fleet
from worker.sandbox.customers import VARIABLE, address, knock
from worker.sandbox.scoreboard import Findings, Summary, orphans

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rotation.model import KnownLogin
    from worker.sandbox.customers import Address, Answer
    from worker.sandbox.postgresql import PrivatePostgresql
    from worker.sandbox.scoreboard import Board
    from worker.sandbox.vercel_world import World

KNOCKERS = 4
"""How many logins are tried at once."""

LOGINS = """
SELECT rolname::text FROM pg_roles
 WHERE NOT rolsuper AND NOT rolname LIKE 'pg\\_%%' AND rolname <> %s
   AND (rolcanlogin OR shobj_description(oid, 'pg_authid') IS NOT NULL)"""


def take_stock(board: Board, postgresql: PrivatePostgresql, world: World, listed: Iterable[KnownLogin]) -> Summary:
    """Try every login that Vercel ever held, and look for logins that nobody owns. The workers must have ended.

    `listed` are the logins with our marker, as the engine lists them.
    """
    doors = _every_login(world)
    return Summary(
        board,
        Findings(
            held=_answers(doors, _held(world, board)),
            in_grace=_answers(doors, _staged(board, Stage.PREVIOUS)),
            retired=_answers(doors, _staged(board, Stage.RETIRED)),
            orphans=orphans(_logins(postgresql, listed), board.standings),
        ),
    )


def _every_login(world: World) -> dict[str, Address]:
    """By user name: what was ever pushed, and so what any application may ever have been deployed with."""
    pushed = (address(Sensitive(entry.values[VARIABLE])) for entry in world.history() if entry.applied)
    return {one.login.username: one for one in pushed}


def _held(world: World, board: Board) -> list[str]:
    values = (world.held(fleet.INSTALLATION, fleet.external_id(one.name))[VARIABLE] for one in board.standings)
    return [address(Sensitive(value)).login.username for value in values]


def _staged(board: Board, stage: Stage) -> list[str]:
    return [one.username for standing in board.standings for one in standing.staged(stage)]


def _answers(doors: Mapping[str, Address], usernames: Iterable[str]) -> dict[str, Answer]:
    known = [name for name in usernames if name in doors]
    with ThreadPoolExecutor(KNOCKERS) as threads:
        return dict(zip(known, threads.map(lambda name: knock(doors[name]), known), strict=True))


def _logins(postgresql: PrivatePostgresql, listed: Iterable[KnownLogin]) -> set[str]:
    """Every login on the server but the superuser and the admin, blocked ones too: by the engine's list, and by the catalog itself."""
    with psycopg.connect(postgresql.superuser_url()) as connection:
        found = connection.execute(LOGINS, (fleet.ADMIN,)).fetchall()
    return {one.username for one in listed} | {name for (name,) in found}
