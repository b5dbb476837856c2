"""Where a conversation is answered: an OpenAI-compatible server (vLLM, SGLang, Ollama, llama.cpp, hosted ones), or a model of this process.

In: a conversation.  Out: what the model writes, reasoning and answer apart, as it comes, and one `Done`.

The one idea: a stream has no exceptions. Whatever happens, a lost connection, a refusal, a server that speaks something else, a model that
fails, is a `Done` with a reason in this program's own words, and what came before it stands. A server's words are not repeated: they may
quote the conversation. Nothing is tried again here, since a client that was shown a part cannot be shown another beginning.

Whoever stops before the end closes the generator (`contextlib.aclosing`); then the request behind it is closed as well, and a server stops
writing. Back-pressure is that of the connection: what is not asked for is not read.

The client is aiohttp's, because streams are read in C there: with httpx, half of the gateway's processor time went into taking chunks from a socket
(benchmarks/gateway.py). What came in one piece goes on in one piece, so that a gateway that falls behind has less to do for each token.

Who reads nothing before the end (`Asked.whole`) asks for one body and no stream; it is read by the same rules, as a stream of one event.

Not here: what a server's events mean (`reading`), which addresses there are and their settings (`models.endpoint`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import urllib.request
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import aiohttp
import httpx
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import JsonValue, ValidationError

from preceptor.errors import UsageError
from preceptor.gateway.events import LIMIT, Events
from preceptor.gateway.reading import Delta, Done, Failure, Reading, Where
from preceptor.gateway.splitter import DEFAULT_TAGS, Splitter, Tags
from preceptor.models import Model, Reply, Request
from preceptor.models.endpoint import Endpoint, EndpointConfig
from preceptor.models.limits import allow_files
from preceptor.models.refusals import Family, code_of, complaint, family
from preceptor.models.replies import body_of
from preceptor.records import Message, Sampling

__all__ = ["Asked", "Backend", "Delta", "Done", "Failure", "HttpBackend", "ModelBackend", "Timeouts", "Where"]

LOG = logging.getLogger("preceptor.gateway")
_IDLE_SECONDS = 4.0
"""For which a connection is kept for the next request: less than servers keep it (uvicorn: 5), since a request on a closed one is lost."""
_FIGURES_SECONDS = 5.0
"""How long a server may take to say what it has used, after a reply's end."""
_DRAIN_SECONDS = 0.25
_ROOM, _CHARACTERS_PER_TOKEN = 2**20, 64
"""A reply has so many characters at most, and so many more for each token that was asked for: a server that does not heed the limit must not fill the memory."""
_TICK_SECONDS = 0.1
_LARGE_BYTES = 65536
"""From which what came is read in a thread: the worst text takes most of a second for each million characters, in which nobody else would be answered."""
_ERROR_BYTES = 65536
"""Of a refusal's body, which is read for its code alone."""
_REFUSALS: dict[Family, tuple[Failure, str]] = {
    "key": ("setup", "the upstream refuses the gateway's key"),
    "unknown": ("setup", "the upstream does not know the model or the address"),
    "address": ("setup", "the upstream answers no chat completions at this address"),
    "credit": ("setup", "the gateway's account at the upstream has no credit"),
    "busy": ("busy", "the upstream is busy"),
    "passing": ("upstream", "the upstream failed"),
    "long": ("long", "the conversation does not fit into the model's context"),
    "wrong": ("upstream", "the upstream refuses this request"),
}


@dataclass(frozen=True)
class Asked:
    """One conversation to be answered. `model`: the name the client gave; a backend that serves one model does not look at it."""

    messages: tuple[Message, ...]
    sampling: Sampling
    model: str
    whole: bool = False
    """Nobody reads the reply before its end: a server is asked for one body and not for a stream."""


class Backend(Protocol):
    """Answers conversations."""

    name: str
    """For people, and for `/v1/models`."""

    def stream(self, asked: Asked) -> AsyncGenerator[Delta | Done, None]:
        """Deltas, then exactly one `Done`. Raises nothing: a failure is `Done("failed", why)`. Whoever stops before the end closes the generator
        (`contextlib.aclosing`), and the work behind it ends. What came before a status other than ok is no answer that counts."""
        ...

    async def aclose(self) -> None:
        """Give back connections and threads."""
        ...


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect: float = 10
    first: float = 120
    """From the request to the first token. A body that comes at once has `total`."""
    between: float = 60
    """From one token to the next. Comments that keep a connection alive are none."""
    total: float = 900
    """For the whole reply, the client's own slowness included."""


DEFAULT_TIMEOUTS = Timeouts()


