"""What was paid for, on disk: every reply of a server by the content of its request, and the books of every call.

In: what a server answered, and what a call may cost at most before it is made. Out: the same answer for the same request, for
nothing, and what has been spent.

One SQLite file. An answer is kept as the server gave it, not as it was understood, so that a setting which only changes how it is
read pays for nothing twice. A call is booked at its upper bound before it is made and corrected when its price is known: a budget
holds over several processes, over `kill -9` (whose calls may well be billed), and over resumed runs.

Not here: what a request costs (`endpoint`), and rows of a run (`journal`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from preceptor.errors import StageFailed, StorageError

BUSY_SECONDS = 60.0
"""How long another process may hold the file before giving up."""

_TABLES = """
create table if not exists replies (key blob primary key, reply blob not null) without rowid;
create table if not exists calls (
    id integer primary key, at real not null, model text not null, key blob not null, outcome text not null,
    prompt_tokens integer not null, cached_tokens integer not null, completion_tokens integer not null,
    cost real not null, seconds real not null);
create table if not exists spent (one integer primary key check (one = 1), tokens integer not null, cost real not null);
insert or ignore into spent values (1, 0, 0.0);
"""
OPEN, UNKNOWN = "open", "unknown"
"""Outcomes of calls whose price is not known and which stand at their upper bound: under way (or killed), and failed in a way that
may be billed."""


@dataclass(frozen=True)
class Usage:
    """What a call used. `cost` in the currency of the prices that the recipe states."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Part of `prompt_tokens` that the server took from its prefix cache."""
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Limits:
    """What may be spent in all; None: no limit."""

    tokens: int | None = None
    cost: float | None = None

    def allow(self, tokens: int, cost: float) -> bool:
        """Whether a total stays within the limits."""
        return (self.tokens is None or tokens <= self.tokens) and (self.cost is None or cost <= self.cost)


@dataclass(frozen=True)
class Spent:
    """The books of one model: `calls` by outcome, `known` usage, and the upper bound of what is unknown."""

    model: str
    calls: dict[str, int]
    known: Usage
    unknown: Usage


def write_ahead(file: sqlite3.Connection, seconds: float) -> None:
    """Have SQLite log ahead. Where several ask that of a new file, it refuses all but one at once, whatever time it was given to wait."""
    until = time.monotonic() + seconds
    while True:
        try:
            file.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


class Store:
    """The file. Several processes may hold it open."""

    def __init__(self, path: Path, limits: Limits | None = None):
        self.path, self.limits = path, limits or Limits()
        with self._disk():
            _folder_of(path)
            # One thread at a time uses it, but not always the same one (see `endpoint`).
            self._file = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                write_ahead(self._file, BUSY_SECONDS)
                self._file.execute("pragma synchronous = normal")  # a killed process loses nothing, a power cut the last seconds
                self._file.executescript(_TABLES)
            except sqlite3.DatabaseError:
                self._file.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The reply to a request, if it was paid for before."""
        with self._disk():
            found = self._file.execute("select reply from replies where key = ?", (key,)).fetchone()
        return orjson.loads(found[0]) if found else None

    def reserve(self, model: str, key: bytes, bound: Usage) -> int | None:
        """Book a call at its upper bound and return its number; None, and nothing booked, when that might exceed the limits."""
        with self._writing():
            tokens, cost = self._file.execute("select tokens, cost from spent").fetchone()
            if not self.limits.allow(tokens + bound.tokens, cost + bound.cost):
                return None
            row = (time.time(), model, key, OPEN, bound.prompt_tokens, bound.cached_tokens, bound.completion_tokens, bound.cost, 0.0)
            made = self._file.execute(
                "insert into calls (at, model, key, outcome, prompt_tokens, cached_tokens, completion_tokens, cost, seconds)"
                " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            self._add(bound.tokens, bound.cost)
            return made.lastrowid

    def settle(self, call: int, outcome: str, usage: Usage | None, seconds: float, reply: dict[str, Any] | None = None) -> None:
        """What became of a call. `usage` None: unknown, its upper bound stands. A `reply` is kept under the request's key."""
        with self._writing():
            select = "select key, prompt_tokens, completion_tokens, cost from calls where id = ?"
            key, prompt, completion, cost = self._file.execute(select, (call,)).fetchone()
            if usage is None:
                self._file.execute("update calls set outcome = ?, seconds = ? where id = ?", (f"{UNKNOWN}: {outcome}", seconds, call))
            else:
                self._file.execute(
                    "update calls set outcome = ?, prompt_tokens = ?, cached_tokens = ?, completion_tokens = ?, cost = ?, seconds = ?"
                    " where id = ?",
                    (outcome, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.cost, seconds, call),
                )
                self._add(usage.tokens - prompt - completion, usage.cost - cost)
            if reply is not None:
                self._file.execute("insert or replace into replies values (?, ?)", (key, orjson.dumps(reply)))

    def total(self) -> tuple[int, float]:
        """Tokens and cost booked, upper bounds included."""
        with self._disk():
            return self._file.execute("select tokens, cost from spent").fetchone()

    def books(self) -> list[Spent]:
        """What was spent on each model."""
        columns = "model, outcome, count(*), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(cost)"
        with self._disk():
            rows = self._file.execute(f"select {columns} from calls group by model, outcome order by model, outcome").fetchall()
        return [_spent(model, [row[1:] for row in rows if row[0] == model]) for model in sorted({row[0] for row in rows})]

    def _add(self, tokens: int, cost: float) -> None:
        self._file.execute("update spent set tokens = tokens + ?, cost = cost + ?", (tokens, cost))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, whole or not at all."""
        with self._disk():
            self._file.execute("begin immediate")
            try:
                yield
                self._file.execute("commit")
            except BaseException:
                if self._file.in_transaction:  # a full disk has rolled back already
                    self._file.execute("rollback")
                raise

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            reason = str(error)
            if "malformed" in reason or "not a database" in reason:
                raise StageFailed(f"{self.path}: the store of replies is damaged ({reason}); move it away to go on without it") from None
            hint = "free space or choose another place, then run the same command again; finished work is kept"
            raise StorageError(f"the store of replies: {reason}", where=self.path, hint=hint) from None


def _folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the store of replies: {error.strerror}", where=path, hint="choose another place: run.store") from None


def _spent(model: str, rows: list[tuple[Any, ...]]) -> Spent:
    """Rows: outcome, calls, prompt, cached and completion tokens, cost."""
    unknown = [row for row in rows if row[0] == OPEN or row[0].startswith(UNKNOWN)]
    known = [row for row in rows if row not in unknown]
    return Spent(model, {row[0]: row[1] for row in rows}, _added(known), _added(unknown))


def _added(rows: list[tuple[Any, ...]]) -> Usage:
    return Usage(*(sum(row[place] for row in rows) for place in (2, 3, 4)), cost=sum((row[5] for row in rows), 0.0))
