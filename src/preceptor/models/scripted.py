"""A model that says what it is told to: the double on which every stage can be run in seconds, without tensors or a network.

In: a script, either a function of the request or a list used up in the order of the requests. Out: replies, and every
request kept in `requests` for tests to look into. A script may fail, truncate, or utter hostile text like any real model:
it returns a `Reply` with any status, or raises `ModelError`, which becomes a reply with status `failed` as the protocol demands.

A plain string is an answer without reasoning. Strings are not split at tags: a script that wants to be malformed says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from preceptor.errors import ModelError
from preceptor.models import Reply, Request
from preceptor.records import content_id

Line = Reply | str
Script = Callable[[Request], Line] | Sequence[Line]


def say(answer: str, reasoning: str = "") -> Reply:
    """A good reply."""
    return Reply(reasoning=reasoning, answer=answer, status="ok", prompt_tokens=1, completion_tokens=len(f"{reasoning} {answer}".split()))


def fail(detail: str = "connection lost") -> Reply:
    """A reply that never came."""
    return Reply(reasoning="", answer="", status="failed", detail=detail)


def truncate(reasoning: str = "") -> Reply:
    """A reply cut off while still reasoning."""
    return Reply(reasoning=reasoning, answer="", status="truncated", detail="token limit", completion_tokens=len(reasoning.split()))


class ScriptedModel:
    """Implements `Model`. `backwards` yields the replies in reverse order, which the protocol allows and stages must bear."""

    def __init__(self, script: Script, *, name: str = "scripted", backwards: bool = False):
        self.name = name
        self.identity = content_id({"scripted": name})
        self.requests: list[Request] = []
        self._script = script
        self._backwards = backwards
        self._position = 0

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield `(index, reply)` for every request; an exception other than `ModelError` escapes, as a crash would."""
        order = range(len(requests))
        for index in reversed(order) if self._backwards else order:
            self.requests.append(requests[index])
            yield index, self._reply(requests[index])

    def _reply(self, request: Request) -> Reply:
        try:
            line = self._line(request)
        except ModelError as error:
            return fail(str(error))
        return say(line) if isinstance(line, str) else line

    def _line(self, request: Request) -> Line:
        if callable(self._script):
            return self._script(request)
        if self._position == len(self._script):
            raise ModelError(f"the script of {self.name!r} has only {len(self._script)} lines")
        self._position += 1
        return self._script[self._position - 1]
