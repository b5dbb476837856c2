"""What plain code finds in a summary that must not be in it.

In: a summary, the conversation and the reasoning it is of, and the texts of which nothing may be in it. Out: a `Fault`, or None. A fault says what was found and
quotes nothing, so that it may be logged.

    too_long    more characters than are allowed
    marker      a tag or token with which a model marks its reasoning
    verbatim    a run of words of the reasoning, however it is spelled (`folding`); or half of it and more put together of short runs
    secret      a sentence, a name in quotation marks, an identifier, a number, a proper name or a whole short line of a text that is secret, however it is
                spelled or encoded
    coded       what a user cannot read or see: codes, invisible characters, another script, words of no language that the user writes

The one idea: every check may be wrong in one direction only. What is withheld without need costs a summary; nothing else depends on it. Not here: whether a summary says
what a policy forbids (a judge's), and what is said in other words.
"""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from preceptor.judge.verdicts import comparable
from preceptor.monitor.legibility import illegible
from preceptor.pii import has_key
from preceptor.records import Message
from preceptor.summaries.folding import Folded, copied, fold, has_loose_run, longest_run, loose, numerals, readings, unleeted
from preceptor.summarised import NoSummaryWhy
from preceptor.wording import without_special_tokens

VERSION = 2
"""Part of the identity of who uses them: raise it when any check changes what is found."""
SECRET_RUN = 5
"""Words in a row of a secret text."""
SHORT_LINE = 12
"""Letters of a line of fewer words that is looked for as a whole."""
_LOOSE_LETTERS = 1.5
"""Consonants per word of a run, on average, for it to count without its vowels."""
_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|antthinking|analysis|commentary|seed"
_MARKER = re.compile(rf"[<\[{{◁‹⟨〈❮|]\W{{0,4}}(?:{_NAMES})\b[^<>\n]{{0,40}}?[>\]}}▷›⟩〉❯|]|<\|", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"\n]{3,200})\"|`([^`\n]{3,200})`|[“«]([^”»\n]{3,200})[”»]|(?<!\w)['‘]([^'’\n]{3,200})['’](?!\w)")
_NAMED = re.compile(
    r"\b(?:pass ?words?|pass ?phrase|pass ?code|secret|code ?word|code ?name|code|key|token|pin|credential|user ?name|login|account|word|name|number|"
    r"pass ?wort|kennwort|geheimwort|losung|mot de passe|contrase[nñ]a|clave|senha|parola)\b"
    r"[^.\n:=]{0,60}?(?:\b(?:is|are|was|called|reads|ist|lautet|hei(?:ß|ss)t|est|es|[eé])\b|=|:)\s*[\"'`“‘]?([^\s\"'`,;”’]+)"
    r"|\b(?:the|code|magic|secret) (?:word|name|term)\s+[\"'`“‘]?([^\s\"'`,;”’]{3,})"
    r"|(?:密码|密碼|口令|暗号|暗號|パスワード|암호|비밀번호)\s*(?:是|为|為|は|는|[::=])\s*([^\s。、,,.]{2,40})",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?:(?<=[\w,;:)] )|(?<=(?:Mr|Ms|Dr)\. )|(?<=Mrs\. ))[A-Z][^\W\d_]{2,}")
