"""The store in memory, looked at through the same window as the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from rotation.model import Attempt, Credential, Rotation
    from tests.fakes.store import FakeStore


@dataclass(frozen=True, slots=True)
class MemoryBench:
    store: FakeStore

    def advance(self, by: timedelta) -> None:
        self.store.clock.advance(by)

    def jump(self, by: timedelta) -> None:
        self.store.clock.jump(by)

    def rotation(self, rotation_id: str) -> Rotation:
        return self.store.rotations[rotation_id]

    def credential(self, credential_id: str) -> Credential:
        return self.store.credentials[credential_id]

    def kinds(self, chain: str) -> list[str]:
        return [one.event.kind for one in self.store.events if one.chain == chain]

    def about(self, chain: str) -> list[tuple[str | None, str | None]]:
        return [(one.rotation_id, one.credential_id) for one in self.store.events if one.chain == chain]

    def attempts(self, rotation_id: str) -> tuple[Attempt, ...]:
        return tuple(one for one in self.store.attempts.values() if one.rotation_id == rotation_id)

    def alarms(self) -> Mapping[str, int]:
        return self.store.standing_alarms()

    def sightings(self, resource_id: str) -> dict[tuple[str, str, str], int]:
        return {key: count for key, (count, _) in self.store.sightings.items() if self.credential(key[0]).resource_id == resource_id}
