"""The OpenAI Model Spec, read whole.

In: `model_spec.md`, and beside it `examples/*.md` (evaluation prompts, each file tagged to a place in the text by a
footnote such as `[^8ep1]`) and `CHANGELOG.md` (for the version).
Out: a `ModelSpec`: every heading with id and authority; its own text; commentary blocks kept apart, since they do not
instruct the model; every footnote with its example file; every dialogue with its good and bad replies. `to_spec` makes
of it a `Spec` that can be routed and linted like any other.

How it becomes a `Spec`. A category is a first- or second-level section that has sub-sections with an authority; its
clauses are its own introduction and the sections below it, down to the next category. A chapter that holds nothing but
other categories is none itself. The summary of a category is its title and the titles of its clauses, which in this
document are imperatives. Dispositions are None: the document does not sort its sections into comply, refuse and
safe-complete. The red lines and general principles of the overview stand before everything; the section on how to
refuse is the style of refusing. Dialogues become the examples of their clause. The prompts in `examples/` are
evaluation data: they are read and counted, become the `tests` of the `Spec` (each with the category of the section its footnote stands in),
and never become part of a routed view.

Not here: the rendered HTML editions, and earlier editions with other authority names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from preceptor.errors import SpecError
from preceptor.markdown import Heading, Place, heading, links, scan
from preceptor.records import CaseExample, Clause, Message, Meta, Prompt
from preceptor.spec import Category, Spec, Style, read_text
from preceptor.speclint import Finding

Label = Literal["GOOD", "BAD", "OK"]

AUTHORITIES = ("root", "system", "developer", "user", "guideline")

PRINCIPLES = ("red_line_principles", "general_principles")
"""Sections of the overview that stand at the head of every routed view."""

REFUSAL_STYLE = "refusal_style"

_FOOTNOTE = re.compile(r"\[\^([a-z0-9]{4})\]")
_COMMENTARY = re.compile(r'!!!\s+meta\s+"Commentary"')
_CAPTION = re.compile(r"\*\*Example\*\*:?\s*(.*)")
_OPEN = re.compile(r"<(system|developer|user|assistant|tool)\b([^<>]*)>(?:\s*<!--\s*(GOOD|BAD|OK)\b(.*?)-->)?")
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\)")
_VERSION = re.compile(r"^##\s+v?(\d{4}\.\d{2}\.\d{2})", re.MULTILINE)
_EXAMPLES_OF = re.compile(r"Examples for \[\^([a-z0-9]{4})\] in (.*):")


@dataclass(frozen=True)
class Turn:
    """One message of a dialogue."""

    role: str
    """system, developer, user, assistant or tool; `omitted` where the document leaves out turns by `[...]`."""
    text: str


@dataclass(frozen=True)
class Reply:
    """A reply that is held up as good, bad or acceptable, and the comment on why."""

    label: Label
    text: str
    comment: str


@dataclass(frozen=True)
class Dialogue:
    """A conversation and the replies compared at its end. A block that compares twice becomes two dialogues, the second
    of which continues from the first good reply; a block that compares nothing has no replies."""

    caption: str
    line: int
    turns: tuple[Turn, ...]
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Footnote:
    """A tag in the text and the example file it stands for; None where there is no such file."""

    tag: str
    line: int
    file: str | None


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, up to the next heading."""

    id: str
    title: str
    level: int
    line: int
    authority: str | None
    text: str
    """Instructions alone: no commentary, no dialogues, no footnote tags; links are replaced by what they show."""
    commentary: tuple[str, ...]
    dialogues: tuple[Dialogue, ...]
    footnotes: tuple[Footnote, ...]


@dataclass(frozen=True)
class ExampleFile:
    """Evaluation prompts for one footnote. `section` is the title of the section that the file says it belongs to."""

    file: str
    tag: str
    section: str
    prompts: tuple[Dialogue, ...]


@dataclass(frozen=True)
class ModelSpec:
    """The document, section by section, with its example files by tag."""

    source: str
    version: str
    sections: tuple[Section, ...]
    examples: dict[str, ExampleFile]
    references: tuple[Place, ...]

    @property
    def footnotes(self) -> Iterator[Footnote]:
        """Every footnote, in the order of the text."""
        return (footnote for section in self.sections for footnote in section.footnotes)

    @property
    def dialogues(self) -> Iterator[Dialogue]:
        """Every dialogue, in the order of the text."""
        return (dialogue for section in self.sections for dialogue in section.dialogues)

    def unused(self) -> list[ExampleFile]:
        """Example files whose tag stands nowhere in the text."""
        used = {footnote.tag for footnote in self.footnotes}
        return [example for tag, example in self.examples.items() if tag not in used]


