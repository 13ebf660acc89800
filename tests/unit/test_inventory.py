from __future__ import annotations

import tomllib
from contextlib import suppress
from datetime import time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from rotation.errors import Fault, Invalid
from rotation.model import Endpoint, Login, SecretTemplate, Window
from rotation.sensitive import Sensitive
from rotation.states import InUse, PushBy
from rotation.vercel.template_sets import TEMPLATE_SETS
from worker.inventory import ResourceFile, Rules, ServerFile, parse_resource, parse_server, read_resource, read_server
from worker.settings import load
from worker.toml_lines import line_of, lines_of

unhurried = run_with(deadline=None)  # a busy machine is no fault

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CANARY = "CANARYqT7x"
SERVER = """\
name = "pg-eu-1"
engine = "postgresql"
host = "db.example.com"
port = 5432
admin_url_env = "PG_ADMIN_URL"
"""
TOP = """\
installation = "icfg_1"
id = "store_42"
product = "postgres"
engine = "postgresql"
owns_all_secrets = true
"""
DATABASE = """\
[database]
server = "pg-eu-1"
name = "orders"
owner_role = "orders_owner"
login_prefix = "orders"
"""
SECRETS = """\
[[secrets]]
name = "DATABASE_URL"
value = "postgresql://{username}:{password}@{host}:{port}/{database}"
"""
RULES = Rules()


def resource(text: str, rules: Rules = RULES, environ: dict[str, str] | None = None, directory: Path = Path("/nowhere")) -> ResourceFile:
    return parse_resource(text, directory, rules, environ or {})


def with_policy(text: str) -> str:
    return f"{TOP}{DATABASE}[policy]\n{text}\n{SECRETS}"


def resource_faults(
    text: str, rules: Rules = RULES, environ: dict[str, str] | None = None, directory: Path = Path("/nowhere")
) -> dict[str, Fault]:
    with pytest.raises(Invalid) as refusal:
        resource(text, rules, environ, directory)
    return by_field(refusal.value)


def server_faults(text: str, rules: Rules = RULES) -> dict[str, Fault]:
    with pytest.raises(Invalid) as refusal:
        parse_server(text, Path("/etc"), rules)
    return by_field(refusal.value)


def by_field(refusal: Invalid) -> dict[str, Fault]:
    assert CANARY not in str(refusal)
    return {fault.field: fault for fault in refusal.faults}


def test_the_example_of_a_resource_is_read(tmp_path: Path) -> None:
    (tmp_path / "orders.password").write_text("secret\n")
    (tmp_path / "orders.password").chmod(0o600)
    (tmp_path / "resource.toml").write_text((EXAMPLES / "resource.toml").read_text())
    read = read_resource(tmp_path / "resource.toml", RULES, {})
    assert read.warnings == ()
    assert read.current == Login("orders_app", Sensitive("secret"))
    spec = read.spec
    assert (spec.installation_id, spec.external_id, spec.product, spec.engine) == ("icfg_1", "store_42", "postgres", "postgresql")
    assert spec.owns_all_secrets
    assert spec.database.endpoints == (Endpoint("pooled", "pool.example.com", 6432),)
    assert spec.policy.every == timedelta(days=30)
    assert spec.policy.window == Window(time(1), time(5))
    assert spec.policy.in_use_cap == timedelta(hours=72)
    assert [secret.name for secret in spec.secrets] == ["DATABASE_URL", "DATABASE_URL_UNPOOLED"]
    assert dict(spec.secrets[0].overrides).keys() == {"development"}


def test_the_example_of_a_server_is_read(tmp_path: Path) -> None:
    for name in ("pg-eu-1.pem", "pg-eu-1.admin"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "server.toml").write_text((EXAMPLES / "server.toml").read_text())
    read = read_server(tmp_path / "server.toml", RULES)
    assert read.warnings == ()
    assert read.server.sslmode == "verify-full"
    assert read.server.sslrootcert == str(tmp_path / "pg-eu-1.pem")
    assert read.server.admin_url_file == str(tmp_path / "pg-eu-1.admin")


