"""What a reading of the server's source with an attacker's eyes found: each of these went through once.

In: clients that leave in time, stop sequences that cut a proof short, servers that pack, that do not end or that say two things at once, models and writers that hang.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from served import until
from talking import ANSWER, CANARY, HTTP, FirstWords, ScriptedBackend, WordMonitor, running, written
from test_gateway_leaks import SAY, STOP, THINK, behind, choice, ok, sse

from preceptor.gateway.limits import KeyLimits, Limits
from preceptor.gateway.markers import FAMILIES
from preceptor.gateway.settings import WatchConfig
from preceptor.gateway.splitter import Splitter
from preceptor.gateway.talk import _READERS
from preceptor.gateway.upstream import Asked, Delta, Done, HttpBackend, ModelBackend
from preceptor.models import Reply, Request
from preceptor.monitor.views import BothSeen
from preceptor.records import Message, Sampling
from preceptor.summaries import Summary

# What is hidden


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("end", ["malformed", "failed"])
def test_a_stop_sequence_does_not_cut_short_the_proof_that_is_waited_for(tmp_path: Path, stream: bool, end: Any) -> None:
    """What stands before a late closing tag was reasoning; `hold` is there to find that out before anything goes."""
    script = [Delta(reasoning="x"), Delta(answer=f"so {CANARY}. "), 0.02, Delta(answer="And on."), Done(end)]
    with running(ScriptedBackend(lambda asked: script), tmp_path, hold=True) as served:
        reply = served.post(stop=["."], stream=stream)
        assert CANARY not in reply.text
        assert reply.status_code == 502 or "error" in reply.text
    good = [Delta(reasoning="x"), Delta(answer="Paris. "), Delta(answer="And on."), Done("truncated", "token limit")]
    with running(ScriptedBackend(lambda asked: good), tmp_path / "good", hold=True) as served:
        found = served.post(stop=["."]).json()["choices"][0]
        assert (found["message"]["content"], found["finish_reason"]) == ("Paris", "stop"), "the limit came behind what is shown"


def test_choices_without_an_index_are_told_apart_by_their_place(tmp_path: Path) -> None:
    first = {"delta": {"reasoning_content": "x", "content": ANSWER}, "finish_reason": "stop"}
    second = {"delta": {"content": CANARY}, "finish_reason": None}
    with behind(lambda asked: ok(sse({"choices": [first, second]})), tmp_path) as (served, _):
        assert served.post().json()["choices"][0]["message"]["content"] == ANSWER


NEW = ("<channel|>", "<turn|>", "<|channel>", "<|turn>", "<longcat_think>", "</longcat_think>", "<mm:think>", "</mm:think>")
"""Gemma 4, LongCat, MiniMax M3."""


@pytest.mark.parametrize("marker", NEW)
def test_markers_of_newer_families_are_stray_markers_too(marker: str) -> None:
    for size in (1, 3, 100):
        text = f"Hello {marker} there"
        splitter = Splitter(thinking=False)
        pieces = [piece for place in range(0, len(text), size) for piece in splitter.feed(text[place : place + size])]
        assert splitter.status == "malformed"
        assert "there" not in "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("marker", [*FAMILIES, *NEW, "<|im_end|>", "<|Channel|>", "<tool_call|>"])
def test_no_marker_of_any_family_reaches_the_model_whole(tmp_path: Path, marker: str) -> None:
    with running(folder=tmp_path) as served:
        said = f"a{marker}b"
        turns = [{"role": "system", "content": said}, {"role": "user", "content": [{"type": "text", "text": said}]}]
        assert served.post(messages=turns).status_code == 200
        assert served.post("responses", instructions=said, input=said).status_code == 200
        for asked in served.backend.asked:
            assert [message.content for message in asked.messages] == [f"a{marker[0]} {marker[1:]}b"] * 2


def test_code_and_prose_reach_the_model_as_they_are(tmp_path: Path) -> None:
    text = "if a <b|c> d; x <| f |> g; a || b; List<think_of>; <div>|</div> [thinking] <a href='|'>"
    with running(folder=tmp_path) as served:
        served.post(messages=[{"role": "user", "content": text}])
        assert served.backend.asked[0].messages[0].content == text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "zzsecret", "text": "a"}]}]}),
        ("responses", {"input": [{"role": "user", "content": [{"type": "zzsecret"}]}]}),
    ],
)
def test_a_complaint_about_a_type_does_not_quote_it(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    with running(folder=tmp_path) as served:
        reply = served.post(path, **body)
        assert reply.status_code == 400
        assert "zzsecret" not in reply.text
        assert reply.json()["error"]["param"].endswith("content[0]")


def test_no_address_is_sent_on_to_where_a_client_says(tmp_path: Path) -> None:
    with running(folder=tmp_path) as served:
        base = served.url.removesuffix("/v1")
        for method, path in (("GET", "/healthz/"), ("POST", "/v1/chat/completions/"), ("GET", "/metrics/")):
            reply = HTTP.request(method, f"{base}{path}", headers={"host": "evil.example"})
            assert (reply.status_code, reply.headers.get("location")) == (404, None)


# What is paid for


def test_a_client_that_leaves_before_the_end_has_used_what_was_written(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda asked: [*written()[:-1], 5.0, Done("ok")])
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "x" * 100}]}
    with running(backend, tmp_path, key_limits=KeyLimits(tokens_per_minute=50)) as served:
        for _ in range(2):
            with HTTP.stream(
                "POST", f"{served.url}/chat/completions", json=body, headers={"authorization": f"Bearer {served.user}"}
            ) as reply:
                assert reply.status_code == 200
                assert any("rance" in line for line in reply.iter_lines())
            until(lambda: not served.gateway.warden.exchanges)
        refused = served.post()
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-limit-tokens"] == "50"
        assert refused.headers["x-ratelimit-remaining-tokens"] == "0", "said where it matters most"


def test_what_is_charged_is_charged_once(tmp_path: Path) -> None:
    """Also where it is cut off while the monitor holds it, after it was charged."""
    monitor = WordMonitor()
    monitor.gate.clear()
    watch = WatchConfig(blocking=("invented_policy",))
    with running(folder=tmp_path, monitor=monitor, watch=watch, limits=Limits(total_seconds=2)) as served:
        assert served.post().status_code == 504
        monitor.gate.set()
        assert 'preceptor_gateway_tokens_total{kind="completion"} 22.0' in served.metrics()
        assert served.traces.added[0].completion_tokens == 22


# Memory


def test_bodies_count_for_as_long_as_they_are_held(tmp_path: Path) -> None:
    go = threading.Event()
    backend = ScriptedBackend(lambda asked: [go, *written()])
    body: Any = {"messages": [{"role": "user", "content": "x" * 4000}]}
    with running(backend, tmp_path, limits=Limits(bodies_bytes=6000)) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.post, **body)
        until(lambda: served.gateway.door.inside == 1)
        second = served.post(**body)
        assert (second.status_code, second.json()["error"]["code"]) == (503, "overloaded")
        go.set()
        assert first.result().status_code == 200
        assert served.post(**body).status_code == 200
        until(lambda: served.gateway.door.held == 0)


class Endless(socketserver.StreamRequestHandler):
    """A server that does not heed the token limit."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        event = b"data: " + json.dumps(choice(reasoning_content="x" * 100_000)).encode() + b"\n\n"
        self.server.sent = 0  # type: ignore[attr-defined]
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            while True:
                self.wfile.write(event)
                self.server.sent += len(event)  # type: ignore[attr-defined]
        except OSError:
            return


