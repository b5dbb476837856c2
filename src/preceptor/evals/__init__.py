"""Evals: arms x suites -> scores.

In: arms (a model and what stands in its context), suites (prompts and a scorer), the specification.  Out: `08_scores.jsonl`, one
`Score` per prompt, arm and metric, from which `aggregate` makes every number.

The one idea: a suite is prompts and a plain function that grades one reply. What went wrong with a reply (truncated, malformed,
empty, refused by the provider, failed) is an outcome of its own, never a pass and never a fail. Every arm answers the same
prompts, so differences are paired. An arm without context gets the prompt and nothing else: its prompt tokens are recorded.

The test-time-compute axis is the same machinery: suite `budget:<tokens>` caps the reasoning and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from preceptor.errors import StageFailed
from preceptor.models import Model, Reply, Request
from preceptor.records import Message, Meta, Prompt, Sampling, Score, content_id
from preceptor.runs import ARTEFACTS, Ledger, Run, Summary
from preceptor.spec import Detail, Spec
from preceptor.wording import Wording

(ARTEFACT,) = ARTEFACTS["evals"]

Progress = Callable[[int, int], None]
Context = Literal["none", "category", "summaries"]


class EvalsConfig(BaseModel):
    """How arms are measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(1000, ge=1)
    """Prompts per suite for the main arms."""
    side_prompts: int = Field(300, ge=1)
    """Prompts per suite for the other arms: the first of the same prompts, so pairs remain pairs."""
    main_arms: tuple[str, ...] = ("sft-answer-only", "sft", "sft+rl")
    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0)
    budgets: tuple[int, ...] = ()
    """Reasoning budgets in tokens for the test-time-compute curve of the main arm."""
    budget_prompts: int = Field(200, ge=1)
    seed: int = 0
    max_failed: float = Field(0.05, ge=0, le=1)
    """Above this share of failed requests the stage stops."""


class Grade(Protocol):
    """Grades one reply: `(suite, metric, value in [0, 1])` triples; the first belongs to the prompt's own suite."""

    @property
    def identity(self) -> str:
        """What graded."""
        ...

    def __call__(self, suite: str, meta: Meta, reasoning: str, answer: str) -> list[tuple[str, str, float]]:
        """Grade a reply whose status is `ok`."""
        ...


@dataclass(frozen=True)
class Suite:
    """Prompts and the function that grades replies to them."""

    name: str
    prompts: tuple[Prompt, ...]
    grade: Grade
    bare: bool = False
    """The prompts bring their own system message: no arm adds its context (capability)."""


@dataclass(frozen=True)
class Arm:
    """A model, and what stands in its context."""

    name: str
    model: Model
    context: Context = "none"


