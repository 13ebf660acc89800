"""What somebody could put into the queues, or tell all workers, who has the broker's password and means harm: by name, as bytes."""

from __future__ import annotations

import base64
import json
import pickle
from typing import TYPE_CHECKING, Any

from worker.tasks import ADVANCE_RETIREMENTS, ADVANCE_ROTATIONS, SAMPLE_USE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HUGE = 30 << 20
"""Bytes of a body."""
DEEP = 100_000
ENDLESS = "((((.+)+)+)+)+!"
"""As a regular expression, it is tried for longer than anybody waits."""
TYPED: tuple[object, ...] = tuple(
    {"__type__": kind, "__value__": value}
    for kind in ("bytes", "base64", "date", "datetime", "time", "decimal", "uuid", "canary")
    for value in ("x", 7, {"canary": 1})
)
"""What kombu makes something else of, or fails to, as it reads."""
PLAIN: Mapping[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
WRITTEN_OTHERWISE = {
    "pickle": ("application/x-python-serialize", "pickle", "application/pickle"),
    "yaml": ("application/x-yaml", "yaml"),
    "nothing that is known": ("application/x-canary", "", "application/json; charset=pickle"),
}


class _Harm:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, evidence: Path) -> None:
        self._evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._evidence), "w")


def written(
    task: object = ADVANCE_ROTATIONS,
    arguments: object = (),
    named: object = None,
    *,
    embed: object = PLAIN,
    headers: object = None,
    properties: Mapping[str, object] | None = None,
    body: bytes | None = None,
    content_type: object = "application/json",
    encoding: object = "utf-8",
) -> bytes:
    """A message as kombu would have written it, but for what is given. `headers` that are no mapping stand for all of them."""
    content = json.dumps([arguments, {} if named is None else named, embed]).encode() if body is None else body
    ours = {
        "lang": "py",
        "task": task,
        "id": "canary",
        "root_id": "canary",
        "parent_id": None,
        "group": None,
        "argsrepr": "",
        "kwargsrepr": "",
    }
    return json.dumps(
        {
            "body": base64.b64encode(content).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {**ours, **headers} if isinstance(headers, dict) else ours if headers is None else headers,
            "properties": {
                "correlation_id": "canary",
                "reply_to": "canary",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "rollover.scheduled"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "canary",
                **(properties or {}),
            },
        }
    ).encode()


def hostile(evidence: Path, real_id: str) -> Iterator[tuple[str, bytes]]:
    """All of them. `evidence` is what code that was smuggled in would leave behind; `real_id` is a rotation that is at rest."""
    yield from _smuggled(evidence)
    yield from _tasks()
    yield from _ids(real_id)
    yield from _headers()
    yield from _embedded(real_id)
    yield from _bodies()
    yield from _envelopes()


def _smuggled(evidence: Path) -> Iterator[tuple[str, bytes]]:
    pickled = pickle.dumps(_Harm(evidence))
    yaml = f"!!python/object/apply:builtins.open ['{evidence}', 'w']".encode()
    for what, types in WRITTEN_OTHERWISE.items():
        for content_type in types:
            for encoding in ("utf-8", "binary"):
                yield (
                    f"{what} as {content_type!r} in {encoding}",
                    written(body=yaml if what == "yaml" else pickled, content_type=content_type, encoding=encoding),
                )
    yield "pickle that says it is JSON", written(body=pickled)
    yield "pickle in a signature", written(embed={**PLAIN, "callbacks": [_signature(ADVANCE_ROTATIONS, serializer="pickle")]})


def _tasks() -> Iterator[tuple[str, bytes]]:
    for task in (
        "os.system",
        "rollover.advance_everything",
        "worker.tasks.process.close",
        "",
        None,
        7,
        ["rollover.tick"],
        {"a": 1},
        "x" * 10_000,
    ):
        yield f"the task {str(task)[:40]!r}", written(task, [["id"]])
    for task in ("celery.map", "celery.starmap", "celery.chunks", "celery.group", "celery.chord", "celery.chain", "celery.backend_cleanup"):
        yield f"Celery's own {task}", written(task, [_signature(ADVANCE_ROTATIONS), [["id"]]])


