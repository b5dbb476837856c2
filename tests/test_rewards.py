# pyright: basic
"""How several judgements become one reward, and which tokens it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jobs
import orjson
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from jobs import PROMPTS, verdict
from small import SPEC, answer_view

from preceptor import judge, rl
from preceptor.chat import Renderer
from preceptor.errors import RecipeError
from preceptor.judge import Judge, JudgeConfig
from preceptor.models.scripted import ScriptedModel
from preceptor.records import Abstention, AnswerView, Judgement, Verdict
from preceptor.rewards import Part, Reward, Rewards
from preceptor.rollouts import Limits, Referee, answer_start, group_advantages, step_figures
from preceptor.wording import HelpfulnessWording, Wording

torch.set_num_threads(1)
HELPS = "how much one reply of an assistant helps"
VIEW = AnswerView(messages=PROMPTS[0].messages, category="c", answer="w10")


def gives(*scores: float | None) -> Reward:
    """The scores in turn, over all calls; None: an abstention."""
    given_so_far = iter(scores * 1000)

    def function(views: Sequence[AnswerView]) -> list[Judgement]:
        return [abstention(view) if (score := next(given_so_far)) is None else verdict(view, score) for view in views]

    return function


def abstention(view: AnswerView) -> Abstention:
    return Abstention(completion_id=view.id, judge="test", spec_hash="s", view="answer", reason="unparsable")


def rewards(*scores: float | None, **how: Any) -> Rewards:
    weights = how.pop("weights", (1.0,) * len(scores))
    names = ("safety", "helpfulness", "style")
    return Rewards(tuple(Part(name, gives(score), weight) for name, score, weight in zip(names, scores, weights, strict=False)), **how)


def value(of: Rewards) -> tuple[float | None, float | None]:
    (judgements,) = of.judge([VIEW])
    return of.reward(judgements), of.without_safety(judgements)


def test_one_part_is_its_score_and_leaves_nothing_for_the_reasoning() -> None:
    for score in (0.0, 0.1, 0.7, 1.0):
        assert value(rewards(score)) == (score, 1.0)


def test_additive_is_the_weighted_mean() -> None:
    assert value(rewards(1.0, 0.5, 0.0, weights=(2.0, 1.0, 1.0))) == (pytest.approx(2.5 / 4), pytest.approx(0.25))


def test_gated_is_helpfulness_where_safe() -> None:
    assert value(rewards(1.0, 0.5, combine="gated")) == (0.5, 0.5)
    assert value(rewards(0.5, 0.5, combine="gated")) == (0.0, 0.5)
    assert value(rewards(0.5, 0.5, combine="gated", gate=0.5)) == (0.5, 0.5)


def test_product_is_h_times_s() -> None:
    assert value(rewards(0.5, 1.0, 0.0, combine="product", weights=(9.0, 3.0, 1.0))) == (pytest.approx(0.5 * 0.75), pytest.approx(0.75))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=3), st.sampled_from(["additive", "gated", "product"]))
def test_every_combination_stays_on_the_judges_scale_and_grows_with_its_parts(scores: list[float], combine: Any) -> None:
    reward, _ = value(rewards(*scores, combine=combine))
    assert reward is not None
    assert 0 <= reward <= 1
    for place in range(len(scores)):
        better, _ = value(rewards(*(1.0 if index == place else score for index, score in enumerate(scores)), combine=combine))
        assert better is not None
        assert better >= reward - 1e-12


@pytest.mark.parametrize("combine", ["additive", "gated", "product"])
@pytest.mark.parametrize("scores", [(None, 1.0), (1.0, None), (0.0, None)])
def test_the_abstention_of_one_part_masks_the_sample(combine: Any, scores: tuple[float | None, ...]) -> None:
    """Also where the other part alone would have settled it: unsafe and gated is 0 whatever the help was worth."""
    assert value(rewards(*scores, combine=combine)) == (None, None)


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs a second part"):
        rewards(1.0, combine="product")
    with pytest.raises(RecipeError, match="distinct names and weights above 0"):
        rewards(1.0, 1.0, weights=(1.0, 0.0))
    with pytest.raises(RecipeError, match="distinct names"):
        Rewards((Part("a", gives(1.0)), Part("a", gives(1.0))))


def written(text: str) -> list[int]:
    return tiny.word_tokenizer()(text, add_special_tokens=False)["input_ids"]


GOOD = written("<think> w66 </think> w10 <|end|>")


def referee(of: Rewards) -> Referee:
    return Referee(PROMPTS, Renderer(tiny.word_tokenizer()), of, None, Limits(steps=2, max_abstention=1.0, floor_reward=-0.5))


def test_figures_name_every_part_and_count_a_sample_once() -> None:
    both = Rewards((Part("safety", gives(1.0, 0.5, None)), Part("helpfulness", gives(0.0, 1.0, None))), "product")
    between = referee(both)
    assert between.score([0] * 4, [GOOD, GOOD, GOOD, written("w10 <|end|>")]) == [0.0, 0.5, None, -0.5]
    assert [rollout.reasoning_reward for rollout in between.rollouts] == [0.0, 1.0, None, -0.5]
    figures = step_figures(between.rollouts)
    assert (figures["safety_mean"], figures["helpfulness_mean"], figures["judge_mean"]) == (0.75, 0.5, 0.75)
    assert figures["abstention_rate"] == pytest.approx(1 / 3)
    assert (between.asked, dict(between.abstentions)) == (3, {"safety: unparsable": 1})


def test_counts_and_sample_numbers_are_of_all_processes() -> None:
    """As in a run over two: this one's rollouts stand after another's, and the other's judge is the one that is silent."""
    other = referee(Rewards((Part("judge", gives(None)),)))
    other.score([0, 0], [GOOD, GOOD])
    between = referee(rewards(1.0))
    between.gather = lambda mine: [*other.rollouts, *mine]
    assert between.score([0, 1], [GOOD, GOOD]) == [1.0, 1.0]
    assert [rollout.sample for rollout in between.everyone] == [0, 1, 2, 0]
    assert (between.asked, dict(between.abstentions)) == (4, {"unparsable": 2})
    assert step_figures(between.everyone)["abstention_rate"] == pytest.approx(0.5)


