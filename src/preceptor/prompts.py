"""Prompts: conversations that end on a user turn, labelled, without duplicates, apart from the evaluations, split.

In: prompts handed in (the generated world makes them), or a JSONL file with rows

    {"prompt": "How do I ...?", "category": "tools"}
    {"messages": [{"role": "user", "content": "..."}], "category": "tools", "split": "rl", "meta": {"source": "..."}}

where further keys with plain values are taken into `meta`; or the specification's own examples. A row without a category is labelled by the
router that is handed in. Out: `02_prompts.jsonl`, and what was removed, counted by reason.

The one idea: two prompts are the same when their normalised texts are (case, white space, unicode form, punctuation at the
edges of words). Punctuation that carries the text, as in Morse code, is left alone. The split is decided by a hash of
that same text, so a prompt keeps its side when others come and go.

Not here: near duplicates in meaning, licences, labelling. `ngram` catches long shared passages with the evaluations; it is
off by default, because short generated prompts share their phrasing by design.
"""

from __future__ import annotations

import hashlib
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preceptor.errors import DataError, UsageError
from preceptor.records import Message, Prompt, content_id
from preceptor.runs import ARTEFACTS, Ledger, Run, Summary
from preceptor.spec import Spec

(ARTEFACT,) = ARTEFACTS["prompts"]
_EDGES = string.punctuation + "“”‘’«»…–—"
_NOISE = frozenset(",;:!?\"'")
_OWN_KEYS = frozenset({"messages", "prompt", "category", "also", "split", "meta"})

UNROUTED = ""
"""The category of a prompt that has none yet. No such prompt is ever written to `02_prompts.jsonl`."""


class PromptsConfig(BaseModel):
    """How prompts are read and divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = None
    """JSONL file; None when the prompts are handed in, or come from the specification."""
    from_spec: bool = False
    """Take the prompts that the specification brings as tests of its clauses: the example files of the OpenAI Model Spec, or the examples
    under the rules. They are what its authors test by: what is trained on them is not measured by them any more."""
    rl_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of the prompts without a split of their own that goes to `rl`; the rest goes to `train`."""
    seed: int = 0
    """Draws another division of the same prompts."""
    ngram: int | None = Field(default=None, ge=3)
    """Remove prompts that share this many consecutive words with an evaluation prompt. 13 is usual; None: only exact overlap."""


@dataclass(frozen=True)
class Collected:
    """Prompts that stay, and how many were removed for which reason (`duplicate`, `in_evaluation`, `ngram_overlap`)."""

    prompts: tuple[Prompt, ...]
    removed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Routing:
    """Prompts with their labels, and how many were dropped for which reason."""

    prompts: tuple[Prompt, ...]
    dropped: dict[str, int]


class Route(Protocol):
    """What labels prompts that have no category."""

    def identity(self, prompts: Sequence[Prompt]) -> str | None:
        """Hash of what determines the labels of these prompts; None where nothing is asked."""
        ...

    def __call__(self, run: Run, prompts: Sequence[Prompt]) -> Routing:
        """Label those without a category; the others stay as they are."""
        ...


def normalise(messages: Sequence[Message]) -> str:
    """The text by which prompts are compared: `role word word ...` per turn, one line each."""
    return "\n".join(f"{message.role} {' '.join(words(message.content))}" for message in messages)


def words(text: str) -> list[str]:
    """Words in NFKC and folded case, without punctuation at their edges. A word of nothing else stays, unless it is plain noise."""
    tokens = unicodedata.normalize("NFKC", text).casefold().split()
    return [token.strip(_EDGES) or token for token in tokens if token not in _NOISE]


def ngrams(text: str, length: int) -> set[tuple[str, ...]]:
    """All runs of `length` consecutive words."""
    found = words(text)
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}


def side(text: str, config: PromptsConfig) -> str:
    """`train` or `rl` by the hash of a normalised text and the seed."""
    digest = hashlib.blake2b(f"{config.seed}\n{text}".encode(), digest_size=8).digest()
    return "rl" if int.from_bytes(digest) < config.rl_fraction * 2**64 else "train"


def read_jsonl(path: Path) -> Iterator[tuple[int, Prompt]]:
    """Line number and prompt of every row. Raises `DataError` with file and line for a row that is not a prompt."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"cannot read the prompts: {error.strerror}", where=path, hint="give the path of a JSONL file") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _prompt(line, path, number)


def _prompt(line: bytes, path: Path, number: int) -> Prompt:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}", where=path, line=number) from None
    if not isinstance(row, dict) or ("messages" in row) == ("prompt" in row):
        raise DataError("expected an object with either 'messages' or 'prompt'", where=path, line=number)
    messages = row["messages"] if "messages" in row else [{"role": "user", "content": row["prompt"]}]
    try:
        return Prompt.model_validate(
            {
                "messages": messages,
                "category": row["category"] if row.get("category") is not None else UNROUTED,
                "also": row.get("also", ()),
                "split": row.get("split", ""),
                "meta": _meta(row),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"field {'.'.join(map(str, first['loc']))!r}: {first['msg']}", where=path, line=number) from None


def _meta(row: dict[str, Any]) -> Any:
    extra = {key: value for key, value in row.items() if key not in _OWN_KEYS}
    given = row.get("meta", {})
    return {**given, **extra} if isinstance(given, dict) else given


def check(prompt: Prompt, spec: Spec, *, where: Path | str, line: int, routed: bool = False) -> None:
    """Raise `DataError` for a category the specification does not have and for a conversation that does not end on a user turn.

    A prompt without a category is let through where it will be `routed`.
    """
    given = () if routed and prompt.category == UNROUTED else prompt.categories
    if unknown := [category for category in given if category not in spec.categories]:
        raise DataError(
            f"unknown category {unknown[0]!r}" if unknown[0] else "no category, and no router to find one",
            where=where,
            line=line,
            hint=f"the specification has {', '.join(sorted(spec.categories))}",
        )
    if not ends_on_user(prompt):
        raise DataError("the conversation does not end on a user turn", where=where, line=line)
    if not any(message.content.strip() for message in prompt.messages if message.role == "user"):
        raise DataError("the conversation has no words", where=where, line=line)


def ends_on_user(prompt: Prompt) -> bool:
    """Whether it is the assistant's turn."""
    return bool(prompt.messages) and prompt.messages[-1].role == "user"


