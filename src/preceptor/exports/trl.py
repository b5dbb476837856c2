"""The judge as a reward function of TRL's `GRPOTrainer` and `RLOOTrainer` (1.16).

    GRPOTrainer(..., reward_funcs=[in_process(judge, tokenizer)])               the judge's model lives in the training process
    GRPOTrainer(..., reward_funcs=[remote(Service(url=...), tokenizer)])         the judge service answers; every rank asks for its own batch

The data set needs the columns `prompt` (a conversation) and `category`, and may have `also`, `opinion` and `opinion_by`; `rows` makes them from
prompts. TRL calls the function once per local
generation batch with lists of equal length and takes a list of numbers and None back.

An abstention is `None`: TRL leaves such a sample out of its group's mean and standard deviation and gives it the advantage 0. Two limits of that:
with further reward functions TRL adds up what the others say, so that an abstention counts as 0 there (use this one alone, or put the
others into it); and with `beta` > 0 the sample still feels the KL penalty (`preceptor rl` masks it whole). An exception in a reward function ends
TRL's training, so only what must end it is raised: more abstentions than `max_abstention`, a service that refuses.

TRL's own decoding of completions is not looked at. It drops special tokens, and with them the border between reasoning and answer of some families, and it
parses leniently; here completions are split from their token ids by `chat.Renderer`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from preceptor.chat import Renderer
from preceptor.errors import DataError, ModelError
from preceptor.exports.answers import Watch, answer_of, lost, reward_of
from preceptor.exports.client import Client, Service
from preceptor.judge import Judge
from preceptor.judge import reward as judge_reward
from preceptor.records import Abstention, AnswerView, Judgement, Message, Opinion, Prompt, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Rewards = list[float | None]


def rows(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Rows of a data set for TRL: `Dataset.from_list(rows(prompts))`."""
    return [
        {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in prompt.messages],
            "category": prompt.category,
            "also": list(prompt.also),
            "opinion": prompt.opinion.text if prompt.opinion else None,
            "opinion_by": prompt.opinion.by if prompt.opinion else None,
        }
        for prompt in prompts
    ]


def in_process(judge: Judge, tokenizer: PreTrainedTokenizerBase) -> Callable[..., Rewards]:
    """The reward function of a judge in this process. Raises `StageFailed` for a judge that reads reasoning."""
    renderer, ask, watch = Renderer(tokenizer), judge_reward(judge), Watch(judge.config.max_abstention)

    def spec_judge(prompts: Sequence[Any], completion_ids: Sequence[Sequence[int]], category: Sequence[str], **rest: Any) -> Rewards:
        views = _views(renderer, prompts, completion_ids, category, rest)
        shown = [view for view in views if view is not None]
        try:
            judged = ask(shown)
        except (ModelError, OSError) as error:  # a judge that is gone has no verdict; a mistake in the code escapes
            judged = [lost(view, f"{type(error).__name__}: {error}") for view in shown]
        return _rewards(views, judged, watch, rest)

    return spec_judge


def remote(
    service: Service, tokenizer: PreTrainedTokenizerBase, max_abstention: float = 0.05
) -> Callable[..., Coroutine[Any, Any, Rewards]]:
    """The reward function of a judge service. It is `async`: several such functions of a step wait at the same time."""
    renderer, client, watch = Renderer(tokenizer), Client(service), Watch(max_abstention)

    async def spec_judge(prompts: Sequence[Any], completion_ids: Sequence[Sequence[int]], category: Sequence[str], **rest: Any) -> Rewards:
        views = _views(renderer, prompts, completion_ids, category, rest)
        asked = list({view.id: view for view in views if view is not None}.values())
        found = dict(zip([view.id for view in asked], await client.judge(asked), strict=True))
        return _rewards(views, [found[view.id] for view in views if view is not None], watch, rest)

    return spec_judge


def _views(
    renderer: Renderer, prompts: Sequence[Any], completion_ids: Sequence[Sequence[int]], categories: Sequence[str], columns: dict[str, Any]
) -> list[AnswerView | None]:
    """What the judge may see of each completion; None where the floor is due."""
    views: list[AnswerView | None] = []
    for row, (prompt, ids, category) in enumerate(zip(prompts, completion_ids, categories, strict=True)):
        answer = answer_of(renderer.split_ids(list(ids), finished=bool(ids) and ids[-1] in renderer.end_ids))
        shown = {"messages": _messages(prompt), "category": category, **_told(columns, row)}
        views.append(None if answer is None else AnswerView(answer=answer, **shown))
    return views


def _told(columns: dict[str, Any], row: int) -> dict[str, Any]:
    """Further categories and an opinion, from columns that a data set need not have."""
    also, text, by = (columns[name][row] if columns.get(name) is not None else None for name in ("also", "opinion", "opinion_by"))
    return {"also": tuple(also or ()), "opinion": Opinion(text=text, by=by or "ai") if text else None}


def _messages(prompt: Any) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        raise DataError(
            "the column `prompt` holds texts; the judge reads conversations", hint="lists of {role, content}: trl.rows(prompts)"
        )
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in prompt)


def _rewards(views: Sequence[AnswerView | None], judged: Sequence[Judgement], watch: Watch, rest: dict[str, Any]) -> Rewards:
    """In the order of the completions. What was found goes into TRL's table of completions and beside its metrics."""
    coming = iter(judged)
    judgements = [None if view is None else next(coming) for view in views]
    watch.see(judgements)
    if (log_extra := rest.get("log_extra")) is not None:
        log_extra("judgement", [_word(judgement) for judgement in judgements])
    if (log_metric := rest.get("log_metric")) is not None:
        log_metric("judge/floor_rate", sum(judgement is None for judgement in judgements) / len(judgements))
        log_metric("judge/abstention_rate", sum(isinstance(judgement, Abstention) for judgement in judgements) / len(judgements))
    return [reward_of(judgement) for judgement in judgements]


def _word(judgement: Judgement | None) -> str:
    if judgement is None:
        return "floor"
    return f"verdict {' '.join(judgement.clauses)}".strip() if isinstance(judgement, Verdict) else f"abstention {judgement.reason}"