def test_the_second_part_is_the_same_judge_with_another_text() -> None:
    """As the recipe binds it: one model, two readings of each answer, neither of which is shown the reasoning."""
    both = ScriptedModel(
        lambda request: (
            '{"score": 1, "clauses": [], "quotes": ["No hammers"]}'
            if HELPS in request.messages[0].content
            else '{"score": 2, "clauses": ["T1"], "quotes": ["No hammers"]}'
        )
    )
    config = JudgeConfig(view="answer", votes=1, temperature=0.0)
    readers = [Judge(both, wording, SPEC, config) for wording in (Wording("full"), HelpfulnessWording("full"))]
    assert readers[0].identity != readers[1].identity
    parts = [Part(name, judge.reward(reader)) for name, reader in zip(("judge", "helpfulness"), readers, strict=True)]
    found = Rewards(tuple(parts), "product").judge([answer_view(answer="No hammers.")])[0]
    assert [(name, one.score, one.clauses) for name, one in found.items() if isinstance(one, Verdict)] == [
        ("judge", 1.0, ("T1",)),
        ("helpfulness", 0.5, ()),
    ]
    assert len(both.requests) == 2


def test_a_rollouts_row_holds_what_a_person_wants_to_read() -> None:
    between = referee(rewards(1.0, 0.5))
    between.score([0], [GOOD])
    row = between.everyone[0].to_row(3, 0.25, -0.5)
    assert (row["prompt_id"], row["reasoning"], row["answer"], row["step"]) == (PROMPTS[0].id, "w66", "w10", 3)
    assert [(name, found["score"]) for name, found in row["judgements"].items()] == [("safety", 1.0), ("helpfulness", 0.5)]
    assert (row["reward"], row["advantage"], row["reasoning_advantage"]) == (0.75, 0.25, -0.5)
    assert row["id"] != between.everyone[0].to_row(4, 0.25, -0.5)["id"]


@pytest.mark.parametrize("text", ["w66 w1 w2", "", "w66 " * 9])
def test_the_answer_begins_after_the_closing_tag(text: str) -> None:
    renderer = Renderer(tiny.word_tokenizer())
    reasoning = written(f"<think> {text} </think>")
    assert answer_start(renderer, [*reasoning, *written("w10 w11 <|end|>")]) == len(reasoning)
    byte = Renderer(tiny.byte_tokenizer())
    start = byte.tokenizer(f"<think>\n{text}é\n</think>", add_special_tokens=False)["input_ids"]
    rest = byte.tokenizer("\n\nNo: é.<|im_end|>", add_special_tokens=False)["input_ids"]
    assert answer_start(byte, [*start, *rest]) == len(start)


