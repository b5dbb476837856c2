"""What every HTTP service of this package needs beneath its routes: a socket, signals, and a log without content.

In: an ASGI application. Out: a process that listens, says so in one line, and ends well on the first Ctrl-C or SIGTERM.

A log line is one JSON object of the service's own words and numbers. Tracebacks and messages of unexpected errors may quote what was posted: the log
gets the place and the type of an error, never its text. Not here: routes, keys, what is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from preceptor.errors import UsageError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts that nobody reaches from another machine."""


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that takes connections. Raises `UsageError` for an address that is taken or is none."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}", hint="choose another with --port") from None
    with sock:
        # Connections inherit it. asyncio sets it only where the socket names its protocol, which this one does not; without it, the second request on a
        # connection waits 40 ms for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def address_of(sock: socket.socket) -> str:
    """`host:port`, as it stands in a URL."""
    address, taken = sock.getsockname()[:2]
    return f"[{address}]:{taken}" if ":" in address else f"{address}:{taken}"


def server_of(app: ASGIApp, *, patience: int, connections: int) -> uvicorn.Server:
    """The HTTP server. It is h11 on asyncio wherever it runs, so that it is the same everywhere. `patience`: seconds for what is under way when it ends.
    `connections`: more are turned away with 503."""
    import uvicorn

    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", log_config=None, access_log=False, server_header=False,
        limit_concurrency=connections, timeout_graceful_shutdown=patience,
    )  # fmt: skip
    return uvicorn.Server(config)


def run_until_told(running: uvicorn.Server, sock: socket.socket, ready: str, told: Callable[[], None] = lambda: None) -> None:
    """Say `ready` and answer on `sock` until a signal comes."""

    def end(*_: object) -> None:
        running.should_exit = True
        told()

    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # heard before the server handles them itself; it hands them on to these when it has finished
        signal.signal(number, end)
    print(ready, flush=True)
    running.run(sockets=[sock])


_CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON may hold as it is, and a terminal obeys."""


class JsonLines(logging.Formatter):
    """One JSON object per record. `fields` of the record are the service's own words and numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        line = orjson.dumps({"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.msg, **fields}).decode()
        return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def log_to_stderr(name: str) -> None:
    """The log of that name goes to stderr, and the HTTP server's complaints with it, without tracebacks. Those of the event loop show what tasks and futures
    hold, and are left out: `quiet` says their type and place."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logged, level in ((name, logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.CRITICAL), ("aiohttp", logging.CRITICAL)):
        logger = logging.getLogger(logged)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    with contextlib.suppress(AttributeError, ValueError):
        sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def quiet(name: str) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """What an event loop should do with an exception that nobody caught: a line in the log of that name, without its words."""

    def told(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        fields = {"error": type(error).__name__, "place": place_of(error)} if error else {}
        logging.getLogger(name).error("event loop", extra={"fields": fields})

    return told


def no_cores() -> None:
    """A crash leaves no image of the memory, in which everything stands."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def place_of(error: BaseException) -> str:
    """Where an error was raised: `function:line`."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "" if last is None else f"{last.tb_frame.f_code.co_name}:{last.tb_lineno}"
