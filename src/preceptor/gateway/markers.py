"""Texts that read as a marker of reasoning, found letter by letter in a text that is still being written.

In: the markers of a model's turn, then characters.  Out: where a marker begins once it is complete, and until then whether one may be coming.

A marker counts in any letter case and with white space or invisible characters inside, as in `chat.split`. `guarded`, it counts as well with
its characters spelled as entities (`&lt;think&gt;`, `&#60;`, escaped twice) or as look-alikes (full-width forms, other brackets), and so do
the markers of every other known family: a model that was trained on several writes those of all. Percent-encoding is none, nor are a tag
with attributes or letters of another alphabet: what a reader, or a client that decodes once more, would not take for a tag.

The one idea: all markers in all spellings are one graph, and what has been read is a set of nodes in it. A text of any length leaves behind
some nodes and nothing else, so white space without end inside a tag costs neither memory nor a second look.

Not here: which marker may stand where (`chat`, `splitter`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from preceptor.chat import INVISIBLE

NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "reflection", "re\ufb02ection", "scratchpad", "antthinking", "seed:think", "seed:cot_budget_reflect", "longcat_think", "mm:think")  # fmt: skip
"""Tags of known families, without their brackets; once with the ligature that fonts and converters write for two letters."""
FAMILIES = (
    *(f"<{slash}{name}>" for name in NAMES for slash in ("", "/")),
    "[think]",
    "[/think]",
    "◁think▷",
    "◁/think▷",
    "<channel|>",
    "<turn|>",
)
"""Their markers, but for those that begin with a bar (`<|channel|>`, `<|im_start|>`, `<|channel>`), of which any name is one."""
GLUED = ("analysis", "commentary")
"""What is left at the beginning of a text when the channel markers of gpt-oss are decoded away: `analysisThe user asks`."""
glued = re.compile(r"\s*(?:" + "|".join(GLUED) + r""")(?=[\w"'“‘(\[{<*#`])""").match

_UNSEEN = INVISIBLE + "\u00ad\u034f\u061c\u180b-\u180e\u200e\u200f\u202a-\u202e\u2061-\u206f\ufe00-\ufe0f\U000e0000-\U000e01ef"
"""`INVISIBLE`, guarded: everything that formats and is not seen."""
_LIKE = {"<": "‹⟨〈˂ᐸ❮❬", ">": "›⟩〉˃ᐳ❯❭", "|": "∣ǀ│❘", "/": "⁄∕⧸", "◁": "◀⊲◃", "▷": "▶⊳▹", "i": "ıİ"}
"""Look-alikes beside those that compatibility normalisation (NFKC) makes equal."""
_COMPATIBLE = (
    (0xAA, 0xBB), (0x17F, 0x180), (0x2B0, 0x2E4), (0x1D2C, 0x1DC0), (0x2000, 0x2190), (0x2460, 0x2500), (0x2C7C, 0x2C7E), (0x3000, 0x3010),
    (0xA69C, 0xA69E), (0xA770, 0xA771), (0xA7F1, 0xA7FA), (0xAB5C, 0xAB6A), (0xFE10, 0xFE70), (0xFF00, 0xFFF0), (0x10780, 0x107BB),
    (0x1CCD6, 0x1CCFA), (0x1D400, 0x1D800), (0x1E030, 0x1E06E), (0x1F100, 0x1F1FF), (0x1FBF0, 0x1FBFA),
)  # fmt: skip
"""Blocks of characters that NFKC turns into single ASCII characters."""
_ENTITIES = {"<": ("lt",), ">": ("gt",), "/": ("sol",), "|": ("vert", "verbar"), "[": ("lsqb", "lbrack"), "]": ("rsqb", "rbrack"), ":": ("colon",), "_": ("lowbar",)}  # fmt: skip
_SPELLING = "&#;0123456789abcdefghijklmnopqrstuvwxyz<|>"
"""What entities and `<|name|>` are written with."""
_NAME, _ANY = "[\\w▁]", "any"
"""A character of a name, and the edge that each of them takes."""
LOOK = 5
"""Characters after the first by which a marker is told from other brackets."""
_REMEMBERED = 4096
"""Characters whose reading is kept; a hostile text has a million different ones."""

Threads = dict[int, int]
"""Nodes reached, and for each where the earliest marker that may have come so far begins."""


@lru_cache(maxsize=16)
def marks(markers: tuple[str, ...], guarded: bool = False) -> Marks:
    """Those of one kind of turn, built once."""
    return Marks(markers, guarded)


def _folds() -> dict[str, str]:
    """Look-alikes, each with what it is taken for."""
    found = {other: char for char, others in _LIKE.items() for other in others}
    for first, end in _COMPATIBLE:
        for char in map(chr, range(first, end)):
            plain = unicodedata.normalize("NFKC", char).lower()
            if plain != char and len(plain) == 1 and plain.isascii() and plain.isprintable() and plain != " ":
                found.setdefault(char, plain)
    return found


def _cases(char: str) -> list[str]:
    """All that matches a character when letter case is ignored."""
    own = re.compile(re.escape(char), re.IGNORECASE)
    near = dict.fromkeys((char, char.lower(), char.upper(), *"İıſ\u212a") if char.isascii() else map(chr, range(0x11000)))
    return list(dict.fromkeys((char, *(other for other in near if len(other) == 1 and own.fullmatch(other)))))


def _alike(texts: Iterable[str], guarded: bool) -> dict[str, list[str]]:
    """The characters of some texts, and for each all that it may be written as."""
    folds = _folds() if guarded else {}
    found: dict[str, list[str]] = {}
    for char in dict.fromkeys("".join(texts)):
        plain = folds.get(char, char)
        if not any(plain in others for others in found.values()):
            found[plain] = _cases(plain)
    for other, plain in folds.items():
        for others in found.values():
            if plain in others and other not in others:
                others.append(other)
    return found


def _decimal(char: str) -> list[str]:
    """Numbers of a character, as in `&#60;`."""
    return sorted({str(ord(other)) for other in (char, char.lower(), char.upper()) if len(other) == 1})


def _hexadecimal(char: str) -> list[str]:
    """The same, as in `&#x3c;`."""
    return sorted({f"{ord(other):x}" for other in (char, char.lower(), char.upper()) if len(other) == 1})


class Marks:
    """The markers of one kind of turn. `marks` keeps them: building takes milliseconds. Raises `ValueError` for an empty marker."""

    def __init__(self, markers: tuple[str, ...], guarded: bool):
        if not markers or not all(markers):
            raise ValueError("a marker must have characters")
        texts = tuple(dict.fromkeys((*markers, *(FAMILIES if guarded else ()))))
        self._guarded, self._unseen = guarded, _UNSEEN if guarded else INVISIBLE
        self._alike = _alike((*texts, _SPELLING) if guarded else texts, guarded)
        self._fold = {other: char for char, others in self._alike.items() for other in others}
        self._symbols: dict[str, tuple[str, bool, bool]] = {}
        self._name, self.unseen = re.compile(_NAME), re.compile(f"[{self._unseen}]+")
        self._edges: list[dict[str, list[int]]] = [{}]
        self._known: dict[tuple[int, str, bool], int] = {}
        self._soft: set[int] = set()
        """Nodes between two characters of a marker, where what is not seen may stand."""
        self._final: set[int] = set()
        for text in texts:
            self._draw(text)
        if guarded:
            self._draw_name()
        self.spaced = any(self.unseen.match(char) for text in texts for char in text)
        """White space may be part of a marker."""
        self.shortest = min(map(len, (*texts, *(("<|x>",) if guarded else ()))))
        """Characters of the shortest marker, in any spelling."""
        self.suspicious = re.compile(self._beginnings())
        """Finds where a marker may begin, quickly: what comes before it certainly is none."""

    def skip(self, text: str, at: int) -> int:
        """The end of what is not seen from `at` on: `step` would read each of it to the same effect, where none of it belongs to a marker."""
        run = None if self.spaced else self.unseen.match(text, at)
        return run.end() if run else at

    def _beginnings(self) -> str:
        """The first character of a marker, and after it `LOOK` more or the end: most brackets of a text are those of something else."""
        first = "".join(map(self._class, self._edges[0]))
        nodes = {node for ends in self._edges[0].values() for node in ends}
        if self.spaced or nodes & self._final:
            return f"[{first}]"
        second = "".join(map(self._class, dict.fromkeys(symbol for node in nodes for symbol in self._edges[node])))
        return f"[{first}](?![^{second}{self._unseen}]){self._ahead(nodes, LOOK)}"

    def _ahead(self, nodes: set[int], depth: int) -> str:
        """What may follow where a marker has come as far as `nodes`. It takes too much rather than too little: an entity inside is not looked into."""
        symbols = dict.fromkeys(symbol for node in nodes for symbol in self._edges[node])
        if depth == 0 or nodes & self._final or _ANY in symbols:
            return ""
        further: dict[str, str] = {}  # from what follows to the characters that it follows on
        for symbol in symbols:
            reached = {to for node in nodes for to in self._edges[node].get(symbol, ())}
            after = "" if symbol == "&" else self._ahead(reached, depth - 1)
            further[after] = further.get(after, "") + self._class(symbol)
        unseen = f"[{self._unseen}]*+" if nodes & self._soft else ""
        none = f"(?![^{''.join(further.values())}])"  # refused by one class before each is tried: most are
        return f"{unseen}{none}(?:{'|'.join(f'[{chars}]{after}' for after, chars in further.items())}|\\Z)"

    def _class(self, char: str) -> str:
        """All that is taken for `char`. Beyond the basic plane a range has to do: `re` looks through single ones there one after the other."""
        near = "".join(re.escape(other) for other in self._alike[char] if other <= "\uffff")
        return near + ("\U00010000-\U0001ffff" if any(other > "\uffff" for other in self._alike[char]) else "")

    def step(self, threads: Threads, char: str, at: int) -> tuple[Threads, int | None]:
        """What may still become a marker after `char`, which stands at position `at`, and where the earliest marker begins that it completes."""
        symbol, unseen, name = self._symbols.get(char) or self._symbol(char)
        reached: Threads = {}
        for node, start in threads.items():
            edges = self._edges[node]
            ends = (*edges.get(symbol, ()), *edges.get(_ANY, ())) if name else edges.get(symbol, ())
            for to in (*ends, node) if unseen and node in self._soft else ends:
                if start < reached.get(to, at):
                    reached[to] = start
        for to in self._edges[0].get(symbol, ()):
            reached.setdefault(to, at)
        if self._final.isdisjoint(reached):
            return reached, None
        return reached, min([reached.pop(node) for node in self._final & reached.keys()])

    def _symbol(self, char: str) -> tuple[str, bool, bool]:
        """What a character is taken for, whether it is not seen, whether it may stand in a name."""
        if len(self._symbols) >= _REMEMBERED:
            self._symbols.clear()
        found = self._fold.get(char, char), self.unseen.match(char) is not None, self._name.match(char) is not None
        self._symbols[char] = found
        return found

    def _draw(self, text: str) -> None:
        node = 0
        for char in text:
            node = self._drawn(node, char)
        self._final.add(node)

    def _draw_name(self) -> None:
        node = self._drawn(self._drawn(0, "<"), "|")
        inside = self._to(node, _ANY)
        self._soft.add(inside)
        self._edge(inside, _ANY, inside)
        self._draw_numbers(node, inside)
        self._draw_numbers(inside, inside)
        self._final.add(self._drawn(inside, ">"))
        self._final.add(self._drawn(self._drawn(inside, "|"), ">"))

    def _draw_numbers(self, node: int, to: int) -> None:
        """Any character of a name as an entity; which one does not matter."""
        ampersand = self._path(node, "&")
        self._edge(self._path(ampersand, "amp"), ";", ampersand)
        number = self._path(ampersand, "#")
        for base, digits in ((number, "0123456789"), (self._path(number, "x"), "0123456789abcdef")):
            more = self._to(base, f"{_ANY} digits", inside=True)
            for digit in digits:
                for before in (base, more):
                    self._edge(before, digit, more)
                    self._edge(before, digit, to)
            self._edge(more, ";", to)

    def _drawn(self, node: int, char: str) -> int:
        """The node behind `char`, which is drawn in every spelling."""
        known, to = self._knows(node, char), self._to(node, char)
        if not known:
            self._soft.add(to)
            if self._guarded:
                self._draw_entities(node, char, to)
        return to

    def _draw_entities(self, node: int, char: str, to: int) -> None:
        ampersand = self._path(node, "&")
        self._edge(self._path(ampersand, "amp"), ";", ampersand)
        number = self._path(ampersand, "#")
        self._edge(number, "0", number)
        sixteen = self._path(number, "x")
        self._edge(sixteen, "0", sixteen)
        for base, words in ((ampersand, _ENTITIES.get(char, ())), (number, _decimal(char)), (sixteen, _hexadecimal(char))):
            for word in words:
                before = self._path(base, word[:-1])
                self._edge(before, word[-1], to)
                self._edge(self._path(before, word[-1]), ";", to)

    def _path(self, node: int, text: str) -> int:
        """The node behind some characters inside an entity."""
        for char in text:
            node = self._to(node, char, inside=True)
        return node

    def _knows(self, node: int, symbol: str) -> bool:
        return (node, self._fold.get(symbol, symbol), False) in self._known

    def _to(self, node: int, symbol: str, *, inside: bool = False) -> int:
        """Where an edge leads; a new node if there is none."""
        key = node, self._fold.get(symbol, symbol), inside
        if key not in self._known:
            self._known[key] = len(self._edges)
            self._edges.append({})
            self._edge(node, symbol, self._known[key])
        return self._known[key]

    def _edge(self, node: int, symbol: str, to: int) -> None:
        ends = self._edges[node].setdefault(self._fold.get(symbol, symbol), [])
        if to not in ends:
            ends.append(to)
