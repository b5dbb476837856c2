"""The splitter of a stream: what `chat.split` says of the whole, cut anywhere; and no character of reasoning in an answer, ever."""

from __future__ import annotations

import random
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import word_tokenizer

from preceptor import chat
from preceptor.chat import Renderer
from preceptor.gateway import markers
from preceptor.gateway.markers import FAMILIES, Marks, marks
from preceptor.gateway.splitter import HOLD, ByteSplitter, Piece, Splitter, Tags
from preceptor.serve.wire import reads_like_reasoning

PLAIN = Tags(guarded=False)
CHANNELS = Tags(
    "<|channel|>analysis<|message|>",
    "<|end|><|start|>assistant<|channel|>final<|message|>",
    ("<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
    guarded=False,
)
CANARY = "\ue000"
"""A character that the reasoning is full of and that stands nowhere else."""


def joined(pieces: list[Piece], kind: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == kind)


def run(
    text: str, cuts: list[int], finished: bool, tags: Tags = PLAIN, *, prefilled: bool = False, thinking: bool = True
) -> tuple[Splitter, list[Piece]]:
    """Feed `text` cut at `cuts`; the splitter, and what it let out. Checks what holds for every stream."""
    splitter = Splitter(tags, prefilled=prefilled, thinking=thinking)
    found: list[Piece] = []
    for start, end in pairwise([0, *sorted(cuts), len(text)]):
        found += splitter.feed(text[start:end])
        assert len(splitter._held) <= max(HOLD, len(tags.open), len(tags.close))
    before = splitter.status
    found += splitter.end(finished)
    assert before in (None, "malformed", splitter.status)
    assert splitter.status is not None
    assert (splitter.detail == "") == (splitter.status == "ok")
    assert all(piece.text for piece in found)
    assert splitter.feed("more</think>more") == splitter.end(True) == []
    return splitter, found


def agrees(text: str, cuts: list[int], finished: bool, tags: Tags = PLAIN, *, prefilled: bool = False, thinking: bool = True) -> None:
    """The status of the whole; where it is ok, its answer; and nowhere more than what `chat.split` would call reasoning or answer."""
    whole = chat.split(
        text, finished=finished, prefilled=prefilled, thinking=thinking, open_tag=tags.open, close_tag=tags.close, markers=tags.markers
    )
    splitter, pieces = run(text, cuts, finished, tags, prefilled=prefilled, thinking=thinking)
    assert splitter.status == whole.status, (splitter.detail, whole.detail)
    if whole.status == "ok":
        assert joined(pieces, "answer").strip() == whole.answer
    if whole.status in ("ok", "empty", "truncated"):
        assert joined(pieces, "reasoning").strip() == whole.reasoning
    assert [piece.kind for piece in pieces] == sorted((piece.kind for piece in pieces), reverse=True)


TEXTS = [
    "<think>why</think>yes",
    " \n<think>\nwhy\n</think>\n\n größer 漢字 😀 \n",
    "<think></think>yes",
    "<think>why</think> \n",
    "<think>why</think>",
    "<think>why",
    "<think>why</thin",
    "<thi",
    "",
    " \n",
    "yes",
    "yes <think>why</think>yes",
    "why</think>yes",
    "<THINK>why</THINK>yes",
    "<think>why</THINK>yes</think>no",
    "<think>why< / think>yes</think>no",
    "<think>a<think>b</think>c</think>d",
    "<think>a</think>b<think>c</think>d",
    "<think>a</think>b</think>c",
    "<think>a</think>b</think",
    "<think>a</think>b < \u200bTHINK\ufeff >c",
    "<think>a</think>b<thin k>c",
    "<think>a</think>1 < 2 and <b>bold</b> <<think <think",
    "<think>a<</think>b",
    "<think>a<think</think>b",
    "<think>a< t h</think>b",
    "<think>a</ᵗhink>b</think>c",
    "<think>a</thınK>b</think>c",
    "<think>😀</think>😀</THİNK>",
]


@pytest.mark.parametrize("text", TEXTS)
def test_cut_at_every_place_and_every_two_places(text: str) -> None:
    for finished in (True, False):
        for prefilled, thinking in ((False, True), (True, True), (False, False)):
            agrees(text, list(range(len(text))), finished, prefilled=prefilled, thinking=thinking)
            for cut in range(len(text) + 1):
                agrees(text, [cut], finished, prefilled=prefilled, thinking=thinking)
            for cut in range(0, len(text) + 1, 3):
                agrees(text, [cut, (cut * 7 + 3) % (len(text) + 1)], finished, prefilled=prefilled, thinking=thinking)


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_may_be_cut_inside_a_character(text: str) -> None:
    data = text.encode()
    whole = Splitter(PLAIN)
    expected = [*whole.feed(text), *whole.end(True)]
    for step in range(1, len(data) + 1):
        for first in range(step + 1):
            stream = ByteSplitter(Splitter(PLAIN))
            parts = [data[:first], *(data[at : at + step] for at in range(first, len(data), step))]
            pieces = [piece for part in parts for piece in stream.feed(part)] + stream.end(True)
            assert stream.splitter.status == whole.status
            if whole.status != "malformed":
                assert joined(pieces, "answer") == joined(expected, "answer")


def test_bytes_that_are_no_utf8_and_a_character_without_its_end() -> None:
    stream = ByteSplitter(Splitter())
    pieces = [*stream.feed(b"<think>a\xff</think>b\xffc\xe6\xbc"), *stream.end(True)]
    assert (joined(pieces, "reasoning"), joined(pieces, "answer"), stream.splitter.status) == ("a\ufffd", "b\ufffdc\ufffd", "ok")


SCRAPS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<think",
        "think>",
        "</",
        "<",
        ">",
        "/",
        "<THINK>",
        "</Think>",
        "< /",
        "t",
        "hink",
        " ",
        "\n",
        "\u200b",
        "plain",
    ]
)
PIECES = st.lists(SCRAPS | st.text(max_size=4), max_size=10).map("".join)
CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)


