"""The client against a bare loop and against an Inspect evaluation, on a server of this machine that takes its time.

    python benchmarks/client.py speed     calls per second beside a bare httpx loop of the same concurrency, taking turns
    python benchmarks/client.py inspect   processor seconds per sample beside an Inspect evaluation of the same prompts (needs preceptor[eval])
    python benchmarks/client.py memory    memory for 10,000 and for 200,000 requests, each in a process of its own

The server answers each call after a latency drawn between 0.2 and 0.6 seconds; for `memory`, at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import orjson

from preceptor.models import Lazily, Request
from preceptor.models.endpoint import Endpoint, EndpointConfig
from preceptor.models.store import Store
from preceptor.records import Message, Sampling

SERVER = Path(__file__).parent.parent / "tests" / "fake_openai.py"
LATENCY = (0.2, 0.6)
POLICY = "The policy says what to do. " * 500  # about 3,000 tokens, a routed view of a specification


@contextlib.contextmanager
def server(latency: tuple[float, float]) -> Iterator[str]:
    """A server in a process of its own; its address."""
    words = [sys.executable, str(SERVER), "--latency", *map(str, latency)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        process.stdin.close()


def request(number: int) -> Request:
    """One of many with the same policy before it."""
    messages = (Message(role="system", content=POLICY), Message(role="user", content=f"question {number}"))
    return Request(messages, Sampling(seed=number, max_tokens=100))


def ours(url: str, count: int, concurrency: int, *, first: int = 0) -> float:
    """Seconds for `count` requests, kept in a store."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Store(Path(folder) / "replies.db")) as store:
        config = EndpointConfig(url=url, concurrency=concurrency)
        with Endpoint("tiny", config, store=store) as model:
            started = time.perf_counter()
            done = sum(reply.status == "ok" for _, reply in model.stream(Lazily(range(first, first + count), request)))
            assert done == count
            return time.perf_counter() - started


def bare(url: str, count: int, concurrency: int) -> float:
    """Seconds for the same with httpx alone: workers that take the next number, post, and look for the answer."""

    async def loop() -> float:
        numbers = iter(range(count))
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)

        async def worker(client: httpx.AsyncClient) -> None:
            for number in numbers:
                asked = request(number)
                body = {
                    "model": "tiny",
                    "messages": [{"role": message.role, "content": message.content} for message in asked.messages],
                    "max_tokens": 100,
                    "seed": number,
                }
                response = await client.post(f"{url}/chat/completions", content=orjson.dumps(body))
                assert orjson.loads(response.content)["choices"][0]["message"]["content"]

        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            started = time.perf_counter()
            await asyncio.gather(*(worker(client) for _ in range(concurrency)))
            return time.perf_counter() - started

    return asyncio.run(loop())


def speed(count: int, concurrency: int, repeats: int) -> None:
    """Both, taking turns."""
    ratios = []
    with server(LATENCY) as url:
        for _ in range(repeats):
            theirs, mine = bare(url, count, concurrency), ours(url, count, concurrency)
            ratios.append(theirs / mine)
            print(f"bare httpx {count / theirs:7.1f} calls/s   preceptor {count / mine:7.1f} calls/s   ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"ratio: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}, n = {repeats} x {count}, {concurrency} at a time"
    )


def processor_seconds(work: Callable[[], object]) -> float:
    """Of this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


def inspect(count: int, concurrency: int, repeats: int) -> None:
    """Both, taking turns; imports are not counted."""
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    def theirs(url: str, logs: str) -> None:
        samples = [
            Sample(input=[ChatMessageSystem(content=POLICY), ChatMessageUser(content=f"question {n}")], target="seed") for n in range(count)
        ]
        config = GenerateConfig(max_connections=concurrency, max_tokens=100, seed=1)
        model = get_model("openai-api/fake/tiny", base_url=url, api_key="none", config=config)
        task = inspect_ai.Task(dataset=samples, solver=generate(), scorer=includes())
        (log,) = inspect_ai.eval(task, model=model, display="none", log_dir=logs, max_samples=concurrency)
        assert log.status == "success", log.error.message if log.error else log.status
        assert len(log.samples or []) == count

    ratios = []
    with server(LATENCY) as url, tempfile.TemporaryDirectory() as logs:
        theirs(url, logs)  # the first one imports the provider
        for repeat in range(repeats):
            inspect_seconds = processor_seconds(lambda: theirs(url, logs))
            our_seconds = processor_seconds(functools.partial(ours, url, count, concurrency, first=repeat * count))
            ratios.append(inspect_seconds / our_seconds)
            print(
                f"Inspect {inspect_seconds / count * 1e3:.2f} ms, preceptor {our_seconds / count * 1e3:.2f} ms of processor per sample, ratio {ratios[-1]:.2f}"
            )
    print(
        f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}, n = {repeats} x {count}, {concurrency} at a time"
    )


def memory(counts: list[int]) -> None:
    """The most that a process has held, for each count."""
    with server((0.0, 0.0)) as url:
        for count in counts:
            started = time.perf_counter()
            words = [sys.executable, __file__, "hold", "--url", url, "--count", str(count)]
            said = subprocess.run(words, check=True, stdout=subprocess.PIPE, env={**os.environ}).stdout
            print(
                f"{count:>9,} requests: {json.loads(said):.0f} MB at the peak, {count / (time.perf_counter() - started):,.0f} calls/s",
                flush=True,
            )


def main() -> None:
    """Bind words to measurements."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", nargs="?", default="speed", choices=["speed", "inspect", "memory", "hold"])
    words.add_argument("--count", type=int, default=2000)
    words.add_argument("--concurrency", type=int, default=64)
    words.add_argument("--repeats", type=int, default=5)
    words.add_argument("--url", default="")
    given = words.parse_args()
    if given.what == "hold":
        ours(given.url, given.count, given.concurrency)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
    elif given.what == "memory":
        memory([10_000, 200_000])
    else:
        {"speed": speed, "inspect": inspect}[given.what](given.count, given.concurrency, given.repeats)


if __name__ == "__main__":
    main()
