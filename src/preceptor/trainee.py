"""One of the processes that train an arm together, started by `launch`: `torchrun ... -m preceptor.trainee JOB.json`.

In: the file of a job. Out: what the job writes, and beside it `report.json` from the first process, or `error-RANK.json`.

The one idea: how many processes there are is not believed but checked, since a launcher that starts one process where many were asked for
(accelerate does, for a CPU) would train on a fraction of every batch without a word.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from preceptor.errors import PreceptorError, StageFailed, boundary
from preceptor.launch import REPORT
from preceptor.trainer import joined
from preceptor.training import RlJob, SftJob

JOBS: dict[str, type[SftJob | RlJob]] = {"sft": SftJob, "rl": RlJob}
UNSHARDED = ("NO", "MULTI_CPU")
"""Kinds of run that accelerate never shards, whatever its file says. The others become `FSDP` when the trainer is made, if its launcher has
set a variable; before that they are called by their devices, `MULTI_GPU` for one."""


def work(path: Path) -> None:
    """Do the job in the file at `path`. Raises what it raises, and leaves its reason for the process that waits."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    content = orjson.loads(path.read_bytes())
    job = TypeAdapter(JOBS[content["kind"]]).validate_python(content["job"])
    rank = os.environ.get("RANK", "0")
    try:
        _check_processes(content["kind"], content["devices"], content["sharded"], job.config.trainer)
        with boundary(content["kind"]):
            ledger, notes = job(Path(content["out"]))
    except PreceptorError as error:
        said = {"kind": type(error).__name__, "message": str(error)}
        (path.parent / f"error-{rank}.json").write_bytes(orjson.dumps(said))
        raise
    if rank == "0":
        (path.parent / REPORT).write_bytes(orjson.dumps({"ledger": ledger.to_dict(), "notes": notes}))


def _check_processes(kind: str, devices: int, sharded: bool, settings: Mapping[str, Any]) -> None:
    world = joined(settings)
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if sharded and (world.distributed_type.value in UNSHARDED or not asked):
        raise StageFailed(
            f"{kind}: FSDP was asked for and accelerate runs {world.distributed_type.value}, every device with the whole model (on a CPU it cannot shard)"
        )
    if world.num_processes != devices:
        raise StageFailed(f"{kind}: {devices} processes were asked for and {world.num_processes} started ({world.distributed_type.value})")


def end_with_stdin() -> None:
    """End when the process that started this one is gone, however it went."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """The exit code: 0, or 2 for what was said in a file."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}" if __spec__ else None, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--tied", action="store_true", help="end when standard input is closed")
    arguments = parser.parse_args()
    if arguments.tied:
        end_with_stdin()
    try:
        work(arguments.job)
    except PreceptorError as error:
        print(f"preceptor: error: {error}", file=sys.stderr)
        return error.exit_code
    leave()
    return 0


def leave() -> None:
    """Part from the other processes. One that ends without may be aborted by its own network threads, its work done."""
    from accelerate import PartialState

    PartialState().destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
