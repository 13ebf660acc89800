"""Every place where a secret could end up: how to read all of it, and how a leak gets there, so that the search can be seen to find it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx
import psycopg
import redis
from celery import Celery
from kombu import Exchange, Queue
from sqlalchemy import select
from typer.testing import CliRunner

from rotation import requests
from rotation.states import Trigger
from rotation.store.tables import metadata, rotations
from tests.processes import Process, eventually
from tests.rigs import PATIENCE, Rig
from worker.cli.main import app
from worker.tasks import ADVANCE_ROTATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tests.canary.house import House
    from worker.sandbox.postgresql import PrivatePostgresql

PIECE = 64 << 20
"""Bytes of a file that are looked at together; pieces overlap."""
OVERLAP = 4_096
SECRETS_BY_DESIGN = ("superuser.password", "broker.conf", "customers.url", "rollover.keys", "lost.keys", "secrets")
"""Files and directories that hold secrets because somebody put them there, mode 0600."""

SAYING = """
import os, sys, structlog
from worker import logs
from worker.settings import load
settings = load(os.environ)
logs.configure(settings.log_format, settings.log_level, settings.secrets())
for line in sys.stdin: structlog.get_logger().debug("planted", note=line.strip())
"""


class Sink(Protocol):
    """A place where secrets could end up."""

    name: str

    def pieces(self) -> Iterable[tuple[str, bytes]]:
        """All that is there, each piece with where it was found."""
        ...

    def plant(self, texts: Sequence[str]) -> None:
        """Let these texts leak to this place, the way they would."""
        ...


class Logs:
    """What all our processes, and the broker, have written."""

    name = "logs"

    def __init__(self, house: House) -> None:
        self._house = house

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        for path in (*(one.log for one in self._house.processes), self._house.broker.log):
            yield from _in_pieces(path)

    def plant(self, texts: Sequence[str]) -> None:
        log = self._house.directory / "planted.log"
        with log.open("wb") as output:
            subprocess.run(  # noqa: S603 - this interpreter and our own module
                [sys.executable, "-P", "-c", SAYING],
                input="\n".join(texts).encode(),
                stderr=output,
                env=self._house.environment,
                check=True,
            )
        with self._house.processes[0].log.open("ab") as output:
            output.write(log.read_bytes())


class BrokerTraffic:
    """Every command that the broker was sent, while somebody listened."""

    name = "broker's traffic"

    def __init__(self, directory: Path) -> None:
        self._file = directory / "traffic.log"
        self._url_file = directory / "secrets" / "broker_url"
        self._listener: subprocess.Popen[bytes] | None = None

    def listen(self) -> None:
        """Begin, and go on until the broker ends: call it again when that was started again."""
        self.stop()
        with self._file.open("ab") as output:
            before = output.tell()
            command = ["setpriv", "--pdeathsig=KILL", sys.executable, "-P", "-c", MONITOR, str(self._url_file)]
            self._listener = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)  # noqa: S603 - this interpreter
        assert eventually(lambda: self._file.stat().st_size > before, PATIENCE)

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.kill()
            self._listener.wait()

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        yield from _in_pieces(self._file)

    def plant(self, texts: Sequence[str]) -> None:
        with redis.Redis.from_url(self._url_file.read_text(), socket_timeout=5) as client:
            for text in (*texts, "the end"):
                client.publish("planted", text)
        assert eventually(lambda: b"the end" in self._file.read_bytes(), PATIENCE)


MONITOR = """
import sys, pathlib, redis
client = redis.Redis.from_url(pathlib.Path(sys.argv[1]).read_text())
with client.monitor() as monitor:
    print("listening", flush=True)
    while True:
        print(monitor.connection.read_response(disable_decoding=True), flush=True)
