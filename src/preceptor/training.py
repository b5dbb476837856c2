"""Arms trained side by side, each in a process of its own: what such a process is given, and what becomes of its result.

In: an opened step per arm and the job that fills it. Out: a finished step per arm, kept whatever becomes of the others.

The reward's judge is loaded in the process that trains. A training process ends when its parent does, so that a killed run can be
taken up again at once. Who is trained on what is decided in `pipeline`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from preceptor import judge, rl, runs, sft, spec
from preceptor.binding import Bound, limit_of, processes
from preceptor.judge import Judge, JudgeConfig
from preceptor.models.workers import end_with
from preceptor.recipe import Recipe
from preceptor.records import Example, Prompt
from preceptor.runs import Ledger, Step, read_records
from preceptor.wording import Wording
from preceptor.world import subject as world


@dataclass(frozen=True)
class SftJob:
    """What a process needs to train one SFT arm."""

    base: Path
    examples: Path
    capability: Sequence[Example]
    config: sft.SftConfig
    policy_texts: tuple[str, ...]

    def __call__(self, out: Path) -> tuple[Ledger, dict[str, object]]:
        """Train, save under `out`, report."""
        examples = read_records(self.examples, Example.from_row)
        report = sft.train(self.base, examples, self.capability, out, self.config, spec_text=self.policy_texts)
        long = len(examples) - report.safety_rows
        return Ledger(
            len(examples), report.safety_rows, rejected={"too_long": long} if long else {}, tokens_in=report.tokens
        ), report.to_row()


@dataclass(frozen=True)
class RlJob:
    """What a process needs to train one RL arm, its judge included."""

    policy: Path
    prompts: Path
    config: rl.RlConfig
    judge: Path
    reward: JudgeConfig
    wording: str
    spec: Path
    subject: world.Subject | None
    batch_size: int
    dtype: str | None
    recipe: Recipe
    """Says how long a routed view may be."""

    def __call__(self, out: Path) -> tuple[Ledger, dict[str, object]]:
        """Train, save under `out`, report."""
        from preceptor.models.local import LocalModel

        rows = [row for row in read_records(self.prompts, Prompt.from_row) if row.split == "rl"]
        model = LocalModel.load(self.judge, batch_size=self.batch_size, dtype=self.dtype)
        grader = Judge(model, Wording(self.wording), spec.load(self.spec).limited(limit_of(self.recipe)), self.reward)
        probe = self.subject.probe if self.subject else None
        report = rl.train(self.policy, rows, judge.reward(grader), out, self.config, probe=probe)
        return Ledger(rows_in=len(rows), rows_out=len(rows)), report.to_row()


@dataclass(frozen=True)
class Training:
    """One arm to be trained, and the step its result belongs to."""

    step: Step
    arm: str
    steps: int
    job: SftJob | RlJob


def train(bound: Bound, trainings: Sequence[Training]) -> None:
    """Train the arms side by side, each in a process of its own; an arm that is finished is kept whatever becomes of the others."""
    if not trainings:
        return
    bound.workers.close()  # their memory and their cores are needed now
    pool = ProcessPoolExecutor(
        processes(bound.recipe), mp_context=get_context("spawn"), initializer=end_with, initargs=(os.getpid(),), max_tasks_per_child=1
    )
    with pool:
        running = {pool.submit(training.job, training.step.scratch / "model"): training for training in trainings}
        reports = {training.arm: bound.show(f"{runs.stage_of(training.step.name)} {training.arm}") for training in trainings}
        while running:
            done, _ = wait(running, timeout=0.5, return_when="FIRST_COMPLETED")
            for training in running.values():
                reports[training.arm](_lines(training.step.scratch / "model" / "metrics.jsonl"), training.steps)
            for future in done:
                _keep(running.pop(future), future)


def _keep(training: Training, future: Future[tuple[Ledger, dict[str, object]]]) -> None:
    ledger, notes = future.result()
    (name,) = training.step.outputs
    folder = training.step.directory(name)
    shutil.copytree(training.step.scratch / "model", folder, dirs_exist_ok=True)
    training.step.finish(ledger=ledger, notes=notes)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
