"""What every engine promises, held against the one in memory and against real PostgreSQL of each version at hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING

import pytest

from rotation.errors import LostClaim, NameClash, Refused, Unavailable
from rotation.model import APPLICATION_NAME, Credential, Login, Minted, RenderedSecret, Resource
from rotation.sensitive import Sensitive
from tests.engine_worlds import FakeWorld, RealWorld
from tests.postgresql_servers import BINARIES
from tests.postgresql_tenants import credential_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine_worlds import World

FOREIGN = Login("Old App-Login", Sensitive("chosen by a person long ago"))


@pytest.fixture(params=["fake", *sorted(BINARIES)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    real = RealWorld(request.getfixturevalue("postgresql_versions")[request.param])
    yield real
    real.engine.close()


def admitted(world: World, resource: Resource, generation: int, like: str | None = None) -> tuple[Credential, Minted, Login]:
    minted = world.engine.mint(resource, generation, world.entropy)
    credential = credential_of(resource, minted, generation)
    world.engine.admit(resource, credential, minted.verifier, like, world.deadline())
    return credential, minted, Login(minted.username, minted.password)


def url(resource: Resource, login: Login, *, host: str = "", port: int = 0, database: str = "") -> RenderedSecret:
    place = f"{host or resource.server.host}:{port or resource.server.port}/{database or resource.spec.database.name}"
    return RenderedSecret("DATABASE_URL", Sensitive(f"postgresql://{login.username}:{login.password.reveal()}@{place}"))


def test_minting_needs_no_database_and_never_makes_a_name_twice(world: World) -> None:
    resource = world.new_resource()

    made = [world.engine.mint(resource, 3, world.entropy) for _ in range(50)]

    assert len({one.username for one in made}) == 50
    assert len({one.password.reveal() for one in made}) == 50
    for one in made:
        assert one.username.startswith(f"{resource.spec.database.login_prefix}_g3_")
        assert len(one.username) <= 63
        assert len(one.password) == resource.spec.password_length
        assert one.password.reveal().isalnum()
        assert one.password.reveal() not in one.verifier.reveal()


def test_a_password_is_as_long_as_the_policy_says_and_never_shorter_than_safe(world: World) -> None:
    resource = world.new_resource()
    longer = replace(resource, spec=replace(resource.spec, password_length=64))
    shorter = replace(resource, spec=replace(resource.spec, password_length=31))

    assert len(world.engine.mint(longer, 1, world.entropy).password) == 64
    with pytest.raises(Refused):
        world.engine.mint(shorter, 1, world.entropy)


def test_a_prefix_that_would_need_quoting_is_refused(world: World) -> None:
    resource = world.new_resource()
    for prefix in ("Orders", "1st", "a-b", "x" * 41, ""):
        bad = replace(resource, spec=replace(resource.spec, database=replace(resource.spec.database, login_prefix=prefix)))
        with pytest.raises(Refused):
            world.engine.mint(bad, 1, world.entropy)


def test_an_admitted_login_gets_in_with_the_password_behind_its_verifier(world: World) -> None:
    resource = world.new_resource()
    _, minted, login = admitted(world, resource, 1)

    assert world.logs_in(resource, login)
    assert not world.logs_in(resource, Login(minted.username, Sensitive("x" * 32)))


def test_admitting_twice_is_admitting_once(world: World) -> None:
    resource = world.new_resource()
    credential, minted, login = admitted(world, resource, 1)

    world.engine.admit(resource, credential, minted.verifier, None, world.deadline())

    assert world.logs_in(resource, login)
    assert [one.credential_id for one in world.engine.list_logins(resource.server, world.deadline())].count(credential.id) == 1


def test_admitting_again_heals_a_login_that_was_lost_or_blocked(world: World) -> None:
    resource = world.new_resource()
    credential, minted, login = admitted(world, resource, 1)

    world.engine.block(resource, credential, world.deadline())
    world.engine.admit(resource, credential, minted.verifier, None, world.deadline())
    assert world.logs_in(resource, login)

    world.engine.withdraw(resource, credential, (), world.deadline())
    world.engine.admit(resource, credential, minted.verifier, None, world.deadline())
    assert world.logs_in(resource, login)


def test_both_generations_get_in_and_the_new_one_is_like_the_old(world: World) -> None:
    resource = world.new_resource()
    _, _, old = admitted(world, resource, 1)
    _, _, new = admitted(world, resource, 2, like=old.username)

    assert world.logs_in(resource, old)
    assert world.logs_in(resource, new)
    assert world.engine.parity(resource, new.username, old.username, world.deadline()) == ()


def test_a_login_that_is_to_be_like_one_that_is_gone_waits_for_it(world: World) -> None:
    resource = world.new_resource()
    minted = world.engine.mint(resource, 2, world.entropy)

    with pytest.raises(Unavailable):
        world.engine.admit(resource, credential_of(resource, minted, 2), minted.verifier, "nobody", world.deadline())


def test_a_login_that_waited_for_one_that_is_gone_can_be_like_another_instead(world: World) -> None:
    resource = world.new_resource()
    _, _, other = admitted(world, resource, 1)
    minted = world.engine.mint(resource, 2, world.entropy)
    credential = credential_of(resource, minted, 2)
    with pytest.raises(Unavailable):
        world.engine.admit(resource, credential, minted.verifier, "nobody", world.deadline())

    assert world.engine.admit(resource, credential, minted.verifier, other.username, world.deadline()) == ()

    assert world.logs_in(resource, Login(minted.username, minted.password))


def test_parity_with_a_login_that_does_not_exist_is_a_fault(world: World) -> None:
    resource = world.new_resource()
    _, _, login = admitted(world, resource, 1)

    assert world.engine.parity(resource, login.username, "nobody", world.deadline())
    assert world.engine.parity(resource, "nobody", login.username, world.deadline())


def test_somebody_elses_login_of_that_name_is_a_clash_and_left_alone(world: World) -> None:
    resource = world.new_resource()
    minted = world.engine.mint(resource, 1, world.entropy)
    theirs = Login(minted.username, Sensitive("theirs, not ours"))
    world.add_login(resource, theirs)
    credential = credential_of(resource, minted, 1)

    with pytest.raises(Refused):
        world.engine.admit(resource, credential, minted.verifier, None, world.deadline())
    with pytest.raises(Refused):
        world.engine.withdraw(resource, credential, (), world.deadline())

    assert world.logs_in(resource, theirs)


def test_a_login_of_another_credential_is_a_clash_and_left_alone(world: World) -> None:
    resource = world.new_resource()
    _, minted, login = admitted(world, resource, 1)
    other = credential_of(resource, minted, 1, credential_id="another credential")

    with pytest.raises(Refused):
        world.engine.admit(resource, other, minted.verifier, None, world.deadline())
    with pytest.raises(Refused):
        world.engine.withdraw(resource, other, (), world.deadline())

    assert world.logs_in(resource, login)


def test_what_will_be_pushed_is_logged_in_with(world: World) -> None:
    resource = world.new_resource()
    _, _, login = admitted(world, resource, 1)

    world.engine.check(resource, login, (url(resource, login),), world.deadline())
    world.engine.check(resource, login, (), world.deadline())


def test_a_login_that_is_refused_fails_the_check(world: World) -> None:
    resource = world.new_resource()
    _, minted, _ = admitted(world, resource, 1)
    wrong = Login(minted.username, Sensitive("x" * 32))

    with pytest.raises(Refused):
        world.engine.check(resource, wrong, (url(resource, wrong),), world.deadline())


def test_a_url_that_names_another_place_or_login_fails_the_check(world: World) -> None:
    resource = world.new_resource()
    _, _, login = admitted(world, resource, 1)
    other = Login("somebody_else", login.password)

    for wrong in (
        url(resource, login, host="evil.example.com"),
        url(resource, login, port=1),
        url(resource, login, database="another"),
        url(resource, other),
        url(resource, Login(login.username, Sensitive("x" * 32))),
    ):
        with pytest.raises(Refused):
            world.engine.check(resource, login, (wrong,), world.deadline())


def test_blocking_shuts_the_door_and_unblocking_opens_it(world: World) -> None:
    resource = world.new_resource()
    credential, _, login = admitted(world, resource, 1)

    for _ in range(2):
        world.engine.block(resource, credential, world.deadline())
        assert not world.logs_in(resource, login)
    for _ in range(2):
        world.engine.unblock(resource, credential, world.deadline())
        assert world.logs_in(resource, login)


def test_a_login_that_is_absent_counts_as_blocked_but_cannot_be_unblocked(world: World) -> None:
    resource = world.new_resource()
    nobody = credential_of(resource, world.engine.mint(resource, 1, world.entropy), 1)

    world.engine.block(resource, nobody, world.deadline())
    with pytest.raises(Refused):
        world.engine.unblock(resource, nobody, world.deadline())


def test_a_login_of_somebody_else_is_neither_blocked_nor_unblocked(world: World) -> None:
    resource = world.new_resource()
    credential, _, login = admitted(world, resource, 1)
    world.engine.withdraw(resource, credential, (), world.deadline())
    world.add_login(resource, login)

    for act in (world.engine.block, world.engine.unblock):
        with pytest.raises(NameClash):
            act(resource, credential, world.deadline())
    assert world.logs_in(resource, login)

    _, _, marked = admitted(world, resource, 2)
    another = credential_of(resource, marked, 2, credential_id="another credential")
    with pytest.raises(NameClash):
        world.engine.block(resource, another, world.deadline())
    assert world.logs_in(resource, marked)


def test_an_adopted_login_is_blocked_and_unblocked_without_a_mark(world: World) -> None:
    resource = world.new_resource()
    world.add_login(resource, FOREIGN)
    adopted = credential_of(resource, FOREIGN, 1, adopted=True)

    world.engine.block(resource, adopted, world.deadline())
    assert not world.logs_in(resource, FOREIGN)
    world.engine.unblock(resource, adopted, world.deadline())
    assert world.logs_in(resource, FOREIGN)


def test_open_sessions_go_on_while_blocked_and_end_with_the_login(world: World) -> None:
    resource = world.new_resource()
    credential, _, login = admitted(world, resource, 1)

    with world.session(resource, login):
        world.engine.block(resource, credential, world.deadline())
        assert login.username in {one.username for one in world.engine.usage(resource.server, world.deadline())}
        world.engine.withdraw(resource, credential, (), world.deadline())
        assert login.username not in {one.username for one in world.engine.usage(resource.server, world.deadline())}
    assert not world.logs_in(resource, login)


def test_withdrawing_twice_is_withdrawing_once_and_leaves_the_others(world: World) -> None:
    resource = world.new_resource()
    old_credential, _, old = admitted(world, resource, 1)
    _, _, new = admitted(world, resource, 2, like=old.username)

    for _ in range(2):
        world.engine.withdraw(resource, old_credential, (new.username,), world.deadline())

    assert not world.logs_in(resource, old)
    assert world.logs_in(resource, new)


def test_an_adopted_login_is_removed_without_a_mark(world: World) -> None:
    resource = world.new_resource()
    world.add_login(resource, FOREIGN)
    world.engine.adopt(resource, FOREIGN.username, world.deadline(), dry_run=False)
    credential = credential_of(resource, FOREIGN, 1, adopted=True)

    world.engine.withdraw(resource, credential, (), world.deadline())

    assert not world.logs_in(resource, FOREIGN)


def test_an_adopted_login_hands_on_what_it_may_do(world: World) -> None:
    resource = world.new_resource()
    world.add_login(resource, FOREIGN)

    planned = world.engine.adopt(resource, FOREIGN.username, world.deadline(), dry_run=True)
    assert planned
    assert world.engine.adopt(resource, FOREIGN.username, world.deadline(), dry_run=False) == planned
    assert world.engine.adopt(resource, FOREIGN.username, world.deadline(), dry_run=False) == ()

    _, _, new = admitted(world, resource, 2, like=FOREIGN.username)
    assert world.engine.parity(resource, new.username, FOREIGN.username, world.deadline()) == ()
    assert world.logs_in(resource, FOREIGN)


def test_before_adoption_nothing_is_on_a_par_with_a_foreign_login(world: World) -> None:
    resource = world.new_resource()
    world.add_login(resource, FOREIGN)
    minted = world.engine.mint(resource, 2, world.entropy)
    credential = credential_of(resource, minted, 2)

    differences = world.engine.admit(resource, credential, minted.verifier, FOREIGN.username, world.deadline())

    assert differences == world.engine.parity(resource, minted.username, FOREIGN.username, world.deadline()) != ()


def test_a_login_that_was_made_like_another_differs_in_nothing_at_once_and_when_it_is_mended(world: World) -> None:
    resource = world.new_resource()
    _, _, old = admitted(world, resource, 1)
    minted = world.engine.mint(resource, 2, world.entropy)
    credential = credential_of(resource, minted, 2)

    assert world.engine.admit(resource, credential, minted.verifier, old.username, world.deadline()) == ()
    assert world.engine.admit(resource, credential, minted.verifier, old.username, world.deadline()) == ()


def test_a_removed_login_is_proved_dead(world: World) -> None:
    resource = world.new_resource()
    credential, _, old = admitted(world, resource, 1)
    _, _, new = admitted(world, resource, 2, like=old.username)
    world.engine.withdraw(resource, credential, (new.username,), world.deadline())

    world.engine.prove_refused(resource, old, new, world.deadline())
    world.engine.prove_refused(resource, old, None, world.deadline())


def test_a_login_that_is_blocked_and_still_there_is_not_proved_dead(world: World) -> None:
    resource = world.new_resource()
    credential, _, old = admitted(world, resource, 1)
    _, _, new = admitted(world, resource, 2, like=old.username)
    world.engine.block(resource, credential, world.deadline())

    with pytest.raises(Unavailable):
        world.engine.prove_refused(resource, old, new, world.deadline())


def test_a_login_that_still_gets_in_is_not_proved_dead(world: World) -> None:
    resource = world.new_resource()
    _, _, old = admitted(world, resource, 1)
    _, _, new = admitted(world, resource, 2, like=old.username)

    with pytest.raises(Refused):
        world.engine.prove_refused(resource, old, new, world.deadline())
    # With another password it is refused, and still alive.
    with pytest.raises(Refused):
        world.engine.prove_refused(resource, Login(old.username, Sensitive("x" * 32)), new, world.deadline())


def test_nothing_is_proved_while_a_session_is_left(world: World) -> None:
    resource = world.new_resource()
    credential, _, old = admitted(world, resource, 1)
    _, _, new = admitted(world, resource, 2, like=old.username)

    with world.session(resource, old):
        world.engine.block(resource, credential, world.deadline())
        with pytest.raises(Unavailable):
            world.engine.prove_refused(resource, old, new, world.deadline())


def test_nothing_is_proved_when_the_control_is_refused_too(world: World) -> None:
    resource = world.new_resource()
    credential, _, old = admitted(world, resource, 1)
    world.engine.withdraw(resource, credential, (), world.deadline())

    with pytest.raises(Unavailable):
        world.engine.prove_refused(resource, old, Login("nobody", Sensitive("x" * 32)), world.deadline())


def test_use_shows_who_from_where_how_often_and_since_when_and_leaves_us_out(world: World) -> None:
    resource = world.new_resource()
    _, _, login = admitted(world, resource, 1)

    with world.session(resource, login), world.session(resource, login):
        seen = world.engine.usage(resource.server, world.deadline())

    (mine,) = [one for one in seen if one.username == login.username]
    assert (mine.client, mine.application, mine.count) == ("127.0.0.1", "app", 2)
    assert mine.oldest_at.tzinfo is not None
    assert all(one.application != APPLICATION_NAME for one in seen)


def test_marked_logins_are_listed_and_others_are_not(world: World) -> None:
    resource = world.new_resource()
    world.add_login(resource, FOREIGN)
    credential, _, login = admitted(world, resource, 1)
    world.engine.block(resource, credential, world.deadline())

    listed = {one.username: one for one in world.engine.list_logins(resource.server, world.deadline())}

    assert listed[login.username].credential_id == credential.id
    assert not listed[login.username].can_log_in
    assert FOREIGN.username not in listed


def test_logins_are_found_by_name_with_a_mark_or_without(world: World) -> None:
    resource = world.new_resource()
    world.add_login(resource, FOREIGN)
    credential, _, login = admitted(world, resource, 7)
    names = (FOREIGN.username, login.username, "nobody")

    found = {one.username: one for one in world.engine.find_logins(resource.server, names, world.deadline())}

    assert set(found) == {FOREIGN.username, login.username}
    assert found[login.username].credential_id == credential.id
    assert (found[login.username].prefix, found[login.username].generation) == (resource.spec.database.login_prefix, 7)
    assert found[FOREIGN.username].credential_id is None
    assert found[FOREIGN.username].generation == 0
    assert world.engine.find_logins(resource.server, (), world.deadline()) == ()


def test_an_adopted_login_is_made_again_and_let_in_with_a_verifier_of_its_password(world: World) -> None:
    resource = world.new_resource()
    world.add_login(resource, FOREIGN)
    world.engine.adopt(resource, FOREIGN.username, world.deadline(), dry_run=False)
    adopted = credential_of(resource, FOREIGN, 1, adopted=True)
    verifier = world.engine.verifier(FOREIGN.password, world.entropy)

    world.engine.block(resource, adopted, world.deadline())
    world.engine.admit(resource, adopted, verifier, None, world.deadline())
    assert world.logs_in(resource, FOREIGN)

    world.engine.withdraw(resource, adopted, (), world.deadline())
    world.engine.admit(resource, adopted, verifier, None, world.deadline())
    assert world.logs_in(resource, FOREIGN)
    marked = world.engine.list_logins(resource.server, world.deadline())
    assert [one.credential_id for one in marked if one.username == FOREIGN.username] == [adopted.id]


def test_an_adopted_login_is_let_in_again_whatever_mark_it_carries(world: World) -> None:
    resource = world.new_resource()
    credential, minted, login = admitted(world, resource, 1)
    adopted = credential_of(resource, login, 1, adopted=True, credential_id="a later credential")
    world.engine.block(resource, credential, world.deadline())

    with pytest.raises(Refused):
        world.engine.admit(resource, replace(adopted, adopted=False), minted.verifier, None, world.deadline())
    assert not world.logs_in(resource, login)

    world.engine.admit(resource, adopted, minted.verifier, None, world.deadline())
    assert world.logs_in(resource, login)


def test_a_late_act_changes_nothing(world: World) -> None:
    resource = world.new_resource()
    minted = world.engine.mint(resource, 2, world.entropy)
    credential, _, login = admitted(world, resource, 1)
    new = credential_of(resource, minted, 2)

    with pytest.raises(LostClaim):
        world.engine.admit(resource, new, minted.verifier, None, world.late())
    with pytest.raises(LostClaim):
        world.engine.block(resource, credential, world.late())
    with pytest.raises(LostClaim):
        world.engine.withdraw(resource, credential, (), world.late())

    assert not world.logs_in(resource, Login(minted.username, minted.password))
    assert world.logs_in(resource, login)


def test_a_rehearsal_tells_what_would_be_sent_and_changes_nothing(world: World) -> None:
    resource = world.new_resource()
    _, minted, old = admitted(world, resource, 1)
    new = world.engine.mint(resource, 2, world.entropy)
    before = world.engine.list_logins(resource.server, world.deadline())

    told = world.engine.rehearse(resource, new.username, old.username, world.deadline())

    assert [line for line in told if "CREATE ROLE" in line and new.username in line and "'SCRAM-SHA-256$…'" in line]
    assert [line for line in told if "NOLOGIN" in line and old.username in line]
    assert "DROP ROLE" in told[-1]
    assert old.username in told[-1]
    for secret in (minted.verifier, minted.password, new.verifier, new.password):
        assert not [line for line in told if secret.reveal() in line]
    assert world.engine.list_logins(resource.server, world.deadline()) == before
    assert world.logs_in(resource, old)
    assert not world.logs_in(resource, Login(new.username, new.password))


def test_the_rehearsal_of_a_first_login_removes_none(world: World) -> None:
    resource = world.new_resource()
    username = world.engine.mint(resource, 1, world.entropy).username

    told = world.engine.rehearse(resource, username, None, world.deadline())

    assert username in told[0]
    assert not [line for line in told if "DROP" in line]


def test_a_rehearsal_with_nobody_to_be_like_is_refused(world: World) -> None:
    with pytest.raises(Refused):
        world.engine.rehearse(world.new_resource(), "new", "nobody", world.deadline())


def test_a_rehearsal_that_is_late_is_not_answered(world: World) -> None:
    resource = world.new_resource()
    with pytest.raises(Unavailable):
        world.engine.rehearse(resource, "new", None, world.late())


def test_the_servers_clock_is_read_in_utc(world: World) -> None:
    resource = world.new_resource()
    first = world.engine.clock(resource.server, world.deadline())
    assert first.tzinfo is UTC
    assert world.engine.clock(resource.server, world.deadline()) >= first


def test_a_resource_without_faults_is_ready(world: World) -> None:
    assert world.engine.preflight(world.new_resource(), world.deadline()) == ()


def test_it_says_what_it_can_do(world: World) -> None:
    assert world.engine.capabilities.can_block
    assert world.engine.capabilities.most_generations is None