"""


class BrokerKeys:
    """All that the broker keeps, as values and as it would write them to a disk."""

    name = "broker's keys"

    def __init__(self, house: House) -> None:
        self._house = house

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        with _broker(self._house) as client:
            for key in client.scan_iter():
                yield f"key {key!r}", b"\n".join((key, client.dump(key) or b"", repr(_value(client, key)).encode()))

    def plant(self, texts: Sequence[str]) -> None:
        with _broker(self._house) as client:
            for number, text in enumerate(texts):
                match number % 4:
                    case 0:
                        client.set(f"planted-{number}", text)
                    case 1:
                        client.rpush(f"planted-{number}", text)
                    case 2:
                        client.hset(f"planted-{number}", text, "x")
                    case 3:
                        client.zadd(f"planted-{number}", {text: 1})


class StoreRows:
    """Every value of every row of the store."""

    name = "store's rows"

    def __init__(self, house: House) -> None:
        self._house = house

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        with self._house.store.database.reading() as connection:
            for table in metadata.sorted_tables:
                for row in connection.execute(select(table)):
                    yield table.name, b"\n".join(one if isinstance(one, bytes) else str(one).encode() for one in row)

    def plant(self, texts: Sequence[str]) -> None:
        asked = requests.Asked(Trigger.MANUAL, "canary", "\n".join(texts))
        requests.trigger(self._house.resources[0].id, asked, self._house.ports)


class StoreFiles:
    """The store as it is on disk: SQLite's database and its log, or PostgreSQL's whole data directory."""

    name = "store's files"

    def __init__(self, house: House) -> None:
        self._house = house

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        if self._house.store_server is None:
            yield from _below(self._house.directory / "data", but=SECRETS_BY_DESIGN)
        else:
            _checkpoint(self._house.store_server)
            yield from _below(self._house.store_server.data)

    def plant(self, texts: Sequence[str]) -> None:
        # Each in a row of its own: what is overwritten is soon only in the log of changes, cut where a page of that ends.
        with self._house.store.database.writing() as connection:
            ids = connection.scalars(select(rotations.c.id).order_by(rotations.c.id).limit(len(texts))).all()
            for row_id, text in zip(ids, texts, strict=True):
                connection.execute(rotations.update().where(rotations.c.id == row_id).values(advice=text))


class ServerLog:
    """What a PostgreSQL that logs every statement has logged."""

    def __init__(self, name: str, server: PrivatePostgresql) -> None:
        self.name = f"{name} server's log"
        self._server = server

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        yield from _in_pieces(self._server.log)

    def plant(self, texts: Sequence[str]) -> None:
        with psycopg.connect(self._server.superuser_url()) as connection:
            for text in texts:
                connection.execute("SELECT %s::text", (text,))


class Statements:
    """What `pg_stat_statements` has kept, also of statements that failed to be made general."""

    def __init__(self, name: str, server: PrivatePostgresql) -> None:
        self.name = f"{name} server's statistics"
        self._server = server

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        with psycopg.connect(self._server.superuser_url()) as connection:
            for (query,) in connection.execute("SELECT query FROM pg_stat_statements").fetchall():
                yield "pg_stat_statements", query.encode()
            for row in connection.execute("SELECT query, application_name, usename FROM pg_stat_activity").fetchall():
                yield "pg_stat_activity", repr(row).encode()

    def plant(self, texts: Sequence[str]) -> None:
        with psycopg.connect(self._server.superuser_url(), autocommit=True) as connection:
            for text in texts:  # constants of queries are left out there, those of commands are not
                connection.execute(f"COMMENT ON DATABASE postgres IS $x${text}$x$".encode())


class CustomersFiles:
    """What the customers' server has on disk of its logins, and all that it has written since it began: its log of changes."""

    name = "customers' server's files"

    def __init__(self, house: House) -> None:
        self._server = house.customers[0].postgresql

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        _checkpoint(self._server)
        for part in ("global", "pg_wal", "pg_stat", "pg_stat_tmp", "pg_xact", "pg_subtrans", "pg_logical"):
            yield from _below(self._server.data / part)

    def plant(self, texts: Sequence[str]) -> None:
        with psycopg.connect(self._server.superuser_url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE planted (leak text)")
            for text in texts:
                connection.execute("INSERT INTO planted VALUES (%s)", (text,))


class CommandOutputs:
    """What the command line prints, for people and for machines, in the state that everything is in now."""

    name = "command line"

    def __init__(self, house: House) -> None:
        self._house = house

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        for words in self._commands():
            yield from self._said(*words)

    def _commands(self) -> Iterator[tuple[str, ...]]:
        house = self._house
        name = house.resources[0].name
        troubled = [one.rotation.id for one in house.store.views.rotations(limit=1_000) if one.rotation.problem]
        for words in (
            ("events", "--limit", "10000"),
            ("rotation", "list", "--limit", "1000"),
            ("rotation", "show", troubled[0]),
            ("resource", "show", name),
            ("credential", "list", name),
            ("keys", "list"),
        ):
            yield words
            yield *words, "--json"
        yield from (("rotation", "show", one, "--json") for one in troubled[1:4])
        yield from (
            ("status",),
            ("doctor", "--json"),
            ("settings",),
            ("resource", "list"),
            ("resource", "check", name),
            ("audit", "verify"),
        )
        yield from (("server", "show", "customers"), ("server", "check", "customers"), ("installation", "list", "--json"))
        yield "rotate", "nobody/nothing"  # and what is refused, of files that hold secrets
        yield "resource", "add", house.environment["ROLLOVER_BROKER_URL_FILE"]
        yield "server", "add", str(house.customers[0].admin_url_file)

    def _said(self, *words: str) -> Iterator[tuple[str, bytes]]:
        environment = {name: value for name, value in self._house.environment.items() if name.startswith("ROLLOVER_")}
        result = CliRunner().invoke(app, list(words), prog_name="rollover", env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        yield " ".join(words), (result.stdout + result.stderr).encode()

    def plant(self, texts: Sequence[str]) -> None:
        asked = requests.Asked(Trigger.MANUAL, "canary", "\n".join(texts))  # a person's words are shown as they are
        requests.trigger(self._house.resources[0].id, asked, self._house.ports)


class TaskDashboard:
    """Every page and every answer of Flower, which has listened all the time."""

    name = "Flower"

    def __init__(self, house: House) -> None:
        self._house = house

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        url = f"http://127.0.0.1:{self._house.flower_port}"
        login = ("rollover", self._house.flower_password.reveal())
        with httpx.Client(base_url=url, auth=login, trust_env=False, timeout=PATIENCE) as client:
            tasks = client.get("/api/tasks", params={"limit": 10_000}).raise_for_status()
            workers = client.get("/api/workers").raise_for_status()
            failed = [one for one, task in tasks.json().items() if task["state"] == "FAILURE"]
            pages = ["/", "/workers", "/tasks", "/broker", "/metrics", "/healthcheck", "/api/queues/length", "/api/task/types"]
            pages += [f"/task/{one}" for one in [*tasks.json()][:5] + failed[:10]] + [f"/worker/{name}" for name in workers.json()]
            yield from (("/api/tasks", tasks.content), ("/api/workers", workers.content))
            for page in pages:
                answer = client.get(page, follow_redirects=True)
                yield page, answer.content + repr(answer.headers).encode()

    def is_ready(self) -> bool:
        """Whether it listens to the workers."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self._house.flower_port}/healthcheck", trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def plant(self, texts: Sequence[str]) -> None:
        with sending(self._house) as send:
            last = [send(ADVANCE_ROTATIONS, [[text]]) for text in texts][-1]
        assert eventually(lambda: any(last.encode() in data for place, data in self.pieces() if place == "/api/tasks"), PATIENCE)


class Processes:
    """How our processes were called, and the environment that they were given: root reads that of any process."""

    name = "processes"

    def __init__(self, house: House) -> None:
        self._house = house
        self._planted: Process | None = None

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        ours = [one.pid for one in self._house.processes if one.runs] + [self._house.broker.pid]
        ours += [one.pid for one in (self._house.store_server, self._house.customers[0].postgresql) if one is not None]
        for pid in _with_children(ours):
            for what in ("cmdline", "environ", "comm", "limits"):
                try:
                    yield f"{what} of {pid}", Path(f"/proc/{pid}/{what}").read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue

    def plant(self, texts: Sequence[str]) -> None:
        half = len(texts) // 2
        environment = {**os.environ, **{f"PLANTED_{number}": text for number, text in enumerate(texts[half:])}}
        command = [sys.executable, "-P", "-c", "import signal; signal.pause()", *texts[:half]]
        self._house.keep(Process("planted", command, environment, self._house.directory / "planted-process.log"))


class OtherFiles:
    """Whatever else was written: temporary files, the broker's directory, cores."""

    name = "other files"

    def __init__(self, house: House) -> None:
        self._house = house

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        yield from _below(self._house.directory, but=(*SECRETS_BY_DESIGN, "data", "traffic.log"))

    def plant(self, texts: Sequence[str]) -> None:
        (self._house.directory / "tmp" / "core").write_text("\n".join(texts))


def sinks_of(house: House) -> tuple[Sink, ...]:
    """All of them."""
    customers = house.customers[0].postgresql
    servers: list[Sink] = [ServerLog("customers'", customers), Statements("customers'", customers), CustomersFiles(house)]
    if house.store_server is not None:
        servers += [ServerLog("store's", house.store_server), Statements("store's", house.store_server)]
    kept = (BrokerKeys(house), StoreRows(house), StoreFiles(house))
    return (Logs(house), house.traffic, *kept, *servers, CommandOutputs(house), TaskDashboard(house), Processes(house), OtherFiles(house))


# -- reading


def _in_pieces(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file, however large; what lies across an edge is in two pieces."""
    with path.open("rb") as file:
        kept = b""
        while piece := file.read(PIECE):
            yield path.name, kept + piece
            kept = piece[-OVERLAP:]


def _below(directory: Path, *, but: Sequence[str] = ()) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not set(path.relative_to(directory).parts) & set(but):
            try:
                yield from ((f"{path.relative_to(directory)}", data) for _, data in _in_pieces(path))
            except FileNotFoundError:
                continue  # it was temporary


def _checkpoint(server: PrivatePostgresql) -> None:
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _broker(house: House) -> AbstractContextManager[redis.Redis]:
    return redis.Redis.from_url(house.broker.url.reveal(), socket_timeout=5)


def _value(client: redis.Redis, key: bytes) -> object:
    """What is behind a key: on a disk, longer texts are compressed."""
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"list":
            return client.lrange(key, 0, -1)
        case b"hash":
            return client.hgetall(key)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        case b"none":
            return None  # it is gone since it was listed
        case kind:
            raise AssertionError(f"{key!r} is a {kind!r}, which nobody looks into")


def _with_children(pids: Sequence[int]) -> Iterator[int]:
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        yield pid
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += [int(one) for one in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue


@contextmanager
def sending(house: Rig) -> Iterator[Callable[[str, Sequence[object]], str]]:
    """Sends a task to the workers, as anybody can who has the broker's password; gives its id."""
    queue = Queue("rollover.scheduled", Exchange("rollover"), routing_key="rollover.scheduled")
    with Celery("sending", broker=house.broker.url.reveal(), set_as_current=False) as celery:
        yield lambda task, args: str(celery.send_task(task, args=args, queue=queue).id)  # type: ignore[arg-type]  # a queue may be described
