"""What Django's backend connects with, as arguments of asyncpg."""

import inspect
import os
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from asyncpg import connect_utils
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg import pq

from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener.parameters import asyncpg_arguments

CONFIG: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "shop",
    "USER": "web",
    "PASSWORD": "p@ss w/ord",
    "HOST": "db.example.com",
    "PORT": "6432",
    "OPTIONS": {},
    "TIME_ZONE": None,
}

#: Every parameter of libpq (PostgreSQL 18, manual, 34.1.2, and `servicefile` of 19) but those that CONFIG has and those
#: of services, and what Django and psycopg add: values with which it becomes arguments, or means nothing ({}), or is
#: refused (None).
KEYWORDS: dict[str, dict[Any, dict[str, Any] | None]] = {
    "hostaddr": {"10.0.0.1": None},
    "passfile": {"/etc/pgpass": {"passfile": "/etc/pgpass"}},
    "require_auth": {"scram-sha-256": None, "!password": None, "": {}},
    "channel_binding": {"disable": {}, "prefer": {}, "require": None},
    "connect_timeout": {"3": {"timeout": 3.0}, 3: {"timeout": 3.0}, 0: {}, "-1": {}},
    "client_encoding": {"LATIN1": {}},
    "options": {"": {}},
    "application_name": {"": {}},
    "fallback_application_name": {"x": {}},
    "keepalives": {0: {}, 1: {}},
    "keepalives_idle": {30: {}},
    "keepalives_interval": {30: {}},
    "keepalives_count": {3: {}},
    "tcp_user_timeout": {1000: {}},
    "replication": {"database": None, "true": None, "on": None, "yes": None, "1": None, "false": {}, "off": {}},
    "gssencmode": {"disable": {}, "prefer": {}, "require": None},
    "sslmode": {"disable": {"dsn": "postgresql://?sslmode=disable"}},
    "sslnegotiation": {"direct": {"dsn": "postgresql://?sslnegotiation=direct"}},
    "sslcompression": {0: {}, 1: {}},
    "sslcert": {"me.pem": {"dsn": "postgresql://?sslcert=me.pem"}},
    "sslkey": {"me.key": {"dsn": "postgresql://?sslkey=me.key"}},
    "sslkeylogfile": {"keys.log": {}},
    "sslpassword": {"secret": {"dsn": "postgresql://?sslpassword=secret"}},
    "sslcertmode": {"allow": {}, "disable": None, "require": None},
    "sslrootcert": {"ca.pem": {"dsn": "postgresql://?sslrootcert=ca.pem"}},
    "sslcrl": {"revoked.pem": {"dsn": "postgresql://?sslcrl=revoked.pem"}},
    "sslcrldir": {"/etc/revoked": None},
    "sslsni": {1: {}, 0: None},
    "requirepeer": {"postgres": None},
    "ssl_min_protocol_version": {"TLSv1.2": {"dsn": "postgresql://?ssl_min_protocol_version=TLSv1.2"}},
    "ssl_max_protocol_version": {"TLSv1.3": {"dsn": "postgresql://?ssl_max_protocol_version=TLSv1.3"}},
    "min_protocol_version": {"3.0": {}, "3.2": None, "latest": None},
    "max_protocol_version": {"3.0": {}, "latest": {}},
    "krbsrvname": {"pg": {"krbsrvname": "pg"}},
    "gsslib": {"gssapi": {"gsslib": "gssapi"}},
    "gssdelegation": {0: {}, 1: None},
    "scram_client_key": {"key": None},
    "scram_server_key": {"key": None},
    "target_session_attrs": {"read-write": {"target_session_attrs": "read-write"}},
    "load_balance_hosts": {"disable": {}, "random": {}},
    "oauth_issuer": {"https://example.com": None},
    "oauth_client_id": {"djcrf": None},
    "oauth_client_secret": {"secret": None},
    "oauth_scope": {"scope": None},
    # Django's own, and psycopg's.
    "isolation_level": {3: {}},
    "server_side_binding": {True: {}},
    "pool": {True: {}},
    "assume_role": {"owner": {}},
    "cursor_factory": {object: {}},
    "prepare_threshold": {5: {}},
    "context": {object: {}},
    "row_factory": {object: {}},
    "autocommit": {True: {}},
}

VALUES = [
    pytest.param(name, value, expected, id=f"{name}={value}")
    for name, values in KEYWORDS.items()
    for value, expected in values.items()
]