def test_what_a_file_does_not_say_is_filled_in() -> None:
    spec = resource(TOP + DATABASE + SECRETS).spec
    assert spec.push_by is PushBy.RESOURCE
    assert spec.notify
    assert spec.password_length == 32
    assert (spec.policy.every, spec.policy.cron, spec.policy.grace) == (None, None, timedelta(hours=24))
    assert spec.policy.grace_vercel == timedelta(hours=1)


@pytest.mark.parametrize(
    ("line", "jitter"),
    [
        ('every = "10d"', timedelta(hours=6)),
        ('every = "10h"', timedelta(hours=1)),
        ('cron = "0 3 * * SUN"', timedelta(0)),
        ("", timedelta(0)),
    ],
)
def test_a_fleet_is_spread_unless_its_files_say_otherwise(line: str, jitter: timedelta) -> None:
    assert resource(f"{TOP}{DATABASE}[policy]\n{line}\n{SECRETS}").spec.policy.jitter == jitter


def test_settings_fill_in_for_what_a_file_does_not_say() -> None:
    spec = resource(TOP + DATABASE + SECRETS, Rules(push_by=PushBy.PRODUCT, grace_vercel=timedelta(hours=3))).spec
    assert spec.push_by is PushBy.PRODUCT
    assert spec.policy.grace_vercel == timedelta(hours=3)


def test_the_rules_follow_the_settings() -> None:
    settings = load(
        {"HOME": "/", "ROLLOVER_VERCEL_ENDPOINT": "product", "ROLLOVER_MAX_GRACE": "10d", "ROLLOVER_ALLOW_PRIVATE_HOSTS": "yes"}
    )
    rules = Rules.of(settings)
    assert (rules.push_by, rules.max_grace, rules.allow_private_hosts) == (PushBy.PRODUCT, timedelta(days=10), True)


@pytest.mark.parametrize("name", sorted(TEMPLATE_SETS))
def test_every_ready_set_can_be_pushed(name: str) -> None:
    pooled = '[database.pooled]\nhost = "pool.example.com"\nport = 6432\n'
    assert resource(f'{TOP}template_set = "{name}"\n{DATABASE}{pooled}').spec.secrets == TEMPLATE_SETS[name]


def test_every_key_of_a_resource_is_understood() -> None:
    text = f"""{TOP}
endpoint = "product"
notify = false
password_length = 48
prefix = "ACME"
{DATABASE}
[policy]
cron = "0 3 * * SUN"
timezone = "Europe/Berlin"
window = "22:00-02:00"
jitter = "1h30m"
grace = "2.5h"
grace_vercel = "30m"
in_use = "proceed"
in_use_vercel = "wait"
quiet = "1h"
blocked = "15s"
[[secrets]]
name = "A"
value = "{{password}}"
prefix = "MINE"
preview = "{{username}}"
production = "{{host}}"
[[secrets]]
name = "B"
value = "{{password}}"
"""
    spec = resource(text).spec
    assert spec.push_by is PushBy.PRODUCT
    assert not spec.notify
    assert spec.password_length == 48
    assert spec.policy.window == Window(time(22), time(2))
    assert spec.policy.jitter == timedelta(minutes=90)
    assert spec.policy.in_use is InUse.PROCEED
    assert spec.policy.in_use_vercel is InUse.WAIT
    assert spec.secrets == (
        SecretTemplate("A", "{password}", "MINE", (("preview", "{username}"), ("production", "{host}"))),
        SecretTemplate("B", "{password}", "ACME"),
    )


def test_a_template_set_is_added_to_and_replaced_by_name() -> None:
    ready = Rules(template_sets={"ready": (SecretTemplate("PGUSER", "{username}"), SecretTemplate("DATABASE_URL", "old"))})
    secrets = resource(f'{TOP}template_set = "ready"\n{DATABASE}{SECRETS}', ready).spec.secrets
    assert [(one.name, one.value[:4]) for one in secrets] == [("DATABASE_URL", "post"), ("PGUSER", "{use")]


def test_a_template_set_that_is_not_known_is_a_fault() -> None:
    ready = Rules(template_sets={"postgresql": (SecretTemplate("PGUSER", "{username}"),)})
    found = resource_faults(f'{TOP}template_set = "postgres"\n{DATABASE}', ready)
    assert found["template_set (line 6)"].advice == "did you mean postgresql?"


