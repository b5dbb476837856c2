"""The trace store, on SQLite and on a real PostgreSQL server: what is added is there, together, masked, and gone when it is erased; and what becomes of
traces while the store is down."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import until
from stores import SECRET, Postgres, count, trace
from talking import CANARY, ScriptedBackend, WordMonitor, running, written

from preceptor import cli
from preceptor.errors import DataError, UsageError
from preceptor.gateway import database, keeping, retention, start
from preceptor.gateway.database import Database, StoreFailed
from preceptor.gateway.keeping import Keeper
from preceptor.gateway.metrics import Metrics
from preceptor.gateway.settings import TracesConfig
from preceptor.gateway.traces import Nowhere
from preceptor.gateway.upstream import Done
from preceptor.models.store import write_ahead
from preceptor.records import Evidence, Flag, Message


def config(tmp_path: Path, **more: Any) -> TracesConfig:
    return TracesConfig(**{"spill": tmp_path / "spill.jsonl", **more})


def settled(keeper: Keeper, *traces: Any) -> None:
    for future in [keeper.add(one) for one in traces]:
        future.result(20)


def test_what_is_added_is_there_and_a_second_time_takes_its_place(store: Database, tmp_path: Path) -> None:
    keeper = Keeper(store, config(tmp_path))
    settled(keeper, trace("req_1"), trace("req_2", kinds=("omission",)))
    settled(keeper, trace("req_1", kinds=("invented_policy", "omission"), answer="a\0b", summary="short"))
    keeper.close()
    with_flags = store.open()
    rows = with_flags.run("SELECT request_id, flagged, answer, summary FROM traces ORDER BY request_id")
    assert rows == [("req_1", 2, "a\N{REPLACEMENT CHARACTER}b", "short"), ("req_2", 1, "Our rules forbid it <b>always</b>.", None)]
    assert with_flags.run("SELECT number, kind FROM flags WHERE request_id = 'req_1' ORDER BY number") == [
        (0, "invented_policy"),
        (1, "omission"),
    ]
    assert [SECRET in str(text) for (text,) in with_flags.run("SELECT reasoning FROM reasonings")] == [True, True]
    assert not any(SECRET in str(row) for row in with_flags.run("SELECT * FROM traces"))
    with_flags.close()


def test_traces_that_wait_share_a_commit(store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = keeping.write
    monkeypatch.setattr(
        keeping, "write", lambda connection, traces: (sizes.append(len(traces)), time.sleep(0.02), plain(connection, traces))
    )
    keeper = Keeper(store, config(tmp_path))
    settled(keeper, *(trace(f"req_{n}") for n in range(400)))
    keeper.close()
    assert sum(sizes) == 400
    assert len(sizes) < 10


def test_a_store_of_another_version_or_none_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trace store here"):
        database.at(str(tmp_path / "none.db")).open()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as plain:
        plain.execute("CREATE TABLE store (name TEXT PRIMARY KEY, value TEXT)")
        plain.execute("INSERT INTO store VALUES ('schema', '99')")
    with pytest.raises(DataError, match="of version 99"):
        database.at(str(other)).open(make=True)
    for text in ("x", "no database at all, but long enough to be read as one" * 30):
        (tmp_path / "text.db").write_text(text)
        with pytest.raises(DataError, match="this is no trace store"):
            database.at(str(tmp_path / "text.db")).open(make=True)
        assert (tmp_path / "text.db").read_text() == text
    (tmp_path / "spoilt.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(UsageError, match="cannot open the trace store: SQLite: SQLITE_"):
        database.at(str(tmp_path / "spoilt.db")).open()
    with pytest.raises(UsageError, match="'mysql' is not known"):
        database.at("mysql://x/y")
    assert Database("postgresql://me:hunter2@host/db").name == "postgresql://me:...@host/db"
    assert "hunter2" not in Database("postgresql://me@host/db?password=hunter2").name
    with pytest.raises(UsageError, match="cannot open") as refused:
        database.at("postgresql://me:hunter2@127.0.0.1:1/db").open()
    assert "hunter2" not in str(refused.value)


def test_several_servers_make_the_tables_at_the_same_time(store: Database) -> None:
    with ThreadPoolExecutor(8) as threads:
        for connection in threads.map(lambda _: store.open(make=True), range(8)):
            connection.close()


def test_many_may_begin_a_file_at_once(tmp_path: Path) -> None:
    """Without patience of its own, one in ten of these rounds ends with a locked database."""

    def begun(path: Path) -> str:
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as file:
            write_ahead(file, 5)
            return file.execute("pragma journal_mode").fetchone()[0]

    with ThreadPoolExecutor(8) as threads:
        for number in range(50):
            assert set(threads.map(begun, [tmp_path / f"{number}.db"] * 8)) == {"wal"}


def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path))
    settled(keeper, trace())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    keeper.close()


def test_personal_data_is_masked_before_it_is_written(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer", reason="needs presidio")
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, redact="mask"))
    mail = "ada.lovelace@example-mail.com"
    quoted = Evidence(where="answer", text="lovelace@example-mail.com for")
    sent = trace(
        answer=f"Write to {mail} for help.", reasoning=f"Their mail is {mail}.", messages=(Message(role="user", content=f"I am {mail}"),),
        summary=f"Gave {mail}.", flags=(Flag(kind="omission", confidence=1, evidence=(quoted,), reason=f"names {mail}"),),
    )  # fmt: skip
    settled(keeper, sent)
    keeper.close()
    assert not any(b"lovelace" in path.read_bytes() for path in tmp_path.iterdir())
    connection = database.at(str(tmp_path / "traces.db")).open()
    assert connection.run("SELECT answer FROM traces") == [("Write to [EMAIL] for help.",)]
    assert json.loads(connection.run("SELECT evidence FROM flags")[0][0])[0]["text"] == "[EMAIL] for"
    connection.close()


def test_what_cannot_be_masked_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("presidio_analyzer", reason="needs presidio")
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, redact="mask"))
    monkeypatch.setattr(keeper._redactor, "trace", lambda one: 1 / 0)
    future = keeper.add(trace())
    with pytest.raises(StoreFailed, match=r"masking failed \(ZeroDivisionError"):
        future.result(20)
    keeper.close()
    connection = keeper.database.open()
    assert count(connection) == 0
    connection.close()


def test_a_trace_the_store_refuses_does_not_take_others_with_it(tmp_path: Path) -> None:
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path))
    other = sqlite3.connect(keeper.database.path)
    other.execute("CREATE TRIGGER refuse BEFORE INSERT ON traces WHEN NEW.request_id = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
    other.commit()
    futures = [keeper.add(trace(name)) for name in ("a", "bad", "b")]
    outcomes = [type(future.exception(20)).__name__ for future in futures]
    assert outcomes == ["NoneType", "StoreFailed", "NoneType"]
    keeper.close()
    other.close()


# Down


def test_while_the_store_is_down_a_file_takes_the_traces_and_gives_them_back(postgres: Postgres, tmp_path: Path) -> None:
    store = database.at(postgres.database())
    counted: list[str] = []
    keeper = Keeper(store, config(tmp_path), lambda: counted.append("spilled"))
    settled(keeper, trace("before"))
    postgres.stop("immediate")
    try:
        settled(keeper, trace("during", kinds=("omission",)), trace("during_2"))
        assert counted == ["spilled", "spilled"]
        assert keeper.down
        assert (tmp_path / "spill.jsonl").stat().st_mode & 0o777 == 0o600
        started = time.monotonic()
        settled(keeper, trace("during_3"))
        assert time.monotonic() - started < 1, "a store that is known to be down is not waited for"
    finally:
        postgres.start()
    until(lambda: not keeper.down and not keeper.spill.waits, 20)
    settled(keeper, trace("after"))
    keeper.close()
    connection = store.open()
    names = [name for (name,) in connection.run("SELECT request_id FROM traces ORDER BY request_id")]
    assert names == ["after", "before", "during", "during_2", "during_3"]
    assert count(connection, "flags") == 1
    connection.close()


@pytest.mark.parametrize("room", [0, 3000])
def test_the_file_has_an_end_and_may_not_be_wanted(tmp_path: Path, room: int) -> None:
    counted: list[str] = []
    store = database.at(str(tmp_path / "traces.db"))
    keeper = Keeper(store, config(tmp_path, spill_bytes=room), lambda: counted.append("spilled"))
    held = sqlite3.connect(store.path)
    held.execute("DROP TABLE traces")  # a store that fails, and goes on failing
    held.commit()
    failures = [type(keeper.add(trace(f"r{n}")).exception(30)) for n in range(9)]
    assert StoreFailed in failures
    assert failures.count(type(None)) == counted.count("spilled") == (0 if room == 0 else 3000 // len(trace().model_dump_json()))
    keeper.close()
    held.close()


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    whole = trace("whole").model_dump_json()
    (tmp_path / "spill.jsonl").write_text(whole + "\n" + whole[: len(whole) // 2])
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path))
    until(lambda: not keeper.spill.waits, 20)
    assert keeper.spill.unreadable == 1
    keeper.close()
    connection = keeper.database.open()
    assert count(connection) == 1
    connection.close()


def test_one_trace_in_the_file_that_the_store_refuses_does_not_stop_the_rest(tmp_path: Path) -> None:
    (tmp_path / "spill.jsonl").write_text("".join(trace(name).model_dump_json() + "\n" for name in ("a", "bad", "b")))
    store = database.at(str(tmp_path / "traces.db"))
    connection = store.open(make=True)
    connection.run("CREATE TRIGGER refuse BEFORE INSERT ON traces WHEN NEW.request_id = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
    keeper = Keeper(store, config(tmp_path))
    settled(keeper, trace("c"))
    keeper.close()
    assert not keeper.spill.waits
    assert connection.run("SELECT request_id FROM traces ORDER BY request_id") == [("a",), ("b",), ("c",)]
    connection.close()


def test_a_store_of_another_version_that_comes_in_its_place_is_a_store_that_is_down(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    keeper = Keeper(database.at(str(path)), config(tmp_path))
    settled(keeper, trace("before"))
    for file in list(tmp_path.glob("traces.db*")):
        file.rename(tmp_path / f"old-{file.name}")
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE store (name TEXT PRIMARY KEY, value TEXT)")
        other.execute("INSERT INTO store VALUES ('schema', '99')")
    settled(keeper, trace("after"))
    assert (keeper.down, keeper.spill.waits) == (True, True)
    keeper.close()


def test_a_queue_that_is_full_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    plain = keeping.write
    monkeypatch.setattr(keeping, "write", lambda connection, traces: (gate.wait(20), plain(connection, traces)))
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, queue=2, durable=False))
    with pytest.raises(StoreFailed, match="too many traces wait"):
        [keeper.add(trace(f"r{n}")) for n in range(9)]
    gate.set()
    keeper.close()


def test_a_file_that_was_taken_away_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    keeper = Keeper(database.at(str(path)), config(tmp_path))
    settled(keeper, trace("before"))
    for file in list(tmp_path.glob("traces.db*")):
        file.rename(tmp_path / f"old-{file.name}")
    settled(keeper, trace("after"))
    keeper.close()
    connection = database.at(str(path)).open()
    assert connection.run("SELECT request_id FROM traces") == [("after",)]
    connection.close()


# Retention and erasure


def test_the_old_go_and_then_the_oldest(store: Database, tmp_path: Path) -> None:
    keeper = Keeper(store, config(tmp_path))
    now = time.time()
    settled(keeper, *(trace(f"req_{n:04d}", time=now - 86_400 * n, kinds=("omission",)) for n in range(1200)))
    keeper.close()
    connection = store.open()
    one = retention.size_of(connection) // 1200
    assert retention.prune(connection, days=700.5).traces == 499
    assert retention.prune(connection, size=100 * one).traces == pytest.approx(601, abs=5)
    left = [name for (name,) in connection.run("SELECT request_id FROM traces ORDER BY request_id")]
    assert left == [f"req_{n:04d}" for n in range(len(left))], "the newest stay"
    assert count(connection, "flags") == count(connection, "reasonings") == len(left) == pytest.approx(100, abs=5)
    assert retention.prune(connection, days=700.5, size=100 * one).traces == 0
    connection.close()


def test_the_server_prunes_by_itself(tmp_path: Path) -> None:
    old = trace("old", time=time.time() - 86_400 * 40)
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, keep_days=30, sweep_seconds=0.2))
    settled(keeper, old, trace("new", time=time.time()))
    connection = keeper.database.open()
    until(lambda: connection.run("SELECT request_id FROM traces") == [("new",)], 20)
    keeper.close()
    connection.close()


def test_a_sweep_that_the_store_refuses_is_said_and_the_store_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreFailed("SQLite: SQLITE_CONSTRAINT", down=False)

    monkeypatch.setattr(keeping.retention, "prune", refuse)
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, keep_days=30, sweep_seconds=0.2))
    until(lambda: any(row.msg == "tending failed" for row in caplog.records), 20)
    settled(keeper, trace("new"))
    assert not keeper.down
    keeper.close()


def test_what_was_erased_is_gone_from_the_file_and_does_not_come_back(store: Database, tmp_path: Path) -> None:
    keeper = Keeper(store, config(tmp_path))
    settled(keeper, trace("mine"), trace("other", key="k2"), trace("old", key="k2"), trace("kept", key="k3"))
    connection = store.open()
    assert retention.erase_requests(connection, ["mine", "never_there"]).traces == 1
    assert retention.erase_key(connection, "k2").traces == 2
    settled(keeper, trace("mine", kinds=("omission",)), trace("never_there"), trace("other", key="k2", kinds=("omission",)))
    assert connection.run("SELECT request_id FROM traces") == [("kept",)]
    assert connection.run("SELECT request_id FROM flags") == []
    assert connection.run("SELECT request_id FROM reasonings") == [("kept",)]
    settled(keeper, trace("again", key="k2", time=time.time() + 1))
    assert count(connection) == 2, "a key that goes on being used is kept from then on"
    connection.close()
    keeper.close()
    if not store.postgres:
        assert not any(b"Question mine" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_reader_in_the_way_of_erasure_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.2)
    path = tmp_path / "traces.db"
    connection = database.at(str(path)).open(make=True)
    keeping.write(connection, [trace("mine")])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM traces").fetchall()
    words = ["traces", "erase", "--request", "mine", "--store", str(path)]
    assert cli.main(words) == 2
    assert "1 traces erased" in (said := capsys.readouterr()).out
    assert "still stands in the log" in said.err
    assert b"Question mine" in path.with_name("traces.db-wal").read_bytes()
    reader.close()
    assert cli.main(words) == 0
    assert not any(b"Question mine" in file.read_bytes() for file in tmp_path.iterdir())
    connection.close()


def test_what_grew_too_old_is_gone_from_the_files_while_the_server_goes_on(tmp_path: Path) -> None:
    old = trace("old", time=time.time() - 86_400 * 40)
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, keep_days=30, sweep_seconds=0.2))
    settled(keeper, old, trace("new", time=time.time()))
    until(lambda: not any(b"Question old" in file.read_bytes() for file in tmp_path.iterdir()), 20)
    assert any(b"Question new" in file.read_bytes() for file in tmp_path.iterdir())
    keeper.close()


# In the server


def test_an_answered_request_is_in_the_store_and_the_monitors_flags_come_to_it(store: Database, tmp_path: Path) -> None:
    keeper = Keeper(store, config(tmp_path))
    with running(ScriptedBackend(lambda asked: written("It is forbidden.")), tmp_path, traces=keeper, monitor=WordMonitor()) as server:
        for stream in (False, True):
            assert server.post(stream=stream).status_code == 200
        connection = store.open()
        until(lambda: count(connection, "flags") == 2, 20)
        rows = connection.run("SELECT answer, flagged, timings FROM traces")
        assert [row[:2] for row in rows] == [("It is forbidden.", 1)] * 2
        assert json.loads(rows[0][2])["monitor_identity"] == "wordmonitor"
        assert CANARY in connection.run("SELECT reasoning FROM reasonings")[0][0]
        until(lambda: 'preceptor_gateway_traces_total{outcome="kept"} 4.0' in server.metrics())
        connection.close()
    keeper.close()


def test_a_reply_that_is_not_shown_is_kept_and_counted(tmp_path: Path) -> None:
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path))
    with running(ScriptedBackend(lambda asked: [Done("malformed", "a second block")]), tmp_path, traces=keeper) as server:
        assert server.post().status_code == 502
        until(lambda: 'traces_total{outcome="kept"} 1.0' in server.metrics())
    keeper.close()
    connection = keeper.database.open()
    assert connection.run("SELECT status, detail FROM traces") == [("malformed", "a second block")]
    connection.close()


def test_where_no_answer_waits_what_became_of_its_trace_is_counted_all_the_same(tmp_path: Path) -> None:
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, durable=False, spill_bytes=0))
    with running(ScriptedBackend(), tmp_path, traces=keeper, traces_wait=False) as server:
        assert server.post().status_code == 200
        until(lambda: 'traces_total{outcome="kept"} 1.0' in server.metrics())
        held = sqlite3.connect(keeper.database.path)
        held.execute("ALTER TABLE traces RENAME TO gone")
        held.close()
        assert server.post().status_code == 200
        until(lambda: 'traces_total{outcome="lost"} 1.0' in server.metrics())
    keeper.close()


@pytest.mark.parametrize(("policy", "status"), [("open", 200), ("closed", 503)])
def test_a_store_that_is_down_is_served_without_or_not(tmp_path: Path, policy: str, status: int) -> None:
    keeper = Keeper(database.at(str(tmp_path / "traces.db")), config(tmp_path, spill_bytes=0))
    with running(ScriptedBackend(), tmp_path, traces=keeper, traces_on_failure=policy) as server:
        assert server.post().status_code == 200
        held = sqlite3.connect(keeper.database.path)
        held.execute("ALTER TABLE traces RENAME TO gone")
        held.commit()
        replies = [server.post(stream=stream) for stream in (False, True, False)]
        assert [replies[0].status_code, replies[2].status_code] == [status, status]
        assert all(("traces_unavailable" in reply.text) == (policy == "closed") for reply in replies)
        lost = 'preceptor_gateway_traces_total{outcome="lost"}'
        assert lost in server.metrics()
        assert [row["reason"] for row in server.log.rows("trace store down")] == ["SQLite: SQLITE_ERROR"] * len(
            server.log.rows("trace store down")
        )
        assert server.log.rows("trace store down")
        assert not any(CANARY in line or SECRET in line for line in server.log.text)
        held.execute("ALTER TABLE gone RENAME TO traces")
        held.commit()
        held.close()
        until(lambda: server.post().status_code == 200 and not keeper.down, 5)
    keeper.close()


_SERVER = """
import sys, threading
sys.path[:0] = [{tests!r}, {source!r}]
from pathlib import Path
from preceptor.gateway import database
from preceptor.gateway.keeping import Keeper
from preceptor.gateway.metrics import Metrics
from preceptor.gateway.settings import TracesConfig
from preceptor.gateway.traces import Nowhere
from preceptor.gateway.upstream import Done
from talking import ScriptedBackend, running, written
keeper = Keeper(database.at({url!r}), TracesConfig(spill=Path({spill!r})))
with running(ScriptedBackend(lambda asked: written("answer " * 50)), traces=keeper) as server:
    print(server.url, flush=True)
    threading.Event().wait()