def parameters(**config: Any) -> dict[str, Any]:
    """What Django's backend connects with for these entries of ``DATABASES``."""
    return DatabaseWrapper({**CONFIG, **config}, "default").get_connection_params()


def arguments(**options: Any) -> dict[str, Any]:
    """The arguments for these ``OPTIONS``."""
    return asyncpg_arguments(parameters(OPTIONS=options))


def session(**options: Any) -> dict[str, str]:
    """The server settings for these ``OPTIONS``."""
    settings: dict[str, str] = arguments(**options)["server_settings"]
    return settings


def of_asyncpg(given: dict[str, Any]) -> tuple[Any, Any]:
    """What asyncpg makes of arguments: addresses and parameters, without connecting."""
    signature = inspect.signature(asyncpg.connect).parameters
    assert given.keys() <= signature.keys(), "asyncpg.connect takes no other arguments"
    names = inspect.signature(connect_utils._parse_connect_dsn_and_args).parameters
    defaults = {name: signature[name].default for name in names}
    return connect_utils._parse_connect_dsn_and_args(**{**defaults, **{k: v for k, v in given.items() if k in names}})


def parsed(**options: Any) -> tuple[Any, Any]:
    """What asyncpg makes of these ``OPTIONS``."""
    return of_asyncpg(arguments(**options))


@pytest.fixture(autouse=True)
def _no_libpq_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


def test_the_address_and_who_we_are() -> None:
    given = arguments()
    server_settings = given.pop("server_settings")
    assert given == {
        "host": "db.example.com",
        "port": 6432,
        "user": "web",
        "password": "p@ss w/ord",
        "database": "shop",
    }
    assert server_settings["application_name"].startswith("djcrf_pg listener ")
    addresses, params = parsed()
    assert addresses == [("db.example.com", 6432)]
    assert (params.user, params.password, params.database) == ("web", "p@ss w/ord", "shop")


@pytest.mark.parametrize("empty", ["", None])
def test_what_is_not_set_is_left_to_asyncpg(empty: str | None) -> None:
    config = dict.fromkeys(("USER", "PASSWORD", "HOST", "PORT"), empty)
    assert asyncpg_arguments(parameters(**config)).keys() == {"server_settings", "database"}


def test_the_host_may_be_the_folder_of_a_socket() -> None:
    given = asyncpg_arguments(parameters(HOST="/run/postgresql"))
    assert given["host"] == "/run/postgresql"


def test_several_hosts_have_a_port_each() -> None:
    given = asyncpg_arguments(parameters(HOST="a,b", PORT="1,2"))
    assert (given["host"], given["port"]) == (["a", "b"], [1, 2])


@pytest.mark.parametrize(("name", "value", "expected"), VALUES)
def test_each_parameter_is_translated_or_left_out_or_refused(
    name: str, value: Any, expected: dict[str, Any] | None
) -> None:
    if expected is None:
        with pytest.raises(ConfigurationError, match=f"'{name}[='].*LISTENER_DATABASE"):
            arguments(**{name: value})
        return
    given, plain = arguments(**{name: value}), arguments()
    # That of another second, or another name, is no difference.
    assert given.pop("server_settings").keys() == plain.pop("server_settings").keys()
    assert given == {**plain, **expected}


def test_no_parameter_of_this_libpq_goes_unnoticed() -> None:
    named = KEYWORDS.keys() | {"host", "port", "dbname", "user", "password", "service", "servicefile"}
    for keyword in {option.keyword.decode() for option in pq.Conninfo.get_defaults()} - named:
        with pytest.raises(ConfigurationError, match=f"'{keyword}'"):
            arguments(**{keyword: "a value"})


def test_what_is_refused_may_be_a_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        arguments(oauth_client_secret="hush", scram_client_key="hush", channel_binding="require")
    assert "'channel_binding=require', 'oauth_client_secret', 'scram_client_key'" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("config", [{"PORT": "5432a"}, {"OPTIONS": {"connect_timeout": "soon"}}])
def test_what_is_no_number_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"its (port|connect_timeout) is '\w+', which is no number"):
        asyncpg_arguments(parameters(**config))


