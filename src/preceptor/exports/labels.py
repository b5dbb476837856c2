"""What travels with a prompt through somebody else's trainer: its conversation, its categories and what was found out about it, as one line of JSON.

Trainers pass a row's label or extra information on to the reward untouched, but what they do to the prompt differs: one hands over the
rendered text, another nothing at all. The judge needs the conversation as it was.
"""

from __future__ import annotations

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from preceptor.errors import DataError
from preceptor.records import AnswerView, Message, Opinion, Prompt


class Label(BaseModel):
    """The line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_id: str
    category: str
    also: tuple[str, ...] = ()
    opinion: Opinion | None = None
    messages: tuple[Message, ...]


def label_of(prompt: Prompt) -> str:
    """The line for `prompt`. It holds no reasoning of earlier turns, and nothing of a specification."""
    messages = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
    opinion = {"opinion": {"text": prompt.opinion.text, "by": prompt.opinion.by}} if prompt.opinion else {}
    also = {"also": prompt.also} if prompt.also else {}
    return orjson.dumps({"prompt_id": prompt.id, "category": prompt.category, **also, **opinion, "messages": messages}).decode()


def view_of(label: str, answer: str) -> AnswerView:
    """What the judge is shown. Raises `DataError` for a label of another origin."""
    try:
        read = Label.model_validate_json(label)
    except (ValidationError, TypeError):
        raise DataError(
            "a row without the label that `preceptor export` writes", hint="train on the exported data set, with its label column"
        ) from None
    return AnswerView(messages=read.messages, category=read.category, also=read.also, answer=answer, opinion=read.opinion)