def test_a_fault_of_a_template_set_names_the_set() -> None:
    ready = Rules(template_sets={"ready": (SecretTemplate("A", "{password}{pooled.host}"),)})
    found = resource_faults(f'{TOP}template_set = "ready"\n{DATABASE}', ready)
    assert found["template_set (line 6)"].problem == "A of it: unknown placeholder {pooled.host}"


def test_every_fault_of_a_file_is_told_at_once_with_its_line() -> None:
    text = """\
installation = "icfg/1"
id = 42
prodcut = "postgres"
engine = "postgres"
notify = "yes"
[database]
server = "pg-eu-1"
name = "orders"
login_prefix = "Orders"
[database.pooled]
host = "pool:6432"
port = 70000
[policy]
every = "30"
cron = "0 3 * *"
timezone = "Europe/Berln"
window = "1-5"
grace = "-1h"
[[secrets]]
name = "DATABASE_URL"
value = "{passwrd}"
[[secrets]]
name = "1X"
value = "{password}"
preveiw = "x"
"""
    found = resource_faults(text)
    assert list(found) == [
        "product",
        "owns_all_secrets",
        "installation (line 1)",
        "id (line 2)",
        "prodcut (line 3)",
        "engine (line 4)",
        "notify (line 5)",
        "database.owner_role (line 6)",
        "database.login_prefix (line 9)",
        "database.pooled.host (line 11)",
        "database.pooled.port (line 12)",
        "policy.every (line 14)",
        "policy.timezone (line 16)",
        "policy.window (line 17)",
        "policy.grace (line 18)",
        "secrets[0].value (line 21)",
        "secrets[1].name (line 23)",
        "secrets[1].preveiw (line 25)",
    ]
    assert found["prodcut (line 3)"].advice == "did you mean product?"
    assert found["engine (line 4)"].advice == "did you mean postgresql?"
    assert found["secrets[1].preveiw (line 25)"].advice == "did you mean preview?"
    assert "no default" in found["owns_all_secrets"].advice


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ('every = "30d"', "it belongs into [policy]"),
        ('login_prefix = "x"', "it belongs into [database]"),
        ('password_file = "x"', "it belongs into [current]"),
        ('value = "x"', "it belongs into [[secrets]]"),
        ('server = "x"', "it belongs into [database]"),
        ('zzz = "x"', ""),
    ],
)
def test_a_key_in_the_wrong_table_is_told_its_place(key: str, advice: str) -> None:
    found = resource_faults(f"{TOP}{key}\n{DATABASE}{SECRETS}")
    assert [fault.advice for fault in found.values()] == [advice]


