"""Arms trained side by side, each in a process of its own or in several: what such a process is given, and what becomes of its result.

In: an opened step per arm and the job that fills it. Out: a finished step per arm, kept whatever becomes of the others.

The reward's judge is loaded in the process that trains. A training process ends when its parent does, so that a killed run can be
taken up again at once. Who is trained on what is decided in `pipeline`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import orjson

from preceptor import judge, rl, runs, sft, spec
from preceptor.binding import Bound, Till, limit_of, processes
from preceptor.errors import StageFailed, boundary
from preceptor.evals.refusal import read_refusal
from preceptor.judge import Judge, JudgeConfig
from preceptor.launch import Launched
from preceptor.models.workers import end_with
from preceptor.recipe import ModelRef, Recipe, RunSection
from preceptor.records import Example, Prompt
from preceptor.rewards import Combination, Part, Rewards
from preceptor.runs import Ledger, Step, read_records
from preceptor.template import DEFAULTS, TemplateArguments
from preceptor.wording import HelpfulnessWording, Wording
from preceptor.world import subject as world


@dataclass(frozen=True)
class SftJob:
    """What a process needs to train one SFT arm."""

    base: Path
    examples: Path
    capability: Sequence[Example]
    config: sft.SftConfig
    policy_texts: tuple[str, ...]
    arguments: TemplateArguments = DEFAULTS

    def __call__(self, out: Path) -> tuple[Ledger, dict[str, object]]:
        """Train, save under `out`, report."""
        examples = read_records(self.examples, Example.from_row)
        report = sft.train(self.base, examples, self.capability, out, self.config, spec_text=self.policy_texts, arguments=self.arguments)
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
    judge: ModelRef
    till: Till
    reward: JudgeConfig
    wording: str
    spec: Path
    subject: world.Subject | None
    arguments: TemplateArguments = DEFAULTS
    helpfulness: float = 0.0
    """Weight of a second reading, for helpfulness; 0: none."""
    combine: Combination = "additive"
    gate: float = 1.0
    recipe: Recipe | None = None
    """Says how long a routed view may be; None: as long as it is."""

    def __call__(self, out: Path) -> tuple[Ledger, dict[str, object]]:
        """Train, save under `out`, report."""
        rows = [row for row in read_records(self.prompts, Prompt.from_row) if row.split == "rl"]
        model = self.till.model_here(self.judge, "optional")
        loaded = spec.load(self.spec).limited(limit_of(self.recipe) if self.recipe else None)
        parts = [self._part("judge", Judge(model, Wording(self.wording), loaded, self.reward))]
        if self.helpfulness:
            parts.append(self._part("helpfulness", Judge(model, HelpfulnessWording(self.wording), loaded, self.reward), self.helpfulness))
        rewards = Rewards(tuple(parts), self.combine, self.gate)
        probe, counts = (self.subject.probe, self.subject.refuses) if self.subject else (None, refuses)
        report = rl.train(self.policy, rows, rewards, out, self.config, probe=probe, refuses=counts, arguments=self.arguments)
        return Ledger(rows_in=len(rows), rows_out=len(rows)), report.to_row()

    def _part(self, name: str, reader: Judge, weight: float = 1.0) -> Part:
        """A judge behind a server is asked while the policy writes; one in this process would take its cores and its memory."""
        reward = judge.reward(reader)
        return Part(name, reward, weight, remote=self.judge.server is not None, remembered=lambda: reward.remembered)


def begin(parent: int, threads: int) -> None:
    """In the process of an arm: its share of the cores, unless somebody has said otherwise. Processes that each take all cores wait for each other:
    ten times slower on two."""
    end_with(parent)
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(threads)


def refuses(prompt: Prompt, answer: str) -> bool:
    """Whether an answer refuses, wholly or in part, by rules."""
    return bool(read_refusal(answer).refused)


@dataclass(frozen=True)
class Training:
    """One arm to be trained, and the step its result belongs to."""

    step: Step
    arm: str
    steps: int
    """0: known when it is through (`sft.epochs`)."""
    job: SftJob | RlJob


def train(bound: Bound, trainings: Sequence[Training]) -> None:
    """Train the arms side by side, each in a process of its own. An arm that is finished is kept whatever becomes of the others, those under way
    when one fails are waited for, and no further one is begun. Raises what the first failure was, `StageFailed` for a process that was lost."""
    if not trainings:
        return
    bound.workers.close()  # their memory and their cores are needed now
    jobs = {training.arm: _launched(bound.recipe.run, training) for training in trainings}
    at_once = 1 if any(isinstance(job, Launched) for job in jobs.values()) else processes(bound.recipe)
    share = max(1, (os.cpu_count() or 1) // at_once)
    pool = ProcessPoolExecutor(
        at_once, mp_context=get_context("spawn"), initializer=begin, initargs=(os.getpid(), share), max_tasks_per_child=1
    )
    with pool:
        waiting, running = list(trainings), dict[Future[tuple[Ledger, dict[str, object]]], Training]()
        failures: list[Exception] = []
        reports = {training.arm: bound.show(f"{runs.stage_of(training.step.name)} {training.arm}") for training in trainings}
        while running or (waiting and not failures):
            while waiting and len(running) < at_once and not failures:
                training = waiting.pop(0)
                running[pool.submit(jobs[training.arm], training.step.scratch / "model")] = training
            done, _ = wait(running, timeout=0.5, return_when="FIRST_COMPLETED")
            for training in running.values():
                reports[training.arm](_reached(training.step.scratch / "model" / "metrics.jsonl"), training.steps)
            for future in done:
                failures += _keep(running.pop(future), future)
    if failures:
        raise failures[0]


def _launched(how: RunSection, training: Training) -> SftJob | RlJob | Launched:
    """The job as it is, or handed to several processes; arms then take turns, as their processes want all devices."""
    job, kind = training.job, "sft" if isinstance(training.job, SftJob) else "rl"
    if job.config.devices == 1 and how.engine == "local" and how.accelerate_config is None:
        return job
    return Launched(kind, job, job.config.devices, how.engine, how.accelerate_config, how.address)


def _keep(training: Training, future: Future[tuple[Ledger, dict[str, object]]]) -> list[Exception]:
    """Finish the step of an arm; what stood against it."""
    (name,) = training.step.outputs
    try:
        with boundary(training.step.name):
            ledger, notes = future.result()
            (training.step.scratch / "model").replace(training.step.directory(name))  # moved: a second copy of the weights may not fit
        training.step.finish(ledger=ledger, notes=notes)
    except BrokenProcessPool:
        lost = "its process was lost: killed, or out of memory. The same command again goes on from its last state"
        return [StageFailed(f"{training.step.name}: {lost}")]
    except Exception as error:  # it is raised when the other arms are through
        return [error]
    return []


def _reached(metrics: Path) -> int:
    """The last step that has a row. The last line may be torn."""
    lines = [line for line in metrics.read_bytes().splitlines() if line.endswith(b"}")] if metrics.exists() else []
    return orjson.loads(lines[-1])["step"] if lines else 0
