"""The service: HTTP around the desk.

    POST /v1/judge   answers in, judgements out, in order           GET /v1/judge   which judge this is, under which specification
    GET  /healthz    that it is alive (without a key)               GET /metrics    Prometheus text

In: `wire.JudgeRequest`. Out: `wire.JudgeReply`, or `{"error": "one line"}` with 400 (not JSON), 401 (key), 413 (too large), 422 (breaks
the contract), 429 (the queue is full; `Retry-After` says when), 503 (closing). An item that is not judged in time comes back as an abstention, and
so does everything a failing judge leaves unanswered: with status 200, because the abstention is the answer.

A request ends when its client goes away: what is still queued for it is not judged. The log has one line of JSON per request and no content.
Not here: TLS and quotas per client, which belong to a proxy in front.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from preceptor.judge import MENU
from preceptor.records import Judgement, Verdict
from preceptor.serve.desk import Desk, Limits
from preceptor.serve.wire import JudgeRequest, Refused, read_request, refuse_reasoning, reply

LOG = logging.getLogger("preceptor.serve")
GONE = 499
"""Logged and counted for a client that left; no such answer is sent."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Key:
    """The service's key. Only its hash is kept."""

    digest: bytes

    @classmethod
    def of(cls, secret: str) -> Key:
        """The key that `secret` opens."""
        return cls(hashlib.sha256(secret.encode()).digest())

    def opens(self, header: str) -> bool:
        """Whether an `Authorization` header carries it; takes as long for a wrong one as for the right one."""
        scheme, _, given = header.partition(" ")
        return hmac.compare_digest(hashlib.sha256(given.strip().encode()).digest(), self.digest) and scheme.lower() == "bearer"


@dataclass(frozen=True)
class Service:
    """The handlers and what they share."""

    desk: Desk
    key: Key | None = None

    @property
    def limits(self) -> Limits:
        """How much is taken in at a time."""
        return self.desk.limits

    def app(self) -> Starlette:
        """The ASGI application. Its shutdown finishes what is queued."""
        routes = [
            Route("/v1/judge", self._guarded(self.judge), methods=["POST"]),
            Route("/v1/judge", self._guarded(self.about), methods=["GET"]),
            Route("/metrics", self._guarded(self.metrics), methods=["GET"]),
            Route("/healthz", self.healthy, methods=["GET"]),
        ]

        @asynccontextmanager
        async def lifespan(_: Starlette):
            yield
            await asyncio.to_thread(self.desk.close, self.limits.timeout_seconds)

        return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _wrong_address})

    async def judge(self, request: Request) -> Response:
        """`POST /v1/judge`."""
        started = time.monotonic()
        self.desk.check_room(1)  # before anything is read
        asked = self._checked(read_request(await self._body(request)))
        views = [item.view() for item in asked.items]
        futures = self.desk.submit(views)
        present = await self._settled(request, futures)
        judgements = [_taken(future) or self.desk.abstention(view.id, self._too_late) for future, view in zip(futures, views, strict=True)]
        self.desk.metrics.count(judgements)
        seconds = time.monotonic() - started
        self.desk.metrics.request_seconds.observe(seconds)
        verdicts = sum(isinstance(judgement, Verdict) for judgement in judgements)
        counts = {"items": len(views), "verdicts": verdicts, "abstentions": len(views) - verdicts, "seconds": round(seconds, 4)}
        request.state.fields = counts
        if not present:
            return Response(status_code=GONE)
        judge = self.desk.judge
        return _json(reply(judgements, judge.identity, judge.spec.hash).model_dump())

    async def about(self, _: Request) -> Response:
        """`GET /v1/judge`."""
        judge, config = self.desk.judge, self.desk.judge.config
        return _json(
            {
                "judge": judge.identity,
                "model": judge.model.name,
                "spec": judge.spec.hash,
                "categories": sorted(judge.spec.categories),
                "view": config.view,
                "menu": list(MENU.items()),
                "votes": config.votes,
                "aggregate": config.aggregate,
                "temperature": config.temperature,
                "wording": {"name": judge.wording.name, "identity": judge.wording.identity},
                "limits": asdict(self.limits),
            }
        )

    async def metrics(self, _: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.desk.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def healthy(self, _: Request) -> Response:
        """`GET /healthz`."""
        return _json({"status": "ok"})

    @property
    def _too_late(self) -> str:
        return f"timeout: not judged within {self.limits.timeout_seconds:g} s"

    async def _body(self, request: Request) -> bytes:
        """The body, not one chunk beyond the limit."""
        read = bytearray()
        async for chunk in request.stream():
            read += chunk
            if len(read) > self.limits.body_bytes:
                raise Refused(413, f"the body is larger than {self.limits.body_bytes} bytes; post fewer items at a time")
        return bytes(read)

    def _checked(self, asked: JudgeRequest) -> JudgeRequest:
        """Sizes, categories, no reasoning. Raises `Refused`."""
        if len(asked.items) > self.limits.items:
            raise Refused(413, f"{len(asked.items)} items in one request, at most {self.limits.items} are taken")
        for number, item in enumerate(asked.items):
            if item.characters > self.limits.characters:
                raise Refused(413, f"items[{number}] has {item.characters} characters, at most {self.limits.characters} are taken")
            named = (item.category, *item.also)
            if any(category not in self.desk.judge.spec.categories for category in named):
                raise Refused(422, f"items[{number}].category is not in the specification; GET /v1/judge lists its categories")
            if len(set(named)) < len(named):
                raise Refused(422, f"items[{number}].also names a category twice")
        refuse_reasoning(asked)
        return asked

    async def _settled(self, request: Request, futures: Sequence[Future[Judgement]]) -> bool:
        """Wait for all judgements, the time limit or the client's leaving, whichever is first; what is still queued then is given up. Whether the client is there."""
        judged = asyncio.gather(*map(asyncio.wrap_future, futures))
        gone = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({judged, gone}, timeout=self.limits.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            return judged.done() or not gone.done()
        finally:
            gone.cancel()
            judged.cancel()
            await asyncio.gather(judged, gone, return_exceptions=True)

    def _guarded(self, handler: Handler) -> Handler:
        """Ask for the key, turn refusals into answers, count and log."""

        async def guarded(request: Request) -> Response:
            started = time.monotonic()
            request.state.fields = {}
            try:
                self._admit(request)
                response = await handler(request)
            except Refused as error:
                response = _refusal(error)
            except ClientDisconnect:
                response = Response(status_code=GONE)
            except Exception as error:  # the message may quote what was posted: it is neither sent nor logged
                request.state.fields = {"error": type(error).__name__}
                response = _json({"error": "the service failed; its log names the error"}, 500)
            self.desk.metrics.requests.labels(str(response.status_code)).inc()
            fields = {"path": handler.__name__, "status": response.status_code, **request.state.fields}
            LOG.info("request", extra={"fields": {**fields, "total_seconds": round(time.monotonic() - started, 4)}})
            return response

        return guarded

    def _admit(self, request: Request) -> None:
        if self.key is not None and not self.key.opens(request.headers.get("authorization", "")):
            raise Refused(401, "a key is needed: Authorization: Bearer KEY")


async def _left(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _taken(future: Future[Judgement]) -> Judgement | None:
    return future.result() if future.done() and not future.cancelled() else None


def _refusal(error: Refused) -> Response:
    response = _json({"error": error.line}, error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _wrong_address(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json({"error": "no such address or method; there are POST and GET /v1/judge, GET /metrics, GET /healthz"}, status)


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
