"""A recipe bound to its parts: which folder a role's weights lie in, which processes answer for it, what its subject is.

In: a recipe and a held run directory. Out: `Bound`, whose parts are made when they are first needed.

Here, and nowhere else, is known which class plays a model and whether a recipe's subject is the generated world or the user's own
files. Stages get what they need handed in and know none of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from preceptor import spec, stale, views
from preceptor.errors import DataError, UsageError, require_extra
from preceptor.evals import Suite
from preceptor.models import Model
from preceptor.models.workers import Workers
from preceptor.recipe import ModelRef, Recipe
from preceptor.records import Prompt, content_id
from preceptor.routing import Route, Router, menu
from preceptor.runs import Run
from preceptor.spec import Limit, Spec
from preceptor.stale import Count
from preceptor.wording import Wording
from preceptor.world import subject as world

Report = Callable[[int, int], None]
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


def processes(recipe: Recipe) -> int:
    """How many processes share the work: what the recipe says, else two on a CPU with two cores and one on a GPU."""
    if recipe.run.processes:
        return recipe.run.processes
    require_extra("train", "torch")
    import torch

    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


def limit_of(recipe: Recipe) -> Limit | None:
    """What every routed view has to fit: counted by the policy's tokenizer where it is on this machine, else estimated on the high side."""
    if recipe.spec.max_tokens is None:
        return None
    ref = recipe.models.policy
    file = (world.CHECKPOINTS / ref.id if ref.kind == "world" else Path(ref.id)) / "tokenizer.json"
    if ref.kind == "endpoint" or not file.is_file():
        return Limit(recipe.spec.max_tokens, views.estimate, "estimate")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return Limit(recipe.spec.max_tokens, lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), f"tokenizer of {ref.id}")


def held_against(run_dir: Path, old: Spec, new: Spec) -> tuple[Spec, Spec, list[Count]]:
    """Both specifications under the limit of a run's recipe, and the run's rows held against the new one. Raises `DataError`."""
    file = run_dir / "recipe.json"
    if not file.is_file():
        raise DataError("no recipe.json here", where=run_dir, hint="name a run directory with --dir")
    limit = limit_of(Recipe.model_validate_json(file.read_bytes()))
    old, new = old.limited(limit), new.limited(limit)
    return old, new, stale.counts(run_dir, new, old=old, labels={stale.MENU: content_id(menu(new))})


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
        """The specification, from the run directory once it is there; its views fit the recipe's limit."""
        return spec.load(self.run.path("01_spec")).limited(limit_of(self.recipe))

    @cached_property
    def route(self) -> Route:
        """Labels prompts that come without a category."""
        ref = self.recipe.models.router or self.recipe.models.judge
        return Route(
            lambda: Router(self.play("router", ref), self.wording, self.spec, self.recipe.routing),
            self.recipe.routing,
            self.show("routing"),
            self.recipe.spec.allow_stale,
        )

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

    def play(self, name: str, ref: ModelRef) -> Model:
        """The model of a role."""
        return self.model(name, self.path_of(ref))

    def model(self, name: str, path: Path) -> Model:
        """A local model answered by the worker processes."""
        from preceptor.models.local import files_identity

        if not (path / "config.json").is_file():
            raise DataError(f"no checkpoint of {name!r} here", where=path, hint="train it first, or correct the recipe")
        roles = self.recipe.models
        ref = next((ref for ref in (roles.judge, roles.router) if ref and path == self.path_of(ref)), roles.policy)
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