@settings(max_examples=600)
@given(text=PIECES, opened=st.booleans(), cuts=CUTS, finished=st.booleans(), prefilled=st.booleans(), thinking=st.booleans())
def test_it_agrees_with_the_split_of_the_whole(
    text: str, opened: bool, cuts: list[int], finished: bool, prefilled: bool, thinking: bool
) -> None:
    text = f"<think>{text}" if opened else text
    agrees(text, [cut % (len(text) + 1) for cut in cuts], finished, prefilled=prefilled, thinking=thinking)


CHANNEL_SCRAPS = st.sampled_from(
    [
        "<|channel|>",
        "<|message|>",
        "<|start|>",
        "<|end|>",
        "assistant",
        "final",
        "analysis",
        "<|",
        "|>",
        "<|END|>",
        " ",
        "x",
        CHANNELS.close,
    ]
)


@settings(max_examples=400)
@given(scraps=st.lists(CHANNEL_SCRAPS, max_size=10), opened=st.booleans(), cuts=CUTS, finished=st.booleans())
def test_tags_of_several_tokens(scraps: list[str], opened: bool, cuts: list[int], finished: bool) -> None:
    text = (CHANNELS.open if opened else "") + "".join(scraps)
    agrees(text, [cut % (len(text) + 1) for cut in cuts], finished, CHANNELS)


@settings(max_examples=400)
@given(
    names=st.lists(st.text("ab<>", min_size=1, max_size=4), min_size=2, max_size=4, unique=True),
    text=st.text("ab<> ", max_size=14), cuts=CUTS, finished=st.booleans(), prefilled=st.booleans(),
)  # fmt: skip
def test_any_tags_also_one_inside_another(names: list[str], text: str, cuts: list[int], finished: bool, prefilled: bool) -> None:
    tags = Tags(names[0], names[1], tuple(names), guarded=False)
    agrees(names[0] + text, [cut % (len(text) + 1) for cut in cuts], finished, tags, prefilled=prefilled)


# Guarded: every known family, in every spelling


def letter(char: str) -> str:
    """A character of a marker as the guard reads it, written anew: other case, full width, entities."""
    wide = chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char
    cases = {char, char.lower(), char.upper(), wide, wide.lower(), wide.upper()}
    numbers = (f"#0*{ord(case)}|#x0*{ord(case):x}" for case in (char.lower(), char.upper()))
    entity = "|".join((*ENTITIES.get(char, ()), *numbers))
    return f"(?:[{''.join(map(re.escape, sorted(cases)))}]|&(?i:(?:amp;)*(?:{entity});?))"


