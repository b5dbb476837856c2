"""What a model reads of a specification for one prompt: the routed view (paper, section 2.2), and how it is made to fit a limit.

In: a `Spec`, the categories of a prompt (the main one first), how much detail, and a limit in tokens with what counts them. Out: a
`View`: the text, its tokens, and what was left out. Every category that is not routed stands in it by its summary.

The one idea: a view that is too long loses whole pieces in a stated order, and no more of them than it must:

    1. examples, then rationales, of the further categories
    2. examples, then rationales, of the main category
    3. summaries of the categories that are not routed, down to their titles
    4. the rules of the further categories, the last category first: it then stands by its title

Within a kind the longest goes first, so that the fewest go. Principles, styles, general clauses and the rules of the main category are never
left out: where they alone do not fit there is a `SpecError` with the numbers, and nothing is cut in the middle.

The same categories under the same limit give the same text, byte for byte: servers and engines compute it once. Not here: which
categories a prompt has (`routing`), and what is said around the view (`wording`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from preceptor.errors import SpecError
from preceptor.records import DISPOSITIONS, Clause, Disposition, content_id

if TYPE_CHECKING:
    from preceptor.spec import Category, Spec, Style

Detail = Literal["full", "rules"]
Count = Callable[[str], int]


@dataclass(frozen=True)
class Limit:
    """How long a view may be, in tokens."""

    max_tokens: int
    count: Count = field(compare=False)
    counter: str
    """What counts, for people: `tokenizer of models/Qwen3-8B`, `estimate`."""


@dataclass(frozen=True)
class View:
    """A routed view and what it lacks."""

    text: str
    tokens: int | None = None
    """By the limit's count; None where there is no limit."""
    left_out: Mapping[str, int] | None = None
    """Kind of piece -> how many were left out; None where nothing was."""

    @property
    def hash(self) -> str:
        """Identity of the view: rows that were made from another one are stale."""
        return content_id(self.text)


class Piece(NamedTuple):
    """Something that can be left out. `clause` and `part` are places, counted from 0."""

    kind: Literal["examples", "rationales", "summaries", "rules"]
    category: str
    clause: int = 0
    part: int = 0


NOTHING: AbstractSet[Piece] = frozenset()


def key(categories: Sequence[str]) -> str:
    """Names the view of these categories: `privacy`, or `privacy+harassment` with the main one first."""
    return "+".join(categories)


def fit(spec: Spec, categories: Sequence[str], detail: Detail, limit: Limit | None) -> View:
    """The view of `categories` that leaves out the fewest pieces.

    Raises `SpecError` for a category that the specification does not have, and when even the smallest view is too long.
    """
    for category in categories:
        if category not in spec.categories:
            raise SpecError(f"there is no category {category!r}", where=spec.source, hint=f"expected one of: {', '.join(spec.categories)}")
    whole = render(spec, categories, detail)
    if limit is None:
        return View(whole)
    tokens = limit.count(whole)
    if tokens <= limit.max_tokens:
        return View(whole, tokens)
    pieces = list(_pieces(spec, categories, detail))
    smallest = limit.count(render(spec, categories, detail, frozenset(pieces)))
    if smallest > limit.max_tokens:
        raise SpecError(
            f"the view of {key(categories)!r} takes {tokens} tokens and its smallest form {smallest}; spec.max_tokens is {limit.max_tokens}",
            where=spec.source,
            hint=f"raise spec.max_tokens or divide the category; counted by {limit.counter}",
        )
    return _fewest_left_out(spec, categories, detail, limit, pieces)


def _fewest_left_out(spec: Spec, categories: Sequence[str], detail: Detail, limit: Limit, pieces: Sequence[Piece]) -> View:
    """Bisection over how many pieces go. A tokenizer may count one token more for a shorter text, so that the last step is checked."""
    few, many = 0, len(pieces)  # `few` are too few, `many` are enough
    while many - few > 1:
        middle = (few + many) // 2
        enough = limit.count(render(spec, categories, detail, frozenset(pieces[:middle]))) <= limit.max_tokens
        few, many = (few, middle) if enough else (middle, many)
    text = render(spec, categories, detail, frozenset(pieces[:many]))
    return View(text, limit.count(text), dict(Counter(piece.kind for piece in pieces[:many])))


def _pieces(spec: Spec, categories: Sequence[str], detail: Detail) -> Iterator[Piece]:
    """Everything that may be left out, in the order of the head of this module."""
    main, further = categories[0], categories[1:]
    if detail == "full":
        for group in (further, (main,)):
            yield from _longest_first((piece, text) for category in group for piece, text in _examples(spec.categories[category]))
            yield from _longest_first((piece, text) for category in group for piece, text in _rationales(spec.categories[category]))
    rest = [category for category in spec.categories.values() if category.id not in categories]
    yield from _longest_first((Piece("summaries", category.id), category.summary) for category in rest)
    yield from (Piece("rules", category) for category in reversed(further))


