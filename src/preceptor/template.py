"""What a chat template makes of a conversation, and what it tells of how its model writes a turn. No torch.

In: a tokenizer with a chat template, and `TemplateArguments`.  Out: rendered text, the same on every day, and a `Format`.

The one idea: a family is known by what its template does, never by its name. Four probes are rendered, and where they put a
planted reasoning and a planted answer says everything: what the model writes before its reasoning, between reasoning and
answer, and at the end of its turn.

| what the template does with a reply         | `reply`  | families                                             |
|---------------------------------------------|----------|------------------------------------------------------|
| renders `reasoning_content` (or `thinking`) | `field`  | Qwen3, gpt-oss (its channels are the tags), ...      |
| renders the content as it is                | `inline` | SmolLM3, OLMo-3-Think, Llama, Qwen2.5, ...           |
| renders the answer, and drops the reasoning | `answer` | DeepSeek-R1 distills                                 |

For `inline` and `answer` the template does not say how reasoning is written; it is `<think>`, a new line, the reasoning, a new
line, `</think>`, an empty line, the answer, or what follows an opening tag that the prompt already ends with. A template that
fits none of the three is refused with a line that says what to do, and so is one that leaves a turn out.

Not here: token ids, masks, splitting (`chat`), tool calls, images, templates without an end-of-turn token.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import jinja2

from preceptor.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN_TAG, CLOSE_TAG = "<think>", "</think>"
TODAY = datetime.date(2026, 1, 1)
"""The date every template is told. Templates that print the real one (SmolLM3, gpt-oss, Llama 3.2) would change every prompt, and
with it every prefix that was computed and every row that was trained, at midnight."""

Turn = dict[str, str]
Value = str | int | float | bool

_USER: Turn = {"role": "user", "content": "probe"}
_REASONING, _ANSWER = "planted-reasoning", "planted-answer"
_CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_READS_REASONING = re.compile(r"""\breasoning_content\b|(\.|\[\s*['"]|get\(\s*['"])(reasoning|thinking)\b""")
_HINT = "use a template that renders reasoning_content, or the content as it is, and ends the assistant's turn with a special token"


@dataclass(frozen=True)
class TemplateArguments:
    """What a template is told besides the messages: part of what determines a model's output."""

    thinking: bool = True
    """False: the model answers without reasoning. Refused where the template cannot switch it off."""
    extra: tuple[tuple[str, Value], ...] = ()
    """Further arguments by name, for example `reasoning_effort` of gpt-oss."""

    @property
    def identity(self) -> str:
        """Text to hash; empty for the defaults, so that they identify a model as its files alone do."""
        return "" if self == DEFAULTS else json.dumps([self.thinking, sorted(self.extra)])


DEFAULTS = TemplateArguments()


@dataclass(frozen=True)
class Format:
    """How a model writes its turn: `open`, reasoning, `close`, answer, `end`. White space around reasoning and answer means nothing."""

    reply: Literal["field", "inline", "answer"]
    """What the template does with the reasoning of a last turn."""
    thinking: bool
    """False: the turn is the answer and `end` alone."""
    prefilled: bool
    """The prompt already holds the opening tag."""
    open: str
    close: str
    end: str
    """White space and the end-of-turn token."""
    open_tag: str
    close_tag: str
    """`open` and `close` as they must stand in what a model wrote, white space aside."""
    markers: tuple[str, ...]
    """What must not stand anywhere else: the tags, or the special tokens they are made of."""
    prefill: str
    """What the prompt ends with from the opening tag on; empty if not `prefilled`."""
    opening: str
    """What every prompt ends with: the generation prompt."""
    ends: tuple[str, ...]
    """Tokens that end a turn: that of the last turn first, then that of earlier turns and the tokenizer's own."""


class ChatTemplate:
    """The chat template of a tokenizer, held still and looked into."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, arguments: TemplateArguments = DEFAULTS):
        self.tokenizer, self.arguments = tokenizer, arguments
        self.where = tokenizer.name_or_path or None
        if not tokenizer.chat_template:
            raise DataError("the tokenizer has no chat template", where=self.where, hint="add chat_template.jinja beside it")
        self.source = _CLOCK.sub(lambda call: json.dumps(TODAY.strftime(call[2])), tokenizer.get_chat_template())
        if re.search(r"strftime_now\s*\(", self.source):
            raise DataError("the chat template reads the clock in a way that cannot be held still", where=self.where, hint="edit it")
        self._left_out = lru_cache(maxsize=256)(self._find_left_out)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Markers, longest first: added tokens that are special or that the template writes (not all families flag theirs as special:
        those of DeepSeek's roles are plain), except the one for unknown words."""
        added = self.tokenizer.added_tokens_decoder.values()
        found = {token.content for token in added if token.special or (len(token.content.strip()) > 2 and token.content in self.source)}
        return tuple(sorted((token for token in found if token != self.tokenizer.unk_token), key=_longest))

    @cached_property
    def format(self) -> Format:
        """How the model writes its turn. Raises `DataError` for a template that fits none."""
        on = self._field()
        if on is None and _READS_REASONING.search(self.source):
            raise self._unfit("reads a field for reasoning, and does not render it in the last turn")
        on = on or self._inline() or self._answer()
        if on is None:
            raise self._unfit("fits no way of writing reasoning and answer")
        return on if self.arguments.thinking else self._without_thinking(on)

    def render(self, turns: Sequence[Turn], *, prompt: bool, thinking: bool | None = None) -> str:
        """The conversation as text, with the generation prompt or as it stands. Raises `DataError` if the template refuses it."""
        on = self.arguments.thinking if thinking is None else thinking
        switches = {"enable_thinking": on, "thinking": on, **dict(self.arguments.extra)}
        try:
            text = self.tokenizer.apply_chat_template(
                list(turns), chat_template=self.source, tokenize=False, add_generation_prompt=prompt, **switches
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            roles = [turn["role"] for turn in turns]
            raise DataError(f"the chat template refuses the roles {roles}: {error}", where=self.where) from None
        assert isinstance(text, str)
        return text

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The conversation with the generation prompt. Raises `DataError` if a turn is left out or rewritten, or if a message
        switches the template's mode (SmolLM3 reads `/no_think` in a system message)."""
        missing = self._left_out(tuple(turn["role"] for turn in turns))
        if missing is not None:
            role, number = turns[missing]["role"], missing + 1
            hint = "put its text into the system turn or a user turn"
            raise DataError(f"the chat template leaves out turn {number} ({role})", where=self.where, hint=hint)
        text = self.render(turns, prompt=True)
        for number, turn in enumerate(turns, start=1):
            said = turn["content"].strip()
            if said not in text and json.dumps(said, ensure_ascii=False)[1:-1] not in text:
                raise DataError(f"the chat template rewrites turn {number} ({turn['role']}): {said[:60]!r}", where=self.where)
        if not text.endswith(self.format.opening):
            raise DataError(f"the prompt does not end as every other: ...{text[-40:]!r}, not {self.format.opening!r}", where=self.where)
        return text

    def _find_left_out(self, roles: tuple[str, ...]) -> int | None:
        """Index of the first turn of a conversation with these roles that the template does not print; None if it prints all."""
        marks = [f"turn-{index}-of-{len(roles)}" for index in range(len(roles))]
        turns = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        text = self.render(turns, prompt=True)
        return next((index for index, mark in enumerate(marks) if mark not in text), None)

    # The probes. Thinking is on in all but the last.

    @cached_property
    def _prompt(self) -> str:
        return self.render([_USER], prompt=True, thinking=True)

    def _told(self, content: str, thinking: bool = True, **fields: str) -> str:
        return self.render([_USER, {"role": "assistant", "content": content, **fields}], prompt=False, thinking=thinking)

    def _field(self) -> Format | None:
        """The template renders the reasoning it is given apart from the content."""
        told = self._told(_ANSWER, reasoning_content=_REASONING)
        if _REASONING not in told:
            return None
        if not told.startswith(self._prompt):
            raise self._unfit("renders the conversation differently when the reply is there")
        opened, _, rest = told[len(self._prompt) :].partition(_REASONING)
        closed, answered, tail = rest.partition(_ANSWER)
        if not answered or not closed.strip():
            raise self._unfit("does not keep reasoning and answer apart")
        open_tag = opened.strip() or closed.strip().replace("/", "", 1)
        prefilled = not opened.strip()
        if prefilled and not self._prompt.rstrip().endswith(open_tag):
            raise self._unfit("does not mark where the reasoning begins")
        return self._format("field", prefilled, open_tag, opened, closed, tail)

    def _inline(self) -> Format | None:
        """The template renders the content as it is, tags and all."""
        prefilled = self._prompt.rstrip().endswith(OPEN_TAG)
        opened, closed = "" if prefilled else f"{OPEN_TAG}\n", f"\n{CLOSE_TAG}\n\n"
        content = f"{self._prefill(OPEN_TAG) if prefilled else opened}{_REASONING}{closed}{_ANSWER}"
        written = f"{self._prompt}{opened}{_REASONING}{closed}{_ANSWER}"
        told = self._told(content)
        return self._format("inline", prefilled, OPEN_TAG, opened, closed, told[len(written) :]) if told.startswith(written) else None

    def _answer(self) -> Format | None:
        """The template renders the answer after its prompt less the opening tag."""
        prefilled = self._prompt.rstrip().endswith(OPEN_TAG)
        opened, closed = "" if prefilled else f"{OPEN_TAG}\n", f"\n{CLOSE_TAG}\n\n"
        written = self._prompt.removesuffix(self._prefill(OPEN_TAG) if prefilled else "") + _ANSWER
        told = self._told(_ANSWER)
        return self._format("answer", prefilled, OPEN_TAG, opened, closed, told[len(written) :]) if told.startswith(written) else None

    def _without_thinking(self, on: Format) -> Format:
        """The same with the turn reduced to the answer."""
        prompt = self.render([_USER], prompt=True, thinking=False)
        if prompt == self._prompt and (on.reply == "field" or on.prefilled):
            raise DataError("the chat template cannot switch thinking off", where=self.where, hint="remove thinking = false")
        if not self._told(_ANSWER, thinking=False, reasoning_content="").startswith(prompt + _ANSWER + on.end):
            raise self._unfit("renders a reply differently from its prompt when thinking is off")
        opening = self._opening(prompt, thinking=False)
        return replace(on, thinking=False, prefilled=False, open="", close="", prefill="", opening=opening)

    def _format(
        self, reply: Literal["field", "inline", "answer"], prefilled: bool, tag: str, opened: str, closed: str, tail: str
    ) -> Format:
        """Put together, given the rendered text around reasoning and answer; `tail` follows the answer."""
        end = self._first_token(tail)
        if end is None:
            raise self._unfit("does not end the assistant's turn with a special token")
        tags = (tag, closed.strip())
        inside = {token for token in self.tokens if token in tags[0] + tags[1]}
        markers = tuple(sorted(inside | {tag for tag in tags if not any(token in tag for token in inside)}, key=_longest))
        earlier = self.render([_USER, {"role": "assistant", "content": _ANSWER}, _USER], prompt=False, thinking=True)
        others = (self._first_token(earlier.partition(_ANSWER)[2]), self.tokenizer.eos_token)
        ends = dict.fromkeys(token for token in (end, *others) if isinstance(token, str) and token not in inside)
        return Format(
            reply=reply, thinking=True, prefilled=prefilled, open=opened, close=closed, end=tail[: tail.index(end)] + end,
            open_tag=tag, close_tag=tags[1], markers=markers, prefill=self._prefill(tag) if prefilled else "",
            opening=self._opening(self._prompt, thinking=True), ends=tuple(ends),
        )  # fmt: skip

    def _opening(self, prompt: str, *, thinking: bool) -> str:
        """What the prompt has and the conversation as it stands has not; Phi-3 ends the latter with a token of its own."""
        before = self.render([_USER], prompt=False, thinking=thinking)
        return prompt[len(before) :] if prompt.startswith(before) else prompt.rpartition(_USER["content"])[2]

    def _prefill(self, tag: str) -> str:
        return self._prompt[self._prompt.rindex(tag) :]

    def _first_token(self, text: str) -> str | None:
        """The marker that `text` begins with, white space aside."""
        return next((token for token in self.tokens if text.lstrip().startswith(token)), None)

    def _unfit(self, what: str) -> DataError:
        return DataError(f"the chat template {what}", where=self.where, hint=_HINT)


def _longest(text: str) -> tuple[int, str]:
    """Sorts longer texts first."""
    return -len(text), text