def test_options_together_with_a_dsn_for_tls_keep_the_address() -> None:
    addresses, params = parsed(sslmode="disable", ssl_min_protocol_version="TLSv1.2", connect_timeout=3)
    assert addresses == [("db.example.com", 6432)]
    assert (params.user, params.password, params.database) == ("web", "p@ss w/ord", "shop")
    assert not params.ssl
    assert params.server_settings.keys() == session().keys(), "no option of TLS has become a setting of the session"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_tls_options_reach_asyncpgs_context(mode: str, tmp_path: Path) -> None:
    bundle = ssl.get_default_verify_paths().cafile or ""
    root = tmp_path / "a folder & more" / "ca.pem"
    root.parent.mkdir()
    if not Path(bundle).is_file():
        pytest.skip("no bundle of root certificates on this machine")
    root.write_bytes(Path(bundle).read_bytes())
    _, params = parsed(
        sslmode=mode,
        sslrootcert=str(root),
        ssl_min_protocol_version="TLSv1.3",
        ssl_max_protocol_version="TLSv1.3",
        sslnegotiation="direct",
    )
    assert params.ssl.check_hostname is (mode == "verify-full")
    assert params.ssl.minimum_version is ssl.TLSVersion.TLSv1_3
    assert params.ssl.get_ca_certs(), "the file was read"
    assert params.ssl_negotiation is connect_utils.SSLNegotiation.direct
    assert params.server_settings.keys() == session().keys()


def test_tls_options_without_a_name_leave_the_database_to_the_user() -> None:
    given = asyncpg_arguments(parameters(OPTIONS={"sslmode": "disable"}))
    del given["database"]
    assert of_asyncpg(given)[1].database == "web"


def test_the_systems_root_certificates_are_a_file_for_asyncpg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "roots.pem"
    bundle.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    dsn = arguments(sslrootcert="system")["dsn"]
    assert parse_qs(urlsplit(dsn).query) == {"sslmode": ["verify-full"], "sslrootcert": [str(bundle)]}
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match=r"'sslrootcert=system'.*SSL_CERT_FILE"):
        arguments(sslrootcert="system")


def test_unknown_options_are_refused_by_name_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match=r"'hostaddr', 'requirepeer'.*LISTENER_DATABASE") as caught:
        arguments(hostaddr="10.0.0.1", requirepeer="postgres", sslmode="require")
    assert isinstance(caught.value, ImproperlyConfigured)
    assert "sslmode" not in str(caught.value)


def test_the_parameters_are_not_changed() -> None:
    given = parameters(OPTIONS={"sslmode": "require", "options": "-c role=x", "connect_timeout": 3})
    before = dict(given)
    asyncpg_arguments(given)
    assert given == before


# -- services ------------------------------------------------------------------------------------------------

SERVICES = """
# the shop's
[shop]
host=db.example.com
port=6432
dbname=shop
user=web
password=p@ss = w/ord
sslmode=disable
host=another.example.com

[odd]
requirepeer=postgres
[shop]
dbname=twice
"""

