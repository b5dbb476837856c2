"""The double keeps the protocol's promises, also when the script is out of order, out of lines or out of luck."""

from __future__ import annotations

import pytest
from small import user

from preceptor.errors import ModelError
from preceptor.models import Reply, Request, complete
from preceptor.models.scripted import ScriptedModel, fail, say, truncate
from preceptor.records import Sampling

REQUESTS = [Request((user(text),), Sampling()) for text in ("a", "b", "c")]


def test_list_is_used_up_in_order_and_then_fails() -> None:
    model = ScriptedModel(["one", fail("gone")])
    replies = complete(model, REQUESTS)
    assert [reply.status for reply in replies] == ["ok", "failed", "failed"]
    assert (replies[0].answer, replies[1].detail) == ("one", "gone")
    assert "only 2 lines" in replies[2].detail
    assert model.requests == REQUESTS


def test_function_sees_the_request_and_may_raise() -> None:
    def script(request: Request) -> Reply | str:
        if request.messages[0].content == "b":
            raise ModelError("timeout")
        return say(request.messages[0].content.upper(), "why")

    replies = complete(ScriptedModel(script, backwards=True), REQUESTS)
    assert [reply.answer for reply in replies] == ["A", "", "C"]
    assert (replies[1].status, replies[1].detail, replies[0].reasoning) == ("failed", "timeout", "why")


def test_a_crash_escapes() -> None:
    def crash(request: Request) -> Reply:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(ScriptedModel(crash), REQUESTS)


def test_truncated_has_no_answer() -> None:
    assert truncate("on and on").status == "truncated"
    assert truncate("on and on").answer == ""
    assert ScriptedModel([], name="x").identity != ScriptedModel([], name="y").identity
