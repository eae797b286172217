"""Logical replication of a whole database: ours on both sides, each with a leader of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_cluster import LEADS
from tests.processes import wait_until
from tests.project import Project
from tests.servers import DSN, REDIS, EmbeddedPostgres, ManagePy, PgParams, redis

pytestmark = pytest.mark.processes


class Site(Project):
    """A project on a server of its own."""

    def env(self, settings: Any = None) -> dict[str, str | None]:
        return {**super().env(settings), DSN: self.server.dsn(), REDIS: redis()}


@pytest.fixture(scope="module")
def servers() -> Iterator[list[PgParams]]:
    """Two servers, a publisher's and a subscriber's."""
    with EmbeddedPostgres(settings={"wal_level": "logical"}) as one, EmbeddedPostgres() as two:
        yield [one.params, two.params]


@pytest.fixture
def publisher(servers: list[PgParams], tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "publisher", servers[0], "published") as site:
        site.manage("migrate", "--verbosity", "0")
        site.rows("CREATE PUBLICATION everything FOR ALL TABLES")
        yield site


@pytest.fixture
def lead() -> Iterator[Callable[[Site], ManagePy]]:
    """Starts a listener of a site, and returns when it leads."""
    with ExitStack() as stack:

        def start(site: Site, **settings: Any) -> ManagePy:
            leader = stack.enter_context(ManagePy("djcrf_pg", "listen", env=site.env(settings)))
            leader.wait_for(LEADS)
            return leader

        yield start


@pytest.fixture
def subscriber(servers: list[PgParams], publisher: Site, tmp_path: Path) -> Iterator[Site]:
    """A site with a log of its own, to which all of the publisher's tables are replicated."""
    with Site(tmp_path / "subscriber", servers[1], "subscribed") as site:
        site.manage("migrate", "--verbosity", "0")
        # The rows that migrate has made are there already.
        filled = "django_migrations, django_content_type, auth_permission"
        site.rows(f"TRUNCATE {filled} CASCADE")
        site.rows("SELECT pg_current_xact_id() FROM generate_series(1, 10)")
        yield site
        if site.rows("SELECT true FROM pg_subscription"):
            site.rows("ALTER SUBSCRIPTION everything DISABLE")
            site.rows("DROP SUBSCRIPTION everything")


def subscribe(subscriber: Site, publisher: Site) -> None:
    subscriber.rows(f"CREATE SUBSCRIPTION everything CONNECTION '{publisher.pg.dsn()}' PUBLICATION everything")
    wait_until(lambda: not subscriber.rows("SELECT true FROM pg_subscription_rel WHERE srsubstate <> 'r'"), 60)


def state(site: Site) -> list[tuple[Any, ...]]:
    """What says how a site's log stands, but for the leader's signs of life."""
    return [
        *site.rows("SELECT name, term, snapshot::text FROM djcrf_pg_cursor"),
        *site.rows("SELECT max_age, max_rows, max_bytes FROM djcrf_pg_cap"),
        *site.rows("SELECT relation::text, columns FROM djcrf_pg_shape ORDER BY 1"),
        *site.rows("SELECT xid::text, op::text, new->>'title' FROM djcrf_pg_change ORDER BY id"),
        *site.rows("SELECT pk FROM djcrf_pg_failure"),
    ]


def test_a_publication_of_all_tables_stops_neither_migrate_nor_the_leader(
    publisher: Site, lead: Callable[..., ManagePy]
) -> None:
    publisher.rows("INSERT INTO shelf_book (title, secret) VALUES ('before', '')")
    publisher.rows("ALTER TABLE shelf_book DROP COLUMN secret, ADD COLUMN secret text NOT NULL DEFAULT ''")
    publisher.manage("migrate", "--verbosity", "0", settings={"LOG_MAX_ROWS": 1_000})
    lead(publisher, LOG_MAX_ROWS=2_000)
    assert publisher.rows("SELECT max_rows FROM djcrf_pg_cap") == [(2_000,)]
    publisher.rows("INSERT INTO shelf_book (title, secret) VALUES ('after', '')")
    read = "SELECT pg_visible_in_snapshot(xid, snapshot) FROM djcrf_pg_change, djcrf_pg_cursor WHERE op = 'I'"
    wait_until(lambda: publisher.rows(read)[-1:] == [(True,)])


def test_every_table_of_ours_has_a_replica_identity(publisher: Site) -> None:
    bare = """
        SELECT relname FROM pg_class AS c
        WHERE relname LIKE 'djcrf%' AND relkind = 'r' AND (relreplident = 'n' OR relreplident = 'd' AND NOT EXISTS (
            SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary
        ))
    """
    assert publisher.rows(bare) == []


def test_what_is_replicated_of_another_s_log_is_not_taken_for_one_s_own(
    publisher: Site, subscriber: Site, lead: Callable[..., ManagePy]
) -> None:
    lead(publisher)
    subscriber.rows("INSERT INTO shelf_author (id, name) VALUES (1000, 'here')")
    subscriber.rows("INSERT INTO djcrf_pg_cursor (name, snapshot, term) VALUES ('leader', pg_current_snapshot(), 7)")
    own = state(subscriber)
    publisher.rows("INSERT INTO shelf_book (title, secret) VALUES ('copied', '')")
    subscribe(subscriber, publisher)
    publisher.rows("UPDATE djcrf_pg_cap SET max_rows = 5")
    publisher.rows("INSERT INTO shelf_book (title, secret) VALUES ('applied', '')")
    publisher.rows("DELETE FROM djcrf_pg_change")
    publisher.rows("INSERT INTO shelf_author (name) VALUES ('last')")
    wait_until(lambda: subscriber.rows("SELECT true FROM shelf_author WHERE name = 'last'"), 60)
    assert state(subscriber) == own
    assert subscriber.rows("SELECT title FROM shelf_book ORDER BY 1") == [("applied",), ("copied",)]
    # And its own leader goes on from where it stood.
    leader = lead(subscriber)
    assert leader.running
    assert subscriber.rows("SELECT term > 7 FROM djcrf_pg_cursor") == [(True,)]


def test_triggers_that_are_enabled_always_log_what_is_copied(publisher: Site, subscriber: Site) -> None:
    publisher.rows("INSERT INTO shelf_book (title, secret) VALUES ('copied', '')")
    subscriber.rows("ALTER TABLE shelf_book ENABLE ALWAYS TRIGGER djcrf_pg_insert")
    subscribe(subscriber, publisher)
    logged = "SELECT new->>'title' FROM djcrf_pg_change WHERE op = 'I' AND relation = 'shelf_book'::regclass"
    assert subscriber.rows(logged) == [("copied",)]
