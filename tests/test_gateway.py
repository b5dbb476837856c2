"""The chat server: what clients get, the monitor in the path, limits, time-outs, and an end that finishes what it began."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from served import until
from talking import ANSWER, CANARY, HTTP, FirstWords, Running, ScriptedBackend, Step, WordMonitor, events, running, streamed, written

from preceptor.gateway import openapi, policy, watching
from preceptor.gateway.limits import KeyLimits, Limits
from preceptor.gateway.settings import ServeConfig, WatchConfig
from preceptor.gateway.stops import Stops
from preceptor.gateway.upstream import Asked, Delta, Done, HttpBackend

PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(folder=tmp_path_factory.mktemp("keys"), summariser=FirstWords()) as service:
        yield service


def numbers(service: Running) -> dict[str, float]:
    samples = [sample for family in text_string_to_metric_families(service.metrics()) for sample in family.samples]
    short = {sample.name.removeprefix("preceptor_gateway_"): sample for sample in samples}
    assert short
    return {
        sample.name.removeprefix("preceptor_gateway_") + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for sample in samples
    }


# What comes back


def test_a_chat_completion(served: Running) -> None:
    response = served.post()
    body = response.json()
    assert body["choices"][0] == {
        "index": 0, "message": {"role": "assistant", "content": ANSWER, "refusal": None}, "finish_reason": "stop", "logprobs": None,
    }  # fmt: skip
    assert body["usage"] == {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
    assert (body["object"], body["model"]) == ("chat.completion", "demo")
    assert response.headers["x-request-id"] in served.traces.rows


def test_a_stream_of_chunks(served: Running) -> None:
    response = served.post(stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    found = events(response)
    assert streamed(response) == ANSWER
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [event["choices"][0]["finish_reason"] for event in found[:-1]] == [None] * (len(found) - 2) + ["stop"]
    assert (found[-1]["choices"], found[-1]["usage"]["total_tokens"]) == ([], 33)
    assert len({event["id"] for event in found}) == 1
    assert "usage" not in served.post(stream=True).text, "only where it is asked for"


def test_a_response_and_its_events(served: Running) -> None:
    whole = served.post("responses", reasoning={"summary": "auto"}).json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
    assert whole["output"][0]["summary"] == [{"type": "summary_text", "text": "Thought for 39 characters."}]
    found = events(served.post("responses", stream=True, reasoning={"summary": "auto"}))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed"
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["reasoning", "message"]
    assert "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta") == ANSWER
    plain = served.post("responses").json()
    assert [item["type"] for item in plain["output"]] == ["message"], "no summary where none is asked for"
    assert plain["usage"]["input_tokens"] + plain["usage"]["output_tokens"] == 33


def test_summaries_are_made_where_asked_for_and_withheld_where_unsafe(tmp_path: Path) -> None:
    summariser = FirstWords()
    with running(folder=tmp_path, summariser=summariser) as served:
        messages = [{"role": "system", "content": "The code is 1234."}, {"role": "user", "content": "Hello."}]
        message = served.post(reasoning_summary="auto", messages=messages).json()["choices"][0]["message"]
        assert message["reasoning_summary"] == "Thought for 39 characters."
        assert summariser.secrets == [("The code is 1234.",)]
        assert "reasoning_summary" not in served.post().json()["choices"][0]["message"]
        last = events(served.post(reasoning_summary="auto", stream=True))[-1]["choices"][0]
        assert last["delta"]["reasoning_summary"] == "Thought for 39 characters."
        summariser.withhold = True
        assert served.post(reasoning_summary="auto").json()["choices"][0]["message"]["reasoning_summary"] is None
        assert served.post("responses", reasoning={"summary": "auto"}).json()["output"][0]["summary"] == []
        counted = numbers(served)
        assert (counted["summaries_total[made]"], counted["summaries_total[withheld]"]) == (2, 2)
        assert [trace.summary is None for trace in served.traces.added] == [False, True, False, True, True]


def test_models_health_and_the_document(served: Running) -> None:
    headers = {"authorization": f"Bearer {served.user}"}
    assert [row["id"] for row in HTTP.get(f"{served.url}/models", headers=headers).json()["data"]] == ["demo"]
    assert HTTP.get(f"{served.url}/models/demo", headers=headers).json()["object"] == "model"
    assert HTTP.get(f"{served.url}/models/other", headers=headers).json()["error"]["code"] == "model_not_found"
    base = served.url.removesuffix("/v1")
    assert HTTP.get(f"{base}/healthz").json() == {"status": "ok"}
    assert HTTP.get(f"{base}/openapi.json").json()["openapi"] == "3.1.0"
    wrong = [HTTP.get(f"{base}/v1/nothing"), HTTP.get(f"{base}/v1/chat/completions"), HTTP.delete(f"{base}/v1/models")]
    assert [response.status_code for response in wrong] == [404, 405, 405]
    assert all(response.json()["error"]["code"] == "unknown_url" for response in wrong)


def test_metrics_are_an_operators(served: Running) -> None:
    base = served.url.removesuffix("/v1")
    asked = [HTTP.get(f"{base}/metrics", headers={"authorization": f"Bearer {key}"}) for key in (served.user, served.operator, "x")]
    assert [response.status_code for response in asked] == [403, 200, 401]
    assert "preceptor_gateway_requests_total" in asked[1].text
    assert "demo" not in asked[1].text, "no label is made of a name that a client sends"


def test_images_and_parts_reach_the_model(served: Running) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]
    assert served.post(messages=[{"role": "user", "content": content}]).status_code == 200
    (message,) = served.backend.asked[-1].messages
    assert (message.content, message.images[0].media_type, message.images[0].data) == ("What is this?", "image/png", "iVBORw0KGgo=")
    content = [{"type": "input_text", "text": "And?"}, {"type": "input_image", "image_url": PNG}]
    assert served.post("responses", input=[{"role": "user", "content": content}]).status_code == 200
    assert served.backend.asked[-1].messages[0].images == message.images


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}]}]}, "messages[0].content[0]"),
        ({"model": 7}, "model"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1e9}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"stream_options": {"include_reasoning": True}}, "stream_options.include_reasoning"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_named(served: Running, body: dict[str, Any], param: str) -> None:
    response = served.post(**body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"].startswith(param), error
    assert "10.0.0.1" not in response.text, "what was posted is not quoted"


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400), (b"[]", {}, 400), (b"\xff\xfe", {}, 400), (b'{"a": "\\ud800"}', {}, 400), (b"[" * 100_000, {}, 400), (b"", {}, 400),
        (b"{}", {"content-type": "text/plain"}, 415), (b"{}", {"content-type": ""}, 415),
    ],
)  # fmt: skip
def test_bodies_that_are_no_requests(served: Running, content: bytes, headers: dict[str, str], status: int) -> None:
    sent = {"authorization": f"Bearer {served.user}", "content-type": "application/json", **headers}
    assert HTTP.post(f"{served.url}/chat/completions", content=content, headers=sent).status_code == status


def test_request_ids_are_the_servers_own_and_a_clients_is_told_apart(served: Running) -> None:
    mine = served.post(extra={"x-request-id": "job-7.a_b"})
    assert mine.headers["x-request-id"].startswith("req_")
    assert mine.headers["x-client-request-id"] == "job-7.a_b"
    assert served.row()["client_request"] == "job-7.a_b"
    for hostile in ('"},{"x":"', "a" * 65, "ü", "a b"):
        response = served.post(extra={"x-request-id": hostile.encode()})  # type: ignore[dict-item]
        assert "x-client-request-id" not in response.headers


def test_the_log_has_no_content(served: Running) -> None:
    said = served.post(messages=[{"role": "user", "content": "a secret of mine"}], user="me@example.org")
    ended = [served.row(response) for response in (said, served.post(model="secret-model"))]
    log = "\n".join(served.log.text)
    assert all(word not in log for word in ("secret", "example.org", "Paris", CANARY, served.user))
    assert {"request", "route", "status", "role", "seconds", "key", "reply"} <= set(ended[0])


# What may be asked is written down


def test_the_documentation_has_the_tables_of_what_may_be_asked(root: Path) -> None:
    text = (root / "docs" / "serving.md").read_text(encoding="utf-8")
    for table in (policy.CHAT, policy.RESPONSES):
        assert policy.as_markdown(table) in text, "print policy.as_markdown into docs/serving.md"


def test_the_document_for_machines_says_the_same() -> None:
    found = openapi.document(Limits())
    schemas = found["components"]["schemas"]
    for name, table in (("ChatBody", policy.CHAT), ("ResponsesBody", policy.RESPONSES)):
        assert set(schemas[name]["properties"]) == set(table)
        assert schemas[name]["properties"]["n" if name == "ChatBody" else "background"]["enum"] == [
            None,
            1 if name == "ChatBody" else False,
        ]
    refs = set(json.dumps(found).split('"#/components/schemas/')[1:])
    assert all(ref.partition('"')[0] in schemas for ref in refs)


def test_stop_sequences_at_every_cut() -> None:
    text, stops = "one two three END four", ("END", "E!", "two tx")
    for first in range(len(text)):
        for second in range(first, len(text)):
            found = Stops(stops)
            out = found.feed(text[:first]) + found.feed(text[first:second]) + found.feed(text[second:])
            assert (out + ("" if found.hit else found.end()), found.hit) == ("one two three ", True)
    rest = Stops(stops)
    assert (rest.feed("one two t"), rest.end()) == ("one ", "two t")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10) | st.sampled_from(["role", "content", "type", "text"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | JSON, "content": st.text(max_size=20) | JSON}
)


@settings(max_examples=300)
@given(data=st.data(), path=st.sampled_from(["chat/completions", "responses"]))
def test_whatever_is_posted_is_answered_or_refused(served: Running, data: st.DataObject, path: str) -> None:
    table = policy.CHAT if path == "chat/completions" else policy.RESPONSES
    body: dict[str, Any] = data.draw(st.dictionaries(st.sampled_from(sorted(table)) | st.text(max_size=10), JSON, max_size=3))
    turns = st.lists(TURN, max_size=3)
    body = {"model": "demo", **body}
    body |= {"messages": data.draw(turns)} if path == "chat/completions" else {"input": data.draw(turns | st.text(max_size=5) | JSON)}
    response = HTTP.post(f"{served.url}/{path}", json=body, headers={"authorization": f"Bearer {served.user}"})
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert CANARY not in response.text


# The monitor in the path


def test_the_monitor_reads_after_the_answer_has_gone(tmp_path: Path) -> None:
    monitor = WordMonitor(word=CANARY)
    monitor.gate.clear()
    with running(folder=tmp_path, monitor=monitor) as served:
        assert served.post().json()["choices"][0]["message"]["content"] == ANSWER, "the monitor has not read it yet"
        (before,) = served.traces.added
        assert before.flags == ()
        monitor.gate.set()
        until(lambda: len(served.traces.added) == 2)
        after = served.traces.rows[before.request_id]
        assert [flag.kind for flag in after.flags] == ["invented_policy"]
        assert (after.timings["monitor"], after.blocked) == ("flagged", False)
        assert numbers(served)["monitor_flags_total[invented_policy]"] == 1


BLOCKING = WatchConfig(blocking=("invented_policy",), confidence=0.8)


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_blocking_kind_replaces_the_answer(tmp_path: Path, stream: bool, path: str) -> None:
    backend = ScriptedBackend(lambda asked: written("It is forbidden." if "bad" in asked.messages[-1].content else ANSWER))
    with running(backend, tmp_path, monitor=WordMonitor(), watch=BLOCKING, summariser=FirstWords()) as served:
        question: dict[str, Any] = {"input": "bad"} if path == "responses" else {"messages": [{"role": "user", "content": "bad"}]}
        wish: dict[str, Any] = {"reasoning": {"summary": "auto"}} if path == "responses" else {"reasoning_summary": "auto"}
        response = served.post(path, stream=stream, **question, **wish)
        assert "forbidden" not in response.text
        assert watching.safe_replacement() in response.text
        assert "content_filter" in response.text
        assert "Thought for" not in response.text, "no summary of what is withheld"
        (trace,) = served.traces.added
        assert (trace.blocked, trace.answer, len(trace.flags)) == (True, "It is forbidden.", 1)
        good = served.post(path, stream=stream)
        assert ANSWER in (streamed(good) if stream and path != "responses" else good.text)
        counted = numbers(served)
        assert (counted["blocked_total[invented_policy]"], counted["monitor_total[clean]"]) == (1, 1)


def test_other_kinds_and_weaker_flags_do_not_block(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda asked: written("It is forbidden."))
    for number, monitor in enumerate((WordMonitor(kind="omission"), WordMonitor(confidence=0.7))):
        with running(backend, tmp_path / str(number), monitor=monitor, watch=BLOCKING) as served:
            assert streamed(served.post(stream=True)) == "It is forbidden."
            assert [len(trace.flags) for trace in served.traces.added] == [1]


@pytest.mark.parametrize("how", ["broken", "slow"])
@pytest.mark.parametrize("policy", ["open", "closed"])
def test_a_monitor_that_fails_means_what_was_configured(tmp_path: Path, policy: Any, how: str) -> None:
    monitor = WordMonitor()
    monitor.broken = how == "broken"
    watch = WatchConfig(blocking=("omission",), on_failure=policy, seconds=0.2)
    with running(folder=tmp_path, monitor=monitor, watch=watch) as served:
        if how == "slow":
            monitor.gate.clear()
        said = served.post().json()["choices"][0]
        monitor.gate.set()
        expected = (ANSWER, "stop") if policy == "open" else (watching.safe_replacement(), "content_filter")
        assert (said["message"]["content"], said["finish_reason"]) == expected
        (trace,) = served.traces.added
        assert str(trace.timings["monitor"]).startswith("unobserved: transport")
        assert trace.blocked == (policy == "closed")
        (row,) = served.log.rows("unobserved")
        assert row["policy"] == policy
        assert numbers(served)["monitor_total[unobserved_transport]"] == 1


def test_closed_without_blocking_kinds_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs kinds in `blocking`"):
        WatchConfig(on_failure="closed")
    with pytest.raises(ValueError, match="there is no monitor"):
        ServeConfig(watch=BLOCKING)


def test_a_full_monitor_queue_is_unobserved_and_not_a_wait(tmp_path: Path) -> None:
    monitor = WordMonitor()
    monitor.gate.clear()
    with running(folder=tmp_path, monitor=monitor, watch=WatchConfig(queue=1, batch=1)) as served:
        for _ in range(4):
            assert served.post().status_code == 200
        until(lambda: len(served.log.rows("unobserved")) >= 2)
        assert {row["detail"] for row in served.log.rows("unobserved")} == {"the monitor's queue is full"}
        monitor.gate.set()


@pytest.mark.parametrize(("policy", "status"), [("open", 200), ("closed", 503)])
def test_a_store_that_is_down_means_what_was_configured(tmp_path: Path, policy: Any, status: int) -> None:
    with running(folder=tmp_path, traces_on_failure=policy) as served:
        served.traces.broken = True
        assert served.post().status_code == status
        assert served.log.rows("trace lost")[0]["policy"] == policy
        assert numbers(served)["traces_total[lost]"] == 1


# How much, how long


def test_times_to_the_first_token_are_in_trace_and_metrics(tmp_path: Path) -> None:
    slow = ScriptedBackend(lambda asked: [0.2, Delta(reasoning="a"), 0.2, Delta(answer="b"), Done("ok")])
    with running(slow, tmp_path) as served:
        served.post(stream=True)
        timings = served.traces.added[0].timings
        assert 400 <= float(str(timings["first_ms"])) <= float(str(timings["total_ms"])) < 1500
        assert float(str(timings["added_ms"])) < 100, "waiting for the model is not the server's doing"
        counted = numbers(served)
        assert counted["first_token_seconds_sum[chat]"] >= 0.4
        assert counted["added_seconds_sum[chat]"] < 0.1


def test_limits_of_a_key(tmp_path: Path) -> None:
    with running(folder=tmp_path, key_limits=KeyLimits(requests_per_minute=3)) as served:
        answers = [served.post() for _ in range(4)]
        assert [response.status_code for response in answers] == [200, 200, 200, 429]
        assert answers[0].headers["x-ratelimit-remaining-requests"] == "2"
        assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 20
        assert served.post(key=served.operator).status_code == 200, "another key has limits of its own"
    with running(folder=tmp_path / "two", key_limits=KeyLimits(tokens_per_minute=50)) as served:
        assert [served.post().status_code for _ in range(3)] == [200, 200, 429], "33 tokens each; the second was begun with some left"


def test_requests_of_a_key_at_the_same_time(tmp_path: Path) -> None:
    go = threading.Event()
    backend = ScriptedBackend(lambda asked: [go, *written()])
    with running(backend, tmp_path, key_limits=KeyLimits(concurrent=1)) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.post)
        until(lambda: served.gateway.door.inside == 1)
        assert served.post().status_code == 429
        go.set()
        assert first.result().status_code == 200
        assert served.post().status_code == 200


def test_a_full_house_queues_and_then_refuses(tmp_path: Path) -> None:
    go = threading.Event()
    backend = ScriptedBackend(lambda asked: [go, *written()])
    with running(backend, tmp_path, limits=Limits(concurrent=1, queue=1)) as served, ThreadPoolExecutor(2) as pool:
        first = pool.submit(served.post)
        until(lambda: served.gateway.door.inside == 1)
        second = pool.submit(served.post)
        until(lambda: served.gateway.door.waiting == 1)
        third = served.post()
        assert (third.status_code, third.headers["retry-after"], third.json()["error"]["code"]) == (503, "1", "overloaded")
        go.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
        until(lambda: served.gateway.door.inside == 0)


def test_a_wait_without_end_has_one(tmp_path: Path) -> None:
    go = threading.Event()
    backend = ScriptedBackend(lambda asked: [go, *written()])
    with running(backend, tmp_path, limits=Limits(concurrent=1, queue_seconds=0.1)) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.post)
        until(lambda: served.gateway.door.inside == 1)
        assert served.post().status_code == 503
        go.set()
        assert first.result().status_code == 200
        assert served.gateway.door.waiting == 0


@pytest.mark.parametrize(
    ("limits", "body", "status"),
    [
        (Limits(body_bytes=2000), {"messages": [{"role": "user", "content": "x" * 3000}]}, 413),
        (Limits(messages=2), {"messages": [{"role": "user", "content": "x"}] * 3}, 400),
        (Limits(characters=10), {"messages": [{"role": "user", "content": "x" * 11}]}, 400),
        (Limits(image_bytes=4), {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]}, 400),
        (Limits(images=0), {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]}, 400),
        (Limits(max_tokens=5), {"max_tokens": 6}, 400),
    ],
)
def test_sizes(tmp_path: Path, limits: Limits, body: dict[str, Any], status: int) -> None:
    with running(folder=tmp_path, limits=limits) as served:
        assert served.post(**body).status_code == status
        assert served.gateway.door.held == 0


def test_a_body_without_a_length_is_cut_at_the_limit(tmp_path: Path) -> None:
    with running(folder=tmp_path, limits=Limits(body_bytes=2000)) as served:
        headers = {"authorization": f"Bearer {served.user}", "content-type": "application/json"}
        response = HTTP.post(f"{served.url}/chat/completions", content=iter([b"x" * 1000] * 5), headers=headers)
        assert response.status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    with running(folder=tmp_path, limits=Limits(body_seconds=0.2)) as served, raw(served) as sock:
        sock.sendall(head(served, 100) + b'{"model"')
        assert sock.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "script",
    [[5.0, *written()], [Delta(reasoning="a"), 5.0, *written()], [Delta(answer="a"), 5.0, *written()]],
    ids=["first", "reasoning", "answer"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_model_that_falls_silent_is_given_up(tmp_path: Path, script: list[Step], stream: bool) -> None:
    backend = ScriptedBackend(lambda asked: script)
    with running(backend, tmp_path, limits=Limits(first_seconds=0.3, idle_seconds=0.3)) as served:
        response = served.post(stream=stream)
        begun = stream and not isinstance(script[0], float)
        assert response.status_code == (200 if begun else 504)
        assert '"code":"timeout"' in response.text
        assert backend.left == ["closed"]
        until(lambda: served.traces.added)
        assert served.traces.added[0].status == "failed"
        assert numbers(served)["cut_total[timeout]"] == 1


def test_a_reply_that_comes_at_once_has_the_whole_time(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda asked: [0.8, *written()])
    with running(backend, tmp_path, limits=Limits(first_seconds=0.2, idle_seconds=0.2), ask_whole=True) as served:
        assert served.post().json()["choices"][0]["message"]["content"] == ANSWER
        assert served.post(stream=True).status_code == served.post(stop=["zzz"]).status_code == 504
        assert [asked.whole for asked in backend.asked] == [True, False, False]
    with running(backend, tmp_path / "less", limits=Limits(total_seconds=0.3), ask_whole=True) as served:
        assert served.post().status_code == 504


def test_a_stream_in_silence_shows_that_it_lives(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda asked: [Delta(reasoning=CANARY), 1.0, *written()])
    with running(backend, tmp_path, limits=Limits(beat_seconds=0.2)) as served:
        response = served.post(stream=True)
        assert response.text.startswith(": waiting\n\n")
        assert streamed(response) == ANSWER


def raw(served: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2].removesuffix("/v1"))))


def head(served: Running, length: int) -> bytes:
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {served.user}",
        "content-type: application/json",
    ]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


def ask(served: Running, **body: Any) -> bytes:
    posted = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "x"}], **body}).encode()
    return head(served, len(posted)) + posted


@pytest.mark.parametrize("whole", [False, True], ids=["streams", "bodies"])
@pytest.mark.parametrize("where", ["before", "within"])
def test_a_client_that_leaves_ends_the_request_at_the_models_server(tmp_path: Path, where: str, whole: bool) -> None:
    content = b'{"choices": [' + b" " * 1000
    asked, gone = threading.Event(), threading.Event()

    def serve() -> None:
        with upstream.accept()[0] as connection:
            connection.recv(65536)
            media = b"application/json" if whole else b"text/event-stream"
            if where == "within":
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: 100000\r\n\r\n%s" % (media, content))
            asked.set()
            if connection.recv(1) == b"":
                gone.set()

    with socket.create_server(("127.0.0.1", 0)) as upstream:
        threading.Thread(target=serve, daemon=True).start()
        backend = HttpBackend(f"http://127.0.0.1:{upstream.getsockname()[1]}/v1", "demo")
        with running(backend, tmp_path, ask_whole=whole) as served:
            with raw(served) as sock:
                sock.sendall(ask(served))
                assert asked.wait(10)
                time.sleep(0.2)
                assert not gone.is_set()
            left = time.monotonic()
            assert gone.wait(5)
            assert time.monotonic() - left < 1
            until(lambda: served.log.rows())
            assert served.log.rows()[-1]["cut"] == "client_gone"


@pytest.mark.parametrize("ask_whole", [False, True])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_ends_the_work_for_it(tmp_path: Path, stream: bool, ask_whole: bool) -> None:
    backend = ScriptedBackend(lambda asked: [Delta(answer="a"), *([0.05, Delta(answer="b")] * 200)])
    with running(backend, tmp_path, ask_whole=ask_whole) as served:
        with raw(served) as sock:
            sock.sendall(ask(served, stream=stream))
            until(lambda: backend.asked)
        until(lambda: backend.left == ["closed"])
        until(lambda: served.gateway.door.inside == 0)
        assert served.traces.added[0].detail == "cut off"
        until(lambda: served.log.rows())
        assert served.log.rows()[-1]["cut"] == "client_gone"


def test_a_client_that_leaves_the_queue_makes_room(tmp_path: Path) -> None:
    go = threading.Event()
    backend = ScriptedBackend(lambda asked: [go, *written()])
    with running(backend, tmp_path, limits=Limits(concurrent=1)) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.post)
        until(lambda: served.gateway.door.inside == 1)
        with raw(served) as sock:
            sock.sendall(ask(served))
            until(lambda: served.gateway.door.waiting == 1)
        until(lambda: served.gateway.door.waiting == 0)
        go.set()
        assert first.result().status_code == 200
        assert len(backend.asked) == 1


def test_a_slow_reader_holds_little_and_is_cut_off(tmp_path: Path) -> None:
    made = 0

    def flood(asked: Asked) -> Iterator[Step]:
        nonlocal made
        for made in range(100_000):  # noqa: B007
            yield Delta(answer="x" * 1000)

    backend = ScriptedBackend(flood)
    with running(backend, tmp_path, limits=Limits(write_seconds=0.5)) as served, raw(served) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(ask(served, stream=True))
        until(lambda: backend.left == ["closed"])
        assert made < 20_000, "the model was not asked for more than sockets hold"
        until(lambda: served.log.rows())
        assert served.log.rows()[-1]["cut"] == "slow_reader"


# The end


def test_the_end_finishes_what_was_begun(tmp_path: Path) -> None:
    monitor = WordMonitor(word=CANARY)
    backend = ScriptedBackend(lambda asked: [*[step for piece in written() for step in (piece, 0.05)]])
    with running(backend, tmp_path, monitor=monitor) as served, ThreadPoolExecutor(1) as pool:
        stream = pool.submit(served.post, stream=True)
        until(lambda: backend.asked)
        served.begin_to_stop()
        assert streamed(stream.result()) == ANSWER
        served.stop()
        assert served.log.rows("ended")[0]["cut"] == 0
        assert served.traces.added[-1].flags, "the monitor has read what went last"
        assert backend.left[-1] == "given back"


def test_the_end_of_patience_cuts_and_counts(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda asked: [Delta(answer="begun"), 30.0, *written()])
    with running(backend, tmp_path, limits=Limits(patience_seconds=0.3)) as served, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(served.post, stream=stream) for stream in (True, False)]
        until(lambda: len(backend.asked) == 2)
        started = time.monotonic()
        served.begin_to_stop()
        stream, whole = (future.result() for future in asked)
        assert (whole.status_code, whole.json()["error"]["code"]) == (503, "shutting_down")
        assert "shutting_down" in stream.text
        served.stop()
        assert time.monotonic() - started < 5
        assert served.gateway.warden.cut == 2
        assert served.log.rows("ended")[0]["cut"] == 2
