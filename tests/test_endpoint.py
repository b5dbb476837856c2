"""The client: every request answered once whatever the network does, nothing paid twice, no budget exceeded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_openai import Behaviour, serving

from preceptor.errors import StageFailed, StorageError, UsageError
from preceptor.models import Reply, Request, asking, complete
from preceptor.models.endpoint import Endpoint, EndpointConfig
from preceptor.models.limits import Adaptive
from preceptor.models.refusals import retry_after
from preceptor.models.store import Limits, Store, Usage
from preceptor.records import Image, Message, Sampling

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BACKOFF", (0.005, 0.05))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Opens the test's store, any number of times, and closes it at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda limits=None: stack.enter_context(contextlib.closing(Store(tmp_path / "replies.db", limits)))


def requests(count: int, *, systems: int = 1, max_tokens: int = 20) -> list[Request]:
    return [
        Request(
            (Message(role="system", content=f"policy {number % systems}"), Message(role="user", content=f"question {number}")),
            Sampling(seed=number, max_tokens=max_tokens),
        )
        for number in range(count)
    ]


def expected(count: int) -> list[tuple[str, str, str]]:
    return [(f"thinking of question {number}", f"question {number} seed {number}", "ok") for number in range(count)]


def shown(replies: list[Reply]) -> list[tuple[str, str, str]]:
    return [(reply.reasoning, reply.answer, reply.status) for reply in replies]


def endpoint(url: str | tuple[str, ...], store: Store | None = None, **settings: Any) -> Endpoint:
    return Endpoint("tiny", EndpointConfig.model_validate({"url": url, **settings}), store=store)


def test_replies_come_split_and_with_their_tokens() -> None:
    with serving() as (url, server), endpoint(url, extra={"reasoning_effort": "high"}) as model:
        (reply,) = complete(model, requests(1))
    assert reply == Reply("thinking of question 0", "question 0 seed 0", "ok", "", 4, 10)
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "policy 0"}, {"role": "user", "content": "question 0"}],
            "max_tokens": 20,
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": 0,
            "reasoning_effort": "high",
        }
    ]


def test_fields_that_a_server_refuses_are_left_out_and_others_renamed() -> None:
    with serving() as (url, server), endpoint(url, omit=("temperature", "seed"), token_field="max_completion_tokens") as model:
        complete(model, requests(1))
    assert set(server.bodies[0]) == {"model", "messages", "top_p", "max_completion_tokens"}


def test_what_is_no_unicode_is_marked_and_the_reply_kept(opened: Callable[..., Store]) -> None:
    """Half a surrogate pair, as models write that are cut within a character; bytes that are no UTF-8; control characters."""
    said = {"0": "half \ud83d of it", "1": "nul \x00 and \u202e bidi", "2": "whole \U0001f600"}
    ask = [Request((Message(role="user", content=name),), Sampling()) for name in said]
    with (
        serving(Behaviour(script=lambda body: ("\udead", said[body["messages"][0]["content"]]))) as (url, server),
        contextlib.closing(endpoint(url, opened(), reasoning="optional")) as model,
    ):
        replies = complete(model, ask)
        assert [reply.answer for reply in complete(model, ask)] == [reply.answer for reply in replies]
    assert [reply.status for reply in replies] == ["ok"] * 3
    assert [reply.answer for reply in replies] == ["half \ufffd of it", "nul \x00 and \u202e bidi", "whole \U0001f600"]
    assert {reply.reasoning for reply in replies} == {"\ufffd"}
    assert len(server.bodies) == 3
    body = b'{"choices": [{"message": {"content": "bad \xff byte"}, "finish_reason": "stop"}]}'
    with serving(Behaviour(fixed=(200, body))) as (url, _), contextlib.closing(endpoint(url, reasoning="optional")) as model:
        assert [reply.answer for reply in complete(model, ask[:1])] == ["bad \ufffd byte"]


def test_images_go_before_the_text_and_make_another_request(opened: Callable[..., Store]) -> None:
    """In the parts that servers take; a turn without any stays plain text."""
    pictures = (Image(data="iVBORw0K"), Image(url="https://example.org/cat.jpg", media_type="image/jpeg"))
    asked = [
        Request((Message(role="user", content="what is this?", images=images),), Sampling()) for images in (pictures, pictures[:1], ())
    ]
    with (
        serving(Behaviour(script=lambda body: ("", "a cat"))) as (url, server),
        contextlib.closing(endpoint(url, opened(), reasoning="optional")) as model,
    ):
        assert [reply.answer for reply in complete(model, asked)] == ["a cat"] * 3
        complete(model, asked)
    assert len(server.bodies) == 3, "kept, each under its own images"
    said = sorted((body["messages"][0]["content"] for body in server.bodies), key=len, reverse=True)
    assert "what is this?" in said
    (full,) = [content for content in said if len(content) == 3]
    assert full == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}},
        {"type": "text", "text": "what is this?"},
    ]


def test_earlier_reasoning_is_not_sent() -> None:
    turns = (
        Message(role="user", content="a"),
        Message(role="assistant", content="b", reasoning="CANARY"),
        Message(role="user", content="c"),
    )
    with serving() as (url, server), endpoint(url) as model:
        complete(model, [Request(turns, Sampling())])
    assert "CANARY" not in str(server.bodies)


def test_faults_lose_double_and_score_nothing(opened: Callable[..., Store]) -> None:
    faults = {"busy": 0.1, "error": 0.05, "hang": 0.02, "garbage": 0.02, "truncated": 0.01, "reset": 0.02}
    with serving(Behaviour(faults=faults, latency=(0.0, 0.01))) as (url, server):
        store = opened()
        with endpoint(url, store, timeout=1.0, concurrency=32) as model:
            found = list(model.stream(requests(600, systems=5)))
    assert Counter(number for number, _ in found) == Counter(range(600))
    statuses = Counter(reply.status for _, reply in found)
    assert statuses["ok"] + statuses["truncated"] == 600
    assert all(server.outcomes[name] for name in faults), "the test must have met every fault"
    for number, reply in found:
        assert reply.answer == (f"question {number} seed {number}" if reply.status == "ok" else "")
    (books,) = store.books()
    assert books.calls["stop"] + books.calls["length"] == 600
    assert sum(books.calls.values()) == server.outcomes.total()
    assert books.known.completion_tokens == 600 * 10
    lost = server.outcomes.total() - 600 - server.outcomes["busy"]  # on a busy machine also replies that came too late
    assert books.unknown.completion_tokens == lost * 20, "what may have been billed stands at its bound"


def test_what_keeps_failing_is_a_failed_reply_with_its_reason() -> None:
    with serving(Behaviour(faults={"error": 1.0})) as (url, server), endpoint(url) as model:
        (reply,) = complete(model, requests(1))
    assert (reply.status, reply.answer, reply.detail) == ("failed", "", "given up after 6 attempts: HTTP 500: out of memory")
    assert server.outcomes["error"] == asking.TRIES


def test_the_deadline_ends_endless_waiting() -> None:
    with serving(Behaviour(faults={"busy": 1.0})) as (url, _), endpoint(url, deadline=0.3) as model:
        (reply,) = complete(model, requests(1))
    assert reply.status == "failed"
    assert reply.detail == "given up after 0.3 s: HTTP 429: slow down"


def test_concurrency_follows_what_the_server_bears() -> None:
    slow = Behaviour(capacity=8, latency=(0.4, 0.5))  # so that any machine keeps it busy
    with serving(slow) as (url, server), endpoint(url, concurrency=64) as model:
        replies = complete(model, requests(80))
        assert model.replicas[0].pace.limit < 32
    assert shown(replies) == expected(80)
    assert server.outcomes["busy"] < 150, "a fixed concurrency of 64 is turned away 226 times"


def test_calls_under_way_are_halved_once_for_all_that_were_turned_away_together() -> None:
    pace = Adaptive(64)
    for _ in range(56):
        pace.pushed_back(now=2.0, started=1.0, retry_after=0.5)
    assert (pace.limit, pace.free(2.4), pace.free(2.5)) == (32, False, True)
    pace.pushed_back(now=3.0, started=2.5, retry_after=0.0)
    assert pace.limit == 16
    for _ in range(17):
        pace.succeeded()
    assert pace.limit == 17, "one more for a round of successes"
    for moment in range(4, 14):
        pace.pushed_back(now=moment, started=moment - 0.5, retry_after=0.0)
    assert pace.limit == 1
    for _ in range(10_000):
        pace.succeeded()
    assert pace.limit == 64


def test_calls_per_minute_are_kept() -> None:
    started = time.monotonic()
    with serving() as (url, _), endpoint(url, requests_per_minute=600) as model:
        complete(model, requests(80))  # a burst of 60, then 10 a second
    assert 1.5 < time.monotonic() - started < 60


def test_requests_with_one_prefix_go_to_one_server() -> None:
    slow = Behaviour(latency=(0.002, 0.004))
    with serving(slow) as (first, one), serving(slow) as (second, two), endpoint((first, second), concurrency=4) as model:
        replies = complete(model, requests(200, systems=10))
    assert shown(replies) == expected(200)
    policies = [Counter(body["messages"][0]["content"] for body in server.bodies) for server in (one, two)]
    assert min(len(one.bodies), len(two.bodies)) > 60
    split = set(policies[0]) & set(policies[1])
    assert len(split) <= 2, f"only the last groups are shared out: {split}"


def test_a_server_that_is_down_costs_no_row() -> None:
    with serving() as (url, server), endpoint(("http://127.0.0.1:9/v1", url)) as model:
        replies = complete(model, requests(50, systems=5))
    assert shown(replies) == expected(50)
    assert len(server.bodies) == 50


def test_no_server_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "DOWN", (0.2, 0.2))
    with (
        endpoint("http://127.0.0.1:9/v1") as model,
        pytest.raises(UsageError, match=r"no server has answered for .* at http://127.0.0.1:9/v1"),
    ):
        complete(model, requests(3))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            401,
            {"error": {"message": f"Incorrect API key {KEY}"}},
            r"refuses access: HTTP 401: Incorrect API key \*\*\* \(check the key in TEST_KEY",
        ),
        (403, b"forbidden", "refuses access: HTTP 403: forbidden"),
        (404, {"detail": "Not Found"}, "does not know the model 'tiny' or the address: HTTP 404: Not Found"),
        (429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, "the account has no credit"),
        (301, b"", r"/v1 answers no chat completions: HTTP 301: no further words \(correct server.url\)"),
        (405, b"not here", "answers no chat completions: HTTP 405: not here"),
    ],
)
def test_what_the_user_must_mend_stops_at_once(monkeypatch: pytest.MonkeyPatch, status: int, body: Any, message: str) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with (
        serving(Behaviour(fixed=(status, body))) as (url, server),
        endpoint(url, key_env="TEST_KEY", concurrency=2) as model,
        pytest.raises(UsageError, match=message) as error,
    ):
        complete(model, requests(100))
    assert KEY not in str(error.value)
    assert len(server.bodies) <= 3


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: Callable[..., Store]) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(Behaviour(key=KEY)) as (url, _):
        store = opened()
        with endpoint(url, store, key_env="TEST_KEY") as model:
            assert complete(model, requests(1))[0].status == "ok"
            assert KEY not in repr(vars(model.config)) + model.identity
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_missing_key_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(UsageError, match="the environment variable TEST_KEY is not set"):
        endpoint("http://localhost/v1", key_env="TEST_KEY")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_a_row_of_its_own(status: int) -> None:
    with serving(Behaviour(fixed=(status, {"error": {"message": "context too long"}}))) as (url, server), endpoint(url) as model:
        (reply,) = complete(model, requests(1))
    assert (reply.status, reply.detail) == ("failed", f"HTTP {status}: context too long")
    assert len(server.bodies) == 1


def test_a_content_filter_that_answers_400_is_a_refusal() -> None:
    body = {"error": {"message": "flagged", "code": "content_filter"}}
    with serving(Behaviour(fixed=(400, body))) as (url, _), endpoint(url) as model:
        assert complete(model, requests(1))[0].status == "refused"


@pytest.mark.parametrize("bad", ["sk-\u2026", "sk-\x07bell"])
def test_a_key_that_cannot_be_sent_is_one_line(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("TEST_KEY", bad)
    with pytest.raises(UsageError, match="TEST_KEY holds characters that no key has") as error:
        endpoint("http://localhost/v1", key_env="TEST_KEY")
    assert bad not in str(error.value)


# The store


def test_nothing_is_paid_twice(opened: Callable[..., Store]) -> None:
    with serving() as (url, server):
        store = opened()
        with endpoint(url, store) as model:
            complete(model, requests(20))
            assert shown(complete(model, requests(30))) == expected(30)
        with endpoint(url, store, concurrency=3, timeout=5, price_prompt=1.0, price_completion=2.0) as other:
            complete(other, requests(30))
        assert len(server.bodies) == 30


@pytest.mark.parametrize("changed", [{"revision": "2"}, {"extra": {"reasoning_effort": "low"}}, {"omit": ("seed",)}])
def test_what_changes_the_reply_is_asked_for_again(opened: Callable[..., Store], changed: dict[str, Any]) -> None:
    with serving() as (url, server):
        store = opened()
        with endpoint(url, store) as before, endpoint(url, store, **changed) as after:
            complete(before, requests(1))
            complete(after, requests(1))
            assert before.identity != after.identity
        assert len(server.bodies) == 2


def test_a_reply_that_is_read_otherwise_is_not_paid_for_again(opened: Callable[..., Store]) -> None:
    body = {"choices": [{"message": {"content": "plan</think>done"}, "finish_reason": "stop"}]}
    with serving(Behaviour(fixed=(200, body))) as (url, server):
        store = opened()
        with endpoint(url, store) as wrong, endpoint(url, store, reasoning="prefilled") as right:
            assert complete(wrong, requests(1))[0].status == "malformed"
            assert complete(right, requests(1))[0] == Reply("plan", "done", "ok")
        assert len(server.bodies) == 1


def test_failures_are_not_kept(opened: Callable[..., Store]) -> None:
    store = opened()
    with serving(Behaviour(faults={"error": 1.0})) as (url, server), endpoint(url, store) as model:
        assert complete(model, requests(1))[0].status == "failed"
        server.behaviour.faults = {}
        assert complete(model, requests(1))[0].status == "ok"


def test_a_store_that_is_no_store_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "replies.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StageFailed, match="is damaged"):
        Store(tmp_path / "replies.db")


def test_a_place_where_no_store_can_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/replies.db: the store of replies: .*run.store"):
        Store(tmp_path / "file" / "replies.db")


def test_a_full_disk_is_one_line(opened: Callable[..., Store]) -> None:
    store = opened()
    store._file.execute(f"pragma max_page_count = {store._file.execute('pragma page_count').fetchone()[0]}")
    with (
        serving() as (url, _),
        endpoint(url, store) as model,
        pytest.raises(StorageError, match=r"replies.db: the store of replies: .*full"),
    ):
        complete(model, requests(500))


# The budget


@pytest.mark.parametrize("limits", [Limits(tokens=5_000), Limits(cost=0.02)])
def test_a_budget_is_never_exceeded_and_work_is_kept(opened: Callable[..., Store], limits: Limits) -> None:
    settings = {"price_prompt": 1.0, "price_completion": 20.0, "concurrency": 7}
    with serving(Behaviour(faults={"error": 0.1})) as (url, server):
        store = opened(limits)
        got: list[Reply] = []
        with endpoint(url, store, **settings) as model, pytest.raises(StageFailed, match="the budget does not bear another call"):
            got += [reply for _, reply in model.stream(requests(2000))]
        tokens, cost = store.total()
        assert limits.allow(tokens, cost)
        asked = len(server.bodies)
        assert asked > 50, "most of the budget is used"
        store = opened(Limits())
        with endpoint(url, store, **settings) as model:
            assert shown(complete(model, requests(2000))) == expected(2000)


def test_a_call_is_booked_at_all_it_may_use_and_fits_up_to_the_limit(opened: Callable[..., Store]) -> None:
    store = opened(Limits(tokens=110))
    assert store.reserve("m", b"a", Usage(prompt_tokens=10, completion_tokens=50)) is not None
    assert store.reserve("m", b"b", Usage(prompt_tokens=10, completion_tokens=41)) is None
    assert store.reserve("m", b"b", Usage(prompt_tokens=10, completion_tokens=40)) is not None
    assert store.total()[0] == 110


def test_calls_that_were_turned_away_cost_nothing(opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key, tried again and again, must not use up the budget."""
    monkeypatch.setenv("TEST_KEY", KEY)
    store = opened(Limits(tokens=20_000))
    with serving(Behaviour(key="another")) as (url, server), endpoint(url, store, key_env="TEST_KEY") as model:
        for _ in range(3):
            with pytest.raises(UsageError, match="refuses access"):
                complete(model, requests(50))
        assert server.outcomes.total() >= 3
        asked = [Request((Message(role="user", content="a"),), Sampling(reasoning_tokens=5))]
        with pytest.raises(UsageError, match="has no field for it"):
            complete(model, asked)
    assert store.total() == (0, 0.0)
    (books,) = store.books()
    assert books.unknown.tokens == 0
    assert set(books.calls) == {"turned away"}


