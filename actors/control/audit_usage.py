"""How many audit records each tenant has in the store, and how many bytes they take, about.

The table `audit_usage` is kept with every append and every removal, in their transactions: counting
the records themselves would take seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

#: Bytes a record takes beside its texts: its numbers and places in the indexes, about.
ROW_OVERHEAD: Final = 160
#: Texts of a record, and how often each is stored: in the row, and in the indexes.
TEXTS: Final = (
    ("tenant", 4), ("caller", 2), ("target", 2), ("method", 1), ("reason", 1), ("stream_id", 1),
)  # fmt: skip
#: What a record counts as, in SQL; a text in SQL ends for `length` where it holds a zero.
ROW_BYTES: Final = (
    " + ".join(f"{times} * length(CAST({name} AS BLOB))" for name, times in TEXTS)
    + f" + {ROW_OVERHEAD}"
)


def record_bytes(*texts: str) -> int:
    """What a record counts as; its texts in the order of `TEXTS`."""
    return ROW_OVERHEAD + sum(
        times * (len(text) if text.isascii() else len(text.encode()))
        for text, (_, times) in zip(texts, TEXTS, strict=True)
    )


def add_usage(connection: sqlite3.Connection, used: Iterable[tuple[str, int, int]]) -> None:
    """Count records of tenants in: (tenant, rows, bytes)."""
    connection.executemany(
        "INSERT INTO audit_usage (tenant, rows, bytes) VALUES (?, ?, ?) ON CONFLICT (tenant)"
        " DO UPDATE SET rows = rows + excluded.rows, bytes = bytes + excluded.bytes",
        used,
    )


def total_usage(connection: sqlite3.Connection) -> tuple[int, int]:
    """Records of all tenants, and their bytes."""
    rows, size = connection.execute(
        "SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM audit_usage"
    ).fetchone()
    return int(rows), int(size)


def count_all(connection: sqlite3.Connection) -> None:
    """Count what is there already, once."""
    connection.execute(
        "INSERT INTO audit_usage (tenant, rows, bytes) SELECT tenant, count(*),"
        f" sum({ROW_BYTES}) FROM audit_events GROUP BY tenant"
    )