def load(path: Path) -> ModelSpec:
    """Read `model_spec.md` with `examples/` and `CHANGELOG.md` beside it, where present. Raises `SpecError`."""
    examples = {str(file): read_text(file) for file in sorted((path.parent / "examples").glob("*.md"))}
    changelog = path.parent / "CHANGELOG.md"
    version = _VERSION.search(read_text(changelog)) if changelog.is_file() else None
    return read(read_text(path), str(path), examples, version.group(1) if version else "")


def read(text: str, source: str, examples: Mapping[str, str], version: str = "") -> ModelSpec:
    """Read the document from its text and its example files (path -> text). Raises `SpecError`."""
    files = {example.tag: example for example in (_example_file(body, file) for file, body in examples.items())}
    drafts, references = _drafts(text, source)
    titles = {draft.heading.id: draft.heading.title for draft in drafts}
    sections = tuple(draft.finish(titles, files) for draft in drafts)
    return ModelSpec(source, version, sections, files, tuple(references))


@dataclass
class _Draft:
    heading: Heading
    text: list[str] = field(default_factory=list)
    commentary: list[list[str]] = field(default_factory=list)
    dialogues: list[Dialogue] = field(default_factory=list)
    tags: list[tuple[str, int]] = field(default_factory=list)

    def finish(self, titles: Mapping[str, str], files: Mapping[str, ExampleFile]) -> Section:
        head = self.heading
        return Section(
            id=head.id,
            title=head.title,
            level=head.level,
            line=head.line,
            authority=head.attributes.get("authority"),
            text=_plain(self.text, titles),
            commentary=tuple(_plain(lines, titles) for lines in self.commentary),
            dialogues=tuple(self.dialogues),
            footnotes=tuple(Footnote(tag, line, files[tag].file if tag in files else None) for tag, line in self.tags),
        )


def _drafts(text: str, source: str) -> tuple[list[_Draft], list[Place]]:
    """One draft per heading, each line in its place: dialogue, commentary or text."""
    drafts: list[_Draft] = []
    references: list[Place] = []
    commentary, caption, fence = False, "", _FenceReader(source)
    for number, line, verbatim in scan(text, source):
        if verbatim:
            block = fence.feed(line, number, caption)
            if block is not None and drafts:
                drafts[-1].dialogues += block
                caption = ""
            continue
        references += links(line, source, number)
        if head := heading(line, source, number):
            drafts.append(_Draft(head))
            commentary = False
            continue
        if not drafts:
            if line:
                raise SpecError("text before the first heading", where=source, line=number)
            continue
        draft = drafts[-1]
        draft.tags += [(tag, number) for tag in _FOOTNOTE.findall(line)]
        commentary = commentary and (not line or line.startswith("    "))
        if _COMMENTARY.fullmatch(line):
            commentary = True
            draft.commentary.append([])
        elif commentary:
            draft.commentary[-1].append(line[4:])
        elif found := _CAPTION.fullmatch(line):
            caption = found.group(1)
        else:
            draft.text.append(line)
    return drafts, references


class _FenceReader:
    """Collects the lines of a fence; at its end, the dialogues in it."""

    def __init__(self, file: str):
        self.file, self.opened, self.mark, self.lines = file, 0, "", []

    def feed(self, line: str, number: int, caption: str) -> list[Dialogue] | None:
        """None while the fence goes on, its dialogues at the closing line."""
        if not self.mark:
            self.opened, self.mark, self.lines = number, line.strip()[:3], []
            return None
        if line.strip().strip(self.mark[0]) or not line.strip().startswith(self.mark):
            self.lines.append(line)
            return None
        self.mark = ""
        return dialogues(self.lines, self.file, self.opened, caption)


def dialogues(lines: Sequence[str], file: str, opened: int, caption: str) -> list[Dialogue]:
    """The dialogues in a fenced block whose opening line is `opened`. Raises `SpecError` for a message never closed."""
    turns: list[Turn] = []
    replies: list[Reply] = []
    found: list[Dialogue] = []
    rest = enumerate(lines, opened + 1)
    for number, line in rest:
        message = _OPEN.fullmatch(line.strip())
        if message:
            body = _until(f"</{message.group(1)}>", rest, file, number)
            if message.group(3):
                replies.append(Reply(message.group(3), body, message.group(4).strip(" :")))  # pyright: ignore[reportArgumentType]
            else:
                turns.append(Turn(message.group(1), body))
        elif line.strip() == "</comparison>":
            found.append(Dialogue(caption, opened, tuple(turns), tuple(replies)))
            good = next((reply for reply in replies if reply.label == "GOOD"), None)
            turns, replies = turns + ([Turn("assistant", good.text)] if good else []), []
        elif line.strip() == "[...]":
            turns.append(Turn("omitted", "[...]"))
        elif line.strip() not in ("", "<comparison>"):
            raise SpecError(f"{line.strip()[:40]!r} stands outside every message", where=file, line=number)
    return found or [Dialogue(caption, opened, tuple(turns), tuple(replies))]


