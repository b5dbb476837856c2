"""The only place where messages become token ids and loss masks, and text becomes reasoning + answer. No torch.

In: messages, or what a model wrote.  Out: token ids, labels, or a `Split`.

The one idea is that a split is a proof, not a guess. Exactly one reasoning block stands at the start, an answer
follows, and nothing in either looks like a tag; everything else is a format failure whose answer is the empty text.
"The whole text is the answer" is never the way out, and neither is "whatever follows the last closing tag": both
let a model show people text that its judge does not see, or show the judge reasoning that it must not see
(paper, section 2.4).

The same strictness holds on the way in. A marker of the template written inside a message is broken up before it is
tokenised, so hostile text cannot end its turn and begin another. A training example is rendered with the
tokenizer's own template, and then proved: the prompt's ids are a strict prefix of the whole, the rest decodes back
to the reasoning and the answer, and exactly that rest, up to the end-of-turn token, carries loss.

Not here: lengths and truncation of training data (rows that do not fit are dropped by the caller, never cut), tool
calls, images, templates without an end-of-turn token.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import jinja2

from preceptor.errors import DataError, StageFailed
from preceptor.records import Message, Status, content_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN_TAG, CLOSE_TAG = "<think>", "</think>"

_INVISIBLE = "[\\s\u200b-\u200d\u2060\ufeff]*"
"""What may stand between the characters of a tag that still reads as one."""


@dataclass(frozen=True)
class Split:
    """What a model wrote, taken apart. `answer` is non-empty exactly when `status` is `ok`. For a malformed text
    `reasoning` holds all that was written, so that nothing is lost to a person who looks."""

    reasoning: str
    answer: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Rendered:
    """A training row: `labels[i]` is `input_ids[i]` where the token carries loss, else -100. Equal lengths."""

    input_ids: list[int]
    labels: list[int]


@lru_cache(maxsize=16)
def _tag_pattern(open_tag: str, close_tag: str) -> re.Pattern[str]:
    """Either tag, also in other letter cases and with white space inside."""
    either = (_INVISIBLE.join(re.escape(char) for char in tag) for tag in (open_tag, close_tag))
    return re.compile("|".join(either), re.IGNORECASE)


def has_tag(text: str, open_tag: str = OPEN_TAG, close_tag: str = CLOSE_TAG) -> bool:
    """Whether anything in `text` reads as a tag of the reasoning."""
    return _tag_pattern(open_tag, close_tag).search(text) is not None


def split(text: str, *, finished: bool, prefilled: bool = False, open_tag: str = OPEN_TAG, close_tag: str = CLOSE_TAG) -> Split:
    """Take `text` apart into one reasoning block and the answer after it, both stripped of outer white space.

    `finished`: the model ended its turn itself (False: the token limit came first). `prefilled`: the opening tag
    was part of the prompt, so `text` starts inside the block.

    ok: one block at the start and a non-empty answer. empty: the block, and no answer. truncated: not finished, and
    well formed so far; a partial answer is dropped. malformed: anything else (no opening tag, no closing tag in a
    finished text, a second or nested block, a stray tag or what reads like one).
    """
    body = text.lstrip()
    tags = [match.group() for match in _tag_pattern(open_tag, close_tag).finditer(body)]
    expected = [close_tag] if prefilled else [open_tag, close_tag]
    if not prefilled and not body.startswith(open_tag):
        if not finished and open_tag.startswith(body):
            return Split("", "", "truncated", "token limit before the opening tag")
        return Split(text, "", "malformed", f"no {open_tag} at the start")
    if tags != expected[: len(tags)]:
        return Split(text, "", "malformed", f"more than one {open_tag}...{close_tag} block, or a stray tag")
    reasoning, closed, answer = body[0 if prefilled else len(open_tag) :].partition(close_tag)
    reasoning, answer = reasoning.strip(), answer.strip()
    if not finished:
        return Split(reasoning, "", "truncated", f"token limit inside the {'answer' if closed else 'reasoning'}")
    if not closed:
        return Split(text, "", "malformed", f"no {close_tag}")
    if not answer:
        return Split(reasoning, "", "empty", f"nothing after {close_tag}")
    return Split(reasoning, answer, "ok", "")


class Renderer:
    """Messages to token ids and back, over any Hugging Face fast tokenizer with a chat template.

    Whether the template opens the reasoning block itself (`prefilled`) and whether it knows `reasoning_content` are
    found by rendering a probe. A template without support for reasoning gets it inline, before the answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, open_tag: str = OPEN_TAG, close_tag: str = CLOSE_TAG):
        self.tokenizer, self.open_tag, self.close_tag = tokenizer, open_tag, close_tag
        where = tokenizer.name_or_path or None
        if not tokenizer.chat_template:
            raise DataError("the tokenizer has no chat template", where=where, hint="add chat_template.jinja beside it")
        end_id = tokenizer.eos_token_id
        if not isinstance(end_id, int):
            raise DataError("the tokenizer names no end-of-turn token", where=where, hint="set eos_token")
        self.end_id: int = end_id
        probe = [{"role": "user", "content": "probe"}]
        self.prefilled = self._render(probe, prompt=True).rstrip().endswith(open_tag)
        reply = {"role": "assistant", "content": "probe", "reasoning_content": "canary"}
        self._native = "canary" in self._render([*probe, reply], prompt=False)
        self._prefix: tuple[str, tuple[int, ...] | None] = ("", None)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the conversation with the generation prompt. Raises `DataError` if the template refuses it."""
        return self._encode(self._render(self._turns(messages), prompt=True))

    def prefix_ids(self, messages: Sequence[Message]) -> list[int] | None:
        """Ids of the leading system message alone, or None when there is none or when the ids of the whole
        conversation do not begin with them (so that nothing computed for the prefix could be reused)."""
        if len(messages) < 2 or messages[0].role != "system":
            return None
        prefix = self._system_ids(messages[0])
        if prefix is None or self.prompt_ids(messages)[: len(prefix)] != list(prefix):
            return None
        return list(prefix)

    def prompt_and_prefix(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """`prompt_ids` and the length of `prefix_ids` within it (0 for None), tokenised once."""
        ids = self.prompt_ids(messages)
        prefix = self._system_ids(messages[0]) if len(messages) > 1 and messages[0].role == "system" else None
        reusable = prefix is not None and tuple(ids[: len(prefix)]) == prefix
        return ids, len(prefix) if prefix is not None and reusable else 0

    def example(self, messages: Sequence[Message], reasoning: str, answer: str, *, row: str | None = None) -> Rendered:
        """The training row for `reasoning` and `answer` after `messages`: loss on the reasoning, its tags (those
        the model writes itself), the answer and the end-of-turn token; -100 on the prompt.

        Raises `StageFailed` naming `row` (default: a hash of the conversation) if the prompt is not a strict token
        prefix of the whole or if the completion does not decode back, white space aside.
        """
        name = row or content_id([[message.role, message.content] for message in messages])
        prompt = self.prompt_ids(messages)
        whole = self._encode(self._render([*self._turns(messages), self._reply(reasoning, answer)], prompt=False))
        if len(whole) <= len(prompt) or whole[: len(prompt)] != prompt:
            raise StageFailed(
                f"row {name}: the prompt's ids are not a strict prefix of the whole; the chat template renders the two differently"
            )
        completion = whole[len(prompt) :]
        if self.end_id not in completion:
            raise StageFailed(f"row {name}: the chat template does not end the assistant's turn with {self.tokenizer.eos_token!r}")
        completion = completion[: completion.index(self.end_id) + 1]
        self._check_round_trip(name, completion, reasoning, answer)
        return Rendered(prompt + completion, [-100] * len(prompt) + completion)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens kept."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def split_ids(self, ids: Sequence[int], finished: bool) -> Split:
        """`split` of generated ids. The final end-of-turn token is not part of the text; any other special token
        (a role marker in the middle of an answer) makes the whole malformed."""
        body = list(ids[:-1] if ids and ids[-1] == self.end_id else ids)
        text = self.decode(body)
        if not self._foreign_ids.isdisjoint(body):
            return Split(text, "", "malformed", "a special token of the chat template inside the text")
        return split(text, finished=finished, prefilled=self.prefilled, open_tag=self.open_tag, close_tag=self.close_tag)

    @cached_property
    def close_ids(self) -> list[int]:
        """Ids of the closing tag, for an engine that has to close the block for the model."""
        return self._encode(self.close_tag)

    @cached_property
    def open_ids(self) -> list[int]:
        """Ids of the opening tag."""
        return self._encode(self.open_tag)

    @cached_property
    def _foreign_ids(self) -> frozenset[int]:
        """Special tokens that no completion may contain. An unknown word is not a marker."""
        allowed = (self.open_tag, self.close_tag, self.tokenizer.unk_token)
        return frozenset(i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special and token.content not in allowed)

    @cached_property
    def _markers(self) -> re.Pattern[str]:
        """Texts that the tokenizer or the splitter would read as markers, longest first."""
        special = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        texts = sorted(special | {self.open_tag, self.close_tag}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)))

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Earlier reasoning is left out: it is no part of what a conversation shows (paper, section 2.1)."""
        return [{"role": message.role, "content": self._defused(message.content)} for message in messages]

    def _defused(self, content: str) -> str:
        """A marker inside a message becomes plain text: a space after its first character."""
        return self._markers.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", content)

    def _reply(self, reasoning: str, answer: str) -> dict[str, str]:
        if self._native:
            return {"role": "assistant", "content": answer, "reasoning_content": reasoning}
        return {"role": "assistant", "content": f"{self.open_tag}{reasoning}{self.close_tag}{answer}"}

    def _render(self, turns: list[dict[str, str]], *, prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
        except jinja2.TemplateError as error:
            raise DataError(f"the chat template refuses the roles {[turn['role'] for turn in turns]}: {error}") from None
        assert isinstance(text, str)
        return text

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _system_ids(self, system: Message) -> tuple[int, ...] | None:
        """Ids of the system turn rendered alone; the last one is remembered, as callers come in groups."""
        if self._prefix[0] != system.content:
            try:
                ids = tuple(self._encode(self._render(self._turns([system]), prompt=False)))
            except DataError:  # a template may insist on a user turn; then there is no prefix to speak of
                ids = None
            self._prefix = (system.content, ids)
        return self._prefix[1]

    def _check_round_trip(self, name: str, completion: list[int], reasoning: str, answer: str) -> None:
        found = self.split_ids(completion, finished=True)
        if found.status != "ok":
            raise StageFailed(f"row {name}: the rendered completion does not split ({found.status}: {found.detail})")
        for what, before, after in (("reasoning", reasoning, found.reasoning), ("answer", answer, found.answer)):
            if _letters(before) != _letters(after):
                raise StageFailed(f"row {name}: the {what} does not survive tokenisation: {before[:80]!r} becomes {after[:80]!r}")


def _letters(text: str) -> str:
    """What a round trip must keep: word-level tokenizers respace a text, and many normalise it to NFC."""
    return "".join(unicodedata.normalize("NFC", text).split())