class HttpBackend:
    """A model behind an OpenAI-compatible server.

    `server`: its address, or what a recipe says of it; of several addresses the least busy is taken. `prefilled` and `tags` are for reasoning
    that stands in the content (`reading`). `extra`: further fields of the request's body.
    Raises `UsageError` where the settings are wrong or the key's environment variable is not set.
    """

    def __init__(
        self, server: str | EndpointConfig, model: str, *, reasoning: Where = "auto", tags: Tags = DEFAULT_TAGS, prefilled: bool = False,
        key_env: str | None = None, extra: dict[str, JsonValue] | None = None, timeouts: Timeouts = DEFAULT_TIMEOUTS, concurrency: int = 1000,
    ):  # fmt: skip
        config = _config(server, key_env, extra or {}, concurrency) if isinstance(server, str) else server
        self.name, self.timeouts = model, timeouts
        self._endpoint = Endpoint(model, config)
        Splitter(tags)  # builds what recognises the markers, a tenth of a second, before the first reply and not within it
        self._reading = lambda: Reading(reasoning, tags, prefilled=prefilled)
        self._active = dict.fromkeys((url.rstrip("/") for url in config.urls), 0)
        self._concurrency = config.concurrency * len(self._active)
        self._client: aiohttp.ClientSession | None = None

    async def stream(self, asked: Asked) -> AsyncGenerator[Delta | Done, None]:
        """As `Backend.stream`."""
        reading = self._reading()
        try:
            async with contextlib.aclosing(self._stream(asked, reading)) as items:
                async for item in items:
                    yield item
        except aiohttp.ConnectionTimeoutError:
            yield _failed(reading, "unreachable", "the upstream cannot be reached")
        except TimeoutError:
            yield _failed(reading, "timeout", "the upstream took too long")
        except aiohttp.ClientConnectorError:
            yield _failed(reading, "unreachable", "the upstream cannot be reached")
        except (aiohttp.ClientError, HttpProcessingError, OSError):
            yield _failed(reading, "unreachable", "the connection to the upstream was lost")
        except UsageError as error:
            yield _failed(reading, "setup", error.what)
        except ValueError:
            yield _failed(reading, "upstream", "the upstream sends what is no chat completion")
        except Exception as error:  # whatever it is: the client gets its end, and nothing of the conversation gets into a log
            LOG.error("upstream failed", extra={"fields": {"error": type(error).__name__, "backend": self.name}})
            yield _failed(reading, "upstream", "the gateway failed")

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _stream(self, asked: Asked, reading: Reading) -> AsyncGenerator[Delta | Done, None]:
        clock = _Clock(self.timeouts, asked.whole)
        async with self._response(asked, clock) as response:
            if response.status != 200:
                yield await _refusal(response, clock)
                return
            if response.headers.get("content-encoding", "identity") != "identity":  # a few kilobytes may unpack to gigabytes
                yield Done("failed", "the upstream compresses its replies, though it was asked not to", failure="upstream")
                return
            room = _ROOM + _CHARACTERS_PER_TOKEN * asked.sampling.max_tokens
            async with contextlib.aclosing(_bodies(response, clock)) as bodies:
                async for group in bodies:
                    large = sum(map(len, group)) > _LARGE_BYTES
                    delta, error = await asyncio.to_thread(delta_of, reading, group) if large else delta_of(reading, group)
                    if delta:
                        clock.token()
                        yield delta
                        clock.waits()
                        room -= len(delta.reasoning) + len(delta.answer)
                    if error or room < 0:
                        raise error or ValueError("more than the token limit allows")
                    if reading.over:
                        break
                    if reading.concluded:
                        clock.ends()
        yield reading.end()

    @contextlib.asynccontextmanager
    async def _response(self, asked: Asked, clock: _Clock) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, whose body is still to be read."""
        body = self._endpoint.body(Request(asked.messages, asked.sampling))
        content = orjson.dumps(body if asked.whole else {**body, "stream": True, "stream_options": {"include_usage": True}})
        headers = {"accept": "application/json" if asked.whole else "text/event-stream"}
        url = min(self._active, key=self._active.__getitem__)
        self._client = client = self._client or self._connected()
        self._active[url] += 1
        try:
            response = await clock.limited(client.post(f"{url}/chat/completions", data=content, headers=headers, allow_redirects=False))
            try:
                with clock.over(response):
                    yield response
            finally:
                response.release()  # closes it where something of it is unread
        finally:
            self._active[url] -= 1

    def _connected(self) -> aiohttp.ClientSession:
        """Connections of this event loop. Nothing but the time until one stands is limited here: that is the clock's."""
        allow_files(self._concurrency)
        connector = aiohttp.TCPConnector(limit=self._concurrency, keepalive_timeout=_IDLE_SECONDS, ssl=httpx.create_ssl_context())
        headers = {
            **self._endpoint.headers,
            "content-type": "application/json",
            "accept-encoding": "identity",
        }
        return aiohttp.ClientSession(
            connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), trust_env=bool(urllib.request.getproxies()),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeouts.connect), auto_decompress=False,
        )  # fmt: skip


