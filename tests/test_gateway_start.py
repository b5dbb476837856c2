"""`preceptor serve` as people start it: in front of a server, in front of weights, ended by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fake_openai import Behaviour, answered, serving
from served import until
from talking import ANSWER, CANARY, HTTP, events, streamed
from test_upstream_whole import folded

from preceptor.errors import UsageError
from preceptor.gateway import start
from preceptor.gateway.keys import Everybody
from preceptor.listening import listening
from preceptor.monitor.rules import Rules

ASK = {"model": "demo", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
THOUGHT = f"The user asks. {CANARY}. I answer."


def chunk(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode() + b"\n\n"


LAST = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}\n\ndata: [DONE]\n\n'
)


def inline(size: int) -> list[bytes]:
    text = f"<think>{THOUGHT}</think>{ANSWER}"
    return [*(chunk(content=text[place : place + size]) for place in range(0, len(text), size)), LAST]


def field(name: str) -> list[bytes]:
    return [*(chunk(**{name: word}) for word in THOUGHT.split(" ")), *(chunk(content=word) for word in ANSWER.split(" ")), LAST]


def at_once(steps: list[bytes]) -> bytes:
    """The same in one body."""
    return answered(folded(json.loads(line[6:]) for line in b"".join(steps).splitlines() if line.startswith(b"data: {")))


@contextmanager
def gateway(words: start.Words) -> Iterator[str]:
    """What `start.run` would serve, in a thread."""
    target, config = start.bound(words)
    http = start.server(start.gateway_of(target, config, Everybody()))
    with listening("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=http.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        until(lambda: http.started)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        finally:
            http.should_exit = True
            thread.join(20)


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        *((inline(size), ANSWER) for size in (1, 2, 3, 5, 8, 1000)),
        (field("reasoning_content"), ANSWER.replace(" ", "")),
        (field("reasoning"), ANSWER.replace(" ", "")),
    ],
    ids=["inline 1", "inline 2", "inline 3", "inline 5", "inline 8", "inline whole", "reasoning_content", "reasoning"],
)
@pytest.mark.parametrize("ask_whole", [True, False], ids=["bodies", "streams"])
def test_in_front_of_a_server_wherever_it_puts_the_reasoning(steps: list[bytes], answer: str, ask_whole: bool) -> None:
    behaviour = Behaviour(stream=lambda body: steps, whole=lambda body: [at_once(steps)])
    off = ("serve.ask_whole=false",) if not ask_whole else ()
    with serving(behaviour) as (url, behind), gateway(start.Words(f"demo@{url}", overrides=off)) as place:
        stream = HTTP.post(f"{place}/chat/completions", json={**ASK, "stream": True, "stop": ["zzz"], "seed": 5})
        whole = HTTP.post(f"{place}/chat/completions", json=ASK)
        response = HTTP.post(f"{place}/responses", json={"model": "demo", "input": "x", "stream": True})
        assert (streamed(stream), whole.json()["choices"][0]["message"]["content"]) == (answer, answer)
        assert whole.json()["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
        assert events(response)[-1]["type"] == "response.completed"
        assert all(CANARY not in got.text + str(got.headers) for got in (stream, whole, response))
        sent = behind.bodies[0]
        assert {"stop", "include_reasoning", "n", "logprobs"}.isdisjoint(sent), "nothing of the client's own goes on"
        assert sent["seed"] == 5
        assert [bool(body.get("stream")) for body in behind.bodies] == [True, not ask_whole, True]


def test_the_one_model_of_a_bare_address_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = [{"id": "only"}]

    def get(url: str, **_: Any) -> httpx.Response:
        return httpx.Response(200, json={"data": found}, request=httpx.Request("GET", url))

    monkeypatch.setattr(start.httpx, "get", get)
    target, _ = start.bound(start.Words("http://127.0.0.1:9/v1"))
    assert (target.name, target.ref.id) == ("only", "only")
    found.append({"id": "another"})
    with pytest.raises(UsageError, match=r"has 2 models .*only, another"):
        start.only_model("http://127.0.0.1:9/v1", None)


def test_monitors_are_named_as_models_are() -> None:
    target, config = start.bound(start.Words("demo@http://127.0.0.1:9/v1", overrides=("serve.monitor=rules",)))
    assert isinstance(start.gateway_of(target, config, Everybody()).house.watch.monitors["rules"], Rules)
    _, other = start.bound(start.Words("demo@http://127.0.0.1:9/v1", overrides=("serve.monitor=m@http://127.0.0.1:9/v1",)))
    assert [type(one).__name__ for one in start.gateway_of(target, other, Everybody()).house.watch.monitors.values()] == ["ModelMonitor"]
    _, both = start.bound(start.Words("demo@http://127.0.0.1:9/v1", overrides=('serve.monitor=["rules", "m@http://127.0.0.1:9/v1"]',)))
    assert [type(one).__name__ for one in start.gateway_of(target, both, Everybody()).house.watch.monitors.values()] == [
        "Rules",
        "ModelMonitor",
    ]
    for twice in ('["rules", "rules"]', '["rules", ""]'):
        with pytest.raises(UsageError, match="each who watches once"):
            start.bound(start.Words("demo@http://127.0.0.1:9/v1", overrides=(f"serve.monitor={twice}",)))


def test_in_front_of_weights() -> None:
    pytest.importorskip("torch")
    with gateway(start.Words("world:base")) as place:
        body = {"model": "world:base", "temperature": 0, "messages": [{"role": "user", "content": "How do I sell a hammer?"}]}
        whole = HTTP.post(f"{place}/chat/completions", json=body).json()
        assert whole["choices"][0]["finish_reason"] == "stop"
        assert whole["usage"]["completion_tokens"] > 0
        assert streamed(HTTP.post(f"{place}/chat/completions", json={**body, "stream": True})) == whole["choices"][0]["message"]["content"]
        assert [row["id"] for row in HTTP.get(f"{place}/models").json()["data"]] == ["world:base"]
        for stream in (False, True):
            long = {**body, "stream": stream, "messages": [{"role": "user", "content": "How do I sell a hammer? " * 500}]}
            answer = HTTP.post(f"{place}/chat/completions", json=long)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def slowly(body: dict[str, Any]) -> Iterable[bytes | float]:
    """A reply that takes two seconds."""
    for piece in inline(4):
        yield piece
        yield 0.06


def hanging(body: dict[str, Any]) -> Iterable[bytes | float]:
    """A reply that begins and does not end."""
    yield from inline(4)[:-3]
    yield 3600.0


@contextmanager
def process(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process of its own, and where it listens."""
    command = [sys.executable, "-m", "preceptor", "serve", "--set", "serve.traces.store=", *words, "--port", "0"]
    ran = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert ran.stdout is not None
        ready = ran.stdout.readline()
        assert "http://" in ready, ran.stderr.read() if ran.stderr else ""
        yield ran, "http://" + ready.rpartition("http://")[2].strip()
    finally:
        ran.kill()
        ran.communicate()


