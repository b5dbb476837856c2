"""Run directories: the same bytes whether killed or not, no row lost or doubled, one process at a time."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor import runs
from preceptor.errors import DataError, RunLocked, StageFailed, StorageError, boundary
from preceptor.journal import Journal
from preceptor.records import Prompt, content_id
from preceptor.runs import ARTEFACTS, NON_IDENTITY, STAGES, Ledger, Run, Step, fingerprint, read_manifest, read_records, read_rows

OUT = "03_completions.jsonl"
KEYS = [f"k{number}" for number in range(60)]


def begin(run: Run, **changes: Any) -> Step:
    arguments: dict[str, Any] = {"config": {"samples": 1}, "inputs": [], "identity": {"model": "m"}, "outputs": [OUT]}
    return run.step("generate", **(arguments | changes))


def row(key: str) -> dict[str, Any]:
    return {"id": key, "text": f"row {key}, naïve"}


def complete(step: Step, keys: list[str], limit: int | None = None) -> None:
    """Append what is missing in a scrambled order, then finish (unless stopped at `limit`)."""
    with step.journal(OUT, key="id") as journal:
        missing = [key for key in keys if key not in journal.keys]
        random.Random(len(missing)).shuffle(missing)
        for key in missing[:limit]:
            journal.append(row(key))
    if limit is None:
        step.finish(order=keys, ledger=Ledger(len(keys), len(keys)))


def expected(keys: list[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, Run.open(folder) as run:
        complete(begin(run), keys)
        return run.path(OUT).read_bytes()


def test_stages_and_artefacts_are_one_list() -> None:
    assert list(ARTEFACTS) == list(STAGES)
    numbers = [int(name[:2]) for stage in STAGES for name in ARTEFACTS[stage]]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, 11))


def test_finish_sorts_and_enters_the_manifest(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        complete(begin(run, seed=7, device="cpu"), KEYS)
    assert [r["id"] for _, r in read_rows(tmp_path / OUT)] == KEYS
    entry = read_manifest(tmp_path)["steps"]["generate"]
    assert entry["seed"] == 7
    assert entry["device"] == "cpu"
    assert entry["config"] == {"samples": 1}
    assert entry["outputs"] == {OUT: runs.hash_path(tmp_path / OUT)}
    assert entry["ledger"]["rows_in"] == 60
    assert entry["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert entry["started"] <= entry["ended"]
    assert entry["resumed"] == 0
    assert not list((tmp_path / "in_progress").iterdir())


def test_a_finished_step_is_found_done_with_the_same_summary(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        step = begin(run)
        with step.journal(OUT, key="id") as journal:
            journal.append(row("a"))
        ledger = Ledger(3, 1, rejected=Counter(low=1), failed={"model_error": 1}, tokens_out=5)
        first = step.finish(order=["a", "b", "c"], ledger=ledger, notes={"mean": 0.5})
        assert step.done
    with Run.open(tmp_path) as run:
        again = begin(run)
        assert again.done
        assert again.summary == first
        assert again.summary.ledger.rejected == {"low": 1}
        assert again.summary.notes == {"mean": 0.5}
    assert not (tmp_path / "superseded").exists()


def test_an_altered_output_is_not_done_and_is_kept(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        complete(begin(run), KEYS)
        run.path(OUT).write_bytes(b'{"id":"edited"}\n')
        step = begin(run)
        assert not step.done
        complete(step, KEYS)
    assert (tmp_path / OUT).read_bytes() == expected(KEYS)
    (kept,) = (tmp_path / "superseded").glob(f"*/{OUT}")
    assert b"edited" in kept.read_bytes()


def test_another_fingerprint_supersedes_outputs_and_half_done_work(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        complete(begin(run), KEYS)
        old = run.path(OUT).read_bytes()
        changed = begin(run, config={"samples": 2})
        assert not changed.done
        assert not run.path(OUT).exists()
        assert "generate" not in read_manifest(tmp_path)["steps"], "the manifest names no artefact that is gone"
        complete(changed, KEYS, limit=5)
        with begin(run, config={"samples": 2}).journal(OUT, key="id") as journal:
            assert len(journal) == 5
        third = begin(run, config={"samples": 3})
        with third.journal(OUT, key="id") as journal:
            assert journal.keys == set()
    folders = sorted((tmp_path / "superseded").iterdir())
    assert [folder.name[:13] for folder in folders] == ["0001-generate", "0002-generate"]
    assert (folders[0] / OUT).read_bytes() == old
    assert len((folders[1] / "in_progress/generate/journals" / OUT).read_bytes().splitlines()) == 5


def test_what_was_superseded_stays_when_somebody_tidies_up(tmp_path: Path) -> None:
    """A number that is taken must not be given again: two rows of the same fingerprint would go to one place."""
    with Run.open(tmp_path) as run:
        for text in (b"first", b"second", b"third"):
            run.write(OUT, text)
            run.supersede("generate", "mark", [run.path(OUT)])
            if text == b"second":
                (tmp_path / "superseded" / "0001-generate-mark" / OUT).unlink()
                (tmp_path / "superseded" / "0001-generate-mark").rmdir()
    kept = sorted((tmp_path / "superseded").glob(f"*/{OUT}"))
    assert [path.read_bytes() for path in kept] == [b"second", b"third"]


WORKER = """
import sys, time
sys.path[:0] = [{src!r}, {tests!r}]
import test_runs
from preceptor.runs import Run
with Run.open({root!r}) as run:
    step = test_runs.begin(run)
    with step.journal(test_runs.OUT, key="id") as journal:
        for key in reversed(test_runs.KEYS):
            if key in journal.keys:
                continue
            journal.append(test_runs.row(key))
            print(key, flush=True)
            time.sleep(0.002)
