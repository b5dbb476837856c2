"""What the judge is told about a prompt, and what it says of it."""

from __future__ import annotations

import pytest
from small import completion, prompt

from preceptor.judge import view_of
from preceptor.opinions import count, said
from preceptor.records import Abstention, AnswerView, FullView, Opinion, Prompt, Verdict, Vote


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        ("Agree: it asks for a tool.\n{}", True),
        ("I thought.\n**Disagree:** the clause allows it.", False),
        ("Agree: at first.\nDisagree: on second thoughts.", False),
        ("I agree with nothing here.", None),
        ("Agreeable weather", None),
        ("", None),
    ],
)
def test_the_last_line_that_says_so_counts(text: str, agrees: bool | None) -> None:
    assert said(text) is agrees


def told(text: str, by: str) -> Prompt:
    return Prompt.model_validate({**prompt(text).model_dump(), "opinion": {"text": "refuse", "by": by}})


def test_counts_are_by_whose_opinion_and_leave_failed_readings_out() -> None:
    given = [told("one", "ai"), told("two", "human"), prompt("three")]
    done = [completion(item) for item in given]
    readings = [
        Vote(score=1.0, raw="Agree: yes"),
        Vote(score=0.0, raw="Disagree: no"),
        Vote(score=None, failure="transport: x"),
        Vote(score=1.0, raw="{}"),
    ]
    common = {"judge": "j", "spec_hash": "s", "view": "answer"}
    judgements = [
        Verdict.model_validate({**common, "completion_id": done[0].id, "score": 0.0, "votes": readings}),
        Abstention.model_validate({**common, "completion_id": done[1].id, "reason": "transport", "votes": readings[:1]}),
        Verdict.model_validate({**common, "completion_id": done[2].id, "score": 0.0, "votes": readings}),
    ]
    found = count(given, judgements, {item.id: item.prompt_id for item in done})
    assert found == {"ai": {"agree": 1, "disagree": 1, "silent": 1}, "human": {"agree": 1}}


def test_both_judges_are_told() -> None:
    given = told("one", "ai")
    for view in ("answer", "reasoning+answer"):
        shown = view_of(completion(given), given, view)
        assert isinstance(shown, AnswerView | FullView)
        assert shown.opinion == Opinion(text="refuse", by="ai")


def test_a_prompt_without_one_is_the_row_it_always_was() -> None:
    """The id of this prompt as it was before there were opinions: ids name draws and votes, so they must not move."""
    plain = prompt()
    assert set(plain.to_row()) == {"id", "messages", "category", "split", "meta"}
    assert plain.id == "6dabe61d43cc3e94"
    assert Prompt.from_row(told("one", "human").to_row()).opinion == Opinion(text="refuse", by="human")
