"""A sensitive value cannot be read by accident."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import marshal
import pickle
import pprint
import string
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from kombu.utils import json as kombu_json
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json
from rich.console import Console
from rich.traceback import Traceback

from rotation.model import Login, Minted, RenderedSecret
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "c4n4ry-in-the-mine"
SECRET = Sensitive(CANARY)


def interpolated(value: Sensitive) -> str:
    return f"{value}"


WAYS_INTO_TEXT: dict[str, Callable[[Any], object]] = {
    "str": str,
    "f-string": interpolated,
    "f-string with a width": lambda value: f"{value:>20}",
    "format": format,
    "str.format": "{}".format,
    "percent": lambda value: "%s" % value,  # noqa: UP031  # the old way is one of the ways
    "join": lambda value: ", ".join([value] * 2),
    "concatenation": lambda value: "x" + value,
    "template": lambda value: string.Template("$x").substitute(x=value),
    "bytes": bytes,
    "iteration": list,
    "an index": lambda value: value[0],
    "a key": lambda value: {value: 1},
    "print": lambda value: print(value, file=io.StringIO()),
    "pickle": pickle.dumps,
    "pickle, oldest": lambda value: pickle.dumps(value, 0),
    "pickle inside": lambda value: pickle.dumps(Login("u", value)),
    "marshal": marshal.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy inside": lambda value: copy.deepcopy([{"x": value}]),
    "asdict": lambda value: dataclasses.asdict(Login("u", value)),
    "json": json.dumps,
    "json by str": lambda value: json.dumps({"x": value}, default=str),
    "a message of Celery": kombu_json.dumps,
    "pydantic's json": to_json,
    "vars": vars,
}


@pytest.mark.parametrize("way", WAYS_INTO_TEXT)
def test_every_accidental_way_into_text_is_refused(way: str) -> None:
    with pytest.raises((TypeError, ValueError, PydanticSerializationError)) as caught:
        WAYS_INTO_TEXT[way](SECRET)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


SHOWN: dict[str, Callable[[], object]] = {
    "itself": lambda: SECRET,
    "a list": lambda: [SECRET],
    "a dict": lambda: {"password": SECRET},
    "a login": lambda: Login("u", SECRET),
    "a rendered secret": lambda: RenderedSecret("DATABASE_URL", SECRET, overrides=(("preview", SECRET),)),
    "a minted login": lambda: Minted("u", SECRET, SECRET),
    "an error": lambda: ValueError(SECRET, "x"),
    "a replaced login": lambda: dataclasses.replace(Login("u", SECRET), username="v"),
}


@pytest.mark.parametrize("what", SHOWN)
def test_what_holds_it_can_be_shown_without_it(what: str) -> None:
    value = SHOWN[what]()
    assert CANARY not in f"{value!r} {pprint.pformat(value)} {value!a}"
    assert "Sensitive(…)" in repr(value)


def test_only_reveal_gives_it_and_its_length_is_known() -> None:
    assert SECRET.reveal() == CANARY
    assert len(SECRET) == len(CANARY)
    assert not Sensitive("")


def test_it_equals_the_same_text_and_never_a_plain_one() -> None:
    assert Sensitive("a") == Sensitive("a")
    assert Sensitive("a") != Sensitive("b")
    assert Sensitive("a") != "a"
    assert Login("u", Sensitive("a")) == Login("u", Sensitive("a"))


def test_standard_logging_does_not_show_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    logger = logging.getLogger("test_sensitive")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("password %r of %r", SECRET, {"login": Login("u", SECRET)})
    assert "password Sensitive(…) of" in stream.getvalue()
    monkeypatch.setattr(logging, "raiseExceptions", True)
    logger.error("password %s", SECRET)  # logging reports its own failure on standard error
    said = stream.getvalue() + capsys.readouterr().err
    assert "cannot be turned into text" in said
    assert CANARY not in said


@pytest.mark.parametrize("renderer", [structlog.dev.ConsoleRenderer(colors=False), structlog.processors.KeyValueRenderer()])
def test_structured_logs_show_only_that_there_is_something(renderer: Callable[..., Any]) -> None:
    line = str(renderer(None, "info", {"event": "pushed", "password": SECRET, "login": Login("u", SECRET)}))
    assert "Sensitive(…)" in line
    assert CANARY not in line


def test_json_logs_show_only_that_there_is_something() -> None:
    line = structlog.processors.JSONRenderer()(None, "info", {"event": "pushed", "password": SECRET})
    assert json.loads(line)["password"] == "Sensitive(…)"


def failing(password: Sensitive) -> None:
    held = [password]
    raise RuntimeError(f"failed with {held!r}")


def test_tracebacks_with_local_variables_do_not_show_it() -> None:
    out = io.StringIO()
    try:
        failing(SECRET)
    except RuntimeError as error:
        Console(file=out, width=400).print(Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
        plain = traceback.TracebackException.from_exception(error, capture_locals=True)
        out.write("".join(plain.format()))
        event = structlog.processors.dict_tracebacks(None, "error", {"event": "failed", "exc_info": error})
        out.write(json.dumps(event))
    said = out.getvalue()
    assert said.count("Sensitive(…)") >= 4
    assert "password" in said
    assert CANARY not in said


def test_pydantic_neither_serialises_nor_repeats_it() -> None:
    class Model(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        password: Sensitive

    model = Model(password=SECRET)
    assert CANARY not in f"{model!r} {model.model_dump()!r}"
    with pytest.raises((PydanticSerializationError, TypeError)):
        model.model_dump_json()
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python(SECRET)
    assert CANARY not in str(caught.value)
