from __future__ import annotations

import base64
import io
import json
import logging
import re
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import TYPE_CHECKING, Any

import celery
import httpx
import psycopg
import pytest
import sqlalchemy
import structlog
from pydantic import BaseModel, ValidationError

from rotation.sensitive import Sensitive
from worker.logs import Output, alarm, configure
from worker.settings import LogFormat, LogLevel, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANARY = "CANARYqT7xLmN0pQr5sVwYz"


class Written:
    """What was logged in a test."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def configure(
        self, log_format: LogFormat = LogFormat.JSON, level: LogLevel = LogLevel.DEBUG, known: tuple[Sensitive, ...] = ()
    ) -> None:
        configure(log_format, level, known, self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def written() -> Iterator[Written]:
    """Logs as they are in production, and afterwards as they were."""
    root = logging.getLogger()
    level, shown = root.level, warnings.showwarning
    hooks = sys.excepthook, threading.excepthook
    written = Written()
    written.configure()
    yield written
    for handler in [one for one in root.handlers if isinstance(one, Output)]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    warnings.showwarning = shown
    sys.excepthook, threading.excepthook = hooks
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def hidden(text: str) -> bool:
    """Whether no form of the canary is in the text."""
    raw = CANARY.encode()
    forms = [CANARY, raw.hex(), base64.b64encode(raw).decode().rstrip("=")]
    return not any(form in text for form in forms)


def test_our_lines_and_those_of_libraries_have_one_shape(written: Written) -> None:
    structlog.get_logger("ours").info("rotation_completed", rotation="r1")
    logging.getLogger("celery.worker").info("Task %s received", "t1")
    ours, theirs = written.lines
    assert ours == {"event": "rotation_completed", "rotation": "r1", "level": "info", "logger": "ours", "timestamp": ours["timestamp"]}
    assert theirs == {"event": "Task t1 received", "level": "info", "logger": "celery.worker", "timestamp": theirs["timestamp"]}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", ours["timestamp"])


def test_a_person_gets_lines_to_read(written: Written) -> None:
    written.configure(LogFormat.CONSOLE)
    structlog.get_logger("ours").info("rotation_completed", rotation="r1", password=CANARY)
    assert "rotation_completed" in written.text
    assert "rotation=r1" in written.text
    assert "\x1b" not in written.text
    assert hidden(written.text)


def test_ids_are_bound_once_for_ours_and_theirs(written: Written) -> None:
    with structlog.contextvars.bound_contextvars(rotation="r1"):
        structlog.get_logger().info("login_created")
        logging.getLogger("celery").info("at it")
    structlog.get_logger().info("queue_emptied")
    assert [line.get("rotation") for line in written.lines] == ["r1", "r1", None]


def test_a_level_holds_for_everybody(written: Written) -> None:
    written.configure(level=LogLevel.WARNING)
    structlog.get_logger().info("login_created")
    logging.getLogger("celery").info("at it")
    structlog.get_logger().warning("login_clashed")
    logging.getLogger("celery").error("oh")
    assert [line["event"] for line in written.lines] == ["login_clashed", "oh"]


@pytest.mark.parametrize("level", [LogLevel.INFO, LogLevel.WARNING])
def test_an_alarm_is_seen_at_any_level_that_a_person_would_choose(written: Written, level: LogLevel) -> None:
    written.configure(level=level)
    alarm("clocks_disagreed", server="pg-eu-1")
    (line,) = written.lines
    assert (line["event"], line["alarm"], line["level"], line["server"]) == ("clocks_disagreed", True, "warning", "pg-eu-1")


def test_configuring_again_replaces_what_was_set(written: Written) -> None:
    written.configure()
    written.configure()
    logging.getLogger("celery").info("once")
    assert len(written.lines) == 1


# The table of leaks: each way in which a secret gets into a log by default


def test_a_traceback_shows_no_local_variables(written: Written) -> None:
    def connect(password: str) -> None:
        note = f"trying {password}"
        raise ValueError("refused") from RuntimeError(len(note))

    for log_format in LogFormat:
        written.configure(log_format)
        try:
            connect(CANARY)
        except ValueError:
            structlog.get_logger().exception("connect_failed")
            logging.getLogger("celery").exception("task failed")
    assert "connect_failed" in written.text
    assert "in connect" in written.text
    assert hidden(written.text)


def test_pydantics_errors_repeat_no_input(written: Written) -> None:
    with pytest.raises(Exception, match="ROLLOVER_TICK_SECONDS") as refusal:
        load({"HOME": "/", "ROLLOVER_TICK_SECONDS": CANARY, "ROLLOVER_STORE_URL": f"mysql://u:{CANARY}@h/d"})
    structlog.get_logger().error("settings_refused", exc_info=refusal.value, problem=refusal.value)
    assert "settings_refused" in written.text
    assert hidden(written.text)


def test_a_careless_models_error_is_caught_by_the_names_in_it(written: Written) -> None:
    class Careless(BaseModel):
        password: int

    with pytest.raises(ValidationError) as refusal:
        Careless.model_validate({"password": f"password={CANARY}"})
    structlog.get_logger().error("input_refused", exc_info=refusal.value)
    assert hidden(written.text)


def test_sqlalchemys_url_and_echo_stay_quiet(written: Written) -> None:
    engine = sqlalchemy.create_engine("sqlite://", echo=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT :password"), {"password": CANARY})
    engine.dispose()
    url = sqlalchemy.make_url(f"postgresql://u:{CANARY}@h/d")
    structlog.get_logger().info("store_opened", url=url, raw=url.render_as_string(hide_password=False))
    assert len(written.lines) == 1
    assert hidden(written.text)


def test_a_statement_with_a_password_is_hidden(written: Written) -> None:
    logging.getLogger("celery").error("failed: %s", f"CREATE ROLE x LOGIN PASSWORD '{CANARY}'")
    logging.getLogger("celery").error("failed: CREATE ROLE x PASSWORD 'SCRAM-SHA-256$4096:%s$a:b'", CANARY)
    assert len(written.lines) == 2
    assert hidden(written.text)


def test_httpx_does_not_tell_urls_and_its_errors_hide_them(written: Written) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.ConnectError) as failure:
        client.get(f"http://user:{CANARY}@127.0.0.1:{closed}/?token={CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    assert written.text == ""
    structlog.get_logger().error("push_failed", exc_info=failure.value, error=failure.value, request=failure.value.request)
    structlog.get_logger().error("push_failed", headers=dict(failure.value.request.headers), url=str(failure.value.request.url))
    assert len(written.lines) == 2
    assert hidden(written.text)


def test_psycopgs_failed_connection_is_hidden(written: Written) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    with pytest.raises(psycopg.OperationalError) as failure:
        psycopg.connect(f"host=127.0.0.1 port={closed} user=u password={CANARY} connect_timeout=2")
    structlog.get_logger().error("connect_failed", exc_info=failure.value, error=failure.value, parameters=f"password={CANARY}")
    assert hidden(written.text)


def test_celerys_arguments_and_broker_are_hidden(written: Written) -> None:
    app = celery.Celery("x", broker=f"redis://:{CANARY}@127.0.0.1/0", set_as_current=False)
    log = logging.getLogger("celery.worker.consumer")
    log.info("Connected to %s", app.conf.broker_url)
    log.info("Task %(name)s[%(id)s] %(kwargs)s", {"name": "n", "id": "i", "kwargs": {"password": CANARY, "login": Sensitive(CANARY)}})
    log.info("Task %s %s", "n", {"token": [CANARY]})
    assert "Task n[i]" in written.text
    assert len(written.lines) == 3
    assert hidden(written.text)


def test_the_secrets_of_the_settings_are_hidden_wherever_they_are(written: Written) -> None:
    settings = load({"HOME": "/", "ROLLOVER_BROKER_URL": f"redis://:{CANARY}@127.0.0.1/0", "ROLLOVER_KEYS": CANARY[::-1]})
    written.configure(known=settings.secrets())
    logging.getLogger("kombu").info("lost %s and %s", CANARY, CANARY[::-1])
    assert "lost [hidden] and [hidden]" in written.text


# What goes wrong while logging


@pytest.mark.parametrize(
    "send",
    [
        lambda log: log.info("%d rows", f"password={CANARY}"),
        lambda log: log.info("%s %s", *[Sensitive(CANARY)]),
        lambda log: log.info("%(missing)s", {"password": CANARY}),
        lambda log: log.info("100%", Sensitive(CANARY)),
        lambda log: log.info(Sensitive(CANARY)),
        lambda log: log.info({"password": CANARY}),
        lambda log: log.info(ValueError(f"password={CANARY}")),
        lambda log: log.info("stacked", stack_info=True),
    ],
)
def test_a_line_that_cannot_be_formatted_is_still_a_line_without_secrets(
    written: Written,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    send: Callable[[logging.Logger], None],
) -> None:
    foreign = logging.getLogger("foreign")
    monkeypatch.setattr(foreign, "propagate", False)  # the test runner's own handler raises at what is tried here
    monkeypatch.setattr(foreign, "handlers", [one for one in logging.getLogger().handlers if isinstance(one, Output)])
    send(foreign)
    assert len(written.lines) == 1
    assert hidden(written.text)
    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_written_is_told_without_its_content(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    written.stream.close()
    logging.getLogger("foreign").info("password=%s", CANARY)
    told = capsys.readouterr().err
    assert told == "a log line of foreign was lost: ValueError\n"


def test_a_warning_is_a_line(written: Written) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"password={CANARY}", UserWarning, stacklevel=1)
    assert written.lines[0]["logger"] == "py.warnings"
    assert hidden(written.text)


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # the programs of these tests


def test_what_nobody_caught_is_a_line_too() -> None:
    program = f"""
        import sys, threading
        from worker.logs import configure
        from worker.settings import LogFormat, LogLevel
        configure(LogFormat.JSON, LogLevel.INFO)
        def fail():
            password = "{CANARY}"
            raise ValueError("postgresql://u:" + password + "@h/d")
        thread = threading.Thread(target=fail, name="sweeper")
        thread.start()
        thread.join()
        fail()
    """
    ended = run(textwrap.dedent(program))
    assert ended.returncode == 1
    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["thread_crashed", "process_crashed"]
    assert "ValueError: postgresql://[hidden]@h/d" in ended.stderr
    assert '"sweeper"' in ended.stderr


def test_a_person_who_stops_a_program_is_no_crash() -> None:
    program = "from worker.logs import configure\nconfigure('json', 'info')\nraise KeyboardInterrupt"
    ended = run(program)
    assert "process_crashed" not in ended.stderr
    assert "KeyboardInterrupt" in ended.stderr


def test_a_planted_leak_is_found_by_these_tests(written: Written) -> None:
    structlog.get_logger().info("leaked", note=f"the word is {CANARY}")
    assert not hidden(written.text)
    assert not hidden(CANARY.encode().hex())
