"""The leader's own way of reading the log, for synchronous code: it reads, and neither leads nor saves a cursor."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg

from djcrf_pg.changelog.reader import ChangeLog
from djcrf_pg.exceptions import InspectionError
from djcrf_pg.inspection.log import RIGHTS, lacking
from djcrf_pg.listener.session import Session

T = TypeVar("T")


class Reader:
    """A session of its own, beside whoever leads.

    Args:
        alias: The Django database alias.
        role: What the connection is for; ``application_name`` says it.
        is_readonly: Whether the server is to refuse writes.
        rights: The GRANT that a message has where a right is missing, with a place for the role.

    Attributes:
        log: The change log.
        is_standby: Whether the server is a hot standby.
    """

    log: ChangeLog
    is_standby: bool

    def __init__(self, alias: str, role: str, *, is_readonly: bool = True, rights: str = RIGHTS) -> None:
        self._rights = rights
        self._alias = alias
        self._role = role
        self._is_readonly = is_readonly
        self._runner = asyncio.Runner()
        self._session: Session | None = None

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect for good."""
        self._disconnect()
        self._runner.close()

    def open(self) -> None:
        """Connect, or connect again.

        Raises:
            ConfigurationError: The settings cannot be translated, or a pooler gives no session of its own.
            NotMigrated: There is no change log.
            OSError, TimeoutError, asyncpg.PostgresError: The server cannot be reached, or refuses.
        """
        self._disconnect()
        self._session = self._runner.run(Session.open(self._alias, self._role))
        if self._is_readonly:
            self._runner.run(self._session.execute("SET default_transaction_read_only = on"))
        self.is_standby = self._runner.run(self._session.fetchval("SELECT pg_is_in_recovery()"))
        self.log = self._runner.run(ChangeLog.open(self._session, self._alias))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for what one of the methods of :attr:`log` gives.

        Raises:
            InspectionError: The role lacks a right; the message has the GRANT.
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The connection is lost.
        """
        try:
            return self._runner.run(work)
        except asyncpg.InsufficientPrivilegeError as error:
            raise InspectionError(lacking(self._alias, str(error), self._rights)) from error

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._runner.run(session.close())
