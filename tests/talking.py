"""A chat server on a loopback port with a scripted model behind it: what the tests of the server and of its clients share."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from served import until

from preceptor.gateway import keys
from preceptor.gateway.app import Gateway
from preceptor.gateway.keys import Everybody, Keys
from preceptor.gateway.limits import KeyLimits, Limits
from preceptor.gateway.metrics import Metrics
from preceptor.gateway.settings import WatchConfig
from preceptor.gateway.start import server
from preceptor.gateway.talk import House
from preceptor.gateway.traces import Trace, Traces
from preceptor.gateway.upstream import Asked, Backend, Delta, Done
from preceptor.gateway.watching import Watch
from preceptor.listening import JsonLines, listening
from preceptor.monitor import Monitor, Seen, texts, view_name
from preceptor.monitor.views import BothSeen
from preceptor.records import Evidence, Flag, MonitorKind, Observation, Unobserved
from preceptor.summaries import NoSummary, Summariser, Summary

CANARY = "zanzibar-9c41"
"""Stands in every reasoning."""
ANSWER = "Paris is the capital of France."
HTTP = httpx.Client(timeout=30)
Step = Delta | Done | float | threading.Event
"""What a model writes; a number is a pause in seconds, an event one until it is set."""


def written(answer: str = ANSWER, reasoning: str = f"The user asks. {CANARY}. I answer.") -> list[Step]:
    """A good reply in small pieces."""
    thought = [Delta(reasoning=reasoning[start : start + 7]) for start in range(0, len(reasoning), 7)]
    said = [Delta(answer=answer[start : start + 5]) for start in range(0, len(answer), 5)]
    return [*thought, *said, Done("ok", prompt_tokens=11, completion_tokens=22)]


class ScriptedBackend:
    """Implements `Backend`: writes what the script says to a question."""

    def __init__(self, script: Callable[[Asked], Iterable[Step]] = lambda asked: written(), name: str = "demo"):
        self.name, self._script = name, script
        self.asked: list[Asked] = []
        self.left: list[str] = []
        """How each reply ended: `whole`, or `closed` where nobody wanted the rest."""

    async def stream(self, asked: Asked) -> AsyncGenerator[Delta | Done, None]:
        self.asked.append(asked)
        how = "closed"
        try:
            for step in self._script(asked):
                if isinstance(step, int | float):
                    await asyncio.sleep(step)
                    continue
                if isinstance(step, threading.Event):
                    while not step.is_set():
                        await asyncio.sleep(0.002)
                    continue
                if isinstance(step, Done):
                    how = "whole"
                yield step
            how = "whole"
        finally:
            self.left.append(how)

    async def aclose(self) -> None:
        self.left.append("given back")


class Kept:
    """Implements `Traces` in memory; `broken` makes it raise."""

    down = False

    def __init__(self) -> None:
        self.rows: dict[str, Trace] = {}
        self.added: list[Trace] = []
        self.broken = False

    def add(self, trace: Trace) -> None:
        if self.broken:
            raise OSError(f"no space left for {trace.reasoning}")
        self.added.append(trace)
        self.rows[trace.request_id] = trace

    def flush(self) -> None: ...


class WordMonitor:
    """Implements `Monitor`: flags `kind` where a word stands; fails where `broken`, waits where `gate` is closed."""

    identity = "wordmonitor"

    def __init__(self, word: str = "forbidden", kind: MonitorKind = "invented_policy", confidence: float = 0.9):
        self.word, self.confidence = word, confidence
        self.kind: MonitorKind = kind
        self.broken, self.gate = False, threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.seen: list[Seen] = []

    def observe_many(self, items: Iterable[tuple[str, Seen]]) -> Iterator[Observation | Unobserved]:
        for name, seen in items:
            self.began.set()
            assert self.gate.wait(20)
            self.seen.append(seen)
            if self.broken:
                raise RuntimeError(f"cannot read {texts(seen)}")
            yield Observation(completion_id=name, monitor=self.identity, view=view_name(seen), flags=self._flags(seen))

    def _flags(self, seen: Seen) -> tuple[Flag, ...]:
        return tuple(
            Flag(kind=self.kind, confidence=self.confidence, evidence=(Evidence(where=where, text=self.word),))
            for where, text in texts(seen).items()
            if self.word in text
        )[:1]


class FirstWords:
    """Implements `Summariser`: says how long the reasoning is; withholds where it is told to."""

    identity = "firstwords"

    def __init__(self) -> None:
        self.withhold, self.secrets = False, list[Sequence[str]]()

    def summarise(self, seen: BothSeen, *, secrets: Sequence[str] = ()) -> Summary | NoSummary:
        self.secrets.append(secrets)
        return NoSummary("withheld", "unsafe") if self.withhold else Summary(f"Thought for {len(seen.reasoning)} characters.")


class Lines:
    """What was logged."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def rows(self, event: str = "request") -> list[dict[str, Any]]:
        return [row for row in map(json.loads, self.text) if row["event"] == event]

    def row(self, request: str) -> dict[str, Any] | None:
        """The line with which a request ends."""
        named = (json.loads(line) for line in reversed(self.text) if request in line)
        return next((row for row in named if row["event"] == "request"), None)