def test_a_key_that_slipped_below_a_table_is_told_its_place() -> None:
    found = resource_faults(f"{TOP}{DATABASE}notify = true\n{SECRETS}")
    assert found["database.notify (line 11)"].advice == "it belongs at the top of the file, before the first table"


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        ('every = "30d"\ncron = "0 3 * * SUN"', "policy.cron", "beside"),
        ('cron = "61 3 * * SUN"', "policy.cron", "not understood"),
        ('cron = "0 0 30 2 *"', "policy.cron", "not understood"),
        ('cron = "0 3 * * * *"', "policy.cron", "five fields"),
        ("cron = 3", "policy.cron", "text in quotes"),
        ('timezone = "Mars/Olympus"', "policy.timezone", "IANA"),
        ('timezone = "../etc/passwd"', "policy.timezone", "IANA"),
        ('window = "25:00-05:00"', "policy.window", "two times"),
        ('window = "05:00-05:00"', "policy.window", "ends when it begins"),
        ("window = 5", "policy.window", "two times"),
        ('every = "0s"', "policy.every", "longer than nothing"),
        ('every = ""', "policy.every", "empty"),
        ("every = 30", "policy.every", "text in quotes"),
        ('every = "9999w"', "policy.every", "ten years"),
        ('every = "1h"\njitter = "1h"', "policy.jitter", "shorter"),
        ('grace = "31d"', "policy.grace", "ROLLOVER_MAX_GRACE"),
        ('grace_vercel = "31d"', "policy.grace_vercel", "ROLLOVER_MAX_GRACE"),
        ('in_use = "go"', "policy.in_use", "'wait' or 'proceed'"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(line: str, field: str, problem: str) -> None:
    found = resource_faults(with_policy(line))
    assert [name.split(" ")[0] for name in found] == [field]
    assert problem in next(iter(found.values())).problem


@pytest.mark.parametrize(
    ("line", "warnings"),
    [('every = "1h"\ngrace = "24h"', ["up to 26 logins"]), ('grace = "0s"', ["zero"]), ('every = "30d"', [])],
)
def test_a_doubtful_policy_is_read_with_a_warning(line: str, warnings: list[str]) -> None:
    found = resource(with_policy(line)).warnings
    assert [warning in str(one) for warning, one in zip(warnings, found, strict=True)] == [True] * len(warnings)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('"orders_owner"', f'"{"o" * 64}"'), "longer than 63 bytes"),
        (('"orders_owner"', f'"{"ü" * 32}"'), "longer than 63 bytes"),
        (('"orders_owner"', '""'), "at least 1"),
        (('"orders_owner"', '"a\\u0000b"'), "control"),
        (('login_prefix = "orders"', f'login_prefix = "{"o" * 41}"'), "longer than 40"),
        (('login_prefix = "orders"', 'login_prefix = "1orders"'), "not begin with a digit"),
        (('login_prefix = "orders"', 'login_prefix = "pg_orders"'), "keeps for itself"),
        (('login_prefix = "orders"', 'login_prefix = "orders\\n"'), "must be of"),
    ],
)
def test_a_name_that_the_database_would_not_take_is_refused(change: tuple[str, str], problem: str) -> None:
    found = resource_faults(TOP + DATABASE.replace(*change) + SECRETS)
    assert [problem in fault.problem for fault in found.values()] == [True]


@pytest.mark.parametrize("name", [".", "..", "a\\u001bb", " a", ""])
def test_an_id_that_a_path_would_lose_is_refused(name: str) -> None:
    assert "id (line 2)" in resource_faults(TOP.replace('"store_42"', f'"{name}"') + DATABASE + SECRETS)


@pytest.mark.parametrize("length", ["31", "129", "true", '"32"', "32.0"])
def test_a_password_is_long_but_not_endless(length: str) -> None:
    assert "password_length (line 6)" in resource_faults(f"{TOP}password_length = {length}\n{DATABASE}{SECRETS}")


@pytest.mark.parametrize("name", ["Pooled", "1x", "a-b", '"a b"', '"\\u001b[31m"'])
def test_an_endpoint_has_a_name_that_templates_can_use(name: str) -> None:
    found = resource_faults(f'{TOP}{DATABASE}[database.{name}]\nhost = "h.example.com"\nport = 1\n{SECRETS}')
    assert ["not the name of an endpoint" in fault.problem for fault in found.values()] == [True]
    assert all(field.isprintable() for field in found)


def test_an_endpoint_called_as_the_pages_call_it_is_still_a_fault() -> None:
    found = resource_faults(f'{TOP}{DATABASE}[database."[NAME]"]\nhost = 3\n{SECRETS}')
    assert "database.host (line 6)" in found


def test_a_mistyped_key_beside_endpoints_is_not_taken_for_one() -> None:
    found = resource_faults(TOP + DATABASE.replace("owner_role", "owner_rol") + SECRETS)
    assert found["database.owner_rol (line 9)"].advice == "did you mean owner_role?"


def test_a_table_that_is_none_is_a_fault() -> None:
    found = resource_faults(f'{TOP}database = "orders"\npolicy = 3\nsecrets = "x"\ncurrent = true\n')
    assert {name.split(" ")[0]: fault.problem for name, fault in found.items()} == {
        "database": "must be a table",
        "policy": "must be a table",
        "secrets": "must be a list",
        "current": "must be a table",
    }


