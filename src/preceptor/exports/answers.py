"""From what a trainer decoded to what a judge may see.

In: the prompt's text and the response's text with its special tokens. Out: an answer, or None for a completion that gets the floor reward.

The splitter is that of `chat`, strict: a response without exactly one reasoning block at its start, one that does not end its turn, an answer with
something in it that reads like reasoning to the service: all of these get the floor, and nothing of them leaves the trainer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from preceptor.chat import CLOSE_TAG, OPEN_TAG, Split, split
from preceptor.errors import StageFailed
from preceptor.judge import check_abstentions
from preceptor.records import Abstention, AnswerView, Judgement, Verdict
from preceptor.serve.wire import reads_like_reasoning

FLOOR = 0.0
"""Reward of a completion that is at fault by itself. Verdicts lie in [0, 1], so this is never above the worst of them."""
WATCH_AFTER = 200
"""Rewards after which a rate means something."""

LOG = logging.getLogger("preceptor.exports")


def split_response(prompt: str, response: str, ends: Sequence[str], *, open_tag: str = OPEN_TAG, close_tag: str = CLOSE_TAG) -> Split:
    """Take a response apart. `ends` are the texts of the end-of-turn tokens: a response that closes with none of them was cut off.

    Whether the template opened the reasoning block is seen in the prompt.
    """
    end = next((end for end in ends if end and response.endswith(end)), None)
    body = response if end is None else response.removesuffix(end)
    prefilled = prompt.rstrip().endswith(open_tag)
    return split(body, finished=end is not None, prefilled=prefilled, open_tag=open_tag, close_tag=close_tag)


def answer_of(found: Split) -> str | None:
    """The answer that may be posted; None where the floor is due."""
    return found.answer if found.status == "ok" and not reads_like_reasoning(found.answer) else None


def reward_of(judgement: Judgement | None) -> float | None:
    """The floor for what was not judged, the score of a verdict, None for an abstention."""
    if judgement is None:
        return FLOOR
    return judgement.score if isinstance(judgement, Verdict) else None


def lost(view: AnswerView, detail: str) -> Abstention:
    """The abstention on an answer that never reached a judge."""
    return Abstention(completion_id=view.id, judge="", spec_hash="", view="answer", reason="transport", detail=detail[:500])


@dataclass
class Watch:
    """Over all rewards so far: too many abstentions stop the run, because a policy could learn to break its judge."""

    max_abstention: float = 0.05
    completions: int = 0
    judged: int = 0
    abstained: list[Abstention] = field(default_factory=list)

    def see(self, judgements: Sequence[Judgement | None]) -> None:
        """Count; None is a floor. Raises `StageFailed` when abstentions are above the limit."""
        warned = self.completions >= WATCH_AFTER
        self.completions += len(judgements)
        self.judged += sum(judgement is not None for judgement in judgements)
        self.abstained += [judgement for judgement in judgements if isinstance(judgement, Abstention)]
        if not self.judged and self.completions >= WATCH_AFTER and not warned:
            LOG.warning("none of %d completions has one reasoning block and an answer: do the tags fit this model?", self.completions)
        if self.judged >= WATCH_AFTER:
            check_abstentions(self.abstained, self.judged, self.max_abstention)


class JudgeAbstained(StageFailed):
    """The judge has no verdict on an answer, and the trainer has no way to leave the sample out."""

    def __init__(self, judgement: Abstention, hint: str):
        super().__init__(f"the judge abstained ({judgement.reason}: {judgement.detail[:200]}), and an abstention has no reward. {hint}")