def collect(prompts: Iterable[Prompt], evaluation: Sequence[Prompt], config: PromptsConfig) -> Collected:
    """Remove duplicates and overlap with `evaluation`, then give a split to those that have none.

    The first of two equal prompts stays. A split that a prompt brings along is kept.
    """
    seen: set[str] = set()
    held_out = {normalise(prompt.messages) for prompt in evaluation}
    passages = _passages(evaluation, config.ngram)
    kept: list[Prompt] = []
    removed: dict[str, int] = {}
    for prompt in prompts:
        text = normalise(prompt.messages)
        reason = _reason(prompt, text, seen, held_out, passages, config)
        if reason:
            removed[reason] = removed.get(reason, 0) + 1
            continue
        seen.add(text)
        kept.append(prompt if prompt.split else _with_split(prompt, side(text, config)))
    return Collected(tuple(kept), removed)


def _with_split(prompt: Prompt, split: str) -> Prompt:
    return Prompt.model_validate({**prompt.model_dump(), "split": split})  # a new id, unlike `model_copy`


def _passages(prompts: Sequence[Prompt], length: int | None) -> set[tuple[str, ...]]:
    if length is None:
        return set()
    return {passage for prompt in prompts for message in prompt.messages for passage in ngrams(message.content, length)}


def _reason(
    prompt: Prompt, text: str, seen: set[str], held_out: set[str], passages: set[tuple[str, ...]], config: PromptsConfig
) -> str | None:
    if text in seen:
        return "duplicate"
    if text in held_out:
        return "in_evaluation"
    if passages and not passages.isdisjoint(_passages([prompt], config.ngram)):
        return "ngram_overlap"
    return None


def run(
    run: Run,
    config: PromptsConfig,
    spec: Spec,
    *,
    prompts: Iterable[Prompt] | None = None,
    evaluation: Sequence[Prompt] = (),
    route: Route | None = None,
) -> Summary:
    """Write `02_prompts.jsonl` from `config.path`, from the specification's own examples or from `prompts`; `route` labels those without a category.

    Raises `UsageError` when there is no source, when there are two, and when no prompt is left.
    """
    if (config.path is not None) + config.from_spec + (prompts is not None) != 1:
        raise UsageError(
            "prompts come from a file, from the specification or from the recipe's world: exactly one of them",
            hint="set prompts.path, or prompts.from_spec = true",
        )
    where, rows, unfit = _rows(config, spec, prompts)
    for line, prompt in rows:
        check(prompt, spec, where=where, line=line, routed=route is not None)
    given = [prompt for _, prompt in rows]
    identity = {
        "spec": spec.hash,
        "prompts": content_id([prompt.id for prompt in given]),
        "evaluation": content_id([prompt.id for prompt in evaluation]),
    }
    if route and (router := route.identity(given)):
        identity["router"] = router
    settings = config.model_dump(mode="json", exclude={"path", "from_spec"})  # the identity holds what was read
    step = run.step("prompts", config=settings, inputs=[], identity=identity, outputs=[ARTEFACT], seed=config.seed)
    if step.done:
        return step.summary
    collected = collect(given, evaluation, config)
    routing = route(run, collected.prompts) if route else Routing(collected.prompts, {})
    removed = {**unfit, **collected.removed, **routing.dropped}
    if not routing.prompts:
        raise UsageError(f"no prompt is left of {len(given)}: {removed or 'the source is empty'}", where=where)
    step.write_rows(ARTEFACT, (prompt.to_row() for prompt in routing.prompts))
    ledger = Ledger(rows_in=len(given) + sum(unfit.values()), rows_out=len(routing.prompts), rejected=removed)
    return step.finish(ledger=ledger, notes=_notes(routing.prompts))


def _rows(
    config: PromptsConfig, spec: Spec, prompts: Iterable[Prompt] | None
) -> tuple[Path | str, list[tuple[int, Prompt]], dict[str, int]]:
    """(place to name in complaints, line and prompt, how many of the specification's own are not for an assistant to answer)."""
    if config.path:
        return config.path, list(read_jsonl(config.path)), {}
    if prompts is not None:
        return "<prompts>", list(enumerate(prompts, start=1)), {}
    fit = [prompt for prompt in spec.tests if ends_on_user(prompt)]
    unfit = len(spec.tests) - len(fit)
    return spec.source, list(enumerate(fit, start=1)), {"no_user_turn": unfit} if unfit else {}


def _notes(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Counts for the manifest: prompts by split, and by category where they have several."""
    several = sum(bool(prompt.also) for prompt in prompts)
    return {"split": Counter(prompt.split for prompt in prompts)} | ({"several_categories": several} if several else {})
