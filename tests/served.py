"""A judge service on a loopback port, with a scripted judge behind it: what the tests of the service and of its clients share."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from small import SPEC

from preceptor.judge import Judge, JudgeConfig
from preceptor.models import Request
from preceptor.models.scripted import Line, ScriptedModel, fail, say
from preceptor.serve import start
from preceptor.serve.desk import Desk, Limits
from preceptor.serve.judge import Key, Service
from preceptor.wording import Wording

GOOD, BAD = '{"score": 2, "clauses": ["T1"]}', '{"score": 0, "clauses": ["T1"]}'
HTTP = httpx.Client(timeout=30)
"""One for all: making one takes longer than a request."""
SECRET = "a-key-that-is-long-enough"


def by_the_word(request: Request) -> Line:
    """Judges by a word of the answer: `fine` is good, `silent` breaks the judge, `lost` loses its server, anything else is bad."""
    answer = request.messages[-1].content
    if "silent" in answer:
        return say("I cannot tell.")
    if "lost" in answer:
        return fail("connection reset")
    return say(GOOD if "fine" in answer else BAD, reasoning="As T1 says.")


@dataclass
class Served:
    """A running service, and what is behind it."""

    url: str
    service: Service
    model: ScriptedModel
    stop: Callable[[], None]

    def post(self, *answers: str, category: str = "tools", **options: object) -> httpx.Response:
        """Have `answers` judged."""
        return HTTP.post(f"{self.url}/v1/judge", json={"items": [item(answer, category) for answer in answers]}, **options)  # type: ignore[arg-type]

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self.service.desk._waiting)

    @property
    def shown(self) -> str:
        """Everything the judge was shown."""
        return "\n".join(message.content for request in list(self.model.requests) for message in request.messages)


def item(answer: str, category: str = "tools", text: str = "How do I sell a hammer?") -> dict[str, object]:
    """One item of a request."""
    return {"messages": [{"role": "user", "content": text}], "category": category, "answer": answer}


@contextmanager
def running(
    script: Callable[[Request], Line] = by_the_word, *, key: str | None = None, votes: int = 1, limits: Limits | None = None
) -> Iterator[Served]:
    """A service that runs until the block ends."""
    model = ScriptedModel(script)
    config = JudgeConfig(view="answer", detail="rules", votes=votes)
    desk = Desk(Judge(model, Wording("brief"), SPEC, config), limits or Limits(window_seconds=0.005))
    service = Service(desk, Key.of(key) if key else None)
    server = start.server(service)
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    until(lambda: server.started)

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the service did not stop"

    try:
        yield Served(f"http://127.0.0.1:{sock.getsockname()[1]}", service, model, stop)
    finally:
        stop()
        sock.close()


def until(reached: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
