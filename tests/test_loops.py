"""Ctrl-C while servers are asked: one line, nothing lost, and the loop in order."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fake_openai import Behaviour, serving

from preceptor.models import loops
from preceptor.records import Answer
from preceptor.runs import read_records


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    made = asyncio.new_event_loop()
    yield made
    made.close()
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 3])
def test_work_is_cancelled_once_and_the_loop_runs_again(loop: asyncio.AbstractEventLoop, times: int) -> None:
    ended: list[str] = []

    async def work() -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append("in order")

    async def more() -> int:
        return 1

    with pytest.raises(KeyboardInterrupt):
        loops.run(loop, work)
    assert ended == ["in order"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert loops.run(loop, more) == 1


def test_what_ends_something_is_waited_for(loop: asyncio.AbstractEventLoop) -> None:
    ended: list[str] = []

    async def end() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0.01)
        ended.append("through")

    with pytest.raises(KeyboardInterrupt):
        loops.run(loop, end, to_the_end=True)
    assert ended == ["through"]


def test_a_programs_own_handler_is_left_alone(loop: asyncio.AbstractEventLoop) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))

    async def work() -> int:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        return 1

    assert loops.run(loop, work) == 1
    assert heard == [signal.SIGINT]


def test_interrupted_again_and_again_it_is_one_line_each_and_nothing_is_lost(tmp_path: Path) -> None:
    """A real process, at moments that are drawn; every other time Ctrl-C comes twice."""
    rng, count = random.Random(0), 150
    rows = [{"prompt": f"What is this, {n}?", "url": "https://example.org/dot.png", "label": "safe"} for n in range(count)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(Behaviour(script=lambda body: ("", "It is a dot, and that is all."), latency=(0.1, 1.5))) as (url, server):
        more = ["--server", "concurrency=8", "--images", str(tmp_path / "rows.jsonl"), "--dir", str(tmp_path / "out")]
        command = [sys.executable, "-X", "faulthandler", "-m", "preceptor", "eval", "--model", f"m@{url}", "--suite", "multimodal", *more]
        for number in range(5):
            before = len(server.bodies)
            process = _started(command)
            until = time.monotonic() + 60
            while len(server.bodies) == before and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 1.5))
            process.send_signal(signal.SIGINT)
            if number % 2:
                time.sleep(rng.uniform(0.0, 0.05))
                process.send_signal(signal.SIGINT)
            said = _said_in_the_end(process)
            assert process.returncode in (130, -signal.SIGINT), (
                "a shell shows both as 130; the second where Ctrl-C meets the end of the process"
            )
            assert said == ["preceptor: error: interrupted; the same command again goes on from here"]
        with closing(sqlite3.connect(tmp_path / "out/replies.db")) as store:
            ((kept,),) = store.execute("select count(*) from replies")
        assert 0 < kept < count, "it was interrupted in the middle"
        before, server.behaviour.latency = len(server.bodies), (0.0, 0.0)
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert len(server.bodies) - before == count - kept, "no reply that had come in is asked for again"
    assert len(read_records(tmp_path / "out/08_answers.jsonl", Answer.from_row)) == count


def _started(command: list[str]) -> subprocess.Popen[str]:
    """As from a terminal: a shell starts its background jobs deaf to SIGINT, and they start their own so."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _said_in_the_end(process: subprocess.Popen[str]) -> list[str]:
    """The lines of its errors; of one that does not end, where it hangs."""
    try:
        return process.communicate(timeout=30)[1].splitlines()
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        return pytest.fail(f"not ended after 30 s:\n{process.communicate()[1]}")