@dataclass(frozen=True)
class Task:
    """One arm answering one prompt of one suite."""

    arm: Arm
    suite: str
    prompt: Prompt
    grade: Grade
    request: Request

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the task across restarts."""
        return self.arm.name, self.suite, self.prompt.id


def plan(arms: Sequence[Arm], suites: Sequence[Suite], spec: Spec, wording: Wording, config: EvalsConfig, detail: Detail) -> list[Task]:
    """Every task, arm by arm and suite by suite."""
    tasks = []
    for arm in arms:
        for suite in suites:
            budget, count = _budget(suite.name), _count(arm, suite, config)
            if (budget is not None and arm.name != config.main_arms[-1]) or (suite.bare and arm.context != "none"):
                continue
            for prompt in suite.prompts[: count if budget is None else config.budget_prompts]:
                messages = prompt.messages if suite.bare else in_context(arm.context, prompt, spec, wording, detail)
                sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens, reasoning_tokens=budget, seed=config.seed)
                tasks.append(Task(arm, suite.name, prompt, suite.grade, Request(messages, sampling)))
    return tasks


def _count(arm: Arm, suite: Suite, config: EvalsConfig) -> int:
    """Prompts of a suite that an arm is given. A bare suite is a before and after, so the base model gets as many as the main arms."""
    full = arm.name in config.main_arms or (suite.bare and arm.name == "base")
    return config.prompts if full else config.side_prompts


def _budget(suite: str) -> int | None:
    head, _, tokens = suite.partition(":")
    return int(tokens) if head == "budget" else None


def in_context(context: Context, prompt: Prompt, spec: Spec, wording: Wording, detail: Detail) -> tuple[Message, ...]:
    """The conversation, with the routed specification (category by oracle), the summaries of all of it, or nothing before it."""
    if context == "none":
        return prompt.messages
    policy = spec.summaries() if context == "summaries" else spec.for_categories(prompt.categories, detail=detail)
    return wording.generate(policy, prompt)


def score(task: Task, reply: Reply) -> list[Score]:
    """The rows of one reply. A reply that is not ok has one row, without a value."""
    meta = task.prompt.meta | ({"budget": _budget(task.suite)} if _budget(task.suite) is not None else {})
    common = {
        "arm": task.arm.name, "prompt_id": task.prompt.id, "grader": task.grade.identity, "reasoning": reply.reasoning,
        "answer": reply.answer, "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "meta": meta,
    }  # fmt: skip
    if reply.status != "ok":
        metric = task.grade(task.suite, task.prompt.meta, "", "")[0][1]
        return [Score(suite=task.suite, metric=metric, value=None, outcome=reply.status, **common)]
    graded = task.grade(task.suite, task.prompt.meta, reply.reasoning, reply.answer)
    return [Score(suite=suite, metric=metric, value=value, **common) for suite, metric, value in graded]


def evaluate(tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Score]]]:
    """Answer and grade, arm by arm (an arm's model is loaded once), as replies come."""
    for _, group in groupby(tasks, key=lambda task: task.arm.name):
        batch = list(group)
        for index, reply in batch[0].arm.model.stream([task.request for task in batch]):
            yield batch[index], score(batch[index], reply)


def run(
    run: Run,
    config: EvalsConfig,
    arms: Sequence[Arm],
    suites: Sequence[Suite],
    spec: Spec,
    wording: Wording,
    *,
    detail: Detail,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Write `08_scores.jsonl`; a killed run goes on where it stopped. Raises `StageFailed` when too many requests failed."""
    identity = {
        "arms": {arm.name: [arm.model.identity, arm.context] for arm in arms},
        "suites": {suite.name: [suite.grade.identity, content_id([prompt.id for prompt in suite.prompts])] for suite in suites},
        "spec": spec.hash,
        "wording": wording.identity,
        "detail": detail,
    }
    settings = config.model_dump(mode="json", exclude={"max_failed"})
    step = run.step("evals", config=settings, inputs=[], identity=identity, outputs=[ARTEFACT], seed=config.seed)
    if step.done:
        return step.summary
    tasks = plan(arms, suites, spec, wording, config, detail)
    with step.journal(ARTEFACT, key=_key) as journal:
        answered = {key[:3] for key in journal.keys if isinstance(key, tuple)}
        todo, failed = [task for task in tasks if task.key not in answered], 0
        for done, (_, scores) in enumerate(evaluate(todo), start=len(tasks) - len(todo) + 1):
            failed += scores[0].outcome == "failed"
            if failed > config.max_failed * len(tasks):
                raise StageFailed(
                    f"evals: {failed} of {len(tasks)} requests failed, more than max_failed={config.max_failed:g}; run again to retry"
                )
            for row in reversed(scores):  # the suite's own row last: it marks the task as done
                journal.append(row.to_row())
            progress(done, len(tasks))
        rows = list(journal.rows())
    place = {task.key: index for index, task in enumerate(tasks)}
    own = [row for row in rows if _key(row)[:3] in place]
    where = {(row["arm"], row["prompt_id"]): place[_key(row)[:3]] for row in own}
    order = sorted(map(_key, rows), key=lambda key: (place.get(key[:3], where.get((key[0], key[2]), -1)), key))
    tokens_in, tokens_out = (sum(row[field] for row in own) for field in ("prompt_tokens", "completion_tokens"))
    return step.finish(order=order, ledger=Ledger(rows_in=len(tasks), rows_out=len(own), tokens_in=tokens_in, tokens_out=tokens_out))


def _key(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Arm, suite, prompt, metric: no two rows share them."""
    return row["arm"], row["suite"], row["prompt_id"], row["metric"]
