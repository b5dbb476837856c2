"""The difference between two specifications, by clause id: what changed, which routed views that reaches, and which rows of a run it makes stale.

In: two `Spec`s, of either format, and, where asked for, a run directory. Out: `Change`s in the order of the new text, the views that read differently, and
`stale.Count`s; as text with the words that changed marked, or as plain data for JSON.

The one idea: a clause is its id. A clause under the same id is compared field by field; one that stands in another category, or in another place
among those that stayed, has moved. Beside clauses, a specification has parts that stand in every view (principles, styles, the summary of each
category): they are units of the comparison too, because a change in one of them reaches every row.

Not here: files and lines, wrapping, and comments, which are not content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Literal

from rich.text import Text

from preceptor.records import CaseExample, Clause, Exclusion
from preceptor.spec import Category, Spec, Style
from preceptor.stale import Count
from preceptor.views import Detail

What = Literal[
    "added", "removed", "moved", "text", "disposition", "authority", "rationale", "examples", "exclusions", "title", "summary", "terms"
]
Unit = Literal["principles", "style", "category", "clause"]
Fields = dict[What, str]


@dataclass(frozen=True)
class Change:
    """One difference. `old` is empty for what was added, `new` for what was removed."""

    unit: Unit
    id: str
    category: str
    """Where a clause or a category's own style stands; empty for what stands in every view."""
    what: What
    old: str
    new: str


def diff(old: Spec, new: Spec) -> list[Change]:
    """Every difference that a model could be shown: what was removed first, then the rest in the order of the new specification."""
    before, after = _units(old), _units(new)
    removed = [Change(*name, before[name][0], "removed", _whole(before[name][1]), "") for name in before if name not in after]
    moved = _moved(old, new)
    found: list[Change] = []
    for name, (category, fields) in after.items():
        if name not in before:
            found.append(Change(*name, category, "added", "", _whole(fields)))
            continue
        was, had = before[name]
        if was != category or name in moved:
            found.append(Change(*name, category, "moved", *moved.get(name, (f"in {was}", f"in {category}"))))
        found += [Change(*name, category, what, had[what], text) for what, text in fields.items() if had[what] != text]
    return [*removed, *found]


def _units(spec: Spec) -> dict[tuple[Unit, str], tuple[str, Fields]]:
    """(unit, id) -> (category, fields), in the order of a view."""
    units: dict[tuple[Unit, str], tuple[str, Fields]] = {("principles", "principles"): ("", {"text": spec.principles})}
    units |= {("style", style.id): ("", _style(style)) for style in spec.styles.values()}
    units |= {("clause", clause.clause): (clause.category, _clause(clause)) for clause in spec.general}
    for category in spec.categories.values():
        units["category", category.id] = category.id, _category(category)
        units |= {("style", style.id): (category.id, _style(style)) for style in category.styles.values()}
        units |= {("clause", clause.clause): (category.id, _clause(clause)) for clause in category.every_clause}
    return units


def _style(style: Style) -> Fields:
    return {"disposition": style.disposition, "text": style.text}


def _category(category: Category) -> Fields:
    return {"title": category.title, "summary": category.summary, "terms": "\n".join(category.terms)}


def _clause(clause: Clause) -> Fields:
    return {
        "disposition": clause.disposition or "",
        "authority": clause.authority or "",
        "text": clause.text,
        "exclusions": "\n".join(_exclusion(case) for case in clause.exclusions),
        "rationale": clause.rationale,
        "examples": "\n".join(_example(example) for example in clause.examples),
    }


def _exclusion(case: Exclusion) -> str:
    return case.text + (f" (use {case.use})" if case.use else "")


def _example(example: CaseExample) -> str:
    parts = (("Example", example.user), ("Good", example.good), ("Bad", example.bad))
    return "\n".join(f"{name}: {text}" for name, text in parts if text)


def _whole(fields: Fields) -> str:
    return "\n".join(text for text in fields.values() if text)