def _until(closing: str, rest: Iterator[tuple[int, str]], file: str, opened: int) -> str:
    body = []
    for _, line in rest:
        if line.strip() == closing:
            return "\n".join(body).strip("\n")
        body.append(line)
    raise SpecError(f"the message opened here is never closed by {closing}", where=file, line=opened)


def _example_file(text: str, file: str) -> ExampleFile:
    first, prompts, caption, fence = None, [], "", _FenceReader(file)
    for number, line, verbatim in scan(text, file):
        if verbatim:
            prompts += fence.feed(line, number, caption) or []
        elif found := _CAPTION.fullmatch(line):
            caption = found.group(1)
        elif line and first is None:
            first = _EXAMPLES_OF.fullmatch(line)
    if first is None:
        raise SpecError("not an example file", where=file, line=1, hint="expected `Examples for [^tag] in Section title:`")
    return ExampleFile(file, first.group(1), first.group(2), tuple(prompts))


def _plain(lines: Sequence[str], titles: Mapping[str, str]) -> str:
    """Text without footnote tags; `[?](#id)` becomes the title of that section, any other link its label."""
    text = re.sub(r"\n{3,}", "\n\n", _FOOTNOTE.sub("", "\n".join(lines)).strip("\n"))
    return _LINK.sub(lambda link: titles.get(link.group(2)[1:], link.group(2)) if link.group(1) == "?" else link.group(1), text)


def counts(document: ModelSpec) -> list[tuple[str, int]]:
    """(label, count) rows: what was read, nothing left out."""
    sections, footnotes, found = document.sections, list(document.footnotes), list(document.dialogues)
    authority = Counter(section.authority for section in sections)
    labels = Counter(reply.label for dialogue in found for reply in dialogue.replies)
    compared = [dialogue for dialogue in found if dialogue.replies]
    return [
        ("headings", len(sections)),
        ("headings with an id", sum(bool(section.id) for section in sections)),
        *((f"authority {name}", authority[name]) for name in AUTHORITIES),
        ("no authority", authority[None]),
        ("commentary blocks", sum(len(section.commentary) for section in sections)),
        ("footnote tags", len(footnotes)),
        ("footnote tags with an example file", sum(footnote.file is not None for footnote in footnotes)),
        ("footnote tags without one", sum(footnote.file is None for footnote in footnotes)),
        ("example files", len(document.examples)),
        ("example files used", len(document.examples) - len(document.unused())),
        ("example files unused", len(document.unused())),
        ("evaluation prompts in example files", sum(len(example.prompts) for example in document.examples.values())),
        ("example blocks", len({dialogue.line for dialogue in found})),
        ("dialogues with replies", len(compared)),
        ("dialogues with a good and a bad reply", sum({"GOOD", "BAD"} <= {reply.label for reply in d.replies} for d in compared)),
        ("good replies", labels["GOOD"]),
        ("bad replies", labels["BAD"]),
        ("acceptable replies", labels["OK"]),
    ]


def findings(document: ModelSpec) -> list[Finding]:
    """What only this format can get wrong: headings, footnotes and example files that do not fit together."""
    titles = {section.title for section in document.sections}
    found = []
    for section in document.sections:
        if not section.id:
            found.append(Finding(document.source, section.line, "no-id", f"the heading {section.title!r} has no id"))
        if section.authority not in (None, *AUTHORITIES):
            found.append(Finding(document.source, section.line, "unknown-authority", f"authority={section.authority}"))
        for footnote in section.footnotes:
            if footnote.file is None:
                message = f"footnote [^{footnote.tag}] in {section.id!r} has no example file"
                found.append(Finding(document.source, footnote.line, "untied-footnote", message, "warning"))
    for example in document.unused():
        message = f"no footnote [^{example.tag}] in the text; the file names the section {example.section!r}"
        found.append(Finding(example.file, 1, "unused-example-file", message, "warning"))
    for example in document.examples.values():
        if example.section not in titles:
            message = f"the file names the section {example.section!r}, which has another title now"
            found.append(Finding(example.file, 1, "stale-section-title", message, "warning"))
    return found