class _Clock:
    """Until when a server may keep one reader waiting."""

    def __init__(self, timeouts: Timeouts, whole: bool):
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._timeouts = timeouts
        self._end, self._until, self._started = now + timeouts.total, now + (timeouts.total if whole else timeouts.first), False
        self._reading = self._expired = False

    def token(self) -> None:
        """One has come."""
        self._started = True

    def waits(self) -> None:
        """From now on for the next one: how long the client took over the last is not the server's time."""
        if self._started:
            self._until = self._loop.time() + self._timeouts.between

    def ends(self) -> None:
        """All but the figures has come."""
        self._until = min(self._until, self._loop.time() + _FIGURES_SECONDS)

    async def limited(self, awaitable: Any) -> Any:
        """What `awaitable` gives, in time. Raises `TimeoutError`."""
        async with asyncio.timeout_at(min(self._until, self._end)):
            return await awaitable

    @contextlib.contextmanager
    def over(self, response: aiohttp.ClientResponse) -> Iterator[None]:
        """While the block lasts, `read` is limited. One look at the clock every `_TICK_SECONDS`: a timer for each read costs a tenth of the whole way of a token."""
        self._look(response)
        try:
            yield
        finally:
            self._timer.cancel()

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """What has come; nothing at the end. Raises `TimeoutError`."""
        self._reading = True
        try:
            return await response.content.readany()
        except aiohttp.ClientError:
            if self._expired:
                raise TimeoutError from None
            raise
        finally:
            self._reading = False

    def _look(self, response: aiohttp.ClientResponse) -> None:
        if self._reading and self._loop.time() >= min(self._until, self._end):
            self._expired = True
            response.close()  # ends the read
        self._timer = self._loop.call_later(_TICK_SECONDS, self._look, response)


async def _bodies(response: aiohttp.ClientResponse, clock: _Clock) -> AsyncGenerator[list[bytes], None]:
    """The data of the events that came together, or the one body of a server that does not stream. Raises `ValueError` for what is too long."""
    if "text/event-stream" not in response.headers.get("content-type", ""):
        yield [await _whole(response, clock, LIMIT)]
        return
    events = Events()
    while chunk := await clock.read(response):
        data = events.feed(chunk)
        done = next((place for place, one in enumerate(data) if one.strip() == b"[DONE]"), None)
        yield data[:done]
        if done is not None:
            await _drain(response)
            return


def delta_of(reading: Reading, group: Sequence[bytes]) -> tuple[Delta | None, ValueError | None]:
    """What came together, in one, if it is anything; and why it cannot be read to its end."""
    deltas, error = list[Delta](), None
    for data in group:
        try:
            deltas += reading.read(body_of(data))
        except ValueError as found:
            error = found
            break
        if reading.over:
            break
    if len(deltas) > 1 or (deltas and reading.malformed):  # what has come together with the proof that it is none is no answer
        answer = "" if reading.malformed else "".join(delta.answer for delta in deltas)
        deltas = [Delta("".join(delta.reasoning for delta in deltas), answer)]
    return (deltas[0] if deltas else None), error


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the end of the body itself, which a server sends at once: only then can the connection be used again."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, HttpProcessingError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while not response.content.at_eof():
                await response.content.readany()


async def _whole(response: aiohttp.ClientResponse, clock: _Clock, limit: int) -> bytes:
    """A body of at most `limit` bytes. Raises `ValueError` for more."""
    found = bytearray()
    while chunk := await clock.read(response):
        found += chunk
        if len(found) > limit:
            raise ValueError("the body is too long")
    return bytes(found)


async def _refusal(response: aiohttp.ClientResponse, clock: _Clock) -> Done:
    """What a status other than 200 means. Of the body nothing goes on."""
    code = said = ""
    with contextlib.suppress(ValueError, aiohttp.ClientError, HttpProcessingError, TimeoutError):
        body = body_of(await _whole(response, clock, _ERROR_BYTES))
        code, said = code_of(body), str(complaint(body).get("message", ""))
    kind = family(response.status, code, said)
    if kind == "blocked":
        return Done("refused", "blocked by the upstream")
    failure, words = _REFUSALS[kind]
    return Done("failed", f"{words} (HTTP {response.status})", failure=failure)


def _failed(reading: Reading, failure: Failure, detail: str) -> Done:
    """A failure; but a reply that was complete before stands."""
    done = reading.end()
    return done if reading.concluded else replace(done, detail=detail, failure=failure)


def _config(url: str, key_env: str | None, extra: dict[str, JsonValue], concurrency: int) -> EndpointConfig:
    """Settings of one address. Raises `UsageError`."""
    try:
        return EndpointConfig(url=url, key_env=key_env, extra=extra, concurrency=concurrency)
    except ValidationError as error:
        raise UsageError(f"the server's settings: {error.errors()[0]['msg']}") from None