def test_prices_are_those_of_the_recipe() -> None:
    config = EndpointConfig(url="http://h/v1", price_prompt=1.0, price_cached=0.1, price_completion=10.0)
    assert config.cost(Usage(prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=100_000)) == pytest.approx(0.6 + 0.04 + 1.0)


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_endpoint import endpoint, requests
from preceptor.models.store import Store
with open(sys.argv[2], "ab", buffering=0) as file, endpoint(sys.argv[1], Store(Path(sys.argv[2] + ".db")), concurrency=8) as model:
    done = {int(line.split()[0]) for line in open(sys.argv[2]) if line.endswith("\\n")}
    wanted = requests(300, systems=3)
    left = [number for number in range(300) if number not in done]
    for index, reply in model.stream([wanted[number] for number in left]):
        file.write(f"{left[index]} {reply.status} {reply.answer}\\n".encode())
"""


def test_killed_again_and_again_it_ends_with_the_same_rows(tmp_path: Path) -> None:
    rows, rng = tmp_path / "rows", random.Random(1)
    rows.touch()
    faults = {"busy": 0.1, "error": 0.05, "garbage": 0.02, "reset": 0.02}
    with serving(Behaviour(faults=faults, latency=(0.02, 0.05))) as (url, server):
        words = [sys.executable, "-c", _KILLED, url, str(rows), str(Path(__file__).parent)]
        kills = 0
        while True:
            process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            try:
                assert process.wait(rng.uniform(0.6, 1.2) if kills < 4 else 60) == 0
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
    lines = [line.split(" ", 2) for line in rows.read_text().splitlines()]
    assert kills, "the test must have killed it"
    assert sorted(int(number) for number, _, _ in lines) == list(range(300))
    assert all(answer == f"question {number} seed {number}" for number, status, answer in lines if status == "ok")
    assert all(status == "ok" for _, status, _ in lines)
    with contextlib.closing(Store(Path(f"{rows}.db"))) as store:
        (books,) = store.books()
    assert sum(books.calls.values()) >= server.outcomes.total(), "calls of a killed process are on the books"
    assert server.outcomes["ok"] <= 300 + 8 * kills, "only what was under way when it was killed is asked for again"


# The rest


def test_it_works_inside_a_running_loop() -> None:
    async def notebook() -> list[Reply]:
        with endpoint(url) as model:
            return complete(model, requests(5))

    with serving() as (url, _):
        assert shown(asyncio.run(notebook())) == expected(5)


def test_a_reader_that_stops_early_leaves_nothing_behind() -> None:
    with serving(Behaviour(latency=(0.01, 0.02))) as (url, server), endpoint(url, concurrency=4) as model:
        stream = model.stream(requests(100))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        asked = len(server.bodies)
        assert shown(complete(model, requests(3))) == expected(3)
    assert asked < 20


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "3"}) == 3
    assert retry_after({"retry-after": "0.5"}) == 0.5
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) == 0
    assert retry_after({}) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "is no address"),
        ({"url": "http://user:secret@host/v1"}, "use key_env"),
        ({"url": ()}, "at least one address"),
        ({"url": "http://h/v1", "price_prompt": 1.0}, "together or not at all"),
        ({"url": "http://h/v1", "concurency": 3}, "Extra inputs"),
        ({"url": "http://[::1"}, "is no address"),
        ({"url": "http://h:99999/v1"}, "is no address"),
        ({"url": "http://h/v1", "extra": {"max_tokens": 9}}, "extra may not hold 'max_tokens'"),
        ({"url": "http://h/v1", "extra": {"n": 4}}, "extra may not hold 'n'"),
        ({"url": "http://h/v1", "extra": {"messages": []}}, "extra may not hold 'messages'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EndpointConfig.model_validate(settings)


def test_a_reasoning_budget_needs_a_field_of_the_server() -> None:
    asked = [Request((Message(role="user", content="a"),), Sampling(reasoning_tokens=5))]
    with serving() as (url, server):
        with endpoint(url) as model, pytest.raises(UsageError, match="has no field for it"):
            complete(model, asked)
        with endpoint(url, budget_field="thinking_budget") as model:
            complete(model, asked)
    assert server.bodies[0]["thinking_budget"] == 5


def test_a_thousand_calls_are_under_way_at_once(tmp_path: Path) -> None:
    """Looking for a free connection among a thousand, for every call, took 35 CPU seconds for 2,000 calls; in pools it takes a fifth."""
    prompts = [Request((Message(role="user", content=f"prompt {number}"),), Sampling()) for number in range(2000)]
    with serving(Behaviour(latency=(0.5, 1.0))) as (url, server):
        server.remember = False
        with Endpoint("m", EndpointConfig(url=url, concurrency=1000), store=Store(tmp_path / "replies.db")) as endpoint:
            found = dict(endpoint.stream(prompts))
    assert len(found) == 2000
    assert {reply.status for reply in found.values()} == {"ok"}
    assert all(f"prompt {number} " in reply.answer for number, reply in found.items())
    assert 300 < server.most <= 1000
    assert server.outcomes == {"ok": 2000}


def test_too_few_open_files_are_raised_or_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from preceptor.models import limits

    given: list[tuple[int, int]] = []
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (256, 4096))
    monkeypatch.setattr(limits.resource, "setrlimit", lambda which, both: given.append(both))
    limits.allow_files(1000)
    assert given == [(1000 + limits.SPARE_FILES, 4096)]
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (256, 512))
    with pytest.raises(UsageError, match=r"1000 calls at once need 1256 open files, and this process may have 512 .*concurrency = 256"):
        limits.allow_files(1000)
