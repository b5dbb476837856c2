"""Several monitors in the path: every flag of any counts, one that fails has seen nothing by its name, one that hangs holds up no other."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_openai import Behaviour, serving
from served import until
from talking import ANSWER, CANARY, Running, ScriptedBackend, WordMonitor, running, written

from preceptor.gateway import watching
from preceptor.gateway.settings import WatchConfig
from preceptor.models.endpoint import Endpoint, EndpointConfig
from preceptor.models.scripted import ScriptedModel, fail
from preceptor.monitor.asking import AskConfig, ModelMonitor
from preceptor.records import content_id
from preceptor.wording import Wording

BLOCKING = ("invented_policy", "omission")


def two() -> tuple[WordMonitor, WordMonitor]:
    """One flags `France` as an omission, one flags `forbidden` as an invented policy."""
    one, other = WordMonitor("France", "omission"), WordMonitor("forbidden", "invented_policy")
    other.identity = "other"
    return one, other


def last(served: Running) -> Any:
    until(lambda: served.traces.added and "monitor" in served.traces.added[-1].timings)
    return served.traces.added[-1]


def test_flags_of_all_are_kept(tmp_path: Path) -> None:
    script = ScriptedBackend(lambda asked: written(reasoning="a forbidden thought"))
    first, second = two()
    with running(script, tmp_path, monitors={"one": first, "other": second}) as served:
        assert served.post().json()["choices"][0]["message"]["content"] == ANSWER
        trace = last(served)
        assert {flag.kind for flag in trace.flags} == {"omission", "invented_policy"}
        assert (trace.timings["monitor"], trace.timings["monitor_identity"]) == (
            "flagged",
            content_id({"monitors": ["wordmonitor", "other"]}),
        )
        assert 'preceptor_gateway_monitor_total{outcome="flagged"} 2.0' in served.metrics()


@pytest.mark.parametrize("reasoning", ["a forbidden thought", "nothing"])
def test_a_flag_of_either_blocks(tmp_path: Path, reasoning: str) -> None:
    first, second = two()
    watch = WatchConfig(blocking=("invented_policy",))
    with running(
        ScriptedBackend(lambda asked: written(reasoning=reasoning)), tmp_path, monitors={"one": first, "other": second}, watch=watch
    ) as served:
        finish = served.post().json()["choices"][0]["finish_reason"]
        assert finish == ("content_filter" if reasoning.startswith("a forb") else "stop")
        assert {flag.kind for flag in last(served).flags} >= {"omission"}, "what does not block is kept as well"


@pytest.mark.parametrize(("policy", "how"), [("open", "stop"), ("closed", "content_filter")])
def test_one_that_fails_is_unobserved_by_its_name_and_the_other_still_counts(tmp_path: Path, policy: Any, how: str) -> None:
    first, second = WordMonitor("nowhere", "omission"), WordMonitor("forbidden")
    second.broken = True
    watch = WatchConfig(blocking=BLOCKING, on_failure=policy)
    with running(folder=tmp_path, monitors={"one": first, "the other": second}, watch=watch) as served:
        assert served.post().json()["choices"][0]["finish_reason"] == how
        assert last(served).timings["monitor"] == "unobserved: transport: the monitor failed (RuntimeError) by the other"
        assert [row["monitor"] for row in served.log.rows("unobserved")] == ["the other"]
        assert served.gateway.house.down == {"monitor": "down"}
        first.word = "France"
        assert served.post().json()["choices"][0]["finish_reason"] == "content_filter"
        assert [flag.kind for flag in last(served).flags] == ["omission"]
        second.broken, first.word = False, "nowhere"
        assert served.post().json()["choices"][0]["finish_reason"] == "stop"
        assert served.gateway.house.down == {}
        assert CANARY not in "\n".join(served.log.text)


def test_one_that_cannot_read_says_why_before_anybody_asks_and_afterwards_says_nothing_that_may_quote(tmp_path: Path) -> None:
    model = ScriptedModel(lambda request: fail("900 tokens do not fit into 512"))
    monitors = {"one": WordMonitor("nowhere"), "the other": ModelMonitor(model, Wording("full"), None, AskConfig())}
    with running(folder=tmp_path, monitors=monitors) as served:
        served.gateway.house.watch.try_out()
        (row,) = served.log.rows("monitor cannot read")
        assert (row["monitor"], row["reason"], row["detail"]) == ("the other", "transport", "900 tokens do not fit into 512")
        assert served.gateway.house.down == {"monitor": "down"}
        served.post()
        assert last(served).timings["monitor"] == "unobserved: transport by the other"
        assert [row["detail"] for row in served.log.rows("unobserved")] == [""]


def test_a_wrong_key_of_a_monitors_server_is_said_in_full_at_the_first_reading_alone(tmp_path: Path) -> None:
    with (
        serving(Behaviour(fixed=(401, {"error": {"message": "no such key"}}))) as (url, _),
        closing(Endpoint("m", EndpointConfig(url=url), reasoning="optional")) as model,
        running(folder=tmp_path, monitors={"m": ModelMonitor(model, Wording("full"), None, AskConfig())}) as served,
    ):
        served.gateway.house.watch.try_out()
        (row,) = served.log.rows("monitor cannot read")
        assert "refuses access: HTTP 401: no such key" in row["detail"]
        served.post()
        assert last(served).timings["monitor"] == "unobserved: transport: the monitor failed (UsageError)"


def test_one_that_hangs_at_its_first_reading_is_named(tmp_path: Path) -> None:
    first, second = two()
    first.gate.clear()
    with running(folder=tmp_path, monitors={"one": first, "other": second}, watch=WatchConfig(seconds=0.2)) as served:
        served.gateway.house.watch.try_out()
        assert [(row["monitor"], row["detail"]) for row in served.log.rows("monitor cannot read")] == [("one", "not read within 0.2 s")]
        first.gate.set()


def test_one_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    first, second = two()
    first.gate.clear()
    watch = WatchConfig(blocking=BLOCKING, seconds=0.3)
    with running(folder=tmp_path, monitors={"one": first, "other": second}, watch=watch) as served:
        started = time.monotonic()
        assert [served.post().json()["choices"][0]["finish_reason"] for _ in range(3)] == ["stop"] * 3
        assert time.monotonic() - started < 5
        assert len(second.seen) == 3
        first.gate.set()


def test_what_waits_for_a_monitor_has_an_end_in_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_QUEUE_BYTES", 5000)
    monitor = WordMonitor()
    monitor.gate.clear()
    with running(folder=tmp_path, monitor=monitor, watch=WatchConfig(batch=1)) as served:
        for _ in range(4):
            served.post(messages=[{"role": "user", "content": "x" * 3000}])
            assert monitor.began.wait(10), "the first is read before the second comes"
        until(lambda: len(served.log.rows("unobserved")) == 2)  # one is read, one waits
        assert {row["detail"] for row in served.log.rows("unobserved")} == {"the monitor's queue is full"}
        monitor.gate.set()
        until(lambda: served.gateway.house.watch.unread == 0)
        served.post()
        until(lambda: len(monitor.seen) == 3)
