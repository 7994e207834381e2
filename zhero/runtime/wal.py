"""Looks into the write-ahead log of a SQLite database before SQLite does.

SQLite takes the first frame whose checksum is wrong for the end of the log, as a crash may have cut it there. Where
whole frames follow, it is no end: something that was written has been damaged since, and what comes after it would be
lost without a word.

Source: the format is that of sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from pathlib import Path


def wal_damage(file: Path) -> list[str]:
    """What is wrong with a WAL, for people; empty: nothing, or only its end is missing."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return []
    if len(data) < 32:
        return []
    magic, _, page = struct.unpack(">III", data[:12])
    if magic not in (0x377F0682, 0x377F0683) or not 512 <= page <= 65536:
        return [f"{file.name}: no WAL"] if any(data) else []
    order = ">" if magic & 1 else "<"
    salts, size = data[16:24], page + 24
    sums = struct.unpack(">II", data[24:32])
    if _wal_sum(data[:24], (0, 0), order) != sums:
        return [f"{file.name}: its head is damaged"]
    broken = None
    for first in range(32, len(data) - size + 1, size):
        frame = data[first : first + size]
        if frame[8:16] != salts:
            break  # of an earlier use of the file
        if broken is None:
            sums = _wal_sum(frame[24:], _wal_sum(frame[:8], sums, order), order)
            if sums != struct.unpack(">II", frame[16:24]):
                broken = (first - 32) // size
        else:
            return [f"{file.name}: frame {broken} is damaged, and others follow"]
    return []


def _wal_sum(data: bytes, sums: tuple[int, ...], order: str) -> tuple[int, ...]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for at in range(0, len(words), 2):
        one = (one + words[at] + two) & 0xFFFFFFFF
        two = (two + words[at + 1] + one) & 0xFFFFFFFF
    return one, two