_WORDS = {
    "ok": "",
    "truncated": "token limit",
    "malformed": "reasoning and answer cannot be told apart",
    "empty": "no answer",
    "refused": "refused by the model's provider",
    "failed": "the model failed",
}
"""Instead of a reply's own detail, which may quote it."""


@dataclass
class _Ticket:
    """A conversation that waits for the model. `gone`: nobody waits for it any more."""

    request: Request
    arrived: float = field(default_factory=time.monotonic)
    reply: Future[Reply] = field(default_factory=Future)
    gone: bool = False


class ModelBackend:
    """A model of this process, for example an arm of a run: what waits is answered together, in one thread.

    `window`: seconds that a batch waits for company; `batch`: conversations in one at most; `waiting`: conversations that wait at most, others
    are told that it is busy; `timeout`: seconds for a reply, waiting included. An answer comes whole. A model's batch is stopped early only when
    nobody waits for any of it.
    """

    def __init__(
        self, model: Model, *, window: float = 0.02, batch: int = 32, waiting: int = 1024, timeout: float = 900, tags: Tags = DEFAULT_TAGS
    ):
        self.name, self.model = model.name, model
        Splitter(tags)  # as above
        self._window, self._batch, self._limit, self._timeout, self._tags = window, batch, waiting, timeout, tags
        self._waiting: deque[_Ticket] = deque()
        self._asked: list[_Ticket] = []
        """Those that the model is at work on."""
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)  # one that hangs must not keep the process alive
        self._thread.start()

    async def stream(self, asked: Asked) -> AsyncGenerator[Delta | Done, None]:
        """As `Backend.stream`."""
        ticket = _Ticket(Request(asked.messages, asked.sampling))
        if not self._put(ticket):
            yield Done(
                "failed", "the model is closing" if self._closed else "too many conversations are waiting for the model", failure="busy"
            )
            return
        try:
            async with asyncio.timeout(self._timeout):
                reply = await asyncio.wrap_future(ticket.reply)
        except TimeoutError:
            yield Done("failed", "the model took too long", failure="timeout")
            return
        finally:
            ticket.gone = True
        delta, done = self._told(reply)
        if delta.reasoning or delta.answer:
            yield delta
        yield done

    async def aclose(self) -> None:
        """Take no more, answer what waits, stop. A batch that nobody waits for any more is not waited for either."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        while self._thread.is_alive() and not all(ticket.gone for ticket in (*self._waiting, *self._asked)):
            await asyncio.sleep(_TICK_SECONDS)

    def _told(self, reply: Reply) -> tuple[Delta, Done]:
        """A reply as it goes on. An answer is looked through once more: a model splits at its own tags alone."""
        status, answer = reply.status, ""
        if status == "ok":
            splitter = Splitter(self._tags, thinking=False)
            pieces = splitter.feed(reply.answer) + splitter.end(True)
            status, answer = splitter.status or status, "".join(piece.text for piece in pieces)
        failure, words = ("upstream" if status == "failed" else "", _WORDS[status]) if not reply.too_long else _REFUSALS["long"]
        done = Done(status, words, reply.prompt_tokens, reply.completion_tokens, failure)
        return Delta(reply.reasoning, answer if status == "ok" else ""), done

    def _put(self, ticket: _Ticket) -> bool:
        """Whether there is room for it. Conversations that were given up make room."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                self._waiting = deque(other for other in self._waiting if not other.gone)
            if self._closed or len(self._waiting) >= self._limit:
                return False
            self._waiting.append(ticket)
            self._changed.notify()
            return True

    def _work(self) -> None:
        while tickets := self._next():
            self._answer([ticket for ticket in tickets if ticket.reply.set_running_or_notify_cancel()])

    def _next(self) -> list[_Ticket]:
        """What has gathered; nothing when it is closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            left = self._waiting[0].arrived + self._window - time.monotonic()
            self._changed.wait_for(lambda: len(self._waiting) >= self._batch or self._closed, timeout=max(0.0, left))
            self._asked = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch))]
            return self._asked

    def _answer(self, tickets: Sequence[_Ticket]) -> None:
        if not tickets:
            return
        left = dict(enumerate(tickets))
        try:
            replies = self.model.stream([ticket.request for ticket in tickets])
            for index, reply in replies:
                left.pop(index).reply.set_result(reply)
                if left and all(ticket.gone for ticket in left.values()):
                    break
        except Exception as error:  # whatever it is, the others must not be lost with it, and its words may quote a conversation
            LOG.error("model failed", extra={"fields": {"error": type(error).__name__, "backend": self.name, "conversations": len(left)}})
        for ticket in left.values():
            ticket.reply.set_result(Reply("", "", "failed"))
