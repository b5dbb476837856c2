"""The binding: a recipe becomes models, prompts, suites and stages, run in the order of the path.

This is the one module that may know everything: which class loads a model, that a recipe's subject is the generated world or
the user's own files. Stages get what they need handed in and know none of it.

Arms are trained side by side in processes of their own, one per core; the reward's judge is loaded in the process that trains. A
training process ends when this one does, so that a killed run can be taken up again at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from preceptor import aggregate, card, evals, filter, generate, judge, prompts, rl, runs, sft, spec, speclint
from preceptor.errors import DataError, SpecError, UsageError, require_extra
from preceptor.evals import Arm, Suite
from preceptor.judge import Case, Confusion, Judge, JudgeConfig
from preceptor.models import Model
from preceptor.models.workers import Workers, end_with
from preceptor.recipe import ModelRef, Recipe
from preceptor.records import Completion, Example, Prompt, Score, judgement_from_row
from preceptor.runs import Ledger, Run, Step, read_records
from preceptor.spec import Spec
from preceptor.wording import Wording
from preceptor.world import bars
from preceptor.world import subject as world

SFT_ARMS = {"sft": True, "sft-answer-only": False}
"""Arm -> whether the reasoning is learned."""
RL_ARMS = {"sft+rl": "sft", "rl-only": None}
"""Arm -> the SFT arm it starts from; None: the base model."""

Report = Callable[[int, int], None]


def run(recipe: Recipe, run_dir: Path, until: str = runs.STAGES[-1]) -> None:
    """Run the path up to and including `until`. What is done already is skipped; what was interrupted is resumed."""
    with (
        Run.open(run_dir) as held,
        progress_bars() as show,
        Workers(processes(recipe), batch_size=recipe.models.policy.batch_size) as workers,
    ):
        held.write("recipe.json", orjson.dumps(recipe.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
        bound = Bound(recipe, held, workers, show)
        for stage in runs.STAGES[: runs.STAGES.index(until) + 1]:
            if stage in _STAGES:
                _STAGES[stage](bound)


def processes(recipe: Recipe) -> int:
    """How many processes share the work: what the recipe says, else two on a CPU with two cores and one on a GPU."""
    if recipe.run.processes:
        return recipe.run.processes
    require_extra("train", "torch")
    import torch

    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


# Progress


Show = Callable[[str], Report]


@contextmanager
def progress_bars() -> Iterator[Show]:
    """Progress bars on the terminal: rows or steps, percentage, time spent and time left. A bar per stage, made when it begins."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, refresh_per_second=2) as display:

        def show(name: str) -> Report:
            made: list[int] = []

            def report(done: int, total: int) -> None:
                if not made:
                    made.append(display.add_task(name, total=total))
                display.update(made[0], completed=done, total=total)  # type: ignore[arg-type]

            return report

        yield show


# What a recipe is bound to


@dataclass
class Bound:
    """A recipe with its parts, made when they are first needed."""

    recipe: Recipe
    run: Run
    workers: Workers
    show: Show
    _identities: dict[Path, str] = field(default_factory=dict)

    @cached_property
    def spec(self) -> Spec:
        """The specification, from the run directory once it is there."""
        return spec.load(self.run.path("01_spec"))

    @cached_property
    def subject(self) -> world.Subject | None:
        """The generated world, when the recipe is about it."""
        return world.Subject(self.recipe.world, self.recipe.run.seed, self.recipe.evals.prompts) if self.recipe.world else None

    @cached_property
    def wording(self) -> Wording:
        """Everything said to a model."""
        return Wording(self.recipe.models.wording)

    @cached_property
    def evaluation(self) -> list[Prompt]:
        """Every evaluation prompt, for keeping safety data apart from it."""
        return [prompt for suite in self.suites if not suite.bare for prompt in suite.prompts]

    @cached_property
    def suites(self) -> list[Suite]:
        """What arms are measured on."""
        return self.subject.suites(self.recipe.evals) if self.subject else []

    def path_of(self, ref: ModelRef) -> Path:
        """The checkpoint folder of a role."""
        if ref.kind == "endpoint":
            raise UsageError(f"models: kind 'endpoint' ({ref.id!r}) is not supported yet", hint="use kind = 'local' or 'world'")
        return world.CHECKPOINTS / ref.id if ref.kind == "world" else Path(ref.id)

    def model(self, name: str, path: Path) -> Model:
        """A local model answered by the worker processes."""
        from preceptor.models.local import files_identity

        if not (path / "config.json").is_file():
            raise DataError(f"no checkpoint of {name!r} here", where=path, hint="train it first, or correct the recipe")
        ref = self.recipe.models.judge if path == self.judge_path else self.recipe.models.policy
        if path not in self._identities:
            self._identities[path] = files_identity(path, extra=str(ref.number_type))
        return self.workers.model(path, name=name, identity=self._identities[path], dtype=ref.number_type)

    @property
    def policy_path(self) -> Path:
        """G_base."""
        return self.path_of(self.recipe.models.policy)

    @property
    def judge_path(self) -> Path:
        """G_RM."""
        return self.path_of(self.recipe.models.judge)


