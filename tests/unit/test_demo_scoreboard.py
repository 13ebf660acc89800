from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from rotation.states import PushBy, RotationState, Stage
from worker.sandbox import display
from worker.sandbox.customers import Answer, Tally
from worker.sandbox.scoreboard import Board, Findings, Generation, Standing, Summary, changes, orphans

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST, SECOND = "orders_app", "orders_g2_0123"


def standing(*generations: Generation, name: str = "orders", **fields: object) -> Standing:
    made = Standing(name, PushBy.RESOURCE, None, NOON + timedelta(seconds=12), 1, 0, "", generations)
    return replace(made, **fields)  # type: ignore[arg-type]  # any field by its name


ROTATED = standing(
    Generation(1, FIRST, Stage.PREVIOUS, NOON + timedelta(seconds=8)),
    Generation(2, SECOND, Stage.CURRENT),
)
RETIRED = standing(Generation(1, FIRST, Stage.RETIRED), Generation(2, SECOND, Stage.CURRENT))
BEFORE = standing(Generation(1, FIRST, Stage.CURRENT), completed=0)


def look(*standings: Standing, tally: Tally = Tally(accepted=9), elapsed: int = 30, deployed: str = FIRST) -> Board:  # noqa: B008 - frozen
    names = [one.name for one in standings]
    return Board(NOON, timedelta(seconds=elapsed), standings, dict.fromkeys(names, tally), dict.fromkeys(names, deployed))


CLEAN = Findings(held={SECOND: Answer.ACCEPTED}, in_grace={}, retired={FIRST: Answer.REFUSED}, orphans=())
GOOD = Summary(look(RETIRED), CLEAN)


def test_a_run_in_which_all_is_well_holds_every_promise() -> None:
    assert GOOD.held
    assert set(GOOD.promises.values()) == {True}


@pytest.mark.parametrize(
    ("broken", "run"),
    [
        ("logins were rotated", replace(GOOD, board=look(standing(Generation(1, FIRST, Stage.CURRENT), completed=0)))),
        ("no login was refused", replace(GOOD, board=look(RETIRED, tally=Tally(accepted=9, refused=1)))),
        ("no login was refused", replace(GOOD, board=look(RETIRED, tally=Tally()))),
        ("every login reached the database", replace(GOOD, board=look(RETIRED, tally=Tally(accepted=9, unreachable=1)))),
        ("no open session was broken", replace(GOOD, board=look(RETIRED, tally=Tally(accepted=9, broken=1)))),
        ("what Vercel holds logs in", replace(GOOD, findings=replace(CLEAN, held={SECOND: Answer.UNREACHABLE}))),
        ("what is in grace logs in", replace(GOOD, findings=replace(CLEAN, in_grace={FIRST: Answer.REFUSED}))),
        ("what is retired is refused", replace(GOOD, findings=replace(CLEAN, retired={FIRST: Answer.ACCEPTED}))),
        ("every retired login was tried", replace(GOOD, findings=replace(CLEAN, retired={}))),
        ("no login was left behind", replace(GOOD, findings=replace(CLEAN, orphans=("orders_g3",)))),
    ],
)
def test_each_promise_is_broken_by_what_contradicts_it(broken: str, run: Summary) -> None:
    assert run.promises[broken] is False
    assert not run.held


def test_a_run_that_was_too_short_need_not_have_rotated() -> None:
    assert Summary(look(BEFORE, elapsed=3), replace(CLEAN, retired={})).held


def test_the_figures_say_how_much_was_tried() -> None:
    figures = Summary(look(RETIRED, tally=Tally(7, 1, 2, 30, 4, 5)), CLEAN).figures()

    assert (figures["logins_tried"], figures["logins_refused"], figures["connection_errors"]) == (10, 1, 2)
    assert (figures["rotations"], figures["retirements_proved"], figures["orphan_logins"]) == (1, 1, 0)


