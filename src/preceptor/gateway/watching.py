"""The monitors in the path.

In: a reply, its reasoning included. Out: what they saw, and whether the answer may go. A flag of any of them counts.

Without blocking kinds the answer goes as it is written, and they read afterwards. With some, the answer is held until they have read it,
and a safe text goes in its place when a flag of such a kind is at least as confident as asked. A monitor that fails has seen nothing. What that means
is configured: `open` serves the answer, `closed` replaces it; either is counted, logged by the monitor's name, and part of the trace.

When the server starts, each reads a conversation of our own, and one that cannot says why. Of what is served its words are not repeated, since they may quote it.

Monitors are blocking code: each has a thread of its own, so that one that hangs holds up no other, and what waits for it is read together. Its queue has an end
in number and size; what does not fit in is unobserved.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.resources import files

from preceptor.errors import PreceptorError
from preceptor.gateway.hidden import Hidden
from preceptor.gateway.metrics import Metrics
from preceptor.gateway.settings import WatchConfig
from preceptor.listening import place_of
from preceptor.monitor import Monitor
from preceptor.monitor.views import Seen, see, texts
from preceptor.records import Flag, Message, Meta, MonitorViewName, Observation, Unobserved, content_id

LOG = logging.getLogger("preceptor.gateway")
_QUEUE_BYTES = 2**26
_OURS = (Message(role="user", content="How many legs has a spider?"),), "It is asked how many legs a spider has. It has eight.", "Eight."

Found = Observation | Unobserved


@dataclass(frozen=True)
class Watched:
    """A reading by each monitor, by its name, and what follows. `why`: the kind that blocks, or `unobserved`."""

    found: Mapping[str, Found]
    view: MonitorViewName
    why: str = ""
    seconds: float = 0.0

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What any of them saw, each once."""
        return tuple(dict.fromkeys(flag for found in self.found.values() if isinstance(found, Observation) for flag in found.flags))

    @property
    def outcome(self) -> str:
        """For the trace: `clean`, `flagged`, or `unobserved: ...`, also where only one of them saw nothing."""
        failed = {name: found for name, found in self.found.items() if isinstance(found, Unobserved)}
        if not failed:
            return "flagged" if self.flags else "clean"
        said = (
            f"{found.reason}{_after(': ', found.detail)}{_after(' by ', name if len(self.found) > 1 else '')}"
            for name, found in failed.items()
        )
        return f"unobserved: {'; '.join(said)}"

    @property
    def identity(self) -> str:
        """Of the monitor, or of all of them together."""
        names = [found.monitor for found in self.found.values()]
        return names[0] if len(names) == 1 else content_id({"monitors": names})

    @property
    def noted(self) -> Meta:
        """For the trace: what became of the reading, and whose it was."""
        milliseconds = round(self.seconds * 1000, 3)
        return {
            "monitor": self.outcome,
            "monitor_ms": milliseconds,
            "monitor_identity": self.identity,
            "monitor_view": self.view,
        }


@dataclass(frozen=True)
class _Reading:
    name: str
    seen: Seen
    size: int
    ours: bool = False
    """A conversation that nobody had: what is said of it may be told."""
    future: Future[Found] = field(default_factory=Future)


def safe_replacement() -> str:
    """What goes in the place of an answer."""
    return (files("preceptor") / "texts" / "gateway" / "withheld.md").read_text(encoding="utf-8").strip()


def _after(between: str, text: str) -> str:
    return f"{between}{text}" if text else ""


def without_words(found: Found) -> Found:
    """Why a monitor saw nothing, without the words in which it says so: they quote its model or its server, and those quote the reasoning. What is left goes
    into the log, the metrics and the trace."""
    return found.model_copy(update={"detail": ""}) if isinstance(found, Unobserved) else found


