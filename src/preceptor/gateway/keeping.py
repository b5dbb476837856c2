"""The trace store as the chat server sees it: `add` returns at once, one thread writes.

In: traces. Out: rows, committed in groups: whatever came while the last commit was under way is the next one, so that under load one commit is shared by many.

`add` returns a future that is done when the trace is committed; whoever has to be sure that an answered request is in the store waits for it before the
last of the answer goes.

A store that is down is tried again every second. Until it is back, traces go to a file beside it where that is allowed (`spill_bytes`), and from there to the store before
anything new does; a trace that has no room there is lost, which its future says, and which is counted. A trace that the store refuses by itself does
not take the others with it.

What was erased does not come back: a row of `erased` is looked at with every insert. Personal data is masked here, before anything is written anywhere.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import orjson
from pydantic import ValidationError

from preceptor.errors import DataError, UsageError
from preceptor.gateway import retention
from preceptor.gateway.database import Connection, Database, StoreFailed
from preceptor.gateway.redacting import Redactor
from preceptor.gateway.settings import TracesConfig
from preceptor.gateway.traces import Trace
from preceptor.listening import place_of

LOG = logging.getLogger("preceptor.gateway")
_AGAIN_SECONDS = 1.0
_TOGETHER = 256
"""Traces in one commit, at most."""
_QUEUE_BYTES = 2**26
_OPENING = 200

_STORE = """INSERT INTO traces (request_id, time, key_id, model, status, detail, prompt_tokens, completion_tokens, blocked, flagged, bytes, opening, messages, answer,
    summary, timings) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
    WHERE NOT EXISTS (SELECT 1 FROM erased WHERE what = 'request' AND name = ?) AND NOT EXISTS (SELECT 1 FROM erased WHERE what = 'key' AND name = ? AND time >= ?)
    ON CONFLICT (request_id) DO UPDATE SET status = excluded.status, detail = excluded.detail, prompt_tokens = excluded.prompt_tokens,
    completion_tokens = excluded.completion_tokens, blocked = excluded.blocked, flagged = excluded.flagged, bytes = excluded.bytes, opening = excluded.opening, messages = excluded.messages,
    answer = excluded.answer, summary = excluded.summary, timings = excluded.timings"""
_STORE_POSTGRES = _STORE.replace(
    "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?\n",
    "SELECT ?, CAST(? AS DOUBLE PRECISION), ?, ?, ?, ?, CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS BIGINT), ?, ?, ?,"
    " CAST(? AS TEXT), ?\n",
)
"""What a parameter of a bare SELECT is, PostgreSQL cannot tell."""
_IS_THERE = "WHERE EXISTS (SELECT 1 FROM traces WHERE request_id = ?)"
_REASONING = f"INSERT INTO reasonings (request_id, reasoning) SELECT ?, ? {_IS_THERE} ON CONFLICT (request_id) DO UPDATE SET reasoning = excluded.reasoning"
_FLAG = f"INSERT INTO flags (request_id, number, time, kind, confidence, reason, evidence) SELECT ?, ?, ?, ?, ?, ?, ? {_IS_THERE}"
_FLAG_POSTGRES = _FLAG.replace(
    "SELECT ?, ?, ?, ?, ?, ?, ?", "SELECT ?, CAST(? AS INTEGER), CAST(? AS DOUBLE PRECISION), ?, CAST(? AS DOUBLE PRECISION), ?, ?"
)


@dataclass(frozen=True)
class _Waiting:
    trace: Trace
    size: int
    future: Future[None] = field(default_factory=Future)


class Keeper:
    """Implements `Traces`. Raises `UsageError` when the store cannot be opened at the start. `spilled` is called for each trace that goes to the file."""

    def __init__(self, database: Database, config: TracesConfig, spilled: Callable[[], None] = lambda: None):
        self.database, self.config, self._spilled = database, config, spilled
        self._redactor = Redactor() if config.redact == "mask" else None
        self.spill = Spill(config.spill or _beside(database), config.spill_bytes)
        self._connection: Connection | None = database.open(make=True, durable=config.durable)
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._busy = False
        self._changed = threading.Condition()
        self._ending = False
        self._try_at, self._sweep_at = 0.0, time.monotonic() + min(10.0, config.sweep_seconds)
        self.down = False
        """Whether the last attempt to write failed."""
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Traces in the queue."""
        return len(self._queue)

    def add(self, trace: Trace) -> Future[None]:
        """Have it written. Raises `StoreFailed` where too much waits already."""
        waiting = _Waiting(trace, len(trace.reasoning) + len(trace.answer) + sum(len(message.content) for message in trace.messages))
        with self._changed:
            if self._ending:
                raise StoreFailed("the store is closed", down=True)
            if len(self._queue) >= self.config.queue or (self._queue and self._queued_bytes + waiting.size > _QUEUE_BYTES):
                raise StoreFailed("too many traces wait for the store", down=True)
            waiting.future.set_running_or_notify_cancel()  # whoever stops waiting for it does not stop the writing
            self._queue.append(waiting)
            self._queued_bytes += waiting.size
            self._changed.notify_all()
        return waiting.future

    def flush(self) -> None:
        """Returns when everything that was added is written, or lost."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue and not self._busy)

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch = self._next()
            if batch:
                self._settle(batch)
            elif self._ending:
                break
            self._tend()
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> list[_Waiting]:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self._ending, timeout=_AGAIN_SECONDS)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _TOGETHER))]
            self._queued_bytes -= sum(waiting.size for waiting in batch)
            self._busy = bool(batch)
            return batch

    def _settle(self, batch: Sequence[_Waiting]) -> None:
        """Every future of the batch is done afterwards."""
        clean: list[_Waiting] = []
        for waiting in batch:
            try:
                clean.append(_Waiting(self._redacted(waiting.trace), waiting.size, waiting.future))
            except Exception as error:  # it is not written as it is; what failed is said without its words
                waiting.future.set_exception(StoreFailed(f"masking failed ({type(error).__name__} in {place_of(error)})", down=False))
        try:
            self._write([waiting.trace for waiting in clean])
        except StoreFailed as error:
            self._otherwise(clean, error)
            return
        except Exception as error:  # the thread has to live
            self._otherwise(clean, StoreFailed(f"{type(error).__name__} in {place_of(error)}", down=False))
            return
        for waiting in clean:
            waiting.future.set_result(None)

    def _redacted(self, trace: Trace) -> Trace:
        return self._redactor.trace(trace) if self._redactor else trace

    def _otherwise(self, batch: Sequence[_Waiting], error: StoreFailed) -> None:
        """What the store did not take."""
        if not error.down and len(batch) > 1:
            for waiting in batch:
                self._settle([waiting])
        elif error.down and self.spill.take(waiting.trace for waiting in batch):
            for waiting in batch:
                self._spilled()
                waiting.future.set_result(None)
        else:
            for waiting in batch:
                waiting.future.set_exception(error)

    def _write(self, traces: Sequence[Trace]) -> None:
        """One commit. Raises `StoreFailed`."""
        connection = self._held()
        try:
            if self.spill.waits:
                self._refill(connection)
            write(connection, traces)
        except StoreFailed as error:
            if error.down:
                self._give_up(error)
            raise
        self._is(down=False)

    def _try(self) -> None:
        """Whether it is back, found out by writing: a full disk can be read from."""
        self._held().run(
            "INSERT INTO store VALUES ('tried', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (str(time.time()),)
        )
        self._write([])

    def _held(self) -> Connection:
        """Open. Raises `StoreFailed`."""
        if self._connection is not None and self._connection.gone():
            self._give_up(StoreFailed("the file was taken away", down=True))
            self._try_at = 0.0
        if self._connection is None:
            if time.monotonic() < self._try_at:
                raise StoreFailed("the store is down", down=True)
            try:
                self._connection = self.database.open(make=True, durable=self.config.durable)
            except (DataError, UsageError) as error:
                failed = StoreFailed(error.what, down=True)
                self._give_up(failed)
                raise failed from None
        return self._connection

    def _give_up(self, error: StoreFailed) -> None:
        """Until the next attempt."""
        if self._connection is not None:
            try:
                self._connection.close()
            except Exception as second:  # it is gone either way
                LOG.info("closing failed", extra={"fields": {"error": type(second).__name__}})
        self._connection, self._try_at = None, time.monotonic() + _AGAIN_SECONDS
        self._is(down=True, why=str(error))

    def _is(self, *, down: bool, why: str = "") -> None:
        if down != self.down:
            self.down = down
            if down:
                LOG.error("trace store down", extra={"fields": {"store": self.database.name, "reason": why}})
            else:
                LOG.warning("trace store up", extra={"fields": {"store": self.database.name}})

    def _refill(self, connection: Connection) -> None:
        """What waits in the file, into the store; the file is empty afterwards."""
        with self.spill.taken() as traces:
            count = refused = 0
            while group := [trace for _, trace in zip(range(_TOGETHER), traces, strict=False)]:
                refused += _written_apart(connection, group)
                count += len(group)
            fields = {"traces": count - refused, "refused": refused, "unreadable": self.spill.unreadable}
            LOG.warning("traces written that had waited in a file", extra={"fields": fields})

    def _tend(self) -> None:
        """Between commits: what waits in the file, and what is too old."""
        try:
            if (self.down or self.spill.waits) and not self._queue and not self._ending:
                self._try()
            if time.monotonic() >= self._sweep_at and self.config.keeps_less:
                more = retention.prune(self._held(), days=self.config.keep_days, size=self.config.keep_bytes, rounds=1).again
                self._sweep_at = time.monotonic() + (0.1 if more else self.config.sweep_seconds)
        except StoreFailed as error:
            if error.down and self._connection is not None:
                self._give_up(error)
            elif not error.down:
                LOG.error("tending failed", extra={"fields": {"reason": str(error)}})
                self._sweep_at = time.monotonic() + self.config.sweep_seconds
        except Exception as error:  # the thread has to live
            LOG.error("tending failed", extra={"fields": {"error": type(error).__name__, "place": place_of(error)}})
            self._sweep_at = time.monotonic() + self.config.sweep_seconds


def _beside(database: Database) -> Path:
    return Path("traces.spill.jsonl") if database.postgres else database.path.with_name(database.path.name + ".spill.jsonl")


def write(connection: Connection, traces: Sequence[Trace]) -> None:
    """Traces in one transaction, each in the place of what was there of it. Raises `StoreFailed`."""
    if not traces:
        return
    postgres = connection.like == "ILIKE"
    names = [(trace.request_id,) for trace in traces]
    with connection.transaction():
        connection.many(_STORE_POSTGRES if postgres else _STORE, [_row(trace) for trace in traces])
        connection.many(_REASONING, [(trace.request_id, _text(trace.reasoning), trace.request_id) for trace in traces])
        connection.many("DELETE FROM flags WHERE request_id = ?", names)
        if flags := [row for trace in {trace.request_id: trace for trace in traces}.values() for row in _flags(trace)]:
            connection.many(_FLAG_POSTGRES if postgres else _FLAG, flags)


def _written_apart(connection: Connection, traces: Sequence[Trace]) -> int:
    """Together, or each by itself where the store refuses one of them: the number of those it refuses. Raises `StoreFailed` where it is down."""
    try:
        write(connection, traces)
    except StoreFailed as error:
        if error.down:
            raise
        return 1 if len(traces) == 1 else sum(_written_apart(connection, [trace]) for trace in traces)
    return 0


def _row(trace: Trace) -> tuple[object, ...]:
    messages = orjson.dumps([message.model_dump(mode="json", exclude={"reasoning"}) for message in trace.messages]).decode()
    size = len(messages) + len(trace.answer) + len(trace.reasoning) + len(trace.summary or "")
    return (
        trace.request_id, trace.time, trace.key_id, trace.model, trace.status, _text(trace.detail), trace.prompt_tokens, trace.completion_tokens,
        int(trace.blocked), len(trace.flags), size, _opening(trace), messages, _text(trace.answer), None if trace.summary is None else _text(trace.summary),
        orjson.dumps(trace.timings).decode(), trace.request_id, trace.key_id, trace.time,
    )  # fmt: skip


def _opening(trace: Trace) -> str:
    """The beginning of what was asked last, for lists."""
    asked = next((message.content for message in reversed(trace.messages) if message.role == "user"), "")
    return _text(" ".join(asked[: 2 * _OPENING].split())[:_OPENING])


def _flags(trace: Trace) -> Iterator[tuple[object, ...]]:
    for number, flag in enumerate(trace.flags):
        evidence = orjson.dumps([found.model_dump() for found in flag.evidence]).decode()
        yield trace.request_id, number, trace.time, flag.kind, flag.confidence, _text(flag.reason), evidence, trace.request_id


def _text(text: str) -> str:
    """PostgreSQL takes any character but this one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Spill:
    """A file for what the store cannot take now: a trace a line, for its owner alone, never longer than `limit` bytes. Several servers may share it."""

    def __init__(self, path: Path, limit: int):
        self.path, self.limit = path, limit
        self.unreadable = 0
        """Lines that could not be read back."""

    @property
    def waits(self) -> bool:
        """Whether something is in it."""
        try:
            return self.path.stat().st_size > 0
        except OSError:
            return False

    def take(self, traces: Iterable[Trace]) -> bool:
        """All of them, on the disk when it returns; or none, where there is no room or no disk."""
        if not self.limit:
            return False
        try:
            lines = b"".join(trace.model_dump_json().encode() + b"\n" for trace in traces)
            with self._open() as file:
                if file.seek(0, os.SEEK_END) + len(lines) > self.limit:
                    return False
                if _begun(file):  # killed, or a full disk: what comes next must not be a part of that line
                    lines = b"\n" + lines
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, ValueError):  # ValueError: text that is no Unicode
            return False
        return True

    @contextmanager
    def taken(self) -> Iterator[Iterator[Trace]]:
        """What is in it. When the block ends without an error it is empty. Raises `StoreFailed` where it cannot be read."""
        try:
            with self._open() as file:
                yield self._read(file)
                file.truncate(0)
        except OSError as error:
            raise StoreFailed(f"the file beside the store cannot be read: {error.strerror}", down=True) from None

    def _read(self, file: BinaryIO) -> Iterator[Trace]:
        for line in file:
            try:
                yield Trace.model_validate_json(line)
            except ValidationError:  # the end of a line that was cut off; nobody was told that it is kept
                self.unreadable += 1

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        handle = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file


def _begun(file: BinaryIO) -> bool:
    """Whether its last line was not written to its end. The file is at its end afterwards."""
    if file.tell():
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
    return False