ENTITIES = {
    "<": ("lt",),
    ">": ("gt",),
    "/": ("sol",),
    "|": ("vert", "verbar"),
    "[": ("lsqb", "lbrack"),
    "]": ("rsqb", "rbrack"),
    ":": ("colon",),
    "_": ("lowbar",),
}
GAP = "[\\s\u200b-\u200d\u2060\ufeff\u00ad]*"
GUARD = re.compile(
    "|".join([GAP.join(map(letter, marker)) for marker in FAMILIES if marker.isascii() or "◁" in marker])
    + f"|{letter('<')}{GAP}{letter('|')}{GAP}(?:(?:\\w|&(?i:(?:amp;)*(?:#[0-9]+|#x[0-9a-f]+);?)){GAP})+(?:{letter('|')}{GAP})?{letter('>')}"
)
SPELLINGS: dict[str, tuple[str, ...]] = {
    "<": ("<", "&lt;", "&lt", "&LT;", "&#60;", "&#060", "&#x3c;", "&#X3C;", "&amp;lt;", "&amp;amp;#60;", "＜"),
    ">": (">", "&gt;", "&gt", "&#62;", "&#x3E", "&amp;gt;", "＞"),
    "/": ("/", "&sol;", "&#47;", "／"),
    "|": ("|", "&vert;", "&#124;", "｜"),
    "[": ("[", "&lbrack;", "&#91;", "［"),
    "]": ("]", "&rbrack;", "&#93;", "］"),
    "t": ("t", "T", "ｔ", "&#116;", "&#x54;"),
    "h": ("h", "H", "ｈ"),
}
MARKERS = ("<think>", "</think>", "<thinking>", "</thought>", "<|channel|>", "<|im_start|>", "<|end>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷", "<seed:think>", "</seed:think>", "<reasoning>", "</scratchpad>")  # fmt: skip


def spelled(rng: random.Random, marker: str, *, plain: float = 0.5) -> str:
    """A marker in some spelling, with something invisible inside or not."""
    gap = rng.choice(("", "", "", " ", "\u200b", "\u00ad", "\n\t", "  " * 5))
    return gap.join(char if rng.random() < plain else rng.choice(SPELLINGS.get(char, (char,))) for char in marker)


@pytest.fixture(scope="module")
def wider() -> Iterator[None]:
    """`chat.split`, which looks for what the guard looks for."""
    with patch.object(chat, "_marker_pattern", lambda markers: GUARD):
        yield


def test_guarded_it_agrees_with_a_split_that_searches_for_every_spelling(wider: None) -> None:
    rng = random.Random(11)
    scraps = [
        *SPELLINGS["<"],
        *SPELLINGS[">"],
        "&",
        "amp;",
        "#",
        "/",
        "|",
        "t",
        "think",
        "THINK",
        " ",
        "x",
        "\u00ad",
        "<b>",
        "[",
        "]",
        "◁",
        "0",
    ]
    seen = set[str | None]()
    for _ in range(12_000):
        drawn = [rng.choice(scraps) if rng.random() < 0.8 else spelled(rng, rng.choice(MARKERS)) for _ in range(rng.randint(0, 7))]
        text = rng.choice(("", "<think>", "<think>r</think>", "<think>r</think>")) + "".join(drawn)
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 8)))
        prefilled, thinking = rng.random() < 0.2, rng.random() < 0.8
        agrees(text, cuts, rng.random() < 0.8, Tags(), prefilled=prefilled, thinking=thinking)
        seen.add(chat.split(text, finished=True, prefilled=prefilled, thinking=thinking).status)
    assert seen == {"ok", "empty", "malformed"}


@settings(max_examples=300)
@given(text=PIECES, opened=st.booleans(), finished=st.booleans(), prefilled=st.booleans(), thinking=st.booleans())
def test_guarded_it_refuses_more_and_never_less(text: str, opened: bool, finished: bool, prefilled: bool, thinking: bool) -> None:
    text = f"<think>{text}" if opened else text
    whole = chat.split(text, finished=finished, prefilled=prefilled, thinking=thinking)
    splitter, pieces = run(text, [], finished, Tags(), prefilled=prefilled, thinking=thinking)
    assert splitter.status in (whole.status, "malformed")
    if splitter.status == "ok":
        assert joined(pieces, "answer").strip() == whole.answer


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_of_every_family_in_every_spelling(marker: str) -> None:
    rng = random.Random(marker)
    for _ in range(200):
        written = spelled(rng, marker)
        text = f"<think>r</think>a{written}{CANARY}"
        splitter, pieces = run(text, sorted(rng.choices(range(len(text)), k=3)), True, Tags())
        assert splitter.status == "malformed", written
        assert joined(pieces, "answer") in ("", "a")