# The stages


def _spec(bound: Bound) -> None:
    """Copy the specification into the run directory; an error of the lint stops here."""
    text, source = (bound.subject.markdown(), None) if bound.subject else (None, Path(str(bound.recipe.spec.source)))
    loaded = spec.parse(text, source="world") if text is not None else spec.load(source)  # type: ignore[arg-type]
    step = bound.run.step("spec", config={}, inputs=[], identity={"spec": loaded.hash}, outputs=["01_spec"])
    if step.done:
        return
    errors = [finding for finding in speclint.check(loaded) if finding.severity == "error"]
    if errors:
        raise SpecError(f"{len(errors)} errors, the first: {speclint.render_findings(errors[:1])}", hint="preceptor spec check shows all")
    folder = step.directory("01_spec")
    if text is not None:
        (folder / "spec.md").write_text(text, encoding="utf-8")
    elif source is not None and source.is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True)
    elif source is not None:
        shutil.copy(source, folder / source.name)
    clauses = len(loaded.clauses)
    step.finish(ledger=Ledger(rows_in=clauses, rows_out=clauses), notes=dict(speclint.describe(loaded)))


def _prompts(bound: Bound) -> None:
    drawn = bound.subject.training_prompts() if bound.subject else None
    prompts.run(bound.run, bound.recipe.prompts, bound.spec, prompts=drawn, evaluation=bound.evaluation)


def _generate(bound: Bound) -> None:
    model = bound.model("G_base", bound.policy_path)
    generate.run(bound.run, bound.recipe.generate, bound.spec, model, bound.wording, bound.show("generate"))


def _judge(bound: Bound) -> None:
    model = bound.model("G_RM", bound.judge_path)
    judge.run(bound.run, Judge(model, bound.wording, bound.spec, bound.recipe.judge), bound.show("judge"))
    if bound.subject:
        bound.run.write("04_confusion.json", orjson.dumps(_confusion(bound), option=orjson.OPT_INDENT_2))


def _confusion(bound: Bound) -> list[dict[str, object]]:
    """Judge against oracle, by category and by disposition: the oracle only measures."""
    assert bound.subject is not None
    wanted = {row.id: row for row in read_records(bound.run.path("02_prompts.jsonl"), Prompt.from_row)}
    completions = {row.id: row for row in read_records(bound.run.path("03_completions.jsonl"), Completion.from_row)}
    cases = []
    for judgement in read_records(bound.run.path("04_verdicts.jsonl"), judgement_from_row):
        completion = completions[judgement.completion_id]
        prompt = wanted[completion.prompt_id]
        if completion.status == "ok":
            disposition, good = bound.subject.truth(prompt.meta, completion.reasoning, completion.answer)
            cases.append(Case(prompt.category, disposition, judgement, good))
    table = judge.confusion(cases)
    return [_confusion_row(group, name, judge.total({key: cell for key, cell in table.items() if key[place] == name}))
            for place, group in enumerate(("category", "disposition")) for name in sorted({key[place] for key in table})]  # fmt: skip


def _confusion_row(group: str, name: str, cell: Confusion) -> dict[str, object]:
    counts = {"tp": cell.true_positive, "fp": cell.false_positive, "tn": cell.true_negative, "fn": cell.false_negative}
    return {"group": group, "name": name, **counts, "abstained": cell.abstained}


def _filter(bound: Bound) -> None:
    filter.run(bound.run, bound.recipe.filter, bound.spec, detail=bound.recipe.spec.detail, evaluation=bound.evaluation)


def _sft(bound: Bound) -> None:
    """Both SFT arms side by side."""
    examples = bound.run.path("05_examples.jsonl")
    capability = bound.subject.capability() if bound.subject else _capability_rows(bound.recipe)
    jobs = []
    for arm, reasoning in SFT_ARMS.items():
        config = bound.recipe.sft.model_copy(update={"reasoning": reasoning})
        settings = config.model_dump(mode="json")
        identity = {
            "base": bound.model("G_base", bound.policy_path).identity,
            "capability": [row.id for row in capability],
            "spec": bound.spec.hash,
        }
        step = bound.run.step(
            f"sft/{arm}", config=settings, inputs=[examples], identity=identity, outputs=[f"06_sft/{arm}"], seed=config.seed
        )
        jobs.append(
            Training(step, arm, config.steps or 0, SftJob(bound.policy_path, examples, capability, config, tuple(_policy_texts(bound))))
        )
    train(bound, [job for job in jobs if not job.step.done])


def _policy_texts(bound: Bound) -> Iterable[str]:
    """Passages no safety prompt may hold."""
    return (bound.spec.for_category(category, detail=bound.recipe.spec.detail) for category in bound.spec.categories)


