"""Who is heard of by processes of version 0.1.0, which hold a shared advisory lock for each of their observers."""

import zlib

from djcrf_pg.registry import Observed

#: The first half of the locks' keys; the second is :func:`key_of` an observer.
CLASS_ID = 0x646A6373


def key_of(observer: Observed) -> int:
    """The second half of an observer's key, an ``int4``. Two with the same are heard of together, which is no harm."""
    number = zlib.crc32(observer.resync_group().encode())
    return number - 2**32 if number >= 2**31 else number
