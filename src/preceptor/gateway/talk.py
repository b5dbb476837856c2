"""One conversation: the model writes, the monitor reads, the answer goes.

In: a `Question` and who asks. Out: events for whoever renders them: `Began` with the model's first token, `Text`s of the answer, one `End`; or `Refused`.

The reasoning goes into a box (`hidden`) as it comes and stays there. It is opened for the monitor, for the summariser, for the trace, and by `app` for
an operator's warrant, each in one place. The trace is with the store before the end of the answer is sent, so that every answered request is in it; where a
monitor reads afterwards, the trace is added again with its flags.

How long everything took is in the trace, in milliseconds: `first_ms` to the first of the answer, `added_ms` of it that the server is to blame for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from preceptor.gateway.hidden import Hidden
from preceptor.gateway.keys import Caller
from preceptor.gateway.metrics import Metrics
from preceptor.gateway.sent import Finish, Refused, Usage, usage_of
from preceptor.gateway.stops import Stops
from preceptor.gateway.traces import Trace, Traces
from preceptor.gateway.upstream import Asked, Backend, Done
from preceptor.gateway.watching import Watch, Watched, safe_replacement
from preceptor.gateway.wire import Question
from preceptor.listening import place_of
from preceptor.monitor.views import BothSeen
from preceptor.records import Meta, Status
from preceptor.summaries import NoSummary, Summariser, Summary

LOG = logging.getLogger("preceptor.gateway")
CHARACTERS_PER_TOKEN = 4
"""Where nobody has counted."""
_READERS = 8
"""Summaries that are written at the same time, at most."""


@dataclass(frozen=True, slots=True)
class Began:
    """The model has begun to write; not what."""


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The answer is whole, or as whole as it gets."""

    finish: Finish
    usage: Usage
    summary: str | None
    reasoning_characters: int
    answer_characters: int


Event = Began | Text | End