def _longest_first(found: Iterator[tuple[Piece, str]]) -> list[Piece]:
    return [piece for piece, _ in sorted(found, key=lambda item: -len(item[1]))]


def _examples(category: Category) -> Iterator[tuple[Piece, str]]:
    for place, clause in enumerate(category.every_clause):
        for part, example in enumerate(clause.examples):
            yield Piece("examples", category.id, place, part), f"{example.user}{example.good or ''}{example.bad or ''}"


def _rationales(category: Category) -> Iterator[tuple[Piece, str]]:
    for place, clause in enumerate(category.every_clause):
        if clause.rationale:
            yield Piece("rationales", category.id, place), clause.rationale


def estimate(text: str) -> int:
    """Tokens of `text`, on the high side: a limit must hold under a tokenizer that is not here. 1.3 per word or one for four bytes of UTF-8,
    whichever is more: English prose has about 4.5 bytes per token under current vocabularies, and scripts without spaces have no words."""
    return max(round(len(text.split()) * 1.3), -(-len(text.encode()) // 4))


# Rendering


def render(spec: Spec, categories: Sequence[str], detail: Detail, without: AbstractSet[Piece] = NOTHING) -> str:
    """The view without the pieces `without`, and without a line end at its end.

    `rules` has the rules of the routed categories alone; `full` adds summary, terms, rationales and examples. The main category's own styles
    replace the general ones; those of a further category stand with its rules.
    """
    routed = [spec.categories[name] for name in categories if Piece("rules", name) not in without]
    others = [category for category in spec.categories.values() if category not in routed]
    styles: dict[Disposition, Style] = {**spec.styles, **routed[0].styles}
    lines = head(spec, others, styles, without)
    for category in routed:
        lines += [f"Policy for {category.id}:"]
        lines += [f"  Style, {name}: {_line(own.text)}" for name, own in category.styles.items() if own != styles[name]]
        if detail == "full":
            lines += [f"  In short: {_line(category.summary)}"] if category.summary else []
            lines += [f"  Term: {_indent(term)}" for term in category.terms]
        for place, clause in enumerate(category.every_clause):
            lines += (
                [_rule(spec, clause)] if detail == "rules" else _rule_in_full(spec, clause, Piece("examples", category.id, place), without)
            )
    return "\n".join(lines)


def head(
    spec: Spec, categories: Sequence[Category], styles: Mapping[Disposition, Style], without: AbstractSet[Piece] = NOTHING
) -> list[str]:
    """What stands above the policy: principles, other categories in one line each, style, general clauses."""
    short = [f"- {category.id}: {_line(_short(category, without))}" for category in categories]
    style = [f"- {key}: {_line(styles[key].text)}" for key in DISPOSITIONS if key in styles]
    parts = (("Policies in short:", short), ("Style:", style), ("General:", [_rule(spec, clause) for clause in spec.general]))
    return ([spec.principles] if spec.principles else []) + [line for title, part in parts if part for line in (title, *part)]


def _short(category: Category, without: AbstractSet[Piece]) -> str:
    titled = Piece("summaries", category.id) in without or Piece("rules", category.id) in without
    return category.title if titled else category.summary


def _tag(spec: Spec, clause_id: str) -> str:
    clause = spec.clause(clause_id)
    return f"[{clause_id}]" if clause is None or clause.disposition is None else f"[{clause_id}: {clause.disposition}]"


def _unless(spec: Spec, clause: Clause) -> str:
    """The exceptions, each with the clause that holds instead and its disposition: nobody has to look it up elsewhere in the view."""
    cases = [_line(case.text) + (f" ({_tag(spec, case.use)[1:-1]})" if case.use else "") for case in clause.exclusions]
    return " unless " + " or ".join(cases) if cases else ""


def _rule(spec: Spec, clause: Clause) -> str:
    return f"- {_line(clause.text)} {_tag(spec, clause.clause)}{_unless(spec, clause)}"


def _rule_in_full(spec: Spec, clause: Clause, place: Piece, without: AbstractSet[Piece]) -> list[str]:
    lines = [f"- {_indent(clause.text)} {_tag(spec, clause.clause)}{_unless(spec, clause)}"]
    lines += [f"  Authority: {clause.authority}"] if clause.authority else []
    lines += [f"  Rationale: {_indent(clause.rationale)}"] if clause.rationale and place._replace(kind="rationales") not in without else []
    for number, example in enumerate(clause.examples):
        if place._replace(part=number) not in without:
            parts = (("Example", example.user), ("Good", example.good), ("Bad", example.bad))
            lines += [f"  {name}: {_indent(text)}" for name, text in parts if text]
    return lines


def _line(text: str) -> str:
    return " ".join(text.split())


def _indent(text: str) -> str:
    return text.replace("\n", "\n    ")