"""


def _ask_until_it_dies(url: str, number: int, answered: list[str]) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "stream": bool(number % 2)}
    with httpx.Client(timeout=30) as client:
        try:
            while True:
                with client.stream("POST", f"{url}/chat/completions", json=body) as reply:
                    text = reply.read().decode()
                    if reply.status_code == 200 and (not body["stream"] or "data: [DONE]" in text):
                        answered.append(reply.headers["x-request-id"])
        except httpx.HTTPError:
            return


def test_kill_9_under_load_loses_no_request_that_was_answered(store: Database, tmp_path: Path) -> None:
    here = Path(__file__).parent
    source = _SERVER.format(tests=str(here), source=str(here.parent / "src"), url=store.url, spill=str(tmp_path / "spill.jsonl"))
    answered: list[str] = []
    for _ in range(2):  # and it starts again on what it left
        process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        threads = [threading.Thread(target=_ask_until_it_dies, args=(url, n, answered)) for n in range(16)]
        for thread in threads:
            thread.start()
        before = len(answered)
        until(lambda: len(answered) - before > 100, 60)  # noqa: B023
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        for thread in threads:
            thread.join(30)
        process.stdout.close()
    connection = store.open()
    kept = {name for (name,) in connection.run("SELECT request_id FROM traces")}
    assert len(answered) > 200
    assert set(answered) <= kept, f"{len(set(answered) - kept)} of {len(answered)} answered requests are not in the store"
    if not store.postgres:
        assert connection.run("PRAGMA integrity_check") == [("ok",)]
    connection.close()


def test_the_command_binds_a_store_and_its_state_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    assert isinstance(start.traces_of(TracesConfig(store=""), metrics), Nowhere)
    monkeypatch.setenv("TRACES", str(tmp_path / "traces.db"))
    keeper = start.traces_of(TracesConfig(store_env="TRACES", durable=False), metrics)
    assert isinstance(keeper, Keeper)
    keeper.add(trace())
    keeper.flush()
    page = metrics.text().decode()
    assert "preceptor_gateway_traces_down 0.0" in page
    assert "preceptor_gateway_traces_waiting 0.0" in page
    keeper.close()
    monkeypatch.delenv("TRACES")
    with pytest.raises(UsageError, match="TRACES is empty"):
        start.traces_of(TracesConfig(store_env="TRACES"), Metrics())