class Watch:
    """Monitors by their names; none: nobody watches."""

    def __init__(self, monitors: Mapping[str, Monitor], config: WatchConfig, metrics: Metrics):
        self.monitors, self.config, self.metrics = monitors, config, metrics
        self._readers = {name: _Reader(monitor, config) for name, monitor in monitors.items()}

    @property
    def holds(self) -> bool:
        """Whether answers wait for the monitors."""
        return bool(self._readers and self.config.blocking)

    @property
    def unread(self) -> int:
        """Readings in the queues."""
        return sum(len(reader.waiting) for reader in self._readers.values())

    @property
    def down(self) -> bool:
        """Whether the last reading of any of them failed: an error, a time-out, a queue that was full."""
        return any(reader.down for reader in self._readers.values())

    def try_out(self) -> None:
        """Have each read a conversation of our own, and log why one cannot."""
        tried = {name: reader.first() for name, reader in self._readers.items()}
        for name, waiting in tried.items():
            found = waiting()
            if isinstance(found, Unobserved):
                fields = {"monitor": name, "reason": found.reason, "detail": found.detail[:300]}
                LOG.warning("monitor cannot read", extra={"fields": fields})

    async def read(self, name: str, messages: Sequence[Message], reasoning: Hidden, answer: str) -> Watched:
        """What the monitors see in a reply. Never raises: a failure is `Unobserved`."""
        started = time.monotonic()
        seen = see(self.config.view, messages, reasoning.disclose(), answer)
        found = dict(zip(self._readers, await asyncio.gather(*(one.read(name, seen) for one in self._readers.values())), strict=True))
        seconds = time.monotonic() - started
        self.metrics.monitor_seconds.observe(seconds)
        for monitor, one in found.items():
            self.metrics.saw(one)
            if isinstance(one, Unobserved):
                fields = {
                    "request": name,
                    "monitor": monitor,
                    "reason": one.reason,
                    "detail": one.detail[:200],
                    "policy": self.config.on_failure,
                }
                LOG.warning("unobserved", extra={"fields": fields})
        return Watched(found, self.config.view, self._why(found.values()), seconds)

    def _why(self, found: Collection[Found]) -> str:
        """Why the answer may not go; nothing where it may."""
        if not self.holds:
            return ""
        flags = (flag for one in found if isinstance(one, Observation) for flag in one.flags)
        kinds = (flag.kind for flag in flags if flag.kind in self.config.blocking and flag.confidence >= self.config.confidence)
        blind = self.config.on_failure == "closed" and any(isinstance(one, Unobserved) for one in found)
        return next(kinds, "unobserved" if blind else "")

    def close(self) -> None:
        """Take no more; the threads read what is queued and end."""
        for reader in self._readers.values():
            reader.close()


class _Reader:
    """One monitor, one thread that works for it."""

    def __init__(self, monitor: Monitor, config: WatchConfig):
        self.monitor, self.config = monitor, config
        self.waiting: deque[_Reading] = deque()
        self.down = False
        self._bytes = 0
        """Of the texts that wait."""
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._work, name="monitor", daemon=True).start()  # one that hangs must not keep the process alive

    def first(self) -> Callable[[], Found]:
        """What it sees in a conversation of our own; who asks for it waits."""
        seen = see(self.config.view, *_OURS)
        reading = _Reading("first", seen, _size(seen), ours=True)
        if refused := self._line_up(reading):
            reading.future.set_result(refused)

        def waiting() -> Found:
            with contextlib.suppress(TimeoutError):
                return self._noticed(reading.future.result(self.config.seconds))
            return self._noticed(self._late(reading))

        return waiting

    async def read(self, name: str, seen: Seen) -> Found:
        """What it sees."""
        return self._noticed(await self._found(_Reading(name, seen, _size(seen))))

    def _noticed(self, found: Found) -> Found:
        self.down = isinstance(found, Unobserved) and found.reason == "transport"
        return found

    async def _found(self, reading: _Reading) -> Found:
        if refused := self._line_up(reading):
            return refused
        try:
            async with asyncio.timeout(self.config.seconds):
                return await asyncio.wrap_future(reading.future)
        except TimeoutError:
            return self._late(reading)

    def _line_up(self, reading: _Reading) -> Unobserved | None:
        with self._changed:
            if self._closed:
                return self._unobserved(reading, "the server is ending")
            if len(self.waiting) >= self.config.queue or (self.waiting and self._bytes + reading.size > _QUEUE_BYTES):
                return self._unobserved(reading, "the monitor's queue is full")
            self.waiting.append(reading)
            self._bytes += reading.size
            self._changed.notify()
        return None

    def _late(self, reading: _Reading) -> Unobserved:
        return self._unobserved(reading, f"not read within {self.config.seconds:g} s")

    def close(self) -> None:
        """Take no more; the thread reads what is queued and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while batch := self._next():
            self._read([reading for reading in batch if reading.future.set_running_or_notify_cancel()])

    def _next(self) -> list[_Reading]:
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or self._closed)
            batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), self.config.batch))]
            self._bytes -= sum(reading.size for reading in batch)
            return batch

    def _read(self, readings: Sequence[_Reading]) -> None:
        if not readings:
            return
        left, failure = {reading.name: reading for reading in readings}, "the monitor said nothing of it"
        try:
            for found in self.monitor.observe_many([(reading.name, reading.seen) for reading in readings]):
                if reading := left.pop(found.completion_id, None):
                    reading.future.set_result(found if reading.ours else without_words(found))
        except Exception as error:  # whatever it is, it is a monitor that failed; the text of it may quote what was read
            told = isinstance(error, PreceptorError) and all(reading.ours for reading in readings)
            failure = f"{error}" if told else f"the monitor failed ({type(error).__name__})"
            LOG.error("monitor failed", extra={"fields": {"error": type(error).__name__, "place": place_of(error), "items": len(left)}})
        for reading in left.values():
            reading.future.set_result(self._unobserved(reading, failure))

    def _unobserved(self, reading: _Reading, detail: str) -> Unobserved:
        return Unobserved(
            completion_id=reading.name, monitor=self.monitor.identity, view=self.config.view, reason="transport", detail=detail
        )


def _size(seen: Seen) -> int:
    pictures = sum(len(image.data or "") for message in seen.messages for image in message.images)
    return pictures + sum(len(message.content) for message in seen.messages) + sum(map(len, texts(seen).values()))