def _capability_rows(recipe: Recipe) -> list[Example]:
    return read_records(recipe.capability, Example.from_row) if recipe.capability else []


def _rl(bound: Bound) -> None:
    """Both RL arms side by side, each with the judge in its own process."""
    recipe, source = bound.recipe, bound.run.path("02_prompts.jsonl")
    reward = recipe.judge.model_copy(update={"view": "answer", **recipe.reward.model_dump()})
    jobs = []
    for arm, start in RL_ARMS.items():
        path = bound.policy_path if start is None else bound.run.path(f"06_sft/{start}")
        config = recipe.rl if start is not None else recipe.rl.model_copy(update={"steps": recipe.rl_only_steps or recipe.rl.steps})
        identity = {
            "policy": bound.model(arm, path).identity,
            "judge": bound.model("G_RM", bound.judge_path).identity,
            "reward": reward.model_dump(mode="json"),
        }
        identity |= {"spec": bound.spec.hash, "wording": bound.wording.identity}
        step = bound.run.step(
            f"rl/{arm}",
            config=config.model_dump(mode="json"),
            inputs=[source],
            identity=identity,
            outputs=[f"07_rl/{arm}"],
            seed=config.seed,
        )
        job = RlJob(
            path,
            source,
            config,
            bound.judge_path,
            reward,
            recipe.models.wording,
            bound.run.path("01_spec"),
            bound.subject,
            recipe.models.judge.batch_size,
            recipe.models.judge.number_type,
        )
        jobs.append(Training(step, arm, config.steps, job))
    train(bound, [job for job in jobs if not job.step.done])


def arms(bound: Bound) -> list[Arm]:
    """The arms of the paper's ablation (section 4.1), and the two that put the specification in context."""
    base = bound.model("base", bound.policy_path)
    trained = {arm: bound.run.path(f"06_sft/{arm}") for arm in SFT_ARMS} | {arm: bound.run.path(f"07_rl/{arm}") for arm in RL_ARMS}
    prompted = [Arm("base", base), Arm("base+spec", base, "category"), Arm("base+summaries", base, "summaries")]
    return sorted(
        [*prompted, *(Arm(name, bound.model(name, path)) for name, path in trained.items())], key=lambda arm: aggregate.arm_order(arm.name)
    )


def _evals(bound: Bound) -> None:
    if not bound.suites:
        return
    evals.run(
        bound.run,
        bound.recipe.evals,
        arms(bound),
        bound.suites,
        bound.spec,
        bound.wording,
        detail=bound.recipe.spec.detail,
        progress=bound.show("evals"),
    )
    results = aggregate.summarise(read_records(bound.run.path("08_scores.jsonl"), Score.from_row))
    bound.run.write("08_summary.json", orjson.dumps([result.to_row() for result in results], option=orjson.OPT_INDENT_2))


def _print_bars(bound: Bound) -> None:
    """What the main arm reached, on the terminal."""
    table = Table("figure", "wanted", "found", "interval", "n", "", title=f"{aggregate.MAIN_ARM} by the oracle", title_justify="left")
    results = aggregate.summarise(read_records(bound.run.path("08_scores.jsonl"), Score.from_row))
    for bar in bars.held_against(results):
        found = bar.found
        table.add_row(
            bar.name,
            bar.wanted,
            f"{found.value:.3f}",
            f"{found.low:.3f} to {found.high:.3f}",
            str(found.n),
            "reached" if bar.reached else "MISSED",
        )
    Console().print(table)


def _card(bound: Bound) -> None:
    card.run(bound.run.root)
    if bound.subject:
        _print_bars(bound)


_STAGES: dict[str, Callable[[Bound], None]] = {
    "spec": _spec, "prompts": _prompts, "generate": _generate, "judge": _judge, "filter": _filter, "sft": _sft, "rl": _rl, "evals": _evals, "card": _card,
}  # fmt: skip


# Training in processes of its own


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

    def __call__(self, out: Path) -> tuple[Ledger, dict[str, object]]:
        """Train, save under `out`, report."""
        from preceptor.models.local import LocalModel

        rows = [row for row in read_records(self.prompts, Prompt.from_row) if row.split == "rl"]
        model = LocalModel.load(self.judge, batch_size=self.batch_size, dtype=self.dtype)
        grader = Judge(model, Wording(self.wording), spec.load(self.spec), self.reward)
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


# Talking to an arm


def chat_model(run_dir: Path, arm: str) -> Model:
    """The model of an arm of a run, for a conversation. Raises `UsageError` for an arm that is not there."""
    from preceptor.models.local import LocalModel

    folders = {path.name: path for home in ("06_sft", "07_rl") for path in sorted((run_dir / home).glob("*")) if path.is_dir()}
    folders["base"] = world.CHECKPOINTS / "base"
    if arm not in folders:
        raise UsageError(f"no arm {arm!r} in this run", where=run_dir, hint=f"there are {', '.join(sorted(folders))}")
    return LocalModel.load(folders[arm])
