"""The tables of the trace store, and the two kinds of database that hold them.

In: `traces.db`, a file for SQLite, or `postgresql://...`, the address of a server. Out: connections on which one text of SQL runs, whichever it is.

    traces       a row for each request: what was said and answered          flags     what the monitor saw in it
    reasonings   the reasoning, in a table of its own, so that no query      reviews   what people say of the flags
                 of a list can bring it along                                looks     what they say the monitor missed
    erased       what was erased, so that it does not come back              accounts, sessions, audit   the review page

SQLite writes ahead (WAL): readers and the one writer do not wait for each other. `PRAGMA synchronous` is FULL where an answer waits for its trace: a commit
is then on the disk and survives a loss of power, and because all traces that wait are committed together, they share the price. It is NORMAL where no
answer waits: what a killed process committed is still there, what a machine without power committed last may not be. Deleted rows are overwritten
(`secure_delete`), because erasure has to mean it. In PostgreSQL `synchronous_commit` is on and off for the same two.

A failure of a database is a `StoreFailed`: its text is ours, because theirs may quote what was to be written.
"""

from __future__ import annotations

import os
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.errors import DataError, PreceptorError, UsageError, require_extra
from preceptor.models.store import write_ahead

SCHEMA = 1
_LOCK = 7_303_014
"""Any number: servers that make the tables at the same time wait for each other by it."""
_CONNECT_SECONDS, _STATEMENT_SECONDS, _BUSY_SECONDS = 3, 30, 5.0

