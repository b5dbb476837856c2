"""The lint of a specification, and its counts.

In: a `Spec`. Out: `Finding`s with file and line, sorted by place; a table of counts. The rules are listed in
`docs/spec-format.md`. An error is something that would mislead a model or a judge (an id that means two things, a
reference to nothing, a category that does not say what it is about); a warning is something that is merely missed.

Rules about defaults and styles apply where clauses carry dispositions: the OpenAI Model Spec is not asked for either,
nor for examples of its introductions, which carry no authority. Not here: what makes a file unreadable, which is a
`SpecError` of the reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from preceptor.errors import SpecError
from preceptor.records import DISPOSITIONS

if TYPE_CHECKING:
    from preceptor.spec import Category, Spec

TOKEN_LIMIT = 10_000
"""Tokens a routed view may take. The paper's policies have 5,000 to 10,000 tokens each (section 4.1)."""


@dataclass(frozen=True)
class Finding:
    """One complaint of the lint, at a file and a line (counted from 1)."""

    file: str
    line: int
    code: str
    message: str
    severity: Literal["error", "warning"] = "error"


def estimate_tokens(text: str) -> int:
    """Words times 1.3: about right for English prose under the byte-pair vocabularies of current models, low for code."""
    return round(len(text.split()) * 1.3)


def check(spec: Spec, token_limit: int = TOKEN_LIMIT, count_tokens: Callable[[str], int] = estimate_tokens) -> list[Finding]:
    """Lint `spec`. `token_limit` bounds each full routed view, in the tokens that `count_tokens` counts."""
    where = _Where(spec)
    findings = [*spec.noticed, *_ids(spec, where), *_styles(spec, where)]
    for category in spec.categories.values():
        findings += _category(category, where)
        if message := _too_long(spec, category.id, token_limit, count_tokens):
            findings.append(where.finding(category.id, "too-long", message))
    return sorted(findings, key=lambda finding: (finding.file, finding.line, finding.code))


def _too_long(spec: Spec, category: str, token_limit: int, count_tokens: Callable[[str], int]) -> str | None:
    """What is too long, or None. A specification with a limit of its own is held against that one, which its views leave pieces out to fit."""
    if spec.limit is not None:
        try:
            spec.view((category,))
        except SpecError as error:
            return error.what
        return None
    tokens = count_tokens(spec.for_category(category))
    return f"the routed view of {category!r} takes {tokens} tokens, the limit is {token_limit}" if tokens > token_limit else None


def render_findings(findings: list[Finding]) -> str:
    """One line each: `file:line: code message`."""
    return "\n".join(f"{found.file}:{found.line}: {found.code} {found.message}" for found in findings)


def describe(spec: Spec) -> list[tuple[str, int]]:
    """(label, count) rows to print: what the reader counted, then what the specification holds."""
    categories = spec.categories.values()
    dispositions = Counter(clause.disposition for clause in spec.clauses)
    return [
        *spec.counted,
        ("categories", len(categories)),
        ("rules", sum(len(category.clauses) for category in categories)),
        ("general clauses", len(spec.general)),
        ("defaults", sum(category.default is not None for category in categories)),
        *((f"clauses to {key}", dispositions[key]) for key in DISPOSITIONS),
        ("styles", len(spec.styles)),
        ("category styles", sum(len(category.styles) for category in categories)),
        ("terms", sum(len(category.terms) for category in categories)),
        ("examples", sum(len(clause.examples) for clause in spec.clauses)),
        ("exclusions", sum(len(clause.exclusions) for clause in spec.clauses)),
        ("cross-references", len(spec.references)),
        ("longest routed view (estimated tokens)", max(estimate_tokens(spec.for_category(key)) for key in spec.categories)),
    ]


class _Where:
    """Where each id was first declared; an id without a place stands at line 1 of the source."""

    def __init__(self, spec: Spec):
        self.source = spec.source
        self.places = {place.id: place for place in reversed(spec.anchors)}

    def finding(self, of: str, code: str, message: str, severity: Literal["error", "warning"] = "error") -> Finding:
        place = self.places.get(of)
        return Finding(place.file if place else self.source, place.line if place else 1, code, message, severity)


def _ids(spec: Spec, where: _Where) -> Iterator[Finding]:
    for place in spec.anchors:
        first = where.places[place.id]
        if place is not first:
            yield Finding(place.file, place.line, "duplicate-id", f"{place.id!r} is already declared at {first.file}:{first.line}")
    for link in spec.references:
        if link.id not in where.places:
            yield Finding(link.file, link.line, "dangling-reference", f"no heading has the id {link.id!r}")
    for clause in spec.clauses:
        for case in clause.exclusions:
            if case.use in where.places and spec.clause(case.use) is None:
                message = f"an exclusion of {clause.clause!r} refers to {case.use!r}, which is not a clause"
                yield where.finding(clause.clause, "dangling-reference", message)


def _styles(spec: Spec, where: _Where) -> Iterator[Finding]:
    general = {clause.disposition for clause in spec.general}
    for disposition in DISPOSITIONS:
        without = [
            category.id
            for category in spec.categories.values()
            if disposition not in spec.styles
            and disposition not in category.styles
            and disposition in general | {clause.disposition for clause in category.every_clause}
        ]
        if without:
            message = f"no style for {disposition}, which these categories need: {', '.join(without)}"
            yield where.finding(without[0], "no-style", message)


def _category(category: Category, where: _Where) -> Iterator[Finding]:
    if not category.summary:
        yield where.finding(category.id, "no-summary", f"category {category.id!r} has no summary")
    if not category.clauses:
        yield where.finding(category.id, "no-rule", f"category {category.id!r} has no rule", "warning")
    if category.default is None and (not category.clauses or any(clause.disposition for clause in category.clauses)):
        yield where.finding(category.id, "no-default", f"category {category.id!r} does not say what holds when no rule does")
    for clause in category.clauses:
        if not clause.examples and (clause.disposition or clause.authority):
            yield where.finding(clause.clause, "no-example", f"rule {clause.clause!r} has no example", "warning")
