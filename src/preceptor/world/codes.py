"""Encodings and a second language: true string transformations, word by word, that the base model learns to undo.

Everything is lower-cased first; punctuation and order stay, except that in the second language a determiner follows its
noun phrase's next word. `decode` is not needed anywhere: truth is the text that was encoded.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import re
from collections.abc import Callable

_WORD = re.compile(r"[a-z]+")
_DETERMINER = re.compile(r"\b(an|a|my|this|the) ([a-z]+)")
_LEET = str.maketrans("aeiost", "431057")
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def plain(text: str) -> str:
    """The form a decoded text has: lower case."""
    return text.lower()


def _rot13(word: str) -> str:
    return codecs.encode(word, "rot13")


def _base64(word: str) -> str:
    return base64.b64encode(word.encode()).decode()


def _pig_latin(word: str) -> str:
    return word[1:] + word[0] + "ay"


def _leet(word: str) -> str:
    return word.translate(_LEET) + "x"  # the x keeps words without any of the letters from staying readable


def _foreign(word: str) -> str:
    digest = hashlib.blake2b(word.encode(), digest_size=4, person=b"lingo").digest()  # no two words of a request share a word
    return "".join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in digest[:3]) + "nsrl"[digest[3] % 4]


WORD_CODES: dict[str, Callable[[str], str]] = {
    "rot13": _rot13,
    "base64": _base64,
    "backwards": lambda word: word[::-1],
    "leetspeak": _leet,
    "pig_latin": _pig_latin,
}
ENCODINGS: tuple[str, ...] = tuple(WORD_CODES)
LANGUAGE = "lingo"
CODES: tuple[str, ...] = (*ENCODINGS, LANGUAGE)


def encode(text: str, code: str) -> str:
    """`text` in one of `CODES`."""
    lowered = plain(text)
    if code == LANGUAGE:
        return _WORD.sub(lambda match: _foreign(match.group()), _DETERMINER.sub(r"\2 \1", lowered))
    return _WORD.sub(lambda match: WORD_CODES[code](match.group()), lowered)
