"""Replies that are asked for in one body: the same answers as of streams, nothing of the reasoning in them, and every way in which a body can be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import random
import time
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fake_openai import Behaviour, Step, answered, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from served import until
from test_splitter import stream
from test_upstream import FIELD, GOOD, LEFT_IN, QUICK, SCRAPS, SECRET, SHAPES, asked, closed, heard, left, lines, text_of

from preceptor.gateway.reading import Where
from preceptor.gateway.upstream import Delta, Done, HttpBackend, Timeouts


def folded(bodies: Iterable[Any]) -> dict[str, Any]:
    """The events of a stream as the one body that the same server sends to a request without a stream."""
    whole: dict[str, Any] = {"object": "chat.completion", "choices": []}
    for body in bodies:
        if not isinstance(body, dict):
            continue
        whole |= {name: value for name, value in body.items() if name != "choices"}
        for choice in body["choices"] if isinstance(body.get("choices"), list) else ():
            if isinstance(choice, dict):
                _fold(whole["choices"], choice)
    return whole


def _fold(choices: list[Any], choice: dict[str, Any]) -> None:
    into = next((one for one in choices if one["index"] == choice.get("index", 0)), None)
    if into is None:
        into = {"index": choice.get("index", 0), "message": {"role": "assistant"}, "finish_reason": None}
        choices.append(into)
    delta = choice.get("delta", choice.get("message"))
    for name, value in (delta if isinstance(delta, dict) else {}).items():
        before = into["message"].get(name)
        if isinstance(before, list) and isinstance(value, str):
            value = [{"type": "text", "text": value}]
        into["message"][name] = value if before is None or name == "role" else before if value is None else before + value
    into["finish_reason"] = choice.get("finish_reason") or into["finish_reason"]


def whole(*steps: Step, where: Where = "auto", **given: Any) -> tuple[str, str, Done]:
    """What comes of a server that sends `steps` to a request without a stream."""
    with serving(Behaviour(whole=lambda body: steps)) as (url, _):
        return asyncio.run(closed(HttpBackend(url, "tiny", reasoning=where, timeouts=given.get("timeouts", QUICK)), whole=True))


BODY = folded(FIELD)


@pytest.mark.parametrize("shape", SHAPES)
def test_reasoning_is_found_wherever_a_server_puts_it(shape: str) -> None:
    assert whole(answered(folded(SHAPES[shape]))) == GOOD


def test_one_body_is_asked_for_and_nothing_of_a_stream() -> None:
    with serving(Behaviour(whole=lambda body: [answered(BODY)], stream=lambda body: [lines(FIELD)])) as (url, server):
        assert asyncio.run(closed(HttpBackend(url, "tiny"), whole=True)) == GOOD
        assert asyncio.run(closed(HttpBackend(url, "tiny"))) == GOOD
    assert [(body.get("stream"), body.get("stream_options")) for body in server.bodies] == [(None, None), (True, {"include_usage": True})]


def test_a_server_that_streams_all_the_same() -> None:
    head = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    assert whole(head + lines(FIELD[:3], last=False), 0.05, lines(FIELD[3:]), "abort") == GOOD


@pytest.mark.parametrize("case", LEFT_IN)
def test_what_cannot_be_told_apart_is_not_released(case: str) -> None:
    where, bodies, _ = LEFT_IN[case]
    answer, done = text_of(where, [folded(bodies)])
    assert SECRET not in answer + done.detail


@settings(max_examples=500)
@given(
    where=st.sampled_from(["field", "inline", "auto"]), scraps=st.lists(SCRAPS, max_size=8), field=st.sampled_from(["", "reasoning", "reasoning_content", "thinking"]),
    parts=st.booleans(), finish=st.sampled_from(["stop", "length", "content_filter", None]), extra=st.booleans(),
)  # fmt: skip
def test_nothing_from_before_a_closing_tag_and_nothing_out_of_a_field_is_ever_an_answer(
    where: Where, scraps: list[str], field: str, parts: bool, finish: str | None, extra: bool
) -> None:
    """A field holds the canary; content does where no closing tag has come yet and there is no field."""
    text, over = "", bool(field)
    for scrap in [*scraps, ""]:
        text += ("" if over else SECRET) + scrap
        over = over or scrap == "</think>"
    message: dict[str, Any] = {"role": "assistant", "content": [{"type": "text", "text": text}] if parts else text}
    message |= ({field: SECRET} if field else {}) | ({"annotations": [SECRET], "reasoning_details": [{"text": SECRET}]} if extra else {})
    body = {"choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": {"content": [{"token": SECRET}]}}]}
    answer, done = text_of(where, [body])
    assert SECRET not in answer + done.detail


def test_ten_thousand_replies_with_a_canary_in_one_body() -> None:
    rng, shown = random.Random(3), 0
    for _ in range(10_000):
        drawn, finish = stream(rng), rng.choice(("stop", "stop", "length"))
        body = {"choices": [{"index": 0, "message": {"content": drawn.text}, "finish_reason": finish}]}
        answer, _ = text_of("inline" if drawn.thinking else "none", [body], prefilled=drawn.prefilled)
        assert drawn.answer.startswith(answer) or answer.strip() == drawn.answer.strip(), drawn
        shown += bool(answer)
    assert shown > 1000


# Ends


def test_why_it_ended() -> None:
    choice = BODY["choices"][0]
    for finish, expected in (
        ("length", "truncated"),
        ("content_filter", "refused"),
        ("tool_calls", "malformed"),
        (None, "failed"),
        (5, "failed"),
    ):
        _, answer, done = whole(answered({**BODY, "choices": [{**choice, "finish_reason": finish}]}))
        assert (answer in ("", GOOD[1]), done.status, done.failure) == (True, expected, "upstream" if expected == "failed" else "")
        assert (done.prompt_tokens, done.completion_tokens) == (7, 5)
    assert whole(answered({**BODY, "choices": [{**choice, "message": {"content": "", "reasoning": SECRET}, "finish_reason": "length"}]}))[
        1:
    ] == (
        "",
        Done("truncated", "token limit inside the answer", 7, 5),
    )


CONTENT = json.dumps(BODY).encode()
DEEP = b'{"choices":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        ([answered(CONTENT[:-20], length=len(CONTENT)), "abort"], "unreachable"),
        ([answered(CONTENT[:-20], length=len(CONTENT)), 0.05, "abort"], "unreachable"),
        ([b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n\r\n" + CONTENT[:-20], 0.05, "abort"], "upstream"),
        (["abort"], "unreachable"),
        ([answered(CONTENT[:-20])], "upstream"),
        ([answered(b"")], "upstream"),
        ([answered(b"[]")], "upstream"),
        ([answered(b"null")], "upstream"),
        ([answered(DEEP)], "upstream"),
        ([answered(SECRET.encode())], "upstream"),
        ([answered({"choices": [], "error": {"message": SECRET}})], "upstream"),
        ([answered(gzip.compress(CONTENT)[:-30], "content-encoding: gzip")], "upstream"),
        ([answered(CONTENT, "content-encoding: gzip")], "upstream"),
        ([answered(b"x" * (17 * 2**20))], "upstream"),
        ([b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n", *[b"100000\r\n" + b" " * 2**20 + b"\r\n"] * 17], "upstream"),
    ],
)  # fmt: skip
def test_bodies_that_are_none(steps: list[Step], failure: str) -> None:
    reasoning, answer, done = whole(*steps, timeouts=Timeouts(5, 60, 60, 60))
    assert (reasoning, answer, done.status, done.failure) == ("", "", "failed", failure)


@pytest.mark.parametrize(("name", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_not_unpacked(name: str, squeeze: Any) -> None:
    reasoning, answer, done = whole(answered(squeeze(CONTENT), f"content-encoding: {name}"))
    assert (reasoning, answer, done.status, done.failure) == ("", "", "failed", "upstream")
    assert "compresses" in done.detail


def test_a_body_that_would_unpack_to_much_more_is_not_unpacked() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 2**20) for _ in range(100)) + packer.flush()
    whole(answered(CONTENT))
    tracemalloc.start()
    try:
        _, answer, done = whole(answered(bomb, "content-encoding: gzip"), timeouts=Timeouts(5, 60, 60, 60))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer, done.status, done.failure) == ("", "failed", "upstream")
    assert most < 40 * 2**20


def test_halves_of_surrogate_pairs_and_a_body_in_many_pieces() -> None:
    body = {"choices": [{"index": 0, "message": {"reasoning": "r", "content": "a \ud83d b"}, "finish_reason": "stop"}]}
    assert whole(answered(body))[1] == "a \ufffd b"
    sent = answered(CONTENT)
    assert whole(*[sent[at : at + 1] for at in range(len(sent))]) == GOOD


@pytest.mark.parametrize(
    ("status", "body", "expected", "failure"),
    [
        (401, {"error": {"message": SECRET}}, "failed", "setup"),
        (302, SECRET.encode(), "failed", "setup"),
        (400, {"error": {"message": SECRET, "code": "content_filter"}}, "refused", ""),
        (400, {"error": {"message": SECRET, "code": SECRET}}, "failed", "upstream"),
        (429, {"error": {"message": SECRET}}, "failed", "busy"),
        (500, SECRET.encode() * 10_000, "failed", "upstream"),
        (500, BODY, "failed", "upstream"),
        (503, b"", "failed", "busy"),
    ],
)
def test_refusals_are_told_in_our_own_words(status: int, body: Any, expected: str, failure: str) -> None:
    """Compressed, though it was asked not to, a body is not looked into: the status alone counts."""
    for headers, content in (
        ((), body),
        (("content-encoding: gzip",), gzip.compress(body if isinstance(body, bytes) else json.dumps(body).encode())),
    ):
        reasoning, answer, done = whole(answered(content, *headers, status=status))
        told = ("failed", "upstream") if headers and expected == "refused" else (expected, failure)
        assert (reasoning, answer, done.status, done.failure) == ("", "", *told)
        assert str(status) in done.detail or told[0] == "refused"


# Time


def test_silence_has_the_time_of_the_whole_reply() -> None:
    slow = [0.6, answered(CONTENT)]
    assert whole(*slow, timeouts=Timeouts(first=0.2, between=0.2, total=20)) == GOOD
    dripping = [
        step
        for at in range(len(CONTENT))
        for step in (0.05, (answered(CONTENT[:1], length=len(CONTENT)) if at == 0 else CONTENT[at : at + 1]))
    ]
    for steps in ([30.0], dripping):
        started = time.monotonic()
        _, answer, done = whole(*steps, timeouts=Timeouts(first=20, between=20, total=0.5))
        assert (answer, done.status, done.failure) == ("", "failed", "timeout")
        assert time.monotonic() - started < 4


def test_a_long_body_that_is_hard_to_read_holds_nobody_else_up() -> None:
    """Beginnings of tags are read a hundred times slower than prose, and a user can have them written."""

    async def ask(url: str) -> tuple[str, float, float]:
        backend = HttpBackend(url, "tiny", timeouts=Timeouts(5, 60, 60, 60))
        gaps = [time.monotonic()]

        async def tick() -> None:
            while True:
                gaps.append(time.monotonic())
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        _, _, done = await heard(backend, whole=True)
        ticking.cancel()
        gaps.append(time.monotonic())
        await backend.aclose()
        return done.status, max(after - before for before, after in itertools.pairwise(gaps)), gaps[-1] - gaps[0]

    body = {
        "choices": [
            {"index": 0, "message": {"content": "</think <&lt;&#x3c; <| <th [/t " * 30_000, "reasoning": "r"}, "finish_reason": "stop"}
        ]
    }
    with serving(Behaviour(whole=lambda _: [answered(body)])) as (url, _):
        status, longest, seconds = asyncio.run(ask(url))
    assert status == "ok"
    assert longest < seconds / 2


def waiting(body: dict[str, Any]) -> Iterator[Step]:
    """A model that takes its time: before the head of its reply, or within the body."""
    if body["messages"][0]["content"] == "last":
        yield answered(CONTENT)
    if body["messages"][0]["content"] == "within":
        yield answered(CONTENT[:40], length=len(CONTENT))
    for _ in range(500):
        yield 0.02


def test_when_the_reader_goes_the_request_ends() -> None:
    async def gone(url: str) -> None:
        backend = HttpBackend(url, "tiny", timeouts=QUICK)
        for count, text in enumerate(("before", "within"), 1):
            task = asyncio.create_task(heard(backend, text, whole=True))
            await asyncio.to_thread(until, lambda count=count: len(server.bodies) == count)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(left, server, count)
        assert (await heard(backend, "last", whole=True)) == GOOD
        await backend.aclose()

    with serving(Behaviour(whole=waiting)) as (url, server):
        asyncio.run(gone(url))


def test_a_connection_is_used_again() -> None:
    async def ask(url: str) -> list[tuple[str, str, Done]]:
        backend = HttpBackend(url, "tiny", timeouts=QUICK)
        found = [await heard(backend, whole=number % 2 == 0) for number in range(6)]
        await backend.aclose()
        return found

    with serving(Behaviour(whole=lambda body: [answered(CONTENT)], stream=lambda body: [lines(FIELD)])) as (url, server):
        assert asyncio.run(ask(url)) == [GOOD] * 6
    assert server.opened == 1


def test_it_comes_in_one_piece() -> None:
    async def pieces(url: str) -> list[Delta | Done]:
        backend = HttpBackend(url, "tiny", timeouts=QUICK)
        async with contextlib.aclosing(backend.stream(asked(whole=True))) as items:
            found = [item async for item in items]
        await backend.aclose()
        return found

    with serving(Behaviour(whole=lambda body: [answered(CONTENT)])) as (url, _):
        assert asyncio.run(pieces(url)) == [Delta(GOOD[0], GOOD[1]), GOOD[2]]
