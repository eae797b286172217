"""stub"""

import zlib


def bit_of(address: str, group: str) -> int:
    """stub"""
    return zlib.crc32(f"{address}\n{group}".encode()) % 65_536
