"""Errors of a real server, for chosen questions of one role."""

from typing import Any, Self

import psycopg

#: What the listener asks of its own.
TABLES = ("djcrf_pg_change", "djcrf_pg_failure")

#: A policy of row-level security calls it for the rows that a role asks for. Owners and superusers, with whose rights
#: triggers write, do not ask. The sequence counts also what is rolled back.
SET_UP = """
    CREATE SCHEMA faults;
    GRANT USAGE ON SCHEMA faults TO {role};
    CREATE TABLE faults.fault (question text, relation regclass, code text, times bigint);
    CREATE SEQUENCE faults.met;
    CREATE FUNCTION faults.pass(regclass) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        met record;
    BEGIN
        FOR met IN SELECT * FROM faults.fault LOOP
            IF current_query() LIKE met.question AND (met.relation IS NULL OR met.relation = $1)
               AND nextval('faults.met') <= met.times THEN
                RAISE 'a fault of %', met.question USING ERRCODE = met.code;
            END IF;
        END LOOP;
        RETURN true;
    END $$;
    CREATE POLICY faults ON djcrf_pg_change TO {role} USING (faults.pass(relation)) WITH CHECK (true);
    CREATE POLICY faults ON djcrf_pg_failure TO {role} USING (faults.pass(NULL)) WITH CHECK (faults.pass(NULL));
"""


class Faults:
    """Makes questions fail; a context manager.

    Args:
        admin: A connection of a superuser in autocommit mode.
        role: Whose questions.
    """

    def __init__(self, admin: psycopg.Connection[Any], role: str) -> None:
        self._admin = admin
        self._role = role

    def make(self, question: str, code: str, *, relation: str | None = None, times: int = 2**62) -> None:
        """Have questions fail.

        Args:
            question: A pattern of LIKE for their text.
            code: The SQLSTATE.
            relation: Only those that see a change of this table.
            times: So often.
        """
        self.clear()
        self._admin.execute("INSERT INTO faults.fault VALUES (%s, %s, %s, %s)", [question, relation, code, times])

    def clear(self) -> None:
        """Have no question fail."""
        self._admin.execute("TRUNCATE faults.fault; ALTER SEQUENCE faults.met RESTART")

    @property
    def met(self) -> int:
        """How many have met the present fault."""
        row = self._admin.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM faults.met").fetchone()
        assert row is not None
        return int(row[0])

    def __enter__(self) -> Self:
        self._admin.execute(SET_UP.format(role=self._role).encode())
        for table in TABLES:
            self._admin.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY".encode())
        return self

    def __exit__(self, *exception: object) -> None:
        for table in TABLES:
            self._admin.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY".encode())
        self._admin.execute("DROP SCHEMA faults CASCADE")
