"""Where conversations are answered: every way a server streams, and every way it fails; nothing of the reasoning in an answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from fake_openai import Behaviour, Server, Step, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from served import until

from preceptor.errors import ModelError, UsageError
from preceptor.gateway.events import Events
from preceptor.gateway.reading import Reading, Where
from preceptor.gateway.splitter import Piece, Splitter, Tags
from preceptor.gateway.upstream import Asked, Backend, Delta, Done, HttpBackend, ModelBackend, Timeouts, delta_of
from preceptor.models import Reply, Request
from preceptor.models.endpoint import EndpointConfig
from preceptor.models.replies import texts_of
from preceptor.models.scripted import ScriptedModel, fail, say, truncate
from preceptor.records import Message, Sampling

SECRET = "canary-7391"
QUICK = Timeouts(connect=2, first=5, between=5, total=20)


def asked(text: str = "hi", whole: bool = False) -> Asked:
    return Asked((Message(role="user", content=text),), Sampling(max_tokens=50), "any", whole)


async def heard(backend: Backend, text: str = "hi", whole: bool = False) -> tuple[str, str, Done]:
    """Reasoning, answer and end of one conversation. There is exactly one end, and it is the last."""
    async with contextlib.aclosing(backend.stream(asked(text, whole))) as items:
        found = [item async for item in items]
    *deltas, done = found
    assert isinstance(done, Done)
    assert (done.failure != "") == (done.status == "failed")
    assert all(isinstance(delta, Delta) and (delta.reasoning or delta.answer) for delta in deltas)
    assert SECRET not in done.detail
    told = [delta for delta in deltas if isinstance(delta, Delta)]
    return "".join(delta.reasoning for delta in told), "".join(delta.answer for delta in told), done


async def closed(backend: Backend, text: str = "hi", whole: bool = False) -> tuple[str, str, Done]:
    try:
        return await heard(backend, text, whole)
    finally:
        await backend.aclose()


def chunk(finish: str | None = None, *, index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


USAGE = {"id": "x", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
FIELD = [chunk(role="assistant", content=""), chunk(reasoning_content=f"why {SECRET} "), chunk(reasoning_content="so"), chunk(content="größer "), chunk(content="漢字 😀"), chunk("stop"), USAGE]  # fmt: skip
INLINE = [chunk(content=part) for part in ("<th", "ink>why ", SECRET, " so</thi", "nk>", "\n\ngrößer ", "漢字 😀")] + [chunk("stop"), USAGE]


def lines(bodies: Iterable[Any], *, end: str = "\n", last: bool = True) -> bytes:
    """Bodies as an event stream."""
    events = [f"data: {json.dumps(body, ensure_ascii=False)}" for body in bodies] + (["data: [DONE]"] if last else [])
    return "".join(f"{event}{end}{end}" for event in events).encode()


def reply(steps: Sequence[Step], where: Where = "auto", **settings: Any) -> tuple[str, str, Done]:
    """What comes of a server that streams `steps`."""
    with serving(Behaviour(stream=lambda body: steps)) as (url, _):
        return asyncio.run(closed(HttpBackend(url, "tiny", reasoning=where, timeouts=settings.pop("timeouts", QUICK), **settings)))


GOOD = (f"why {SECRET} so", "größer 漢字 😀", Done("ok", "", 7, 5))


# Events


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_event_stream_may_be_cut_at_every_byte(end: str) -> None:
    data = b"\xef\xbb\xbf: hello" + end.encode() * 2 + lines(FIELD, end=end)
    whole = Events().feed(data + end.encode())
    assert [orjson.loads(event) for event in whole[:-1]] == FIELD
    for cut in range(len(data)):
        events = Events()
        assert events.feed(data[:cut]) + events.feed(data[cut:]) == whole
    events = Events()
    assert [event for byte in data for event in events.feed(bytes([byte]))] == whole


def test_events_of_several_lines_comments_other_fields_and_one_without_an_end() -> None:
    data = b'id: 1\nevent: message\nretry: 5\ndata: {"a":\ndata:1}\n: ping\n\n\n\n: ping\n\ndata\n\ndata: unfinished\n'
    assert Events().feed(data) == [b'{"a":\n1}', b""]


def test_an_event_without_end_is_refused_and_long_streams_are_not() -> None:
    events = Events(limit=1000)
    for _ in range(1000):
        assert events.feed(b": keep-alive\n\ndata: x\n\n") == [b"x"]
        assert events.feed(b": keep-alive\n") == []
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        [events.feed(b"data: " + b"x" * 90) for _ in range(20)]
    several = Events(limit=1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        [several.feed(b"data: " + b"x" * 90 + b"\n") for _ in range(20)]


# Where the reasoning stands


def parts(thought: str, text: str) -> dict[str, Any]:
    return chunk(content=[{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}, {"type": "text", "text": text}])


SHAPES: dict[str, list[dict[str, Any]]] = {
    "reasoning_content": FIELD,
    "reasoning": [chunk(reasoning=f"why {SECRET} so"), *FIELD[3:]],
    "both names, one text": [chunk(reasoning_content=f"why {SECRET} so", reasoning=f"why {SECRET} so"), *FIELD[3:]],
    "thinking": [chunk(thinking=f"why {SECRET} so", content=""), *FIELD[3:]],
    "parts": [parts(f"why {SECRET} so", ""), parts("", "größer "), *FIELD[4:]],
    "inline": INLINE,
    "prefilled": [chunk(content=f"why {SECRET}"), chunk(content=" so</think>größer "), *FIELD[4:]],
    "one whole message": [{"choices": [{"index": 0, "message": {"content": GOOD[1], "reasoning": GOOD[0]}, "finish_reason": "stop"}], "usage": USAGE["usage"]}],
    "log-probabilities": [{**body, "choices": [{**choice, "logprobs": {"content": [{"token": SECRET}]}} for choice in body["choices"]]} for body in FIELD],
    "several choices": [body for pair in zip(FIELD, [chunk(index=1, content=SECRET), chunk(index=2, reasoning_content="x"), chunk(index=1, content="</think>"), chunk("length", index=1), chunk(index=2, tool_calls=[{"id": "1"}]), chunk("stop", index=3), USAGE], strict=True) for body in pair],
    "all choices in one event": [{"choices": [{"index": 1, "delta": {"content": SECRET}}, *body["choices"]]} for body in FIELD[:-1]] + [USAGE],
    "another choice behind the reasoning": [*FIELD[:3], chunk(index=1, content=SECRET), *FIELD[3:]],
    "usage in every event": [{**body, "usage": USAGE["usage"]} for body in FIELD],
    "nulls": [chunk(content=None, reasoning_content=None, tool_calls=None, function_call=None, refusal=None), *FIELD],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_reasoning_is_found_wherever_a_server_puts_it(shape: str) -> None:
    assert reply([lines(SHAPES[shape])]) == GOOD


def test_a_server_that_does_not_stream() -> None:
    body = SHAPES["one whole message"][0]
    with serving(Behaviour(fixed=(200, body))) as (url, server):
        assert asyncio.run(closed(HttpBackend(url, "tiny"))) == GOOD
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    assert "logprobs" not in server.bodies[0]
    assert "n" not in server.bodies[0]


@pytest.mark.parametrize("shape", ["reasoning_content", "inline", "prefilled"])
def test_a_stream_may_be_cut_at_every_byte(shape: str) -> None:
    data = lines(SHAPES[shape])
    for step in (1, 7):
        assert reply([data[at : at + step] for at in range(0, len(data), step)]) == GOOD
    for cut in range(1, len(data), 29):
        assert reply([data[:cut], 0.0, data[cut:]]) == GOOD


def text_of(where: Where, bodies: Iterable[Any], **settings: Any) -> tuple[str, Done]:
    """The answer that a reader of events gives out, and the end."""
    reading = Reading(where, **settings)
    deltas = [delta for body in bodies if not reading.over for delta in reading.read(body)]
    return "".join(delta.answer for delta in deltas), reading.end()


LEFT_IN: dict[str, tuple[Where, list[Any], str]] = {
    "a parser that failed, tags and all": ("field", [chunk(content=f"<think>{SECRET}</think>yes"), chunk("stop")], "malformed"),
    "a parser that failed, prefilled": ("field", [chunk(content=SECRET), chunk(content="</think>yes"), chunk("stop")], "malformed"),
    "no parser at all": ("field", [chunk(content=SECRET), chunk("stop")], "malformed"),
    "a second block in the content": ("field", [chunk(reasoning="r"), chunk(content=f"<think>{SECRET}</think>yes"), chunk("stop")], "malformed"),
    "the same, cut": ("auto", [chunk(reasoning="r"), chunk(content="<"), chunk(content=f"think>{SECRET}"), chunk("stop")], "malformed"),
    "another family's tags": ("auto", [chunk(reasoning="r"), chunk(content=f"[THINK]{SECRET}[/THINK]yes"), chunk("stop")], "malformed"),
    "channels": ("auto", [chunk(reasoning="r"), chunk(content=f"<|channel|>analysis<|message|>{SECRET}"), chunk("stop")], "malformed"),
    "channels decoded away": ("none", [chunk(content="analysis"), chunk(content=f"We {SECRET}assistantfinalyes"), chunk("stop")], "malformed"),
    "nothing that tells": ("auto", [chunk(content=SECRET), chunk("stop")], "malformed"),
    "nothing that tells, cut off": ("auto", [chunk(content=SECRET), chunk("length")], "truncated"),
    "no closing tag": ("auto", [chunk(content=f"<think>{SECRET}"), chunk("stop")], "malformed"),
    "inline, and no opening tag": ("inline", [chunk(content=f"{SECRET}</think>yes"), chunk("stop")], "malformed"),
    "inline, and a field besides": ("inline", [chunk(reasoning=SECRET), chunk(content="yes"), chunk("stop")], "malformed"),
    "a field after the beginning of a tag": ("auto", [chunk(content="<th"), chunk(reasoning=SECRET), chunk(content="yes"), chunk("stop")], "malformed"),
    "a tag although none reasons": ("none", [chunk(content=f"<think>{SECRET}</think>yes"), chunk("stop")], "malformed"),
    "tool calls": ("auto", [chunk(reasoning="r"), chunk(tool_calls=[{"function": {"arguments": SECRET}}]), chunk("tool_calls")], "malformed"),
    "an old function call": ("auto", [chunk(reasoning="r"), chunk(function_call={"arguments": SECRET}), chunk("function_call")], "malformed"),
    "parts nobody knows": ("auto", [chunk(reasoning="r"), chunk(content=[{"type": "secret", "text": SECRET}, 5, "x"]), chunk("stop")], "empty"),
    "a refusal": ("auto", [chunk(reasoning=SECRET), chunk(refusal=SECRET), chunk("stop")], "refused"),
    "a filter": ("auto", [chunk(reasoning=SECRET), chunk("content_filter")], "refused"),
    "an error inside": ("auto", [chunk(reasoning=SECRET), {"error": {"message": SECRET, "code": 500}}], "failed"),
    "an error at the top": ("auto", [{"object": "error", "message": SECRET, "code": "content_filter"}], "refused"),
    "no end": ("auto", [chunk(reasoning=SECRET)], "failed"),
    "an end nobody knows": ("auto", [chunk(reasoning=SECRET), chunk("weary")], "malformed"),
    "an empty reply": ("auto", [chunk("stop")], "empty"),
    "an empty reply, field": ("field", [chunk(content="\n"), chunk("stop")], "empty"),
    "cut before anything": ("field", [chunk("length")], "truncated"),
    "reasoning alone": ("field", [chunk(reasoning=SECRET), chunk("stop")], "empty"),
    "cut inside the reasoning": ("field", [chunk(reasoning=SECRET), chunk("length")], "truncated"),
    "cut inside the opening tag": ("auto", [chunk(content="<thi"), chunk("length")], "truncated"),
    "an opening tag begun": ("auto", [chunk(content="<thi"), chunk("stop")], "malformed"),
    "not what it should be": ("auto", [5, [], "x", {"choices": {}}, {"choices": [5, {"delta": 5}, {"index": "0", "delta": {"content": SECRET}}]}], "failed"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_IN)
def test_where_it_cannot_be_told_nothing_is_released(case: str) -> None:
    where, bodies, status = LEFT_IN[case]
    answer, done = text_of(where, bodies)
    assert (answer, done.status) == ("", status)
    assert SECRET not in done.detail
    assert bool(done.detail) == (done.status != "ok")


def test_what_follows_the_end_or_a_later_tag_is_not_released() -> None:
    first = [chunk(reasoning="r"), chunk(content="yes")]
    assert text_of("auto", [*first, chunk("stop"), chunk(content=SECRET)])[1].status == "malformed"
    assert text_of("auto", [*first, chunk("stop"), chunk(content=" ")]) == ("yes", Done("ok"))
    assert text_of("auto", [*first, chunk(content=f"</think>{SECRET}"), chunk("stop")])[0] == "yes"
    assert text_of("auto", [*first, chunk("length")]) == ("yes", Done("truncated", "token limit inside the answer"))
    assert text_of("none", [chunk(content="yes"), chunk("stop")]) == ("yes", Done("ok"))
    last = chunk("stop")
    last["choices"][0]["message"] = {"content": "yes"}
    assert text_of("auto", [*first, last]) == ("yes", Done("ok")), "some servers repeat the whole at the end"
    assert text_of("inline", [chunk(content="r</think>yes"), chunk("stop")], prefilled=True) == ("yes", Done("ok"))
    own = Tags("[r]", "[/r]")
    assert text_of("auto", [chunk(content="[r]r[/"), chunk(content="r]yes"), chunk("stop")], tags=own) == ("yes", Done("ok"))


SCRAPS = st.sampled_from(["<think>", "</think>", "<thi", "</THINK>", " ", "\n", "&lt;think&gt;", "[THINK]", "x", ""])


@settings(max_examples=300)
@given(
    where=st.sampled_from(["field", "inline", "auto"]),
    drawn=st.lists(st.tuples(st.sampled_from(["content", "reasoning", "reasoning_content"]), st.lists(SCRAPS, max_size=4)), max_size=6),
    finish=st.sampled_from(["stop", "length", None]),
)  # fmt: skip
def test_nothing_from_before_a_closing_tag_and_nothing_out_of_a_field_is_ever_an_answer(
    where: Where, drawn: list[tuple[str, list[str]]], finish: str | None
) -> None:
    """Every field holds the canary; content does where no closing tag has come yet and no field has."""
    over = False
    bodies: list[dict[str, Any]] = []
    for name, scraps in drawn:
        text = ""
        for scrap in [*scraps, ""]:
            text += ("" if name == "content" and over else SECRET) + scrap
            over = over or (name == "content" and scrap == "</think>")
        over = over or name != "content"
        bodies.append({"choices": [{"index": 0, "delta": {name: text}}]})
    answer, _ = text_of(where, [*bodies, chunk(finish)])
    assert SECRET not in answer


def _ungated(self: Reading, content: str, reasoned: bool, pieces: list[Piece]) -> None:
    pieces.append(Piece("answer", content))


def _any_choice(self: Reading, body: Any) -> list[Delta]:
    deltas: list[Delta] = []
    for choice in body.get("choices", []):
        self._read_choice(choice, deltas)
    return deltas


def _content_alone(message: dict[str, Any]) -> tuple[str | None, str | None]:
    content, reasoning = texts_of(message)
    return (content or "") + (reasoning or ""), None


@pytest.mark.parametrize(
    ("place", "broken"),
    [
        ("preceptor.gateway.reading.Reading._place", _ungated),
        ("preceptor.gateway.reading.Reading.read", _any_choice),
        ("preceptor.gateway.reading.texts_of", _content_alone),
        ("preceptor.gateway.reading.Splitter", lambda tags, **given: Splitter(tags, thinking=False)),
        ("preceptor.gateway.reading.Splitter", lambda tags, **given: Splitter(Tags(guarded=False), **given)),
    ],
)
def test_a_reader_that_is_broken_is_found_out(place: str, broken: Any) -> None:
    cases: Sequence[tuple[Where, list[Any]]] = [(where, bodies) for where, bodies, _ in LEFT_IN.values() if isinstance(bodies[0], dict)]
    cases = [*cases, *(("auto", bodies) for bodies in SHAPES.values()), ("none", FIELD)]
    with patch(place, broken):
        assert any(SECRET in text_of(where, bodies)[0] for where, bodies in cases)


# Ends


@pytest.mark.parametrize(
    ("steps", "answer", "status", "failure"),
    [
        ([lines(FIELD, last=False)], GOOD[1], "ok", ""),
        ([lines(FIELD[:-1], last=False), "abort"], GOOD[1], "ok", ""),
        ([lines(FIELD[:-2], last=False)], GOOD[1], "failed", "upstream"),
        ([lines(FIELD[:-2], last=True)], GOOD[1], "failed", "upstream"),
        ([lines(FIELD[:4], last=False), 0.05, "abort"], "größer ", "failed", "unreachable"),
        (["abort"], "", "failed", "unreachable"),
        ([lines(FIELD[:2], last=False), b"data: {garbage\n\n"], "", "failed", "upstream"),
        ([b"data: " + SECRET.encode() + b"\n\n"], "", "failed", "upstream"),
        ([b"data: [1]\n\ndata: 5\n\n", lines(FIELD)], GOOD[1], "ok", ""),
        ([b": hello\n\n" * 50, lines(FIELD, end="\r\n")], GOOD[1], "ok", ""),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], "", "failed", "upstream"),
    ],
)  # fmt: skip
def test_ends_of_a_stream(steps: list[Step], answer: str, status: str, failure: str) -> None:
    _, said, done = reply(steps)
    assert (said, done.status, done.failure) == (answer, status, failure)


def test_a_huge_chunk_and_one_that_is_too_long() -> None:
    text = "größer " * 300_000
    _, answer, done = reply([lines([*FIELD[:3], chunk(content=text), chunk("stop")])], timeouts=Timeouts(5, 60, 60, 60))
    assert (answer.rstrip(), done.status) == (text.rstrip(), "ok")
    _, answer, done = reply([b"data: " + b"x" * 2**20] * 17, timeouts=Timeouts(5, 60, 60, 60))
    assert (answer, done.status, done.failure) == ("", "failed", "upstream")


@pytest.mark.parametrize(
    ("status", "body", "expected", "failure"),
    [
        (401, {"error": {"message": SECRET}}, "failed", "setup"),
        (404, {"detail": SECRET}, "failed", "setup"),
        (302, SECRET.encode(), "failed", "setup"),
        (402, {}, "failed", "setup"),
        (400, {"error": {"message": SECRET, "code": "content_filter"}}, "refused", ""),
        (400, {"error": {"message": SECRET, "code": SECRET}}, "failed", "upstream"),
        (400, {"error": {"message": SECRET, "code": "context_length_exceeded"}}, "failed", "long"),
        (400, {"error": {"message": f"This model's maximum context length is 9 tokens. {SECRET}", "code": 400}}, "failed", "long"),
        (429, {"error": {"message": SECRET}}, "failed", "busy"),
        (429, {"error": {"message": SECRET, "code": "insufficient_quota"}}, "failed", "setup"),
        (500, SECRET.encode() * 10_000, "failed", "upstream"),
        (503, b"", "failed", "busy"),
        (200, b"<html>" + SECRET.encode(), "failed", "upstream"),
        (200, {"choices": []}, "failed", "upstream"),
    ],
)
def test_refusals_are_told_in_our_own_words(status: int, body: Any, expected: str, failure: str) -> None:
    with serving(Behaviour(fixed=(status, body))) as (url, _):
        reasoning, answer, done = asyncio.run(closed(HttpBackend(url, "tiny", timeouts=QUICK)))
    assert (reasoning, answer, done.status, done.failure) == ("", "", expected, failure)
    assert SECRET not in done.detail
    assert str(status) in done.detail or status == 200 or expected == "refused"


def test_nobody_there() -> None:
    with serving() as (url, _):
        pass
    _, _, done = asyncio.run(closed(HttpBackend(url, "tiny", timeouts=QUICK)))
    assert (done.status, done.failure) == ("failed", "unreachable")


PING = [b": ping\n\n", 0.05] * 100


@pytest.mark.parametrize(
    ("steps", "timeouts", "answer"),
    [
        ([30.0], Timeouts(first=0.3), ""),
        (PING, Timeouts(first=0.3), ""),
        ([lines(FIELD[:4], last=False), 30.0], Timeouts(between=0.3), "größer "),
        ([lines(FIELD[:4], last=False), *PING], Timeouts(between=0.3), "größer "),
        ([*[step for _ in range(100) for step in (lines([chunk(reasoning="r")], last=False), 0.05)]], Timeouts(total=0.5), ""),
    ],
)
def test_a_server_that_is_too_slow(steps: list[Step], timeouts: Timeouts, answer: str) -> None:
    started = time.monotonic()
    _, said, done = reply(steps, timeouts=timeouts)
    assert (said, done.status, done.failure) == (answer, "failed", "timeout")
    assert time.monotonic() - started < 4


def test_a_client_that_is_slow_is_not_the_servers_fault() -> None:
    async def slowly(url: str) -> Done:
        backend = HttpBackend(url, "tiny", timeouts=Timeouts(first=5, between=0.3, total=20))
        async with contextlib.aclosing(backend.stream(asked())) as items:
            found = [(item, await asyncio.sleep(0.4))[0] async for item in items]
        await backend.aclose()
        assert isinstance(found[-1], Done)
        return found[-1]

    with serving(Behaviour(stream=lambda body: [lines(FIELD)])) as (url, _):
        assert asyncio.run(slowly(url)) == GOOD[2]


def test_a_connection_is_used_again() -> None:
    async def ask(url: str) -> list[tuple[str, str, Done]]:
        backend = HttpBackend(url, "tiny", timeouts=QUICK)
        found = [await heard(backend) for _ in range(5)]
        await backend.aclose()
        return found

    for steps in ([lines(FIELD)], [lines(FIELD, last=False)]):
        with serving(Behaviour(stream=lambda body, steps=steps: steps)) as (url, server):
            assert asyncio.run(ask(url)) == [GOOD] * 5
        assert server.opened == 1


def slow_stream(body: dict[str, Any]) -> Iterator[Step]:
    yield lines(FIELD[:4], last=False)
    for _ in range(200):
        yield 0.02
        yield lines([chunk(content="x")], last=False)


def left(server: Server, count: int = 1) -> bool:
    until = time.monotonic() + 5
    while server.left < count and time.monotonic() < until:
        time.sleep(0.01)
    return server.left >= count


def test_when_the_reader_goes_the_request_ends() -> None:
    async def gone(url: str) -> None:
        backend = HttpBackend(url, "tiny", timeouts=QUICK)
        async with contextlib.aclosing(backend.stream(asked())) as items:
            await anext(items)

        async def listening() -> None:
            await heard(backend)

        task = asyncio.create_task(listening())
        await asyncio.to_thread(until, lambda: len(server.bodies) == 2)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(left, server, 2)
        assert (await heard(backend, "last"))[2].status == "ok"
        await backend.aclose()

    def steps(body: dict[str, Any]) -> Iterable[Step]:
        return [lines(FIELD)] if body["messages"][0]["content"] == "last" else slow_stream(body)

    with serving(Behaviour(stream=steps)) as (url, server):
        asyncio.run(gone(url))


def test_a_malformed_reply_ends_the_request_at_once() -> None:
    def steps(body: dict[str, Any]) -> Iterator[Step]:
        yield lines([chunk(reasoning="r"), chunk(content="a</think>")], last=False)
        yield from slow_stream(body)

    with serving(Behaviour(stream=steps)) as (url, server):
        assert asyncio.run(closed(HttpBackend(url, "tiny", timeouts=QUICK)))[2].status == "malformed"
        assert left(server)


def test_many_at_a_time_over_two_servers() -> None:
    def steps(body: dict[str, Any]) -> Iterator[Step]:
        said = body["messages"][0]["content"]
        yield lines([chunk(reasoning_content=f"about {said}")], last=False)
        yield 0.2
        yield lines([chunk(content=f"answer {said}"), chunk("stop"), USAGE])

    async def ask(urls: tuple[str, ...]) -> list[tuple[str, str, Done]]:
        backend = HttpBackend(EndpointConfig(url=urls, concurrency=150), "tiny", timeouts=Timeouts(10, 60, 60, 60))
        found = await asyncio.gather(*(heard(backend, str(number)) for number in range(300)))
        await backend.aclose()
        return found

    with serving(Behaviour(stream=steps)) as (one, first), serving(Behaviour(stream=steps)) as (two, second):
        found = asyncio.run(ask((one, two)))
    assert found == [(f"about {number}", f"answer {number}", Done("ok", "", 7, 5)) for number in range(300)]
    assert len(first.bodies) == len(second.bodies) == 150


def test_settings_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is not set"):
        HttpBackend("http://127.0.0.1:1/v1", "tiny", key_env="NO_SUCH_KEY")
    with pytest.raises(UsageError, match="is no address"):
        HttpBackend("127.0.0.1:1", "tiny")
    monkeypatch.setenv("A_KEY", "sk-1")
    with serving(Behaviour(key="sk-1", stream=lambda body: [lines(FIELD)])) as (url, server):
        assert asyncio.run(closed(HttpBackend(url, "tiny", key_env="A_KEY", extra={"top_k": 5}))) == GOOD
    assert server.bodies[0]["top_k"] == 5


def test_what_breaks_inside_is_an_end_and_no_exception(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(self: Reading, body: Any) -> list[Delta]:
        raise KeyError(SECRET)

    monkeypatch.setattr(Reading, "read", broken)
    _, answer, done = reply([lines(FIELD)])
    assert (answer, done.status, done.detail) == ("", "failed", "the gateway failed")
    assert SECRET not in caplog.text


# A model of this process


def model_backend(script: Any, **settings: Any) -> ModelBackend:
    return ModelBackend(ScriptedModel(script), **settings)


async def several(backend: ModelBackend, count: int) -> list[tuple[str, str, Done]]:
    found = await asyncio.gather(*(heard(backend, f"question {number}") for number in range(count)))
    await backend.aclose()
    return list(found)


def test_what_waits_is_answered_together() -> None:
    sizes: list[int] = []

    class Counting(ScriptedModel):
        def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
            sizes.append(len(requests))
            return super().stream(requests)

    model = Counting(lambda request: say(request.messages[0].content.upper(), "why"), backwards=True)
    found = asyncio.run(several(ModelBackend(model, window=0.3, batch=16), 40))
    assert found == [("why", f"QUESTION {number}", Done("ok", "", 1, 3)) for number in range(40)]
    assert sizes == [16, 16, 8]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (fail(SECRET), "failed"),
        (truncate(SECRET), "truncated"),
        (Reply(SECRET, "", "malformed", f"a stray marker: {SECRET}"), "malformed"),
        (Reply(SECRET, "", "empty"), "empty"),
        (Reply("", "", "refused", SECRET), "refused"),
        (say(f"a [THINK]{SECRET}[/THINK]", "why"), "malformed"),
        (say(f"&lt;think&gt;{SECRET}", "why"), "malformed"),
    ],
)
def test_a_reply_of_a_model_that_is_no_answer(given: Reply, status: str) -> None:
    _, answer, done = asyncio.run(closed(model_backend([given])))
    assert (answer, done.status) == ("", status)
    assert done.detail


@pytest.mark.parametrize("error", [RuntimeError(SECRET), ModelError(SECRET), UsageError(SECRET)])
def test_a_model_that_crashes_fails_its_batch_and_answers_the_next(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Crashing(ScriptedModel):
        def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
            yield 0, say("first")
            if len(requests) > 1:
                raise error

    async def ask() -> tuple[list[tuple[str, str, Done]], tuple[str, str, Done]]:
        backend = ModelBackend(Crashing([]), window=0.2)
        found = await asyncio.gather(*(heard(backend) for _ in range(3)))
        return list(found), await closed(backend)

    found, after = asyncio.run(ask())
    assert [done.status for _, _, done in found] == ["ok", "failed", "failed"]
    assert after[2].status == "ok"
    assert SECRET not in caplog.text


def test_a_full_queue_a_slow_model_and_clients_that_leave() -> None:
    let_go, started, seen = threading.Event(), threading.Event(), []

    def script(request: Request) -> Reply:
        seen.append(request.messages[0].content)
        started.set()
        let_go.wait(10)
        return say("done")

    async def ask() -> None:
        backend = model_backend(script, window=0.0, batch=1, waiting=2, timeout=20)
        first = asyncio.create_task(heard(backend, "first"))
        await asyncio.to_thread(started.wait, 10)
        leaving = [asyncio.create_task(heard(backend, "leaving")) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await heard(backend, "too many"))[2].failure == "busy"
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        staying = asyncio.create_task(heard(backend, "staying"))
        await asyncio.sleep(0.05)
        let_go.set()
        assert (await first)[1] == (await staying)[1] == "done"
        await backend.aclose()
        assert (await heard(backend, "late"))[2].failure == "busy"

    asyncio.run(ask())
    assert seen == ["first", "staying"]


def test_a_model_that_hangs_is_not_waited_for() -> None:
    let_go = threading.Event()

    async def ask() -> Done:
        backend = model_backend(lambda request: say(str(let_go.wait(10))), timeout=0.2)
        found = await heard(backend)
        let_go.set()
        await backend.aclose()
        return found[2]

    assert asyncio.run(ask()).failure == "timeout"


def test_a_batch_that_nobody_waits_for_is_stopped() -> None:
    steps: list[int] = []
    going = threading.Event()

    class Endless(ScriptedModel):
        def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
            try:
                for index in range(len(requests)):
                    steps.append(index)
                    going.wait(5)
                    yield index, say("x")
            finally:
                steps.append(-1)

    async def ask() -> None:
        backend = ModelBackend(Endless([]), window=0.1)
        tasks = [asyncio.create_task(heard(backend)) for _ in range(3)]
        await asyncio.sleep(0.4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        going.set()
        await backend.aclose()

    asyncio.run(ask())
    until(lambda: steps == [0, -1])


def test_both_are_backends() -> None:
    def backend(found: Backend) -> AsyncGenerator[Delta | Done, None]:
        return found.stream(asked())

    for found in (model_backend(["x"]), HttpBackend("http://127.0.0.1:1/v1", "tiny")):
        assert hasattr(backend(found), "aclose")
        asyncio.run(found.aclose())


def test_what_comes_together_with_the_proof_that_it_is_no_answer_is_held_back() -> None:
    reading = Reading("inline")
    texts = ("<think>I think.</think>The answer", " goes on", "</think>", "and on")
    delta, error = delta_of(reading, [orjson.dumps(chunk(content=text)) for text in texts])
    assert error is None
    assert delta == Delta("I think.", "")
    assert reading.end().status == "malformed"