def _ids(real_id: str) -> Iterator[tuple[str, bytes]]:
    odd: tuple[object, ...] = (
        "rot_unknown", "'; DROP TABLE rotations; --", "%", "' OR '1'='1", "", "\x00", "\ud800", "ä" * 1_000, "x" * 1_000_000, 0, -1, 1e308,
        None, True, [], {}, [[real_id]], {"id": real_id}, f"{real_id} ", f"{real_id}\x00", real_id.upper(), "../../etc/passwd", "${jndi:x}",
    )  # fmt: skip
    for task in (ADVANCE_ROTATIONS, ADVANCE_RETIREMENTS, SAMPLE_USE):
        for one in odd:
            yield f"{task} of {str(one)[:30]!r}", written(task, [[one]])
    for arguments in ([], [1], [None], ["rot"], [{"a": 1}], [["id"], ["id"]], [["id"] * 10_000], {"a": 1}, None, 7, "text"):
        yield f"the arguments {str(arguments)[:30]}", written(arguments=arguments)
    others: tuple[object, ...] = ({"ids": 7}, {"ids": ["id"], "more": 1}, {"self": 1}, [], 7, "text")
    for named in others:
        yield f"the named arguments {str(named)[:30]}", written(named=named)


def _headers() -> Iterator[tuple[str, bytes]]:
    times: tuple[object, ...] = (
        "9999-12-31T23:59:59+00:00",
        "0001-01-01T00:00:00+00:00",
        "yesterday",
        -1,
        1e308,
        "NaN",
        [],
        {},
        "2026-01-01T00:00:00+99:99",
    )
    for name in ("eta", "expires"):
        yield from ((f"{name} {one!r}", written(arguments=[["id"]], headers={name: one})) for one in times)
    others: Mapping[str, tuple[object, ...]] = {
        "retries": (-1, 1e9, "many", None, []),
        "timelimit": ([-1, -1], [1e308, 1e308], ["a", "b"], "soon", None, [None], {}),
        "id": (None, 7, [], {}, "x" * 100_000, "\x00"),
        "group": ({}, 7),
        "root_id": ({}, 7),
        "shadow": ({}, "x" * 100_000, 7),
        "origin": (7, {}),
        "lang": ("c", 7, None),
        "argsrepr": ({}, "x" * 1_000_000),
        "ignore_result": ("perhaps", 0),
        "stamped_headers": (7, ["x"], "x"),
        "stamps": (7, ["x"]),
        "compression": ("application/x-gzip", "zlib", "application/x-canary", 7),
        "replaced_task_nesting": ("deep", 1e9),
        "delivery_info": (7, {}),
    }
    for name, values in others.items():
        yield from ((f"{name} {str(one)[:30]!r}", written(arguments=[["id"]], headers={name: one})) for one in values)
    yield from ((f"headers that are {headers!r}", written(headers=headers)) for headers in (7, [], "text", [1]))
    yield "protocol 1", written(headers=False, body=json.dumps({"task": ADVANCE_ROTATIONS, "id": "x", "args": [["id"]]}).encode())
    yield "protocol 1 without a task", written(headers=False, body=b'{"id": 7}')


def _embedded(real_id: str) -> Iterator[tuple[str, bytes]]:
    signatures: tuple[object, ...] = (
        _signature("os.system"), _signature(ADVANCE_ROTATIONS), _signature(ADVANCE_ROTATIONS, countdown=-1),
        _signature(ADVANCE_ROTATIONS, queue="celery"), _signature(ADVANCE_ROTATIONS, exchange="canary", routing_key="canary"),
        {"task": None}, {}, 7, "text", [_signature(ADVANCE_ROTATIONS)],
    )  # fmt: skip
    for where in PLAIN:
        for signature in signatures:
            for given in (signature, [signature]):
                yield f"{where}: {str(given)[:60]}", written(arguments=[[real_id]], embed={**PLAIN, where: given})
    others: tuple[object, ...] = (None, 7, [], "text", {"canary": 1})
    yield from ((f"embedded {embed!r}", written(arguments=[["id"]], embed=embed)) for embed in others)