@dataclass
class House:
    """What all conversations share."""

    backend: Backend
    watch: Watch
    traces: Traces
    metrics: Metrics
    summariser: Summariser | None = None
    summary_seconds: float = 60
    traces_on_failure: Literal["open", "closed"] = "open"
    """What it means for an answer that its trace cannot be kept."""
    traces_wait: bool = True
    """Whether an answer waits for its trace to be kept."""
    traces_seconds: float = 10
    """How long."""
    hold: bool = False
    """Streams begin when the reply is whole."""
    ask_whole: bool = False
    """Whole requests are asked of the model whole."""
    later: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READERS))
    replacement: str = field(default_factory=safe_replacement)

    def after(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that nobody waits for, until the server ends."""
        task = asyncio.create_task(work)
        self.later.add(task)
        task.add_done_callback(self.later.discard)

    @property
    def down(self) -> dict[str, str]:
        """What is, for `/healthz`."""
        return {name: "down" for name, down in (("traces", self.traces.down), ("monitor", self.watch.down)) if down}

    @property
    def mute(self) -> bool:
        """Whether no answer goes, because none can be kept."""
        return self.traces.down and self.traces_on_failure == "closed"

    async def summarise(self, seen: BothSeen, secrets: tuple[str, ...]) -> Summary | NoSummary:
        """What the summariser says. Never raises."""
        if self.summariser is None:
            return NoSummary("failed", "there is no summariser")
        try:
            async with asyncio.timeout(self.summary_seconds):
                await self._writers.acquire()
                return await asyncio.wrap_future(self._written(partial(self.summariser.summarise, seen, secrets=secrets)))
        except TimeoutError:
            return NoSummary("failed", f"not written within {self.summary_seconds:g} s")
        except Exception as error:  # no summary rather than an unsafe one
            LOG.error("summariser failed", extra={"fields": {"error": type(error).__name__, "place": place_of(error)}})
            return NoSummary("failed", f"the summariser failed ({type(error).__name__})")

    def _written(self, write: Callable[[], Summary | NoSummary]) -> Future[Summary | NoSummary]:
        """In a thread of its own, which gives the writer's place back: a summariser that hangs takes no other's thread and does not keep the process alive."""
        found, loop = Future[Summary | NoSummary](), asyncio.get_running_loop()
        found.set_running_or_notify_cancel()  # whoever stops waiting does not end it

        def work() -> None:
            try:
                found.set_result(write())
            except Exception as error:
                found.set_exception(error)
            with suppress(RuntimeError):  # the loop has ended in the meantime
                loop.call_soon_threadsafe(self._writers.release)

        threading.Thread(target=work, name="summary", daemon=True).start()
        return found

    async def close(self, seconds: float) -> None:
        """Finish what nobody waits for, as far as the time goes."""
        self.watch.close()
        if self.later:
            _, left = await asyncio.wait(self.later, timeout=seconds)
            for task in left:
                task.cancel()
        await asyncio.to_thread(self.traces.flush)
        await self.backend.aclose()


@dataclass
class Clock:
    """When what happened; `time.monotonic`."""

    started: float
    asked: float = 0.0
    answered: float = 0.0
    """The first of the answer came from the model."""
    done: float = 0.0
    sent: float = 0.0
    """The first of the answer was sent."""

    def added(self, now: float, streamed: bool) -> float:
        """Seconds until the first of the answer that were not the model's."""
        ready = (self.answered if streamed else self.done) or now
        return max(0.0, (self.asked or now) - self.started) + max(0.0, (self.sent or now) - ready)


class Talk:
    """One request. `waits_for` and `since` are what the time-outs look at."""

    def __init__(self, house: House, question: Question, caller: Caller, request_id: str, started: float):
        self.house, self.question, self.caller, self.request_id = house, question, caller, request_id
        self.reasoning = Hidden()
        self.clock = Clock(started)
        self.began = False
        self.waits_for: Literal["model", "reply", "server", "client"] = "server"
        """model: for the next it writes. reply: for all of it at once."""
        self.since = started
        self.ended: Status | None = None
        self.fields: dict[str, str | int | float | bool] = {}
        """For the log: numbers and the server's own words."""
        self._came = time.time()
        self._answer: list[str] = []
        self._stops = Stops(question.stops)
        self._timings: Meta = {}
        self._trace: Trace | None = None
        self._usage: Usage | None = None
        """What was charged."""

    @property
    def streams(self) -> bool:
        """Whether the answer goes as it is written."""
        return self.question.stream and not self.house.watch.holds and not self.house.hold

    @property
    def whole(self) -> bool:
        """Whether the model is asked for all of it at once. A stop sequence ends its work, and has to be seen in time."""
        return self.house.ask_whole and not self.question.stream and not self.question.stops

    @property
    def answer(self) -> str:
        """As the model wrote it, up to a stop sequence."""
        return "".join(self._answer)

    async def events(self) -> AsyncGenerator[Event, None]:
        """The whole of it. Raises `Refused`."""
        if self.house.mute:
            raise _traceless()
        try:
            async with aclosing(self._heard()) as heard:
                async for text in heard:
                    yield text
            assert self._done is not None
            async with aclosing(self._closing(self._done)) as closing:
                async for event in closing:
                    yield event
        finally:
            if self._trace is None:  # the client left, or a time-out came; what was written by then is paid for all the same
                usage = self._usage or self._charged(Done("failed"))
                self._note(self._keep("failed", "cut off", None, usage), self.request_id)

    _done: Done | None = None

    async def _heard(self) -> AsyncGenerator[Began | Text, None]:
        """What the model writes, until it is done or a stop sequence comes."""
        asked = Asked(self.question.messages, self.question.sampling, self.question.model, self.whole)
        streams = self.streams
        self.clock.asked = time.monotonic()
        self._wait_for("reply" if self.whole else "model")
        async with aclosing(self.house.backend.stream(asked)) as coming:
            async for piece in coming:
                if isinstance(piece, Done):
                    self._done = piece
                    break
                self.since = time.monotonic()
                if not self.began:
                    self.began = True
                    yield Began()
                if piece.reasoning:
                    self.reasoning.add(piece.reasoning)
                if piece.answer and (text := self._taken(piece.answer)) and streams:
                    self._wait_for("client")
                    yield Text(text)
                    self._wait_for("model")
                if (
                    self._stops.hit and not self.house.hold
                ):  # what is held is proved to its end: a stop sequence must not cut the proof short
                    self._done = Done("ok")
                    break
        self.clock.done = time.monotonic()
        self._wait_for("server")
        self._done = self._done or Done("failed", "the reply had no end")
        if self._stops.hit and self._done.status == "truncated":  # behind what is shown
            self._done = replace(self._done, status="ok")

    def _taken(self, piece: str) -> str:
        """More of the answer, without the white space it begins with, up to a stop sequence."""
        text = self._stops.feed(piece if self._answer else piece.lstrip())
        if text:
            self.clock.answered = self.clock.answered or time.monotonic()
            self._answer.append(text)
        return text

    async def _closing(self, done: Done) -> AsyncGenerator[Event, None]:
        """Status, monitor, summary, trace; and what goes of the answer."""
        usage = self._charged(done)
        if done.status in ("failed", "malformed"):
            self.fields |= {"failure": done.failure} if done.failure else {}
            self._note(self._keep(done.status, done.detail, None, usage), self.request_id)
            raise _refused(done)
        rest = self._stops.end()
        if rest:
            self._answer.append(rest)
        watched = await self._watched() if self.house.watch.holds else None
        why = watched.why if watched else ""
        if why:
            self.house.metrics.blocked.labels(why).inc()
            self.fields["blocked"] = why
        summary = await self._summary(done) if self.question.summary and not why else None
        await self._settled(self._keep(done.status, done.detail, watched, usage, summary), self.request_id, last=False)
        text = self.house.replacement if why else rest if self.streams else self.answer
        if text:
            yield Text(text)
        finish: Finish = "content_filter" if why or done.status == "refused" else "length" if done.status == "truncated" else "stop"
        yield End(finish, usage, summary, len(self.reasoning), len(text) if why else len(self.answer))

    async def _watched(self) -> Watched | None:
        if not self.reasoning and not self._answer:
            return None
        return await self.house.watch.read(self.request_id, self.question.messages, self.reasoning, self.answer)

    async def _summary(self, done: Done) -> str | None:
        if done.status != "ok" or not self.reasoning:
            return None
        started = time.monotonic()
        secrets = tuple(
            message.content for message in self.question.messages if message.role in ("system", "developer") and message.content
        )
        seen = BothSeen(messages=self.question.messages, reasoning=self.reasoning.disclose(), answer=self.answer)
        found = await self.house.summarise(seen, secrets)
        self._timings["summary_ms"] = _ms(time.monotonic() - started)
        self._timings["summary"] = outcome = "made" if isinstance(found, Summary) else found.reason
        if isinstance(found, NoSummary):
            self._timings["summary_why"] = found.why
        self.house.metrics.summaries.labels(outcome).inc()
        return found.text if isinstance(found, Summary) else None

    def _charged(self, done: Done) -> Usage:
        prompt = done.prompt_tokens or _tokens(sum(len(message.content) for message in self.question.messages))
        self._usage = usage = usage_of(prompt, done.completion_tokens or _tokens(len(self.reasoning) + sum(map(len, self._answer))))
        self.caller.account.charge(usage.total_tokens)
        self.house.metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.house.metrics.tokens.labels("completion").inc(usage.completion_tokens)
        return usage

    def _keep(self, status: Status, detail: str, watched: Watched | None, usage: Usage, summary: str | None = None) -> Future[None] | None:
        """The trace. Raises `Refused` with 503 when the store cannot take it and answers are not to go without."""
        self.ended = status
        self.house.metrics.replies.labels(status).inc()
        now = time.monotonic()
        self._timings |= self._times(now)
        if watched:
            self._timings |= watched.noted
        self.fields |= ({"detail": detail[:200]} if detail else {}) | {
            "reply": status,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        }
        self._trace = Trace(
            request_id=self.request_id, time=self._came, key_id=self.caller.key_id, model=self.house.backend.name,
            messages=self.question.messages, reasoning=self.reasoning.disclose(), answer=self.answer, status=status, detail=detail,
            prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens, summary=summary,
            flags=watched.flags if watched else (), blocked=bool(watched and watched.why), timings=self._timings,
        )  # fmt: skip
        kept = self._store(self._trace, last=False)
        if watched is None and self.house.watch.monitors and (self.reasoning or self._answer):
            self.house.after(self._watch_later(self._trace))
        return kept

    async def _watch_later(self, trace: Trace) -> None:
        """The monitor reads what has gone."""
        watched = await self.house.watch.read(self.request_id, trace.messages, self.reasoning, trace.answer)
        timings: Meta = {**trace.timings, **watched.noted}
        kept = self._store(trace.model_copy(update={"flags": watched.flags, "timings": timings}), last=True)
        await self._settled(kept, trace.request_id, last=True)

    def _store(self, trace: Trace, *, last: bool) -> Future[None] | None:
        try:
            kept = self.house.traces.add(trace)
        except Exception as error:  # a store that is down must not take the server with it, unless that is what is wanted
            self._lost(error, trace.request_id, last)
            return None
        if kept is None:
            self.house.metrics.traces.labels("kept").inc()
        return kept

    async def _settled(self, kept: Future[None] | None, name: str, *, last: bool) -> None:
        """Returns when the trace is where a crash cannot take it. Raises `Refused` as `_keep` does."""
        if kept is None or not self.house.traces_wait:
            self._note(kept, name)
            return
        try:
            async with asyncio.timeout(self.house.traces_seconds):
                await asyncio.wrap_future(kept)
        except Exception as error:  # not kept, or not in time: counted, and the answer goes or does not as `traces_on_failure` says
            self._lost(error, name, last)
            return
        self.house.metrics.traces.labels("kept").inc()

    def _note(self, kept: Future[None] | None, name: str) -> None:
        """Nobody waits for it; what becomes of it is counted all the same."""
        if kept is not None:
            kept.add_done_callback(lambda done: self._told(done, name))

    def _told(self, kept: Future[None], name: str) -> None:
        if error := kept.exception():
            self._lost(error, name, last=True)
        else:
            self.house.metrics.traces.labels("kept").inc()

    def _lost(self, error: BaseException, name: str, last: bool) -> None:
        self.house.metrics.traces.labels("lost").inc()
        fields = {"request": name, "error": type(error).__name__, "place": place_of(error), "policy": self.house.traces_on_failure}
        LOG.error("trace lost", extra={"fields": fields})
        if self.house.traces_on_failure == "closed" and not last:
            raise _traceless() from None

    def _times(self, now: float) -> Meta:
        clock = self.clock
        return {
            "queue_ms": _ms((clock.asked or now) - clock.started),
            "model_ms": _ms((clock.done or now) - clock.asked) if clock.asked else 0.0,
            "first_ms": _ms((clock.sent or now) - clock.started),
            "added_ms": _ms(clock.added(now, self.streams)),
            "total_ms": _ms(now - clock.started),
        }

    def _wait_for(self, what: Literal["model", "reply", "server", "client"]) -> None:
        self.waits_for, self.since = what, time.monotonic()


def _traceless() -> Refused:
    return Refused(503, "the server cannot keep its records, and does not answer without", "traces_unavailable", retry_after=5)


def _refused(done: Done) -> Refused:
    """What a client is told of a reply that cannot be shown, and whether asking again at once may help."""
    if done.status == "malformed":
        return Refused(502, "the model's reply was not well formed and is not shown", "reply_malformed", again=False)
    if done.failure == "busy":
        return Refused(503, "the model is busy; come again in a moment", "upstream_busy", retry_after=2)
    if done.failure == "timeout":
        return Refused(504, "the model took too long", "timeout", again=False)
    if done.failure == "long":
        return Refused(400, "the conversation does not fit into the model's context", "context_length_exceeded", again=False)
    if done.failure == "setup":
        return Refused(502, "the server cannot reach its model as it is set up; its log says why", "upstream_setup", again=False)
    return Refused(502, "the model did not answer", "upstream_failed")


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