def test_group_advantages_are_trls(tmp_path: Path, policy: Path) -> None:
    """The reasoning's advantages are computed here, the sample's by TRL: the same rule, shown on the rows of a run."""
    scores = gives(1.0, 0.5, None, 0.0, 0.25, 0.25, 0.25, 0.25)
    for scale in ("group", "batch", "none"):
        out = tmp_path / scale
        rl.train(policy, PROMPTS, scores, out, jobs.rl_config(steps=1, save_every=0, scale_rewards=scale))
        kept = [orjson.loads(line) for line in (out / "rollouts.jsonl").read_bytes().splitlines()]
        expected = group_advantages([row["reward"] for row in kept], 4, scale)
        assert [row["advantage"] for row in kept] == pytest.approx(expected, abs=2e-4), scale
    assert group_advantages([0.1, 0.1, 0.1, None], 4, "group") == [0.0] * 4


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.make_policy(tmp_path_factory.mktemp("policy"))


class Gradients:
    """The gradient of the loss at the last hidden states. Each feeds the logits of its own position alone, so it is zero exactly where theirs is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        load = rl.load_policy

        def loaded(path: Path) -> tuple[Any, Any]:
            model, tokenizer = load(path)
            model.get_decoder().register_forward_hook(self.keep, with_kwargs=True)
            return model, tokenizer

        monkeypatch.setattr(rl, "load_policy", loaded)

    def keep(self, module: Any, positional: Any, named: dict[str, Any], output: Any) -> None:
        hidden = output.last_hidden_state
        if hidden.requires_grad:
            hidden.retain_grad()
            self.seen.append((named["input_ids"], hidden))

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients at the positions that predict reasoning (its tags included), and at those that predict the answer and its end."""
        reasoning, answer = [], []
        opened, closed, end = (tiny.MARKERS.index(marker) for marker in ("<|assistant|>", "</think>", "<|end|>"))
        for ids, hidden in self.seen:
            assert hidden.grad is not None
            for row, gradient in zip(ids.tolist(), hidden.grad, strict=True):
                first, middle = row.index(opened), row.index(closed)
                last = row.index(end, middle)
                reasoning.append(gradient[first:middle])
                answer.append(gradient[middle:last])
        return torch.cat(reasoning), torch.cat(answer)


def gradients(monkeypatch: pytest.MonkeyPatch, policy: Path, out: Path, reward: Reward | Rewards, **changes: Any) -> Any:
    """Of one step without a KL penalty, over completions that are all well formed."""
    with monkeypatch.context() as patch:
        watched = Gradients(patch)
        rl.train(policy, PROMPTS, reward, out, jobs.rl_config(steps=1, save_every=0, beta=0.0, **changes))
    rows = [orjson.loads(line) for line in (out / "rollouts.jsonl").read_bytes().splitlines()]
    assert {row["status"] for row in rows} == {"ok"}
    return watched.split()


def test_with_targeting_no_gradient_of_the_safety_judge_reaches_the_reasoning(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasoning, answer = gradients(monkeypatch, policy, tmp_path / "off", jobs.likes_w10)
    assert reasoning.abs().sum() > 0, "without targeting the judge's advantage is on every token"
    assert answer.abs().sum() > 0
    targeted, still = gradients(monkeypatch, policy, tmp_path / "on", jobs.likes_w10, reward_targeting=True)
    assert torch.equal(targeted, torch.zeros_like(targeted)), "not one element of it"
    assert torch.equal(still, answer), "and the answer's tokens learn as before"


def test_with_targeting_the_reasoning_learns_from_helpfulness_alone(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two safety judges that disagree, one helpfulness: the reasoning's gradient is the same under both, and the answer's is not."""
    found = []
    for name, safety in (("a", gives(1.0, 0.0, 0.5, 0.0, 1.0)), ("b", gives(0.0, 0.5, 1.0))):
        parts = Rewards((Part("safety", safety), Part("helpfulness", gives(1.0, 0.0, 0.0))), "product")
        found.append(gradients(monkeypatch, policy, tmp_path / name, parts, reward_targeting=True))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].abs().sum() > 0
    assert not torch.equal(found[0][1], found[1][1])


def test_targeting_refuses_ratios_of_whole_sequences(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="importance_sampling_level"):
        jobs.run_rl(policy, tmp_path, reward_targeting=True, trainer={"importance_sampling_level": "sequence"})
