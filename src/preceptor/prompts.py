"""Prompts: conversations that end on a user turn, labelled, without duplicates, apart from the evaluations, split.

In: prompts handed in (the generated world makes them), or a JSONL file with rows

    {"prompt": "How do I ...?", "category": "tools"}
    {"messages": [{"role": "user", "content": "..."}], "category": "tools", "split": "rl", "meta": {"source": "..."}}

where further keys with plain values are taken into `meta`. Out: `02_prompts.jsonl`, and what was removed, counted by reason.

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
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preceptor.errors import DataError, UsageError
from preceptor.records import Message, Prompt, content_id
from preceptor.runs import ARTEFACTS, Ledger, Run, Summary
from preceptor.spec import Spec

(ARTEFACT,) = ARTEFACTS["prompts"]
_EDGES = string.punctuation + "“”‘’«»…–—"
_NOISE = frozenset(",;:!?\"'")
_OWN_KEYS = frozenset({"messages", "prompt", "category", "split", "meta"})


class PromptsConfig(BaseModel):
    """How prompts are read and divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = None
    """JSONL file; None when the prompts are handed in."""
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
            {"messages": messages, "category": row.get("category"), "split": row.get("split", ""), "meta": _meta(row)}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"field {'.'.join(map(str, first['loc']))!r}: {first['msg']}", where=path, line=number) from None


def _meta(row: dict[str, Any]) -> Any:
    extra = {key: value for key, value in row.items() if key not in _OWN_KEYS}
    given = row.get("meta", {})
    return {**given, **extra} if isinstance(given, dict) else given


def check(prompt: Prompt, spec: Spec, *, where: Path | str, line: int) -> None:
    """Raise `DataError` for a category the specification does not have and for a conversation that does not end on a user turn."""
    if prompt.category not in spec.categories:
        raise DataError(
            f"unknown category {prompt.category!r}",
            where=where,
            line=line,
            hint=f"the specification has {', '.join(sorted(spec.categories))}",
        )
    if not prompt.messages or prompt.messages[-1].role != "user":
        raise DataError("the conversation does not end on a user turn", where=where, line=line)
    if not any(message.content.strip() for message in prompt.messages if message.role == "user"):
        raise DataError("the conversation has no words", where=where, line=line)


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
    run: Run, config: PromptsConfig, spec: Spec, *, prompts: Iterable[Prompt] | None = None, evaluation: Sequence[Prompt] = ()
) -> Summary:
    """Write `02_prompts.jsonl` from `config.path` or from `prompts`.

    Raises `UsageError` when there is no source, when there are two, and when no prompt is left.
    """
    if (config.path is None) == (prompts is None):
        raise UsageError("prompts come either from a file or from the recipe's world, not from both or neither", hint="set prompts.path")
    where, rows = (config.path, list(read_jsonl(config.path))) if config.path else ("<prompts>", list(enumerate(prompts or (), start=1)))
    for line, prompt in rows:
        check(prompt, spec, where=where, line=line)
    identity = {
        "spec": spec.hash,
        "prompts": content_id([prompt.id for _, prompt in rows]),
        "evaluation": content_id([prompt.id for prompt in evaluation]),
    }
    settings = config.model_dump(mode="json", exclude={"path"})  # the identity holds what was read from it
    step = run.step("prompts", config=settings, inputs=[], identity=identity, outputs=[ARTEFACT], seed=config.seed)
    if step.done:
        return step.summary
    collected = collect((prompt for _, prompt in rows), evaluation, config)
    if not collected.prompts:
        raise UsageError(f"no prompt is left of {len(rows)}: {collected.removed or 'the source is empty'}", where=where)
    step.write_rows(ARTEFACT, (prompt.to_row() for prompt in collected.prompts))
    ledger = Ledger(rows_in=len(rows), rows_out=len(collected.prompts), rejected=collected.removed)
    return step.finish(ledger=ledger, notes={"split": Counter(prompt.split for prompt in collected.prompts)})