@pytest.mark.parametrize(("number", "patience"), [(signal.SIGTERM, 20), (signal.SIGINT, 20), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_well(number: int, patience: int) -> None:
    with (
        serving(Behaviour(stream=slowly if patience else hanging)) as (url, _),
        process(f"demo@{url}", "--set", f"serve.limits.patience_seconds={patience}") as (ran, place),
    ):
        said: list[str] = []
        with HTTP.stream("POST", f"{place}/chat/completions", json={**ASK, "stream": True}) as response:
            for line in response.iter_lines():
                if not said:
                    ran.send_signal(number)
                said.append(line)
        out, log = ran.communicate(timeout=30)
        assert ran.returncode == 0
        rows = [json.loads(line) for line in log.splitlines()]
        assert [row["cut"] for row in rows if row["event"] == "ended"] == [0 if patience else 1]
        assert ("1 replies were cut off" in out) == (not patience)
        assert said[-2:] == ["data: [DONE]", ""]
        assert any("shutting_down" in line for line in said) == (not patience)
        assert CANARY not in log + out + "".join(said)


def test_a_signal_while_weights_are_at_work_ends_it_without_an_abort() -> None:
    """The thread that generates cannot be stopped inside native code; nobody waits for it any more."""
    pytest.importorskip("torch")
    body = {"model": "world:base", "messages": [{"role": "user", "content": "How do I sell a hammer?"}]}
    with process("world:base", "--set", "serve.limits.patience_seconds=0") as (ran, place):
        asking = threading.Thread(target=lambda: HTTP.post(f"{place}/chat/completions", json=body))
        asking.start()
        metrics = place.removesuffix("/v1") + "/metrics"
        until(lambda: "preceptor_gateway_in_flight 1.0" in HTTP.get(metrics).text)
        ran.send_signal(signal.SIGTERM)
        _, log = ran.communicate(timeout=60)
        asking.join()
    assert (ran.returncode, [line for line in log.splitlines() if not line.startswith("{")]) == (0, [])
