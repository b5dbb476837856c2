"""Overlap: when two prompts are the same, nearly the same, or share a passage.

In: conversations. Out: a normalised text to compare by, and two indexes that are asked "have I seen this?": `Near` for near
duplicates, `HeldOut` for evaluation prompts that must not be trained on.

The one idea: a guess is always checked. MinHash signatures only propose candidates; two texts are near duplicates when the Jaccard
similarity of their character shingles, counted exactly, reaches the threshold. So nothing is removed for a collision of hashes,
and the same prompts in the same order give the same answer. What signatures can do is overlook a pair: with 120 values in 20
bands of 6, a pair at a similarity of 0.8 is proposed with probability 1 - (1 - 0.8^6)^20 = 0.998, at 0.9 with 1 - 3e-7 (Broder 1997;
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).

Not here: likeness in meaning, which takes an embedding model; paraphrases and translations of an evaluation prompt pass.
"""

from __future__ import annotations

import string
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from preceptor.errors import require_extra
from preceptor.records import Message, Prompt

if TYPE_CHECKING:
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

_EDGES = string.punctuation + "“”‘’«»…–—"
_NOISE = frozenset(",;:!?\"'")

SHINGLE = 5
"""Characters of a shingle: long enough to mean something, short enough for prompts of one line."""
_PERMUTATIONS, _BANDS = 120, 20
_SIGNATURE_ERROR = 0.12
"""Three standard errors of a similarity of 0.8 estimated from 120 values: candidates estimated lower than that below the threshold are
not counted out."""
_SHORTEST_PASSAGE = 5
"""Words from which a whole evaluation message, shorter than the passage length, counts as a passage."""


# The same


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


# Nearly the same


def shingles(text: str) -> set[str]:
    """Runs of `SHINGLE` characters of the normalised words; a shorter text is a shingle of its own."""
    flat = " ".join(words(text))
    return {flat[start : start + SHINGLE] for start in range(max(1, len(flat) - SHINGLE + 1))}


def jaccard(one: str, other: str) -> float:
    """Shared shingles by all shingles, in [0, 1]."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


class Near:
    """Texts seen so far, and which of them a text nearly repeats. `threshold`: least Jaccard similarity, in (0, 1].

    Memory: about 4 kB a text. Raises `MissingExtra` without the library `rensa` (extra `data`).
    """

    def __init__(self, threshold: float):
        require_extra("data", "rensa")
        from rensa import RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]

        self.threshold = threshold
        self._texts: list[str] = []
        self._signatures: list[RMinHash] = []
        self._last: tuple[str, RMinHash] | None = None
        self._bands = RMinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, num_bands=_BANDS)

    def find(self, text: str) -> list[int]:
        """Numbers of the texts (0 for the first added) that `text` nearly repeats, ascending."""
        signature = self._signature(text)
        least = self.threshold - _SIGNATURE_ERROR
        proposed = [number for number in sorted(self._bands.query(signature)) if self._signatures[number].jaccard(signature) >= least]
        return [number for number in proposed if jaccard(self._texts[number], text) >= self.threshold]

    def add(self, text: str) -> int:
        """Remember `text`; its number."""
        number, signature = len(self._texts), self._signature(text)
        self._texts.append(text)
        self._signatures.append(signature)
        self._bands.insert(number, signature)
        return number

    def _signature(self, text: str) -> RMinHash:
        """The last one is remembered: what is not found is added next."""
        from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

        if self._last is None or self._last[0] != text:
            signature = RMinHash(num_perm=_PERMUTATIONS, seed=1)
            signature.update(list(shingles(text)))
            self._last = (text, signature)
        return self._last[1]


class NearConversations:
    """Conversations kept so far. Two are near duplicates when their last turns are, and what stands before them as well.

    Both are asked for: a long system prompt that many conversations share must not make them one, and neither must a last turn
    that says no more than "go on".
    """

    def __init__(self, threshold: float):
        self._near = Near(threshold)
        self._before: list[str] = []

    def seen(self, messages: Sequence[Message]) -> bool:
        """Whether a conversation that was added is a near duplicate of this one."""
        before = _before(messages)
        return any(self._alike(self._before[number], before) for number in self._near.find(messages[-1].content))

    def add(self, messages: Sequence[Message]) -> None:
        """Remember a conversation that was kept."""
        self._near.add(messages[-1].content)
        self._before.append(_before(messages))

    def _alike(self, one: str, other: str) -> bool:
        return one == other or (bool(one and other) and jaccard(one, other) >= self._near.threshold)


def _before(messages: Sequence[Message]) -> str:
    return normalise(messages[:-1])


# Held out


@dataclass(frozen=True)
class Meeting:
    """A prompt that an evaluation holds: how they overlap, and the names of the sets."""

    reason: str
    """`in_evaluation`: the same conversation. `ngram_overlap`: a shared passage. `near_evaluation`: a turn that is nearly the same."""
    sets: tuple[str, ...]


class HeldOut:
    """The evaluation prompts as an index. A set's name is the `split` of its prompts.

    `ngram`: consecutive words that make a shared passage; an evaluation message shorter than that, but of at least five words, counts
    when all of it stands in a prompt. None: passages are not compared. `near`: least similarity of two turns of users; None: not compared.
    """

    def __init__(self, evaluation: Iterable[Prompt], *, ngram: int | None = None, near: float | None = None):
        self._ngram = ngram
        self._same: dict[str, set[str]] = defaultdict(set)
        self._passages: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._near = Near(near) if near is not None else None
        self._near_sets: list[str] = []
        for prompt in evaluation:
            self._add(prompt)
        self._lengths = {len(passage) for passage in self._passages}

    def meets(self, prompt: Prompt) -> Meeting | None:
        """The first of the three ways in which an evaluation holds `prompt`, or None."""
        if same := self._same.get(normalise(prompt.messages)):
            return Meeting("in_evaluation", tuple(sorted(same)))
        if shared := self._sharing(prompt):
            return Meeting("ngram_overlap", tuple(sorted(shared)))
        if near := self._nearly(prompt):
            return Meeting("near_evaluation", tuple(sorted(near)))
        return None

    def _add(self, prompt: Prompt) -> None:
        self._same[normalise(prompt.messages)].add(prompt.split)
        for message in prompt.messages:
            for passage in self._passages_of(message.content):
                self._passages[passage].add(prompt.split)
            if self._near and message.role == "user":
                self._near.add(message.content)
                self._near_sets.append(prompt.split)

    def _passages_of(self, text: str) -> set[tuple[str, ...]]:
        if self._ngram is None:
            return set()
        whole = tuple(words(text))
        return {whole} if _SHORTEST_PASSAGE <= len(whole) < self._ngram else ngrams(text, self._ngram)

    def _sharing(self, prompt: Prompt) -> set[str]:
        texts = [message.content for message in prompt.messages] if self._lengths else []
        passages = {passage for text in texts for length in self._lengths for passage in ngrams(text, length)}
        return {name for passage in passages & self._passages.keys() for name in self._passages[passage]}

    def _nearly(self, prompt: Prompt) -> set[str]:
        if self._near is None:
            return set()
        turns = [message.content for message in prompt.messages if message.role == "user"]
        return {self._near_sets[number] for turn in turns for number in self._near.find(turn)}