NO_ADDRESS = dict.fromkeys(("NAME", "USER", "PASSWORD", "HOST", "PORT"), "")


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service file that the environment names."""
    file = tmp_path / "services.conf"
    file.write_text(SERVICES)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    return file


def of_service(**config: Any) -> dict[str, Any]:
    """The arguments for the service ``shop``, without the session."""
    given = asyncpg_arguments(parameters(**{**NO_ADDRESS, "OPTIONS": {"service": "shop"}, **config}))
    del given["server_settings"]
    return given


SHOP = {
    "host": "db.example.com",
    "port": 6432,
    "database": "shop",
    "user": "web",
    "password": "p@ss = w/ord",
    "dsn": "postgresql://?sslmode=disable",
}


def test_a_service_says_where_to_connect(services: Path) -> None:
    assert of_service() == SHOP


def test_what_is_set_counts_before_what_the_service_says(services: Path) -> None:
    options = {"service": "shop", "sslmode": "require", "passfile": "/etc/pgpass"}
    expected = {"database": "test_shop", "port": 1, "passfile": "/etc/pgpass", "dsn": "postgresql://?sslmode=require"}
    assert of_service(NAME="test_shop", PORT="1", OPTIONS=options) == {**SHOP, **expected}


@pytest.mark.parametrize("place", ["servicefile", "home", "sysconfdir"])
def test_a_service_file_is_found_where_libpq_finds_it(
    services: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.delenv("PGSERVICEFILE")
    monkeypatch.setenv("HOME", str(services.parent / "home"))
    match place:
        case "servicefile":
            assert of_service(OPTIONS={"service": "shop", "servicefile": str(services)}) == SHOP
        case "home":
            services.rename(services.parent / ".pg_service.conf")
            monkeypatch.setenv("HOME", str(services.parent))
            assert of_service() == SHOP
        case "sysconfdir":
            services.rename(services.parent / "pg_service.conf")
            monkeypatch.setenv("PGSYSCONFDIR", str(services.parent))
            assert of_service() == SHOP


def test_the_environment_may_name_the_service(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICE", "shop")
    assert of_service(NAME="other", OPTIONS={}) == {**SHOP, "database": "other"}


def test_a_service_that_is_not_found_is_named_with_where_it_was_looked_for(services: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"service 'none'.*{services}.*PGSERVICEFILE"):
        of_service(OPTIONS={"service": "none"})


def test_what_a_service_says_is_refused_by_name_too(services: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'requirepeer'.*its service"):
        of_service(OPTIONS={"service": "odd"})


# -- the session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("-c search_path=a,b", {"search_path": "a,b"}),
        ("-csearch_path=a", {"search_path": "a"}),
        ("--search-path=a", {"search_path": "a"}),
        ("-c temp_buffers=8MB  -c x.y=1", {"temp_buffers": "8MB", "x.y": "1"}),
        (r"-c search_path=a\ b,c", {"search_path": "a b,c"}),
        (r"-c x.y=back\\slash", {"x.y": r"back\slash"}),
        ("-c x.y=a=b", {"x.y": "a=b"}),
        ("-c x.y=", {"x.y": ""}),
        ("", {}),
        (None, {}),
    ],
)
def test_the_session_settings_of_libpqs_options(options: str | None, found: dict[str, str]) -> None:
    settings = session(options=options)
    assert {key: settings[key] for key in settings.keys() - session().keys()} == found


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ("""-c search_path="Shop",public""", '"Shop",public'),
        ("""-c x.y=it's""", "it's"),
        ("""-c x.y='quoted'""", "'quoted'"),
    ],
)
def test_quotes_mean_nothing_to_postgresql_between_options(options: str, value: str) -> None:
    """``pg_split_opts`` (src/backend/utils/init/postinit.c) knows white space and the backslash only."""
    name = options.removeprefix("-c ").partition("=")[0]
    assert session(options=options)[name] == value


def test_what_a_project_sets_for_its_own_sessions_does_not_reach_what_the_listener_needs() -> None:
    found = session(options="-c statement_timeout=5s -c default_transaction_isolation=serializable -c work_mem=64kB")
    assert found["statement_timeout"] == "0"
    assert found["default_transaction_isolation"] == "read committed"
    assert found["work_mem"] == "64MB"


@pytest.mark.parametrize("options", ["-c", "-c search_path", "-d 5", "--version", "search_path=a"])
def test_options_that_cannot_be_read_are_named(options: str) -> None:
    with pytest.raises(ConfigurationError, match="Write -c name=value"):
        session(options=options)


def test_the_application_name_says_whose_session_it_is_in_63_bytes() -> None:
    assert session(application_name="shop")["application_name"].startswith("shop listener ")
    gate = asyncpg_arguments(parameters(), "gate")["server_settings"]["application_name"]
    assert gate == session()["application_name"].replace(" listener ", " gate ")
    for name in ("x" * 100, "ж" * 100):
        found = session(application_name=name)
        for role, setting in (("listener", "application_name"), ("leader", "djcrf_pg.leader")):
            assert len(found[setting].encode()) <= 63
            assert found[setting].isascii()
            assert f" {role} " in found[setting]


@pytest.mark.parametrize("name", ["shop", "x" * 100, "ü" * 100])
def test_names_of_sessions_tell_processes_on_hosts_with_long_names_apart(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = ["worker-" + "a" * 48 + end for end in ("1", "2")]
    found = []
    for host in hosts:
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        settings = session(application_name=name)
        found.append(settings["application_name"])
        assert settings["djcrf_pg.gate"] == found[-1].replace(" listener ", " gate ")
        for each in (found[-1], settings["djcrf_pg.gate"], settings["djcrf_pg.leader"]):
            assert each.isascii()
            assert len(each) <= 63
            assert each.endswith(f":{os.getpid()}")
    assert found[0] != found[1]
