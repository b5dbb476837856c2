"""What people say of the monitor's flags, and of what it may have missed.

In: a verdict on one flag (true, false, unsure), or a list of kinds that were missed. Out: rows, one for each reviewer; a second verdict of the same person takes
the place of the first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import orjson

from preceptor.errors import DataError
from preceptor.gateway.database import Connection
from preceptor.gateway.selecting import Verdict
from preceptor.records import MONITOR_KINDS, MonitorKind

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
NOTE = 2000
"""Characters of a note, at most."""


@dataclass(frozen=True)
class Judged:
    """A verdict of somebody on flag `number` of a trace."""

    request_id: str
    number: int
    reviewer: str
    kind: MonitorKind
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Look:
    """What somebody who read a trace says was missed. `reasoning`: whether they had the reasoning before them."""

    request_id: str
    reviewer: str
    missed: tuple[MonitorKind, ...]
    reasoning: bool
    note: str = ""


def judge(connection: Connection, request_id: str, number: int, reviewer: str, verdict: str, note: str) -> None:
    """Keep a verdict. Raises `DataError` for a flag that is not there and a verdict that is none."""
    rows = connection.run("SELECT kind FROM flags WHERE request_id = ? AND number = ?", (request_id, number))
    if not rows or verdict not in VERDICTS:
        raise DataError("no such flag, or no such verdict")
    connection.run(
        "INSERT INTO reviews (request_id, number, reviewer, kind, verdict, note, time) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (request_id, number, reviewer) DO UPDATE SET verdict = excluded.verdict, note = excluded.note, time = excluded.time",
        (request_id, number, reviewer, rows[0][0], verdict, _note(note), time.time()),
    )


def look(connection: Connection, request_id: str, reviewer: str, missed: Sequence[str], note: str, *, reasoning: bool) -> None:
    """Keep what somebody says was missed; nothing is an answer too. Raises `DataError` for a trace or a kind that is not there."""
    if not connection.run("SELECT 1 FROM traces WHERE request_id = ?", (request_id,)) or not set(missed) <= set(MONITOR_KINDS):
        raise DataError("no such conversation, or no such kind")
    kinds = [kind for kind in MONITOR_KINDS if kind in missed]
    connection.run(
        "INSERT INTO looks (request_id, reviewer, missed, reasoning, note, time) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (request_id, reviewer)"
        " DO UPDATE SET missed = excluded.missed, reasoning = excluded.reasoning, note = excluded.note, time = excluded.time",
        (request_id, reviewer, orjson.dumps(kinds).decode(), int(reasoning), _note(note), time.time()),
    )


def _note(note: str) -> str:
    return note.replace("\0", "\N{REPLACEMENT CHARACTER}")[:NOTE]


def of(connection: Connection, request_ids: Sequence[str]) -> list[Judged]:
    """All verdicts on these traces."""
    query = "SELECT request_id, number, reviewer, kind, verdict, note FROM reviews WHERE request_id IN (*) ORDER BY request_id, number, reviewer"
    return [Judged(*row) for row in _rows(connection, query, request_ids)]


def looks(connection: Connection, request_ids: Sequence[str]) -> list[Look]:
    """What was said of these traces."""
    query = "SELECT request_id, reviewer, missed, reasoning, note FROM looks WHERE request_id IN (*) ORDER BY request_id, time"
    return [_look(row) for row in _rows(connection, query, request_ids)]


def _rows(connection: Connection, query: str, request_ids: Sequence[str]) -> list[tuple[Any, ...]]:
    """Of these traces; `*` stands for their places."""
    return connection.run(query.replace("*", ", ".join("?" * len(request_ids))), request_ids) if request_ids else []


def every_look(connection: Connection) -> list[Look]:
    """All there are."""
    return [
        _look(row)
        for row in connection.run("SELECT request_id, reviewer, missed, reasoning, note FROM looks ORDER BY request_id, reviewer")
    ]


def _look(row: Sequence[Any]) -> Look:
    name, reviewer, missed, reasoning, note = row
    return Look(name, reviewer, tuple(orjson.loads(missed)), bool(reasoning), note)


def every(connection: Connection) -> list[Judged]:
    """All verdicts there are."""
    return [
        Judged(*row)
        for row in connection.run(
            "SELECT request_id, number, reviewer, kind, verdict, note FROM reviews ORDER BY request_id, number, reviewer"
        )
    ]


def reviewers(connection: Connection) -> list[str]:
    """Whoever has judged something."""
    return [str(name) for (name,) in connection.run("SELECT reviewer FROM reviews UNION SELECT reviewer FROM looks ORDER BY 1")]
