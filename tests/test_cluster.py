# pyright: basic
"""Ray, with a real cluster on this machine: the same replies, rows and weights as without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jobs
import orjson
import pytest
import tiny
import torch
from safetensors.torch import load_file

from preceptor.errors import ModelError, RecipeError, UsageError
from preceptor.launch import Launched
from preceptor.models import Request, complete
from preceptor.models.cluster import Cluster, connect
from preceptor.models.local import LocalModel
from preceptor.records import Message, Sampling
from preceptor.training import SftJob

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]
torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    tiny.lfm2().save_pretrained(path)
    tiny.word_tokenizer().save_pretrained(path)
    return path


def requests(count: int) -> list[Request]:
    system = [Message(role="system", content=f"w{number} w5") for number in range(2)]
    return [
        Request((system[number % 2], Message(role="user", content=f"w{number % 80} w2")), Sampling(max_tokens=8, seed=number))
        for number in range(count)
    ]


@pytest.mark.slow
def test_two_actors_answer_as_one_process_does(checkpoint: Path, tmp_path: Path) -> None:
    """With actors on a cluster of two, which hung in the naive set-up; and a checkpoint that is not there is an error, not a hang."""
    wanted = complete(LocalModel.load(checkpoint, batch_size=8), requests(90))
    with Cluster(2, batch_size=8) as cluster:
        model = cluster.model(checkpoint, name="m", identity="i")
        assert complete(model, requests(90)) == wanted
        assert complete(model, requests(7)) == wanted[:7], "the same actors again"
        import ray

        assert ray.cluster_resources()["CPU"] >= 4
        assert ray.cluster_resources()["object_store_memory"] < 100 * 2**20
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        with pytest.raises(ModelError, match="a worker of the cluster failed"):
            complete(cluster.model(tmp_path / "nothing", name="m", identity="i"), requests(3))


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"no Ray cluster at '127\.0\.0\.1:1'.*ray start --head"):
        connect("127.0.0.1:1", workers=1)


@pytest.mark.slow
def test_ray_train_fine_tunes_as_torchrun_and_one_process_do_and_resumes(tmp_path: Path) -> None:
    base = jobs.make_base(tmp_path / "base")
    examples = tmp_path / "examples.jsonl"
    examples.write_bytes(b"".join(orjson.dumps(row.to_row()) + b"\n" for row in jobs.SAFETY))

    def job(**changes: object) -> SftJob:
        return SftJob(base, examples, jobs.CAPABILITY, jobs.sft_config(devices=2, micro_batch=1, **changes), ())

    ledger, notes = Launched("sft", job(), 2, engine="ray")(tmp_path / "ray" / "model")
    assert (notes["processes"], notes["distributed"], ledger.rows_out) == (2, "MULTI_CPU", 12)
    jobs.run_sft(base, tmp_path / "one", micro_batch=2)
    rows = {
        name: [orjson.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_bytes().splitlines()]
        for name in ("ray/model", "one")
    }
    assert [row["step"] for row in rows["ray/model"]] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows["ray/model"]] == pytest.approx([row["loss"] for row in rows["one"]], rel=2e-4)
    one, other = load_file(tmp_path / "ray/model/model.safetensors"), load_file(tmp_path / "one/model.safetensors")
    assert all(torch.allclose(tensor, other[name], atol=2e-3) for name, tensor in one.items())
    with pytest.raises(RecipeError, match=r"trainer\.bogus"):
        Launched("sft", job(trainer={"bogus": 1}), 2, engine="ray")(tmp_path / "wrong" / "model")


SMALL = (
    "world.training_prompts=150", "world.capability_rows=40", "world.capability_prompts=10", "sft.steps=6", "sft.devices=2", "sft.micro_batch=4",
    "sft.save_every=2", "sft.trainer={}",
)  # fmt: skip


def command(root: Path, *more: str) -> list[str]:
    sets = [word for assignment in (*SMALL, *more) for word in ("--set", assignment)]
    return [sys.executable, "-m", "preceptor", "sft", "recipes/demo.toml", "--dir", str(root), *sets]


@pytest.mark.slow
def test_a_run_over_ray_is_killed_resumed_and_has_the_rows_of_one_without(tmp_path: Path) -> None:
    """The path from the specification to SFT, over two actors and two training workers, killed while it judges."""
    ray = command(tmp_path / "ray", "run.engine=ray", "run.processes=2")
    process = subprocess.Popen(ray, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 400
    while not (tmp_path / "ray/in_progress/judge").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for words in (ray, command(tmp_path / "local")):
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    for name in ("02_prompts.jsonl", "03_completions.jsonl", "04_verdicts.jsonl", "05_examples.jsonl"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    manifests: list[dict[str, Any]] = [orjson.loads((tmp_path / name / "manifest.json").read_bytes()) for name in ("ray", "local")]
    for arm in ("sft", "sft-answer-only"):
        notes = [manifest["steps"][f"sft/{arm}"]["notes"] for manifest in manifests]
        assert all((note["processes"], note["distributed"]) == (2, "MULTI_CPU") for note in notes)
        assert notes[0]["last_loss"] == pytest.approx(notes[1]["last_loss"], rel=1e-3)
    assert not list((tmp_path / "ray" / "in_progress").iterdir())
