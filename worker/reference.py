"""The pages that tell every command, every setting and every key of the files: `python -m worker.reference` writes them from the code.

In any of the pages, what stands between `<!-- settings -->` and `<!-- end of settings -->` is the table of the settings.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import typer

from rotation.model import Window
from rotation.sensitive import Sensitive
from rotation.vercel.template_sets import TEMPLATE_SETS
from worker.cli.main import app
from worker.documents import (
    CurrentDocument,
    DatabaseDocument,
    EndpointDocument,
    PolicyDocument,
    ResourceDocument,
    SecretDocument,
    ServerDocument,
)
from worker.durations import format_duration
from worker.settings import SECRETS, Settings
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
SETTINGS_PAGE = "docs/settings.md"
FILES_PAGE = "docs/resource-file.md"
COMMANDS_PAGE = "docs/commands.md"
_BEGIN, _END = "<!-- settings -->", "<!-- end of settings -->"

_KINDS: Mapping[type, str] = {
    timedelta: "duration",
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    Window: "window",
    Path: "path",
    Sensitive: "secret",
}
_TABLES: tuple[tuple[str, type[BaseModel], bool], ...] = (
    ("At the top", ResourceDocument, False),
    ("`[database]`", DatabaseDocument, False),
    ("`[database.NAME]`", EndpointDocument, True),
    ("`[policy]`", PolicyDocument, True),
    ("`[[secrets]]`", SecretDocument, True),
    ("`[current]`", CurrentDocument, True),
)
_TAKEN: Mapping[str, str] = {"str": "TEXT", "int range": "NUMBER", "path": "PATH"}
_OF_THEIR_OWN = frozenset({"database", "policy", "secrets", "current", "endpoints"})


def settings_table() -> str:
    """Every setting in one table."""
    rows = (
        (f"`{PREFIX}{name.upper()}`", _kind(field), _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    )
    return _table(("variable", "type", "default", "meaning"), rows)


def settings_page() -> str:
    """The page about settings."""
    files = ",\n".join(f"`{PREFIX}{name.upper()}_FILE`" for name in sorted(SECRETS))
    return (
        "# Settings\n\n"
        "Settings are environment variables. A variable that is set to nothing counts as not set; one that begins with\n"
        f"`{PREFIX}` and is no setting is a fault. All faults are reported together. `rollover settings` shows what holds, with\n"
        "secrets hidden.\n\n"
        f"A secret can also stand in a file, named by\n{files}.\nOne line end at its end is left out.\n\n"
        "Durations are written as `30d`, `24h`, `90m`, `15s`, `1w`, `1d12h` or `2.5h`.\n\n"
        f"{settings_table()}"
    )


def files_page() -> str:
    """The page about the files that describe servers and resources."""
    return "".join(_files_page())


def _files_page() -> Iterator[str]:
    yield "# The files that describe servers and resources\n\n"
    yield "Both are TOML. A wrong file is refused with all its faults at once, each with its line. Paths in a file are relative to it.\n"
    yield "Durations are written as `30d`, `24h`, `90m`, `15s`, `1w`, `1d12h` or `2.5h`.\n\n"
    yield "## A server\n\n`rollover server add server.toml`\n\n"
    yield _example("server.toml")
    yield "\n"
    yield _keys(ServerDocument)
    yield "\n## A resource\n\n`rollover resource add resource.toml`: adding never rotates and changes nothing in the database.\n\n"
    yield _example("resource.toml")
    for title, document, optional in _TABLES:
        yield f"\n### {title}\n\n{document.__doc__}{' Optional.' if optional else ''}\n\n"
        yield _keys(document)
    yield "\n### Ready sets of templates\n\n"
    yield "What `template_set` may name. A set with `{pooled.host}` needs the table `[database.pooled]`.\n\n"
    yield _table(
        ("name", "variables"), ((f"`{name}`", ", ".join(f"`{one.name}`" for one in secrets)) for name, secrets in TEMPLATE_SETS.items())
    )


def _example(name: str) -> str:
    return f"```toml\n{(ROOT / 'docs' / 'examples' / name).read_text(encoding='utf-8')}```\n"


def _keys(document: type[BaseModel]) -> str:
    fields = ((name, field) for name, field in document.model_fields.items() if name not in _OF_THEIR_OWN)
    rows = ((f"`{name}`", _kind(field), _default(field), field.description or "") for name, field in fields)
    return _table(("key", "type", "default", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _kind(field: FieldInfo) -> str:
    """The type of a value in words."""
    kinds = [_word(one) for one in _alternatives(field.annotation)]
    return ", ".join(dict.fromkeys(kinds))


def _alternatives(annotation: object) -> tuple[object, ...]:
    return tuple(one for one in get_args(annotation) if one is not NoneType) if NoneType in get_args(annotation) else (annotation,)


def _word(annotation: object) -> str:
    while get_origin(annotation) is not None and get_origin(annotation) is not Literal:
        annotation = get_args(annotation)[0]  # what stands within Annotated
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{one}`" for one in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{one.value}`" for one in annotation)
    return next(word for kind, word in _KINDS.items() if annotation is kind)


def _default(field: FieldInfo) -> str:
    """What holds when nothing is said. What is None here is told by the description, or is nothing."""
    value = field.default
    if field.is_required():
        return "see right" if "Default:" in (field.description or "") else "required"
    match value:
        case None:
            return "see right" if "Default:" in (field.description or "") else ""
        case bool():
            return f"`{str(value).lower()}`"
        case timedelta():
            return f"`{format_duration(value)}`"
        case Enum():
            return f"`{value.value}`"
        case _:
            return f"`{value}`"


def commands_page() -> str:
    """The page about the command line."""
    return "".join(_commands_page())


def _commands_page() -> Iterator[str]:
    yield "# Commands\n\n"
    yield "Every command ends with 0 when it is done, 1 when it failed, and 2 when it was used wrongly. With `--json` it prints data for\n"
    yield "machines on the standard output; what it says to people goes to the standard error. `-h` and `--help` explain any command.\n"
    yield "Each reads its settings from the environment: see [settings](settings.md).\n"
    root: Any = typer.main.get_command(app)  # Typer's own classes for commands are private
    yield from _command(root, typer.Context(root, info_name="rollover"), "##")


def _command(command: Any, context: typer.Context, marks: str) -> Iterator[str]:  # noqa: ANN401 - as above
    """One command, or a group and the commands in it."""
    grouped: dict[str, Any] = getattr(command, "commands", {})
    yield f"\n{marks} {context.command_path}\n\n{command.help}\n"
    records = [record for record in (one.get_help_record(context) for one in command.params) if record is not None]
    told = [(_named(name), " ".join(meaning.split())) for name, meaning in records]
    if not grouped:
        arguments = [name for name, _ in told if not name.startswith("-")]
        yield f"\n`{' '.join([context.command_path, *arguments, *['[OPTIONS]'] * (len(told) > len(arguments))])}`\n"
    if told:
        yield "\n"
        yield _table(("argument or option", "meaning"), ((f"`{name}`", meaning) for name, meaning in told))
    for name, one in grouped.items():
        if not one.hidden:
            yield from _command(one, typer.Context(one, info_name=name, parent=context), "###" if context.parent else marks)


def _named(option: str) -> str:
    """An option with what it takes, as people write it; an argument says that by its name."""
    name, _, kind = option.partition(" <")
    takes = _TAKEN.get(kind.rstrip(">"), kind.rstrip(">"))
    return f"{name} {takes}" if kind and name.startswith("-") else name


def with_table(text: str) -> str:
    """The text with the table of the settings in its place, if it has one."""
    return re.sub(f"{_BEGIN}.*?{_END}", lambda _: f"{_BEGIN}\n{settings_table()}{_END}", text, flags=re.DOTALL)


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Every page with its text as it should be."""
    readme = root / "README.md"
    return {
        root / SETTINGS_PAGE: settings_page(),
        root / FILES_PAGE: files_page(),
        root / COMMANDS_PAGE: commands_page(),
        readme: with_table(readme.read_text(encoding="utf-8")),
    }


def write() -> None:
    """Write every page again."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
