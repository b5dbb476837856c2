"""What a chat completion server streams, read strictly: events become reasoning and answer, and at the end a status. No I/O.

In: the JSON of events (or of one whole reply, from a server that does not stream).  Out: deltas, then `Done`.

The one idea: where the reasoning stands is something to be proved for every reply, because a server's parser that works on most replies fails
on some and then leaves the reasoning in the content.

| `where`  | content is answer                                                                                             |
|----------|---------------------------------------------------------------------------------------------------------------|
| `field`  | once reasoning has come in its field; content before that is malformed, and nothing of it is released         |
| `inline` | behind the closing tag (`splitter`)                                                                           |
| `auto`   | as `field` if reasoning comes in its field first; else as `inline`, and a text without an opening tag is taken for reasoning until a closing tag comes, as of a template that opens the block |
| `none`   | from the beginning: the model does not reason, or its server keeps the reasoning to itself                    |

Everywhere a marker in the answer ends the reply as malformed. What no reader of a stream can know is that a parser, after it has put some of
the reasoning in its field, leaves the rest of it in the content without any tag, or with a tag only behind it. Against the latter, whoever can
wait for the end takes an answer only when it is well formed.

Only named fields are looked at, and only of the first choice: log-probabilities repeat the tokens of the reasoning, further choices would mix
with it, and neither is ever passed on. No word of a server goes into a `Done`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from preceptor.gateway.splitter import DEFAULT_TAGS, Piece, Splitter, Tags
from preceptor.models.refusals import BLOCKED, code_of
from preceptor.models.replies import ending_of, texts_of, usage_of
from preceptor.records import Status

Where = Literal["field", "inline", "auto", "none"]
"""Where the reasoning stands. field: in a field of its own. inline: in the content, between tags. auto: found out for each reply; what may be
reasoning is taken for reasoning. none: the model does not reason, or its server keeps the reasoning to itself."""
Failure = Literal["", "busy", "timeout", "unreachable", "upstream", "setup", "long"]
"""What a failed reply failed of. busy: come again later. timeout. unreachable: no connection, or one that was lost. upstream: the server failed or
speaks another language. setup: a wrong address, key or model name, or an empty account; whoever runs the gateway has to mend it. long: the conversation
does not fit into the model's context."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What has come since: reasoning, answer or both. Never empty."""

    reasoning: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a reply. `detail`: why it is not ok, in words of this program and never of the model or its server."""

    status: Status
    detail: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: Failure = ""
    """Set exactly when `status` is failed."""


class Reading:
    """One reply: `read` every event until `over`, then `end`. `prefilled`: the prompt ends with the opening tag (for `inline`)."""

    def __init__(self, where: Where = "auto", tags: Tags = DEFAULT_TAGS, *, prefilled: bool = False):
        self._where, self._tags = where, tags
        self._splitter: Splitter | None = None
        """None while it is not known where the reasoning stands."""
        if where in ("inline", "none"):
            self._splitter = Splitter(tags, prefilled=prefilled, thinking=where == "inline")
        self._waiting = ""
        """Content from before it is known where the reasoning stands: the beginning of an opening tag."""
        self._finish: str | None = None
        self._done: Done | None = None
        self._tokens = (0, 0)

    @property
    def over(self) -> bool:
        """Nothing that may still come would be shown."""
        return self._done is not None and self._finish is None

    def read(self, body: Any) -> list[Delta]:
        """What an event adds."""
        body = body if isinstance(body, dict) else {}
        if body.get("usage"):
            prompt, _, completion = usage_of(body)
            self._tokens = (self._tokens[0] if prompt is None else prompt, self._tokens[1] if completion is None else completion)
        if body.get("error") or body.get("object") == "error":
            return self._fail(body)
        deltas: list[Delta] = []
        choices = body.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            index = choice.get("index") if isinstance(choice, dict) else place
            if isinstance(choice, dict) and (place if index is None else index) == 0:
                self._read_choice(choice, deltas)
        return deltas

    @property
    def concluded(self) -> bool:
        """Only figures may still come."""
        return self._done is not None

    @property
    def malformed(self) -> bool:
        """Nothing of it can be taken for an answer any more."""
        return self._done is not None and self._done.status == "malformed"

    def end(self) -> Done:
        """The end of the reply."""
        prompt, completion = self._tokens
        done = self._done or Done("failed", "the upstream's reply ended without a reason", failure="upstream")
        return replace(done, prompt_tokens=prompt, completion_tokens=completion)

    def _fail(self, body: Mapping[str, Any]) -> list[Delta]:
        """An event that is an error. A reply that was complete before is not trusted any more, one that had failed stays what it was."""
        if self._done is None or self._done.status == "ok":
            blocked = code_of(body) in BLOCKED
            self._settle(
                "refused" if blocked else "failed", "blocked by the upstream" if blocked else "the upstream failed inside the reply"
            )
        return []

    def _read_choice(self, choice: Mapping[str, Any], deltas: list[Delta]) -> None:
        added = choice.get("delta" if "delta" in choice else "message")
        added = added if isinstance(added, dict) else {}
        content, reasoning = texts_of(added)
        if self._done is not None:
            if (content or "").strip() and self._done.status in ("ok", "empty"):
                self._settle("malformed", "the upstream goes on after the end of the reply")
            return
        if isinstance(added.get("refusal"), str) and added["refusal"]:
            return self._settle("refused", "refused by the upstream")
        if added.get("tool_calls") or added.get("function_call"):
            return self._settle("malformed", "the model called a tool")
        pieces = [Piece("reasoning", reasoning)] if reasoning else []
        self._place(content or "", bool(reasoning and reasoning.strip()), pieces)
        self._release(pieces, deltas)
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and self._done is None:
            self._conclude(finish, deltas)

    def _place(self, content: str, reasoned: bool, pieces: list[Piece]) -> None:
        """Give content to the splitter, once it is known what it begins with."""
        if self._splitter is None and reasoned:
            if self._waiting:
                return self._settle("malformed", "reasoning in its field and tags in the content")
            self._splitter = Splitter(self._tags, thinking=False)
        if self._splitter is None:
            content = (self._waiting + content).lstrip()
            self._waiting = content
            if not content:
                return
            if self._where == "field":
                return self._settle("malformed", "content before any reasoning (a server without a parser, or one that failed)")
            if self._tags.open.startswith(content) and content != self._tags.open:
                return
            self._splitter = Splitter(self._tags, prefilled=not content.startswith(self._tags.open))
            self._waiting = ""
        if content:
            pieces += self._splitter.feed(content)
            if self._splitter.status == "malformed":
                self._settle("malformed", self._splitter.detail)

    def _conclude(self, finish: str, deltas: list[Delta]) -> None:
        """The server has said why the reply ended. Its usage may still come."""
        ending = ending_of(finish)
        if ending == "blocked":
            return self._settle("refused", "blocked by the upstream")
        if ending == "other":
            return self._settle("malformed", "the model stopped for something else than an end or a limit")
        splitter = self._splitter or Splitter(self._tags, thinking=bool(self._waiting))
        pieces = splitter.feed(self._waiting) + splitter.end(ending == "finished")
        self._release(pieces, deltas)
        assert splitter.status is not None
        self._finish, self._done = finish, Done(splitter.status, splitter.detail)

    def _release(self, pieces: list[Piece], deltas: list[Delta]) -> None:
        texts = {"reasoning": "", "answer": ""}
        for kind, text in pieces:
            texts[kind] += text
        if pieces:
            deltas.append(Delta(**texts))

    def _settle(self, status: Status, detail: str) -> None:
        self._done = Done(status, detail, failure="upstream" if status == "failed" else "")
        self._finish = None
