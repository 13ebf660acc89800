"""Logs: our own lines and those of the libraries in one shape, for a person or for a machine, with secrets hidden last of all.

An event is named in snake_case and the past tense; everything else is a field; ids, never objects. What concerns a whole task is bound
once with `structlog.contextvars`. Something that a person must look at is a line with `alarm` set.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, TextIO

import structlog
from structlog.processors import JSONRenderer, StackInfoRenderer, TimeStamper, format_exc_info
from structlog.stdlib import LoggerFactory, ProcessorFormatter, add_log_level, add_logger_name

from worker.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from structlog.typing import EventDict, Processor, WrappedLogger

    from rotation.sensitive import Sensitive
    from worker.settings import LogFormat, LogLevel

PROCESS_CRASHED = "process_crashed"
THREAD_CRASHED = "thread_crashed"

INDISCREET = ("httpx", "httpcore", "sqlalchemy", "psycopg", "urllib3", "asyncio")
"""Libraries that write URLs, statements or parameters at lower levels than a warning."""
TALKATIVE = ("celery.app.trace", "celery.worker.strategy", "celery.worker.request", "celery.beat")
"""They tell of every message that is sent, received and done, also of the ticks; what comes of it is told by us."""

LONG_FIELDS = frozenset({"exception", "stack"})
"""Fields that go over several lines."""


def configure(log_format: LogFormat, log_level: LogLevel, known: Iterable[Sensitive] = (), stream: TextIO | None = None) -> None:
    """Write logs in this format, from this level on, to `stream` (the standard error). Calling it again replaces what was set before.

    `known` are the secrets of the settings; they are hidden wherever they turn up.
    """
    level = logging.getLevelNamesMapping()[log_level.upper()]
    out = stream or sys.stderr
    handler = Output(out)
    handler.setFormatter(Safely(_renderer(log_format, out), Redactor(known)))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, Output)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in (*INDISCREET, *TALKATIVE):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*_shared(), ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    _log_crashes()


def alarm(event: str, **fields: object) -> None:
    """A line that a person must look at: a warning, so that it is written at any level that a person would choose."""
    structlog.get_logger("worker.logs").warning(event, alarm=True, **fields)


class Safely(ProcessorFormatter):
    """Turns any record into a line. A record that cannot be formatted becomes a line that says so: the library's own way out prints it."""

    def __init__(self, renderer: Processor, redactor: Redactor) -> None:
        self._redactor = redactor
        super().__init__(
            foreign_pre_chain=_shared(),
            processors=[ProcessorFormatter.remove_processors_meta, format_exc_info, self._redact, renderer],
        )

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if not hasattr(record, "_logger"):  # a library's: structlog marks ours
            record = logging.makeLogRecord(record.__dict__)
            record.msg, record.args = self._message(record), ()
        return super().format(record)

    def _message(self, record: logging.LogRecord) -> str:
        """The message of a foreign record. Its parts are redacted one by one, since text has no types and no names any more."""
        template = record.msg if isinstance(record.msg, str) else str(self._redactor.value(record.msg))
        if not record.args:
            return template
        arguments = self._redactor.fields(record.args) if isinstance(record.args, dict) else self._positional(record.args)
        try:
            message = template % arguments
        except (TypeError, ValueError, KeyError):
            message = f"{template} {arguments}"
        return message

    def _positional(self, arguments: object) -> tuple[object, ...]:
        return tuple(self._redactor.value(one) for one in arguments) if isinstance(arguments, tuple) else ()

    def _redact(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return self._redactor.fields(event, long=LONG_FIELDS)


class Output(logging.StreamHandler[TextIO]):
    """Where lines go. When one cannot be written, that is said without what was in it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the library's name
        """One line about the line that was lost."""
        error = sys.exc_info()[0]
        try:
            sys.stderr.write(f"a log line of {record.name} was lost: {error.__name__ if error else 'unknown'}\n")
        except (OSError, ValueError):
            return


def _shared() -> list[Processor]:
    """What our own lines and the libraries' have in common."""
    return [
        structlog.contextvars.merge_contextvars,
        add_log_level,
        add_logger_name,
        TimeStamper(fmt="iso", utc=True),
        StackInfoRenderer(),
    ]


def _renderer(log_format: LogFormat, stream: TextIO) -> Processor:
    if log_format == "json":
        return JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _log_crashes() -> None:
    """What nobody caught goes through the logs as well, unless somebody else (a test runner) sees to it."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _process_crashed
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_crashed


def _process_crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger("worker.logs").critical(PROCESS_CRASHED, exc_info=(kind, error, trace))


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None:
        thread = crash.thread.name if crash.thread else ""
        structlog.get_logger("worker.logs").critical(THREAD_CRASHED, thread=thread, exc_info=crash.exc_value)
