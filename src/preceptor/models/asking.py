"""Which call starts where and when: one batch of requests over one or several servers.

In: requests, and a way to make one attempt at one of them. Out: replies as they come, each request answered exactly once.

The one idea: requests with an equal leading system message form a group, a server works through one group after the other, and one that
is through with its own helps with the longest of the others. So a server's prefix cache hits, and none stands idle. What failed in a
way that may pass is tried again later, elsewhere where there is an elsewhere.

Not here: HTTP (`endpoint`), how many calls a server bears (`limits`), what they cost (`store`).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from preceptor.errors import UsageError
from preceptor.models import Reply, Request
from preceptor.models.limits import Adaptive, Bucket

TRIES = 6
"""Attempts at a request; those do not count that the server turned away because it is busy, or did not see because it is down."""
BACKOFF = (0.5, 30.0)
"""Seconds before the second attempt, and at most: doubled each time, with full jitter (Brooker 2015, "Exponential Backoff and Jitter")."""
DOWN = (20.0, 300.0)
"""Seconds without any server that answers, after which the run stops: before the first answer, and after it (a server may restart)."""


@dataclass(frozen=True)
class Passing:
    """An attempt that failed in a way that may pass. busy: the server turned it away; down: there was no connection."""

    reason: str
    busy: bool = False
    down: bool = False
    retry_after: float = 0.0


@dataclass
class Replica:
    """One server, and the group of requests it is at."""

    url: str
    pace: Adaptive
    group: deque[int] = field(default_factory=deque)
    losses: int = 0
    """Connections in a row that did not come about."""


@dataclass
class Item:
    """A request on its way. `since`: the time of its first attempt."""

    number: int
    tries: int = 0
    pushed: int = 0
    since: float = 0.0
    away_from: Replica | None = None


class Caller(Protocol):
    """What makes an attempt."""

    replicas: list[Replica]
    buckets: list[Bucket]
    deadline: float
    """Seconds for a request, from its first attempt on."""

    def begin(self, request: Request) -> int | None:
        """Book a call; None when the budget does not bear it now."""
        ...

    async def attempt(self, replica: Replica, request: Request, call: int) -> Reply | Passing:
        """Make the call and book what it used. Raises what stops the run."""
        ...

    def budget_spent(self) -> Exception:
        """What to raise when no further call can be borne."""
        ...


class Asking:
    """The calls of one batch."""

    def __init__(self, caller: Caller, requests: Sequence[Request], numbers: Sequence[int]):
        self.caller, self.requests = caller, requests
        self.open, self.active = len(numbers), 0
        self.groups = _by_prefix(requests, numbers)
        self.again: list[tuple[float, int, Item]] = []
        """Heap of what is to be tried again, by time and number."""
        self.ready: list[tuple[int, Reply]] = []
        self.failure: Exception | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()
        self.alive, self.answered = time.monotonic(), False
        for replica in caller.replicas:
            replica.group, replica.pace.active = deque(), 0

    async def next(self) -> list[tuple[int, Reply]]:
        """Replies that have come in, at least one; none when all have. What stops the run is raised when nothing is under way any more:
        calls that are made are paid for."""
        while not self.ready:
            self.changed.clear()
            delay = self._start()
            if self.failure and not self.active:
                raise self.failure
            if not self.open:
                return []
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), delay)
        ready, self.ready = self.ready, []
        self.open -= len(ready)
        return ready

    async def cancel(self) -> None:
        """End what is under way."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _start(self) -> float | None:
        """Start what may start now. Seconds after which to look again; None: when something has changed."""
        while not self.failure:
            now = time.monotonic()
            delay = max((bucket.delay(now) for bucket in self.caller.buckets), default=0.0)
            if delay:
                return delay
            replica = next((replica for replica in self._by_load() if replica.pace.free(now) and self._has_work(replica, now)), None)
            if replica is None:
                return self._until_something_is_due(now)
            if not self._launch(replica, self._take(replica, now)):
                return None
        return None

    def _until_something_is_due(self, now: float) -> float | None:
        ends = [replica.pace.paused_until for replica in self.caller.replicas if replica.pace.paused_until > now]
        ends += [due for due, _, _ in self.again[:1] if due > now]
        return min(ends) - now + 1e-3 if ends else None

    def _by_load(self) -> Sequence[Replica]:
        replicas = self.caller.replicas
        return sorted(replicas, key=lambda replica: replica.pace.active) if len(replicas) > 1 else replicas

    def _has_work(self, replica: Replica, now: float) -> bool:
        return self._due(replica, now) or bool(self.groups) or any(other.group for other in self.caller.replicas)

    def _due(self, replica: Replica, now: float) -> bool:
        """Whether the first to be tried again may be tried at `replica`: not where it has just failed, if there is another."""
        if not self.again or self.again[0][0] > now:
            return False
        return self.again[0][2].away_from is not replica or len(self.caller.replicas) == 1

    def _take(self, replica: Replica, now: float) -> Item:
        """What is to be tried again; else the next of the replica's group, of a group of its own, or of the longest of the others."""
        if self._due(replica, now):
            return heapq.heappop(self.again)[2]
        if not replica.group and self.groups:
            replica.group = self.groups.pop()
        group = replica.group or max((other.group for other in self.caller.replicas), key=len)
        return Item(group.popleft())

    def _launch(self, replica: Replica, item: Item) -> bool:
        """Book the call and start it; False when the budget does not bear it."""
        request = self.requests[item.number]
        call = self.caller.begin(request)
        if call is None:
            heapq.heappush(self.again, (0.0, item.number, item))
            if not self.active:
                self.failure = self.caller.budget_spent()
            return False
        self.active += 1
        replica.pace.active += 1
        task = asyncio.get_running_loop().create_task(self._one(replica, item, request, call))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def _one(self, replica: Replica, item: Item, request: Request, call: int) -> None:
        """One attempt: a reply, another attempt, or the end of the run."""
        started = time.monotonic()
        item.since = item.since or started
        try:
            found = await self.caller.attempt(replica, request, call)
            self._note(replica, found, started)
            if isinstance(found, Reply):
                self.ready.append((item.number, found))
            else:
                self._try_again(replica, item, found)
        except Exception as error:  # also a mistake in the code: it must not leave the others waiting for ever
            self.failure = self.failure or error
        finally:
            self.active -= 1
            replica.pace.active -= 1
            self.changed.set()

    def _note(self, replica: Replica, found: Reply | Passing, started: float) -> None:
        """What an attempt says about its server."""
        now = time.monotonic()
        if isinstance(found, Passing) and found.down:
            replica.losses += 1
            replica.pace.pushed_back(now, started, min(BACKOFF[1], BACKOFF[0] * 2 ** min(replica.losses, 10)))
            self._check_that_any_is_up(replica, found, now)
            return
        replica.losses, self.alive, self.answered = 0, now, True
        if isinstance(found, Passing) and found.busy:
            replica.pace.pushed_back(now, started, min(found.retry_after, self.caller.deadline))
        elif isinstance(found, Reply):
            replica.pace.succeeded()

    def _check_that_any_is_up(self, replica: Replica, found: Passing, now: float) -> None:
        if self.active == 1 and now - self.alive > DOWN[self.answered]:  # else another server may be at work on a long reply
            urls = ", ".join(replica.url for replica in self.caller.replicas)
            self.failure = self.failure or UsageError(
                f"no server has answered for {now - self.alive:.0f} s at {urls}: {found.reason}",
                hint="start it or correct server.url, then run the same command again; finished work is kept",
            )

    def _try_again(self, replica: Replica, item: Item, found: Passing) -> None:
        now = time.monotonic()
        if found.busy or found.down:
            item.pushed += 1
        else:
            item.tries += 1
        if not found.busy:
            item.away_from = replica
        first, most = BACKOFF
        delay = random.uniform(0, min(most, first * 2 ** min(item.tries + item.pushed - 1, 10)))
        late = now + delay - item.since > self.caller.deadline
        if late or item.tries >= TRIES:
            limit = f"{self.caller.deadline:g} s" if late else f"{item.tries} attempts"
            self.ready.append((item.number, Reply("", "", "failed", f"given up after {limit}: {found.reason}")))
        else:
            heapq.heappush(self.again, (now + delay, item.number, item))


def _by_prefix(requests: Sequence[Request], numbers: Sequence[int]) -> list[deque[int]]:
    """Numbers of requests with an equal leading system message together; the longest group last, to be taken first."""
    groups: dict[int, deque[int]] = {}
    for number in numbers:
        first = requests[number].messages[0]
        groups.setdefault(hash(first.content) if first.role == "system" else 0, deque()).append(number)
    return sorted(groups.values(), key=len)