def test_what_the_judge_service_takes_for_reasoning_is_never_an_answer() -> None:
    """`serve.wire` normalises a whole text and searches; this reads letter by letter."""
    rng = random.Random(3)
    wide = [chr(ord(char) + 0xFEE0) for char in "<>/|[]think"]
    scraps = [
        "<",
        ">",
        "/",
        "|",
        "[",
        "]",
        "◁",
        "▷",
        "think",
        "Thought",
        "re\ufb02ection",
        "seed:think",
        "im_start",
        "\u200b",
        " ",
        "x",
        *wide,
        "𝐭𝐡𝐢𝐧𝐤",
        "ⓣhink",
    ]
    refused = 0
    for _ in range(20_000):
        text = "".join(rng.choices(scraps, k=rng.randint(1, 6)))
        if reads_like_reasoning(text):
            refused += 1
            assert run(text, [], True, Tags(), thinking=False)[0].status == "malformed", text
    assert refused > 50


def test_every_character_that_normalises_to_one_of_a_marker_is_known() -> None:
    wanted = set("<>/|[]:_thinkougsreasf lecdpbxyqwvmj") - {" "}
    known = marks(("<think>", "</think>"), True)._fold
    for code in range(0x110000):
        plain = unicodedata.normalize("NFKC", chr(code)).lower() if code > 0x7F and not 0xD800 <= code < 0xE000 else ""
        if len(plain) == 1 and plain in wanted:
            assert known.get(chr(code), "").lower() == plain, hex(code)


@pytest.mark.parametrize("text", ["analysisWe need", "commentary<b", 'analysis"Hm', "\n analysisthe user", "analysis_of"])
def test_an_answer_that_begins_with_a_channels_name_is_refused_before_anything_is_out(text: str) -> None:
    for head, thinking in (("", False), ("<think>r</think>", True)):
        for cut in range(len(head + text)):
            splitter, pieces = run(head + text, [cut], True, Tags(), thinking=thinking)
            assert splitter.status == "malformed"
            assert joined(pieces, "answer") == ""


@pytest.mark.parametrize(
    "text",
    [
        "analysis of it", "Analysis: yes", "analysis", "100 % < all; a < b, c <= d, x << 2, List<Thing> and <b>bold</b>", "&lt;b&gt; is bold, R&D, AT&T",
        "[1] [link](there) [t] x", "she said <thinks> and think > thing", "「think」 《think》 «think»",
    ],
)  # fmt: skip
def test_what_is_no_marker_passes(text: str) -> None:
    for cut in range(len(text)):
        splitter, pieces = run(f"<think>r</think>{text}", [16 + cut], True, Tags())
        assert (joined(pieces, "answer"), splitter.status) == (text, "ok")


# Never a character of reasoning in an answer


@dataclass(frozen=True)
class Stream:
    """A reply whose reasoning holds the canary, and what of it a reader may see at most."""

    kind: str
    text: str
    answer: str
    prefilled: bool = False
    thinking: bool = True


FILLERS = (
    "word ",
    "größer",
    "漢字",
    "😀",
    "\n\n",
    " ",
    "1 < 2",
    "<b>",
    "</",
    "[x]",
    "&amp;",
    "think",
    "<think",
    "</thin",
    "&lt;",
    "<|",
    "x" * 9,
)


def filled(rng: random.Random, canary: str = "") -> str:
    return canary + "".join(rng.choice(FILLERS) + canary for _ in range(rng.randint(0, 4)))


def answered(rng: random.Random) -> str:
    """Text without a marker, on which no marker can follow by accident."""
    return "answer " + "".join(rng.choices(FILLERS[:13], k=rng.randint(0, 3))) + "."


def stray(rng: random.Random) -> str:
    """A marker that is not exactly the closing tag."""
    while (found := spelled(rng, rng.choice(MARKERS), plain=rng.choice((0.5, 1.0)))) == "</think>":
        pass
    return found


