"""Models behind one small protocol: a batch of requests in, replies out as they finish.

A reply is already split into reasoning and answer; nothing downstream ever sees them glued together. A failure is
a reply with status `failed` and a reason, so one bad request never loses the others. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, overload

from preceptor.records import Message, Sampling, Status

Item = TypeVar("Item")


@dataclass(frozen=True)
class Request:
    """One call. Requests with an equal leading system message share a prefix: engines may compute it once, and
    clients send them to one server together."""

    messages: tuple[Message, ...]
    sampling: Sampling
    thought: str | None = None
    """Reasoning that is written for the model, so that it goes on with the answer alone. Models that can not be made to go on with what they
    have not written refuse it (`UsageError`); servers are tried first. The reply has it as its reasoning; its tokens are those of a prompt."""


@dataclass(frozen=True)
class Reply:
    """What came back, split at the boundary by the strict splitter of `chat`."""

    reasoning: str
    answer: str
    status: Status
    detail: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unsupported: bool = False
    """Of a failed one: the model cannot be asked this at all, however often it is tried."""
    too_long: bool = False
    """Of a failed one: the prompt does not fit into the model's context."""


class Lazily(Sequence[Request]):
    """Requests that are made when they are looked at, so that two hundred thousand of them take no room."""

    def __init__(self, items: Sequence[Item], make: Callable[[Item], Request]):
        self._items, self._make = items, make

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...

    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        return Lazily(self._items[index], self._make) if isinstance(index, slice) else self._make(self._items[index])


class Model(Protocol):
    """Anything that answers requests."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def identity(self) -> str:
        """Hash of what determines the output: weights or endpoint model id, template, revision."""
        ...

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield `(index, reply)` exactly once per request, in any order, as they finish."""
        ...


def complete(model: Model, requests: Sequence[Request]) -> list[Reply]:
    """All replies in the order of the requests."""
    replies: dict[int, Reply] = dict(model.stream(requests))
    return [replies[index] for index in range(len(requests))]