"""


def spawn(root: Path) -> subprocess.Popen[str]:
    code = WORKER.format(src=str(Path(runs.__file__).parents[1]), tests=str(Path(__file__).parent), root=str(root))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_kill_9_in_mid_journal_then_resume_gives_the_same_bytes(tmp_path: Path) -> None:
    for stop_after in (3, 20):
        process = spawn(tmp_path)
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(stop_after)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Run.open(tmp_path) as run, begin(run).journal(OUT, key="id") as journal:
            assert set(seen) <= journal.keys, "a row that was reported written is lost"
            assert len(journal) < len(KEYS)
    with Run.open(tmp_path) as run:
        complete(begin(run), KEYS)
    assert (tmp_path / OUT).read_bytes() == expected(KEYS)
    assert read_manifest(tmp_path)["steps"]["generate"]["resumed"] == 4


def test_the_second_process_is_refused_in_one_line_naming_the_first(tmp_path: Path) -> None:
    process = spawn(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(RunLocked) as caught, Run.open(tmp_path):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    assert str(process.pid) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    with Run.open(tmp_path), pytest.raises(RunLocked, match=str(os.getpid())), Run.open(tmp_path):
        pass


@settings(max_examples=25)
@given(cut=st.integers(1, 400))
def test_cut_anywhere_the_journal_keeps_exactly_the_whole_lines(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        with Journal(path, "id", "generate") as journal:
            for key in KEYS[:10]:
                journal.append(row(key))
        whole = path.read_bytes()
        path.write_bytes(whole[:-cut])
        with Journal(path, "id", "generate") as journal:
            assert len(journal) == whole[:-cut].count(b"\n")
            for key in KEYS[:10]:
                journal.append(row(key))
        assert path.read_bytes() == whole


def test_a_key_is_never_doubled(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        step = begin(run)
        with step.journal(OUT, key=lambda r: (r["id"], 0)) as journal:
            assert journal.append(row("a"))
            assert not journal.append({"id": "a", "text": "another"})
        step.finish(order=[("a", 0), ("a", 0)], ledger=Ledger(1, 1))
    assert [r["text"] for _, r in read_rows(tmp_path / OUT)] == ["row a, naïve"]


def test_a_damaged_line_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        step = begin(run)
        complete(step, KEYS, limit=3)
        journal = tmp_path / "in_progress/generate/journals" / OUT
        journal.write_bytes(b"garbage\n" + journal.read_bytes())
        with pytest.raises(DataError, match=rf"{OUT}:1: not a JSON object"):
            begin(run).journal(OUT, key="id").__enter__()


def test_the_ledger_must_balance(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        step = begin(run)
        complete(step, KEYS, limit=3)
        with pytest.raises(StageFailed, match="60 in, 3 out, 1 rejected, 2 failed"):
            step.finish(order=KEYS, ledger=Ledger(60, 3, rejected={"low": 1}, failed={"transport": 2}))
        assert not run.path(OUT).exists()


def test_rows_nobody_asked_for_and_outputs_nobody_wrote_stop_the_step(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        step = begin(run, outputs=[OUT, "05_dropped.jsonl"])
        complete(step, KEYS, limit=3)
        with pytest.raises(StageFailed, match="not asked for"):
            step.finish(order=["other"], ledger=Ledger(0, 0))
        with pytest.raises(StageFailed, match="05_dropped"):
            step.finish(order=KEYS, ledger=Ledger(0, 0))


def test_directories_appear_whole_and_arms_are_steps_of_their_own(tmp_path: Path) -> None:
    def train(run: Run, arm: str) -> Step:
        return run.step(f"sft/{arm}", config={"arm": arm}, inputs=[], identity={}, outputs=[f"06_sft/{arm}"])

    with Run.open(tmp_path) as run:
        step = train(run, "full")
        folder = step.directory("06_sft/full")
        (step.scratch / "checkpoint").write_text("40 steps")
        (folder / "half").write_text("x")
        assert not run.path("06_sft/full").exists()
        step = train(run, "full")
        assert (step.scratch / "checkpoint").read_text() == "40 steps"
        assert not list(step.directory("06_sft/full").iterdir()), "a half-built folder must not leak into the output"
        (step.directory("06_sft/full") / "weights").write_bytes(b"123")
        step.finish(ledger=Ledger(5, 5))
        other = train(run, "answers")
        (other.directory("06_sft/answers") / "weights").write_bytes(b"456")
        other.finish(ledger=Ledger(5, 5))
        assert train(run, "full").done
        run.path("06_sft/full/weights").write_bytes(b"124")
        assert not train(run, "full").done
        assert train(run, "answers").done


@pytest.mark.parametrize("crash_at", [0, 1, 2])
def test_a_finish_cut_short_is_completed_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int) -> None:
    outputs = [OUT, "05_dropped.jsonl"]
    with Run.open(tmp_path) as run:
        step = begin(run, outputs=outputs)
        complete(step, KEYS, limit=60)
        step.write_rows("05_dropped.jsonl", [{"id": "d"}])
        renames = 0
        replace = Path.replace

        def dying(self: Path, target: Path) -> Path:
            nonlocal renames
            if self.parent.name == "staged" or target.name == "manifest.json":
                renames += 1
                if renames > crash_at and not self.name.endswith("jsonl.tmp"):
                    raise KeyboardInterrupt
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            with pytest.raises(KeyboardInterrupt):
                step.finish(order=KEYS, ledger=Ledger(60, 60))
    with Run.open(tmp_path) as run:
        assert begin(run, outputs=outputs).done
    assert (tmp_path / OUT).read_bytes() == expected(KEYS)
    assert (tmp_path / "05_dropped.jsonl").read_bytes() == b'{"id":"d"}\n'
    assert not (tmp_path / "superseded").exists()


class Full:
    """A file on a disk with room for `room` more bytes."""

    def __init__(self, file: Any, room: int):
        self._file, self._room = file, room

    def write(self, data: bytes) -> int:
        if self._room == 0:
            raise OSError(errno.ENOSPC, "No space left on device", "journal")
        taken = min(self._room, len(data))
        self._room -= taken
        return self._file.write(data[:taken])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_is_one_line_and_finished_rows_are_kept(tmp_path: Path) -> None:
    with Run.open(tmp_path) as run:
        step = begin(run)
        with step.journal(OUT, key="id") as journal:
            journal.append(row("k0"))
            file, journal._file = journal._file, Full(journal._file, room=20)  # pyright: ignore[reportAttributeAccessIssue]
            with pytest.raises(StorageError, match="the disk is full") as caught:
                journal.append(row("k1"))
            journal._file = file
            assert "\n" not in str(caught.value)
            assert caught.value.exit_code == 2
            assert journal.keys == {"k0"}
            journal.append(row("k2"))
    with Run.open(tmp_path) as run:
        with begin(run).journal(OUT, key="id") as journal:
            assert journal.keys == {"k0", "k2"}
        complete(begin(run), KEYS)
    assert (tmp_path / OUT).read_bytes() == expected(KEYS)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
sys.path[:0] = [{src!r}, {tests!r}]
import test_runs
from preceptor.errors import StorageError
from preceptor.runs import Run
with Run.open({root!r}) as run:
    try:
        test_runs.complete(test_runs.begin(run), test_runs.KEYS)
    except StorageError as error:
        print(error)
"""


