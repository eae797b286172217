"""Which statements may write, by their text."""

import pytest

from djcrf_pg.writer.statements import Kind, kind


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t VALUES (1)",
        "  \n\tupdate t SET n = 1",
        'DELETE FROM "t"',
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
        "TRUNCATE t",
        "COPY t FROM '/tmp/file'",
        "EXECUTE prepared (1)",
        "EXPLAIN ANALYZE DELETE FROM t",
        "/* route=/a/ */ -- and more\n UPDATE t SET n = 1",
        "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
        "with x as (select 1) insert into t select * from x",
        "SELECT djcrf_pg_touch('t', 1)",
        "WITH x AS (SELECT 1) SELECT \"odd schema\".djcrf_pg_touch_v1(to_regclass('t'), '[]')",
    ],
)
def test_writing_statements_write(text: str):
    assert kind(text) is Kind.WRITE


@pytest.mark.parametrize(
    "text",
    [
        "SELECT transfer(%s, %s)",
        "SELECT * FROM transfer(1)",
        'SELECT "Strange Function"(1)',
        "SELECT accounting.count(1)",
        "SELECT accounting . count(1)",
        "WITH x AS (SELECT transfer(1)) SELECT * FROM x",
        "VALUES (transfer(1))",
        "(SELECT transfer(1)) UNION (SELECT 1)",
    ],
)
def test_a_select_that_calls_a_function_may_write(text: str):
    assert kind(text) is Kind.CALL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "-- nothing but a comment",
        "/* not closed",
        "%",
        'SELECT "t"."id" FROM "t" WHERE ("t"."id" IN (%s, %s) AND NOT ("t"."n" IS NULL)) LIMIT 21',
        'SELECT COUNT(*) AS "__count" FROM (SELECT DISTINCT "t"."id" FROM "t") subquery',
        "SELECT 1 WHERE EXISTS(SELECT 1)",
        "SELECT COALESCE(MAX(n), 0)::numeric(10, 2) FROM t FOR UPDATE",
        "(SELECT 1) UNION (SELECT 2)",
        "SAVEPOINT s",
        'RELEASE SAVEPOINT "s"',
        "ROLLBACK TO SAVEPOINT s",
        "BEGIN",
        "COMMIT",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET LOCAL timezone = 'UTC'",
        "VACUUM t",
        "CREATE INDEX CONCURRENTLY ON t (n)",
        "LISTEN djcrf_pg",
        "LOCK TABLE t",
    ],
)
def test_others_do_not(text: str):
    assert kind(text) is Kind.NOTHING


@pytest.mark.parametrize(
    "text", ["CALL p()", "DO $$BEGIN END$$", "SET CONSTRAINTS ALL IMMEDIATE", " set  constraints x"]
)
def test_what_may_end_transactions_or_needs_one_is_by_itself(text: str):
    assert kind(text) is Kind.PROCEDURE


def test_a_long_text_is_looked_at_in_no_time():
    # A pattern that backtracks would take years over these.
    assert kind(" (" * 100_000) is Kind.NOTHING
    assert kind("/*" * 100_000) is Kind.NOTHING
    assert kind("SELECT " + "(1), " * 20_000 + "f(1)") is Kind.CALL
    assert kind(f"SELECT '{'a' * 1_000_000}'") is Kind.NOTHING
