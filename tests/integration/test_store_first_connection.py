"""An engine that has just been made, used by two threads at once: the second one waits until the first knows the server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sqlalchemy import text

from rotation.store.database import Database, make_engine

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.sql_stores import SqlBench


def test_who_comes_while_the_first_connection_is_made_waits_for_it(postgresql_bench: SqlBench) -> None:
    database = Database(make_engine(postgresql_bench.store.database.engine.url), postgresql_bench.store.clock)
    began, go_on = threading.Event(), threading.Event()
    initialize = database.engine.dialect.initialize

    def slowly(connection: Connection) -> None:
        began.set()
        assert go_on.wait(30)
        initialize(connection)

    database.engine.dialect.initialize = slowly  # type: ignore[method-assign]

    def directly() -> str | None:
        with database.direct() as direct:
            return direct.answer("SELECT 1", [])

    def by_sqlalchemy() -> int:
        with database.reading() as connection:
            return int(connection.execute(text("SELECT 2")).scalar_one())

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(directly)
        assert began.wait(30)
        second = pool.submit(by_sqlalchemy)
        try:
            assert second.exception(timeout=0.5) is None, "it did not wait"
        except TimeoutError:
            pass  # it waits
        finally:
            go_on.set()
        assert (first.result(30), second.result(30)) == ("1", 2)
    database.dispose()