class Threads(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    sent = 0


def test_a_server_that_writes_without_end_is_left(tmp_path: Path) -> None:
    with Threads(("127.0.0.1", 0), Endless) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{upstream.server_address[1]}/v1"
        with running(HttpBackend(url, "demo"), tmp_path, limits=Limits(total_seconds=10)) as served:
            assert served.post(max_tokens=100).status_code == 502
            assert len(served.traces.added[-1].reasoning) < 2 * 2**20
        upstream.shutdown()


def test_a_reply_that_was_packed_is_not_unpacked(tmp_path: Path) -> None:
    with behind(lambda asked: ok(gzip.compress(sse(THINK, SAY, STOP)), b"content-encoding: gzip"), tmp_path) as (served, _):
        assert served.post().status_code == 502
        assert "compresses" in served.row()["detail"]


# An end


class Hanging:
    """A model and a summariser of which nothing comes."""

    name = identity = "demo"

    def __init__(self) -> None:
        self.go, self.under_way = threading.Event(), 0

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        self.go.wait(20)
        yield from ()

    def summarise(self, seen: BothSeen, *, secrets: Sequence[str] = ()) -> Summary:
        self.under_way += 1
        self.go.wait(20)
        return Summary("too late")


def test_a_model_that_hangs_does_not_keep_the_server_from_ending() -> None:
    async def ended() -> float:
        backend = ModelBackend(hanging, timeout=0.2)
        asked = Asked((Message(role="user", content="x"),), Sampling(max_tokens=5), "demo")
        found = [piece async for piece in backend.stream(asked)]
        assert isinstance(found[-1], Done)
        assert found[-1].failure == "timeout"
        started = time.monotonic()
        await backend.aclose()
        return time.monotonic() - started

    hanging = Hanging()
    try:
        assert asyncio.run(ended()) < 5
    finally:
        hanging.go.set()


def test_a_summariser_that_hangs_holds_up_nobody_else(tmp_path: Path) -> None:
    hanging = Hanging()
    with running(folder=tmp_path, summariser=hanging, summary_seconds=0.2) as served, ThreadPoolExecutor(30) as pool:
        replies = [one.result() for one in [pool.submit(served.post, reasoning_summary="auto") for _ in range(30)]]
        assert [reply.json()["choices"][0]["message"]["reasoning_summary"] for reply in replies] == [None] * 30
        assert 1 <= hanging.under_way <= _READERS, "as many threads as there are places, and no more for those that gave up"
        started = time.monotonic()
        served.stop()
        assert time.monotonic() - started < 5
    hanging.go.set()


def test_a_writers_place_is_given_back(tmp_path: Path) -> None:
    with running(folder=tmp_path, summariser=FirstWords()) as served:
        for _ in range(2 * _READERS):
            assert served.post(reasoning_summary="auto").json()["choices"][0]["message"]["reasoning_summary"]
