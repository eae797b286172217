"""Where the documentation is, for messages that need more than a line."""

_DOCS = "https://github.com/djcrf-pg/djcrf_pg/blob/main/docs/"


def see(page: str) -> str:
    """The sentence that sends a reader to a page of the documentation.

    Args:
        page: Its path within ``docs/``, with the anchor of a heading: ``"reference/settings.md#subscribers"``. It
            must be a literal, so that the tests find it and see that the page and the heading exist.

    Returns:
        ``"See https://…"``, with no full stop behind the address: terminals would take it along.
    """
    return f"See {_DOCS}{page}"