def test_an_empty_file_misses_everything_that_is_needed() -> None:
    assert {"installation", "id", "product", "engine", "owns_all_secrets", "database", "secrets"} == resource_faults("").keys()
    assert {"name", "engine", "host", "port", "admin_url_file"} == server_faults("").keys()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f'a = "b"\nc = {CANARY}\n', "line 2, column 5"),
        ('a = "b', "end of document"),
        ("a = 1\na = 2\n", "line 2, column 6"),
        ("a = " + "[" * 5_000, "file"),
        ("a = " + "9" * 5_000, "file"),
    ],
)
def test_what_is_not_toml_is_told_with_its_place(text: str, field: str) -> None:
    found = resource_faults(text)
    assert list(found) == [field]
    assert "is not TOML" in found[field].problem


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"#" * 600_000)
    for name, problem in (("none", "No such file"), ("binary", "UTF-8"), ("large", "too large"), (".", "directory")):
        with pytest.raises(Invalid, match=problem):
            read_server(tmp_path / name, RULES)


def test_no_fault_repeats_a_value_of_a_secret() -> None:
    found = resource_faults(
        f'{TOP}{DATABASE}[[secrets]]\nname = "A"\nvalue = ["{CANARY}"]\n[[secrets]]\nname = "B"\nvalue = "{CANARY}{{"\n'
    )
    assert {name.split(" ")[0] for name in found} == {"secrets[0].value", "secrets[1].value"}


def test_a_resource_without_a_current_login_is_empty() -> None:
    assert resource(TOP + DATABASE + SECRETS).current is None


def test_the_current_password_can_stand_in_a_variable() -> None:
    text = f'{TOP}{DATABASE}{SECRETS}[current]\nusername = "Orders App"\npassword_env = "ORDERS_PASSWORD"\n'
    assert resource(text, environ={"ORDERS_PASSWORD": CANARY}).current == Login("Orders App", Sensitive(CANARY))
    assert CANARY not in repr(resource(text, environ={"ORDERS_PASSWORD": CANARY}))
    assert "not set" in resource_faults(text)["current.password_env (line 16)"].problem


@pytest.mark.parametrize(
    ("lines", "field", "problem"),
    [
        ("", "current.password_file", "missing"),
        ('password_file = "a"\npassword_env = "B"', "current.password_file", "beside"),
        ('password_file = "none"', "current.password_file", "No such file"),
        ('password_file = "empty"', "current.password_file", "empty"),
        ('password_env = "$PASSWORD"', "current.password_env", "not the name"),
        ('password_env = "ROLLOVER_PASSWORD"', "current.password_env", "for settings"),
    ],
)
def test_a_current_login_without_its_password_is_refused(tmp_path: Path, lines: str, field: str, problem: str) -> None:
    (tmp_path / "empty").write_text("\n")
    found = resource_faults(f'{TOP}{DATABASE}{SECRETS}[current]\nusername = "a"\n{lines}\n', directory=tmp_path)
    assert [(name.split(" ")[0], problem in fault.problem) for name, fault in found.items()] == [(field, True)]


def test_a_password_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(CANARY)
    (tmp_path / "password").chmod(0o644)
    text = f'{TOP}{DATABASE}{SECRETS}[current]\nusername = "a"\npassword_file = "password"\n'
    read = resource(text, directory=tmp_path)
    assert [str(one) for one in read.warnings] == [
        "current.password_file (line 16): names a file that others on this machine can read or change (chmod 600)",
    ]


def server(text: str, rules: Rules = RULES) -> ServerFile:
    return parse_server(text, Path("/etc"), rules)


def test_a_server_is_read_with_its_defaults() -> None:
    read = server(SERVER).server
    assert (read.name, read.engine, read.host, read.port) == ("pg-eu-1", "postgresql", "db.example.com", 5432)
    assert (read.sslmode, read.sslrootcert, read.admin_url_env, read.connections) == ("verify-full", None, "PG_ADMIN_URL", 8)


def test_the_systems_authorities_are_no_file() -> None:
    read = server(SERVER + 'sslrootcert = "system"\n')
    assert read.server.sslrootcert == "system"
    assert read.warnings == ()


def test_a_file_that_is_not_there_is_warned_of() -> None:
    read = server(SERVER + 'sslrootcert = "no/such.pem"\n')
    assert read.server.sslrootcert == "/etc/no/such.pem"
    assert "cannot be read from here" in str(read.warnings[0])


