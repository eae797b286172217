"""Which aliases of ``DATABASES`` reach one change log: another user, other options, a replica, the way past a pooler.

Their settings need not look alike, so the servers are asked. A physical replica counts as its primary: what is in the
one is in the other.
"""

from django.db import DatabaseError, connections

from djcrf_pg.capture import catalog


def siblings(alias: str) -> list[str]:
    """The aliases that reach the change log of database ``alias``: itself first, then the others.

    One that cannot be asked is a sibling where :func:`look_alike` says so.

    Raises:
        DatabaseError: The database ``alias`` cannot be asked.
    """
    found = [alias]
    for other in connections:
        if may_be_siblings(alias, other):
            try:
                same = catalog.identity(connections[other]) == catalog.identity(connections[alias])
            except DatabaseError:
                same = look_alike(alias, other)
            if same:
                found.append(other)
    return found


def may_be_siblings(alias: str, other: str) -> bool:
    """Whether another alias has to be asked; it has not if it names another database of the same server."""
    if other == alias or connections[other].vendor != "postgresql":
        return False
    (*server, name), (*other_server, other_name) = _place(alias), _place(other)
    return server != other_server or name == other_name


def look_alike(alias: str, other: str) -> bool:
    """Whether two aliases name the same host, port, service and database."""
    return _place(alias) == _place(other)


def _place(alias: str) -> tuple[str, ...]:
    settings = connections[alias].settings_dict
    # A service says where the server is, and may say which database it is.
    service = settings["OPTIONS"].get("service")
    return str(settings["HOST"]), str(settings["PORT"]), str(service), str(settings["NAME"])
