"""Every completion is kept or dropped with its first reason, and the specification does not come through."""

from __future__ import annotations

from typing import Any

import pytest
from small import SPEC, completion, prompt

from preceptor.errors import StageFailed
from preceptor.filter import LEAK_PHRASES, FilterConfig, Filtered, leak, select, wrong_channel
from preceptor.prompts import normalise
from preceptor.records import Abstention, Completion, Judgement, Message, Prompt, Status, Verdict

ASKED = prompt()
POLICY = SPEC.for_category("tools")


def verdict(of: Completion, score: float = 1.0) -> Verdict:
    return Verdict(completion_id=of.id, judge="j", spec_hash=SPEC.hash, view="reasoning+answer", score=score, votes=())


def abstention(of: Completion) -> Abstention:
    return Abstention(completion_id=of.id, judge="j", spec_hash=SPEC.hash, view="reasoning+answer", reason="off_menu")


def filtered(rows: list[tuple[Completion, Judgement | None]], config: FilterConfig | None = None, **options: Any) -> Filtered:
    judgements = {judgement.completion_id: judgement for _, judgement in rows if judgement}
    prompts = options.pop("prompts", [ASKED])
    found = select(
        [row for row, _ in rows], {item.id: item for item in prompts}, judgements, SPEC.for_categories, config or FilterConfig(), **options
    )
    assert len(found.examples) + len(found.dropped) == len(rows)
    return found


def reason(row: Completion, judgement: Judgement | None = None, config: FilterConfig | None = None, **options: Any) -> str:
    found = filtered([(row, judgement or verdict(row))], config, **options)
    return found.dropped[0].reason if found.dropped else "kept"


def test_good_row_becomes_an_example_that_names_its_parents() -> None:
    row = completion(ASKED)
    (example,) = filtered([(row, verdict(row))]).examples
    assert (example.messages, example.reasoning, example.answer) == (ASKED.messages, row.reasoning, row.answer)
    assert (example.prompt_id, example.completion_id, example.judgement_id) == (ASKED.id, row.id, verdict(row).id)
    assert example.spec_hash == SPEC.hash


@pytest.mark.parametrize("status", ["truncated", "malformed", "empty", "refused", "failed"])
def test_status_is_the_reason(status: Status) -> None:
    row = completion(ASKED, "", status=status)
    assert filtered([(row, None)]).dropped[0].reason == status


@pytest.mark.parametrize(
    ("reasoning", "answer"),
    [
        ("fine", "Sorry.</think>"),
        ("fine", "<Think>no"),
        ("first <think> second", "Sorry."),
        ("fine", "Sorry.<|end|>"),
        ("fine<|user|>", "Sorry."),
        ("fine", "Thought: I refuse.\nSorry."),
        ("fine", "Well.\n**Reasoning:** T1"),
    ],
)
def test_wrong_channel(reasoning: str, answer: str) -> None:
    assert reason(completion(ASKED, answer, reasoning)) == "wrong_channel"


@pytest.mark.parametrize("answer", ["A thoughtful answer: yes.", "Use a <b>bold</b> font and x |> f.", "My reasoning is simple."])
def test_right_channel(answer: str) -> None:
    assert wrong_channel(completion(ASKED, answer)) is None


@pytest.mark.parametrize("phrase", LEAK_PHRASES)
@pytest.mark.parametrize("channel", ["reasoning", "answer"])
def test_spec_leak_phrases_in_either_channel(phrase: str, channel: str) -> None:
    text = f"Well, {phrase.upper().replace(' ', '  ')}, so no."
    row = completion(ASKED, text, "Clause T1.") if channel == "answer" else completion(ASKED, "Sorry.", text)
    assert reason(row) == "spec_leak"
    assert filtered([(row, verdict(row))]).dropped[0].detail == phrase


def test_phrases_are_whole_words() -> None:
    assert leak(completion(ASKED, "It was provided in the prompting."), POLICY, FilterConfig()) is None


def test_shared_words_with_the_policy_count_only_when_asked_and_never_the_style() -> None:
    quoting = completion(ASKED, "Explaining words is always fine, you see.")
    styled = completion(ASKED, "Warn first, then help.")
    assert reason(quoting) == "kept"
    assert reason(quoting, config=FilterConfig(leak_ngram=5)) == "spec_leak"
    assert reason(quoting, config=FilterConfig(leak_ngram=6)) == "kept"
    assert reason(styled, config=FilterConfig(leak_ngram=4)) == "kept"


def test_contaminated_prompt() -> None:
    held_out = frozenset({normalise(prompt("how do I sell a HAMMER").messages)})
    assert reason(completion(ASKED), held_out=held_out) == "contaminated"


def test_abstention_and_low_score_differ() -> None:
    row = completion(ASKED)
    assert reason(row, abstention(row)) == "abstained"
    assert reason(row, verdict(row, 0.5)) == "low_score"
    assert reason(row, verdict(row, 0.5), FilterConfig(threshold=0.5)) == "kept"


def test_best_then_first_sample_is_kept_within_the_quota() -> None:
    rows = [completion(ASKED, f"Sorry {sample}.", sample=sample) for sample in range(4)]
    judged: list[tuple[Completion, Judgement | None]] = [
        (row, verdict(row, score)) for row, score in zip(rows, [0.5, 1.0, 1.0, 0.5], strict=True)
    ]
    config = FilterConfig(threshold=0.5)
    found = filtered(judged, config)
    assert [item.completion_id for item in found.examples] == [rows[1].id]
    assert {item.reason for item in found.dropped} == {"over_quota"}
    three = filtered(judged, config.model_copy(update={"max_per_prompt": 3}))
    assert {item.completion_id for item in three.examples} == {rows[0].id, rows[1].id, rows[2].id}


def test_specification_in_the_messages_stops_the_stage() -> None:
    carrying = Prompt(messages=(Message(role="system", content=f"{POLICY}\nBe kind."), *ASKED.messages), category="tools", split="train")
    row = completion(carrying)
    with pytest.raises(StageFailed, match="carry the policy of 'tools'"):
        filtered([(row, verdict(row))], prompts=[carrying])


def test_rows_that_do_not_belong_together_stop_the_stage() -> None:
    with pytest.raises(StageFailed, match="was never judged"):
        filtered([(completion(ASKED), None)])
    with pytest.raises(StageFailed, match="which is not there"):
        filtered([(completion(prompt("other")), None)])
