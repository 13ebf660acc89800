"""What commands work with: the settings, the ports that are made of them, who is asking. All of it is made when a command asks."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rotation.cases import Deadline
from worker.cli import output

if TYPE_CHECKING:
    from rotation.model import Resource
    from rotation.ports import Engine, Ports
    from rotation.store.sql import SqlStore
    from worker.inventory import Rules
    from worker.settings import Settings


def settings() -> "Settings":
    """The settings of this process. Raises `Invalid` with every fault at once."""
    from worker.settings import load  # noqa: PLC0415 - half a second that help does not need

    return load(os.environ)


def make_private(directory: Path) -> None:
    """Make a directory that is for its owner alone, where there is none yet."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def actor() -> str:
    """Who asks, for the audit trail: the operating system's user, not a variable that anybody can set."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"


@dataclass(frozen=True, slots=True)
class Session:
    """One command's hold on the world."""

    settings: "Settings"
    ports: "Ports"
    store: "SqlStore"

    def resource(self, name: str) -> "Resource":
        """By `installation/id`, by the id where it is unique, or by the internal id. Raises `NotFound` or `Conflict`."""
        return self.store.find_resource(name)

    def engine(self, kind: str) -> "Engine":
        """The adapter for one kind of database."""
        return self.ports.engines[kind]

    def deadline(self, calls: int = 1) -> Deadline:
        """The end of the time that so many calls may take, from now on."""
        return Deadline(self.ports.clock.monotonic() + calls * self.ports.terms.call_deadline.total_seconds())

    def rules(self) -> "Rules":
        """What files are held against."""
        from rotation.vercel.template_sets import TEMPLATE_SETS  # noqa: PLC0415 - as above
        from worker.inventory import Rules  # noqa: PLC0415

        return Rules(
            engines=frozenset(self.ports.engines),
            template_sets=TEMPLATE_SETS,
            push_by=self.settings.vercel_endpoint,
            grace_vercel=self.settings.vercel_default_grace,
            max_grace=self.settings.max_grace,
            allow_private_hosts=self.settings.allow_private_hosts,
        )


@contextmanager
def log_lines_to_people() -> Iterator[None]:
    """What is logged by what a command does goes to the error stream: the output holds data alone."""
    import sys  # noqa: PLC0415 - only here

    import structlog  # noqa: PLC0415 - as above

    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def opened(*, seals: bool = False) -> Iterator[Session]:
    """The world for one command; `seals` for one that puts secrets into the store.

    Raises `Invalid` when a setting is wrong, and `Refused` when the keys are not those of the store. Nothing else is connected before
    it is used.
    """
    from worker import wiring  # noqa: PLC0415 - as above

    configured = settings()
    make_private(configured.data_dir)
    ports = wiring.wire(configured)
    store = cast("SqlStore", ports.store)  # what is wired is always this one; the port tells only what a rotation needs of it
    try:
        for key_id in wiring.expect_keys(ports) if seals else ():
            output.warn(f"the key {key_id} is not in the keyring: what it sealed is held until it is added again, or abandoned")
        yield Session(configured, ports, store)
    finally:
        store.dispose()