_TABLES = (
    "CREATE TABLE IF NOT EXISTS store (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS traces (
        request_id TEXT PRIMARY KEY, time DOUBLE PRECISION NOT NULL, key_id TEXT NOT NULL, model TEXT NOT NULL, status TEXT NOT NULL,
        detail TEXT NOT NULL, prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, blocked INTEGER NOT NULL, flagged INTEGER NOT NULL,
        bytes BIGINT NOT NULL, opening TEXT NOT NULL, messages TEXT NOT NULL, answer TEXT NOT NULL, summary TEXT, timings TEXT NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS reasonings (request_id TEXT PRIMARY KEY, reasoning TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS flags (
        request_id TEXT NOT NULL, number INTEGER NOT NULL, time DOUBLE PRECISION NOT NULL, kind TEXT NOT NULL, confidence DOUBLE PRECISION NOT NULL,
        reason TEXT NOT NULL, evidence TEXT NOT NULL, PRIMARY KEY (request_id, number))""",
    """CREATE TABLE IF NOT EXISTS reviews (
        request_id TEXT NOT NULL, number INTEGER NOT NULL, reviewer TEXT NOT NULL, kind TEXT NOT NULL, verdict TEXT NOT NULL, note TEXT NOT NULL,
        time DOUBLE PRECISION NOT NULL, PRIMARY KEY (request_id, number, reviewer))""",
    """CREATE TABLE IF NOT EXISTS looks (
        request_id TEXT NOT NULL, reviewer TEXT NOT NULL, missed TEXT NOT NULL, reasoning INTEGER NOT NULL, note TEXT NOT NULL,
        time DOUBLE PRECISION NOT NULL, PRIMARY KEY (request_id, reviewer))""",
    "CREATE TABLE IF NOT EXISTS erased (what TEXT NOT NULL, name TEXT NOT NULL, time DOUBLE PRECISION NOT NULL, PRIMARY KEY (what, name))",
    """CREATE TABLE IF NOT EXISTS accounts (
        name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, closed DOUBLE PRECISION)""",
    """CREATE TABLE IF NOT EXISTS sessions (
        hash TEXT PRIMARY KEY, name TEXT NOT NULL, csrf TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, seen DOUBLE PRECISION NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS audit (
        id TEXT PRIMARY KEY, time DOUBLE PRECISION NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, request_id TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS traces_by_time ON traces (time, request_id)",
    "CREATE INDEX IF NOT EXISTS traces_by_key ON traces (key_id)",
    "CREATE INDEX IF NOT EXISTS traces_flagged ON traces (time, request_id) WHERE flagged > 0",
    "CREATE INDEX IF NOT EXISTS traces_flagged_model ON traces (model, time, request_id) WHERE flagged > 0",
    "CREATE INDEX IF NOT EXISTS traces_not_flagged ON traces (request_id) WHERE flagged = 0",
    "CREATE INDEX IF NOT EXISTS traces_sizes ON traces (time, bytes)",
    "CREATE INDEX IF NOT EXISTS flags_by_kind ON flags (kind, request_id)",
    "CREATE INDEX IF NOT EXISTS reviews_by_reviewer ON reviews (reviewer, request_id)",
    "CREATE INDEX IF NOT EXISTS audit_by_time ON audit (time, id)",
)
OF_A_TRACE = ("traces", "reasonings", "flags", "reviews", "looks")
"""Tables with rows that go when a trace goes."""


class StoreFailed(PreceptorError):
    """The database is gone, full or locked (`down`), or refuses this one row."""

    def __init__(self, what: str, *, down: bool):
        self.down = down
        super().__init__(what)


@dataclass(frozen=True)
class Database:
    """Where traces are kept."""

    url: str

    @property
    def postgres(self) -> bool:
        """Whether it is a server."""
        return self.url.startswith(("postgresql://", "postgres://"))

    @property
    def path(self) -> Path:
        """The file, where it is one."""
        return Path(self.url.removeprefix("sqlite:///"))

    @property
    def name(self) -> str:
        """For people: the address without a password."""
        return re.sub(r"//([^:@/]*):[^@]*@", r"//\1:...@", self.url.partition("?")[0]) if self.postgres else str(self.path)

    def open(self, *, make: bool = False, durable: bool = True) -> Connection:
        """A connection whose tables are there. Raises `UsageError` where it cannot be had, `DataError` where something else is there.

        `make`: where there is no store yet, it is made.
        """
        if not make and not self.postgres and not self.path.exists():
            raise DataError("no trace store here", where=self.path, hint="name one with --store; `preceptor serve` makes them")
        if not self.postgres and self.path.is_file() and not _is_sqlite(self.path):
            raise DataError("this is no trace store", where=self.path, hint="name one with --store")
        try:
            connection = self.connect(durable=durable, make=make)
            _prepare(connection, make)
        except StoreFailed as error:
            raise UsageError(f"cannot open the trace store: {error}", where=self.name) from None
        return connection

    def connect(self, *, durable: bool = True, make: bool = False) -> Connection:
        """A connection as it is. Raises `StoreFailed`. `make`: a file that is not there is made."""
        return _Postgres(self.url, durable) if self.postgres else _Sqlite(self.path, durable, make)


def _is_sqlite(path: Path) -> bool:
    """Also of a file in which nothing was written yet. SQLite itself would take a file of a few bytes for empty, and write over them."""
    try:
        with path.open("rb") as file:
            return file.read(16) in (b"", b"SQLite format 3\0")
    except OSError as error:
        raise DataError(f"cannot read the trace store: {error.strerror}", where=path) from None


def named(url: str, variable: str | None) -> str:
    """The address, from an environment variable where one is named. Raises `UsageError` where that is empty."""
    if variable is None:
        return url
    if not (found := os.environ.get(variable)):
        raise UsageError(f"the environment variable {variable} is empty", hint="it should hold the address of the trace store")
    return found


def at(url: str) -> Database:
    """The store of that name. Raises `UsageError` for an address of something else, `MissingExtra` without the driver."""
    if "://" in url and not url.startswith(("postgresql://", "postgres://", "sqlite:///")):
        raise UsageError(
            f"a store of the kind {url.partition('://')[0]!r} is not known", hint="a file for SQLite, or postgresql://USER@HOST/NAME"
        )
    database = Database(url)
    if database.postgres:
        require_extra("postgres", "psycopg")
    return database


class Connection(ABC):
    """One connection. SQL is written with `?`; whoever calls holds it in one thread at a time."""

    like = "LIKE"
    """The operator that does not tell capital letters from small ones."""
    _raw: Any

    @abstractmethod
    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; none of a statement."""

    @abstractmethod
    def changed(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """How many rows a statement changed."""

    @abstractmethod
    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """A statement for each row."""

    @abstractmethod
    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that may be larger than memory."""

    @abstractmethod
    def begin(self) -> None:
        """A transaction that writes."""

    def gone(self) -> bool:
        """Whether the file was taken away or another stands in its place: what is written then is written to nobody."""
        return False

    def clean(self, *, patient: bool = True) -> bool:
        """Give space back, and leave nothing of what was deleted in a log of the database. That waits for readers, `patient` or not at all: False where one was in
        the way."""
        return True  # a server does that by itself, in its own time

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing."""
        self.begin()
        try:
            yield
        except BaseException:
            self.undo()
            raise
        self.run("COMMIT")

    def undo(self) -> None:
        """What was begun did not happen."""
        try:
            self.run("ROLLBACK")
        except StoreFailed:  # the connection is gone, and the transaction with it
            return

    def close(self) -> None:
        """It is not used any more."""
        self._raw.close()


class _Sqlite(Connection):
    def __init__(self, path: Path, durable: bool, make: bool):
        with _sqlite():
            if make:
                path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, (os.O_CREAT if make else 0) | os.O_RDWR, 0o600))  # its log files take their rights from it
            self._path, self._inode = path, path.stat().st_ino
            self._raw = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._raw.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts for a file that is empty yet
            write_ahead(self._raw, _BUSY_SECONDS)
            self._raw.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._raw.execute("PRAGMA secure_delete = ON")

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _sqlite():
            return self._raw.execute(sql, parameters).fetchall()

    def changed(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with _sqlite():
            return self._raw.execute(sql, parameters).rowcount

    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with _sqlite():
            self._raw.executemany(sql, rows)

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with _sqlite():
            yield from self._raw.execute(sql, parameters)

    def begin(self) -> None:
        self.run("BEGIN IMMEDIATE")

    def gone(self) -> bool:
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def clean(self, *, patient: bool = True) -> bool:
        self.run("PRAGMA incremental_vacuum" if patient else "PRAGMA incremental_vacuum(500)")
        self.run(f"PRAGMA busy_timeout = {round(1000 * _BUSY_SECONDS) if patient else 0}")
        try:
            return self.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
        finally:
            self.run(f"PRAGMA busy_timeout = {round(1000 * _BUSY_SECONDS)}")


class _Postgres(Connection):
    like = "ILIKE"

    def __init__(self, url: str, durable: bool):
        import psycopg

        commit = "on" if durable else "off"
        with _postgres():
            self._raw = psycopg.connect(
                url, autocommit=True, connect_timeout=_CONNECT_SECONDS, tcp_user_timeout=1000 * _STATEMENT_SECONDS,
                options=f"-c statement_timeout={_STATEMENT_SECONDS}s -c synchronous_commit={commit} -c client_min_messages=warning",
            )  # fmt: skip

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _postgres():
            cursor = self._raw.execute(_marked(sql), parameters)
            return cursor.fetchall() if cursor.description else []

    def changed(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with _postgres():
            return self._raw.execute(_marked(sql), parameters).rowcount

    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with _postgres(), self._raw.cursor() as cursor:
            cursor.executemany(_marked(sql), rows)

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with _postgres(), self._raw.transaction(), self._raw.cursor("each") as cursor:
            yield from cursor.execute(_marked(sql), parameters)

    def begin(self) -> None:
        self.run("BEGIN")


def _marked(sql: str) -> str:
    return sql.replace("?", "%s")


@contextmanager
def _sqlite() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", type(error).__name__)
        raise StoreFailed(f"SQLite: {code}", down=not isinstance(error, sqlite3.IntegrityError | sqlite3.DataError)) from None
    except OSError as error:
        raise StoreFailed(error.strerror or "cannot open the file", down=True) from None


@contextmanager
def _postgres() -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        known = f"{type(error).__name__}{f' ({error.sqlstate})' if error.sqlstate else ''}"
        down = not isinstance(error, psycopg.DataError | psycopg.IntegrityError)
        raise StoreFailed(f"PostgreSQL: {known}", down=down) from None


def _prepare(connection: Connection, make: bool) -> None:
    """Tables that are there, of this version."""
    if (found := _version(connection)) is None and make:
        with connection.transaction():
            if isinstance(connection, _Postgres):
                connection.run("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
            for sql in _TABLES:
                connection.run(sql)
            connection.run("INSERT INTO store VALUES ('schema', ?) ON CONFLICT (name) DO NOTHING", (str(SCHEMA),))
        found = _version(connection)
    if found is None:
        raise DataError("no trace store in this database", hint="`preceptor serve` makes one")
    if found != str(SCHEMA):
        raise DataError(
            f"the trace store is of version {found}, this program reads version {SCHEMA}", hint="use the program it was made with"
        )


def _version(connection: Connection) -> str | None:
    """What the store says of itself; None where it is not there."""
    catalogue = (
        "SELECT 1 FROM information_schema.tables WHERE table_name = 'store' AND table_schema = current_schema()"
        if isinstance(connection, _Postgres)
        else "SELECT 1 FROM sqlite_master WHERE name = 'store'"
    )
    if not connection.run(catalogue):
        return None
    rows = connection.run("SELECT value FROM store WHERE name = 'schema'")
    return str(rows[0][0]) if rows else None
