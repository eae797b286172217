"""Tests that run in a transaction which is rolled back: none of their writes is committed, so nothing is sent."""

#: What to do about it.
ADVICE = (
    "This test runs in a transaction that is rolled back (Django's TestCase, pytest-django's db): what it writes is "
    "not committed, so no event comes. Use TransactionTestCase, or django_db(transaction=True); or collect the events "
    "with djcrf_pg.testing.capture_changes(), and hand them over with deliver()."
)

#: What comes of a coroutine that is such a test, on a loop that is not run by ``async_to_sync()``.
COMMITS = (
    "this test runs in a transaction that is rolled back, but its coroutine makes its queries in another thread, over "
    "a connection that commits: what it writes is left for the next test. Use django_db(transaction=True); or write "
    "the test as a plain function, with async_to_sync() around what has to be a coroutine."
)

#: Whether the present test is in such a transaction, as the pytest plugin sees it from the test's own thread.
in_a_rolled_back_test = False


def refuse_other_threads(what: str) -> None:
    """Refuse to work over a connection that is not in the test's transaction.

    Args:
        what: What is refused.

    Raises:
        RuntimeError: The present test is rolled back, and what this thread writes is not.
    """
    if in_a_rolled_back_test:
        raise RuntimeError(f"{what}: {COMMITS}")