@dataclass
class Running:
    """A server, and what is behind it."""

    url: str
    gateway: Gateway
    backend: Any
    traces: Kept
    log: Lines
    user: str
    operator: str
    stop: Callable[[], None]
    begin_to_stop: Callable[[], None]
    posted: int = 0
    last: httpx.Response | None = None

    def post(
        self, path: str = "chat/completions", *, key: str | None = None, extra: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """A request as a user; a chat completion by default."""
        if path == "chat/completions":
            body = {"model": "demo", "messages": [{"role": "user", "content": "What is the capital of France?"}], **body}
        else:
            body = {"model": "demo", "input": "What is the capital of France?", **body}
        self.posted += 1
        shown = key or self.user
        self.last = HTTP.post(
            f"{self.url}/{path}", json=body, headers={**({"authorization": f"Bearer {shown}"} if shown else {}), **(extra or {})}
        )
        return self.last

    def row(self, response: httpx.Response | None = None) -> dict[str, Any]:
        """The log's line of a request, the last one `post` sent by default. It is written when the reply has gone."""
        response = response or self.last
        assert response is not None
        name = response.headers["x-request-id"]
        until(lambda: self.log.row(name))
        return self.log.row(name) or {}

    def metrics(self) -> str:
        """The page."""
        return self.gateway.house.metrics.text().decode()


def events(response: httpx.Response) -> list[Any]:
    """The data of a stream."""
    data = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]


def streamed(response: httpx.Response) -> str:
    """The joined text of a stream of chunks."""
    return "".join(choice["delta"].get("content") or "" for event in events(response) for choice in event.get("choices", []))


@contextmanager
def running(
    backend: Backend | None = None, folder: Path | None = None, *, limits: Limits | None = None, monitor: Monitor | None = None,
    watch: WatchConfig | None = None, summariser: Summariser | None = None, traces: Traces | None = None, key_limits: KeyLimits | None = None,
    monitors: Mapping[str, Monitor] | None = None, **house: Any,
) -> Iterator[Running]:  # fmt: skip
    """A server that runs until the block ends. With `folder`, a user and an operator have keys."""
    import logging

    user = operator = ""
    who: Keys | Everybody = Everybody()
    if folder is not None:
        _, user = keys.add(folder / "keys.json", "user", "somebody", key_limits or KeyLimits())
        _, operator = keys.add(folder / "keys.json", "operator", "us", KeyLimits())
        who = Keys(folder / "keys.json")
    counted, kept, behind = Metrics(), Kept(), backend or ScriptedBackend()
    shared = House(
        behind,
        Watch(monitors or ({"monitor": monitor} if monitor else {}), watch or WatchConfig(), counted),
        traces or kept,
        counted,
        summariser,
        **house,
    )
    gateway = Gateway(shared, who, limits or Limits(), (behind.name,))
    http = server(gateway)
    lines, handler = Lines(), logging.Handler()
    handler.emit = lambda record: lines.text.append(JsonLines().format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("preceptor.gateway")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    listening_socket = listening("127.0.0.1", 0)
    sock = listening_socket.__enter__()
    thread = threading.Thread(target=http.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    until(lambda: http.started)

    def begin_to_stop() -> None:
        http.should_exit = True

    def stop() -> None:
        begin_to_stop()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"

    try:
        yield Running(
            f"http://127.0.0.1:{sock.getsockname()[1]}/v1", gateway, behind, kept, lines, user, operator, stop, begin_to_stop
        )  # fmt: skip
    finally:
        stop()
        listening_socket.__exit__(None, None, None)
        logger.removeHandler(handler)