def stream(rng: random.Random) -> Stream:
    """One of the ways in which a reply may be well or badly written."""

    def r() -> str:
        return filled(rng, CANARY)

    a, kind = answered(rng), rng.choice(KINDS)
    o, c, space = "<think>", "</think>", rng.choice(("", "", "\n", " \u00a0"))
    if kind == "good":
        return Stream(kind, f"{space}{o}{r()}{c}{a}", a)
    if kind == "prefilled":
        return Stream(kind, f"{r()}{c}{a}", a, prefilled=True)
    if kind == "no opening tag":
        return Stream(kind, f"{r()}{c}{a}", "")
    if kind == "late opening tag":
        return Stream(kind, rng.choice(("x", "Sure! ", "\u200b")) + f"{o}{r()}{c}{a}", "")
    if kind == "opening tag written otherwise":
        return Stream(kind, f"{spelled(rng, o, plain=0.3).replace(o, 'x')}{r()}{c}{a}", "")
    if kind == "no closing tag":
        return Stream(kind, f"{o}{r()}", "")
    if kind == "prefilled, no closing tag":
        return Stream(kind, r(), "", prefilled=True)
    if kind == "closing tag cut":
        return Stream(kind, f"{o}{r()}{c[: rng.randint(1, 7)]}", "")
    if kind == "stray before the closing tag":
        return Stream(kind, f"{o}{r()}{stray(rng)}{r()}{c}{CANARY}", "")
    if kind == "nested":
        return Stream(kind, f"{o}{r()}{o}{r()}{c}{r()}{c}{CANARY}", "")
    if kind == "repeated":
        return Stream(kind, f"{o}{r()}{c}{a}{o}{r()}{c}{CANARY}", a)
    if kind == "second closing tag":
        return Stream(kind, f"{o}{r()}{c}{a}{c}{r()}", a)
    if kind == "stray in the answer":
        return Stream(kind, f"{o}{r()}{c}{a}{stray(rng)}{r()}", a)
    if kind == "stray at once":
        return Stream(kind, f"{o}{r()}{c}{space}{stray(rng)}{r()}", "")
    assert kind == "thinking is off"
    return Stream(kind, f"{a}{stray(rng)}{r()}", a, thinking=False)


KINDS = (
    "good", "prefilled", "no opening tag", "late opening tag", "opening tag written otherwise", "no closing tag", "prefilled, no closing tag",
    "closing tag cut", "stray before the closing tag", "nested", "repeated", "second closing tag", "stray in the answer", "stray at once", "thinking is off",
)  # fmt: skip


def shown(rng: random.Random, given: Stream) -> str:
    """What a reader sees of a stream, cut at random, as text or as bytes."""
    splitter = Splitter(prefilled=given.prefilled, thinking=given.thinking)
    text: str | bytes = given.text if rng.random() < 0.7 else given.text.encode()
    feed = splitter.feed if isinstance(text, str) else ByteSplitter(splitter).feed
    at, pieces, longest = 0, [], rng.choice((1, 3, 12, 1000))
    while at < len(text):
        size = rng.randint(1, longest)
        pieces += feed(text[at : at + size])  # type: ignore[arg-type]
        at += size
    pieces += splitter.end(rng.random() < 0.7)
    return joined(pieces, "answer")


def leaks(count: int, seed: int) -> list[tuple[Stream, str]]:
    """Streams of which a reader saw something that is no beginning of the answer."""
    rng = random.Random(seed)
    drawn = (stream(rng) for _ in range(count))
    return [
        (given, seen) for given in drawn if not given.answer.startswith(seen := shown(rng, given)) and seen.strip() != given.answer.strip()
    ]


def test_a_hundred_thousand_streams_and_not_a_character_of_reasoning() -> None:
    for seed in range(10):
        assert leaks(10_000, seed) == []


def test_good_streams_are_shown_whole() -> None:
    rng = random.Random(8)
    for _ in range(2000):
        given = stream(rng)
        if given.kind in ("good", "prefilled"):
            splitter = Splitter(prefilled=given.prefilled)
            pieces = [*splitter.feed(given.text), *splitter.end(True)]
            if splitter.status == "ok":  # a filler may by accident complete a marker
                assert joined(pieces, "answer").strip() == given.answer.strip()
    assert len({stream(rng).kind for _ in range(2000)}) == len(KINDS)


def _released(self: Splitter, text: str, threads: object, pieces: list[Piece]) -> None:
    self._release(pieces, text)
    self._held, self._threads = "", {}


def _opened_anyway(self: Splitter, text: str, pieces: list[Piece]) -> None:
    self._phase, self._held = "inside", ""
    self._kind = "reasoning" if text.startswith("<think>") else "answer"
    self._read(text.removeprefix("<think>"), pieces)


def _closed_anyway(self: Splitter, text: str, start: int, pieces: list[Piece]) -> None:
    self._threads, self._found, self._held, self._kind, self._phase = {}, None, "", "answer", "inside"
    self._read(text[start + 8 :], pieces)


def _settled_and_on(self: Splitter, status: object, detail: str) -> None:
    self.detail, self._held, self._threads = detail, "", {}


