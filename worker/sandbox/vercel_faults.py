"""The script of faults of the local Vercel: what to do to the next requests instead of answering them properly."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable


class FaultKind(StrEnum):
    """What happens to a request."""

    ANSWER = "answer"
    """It is answered with `status`, whatever it came to."""
    HANG = "hang"
    """It is not answered: after `seconds` the connection is closed."""
    DRIP = "drip"
    """Its answer comes one byte every `seconds`."""
    RESET = "reset"
    """The connection is reset instead of an answer."""
    DELAY = "delay"
    """It is worked on after `seconds`, also when the caller is gone by then."""
    HUGE = "huge"
    """Its answer has a body of `size` bytes."""
    TRUNCATE = "truncate"
    """Its answer ends before the body that it announced."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid", strict=True))
class ScriptedFault:
    """One fault, for `times` requests (None: until the script is changed) that match.

    `applies` says whether the values of a push are taken over (if it is well formed) before the fault shows. `installation` and
    `resource` (the provider's id) None match all; only requests with `method` that name a resource match.
    """

    kind: FaultKind
    status: int = 201
    applies: bool = True
    seconds: float = 0.0
    size: int = 1024 * 1024
    times: int | None = 1
    installation: str | None = None
    resource: str | None = None
    method: str = "PUT"
    code: str = "scripted"

    def matches(self, method: str, installation: str, resource: str) -> bool:
        """Whether this fault is meant for the request."""
        return method == self.method and self.installation in {None, installation} and self.resource in {None, resource}


def faults_to_json(faults: Iterable[ScriptedFault]) -> list[dict[str, object]]:
    """A script of faults as it travels to another process."""
    return [asdict(fault) for fault in faults]


def faults_from_json(text: bytes) -> list[ScriptedFault]:
    """Read a script of faults that came from another process. Raises `ValueError` for anything that is not one."""
    return _SCRIPT.validate_json(text)


def answered(status: int, *, applies: bool, times: int | None = 1, code: str = "scripted") -> ScriptedFault:
    """Answered with this status: a refusal, a 5xx, or the wrong 2xx, before or after the values were taken over."""
    return ScriptedFault(FaultKind.ANSWER, status, applies, times=times, code=code)


def hung(seconds: float, *, applies: bool, times: int | None = 1) -> ScriptedFault:
    """Never answered; closed after `seconds`."""
    return ScriptedFault(FaultKind.HANG, applies=applies, seconds=seconds, times=times)


def reset(*, applies: bool, times: int | None = 1) -> ScriptedFault:
    """The connection is reset."""
    return ScriptedFault(FaultKind.RESET, applies=applies, times=times)


def dripped(seconds: float, *, times: int | None = 1) -> ScriptedFault:
    """Applied, and answered one byte every `seconds`."""
    return ScriptedFault(FaultKind.DRIP, seconds=seconds, times=times)


def delayed(seconds: float, *, times: int | None = 1) -> ScriptedFault:
    """Applied and answered, but late."""
    return ScriptedFault(FaultKind.DELAY, seconds=seconds, times=times)


_SCRIPT = TypeAdapter(list[ScriptedFault])