def _moved(old: Spec, new: Spec) -> dict[tuple[Unit, str], tuple[str, str]]:
    """Categories, and clauses within their category, that changed places among those that stayed: (`after X`, `after Y`)."""
    found = _displaced("category", list(old.categories), list(new.categories))
    for name in new.categories:
        if name in old.categories:
            orders = ([clause.clause for clause in spec.categories[name].every_clause] for spec in (old, new))
            found |= _displaced("clause", *orders)
    return found


def _displaced(unit: Unit, old: Sequence[str], new: Sequence[str]) -> dict[tuple[Unit, str], tuple[str, str]]:
    before, after = [name for name in old if name in new], [name for name in new if name in old]
    still = {
        name
        for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
        for name in before[block.a :][: block.size]
    }
    return {(unit, name): (_after(before, name), _after(after, name)) for name in after if name not in still}


def _after(names: Sequence[str], name: str) -> str:
    place = names.index(name)
    return f"after {names[place - 1]}" if place else "first"


# What it reaches


def reached(old: Spec, new: Spec, detail: Detail = "full") -> dict[str, bool]:
    """Category of the new specification -> whether its view reads differently; one that is new does."""
    return {
        category: category not in old.categories or old.view((category,), detail).text != new.view((category,), detail).text
        for category in new.categories
    }


# Showing it

_WORDS = re.compile(r"\s+|[^\s]+")


def words(old: str, new: str) -> Iterator[tuple[Literal["same", "old", "new"], str]]:
    """Runs of words that stayed, went or came, in order; joined without what came (went) they are the old (new) text."""
    a, b = _WORDS.findall(old), _WORDS.findall(new)
    for tag, a1, a2, b1, b2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "same", "".join(a[a1:a2])
            continue
        if a2 > a1:
            yield "old", "".join(a[a1:a2])
        if b2 > b1:
            yield "new", "".join(b[b1:b2])


def render(changes: Sequence[Change], views: Mapping[str, bool], rows: Sequence[Count]) -> Iterator[Text]:
    """Lines for a terminal. What went stands in `[-...-]`, what came in `{+...+}`, so that no colour is needed."""
    for change in changes:
        yield Text.assemble(
            (f"{change.unit} {change.id}", "bold"), f"  {change.what}", f"  in {change.category}" if change.category else ""
        )
        yield _marked(change)
    if not changes:
        yield Text("no difference in anything a model can be shown")
    changed = [category for category, differs in views.items() if differs]
    yield Text(f"views that read differently: {len(changed)} of {len(views)}" + (f": {', '.join(changed)}" if changed else ""))
    for artefact, found in groupby(rows, key=lambda count: count.artefact):
        group = list(found)
        yield Text(f"{artefact}: {sum(count.stale for count in group)} of {sum(count.rows for count in group)} rows to make again")
        for count in group:
            unknown = f", {count.unknown} of a specification this run has never seen" if count.unknown else ""
            if count.stale or count.unknown:
                yield Text(f"    {count.view}: {count.stale} of {count.rows}{unknown}")


def _marked(change: Change) -> Text:
    text = Text("    ")
    for kind, run in words(change.old, change.new):
        shown = run.replace("\n", "\n    ")
        match kind:
            case "same":
                text.append(_shortened(shown))
            case "old":
                text.append(f"[-{shown}-]", "red")
            case "new":
                text.append(f"{{+{shown}+}}", "green")
    return text


def _shortened(text: str, edge: int = 60) -> str:
    """A long run that stayed, by its two ends."""
    return text if len(text) <= 3 * edge else f"{text[:edge]} ... {text[-edge:]}"


def to_data(old: Spec, new: Spec, changes: Sequence[Change], views: Mapping[str, bool], rows: Sequence[Count]) -> dict[str, Any]:
    """The same as plain data, for JSON."""
    return {
        "old": {"source": old.source, "version": old.version, "hash": old.hash},
        "new": {"source": new.source, "version": new.version, "hash": new.hash},
        "changes": [asdict(change) for change in changes],
        "views": dict(views),
        "rows": [asdict(count) for count in rows],
    }
