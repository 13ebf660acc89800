"""The safeguards of the protocol, each with a way to leave it out. A proof that misses one of these mutants proves nothing about it.

A mutant replaces functions while it is on; the code in `rotation/` stays as it is. Those that a store or a database keeps are left
out of the simulated ones, which the contract tests hold to what the real ones do.
"""

# ruff: noqa: ANN401, PLR0917 - a replacement takes what the function takes in whose place it stands
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rotation import driver, endings, generations, lifecycle, policy, requests, retirement
from rotation.cases import AttemptTerms, Deadline, Move
from rotation.engines.server_clocks import ServerClocks
from rotation.errors import Refused
from rotation.model import Event, Login, PushVerdict
from rotation.states import RotationState, Stage
from tests.fakes.engine import FakeEngine
from tests.fakes.store import FakeStore
from tests.fakes.store_memory import Hold, Memory
from tests.fakes.store_moves import Moves
from tests.simulation.clocks import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from rotation.cases import CredentialCase, RotationCase
    from rotation.model import Attempt, Credential, PushOutcome, Resource
    from rotation.ports import Ports

FAR = Deadline(1e9)
"""In thirty years."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """One function of an object, or entry of a dict, and what stands in its place."""

    owner: Any
    name: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Mutant:
    """One safeguard left out. `what` says which; `replacements` how; `argued` why no world can show it, and what holds it instead."""

    name: str
    what: str
    replacements: tuple[Replacement, ...]
    argued: str = ""

    @contextmanager
    def on(self) -> Iterator[None]:
        """The safeguard is left out inside this block."""
        with ExitStack() as undo:
            for one in self.replacements:
                undo.callback(_put, one.owner, one.name, _put(one.owner, one.name, one.value))
            yield


def _put(owner: Any, name: Any, value: Any) -> Any:
    if isinstance(owner, dict):
        before, owner[name] = owner[name], value
        return before
    before = owner.__dict__[name]
    setattr(owner, name, value)
    return before


def step(state: RotationState, act: Callable[..., object]) -> Replacement:
    return Replacement(lifecycle.STEPS, state, act)


# -- the intent, the claim, the deadline


def _pushes_before_it_is_offered(case: RotationCase, ports: Ports) -> object:
    login = Login(case.credential.username, lifecycle._open(case, case.credential, "password", ports))
    secrets = ports.sink.render(case.resource, login)
    ports.sink.push(case.resource, case.installation, secrets, lambda: True, driver.call_deadline(case, ports))
    return OFFERED(case, ports)


OFFERED = lifecycle._offered


def _held_whatever_the_fence(self: FakeStore, case: RotationCase) -> object:
    return self.rotations[case.rotation.id]


def _records_whatever_the_fence(self: FakeStore, case: CredentialCase, decision: object) -> object:
    row = self.credentials[case.credential.id]
    return RECORD_CREDENTIAL(self, replace(case, credential=row, claim=replace(case.claim, fence=row.fence)), decision)  # type: ignore[arg-type]


RECORD_CREDENTIAL = FakeStore.record_credential


def _places_whatever_the_fence(
    draft: Any,
    row: Any,
    value: Any,
    claimed: Any,
    places: object,
) -> int:
    if row is None or (claimed is not None and row.id == claimed.id):
        return int(value.fence if row is None else row.fence)
    draft.released.add(row.id)
    return int(row.fence) + 1


def _acts_however_late(*_: object) -> datetime:
    return START + timedelta(seconds=FAR.at)


# -- attempts and what Vercel may hold


def _gives_up(case: RotationCase, attempt: Attempt, outcome: PushOutcome, now: Any, ports: Ports) -> object:
    if outcome.verdict is PushVerdict.UNKNOWN and not endings.superseding(case) and not case.pushes_again:
        return endings.fail(case, ports, "no answer", "", attempt=attempt)
    return AFTER_PUSH(case, attempt, outcome, now, ports)


AFTER_PUSH = endings.after_push


def _completes_unsettled(case: RotationCase, attempt: Attempt, now: Any, ports: Any = None) -> object:
    return endings._complete(case, attempt, now)


def _forgets_the_server(ports: Ports) -> AttemptTerms:
    return AttemptTerms(send_within=ports.terms.call_deadline, travels_for=timedelta(0))


def _believes_one_404(case: RotationCase, attempt: Attempt, now: Any, ports: Ports) -> object:
    return MISSING(replace(case, rotation=replace(case.rotation, missing_since=now - timedelta(days=1))), attempt, now, ports)


MISSING = endings._missing


# -- what a grace is


def _grace_from_the_offer(case: RotationCase, attempt: Attempt, now: Any) -> object:
    return COMPLETE(case, attempt, case.rotation.offered_at or now)


COMPLETE = endings._complete


def _shortens(credential: Credential, completed_at: Any, grace: policy.Grace) -> policy.Dated:
    return GRACE_END(credential, completed_at, replace(grace, explicit=True))


GRACE_END = policy.grace_end


def _discards_at_once(credential: Credential, at: Any) -> Credential:
    return DISCARDED(credential, at - timedelta(seconds=45))


DISCARDED = generations.discarded


def _clock_goes_on(credential: Credential, now: Any) -> Credential:
    return replace(PASSED_OVER(credential, now), grace_ends_at=now, due_at=now)


PASSED_OVER = generations.passed_over


# -- the databases


def _verifies_nothing(self: FakeEngine, *_: object) -> None:
    return None


def _admits_over_anybody(
    self: FakeEngine,
    resource: Resource,
    credential: Credential,
    verifier: Any,
    like: str | None,
    deadline: Deadline,
) -> object:
    place = self.server(resource.server.name)
    known = place.roles.get(credential.username)
    if known is not None:
        place.roles[credential.username] = replace(known, marker=self._sealer.mark(credential.id))
    return ADMIT(self, resource, credential, verifier, like, deadline)


ADMIT = FakeEngine.admit


def _withdraws_anybody(self: FakeEngine, resource: Resource, credential: Credential, keep: Any, deadline: Deadline) -> object:
    return WITHDRAW(self, resource, replace(credential, adopted=True), keep, deadline)


WITHDRAW = FakeEngine.withdraw


def _proves_nothing(self: FakeEngine, *_: object) -> None:
    return None


def _withdraws_without_ending_sessions(
    self: FakeEngine,
    resource: Resource,
    credential: Credential,
    keep: Any,
    deadline: Deadline,
) -> object:
    place = self.server(resource.server.name)
    sessions = place.sessions
    result = WITHDRAW(self, resource, credential, keep, deadline)
    place.sessions = sessions
    return result


# -- the store


def _unique_is_not_checked(self: Memory, draft: object) -> None:
    return None


def _sometimes_not_recorded(self: Memory, chain: str, event: Any, *subjects: Any) -> None:
    """The event is written in a transaction of its own, before whose commit somebody dies now and then."""
    self._lengths[chain] += 1
    if self._lengths[chain] % 23:
        self._lengths[chain] -= 1
        APPEND(self, chain, event, *subjects)


APPEND = Memory._append


def _never_free(self: Hold, now: Any) -> bool:
    return self.claimed_until is None


def _hinted_for_ever(self: Hold, now: Any) -> bool:
    return self.hinted_until is not None


def _clean_whatever_travels(self: Moves, draft: Any, rotation: Any, terms: AttemptTerms) -> None:
    INSERT_ATTEMPT(self, draft, rotation, terms)
    for attempt_id, attempt in list(draft.attempts.items()):
        draft.attempts[attempt_id] = replace(attempt, clean=True)


INSERT_ATTEMPT = Moves._insert_attempt


# -- requests and the end of a resource


def _joins_what_is_offered(case: Any, asked: Any, ports: Ports) -> object:
    rotation = case.open_rotation
    if rotation is None or rotation.state is not RotationState.OFFERED or case.keyed_request is not None:
        return RECEIVE(case, asked, ports)
    requests._refuse_unless_active(case.resource)
    return requests._join(case, rotation, requests.new_request(case, asked, ports), asked)


RECEIVE = requests._receive


def _departs_alone(*arguments: Any, **keywords: Any) -> tuple[Credential, ...]:
    changed = DEPARTURE(*arguments, **keywords)
    return tuple(one for one in changed if one.stage is not Stage.BLOCKED)


DEPARTURE = generations.departure


def _unblocks_once(case: CredentialCase, until: Any, ports: Ports) -> object:
    credential = case.credential
    retirement._engine(case, ports).unblock(case.resource, credential, driver.call_deadline(case, ports))
    unblocked = replace(credential, unblock_until=None, due_at=credential.grace_ends_at, tries=0, problem="")
    return Move(credentials=(unblocked,), event=Event("credential_unblocked", retirement.ACTOR))


def _loses_every_answer(story: Any, case: Any, decision: Any, lost: Any, ports: Any) -> object:
    raise lost


def _removes_what_was_offered(case: RotationCase, error: Any, ports: Ports) -> object:
    if isinstance(error, Refused) and case.rotation.state is RotationState.OFFERED and not case.pushes_again:
        return endings.fail(case, ports, str(error), "")
    return ON_ERROR(case, error, ports)


ON_ERROR = lifecycle.on_error


def mutants() -> Mapping[str, Mutant]:
    """All of them, by name."""
    every = (
        Mutant(
            "no-intent",
            "the intent to push is on record before it is pushed",
            (Replacement(lifecycle, "_offered", _pushes_before_it_is_offered),),
        ),
        Mutant(
            "no-fence",
            "a write counts only under the newest fence",
            (
                Replacement(FakeStore, "_still_held", _held_whatever_the_fence),
                Replacement(FakeStore, "record_credential", _records_whatever_the_fence),
                Replacement(Moves, "_next_fence", staticmethod(_places_whatever_the_fence)),
            ),
        ),
        Mutant(
            "no-last-check", "the claim is looked at right before the first byte", (Replacement(FakeStore, "may_send", lambda *_: True),)
        ),
        Mutant("no-deadline", "a call ends by its deadline", (Replacement(driver, "call_deadline", lambda *_: FAR),)),
        Mutant(
            "late-acts", "an act on a database that comes late refuses itself", (Replacement(ServerClocks, "limit", _acts_however_late),)
        ),
        Mutant(
            "no-attempts", "that every push was refused is read from the attempts", (Replacement(endings, "_MAYBE_APPLIED", frozenset()),)
        ),
        Mutant("drops-after-unknown", "after an unknown push the new login is kept", (Replacement(endings, "after_push", _gives_up),)),
        Mutant(
            "no-settling",
            "an acknowledgement counts when no other value is on its way",
            (Replacement(endings, "_settle", _completes_unsettled),),
        ),
        Mutant(
            "always-clean",
            "an attempt knows whether another value was on its way",
            (Replacement(Moves, "_insert_attempt", _clean_whatever_travels),),
        ),
        Mutant("no-allowance", "a push may arrive after we gave it up", (Replacement(lifecycle, "_attempt_terms", _forgets_the_server),)),
        Mutant("one-404", "a resource is gone when Vercel has said so twice", (Replacement(endings, "_missing", _believes_one_404),)),
        Mutant(
            "grace-from-offer", "grace counts from the clean acknowledgement", (Replacement(endings, "_complete", _grace_from_the_offer),)
        ),
        Mutant("shortens-grace", "a schedule never shortens a grace", (Replacement(policy, "grace_end", _shortens),)),
        Mutant("never-early", "nothing is blocked before its grace is over", (Replacement(retirement, "_too_early", lambda *_: None),)),
        Mutant("one-clock", "clocks must agree where a grace begins or ends", (Replacement(driver, "clocks_disagree", lambda *_: None),)),
        Mutant(
            "discards-at-once",
            "a failed login is removed when nobody can still be making it",
            (Replacement(generations, "discarded", _discards_at_once),),
        ),
        Mutant(
            "clock-of-superseded",
            "the clock of a superseded login stands still",
            (Replacement(generations, "passed_over", _clock_goes_on),),
        ),
        Mutant("no-verification", "what is pushed was logged in with", (Replacement(FakeEngine, "check", _verifies_nothing),)),
        Mutant(
            "admits-strangers",
            "a login of that name without our marker is somebody else's",
            (Replacement(FakeEngine, "admit", _admits_over_anybody),),
        ),
        Mutant(
            "withdraws-strangers", "only a login with our marker is removed", (Replacement(FakeEngine, "withdraw", _withdraws_anybody),)
        ),
        Mutant("no-proof", "retired means proved", (Replacement(FakeEngine, "prove_refused", _proves_nothing),)),
        Mutant(
            "no-unique-index",
            "one open rotation a resource",
            (Replacement(Memory, "_check_unique", _unique_is_not_checked),),
            argued="a transaction of the simulated store is one instant; tests/integration/test_store_races.py holds it on real ones",
        ),
        Mutant("audit-apart", "a move and its event are one transaction", (Replacement(Memory, "_append", _sometimes_not_recorded),)),
        Mutant("claims-for-ever", "a claim ends by itself", (Replacement(Hold, "free", _never_free),)),
        Mutant("hints-for-ever", "what was sent and not taken is sent again", (Replacement(Hold, "hinted", _hinted_for_ever),)),
        Mutant(
            "joins-the-offered",
            "only a push that comes after a request answers it",
            (Replacement(requests, "_receive", _joins_what_is_offered),),
        ),
        Mutant(
            "departs-alone",
            "who removes a leaving resource's last login looks again",
            (Replacement(generations, "departure", _departs_alone),),
        ),
        Mutant(
            "unblocks-once",
            "a login that was let in again is let in once more",
            (Replacement(retirement, "_unblock", _unblocks_once),),
            argued="few worlds ask within the seconds for which a block is late; tests/unit/test_regressions_of_retirement.py drives it",
        ),
        Mutant(
            "heals-unannounced",
            "nobody removes a login while somebody may be making it again",
            (Replacement(retirement, "_mended", lambda _: None),),
            argued="few worlds retire a login within the seconds for which its healing is late; tests/unit/test_healer.py drives it",
        ),
        Mutant(
            "retires-the-just-made",
            "no login is called retired while a message that makes it may be on its way",
            (Replacement(retirement, "_just_made", lambda *_: None),),
            argued="one world of 100,000 retires a login that young; tests/unit/test_regressions_of_retirement.py drives it",
        ),
        Mutant(
            "wakes-unaware",
            "a machine that slept knows it at its first reading of a server's clock",
            (Replacement(ServerClocks, "_slept", lambda _: timedelta(0)),),
            argued="one world of 100,000 sleeps before its first reading; tests/unit/test_server_clocks.py drives it",
        ),
        Mutant("fails-the-superseding", "what went past another must complete", (Replacement(endings, "superseding", lambda _: False),)),
        Mutant(
            "forgets-answers",
            "what is known of an attempt is kept when a record is outdated",
            (Replacement(driver, "_look_again", _loses_every_answer),),
        ),
    )
    return {one.name: one for one in every}