def _bodies() -> Iterator[tuple[str, bytes]]:
    for body in (b"", b"{", b"[]", b"[[]]", b"[1, 2, 3]", b"[[], {}, {}, {}]", b"null", b"\xff\xfe", b"[[NaN], {}, {}]"):
        yield f"the body {body!r}", written(body=body)
    yield "a body of many lists in lists", written(body=b"[" * DEEP + b"]" * DEEP)
    yield "an argument of many lists in lists", written(body=b"[[" + b"[" * DEEP + b"]" * DEEP + b"], {}, {}]")
    yield "a body of tens of megabytes", written(body=b'[[["' + b"x" * HUGE + b'"]], {}, {}]')
    yield "another body of tens of megabytes", written(body=b"[" + b"0," * (HUGE // 2) + b"0]")


def _envelopes() -> Iterator[tuple[str, bytes]]:
    whole = json.loads(written(arguments=[["id"]]))
    odd: tuple[Mapping[str, object], ...] = (
        {"body_encoding": "rot13"}, {"body_encoding": 7}, {"delivery_tag": None}, {"delivery_tag": []}, {"priority": "high"},
        {"delivery_info": None}, {"delivery_info": {}}, {"reply_to": "rollover.urgent"}, {"reply_to": 7}, {"correlation_id": {}},
    )  # fmt: skip
    for one in odd:
        yield f"properties {one}", written(arguments=[["id"]], properties=one)
    for name in whole:
        yield f"without {name}", json.dumps({key: value for key, value in whole.items() if key != name}).encode()
        yield f"{name} is null", json.dumps({**whole, name: None}).encode()
    for name in whole["properties"]:
        kept = {key: value for key, value in whole["properties"].items() if key != name}
        yield f"without the property {name}", json.dumps({**whole, "properties": kept}).encode()
    for raw in (
        b"",
        b"garbage",
        b"7",
        b"[]",
        b"null",
        b"{}",
        b'"text"',
        b"\xff\xfe\x00",
        b"{" * DEEP,
        *(b"[" * depth + b"]" * depth for depth in (*range(100, 1_000, 10), DEEP)),
        pickle.dumps({}),
        *(json.dumps(one).encode() for one in TYPED),
    ):
        yield f"no message at all: {raw[:60]!r} of {len(raw)}", raw
    for typed in TYPED:
        yield f"a header with {typed}", written(arguments=[["id"]], headers={"canary": typed})
        yield f"the ids {typed}", written(arguments=[typed])
    for body in ("\ud800", "ä"):
        yield f"a body that is {body!r}", json.dumps({**whole, "body": body}).encode()
    yield "a body in no encoding", json.dumps({**whole, "properties": {**whole["properties"], "body_encoding": None}}).encode()


def asked(method: object = "ping", *, clock: object = 1, body: bytes | None = None, **others: Any) -> bytes:  # noqa: ANN401 - anything
    """A question to all workers, as `celery inspect` would have published it, but for what is given."""
    question = {"method": method, "arguments": {}, "destination": None, "pattern": None, "matcher": None, **others}
    return written(headers={"clock": clock, "expires": 0}, body=json.dumps(question).encode() if body is None else body)


def hostile_questions() -> Iterator[tuple[str, bytes]]:
    """What nobody sends who only looks."""
    deep = (b"[" * DEEP, b'{"a":' * DEEP, *(b"[" * depth + b"]" * depth for depth in range(100, 1_000, 10)))
    typed = [json.dumps(one).encode() for one in TYPED]
    for raw in (b"garbage", b"7", b"[]", b"{}", b"\xff\xfe", *deep, *typed):
        yield f"no question at all: {raw[:60]!r}", raw
    for body in (b"", b"[]", b"7", b"null", b"\xff\xfe", *deep, *typed):
        yield f"a body that is {body[:60]!r}", asked(body=body)
    for matcher in ("pcre", "glob", "canary", None):
        yield f"whoever's name matches what never ends, by {matcher}", asked(pattern=ENDLESS, matcher=matcher)
    methods: tuple[object, ...] = ("canary", "", None, 7, [], {}, "shutdown")
    yield from ((f"the command {method!r}", asked(method)) for method in methods)
    clocks: tuple[object, ...] = (10**4_000, 1 << 63, -1, 1e308, float("inf"), float("nan"), "late", [], {})
    yield from ((f"the clock {str(clock)[:20]}", asked(clock=clock)) for clock in clocks)
    answered: Mapping[str, Any] = {"exchange": "reply.celery.pidbox", "routing_key": "canary"}
    others: Mapping[str, tuple[Any, ...]] = {
        "arguments": (
            [], 7, "text", {"canary": 1}, {"safe": "canary"}, {"taskinfoitems": ["backend"]},
            {"ids": 7}, {"ids": ["id"] * 1_000}, {"ids": [[]]}, {"ids": ["x" * 1_000] * 1_000},
        ),
        "destination": ("celery", 7, {}, [7], ["x"] * 1_000, ["x" * 10_000]),
        "reply_to": (
            "text", 7, [], {}, {**answered, "exchange": "rollover", "routing_key": "rollover.urgent"}, {**answered, "routing_key": 7},
            {**answered, "routing_key": "x" * 10_000}, {**answered, "canary": 1}, {"exchange": "reply.celery.pidbox"},
        ),
        "ticket": ({}, 7, "x" * 10_000),
        "state": (7,),
    }  # fmt: skip
    for name, values in others.items():
        yield from ((f"{name} {str(one)[:60]!r}", asked("query_task", **{name: one})) for one in values)
    yield "tasks to pass over", asked("hello", arguments={"from_node": "canary", "revoked": ["canary that was revoked"]})


def _signature(task: str, **options: object) -> dict[str, object]:
    return {"task": task, "args": [["id"]], "kwargs": {}, "options": options, "subtask_type": None, "immutable": True}
