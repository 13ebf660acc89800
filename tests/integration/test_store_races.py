"""Two workers with several threads each on one store, on both databases: whatever they do at once, the store stays true."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from rotation.cases import Wait
from rotation.errors import Conflict, LostClaim
from rotation.model import Schedule, Session
from rotation.ports import Terms
from rotation.states import RotationState, Stage
from rotation.store.sql import SqlStore
from rotation.store.tables import attempts, credentials, events, rotations
from tests.sql_stores import AUDIT_KEY
from tests.store_samples import (
    INSTALLATION,
    SERVER,
    ask,
    blocked,
    completed,
    credential,
    event,
    fresh,
    offered,
    planned,
    present,
    retired,
    spec,
    verified,
)
from worker.machine import MachineClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.cases import Move, RotationCase
    from tests.sql_stores import SqlBench

THREADS = 4
"""Of each worker."""
ROUNDS = 40
RESOURCES = 3
AT_ONCE = timedelta(0)


@pytest.fixture
def workers(sql_bench: SqlBench) -> Iterator[tuple[SqlStore, SqlStore]]:
    url = sql_bench.store.database.engine.url
    terms = Terms(hint=AT_ONCE)
    one, other = (SqlStore(url, clock=MachineClock(), terms=terms, audit_key=AUDIT_KEY) for _ in range(2))
    one.add_installation(INSTALLATION, event("installation_added"))
    one.add_server(SERVER, event("server_added"))
    for number in range(RESOURCES):
        resource_id = f"res_{number}"
        one.register(
            spec(f"store_{number}"),
            resource_id,
            Schedule(),
            credential(resource_id, 1, Stage.CURRENT, one.now(), f"first_{number}"),
            event("resource_registered"),
        )
    yield one, other
    one.dispose()
    other.dispose()


def next_move(case: RotationCase) -> Move | Wait:
    match case.rotation.state:
        case RotationState.REQUESTED:
            return Wait(None) if case.ahead is not None else planned(case)
        case RotationState.PLANNED:
            return verified(case)
        case RotationState.VERIFIED:
            return offered(case)
        case _:
            mine = [one for one in case.attempts if one.rotation_id == case.rotation.id]
            return replace(completed(replace(case, attempts=tuple(mine)), grace=AT_ONCE), new_requests=())


def request(store: SqlStore, dice: random.Random) -> str:
    return store.amend(f"res_{dice.randrange(RESOURCES)}", ask)


def rotate(store: SqlStore, dice: random.Random) -> str:
    for rotation_id in store.due_rotations(2, urgent=False):
        case = store.claim_rotation(rotation_id)
        while case is not None and dice.random() < 0.95:
            case = store.record_rotation(case, next_move(case))
    return "rotated"


def retire(store: SqlStore, dice: random.Random) -> str:
    for credential_id in store.due_credentials(2):
        case = store.claim_credential(credential_id)
        while case is not None:
            step = blocked if case.credential.stage is Stage.PREVIOUS else retired
            case = store.record_credential(case, step(case))
    return "retired"


def watch(store: SqlStore, dice: random.Random) -> str:
    names = [line.credential.username for number in range(RESOURCES) for line in store.views.credentials(f"res_{number}")]
    store.see(SERVER, [Session(name, "10.0.0.1", "shop", "idle", 1, store.now()) for name in dice.sample(names, len(names))])
    return "watched"


def sign(store: SqlStore, dice: random.Random) -> str:
    store.checkpoint()
    return "signed"


def wake(store: SqlStore, dice: random.Random) -> str:
    store.park(INSTALLATION.id, "401", event("installation_parked"))
    store.unpark(INSTALLATION.id, event("installation_unparked"))
    return "woken"


def test_whatever_is_done_at_once_the_store_stays_true(workers: tuple[SqlStore, SqlStore]) -> None:
    acts = [request, request, rotate, rotate, rotate, retire, watch, sign, wake]
    done: Counter[str] = Counter()

    def work(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a test that can be repeated
        for _ in range(ROUNDS):
            try:
                done[dice.choice(acts)(workers[seed % 2], dice)[:7]] += 1
            except LostClaim:
                done["lost"] += 1

    with ThreadPoolExecutor(2 * THREADS) as pool:
        list(pool.map(work, range(2 * THREADS)))
    store = workers[0]
    check(store)
    assert done["rotated"] > 0
    assert done["retired"] > 0


def check(store: SqlStore) -> None:
    while store.checkpoint() is not None:
        pass
    assert list(store.verify_audit()) == []
    with store.database.snapshot() as connection:
        stages = Counter(tuple(row) for row in connection.execute(select(credentials.c.resource_id, credentials.c.stage)))
        states = Counter(tuple(row) for row in connection.execute(select(rotations.c.resource_id, rotations.c.state)))
        kinds = Counter(connection.scalars(select(events.c.kind)))
        dirty = connection.scalar(select(func.count()).where(attempts.c.state == "open", attempts.c.answered_at.is_not(None)))
    for number in range(RESOURCES):
        resource_id = f"res_{number}"
        assert stages[resource_id, "current"] == 1
        assert sum(states[resource_id, state] for state in ("planned", "verified", "offered")) <= 1
        assert states[resource_id, "requested"] <= 1
    assert kinds["rotation_completed"] == sum(count for (_, state), count in states.items() if state == "completed")
    assert kinds["credential_retired"] == sum(count for (_, stage), count in stages.items() if stage == "retired")
    assert dirty == 0


def test_a_row_is_claimed_by_one_of_many(workers: tuple[SqlStore, SqlStore]) -> None:
    for _ in range(10):
        rotation_id = workers[0].amend("res_0", ask)
        start = threading.Barrier(2 * THREADS)

        def claim(index: int, rotation_id: str = rotation_id, start: threading.Barrier = start) -> RotationCase | None:
            start.wait(10)
            return workers[index % 2].claim_rotation(rotation_id)

        with ThreadPoolExecutor(2 * THREADS) as pool:
            cases = [case for case in pool.map(claim, range(2 * THREADS)) if case is not None]
        assert len(cases) == 1
        case: RotationCase | None = cases[0]
        while case is not None:
            case = workers[0].record_rotation(case, next_move(case))


def test_requests_at_once_are_one_rotation(workers: tuple[SqlStore, SqlStore]) -> None:
    with ThreadPoolExecutor(2 * THREADS) as pool:
        ids = set(pool.map(lambda index: workers[index % 2].amend("res_1", ask), range(40)))
    assert len(ids) == 1
    assert len(workers[0].views.rotation(ids.pop()).requests) == 40


def test_a_join_is_never_lost_to_a_step_that_is_under_way(workers: tuple[SqlStore, SqlStore]) -> None:
    for _ in range(10):
        case = present(workers[0].claim_rotation(workers[0].amend("res_0", ask)))
        case = present(workers[0].record_rotation(case, planned(case)))
        with ThreadPoolExecutor(2) as pool:
            joined = pool.submit(workers[1].amend, "res_0", ask)
            offer = pool.submit(workers[0].record_rotation, case, verified(case))
            case = present(offer.result())
        assert joined.result() == case.rotation.id
        case = present(workers[0].record_rotation(case, offered(case)))
        assert len(case.requests) == 2
        assert workers[0].record_rotation(case, next_move(case)) is None


def test_ticks_at_once_send_each_row_once(workers: tuple[SqlStore, SqlStore]) -> None:
    engine = workers[0].database.engine
    ticking = [SqlStore(engine, clock=MachineClock(), terms=Terms(), audit_key=AUDIT_KEY) for _ in range(2)]
    ids = [workers[0].amend(f"res_{number}", ask) for number in range(RESOURCES)]
    with ThreadPoolExecutor(2 * THREADS) as pool:
        sent = [one for batch in pool.map(lambda index: ticking[index % 2].due_rotations(2, urgent=False), range(16)) for one in batch]
    assert sorted(sent) == sorted(ids)


def test_the_same_resource_is_registered_once(workers: tuple[SqlStore, SqlStore]) -> None:
    def register(index: int) -> bool:
        try:
            workers[index % 2].register(spec("twin"), fresh("res"), Schedule(), None, event("resource_registered"))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2 * THREADS) as pool:
        assert sum(pool.map(register, range(16))) == 1
