"""Django's database settings as arguments of asyncpg."""

import inspect
import ssl
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from asyncpg import connect_utils
from django.core.exceptions import ImproperlyConfigured

from djcrf_pg.exceptions import ConfigurationError
from djcrf_pg.listener.connection import asyncpg_arguments

CONFIG: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "shop",
    "USER": "web",
    "PASSWORD": "p@ss w/ord",
    "HOST": "db.example.com",
    "PORT": "6432",
}

#: Every option that is known: its value, and the argument that it becomes (None: it means nothing to a listener).
KNOWN: dict[str, tuple[Any, dict[str, Any] | None]] = {
    "passfile": ("/etc/pgpass", {"passfile": "/etc/pgpass"}),
    "target_session_attrs": ("read-write", {"target_session_attrs": "read-write"}),
    "krbsrvname": ("pg", {"krbsrvname": "pg"}),
    "gsslib": ("gssapi", {"gsslib": "gssapi"}),
    "service": ("shop", {"service": "shop"}),
    "servicefile": ("/etc/pg_service.conf", {"servicefile": "/etc/pg_service.conf"}),
    "connect_timeout": ("3", {"timeout": 3.0}),
    "sslmode": ("disable", {"dsn": "postgresql:///?sslmode=disable"}),
    **{
        name: (value, {"dsn": f"postgresql:///?{name}={value}"})
        for name, value in {
            "sslrootcert": "ca.pem",
            "sslcert": "me.pem",
            "sslkey": "me.key",
            "sslcrl": "revoked.pem",
            "sslpassword": "secret",
            "sslnegotiation": "direct",
            "ssl_min_protocol_version": "TLSv1.2",
            "ssl_max_protocol_version": "TLSv1.3",
        }.items()
    },
    "isolation_level": (3, None),
    "server_side_binding": (True, None),
    "cursor_factory": (object, None),
    "pool": ({"min_size": 1}, None),
    "prepare_threshold": (None, None),
    "context": (None, None),
    "client_encoding": ("UTF8", None),
    "keepalives": (1, None),
    "keepalives_idle": (30, None),
    "keepalives_interval": (30, None),
    "keepalives_count": (3, None),
    "tcp_user_timeout": (1000, None),
    "fallback_application_name": ("x", None),
    "gssencmode": ("prefer", None),
    "autocommit": (True, None),
    "row_factory": (None, None),
    "assume_role": ("owner", None),
}


def arguments(**options: Any) -> dict[str, Any]:
    """The arguments for these ``OPTIONS``."""
    return asyncpg_arguments({**CONFIG, "OPTIONS": options})


def session(**options: Any) -> dict[str, str]:
    """The server settings for these ``OPTIONS``."""
    settings: dict[str, str] = arguments(**options)["server_settings"]
    return settings


def parsed(**options: Any) -> tuple[Any, Any]:
    """What asyncpg makes of them: addresses and parameters, without connecting."""
    given = arguments(**options)
    signature = inspect.signature(asyncpg.connect).parameters
    assert given.keys() <= signature.keys(), "asyncpg.connect takes no other arguments"
    names = inspect.signature(connect_utils._parse_connect_dsn_and_args).parameters
    defaults = {name: signature[name].default for name in names}
    return connect_utils._parse_connect_dsn_and_args(**{**defaults, **{k: v for k, v in given.items() if k in names}})


@pytest.fixture(autouse=True)
def _no_libpq_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSSLMODE", "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


def test_the_address_and_who_we_are() -> None:
    given = asyncpg_arguments(CONFIG)
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
    config = dict.fromkeys(("NAME", "USER", "PASSWORD", "HOST", "PORT"), empty)
    assert asyncpg_arguments({**config, "OPTIONS": {}}).keys() == {"server_settings"}


def test_the_host_may_be_the_folder_of_a_socket() -> None:
    given = asyncpg_arguments({**CONFIG, "HOST": "/run/postgresql"})
    assert given["host"] == "/run/postgresql"


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_option_is_translated_or_left_out(name: str) -> None:
    value, expected = KNOWN[name]
    given = arguments(**{name: value})
    given.pop("server_settings")
    plain = arguments()
    plain.pop("server_settings")
    assert given == {**plain, **(expected or {})}


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


def test_unknown_options_are_refused_by_name_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match=r"'load_balance_hosts', 'replication'.*LISTENER_DATABASE") as caught:
        arguments(replication="database", load_balance_hosts="random", sslmode="require")
    assert isinstance(caught.value, ImproperlyConfigured)
    assert "sslmode" not in str(caught.value)


def test_the_settings_are_not_changed() -> None:
    options = {"sslmode": "require", "options": "-c role=x", "assume_role": "owner", "connect_timeout": 3}
    config = {**CONFIG, "OPTIONS": options}
    asyncpg_arguments(config)
    assert config["OPTIONS"] == {
        "sslmode": "require",
        "options": "-c role=x",
        "assume_role": "owner",
        "connect_timeout": 3,
    }


# -- the session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("-c search_path=a,b", {"search_path": "a,b"}),
        ("-csearch_path=a", {"search_path": "a"}),
        ("--search-path=a", {"search_path": "a"}),
        ("-c work_mem=8MB  -c x.y=1", {"work_mem": "8MB", "x.y": "1"}),
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
    found = session(options="-c statement_timeout=5s -c default_transaction_isolation=serializable -c work_mem=8MB")
    assert found["statement_timeout"] == "0"
    assert found["default_transaction_isolation"] == "read committed"
    assert found["work_mem"] == "8MB"


@pytest.mark.parametrize("options", ["-c", "-c search_path", "-d 5", "--version", "search_path=a"])
def test_options_that_cannot_be_read_are_named(options: str) -> None:
    with pytest.raises(ConfigurationError, match="write -c name=value"):
        session(options=options)


def test_the_application_name_says_whose_session_it_is_in_63_bytes() -> None:
    assert session(application_name="shop")["application_name"].startswith("shop listener ")
    gate = asyncpg_arguments(CONFIG, "gate")["server_settings"]["application_name"]
    assert gate == session()["application_name"].replace(" listener ", " gate ")
    assert len(session(application_name="x" * 100)["application_name"].encode()) <= 63