def test_a_login_is_an_orphan_unless_the_store_says_that_it_lives() -> None:
    assert orphans([FIRST, SECOND, "orders_g3"], [RETIRED]) == (FIRST, "orders_g3")
    assert orphans([FIRST, SECOND], [ROTATED]) == ()


def test_what_changed_between_two_looks_is_told_in_sentences() -> None:
    assert changes(None, look(BEFORE)) == ()
    assert changes(look(BEFORE), look(ROTATED)) == (
        "orders: generation 1 keeps working for 8s",
        "orders: generation 2 logs in, Vercel holds it",
    )
    assert changes(look(ROTATED), look(ROTATED, deployed=SECOND)) == ("orders: the customer redeployed and uses generation 2",)
    assert changes(look(ROTATED), look(RETIRED)) == ("orders: generation 1 is gone, the database refused it",)


def test_what_went_wrong_is_told_too() -> None:
    failed = replace(BEFORE, failed=1, problem="the server is down")

    assert changes(look(BEFORE), look(failed)) == ("orders: a rotation failed: the server is down",)
    assert changes(look(BEFORE), look(BEFORE, tally=Tally(accepted=9, refused=1))) == ("orders: A LOGIN WAS REFUSED",)


def drawn(*standings: Standing, worker: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=80, height=24, color_system=None)
    seconds = timedelta(seconds=20), timedelta(seconds=15)
    news = [f"orders: something happened, number {number}" for number in range(40)]
    picture = display.board(replace(look(*standings), worker=worker), news, every=seconds[0], grace=seconds[1], until=timedelta(seconds=90))
    with console.capture() as captured:
        console.print(picture)
    return captured.get().splitlines()


@pytest.mark.parametrize("count", [1, 5, 10])
def test_the_board_fits_a_terminal_of_80_columns_and_24_lines(count: int) -> None:
    lines = drawn(*(replace(ROTATED, name=f"resource{number}") for number in range(count)))

    assert len(lines) < 24
    assert max(len(line) for line in lines) <= 80
    assert "number 39" in "".join(lines)


def test_the_board_shows_each_resource_with_its_grace_counting_down() -> None:
    (row,) = [line for line in drawn(ROTATED) if line.startswith("orders ")]

    assert row.split() == ["orders", "resource", "2", "next", "in", "12s", "1", "ends", "8s", "9", "0"]


def test_the_board_says_which_worker_to_kill_for_a_try() -> None:
    text = "".join(drawn(ROTATED, worker=4_194_304))

    assert "Ctrl-C ends it" in text
    assert "kill -9 4194304 (a worker); nothing is lost." in text


@pytest.mark.parametrize(
    ("generations", "shown"),
    [
        ((Generation(1, FIRST, Stage.BLOCKED),), "1 blocked"),
        ((Generation(1, FIRST, Stage.PREVIOUS, NOON - timedelta(seconds=1)),), "1 still used"),
        ((Generation(1, FIRST, Stage.PREVIOUS),), "1 held"),
        ((Generation(2, SECOND, Stage.BLOCKED), Generation(1, FIRST, Stage.BLOCKED)), "1 blocked, 2 bl"),
    ],
)
def test_the_board_says_what_holds_an_old_login_back(generations: tuple[Generation, ...], shown: str) -> None:
    assert any(shown in line for line in drawn(standing(*generations, state=RotationState.OFFERED)))


def test_a_promise_that_was_broken_stands_out_in_the_summary() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with console.capture() as captured:
        console.print(display.summary(replace(GOOD, findings=replace(CLEAN, orphans=("orders_g3",)))))
    text = captured.get()

    assert "BROKEN  no login was left behind" in text
    assert "orphan logins 1" in text


def test_one_line_says_the_same_where_there_is_no_terminal() -> None:
    assert display.line(look(ROTATED)) == "  30s  rotations 1, retirements proved 0, in grace 1, logins accepted 9, refused 0"


def test_boards_of_several_resources_add_up() -> None:
    board = look(ROTATED, replace(RETIRED, name="mail"))

    assert (board.rotations, board.retirements, board.in_grace, board.total.accepted) == (2, 1, 1, 18)