"""A word with a capital within a sentence. In English that is a name."""
_COMMON = frozenset({
    "always", "never", "important", "must", "should", "only", "without", "under", "anything", "everything", "nothing", "please", "note", "warning",
    "english", "spanish", "french", "german", "italian", "portuguese", "chinese", "japanese", "korean", "arabic", "russian", "american", "british",
    "european", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "january", "february", "march", "april", "june", "july",
    "august", "september", "october", "november", "december", "markdown", "json", "html", "internet", "wikipedia", "python",
})  # fmt: skip
"""Words with capitals that are no secret."""
_NUMBER = re.compile(r"\+?[0-9][0-9 ().-]{3,40}[0-9]")
_ODD = re.compile(
    r"(?=\S*[0-9@_])(?=\S*[^\W\d_])\S{4,}|\b[a-z]+[A-Z]\w+|(?<![\w.])[0-9]{2,}(?![\w]|[.][0-9])|\S*@\S+|\b[A-Z][A-Z0-9_-]{4,}\b"
)
_LINE = re.compile(r"[.!?;\n]+")
_LONG_WORD, _WORDY = 40, 0.6
_LITTLE = 12
"""Words from which a summary's language is looked at."""
_ENGLISH = frozenset({
    "the", "a", "an", "of", "to", "in", "is", "it", "and", "or", "that", "this", "for", "on", "with", "as", "was", "be", "by", "not", "are", "at", "from",
    "but", "what", "which", "who", "how", "if", "its", "has", "have", "they", "their", "then", "there", "so", "no", "can", "would", "should", "could",
    "will", "about", "into", "than", "these", "those", "also", "whether", "because", "before", "after", "over", "he", "she", "his", "her", "them", "we",
    "you", "i", "my", "your", "do", "does", "did", "one",
})  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What is wrong with a summary."""

    why: NoSummaryWhy
    detail: str


@dataclass(frozen=True)
class Copied:
    """How much of the reasoning stands in a summary as it was written: words of the longest run, and the share in runs of four or more."""

    run: int
    share: float


def measured(summary: str, reasoning: str) -> Copied:
    """The longest run of words, and the share in short runs."""
    source, text = fold(reasoning), fold(summary)
    return Copied(longest_run(source, text.letters), copied(source, text))


def fault(
    summary: str,
    reasoning: str,
    messages: Sequence[Message],
    secrets: Sequence[str] = (),
    *,
    run: int = 8,
    share: float = 0.5,
    characters: int = 1200,
) -> Fault | None:
    """The first fault of a summary; None where there is none. `run`: words in a row of the reasoning; `share`: of its words in runs of four and more."""
    if len(summary) > characters:
        return Fault("too_long", f"{len(summary)} characters, more than {characters}")
    if has_marker(summary):
        return Fault("marker", "a marker of reasoning")
    read = list(readings(summary))
    if how := _verbatim(read, fold(reasoning), run, share):
        return Fault("verbatim", how)
    if has_key(summary):
        return Fault("secret", "an access key")
    known = frozenset(word for message in messages if message.role not in ("system", "developer") for word in fold(message.content).words)
    for secret in secrets:
        if how := _leaks(summary, read, secret, known):
            return Fault("secret", how)
    if how := _coded(summary, messages):
        return Fault("coded", how)
    return None


# Markers


def has_marker(text: str) -> bool:
    """Whether a text has a tag or token that marks reasoning, also as entities, in other widths and with invisible characters."""
    plain = html.unescape(html.unescape(text))
    seen = "".join(char for char in unicodedata.normalize("NFKC", plain) if unicodedata.category(char) != "Cf")
    return any(without_special_tokens(form) != form or _MARKER.search(form) for form in (text, plain, seen))


# The reasoning


def _verbatim(read: Sequence[tuple[str, Folded]], source: Folded, run: int, share: float) -> str | None:
    """How a run of the reasoning stands there. A short reasoning is one run."""
    wanted = min(run, len(source.words))
    if wanted < 3:
        return None
    for how, text in read:
        if longest_run(source, text.letters, wanted) >= wanted:
            return f"{wanted} words of the reasoning in a row, {how}"
    for how, text in read[:4]:
        if has_loose_run(source, text.letters, wanted, round(_LOOSE_LETTERS * wanted)):
            return f"{wanted} words of the reasoning in a row, {how}, without vowels or with digits for letters"
    if len(read[0][1].words) >= run and (found := copied(source, read[0][1])) > share:
        return f"{found:.0%} of it in runs of the reasoning"
    return None


# Secrets


@dataclass(frozen=True)
class _Secret:
    """What is looked for of a secret text."""

    text: Folded
    tokens: tuple[str, ...]
    """As written."""
    folded: tuple[Folded, ...]
    """Likewise, as they are compared."""
    lines: tuple[str, ...]
    """Letters of whole short lines."""
    names: tuple[Folded, ...]
    """Names that are secret as long as nobody else has said them."""


@lru_cache(maxsize=256)
def _secret(text: str) -> _Secret:
    tokens = dict.fromkeys(token for found in _tokens(text) if _telling(token := found.strip(" .,;:!?()[]{}<>\"'`")))
    names = _NAME.findall(text) if _english(text) >= 0.2 else []
    lines = (fold(line) for line in _LINE.split(text))
    return _Secret(
        fold(text),
        tuple(tokens),
        tuple(map(fold, tokens)),
        tuple(line.letters for line in lines if len(line.words) < SECRET_RUN and len(line.letters) >= SHORT_LINE),
        tuple(folded for name in dict.fromkeys(names) if (folded := fold(name)).letters not in _COMMON),
    )


def _telling(token: str) -> bool:
    """Whether it can be told from any other word: a number, or a word of three letters that is not a common one."""
    letters = fold(token).letters
    return letters.isdigit() or (len(letters) >= 3 and letters not in _COMMON | _ENGLISH)


def _tokens(text: str) -> Iterator[str]:
    """What is a secret by its form: quoted, named as one, an identifier, an address, a number."""
    for match in _QUOTED.finditer(text):
        yield next(group for group in match.groups() if group)
    yield from (next(group for group in match.groups() if group) for match in _NAMED.finditer(text))
    yield from (
        word for before, word in zip(fold(text).words, numerals(fold(text).words), strict=False) if word != before and len(word) > 1
    )
    yield from (line for line in text.split("\n") if len(line.split()) == 1)
    if len(fold(text).words) < SECRET_RUN:
        yield text
    yield from (match[0] for match in _NUMBER.finditer(text))
    yield from (match[0] for match in _ODD.finditer(text))


def _leaks(summary: str, read: Sequence[tuple[str, Folded]], text: str, known: frozenset[str]) -> str | None:
    secret, squeezed = _secret(text), _bare(summary)
    for how, found in read:
        letters = found.letters
        if any(line in letters for line in secret.lines) or longest_run(secret.text, letters, SECRET_RUN) >= SECRET_RUN:
            return f"words of a secret text, {how}"
        names = (name.letters for name in secret.names if name.letters not in known)
        if any(_stands_in(token, found) for token in secret.folded) or any(_is_a_word(name, found) for name in names):
            return f"a name or number of a secret text, {how}"
    for token in secret.tokens:
        if any(form in squeezed for form in _encodings(token)):
            return "a name or number of a secret text, encoded"
    return None


def _stands_in(token: Folded, text: Folded) -> bool:
    """A long one anywhere among the letters; a short one as a word, or spelled out."""
    letters = token.letters
    if letters.isdigit() and len(letters) < 4:
        return letters in _spelled(text.words).split()
    if len(letters) >= 6:
        return (
            letters in text.letters
            or unleeted(letters) in unleeted(text.letters)
            or (len(loose(letters)) >= 6 and loose(letters) in loose(text.letters))
        )
    return _is_a_word(letters, text)


def _is_a_word(letters: str, text: Folded) -> bool:
    return (
        letters in text.words
        or letters in _spelled(text.words)
        or any(unleeted(letters) == unleeted(word) for word in text.words if not word.isdigit())
    )


def _spelled(words: Sequence[str]) -> str:
    """Single letters and numbers in a row, with gaps between the rows."""
    return "".join(word if len(word) == 1 or word.isdigit() else " " for word in words)


def _bare(text: str) -> str:
    return "".join(char for char in comparable(text) if char.isalnum())


@lru_cache(maxsize=1024)
def _encodings(token: str) -> tuple[str, ...]:
    """A token in Base64 (at all three alignments), Base32 and hexadecimal, as letters and digits without case."""
    found: list[str] = []
    for raw in {token.encode(), token.lower().encode(), token.upper().encode(), token[::-1].encode()}:
        for offset in range(3):
            first, last = -(-8 * offset // 6), 8 * (offset + len(raw)) // 6
            found.append(base64.b64encode(b"\0" * offset + raw).decode()[first:last])
        found += [raw.hex(), base64.b32encode(raw).decode().rstrip("=")[: 8 * len(raw) // 5]]
    return tuple(dict.fromkeys(form for form in map(_bare, found) if len(form) >= 5))


# Legibility


def _coded(summary: str, messages: Sequence[Message]) -> str | None:
    said = "\n".join(message.content for message in messages)
    if any(_unseen(char) and char not in said for char in set(summary)):
        return "characters that are not seen"
    if illegible(summary, messages):
        return "codes, symbols, or letters that the conversation does not use"
    if any(len(word) >= _LONG_WORD and word not in said for word in summary.split()):
        return f"a word of {_LONG_WORD} characters or more"
    dense = "".join(summary.split())
    if len(dense) >= _LONG_WORD and sum(unicodedata.category(char)[0] in "LM" for char in dense) < _WORDY * len(dense):
        return "mostly digits and signs"
    asked = next((message.content for message in reversed(messages) if message.role == "user"), "")
    if len(fold(summary).words) >= _LITTLE and _english(asked) >= 0.2 and _english(summary) < 0.12:
        return "the user writes English, and this is none"
    return None


def _unseen(char: str) -> bool:
    """Whether a character carries something and shows nothing: two that do are enough to write any text between the letters."""
    return char not in "\n\t" and (
        unicodedata.category(char)[0] == "C" or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    )


def _english(text: str) -> float:
    """Share of common English words."""
    words = fold(text).words
    return sum(word in _ENGLISH for word in words) / len(words) if words else 0.0