def to_spec(document: ModelSpec) -> Spec:
    """The document as a `Spec`, as the head of this module describes. Raises `SpecError` when nothing is a category."""
    members = _categories(document.sections)
    if not members:
        raise SpecError("no category", where=document.source, hint="expected sections with an authority below other sections")
    by_id = {section.id: section for section in document.sections}
    refusal = by_id.get(REFUSAL_STYLE)
    return Spec(
        name="OpenAI Model Spec",
        version=document.version,
        source=document.source,
        principles="\n\n".join(by_id[key].text for key in PRINCIPLES if key in by_id),
        styles={"refuse": Style(refusal.id, "refuse", refusal.text)} if refusal else {},
        general=(),
        categories={key: _category(by_id[key], sections) for key, sections in members.items()},
        anchors=tuple(Place(section.id, document.source, section.line) for section in document.sections if section.id),
        references=document.references,
        noticed=tuple(findings(document)),
        counted=tuple(counts(document)),
        tests=tuple(tests(document, members)),
    )


def tests(document: ModelSpec, members: Mapping[str, Sequence[Section]]) -> Iterator[Prompt]:
    """The prompts of the example files, in the order of their names.

    Each belongs to the section where its footnote stands, or, where the text has no such footnote, to the one whose title the file gives; its
    category is the one that has this section among its `members`, and stays empty where there is none.
    """
    homes = {section.title: section.id for section in document.sections}
    tagged = {footnote.tag: section.id for section in document.sections for footnote in section.footnotes}
    category_of = {section.id: category for category, found in members.items() for section in found}
    for example in document.examples.values():
        section = tagged.get(example.tag) or homes.get(example.section, "")
        for number, dialogue in enumerate(example.prompts):
            meta: Meta = {"clause": section, "file": Path(example.file).name, "number": number, "caption": dialogue.caption}
            yield Prompt(messages=_messages(dialogue, example.file), category=category_of.get(section, ""), split="", meta=meta)


def _messages(dialogue: Dialogue, file: str) -> tuple[Message, ...]:
    try:
        return tuple(Message.model_validate({"role": turn.role, "content": turn.text}) for turn in dialogue.turns)
    except ValidationError:
        raise SpecError("a test leaves out turns by `[...]`: nobody can answer it", where=file, line=dialogue.line) from None


def _categories(sections: Sequence[Section]) -> dict[str, list[Section]]:
    """Category id -> the sections that become its clauses, in the order of the text."""
    above: list[Section] = []
    members: dict[str, list[Section]] = {}
    for place, section in enumerate(sections):
        above = [*(upper for upper in above if upper.level < section.level), section]
        home = next((upper for upper in reversed(above) if upper.id in members and upper is not section), None)
        if section.level <= 2 and _instructs_below(sections, place):
            members[section.id] = [section]
        elif home:
            members[home.id].append(section)
    worded = {key: [section for section in found if section.text] for key, found in members.items()}
    return {key: found for key, found in worded.items() if found}


def _instructs_below(sections: Sequence[Section], place: int) -> bool:
    for section in sections[place + 1 :]:
        if section.level <= sections[place].level:
            return False
        if section.authority:
            return True
    return False


def _category(section: Section, members: Sequence[Section]) -> Category:
    titles = "; ".join(member.title for member in members if member is not section)
    clauses = tuple(_clause(member, section.id) for member in members)
    return Category(section.id, section.title, f"{section.title}: {titles}" if titles else section.title, clauses=clauses)


def _clause(section: Section, category: str) -> Clause:
    examples = tuple(example for dialogue in section.dialogues for example in _examples(dialogue))
    return Clause(
        clause=section.id,
        category=category,
        disposition=None,
        text=f"{section.title}.\n{section.text}",
        examples=examples,
        authority=section.authority,
    )


def _examples(dialogue: Dialogue) -> Iterator[CaseExample]:
    """Good and bad replies in pairs, so that none is lost; a lone user turn stands without its role."""
    asked = [turn.text if len(dialogue.turns) == 1 else f"{turn.role}: {turn.text}" for turn in dialogue.turns]
    good = [reply.text for reply in dialogue.replies if reply.label == "GOOD"]
    bad = [reply.text for reply in dialogue.replies if reply.label == "BAD"]
    for one, other in zip_longest(good, bad):
        yield CaseExample(user="\n".join(asked), good=one, bad=other)