@pytest.mark.parametrize("host", ["db.example.com", "db.example.com.", "db", "10.0.0.1", "2001:db8::1", "my_db.internal"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert server(SERVER.replace("db.example.com", host)).server.host == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "[2001:db8::1]",
        "db:5432",
        "/run/postgresql",
        "a,b",
        f"{CANARY}@db",
        "-a",
        "a..b",
        "127.1",
        "2130706433",
        "256.1.1.1",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "ä.example.com",
        "a\\nb",
        "fe80::1%eth0",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    assert server_faults(SERVER.replace("db.example.com", host)).keys() == {"host (line 3)"}


GUARDED = ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1"]


@pytest.mark.parametrize("host", [*GUARDED, "metadata.google.internal", "fd00:ec2::254", "::ffff:127.0.0.1"])
def test_a_guarded_host_needs_a_setting(host: str) -> None:
    text = SERVER.replace("db.example.com", host)
    assert "ROLLOVER_ALLOW_PRIVATE_HOSTS" in server_faults(text)["host (line 3)"].advice
    assert server(text, Rules(allow_private_hosts=True)).server.host == host
    pooled = f'{TOP}{DATABASE}[database.pooled]\nhost = "{host}"\nport = 1\n{SECRETS}'
    assert "database.pooled.host (line 12)" in resource_faults(pooled)


@pytest.mark.parametrize("mode", ["require", "disable"])
def test_a_server_that_is_not_verified_needs_a_setting(mode: str) -> None:
    text = f'{SERVER}sslmode = "{mode}"\n'
    assert "does not verify" in server_faults(text)["sslmode (line 6)"].problem
    assert server(text, Rules(allow_private_hosts=True)).server.sslmode == mode


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('sslmode = "prefer"', "sslmode"),
        ('admin_url_file = "x"', "admin_url_file"),
        ("connections = 0", "connections"),
        ("connections = true", "connections"),
        ('conections = "x"', "conections"),
        (f'admin_url = "postgresql://a:{CANARY}@b/c"', "admin_url"),
    ],
)
def test_a_wrong_server_is_refused(line: str, field: str) -> None:
    assert server_faults(f"{SERVER}{line}\n").keys() == {f"{field} (line 6)"}


@pytest.mark.parametrize("port", ["0", "65536", '"5432"', "true", "54.0"])
def test_a_port_is_a_number_within_its_range(port: str) -> None:
    assert server_faults(SERVER.replace("5432", port)).keys() == {"port (line 4)"}


def test_an_admin_is_named_by_a_variable_that_is_not_a_setting() -> None:
    assert "for settings" in server_faults(SERVER.replace("PG_ADMIN_URL", "ROLLOVER_ADMIN"))["admin_url_env (line 5)"].problem


def test_lines_are_found_through_every_form_of_toml() -> None:
    text = '''\
# comment
a.b = 1
"c d" = """
x = 1
[no]
"""
[t.u] # comment
v = { w = 1 }
[[l]]
x = 1
[[l]]
x = 2
[l.y]
z = 3
'''
    lines = lines_of(text)
    assert (lines["a", "b"], lines["c d",], lines["t", "u"], lines["t", "u", "v"]) == (2, 3, 7, 8)
    assert (lines["l", 0, "x"], lines["l", 1, "x"], lines["l", 1, "y", "z"]) == (10, 12, 14)
    assert line_of(lines, ("t", "u", "v", "w")) == 8
    assert line_of(lines, ("no",)) is None


@unhurried
@given(st.text())
def test_no_text_makes_reading_fail_otherwise(text: str) -> None:
    with suppress(Invalid):
        resource(text)


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "value", "host", "pooled", "x"]), inner),
        max_leaves=8,
    ),
    st.sampled_from(["installation", "database", "policy", "secrets", "current", "engine", "owns_all_secrets", "x"]),
)
def test_no_shape_makes_checking_fail_otherwise(shape: object, key: str) -> None:
    text = f"{key} = {_toml(shape)}\n"
    with suppress(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    with pytest.raises(Invalid):
        resource(text)


def _toml(shape: object) -> str:
    match shape:
        case dict():
            return "{" + ", ".join(f"{key} = {_toml(value)}" for key, value in shape.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, shape)) + "]"
        case bool():
            return str(shape).lower()
        case str():
            return '"' + shape.encode("ascii", "backslashreplace").decode().replace("\\", "").replace('"', "").replace("\n", "") + '"'
        case None:
            return '""'
        case _:
            return str(shape)