def _flushed(self: Splitter, finished: bool, pieces: list[Piece]) -> None:
    pieces.append(Piece("answer", self._held or CANARY))
    self.status = "ok"


def _unguarded(markers: tuple[str, ...], guarded: bool) -> Marks:
    return marks(markers, False)


def _changed(**attributes: object) -> Callable[[tuple[str, ...], bool], Marks]:
    def made(markers: tuple[str, ...], guarded: bool) -> Marks:
        found = Marks(markers, guarded)
        for name, value in attributes.items():
            setattr(found, name, value)
        return found

    found = made(("<think>", "</think>"), True)
    return lambda markers, guarded: found


MUTANTS: dict[str, tuple[str, Callable[[], object]]] = {
    "nothing is held back": ("preceptor.gateway.splitter.Splitter._keep", lambda: _released),
    "a missing opening tag is borne": ("preceptor.gateway.splitter.Splitter._open", lambda: _opened_anyway),
    "any marker closes the block": ("preceptor.gateway.splitter.Splitter._close", lambda: _closed_anyway),
    "it goes on after a stray marker": ("preceptor.gateway.splitter.Splitter._settle", lambda: _settled_and_on),
    "a missing closing tag is borne": ("preceptor.gateway.splitter.Splitter._conclude", lambda: _flushed),
    "no other family is known": ("preceptor.gateway.splitter.marks", lambda: _unguarded),
    "letter case counts": ("preceptor.gateway.splitter.marks", lambda: _changed(_fold={}, _symbols={})),
    "white space ends a tag": ("preceptor.gateway.splitter.marks", lambda: _changed(_soft=set())),
    "a tag cut after its first character is not seen": ("preceptor.gateway.splitter.marks", lambda: _changed(suspicious=re.compile("[<&\\[◁][/\\|tsra]"))),
    "a whole tag may wait unread": ("preceptor.gateway.splitter.marks", lambda: _changed(shortest=100)),
    "full width is not suspicious": ("preceptor.gateway.splitter.marks", lambda: _changed(suspicious=re.compile("[<&\\[◁]"))),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_splitter_that_is_broken_is_found_out(mutant: str) -> None:
    place, make = MUTANTS[mutant]
    with patch(place, make()):
        assert leaks(4000, 1)


# What it costs


@pytest.mark.parametrize("stuffing", [" ", "\u200b", "\n\t "])
def test_a_tag_stuffed_with_white_space_is_recognised_and_holds_nothing_up(stuffing: str) -> None:
    gap = stuffing * (200_000 // len(stuffing))
    text, started = f"<think>{CANARY}</think>a<{gap}/{gap}think{gap}>{CANARY}", time.process_time()
    splitter = Splitter()
    out = ""
    for at in range(0, len(text), 1000):
        out += joined(splitter.feed(text[at : at + 1000]), "answer")
        assert len(splitter._held) <= HOLD
    assert splitter.status == "malformed"
    assert CANARY not in out
    assert time.process_time() - started < 5


@pytest.mark.parametrize("unit", ["<", "< ", "<t", "&amp;", "<|a", "&#0", "[/", "<think", "</ t\u200bh", "<&lt;＜"])
def test_time_grows_with_the_length_whatever_is_written(unit: str) -> None:
    def seconds(count: int) -> float:
        splitter, text = Splitter(thinking=False), "x" + unit * count
        started = time.process_time()
        for at in range(0, len(text), 7):
            splitter.feed(text[at : at + 7])
            assert len(splitter._held) <= HOLD
        return time.process_time() - started

    seconds(100)
    assert min(seconds(20_000) for _ in range(2)) < 10 * max(0.02, min(seconds(4000) for _ in range(2)))


@pytest.mark.parametrize("tags", [Tags(open=""), Tags(markers=("x", ""))])
def test_a_tag_without_characters_is_refused(tags: Tags) -> None:
    with pytest.raises(ValueError, match="must have characters"):
        Splitter(tags)


def test_tags_of_a_template() -> None:
    form = Renderer(word_tokenizer()).format
    assert Tags.of(form) == Tags("<think>", "</think>", form.markers)


def test_characters_that_were_seen_are_not_kept_without_end() -> None:
    splitter = Splitter(thinking=False)
    splitter.feed("".join(f"<{chr(code)}" for code in range(0x4E00, 0x4E00 + 3 * markers._REMEMBERED)))
    assert len(splitter._marks._symbols) <= markers._REMEMBERED
