"""Labels: replies that people or an oracle have marked good or bad.

In: a JSONL file. Out: `Label`s. A row is

    {"prompt": "...", "category": "privacy", "answer": "...", "label": "good"}

with `messages` instead of `prompt` for a conversation, `reasoning` where the judge is to read it, `group` for the table's lines (default:
the category) and `source` for where the row comes from. `label` is `"good"`, `"bad"`, true, false, or a score 0, 0.5 or 1 as judges give
it: breaks the policies, follows them with a flaw, follows them fully.

Not here: what is good. That is for whoever writes the file to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import orjson

from preceptor.errors import DataError
from preceptor.journal import read_rows, write_atomic
from preceptor.judge.verdicts import MENU
from preceptor.records import AnswerView, FullView, Message, Record, View

_MARKS: dict[str, float] = {"good": max(MENU.values()), "bad": min(MENU.values())}
_FIELDS = frozenset({"id", "prompt", "messages", "category", "answer", "reasoning", "label", "group", "source"})


class Label(Record):
    """A reply and what it deserves."""

    messages: tuple[Message, ...]
    category: str
    answer: str
    reasoning: str | None = None
    score: float
    """On the judge's scale; a mark `good` is the highest, `bad` the lowest."""
    group: str = ""
    source: str = ""

    def view(self, view: View) -> AnswerView | FullView:
        """What a judge is shown of it. Raises `DataError` where the judge reads the reasoning and the label has none."""
        if view == "answer":
            return AnswerView(messages=self.messages, category=self.category, answer=self.answer)
        if self.reasoning is None:
            raise DataError(
                f"label {self.source or self.id}: this judge reads the reasoning, and the row has none",
                hint="add `reasoning` to the rows, or calibrate the judge of the reward, which reads answers only: --reward",
            )
        return FullView(messages=self.messages, category=self.category, answer=self.answer, reasoning=self.reasoning)

    def to_label_row(self) -> dict[str, Any]:
        """The row of a labels file."""
        single = len(self.messages) == 1 and self.messages[0].role == "user"
        asked = {"prompt": self.messages[0].content} if single else {"messages": [turn.model_dump(mode="json") for turn in self.messages]}
        optional = {"reasoning": self.reasoning, "group": self.group or None, "source": self.source or None}
        kept = {name: value for name, value in optional.items() if value is not None}
        return {**asked, "category": self.category, "answer": self.answer, "label": self.score, **kept}


def read(path: Path, categories: Collection[str]) -> list[Label]:
    """The labels of a file. Raises `DataError`, naming file and line, for an unknown category and for a row that stands twice."""
    first: dict[str, int] = {}
    labels = []
    for line, row in read_rows(path):
        label = _label(row, path, line)
        if label.category not in categories:
            known = ", ".join(sorted(categories))
            raise DataError(
                f"the specification has no category {label.category!r}", where=path, line=line, hint=f"expected one of: {known}"
            )
        if label.id in first:
            raise DataError(f"this row stands in line {first[label.id]} already", where=path, line=line, hint="count each reply once")
        first[label.id] = line
        labels.append(label)
    if not labels:
        raise DataError("no labels", where=path)
    return labels


def write(path: Path, labels: Iterable[Label]) -> None:
    """A labels file."""
    write_atomic(path, (orjson.dumps(label.to_label_row()) + b"\n" for label in labels))


def _label(row: dict[str, Any], path: Path, line: int) -> Label:
    if unknown := sorted(row.keys() - _FIELDS):
        raise DataError(f"unknown field {unknown[0]!r}", where=path, line=line, hint=f"allowed: {', '.join(sorted(_FIELDS - {'id'}))}")
    if ("prompt" in row) == ("messages" in row):
        raise DataError("expected either `prompt` or `messages`", where=path, line=line)
    fields = {name: value for name, value in row.items() if name not in ("id", "prompt", "label")}
    messages = row.get("messages", [{"role": "user", "content": row.get("prompt")}])
    return Label.from_row({**fields, "messages": messages, "score": _score(row.get("label"), path, line)}, where=str(path), line=line)


def _score(mark: Any, path: Path, line: int) -> float:
    if isinstance(mark, str) and mark in _MARKS:
        return _MARKS[mark]
    if isinstance(mark, int | float) and mark in MENU.values():
        return float(mark)
    expected = ", ".join(f"{score:g}" for score in MENU.values())
    raise DataError(f"label {mark!r}: expected good, bad, true, false, or a score ({expected})", where=path, line=line)