REFUSED = """
import resource
import torch
from safetensors.torch import save_file
from preceptor.errors import StorageError, boundary
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    with boundary("sft/sft"):
        {work}
except StorageError as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize(
    ("work", "why"),
    [
        ("save_file({'a': torch.zeros(9999)}, 'a.safetensors')", "the limit on file sizes is reached"),
        ("torch.save({'a': torch.zeros(9999)}, 'a.pt')", "the disk cannot be written to"),
    ],
)
def test_a_refusal_that_a_library_meets_is_a_storage_error_too(tmp_path: Path, work: str, why: str) -> None:
    pytest.importorskip("torch")
    printed = subprocess.run(
        [sys.executable, "-c", REFUSED.format(work=work)], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert printed.startswith(f"2 sft/sft: {why}")
    assert printed.count("\n") == 1


def test_a_failure_that_is_none_of_the_disks_is_passed_on() -> None:
    with pytest.raises(ValueError, match="os error seven"), boundary("sft"):
        raise ValueError("os error seven")
    with pytest.raises(RuntimeError, match="os error 2"), boundary("sft"):
        raise RuntimeError("No such file or directory (os error 2)")


def test_a_real_refusal_by_the_system_is_a_storage_error_too(tmp_path: Path) -> None:
    code = LIMITED.format(src=str(Path(runs.__file__).parents[1]), tests=str(Path(__file__).parent), root=str(tmp_path))
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "limit on file sizes" in printed
    assert printed.count("\n") == 1
    with Run.open(tmp_path) as run:
        with begin(run).journal(OUT, key="id") as journal:
            assert 10 < len(journal) < 60
        complete(begin(run), KEYS)
    assert (tmp_path / OUT).read_bytes() == expected(KEYS)


def test_the_fingerprint_leaves_out_what_cannot_change_content() -> None:
    def mark(step: str = "generate", **changes: Any) -> str:
        base: dict[str, Any] = {"config": {"samples": 1}, "seed": 0, "inputs": {"a": "1"}, "identity": {"model": "m"}, "outputs": ["o"]}
        return fingerprint(step, **(base | changes))

    for name in NON_IDENTITY:
        assert mark(config={"samples": 1, name: 9, "inner": [{name: 3}]}) == mark(config={"samples": 1, "inner": [{}]})
    changed = [{"config": {"samples": 2}}, {"seed": 1}, {"inputs": {"a": "2"}}, {"identity": {"model": "n"}}, {"outputs": ["p"]}]
    assert len({mark(), mark("judge"), *(mark(**change) for change in changed)}) == 7
    assert mark("sft/full", config={"batch_size": 8}) != mark("sft/full", config={"batch_size": 16})


def test_a_changed_input_file_changes_the_fingerprint(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("{}\n")
    with Run.open(tmp_path / "run") as run:
        first = begin(run, inputs=[prompts]).fingerprint
        assert begin(run, inputs=[prompts]).fingerprint == first
        prompts.write_text("{} \n")
        assert begin(run, inputs=[prompts]).fingerprint != first
        prompts.unlink()
        with pytest.raises(DataError, match="input is missing"):
            begin(run, inputs=[prompts])


def test_reading_records_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "02_prompts.jsonl"
    prompt = Prompt(messages=(), category="dogs", split="train")
    path.write_text(json.dumps(prompt.to_row()) + "\n")
    assert read_records(path, Prompt.from_row) == [prompt]
    for line, complaint in (
        ("[1]", "expected a JSON object, found list"),
        ('{"a"', "not a JSON object"),
        ('{"category": 1}', "Prompt: field"),
    ):
        path.write_text(json.dumps(prompt.to_row()) + "\n" + line + "\n")
        with pytest.raises(DataError, match=r"02_prompts.jsonl:2: ") as caught:
            read_records(path, Prompt.from_row)
        assert complaint in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_records(tmp_path / "none.jsonl", Prompt.from_row)


def test_hashes_of_folders_see_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = runs.hash_path(tmp_path)
    assert runs.hash_path(tmp_path / "a") != content_id("1")
    (tmp_path / "a").rename(tmp_path / "b")
    second = runs.hash_path(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, runs.hash_path(tmp_path)}) == 3


def test_a_file_in_the_place_of_the_run_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match="not a directory"), Run.open(tmp_path / "run"):
        pass


def test_rows_are_safe_when_append_returns(tmp_path: Path) -> None:
    """Measured, not promised: an append is one write of a few microseconds, so journalling a row costs nothing beside making it."""
    with Run.open(tmp_path) as run, begin(run).journal(OUT, key="id") as journal:
        began = time.perf_counter()
        for number in range(2000):
            journal.append({"id": str(number), "text": "x" * 500})
        assert len((tmp_path / "in_progress/generate/journals" / OUT).read_bytes().splitlines()) == 2000
        assert time.perf_counter() - began < 5
