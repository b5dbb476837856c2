# pyright: basic
"""The judge as the reward function of OpenRLHF (0.11): `--reward.remote_url reward.py`.

OpenRLHF loads the file and calls `reward_func(queries, prompts, labels)` in a thread, with one element per list: the prompt and the response
decoded together, special tokens kept; the prompt as the template rendered it; the row's label. It takes
`{"rewards", "scores", "extra_logs"}` back. Its other route, an HTTP address that is posted `{"query", "prompts", "labels"}`, is not offered:
what is posted there holds the reasoning.

An abstention has no value there. What happens to each candidate was read in the source of 0.11.2:

* an exception in the function is caught and logged, the sample goes on without a reward;
* a sample without a reward stops the run when its batch is put together ("reward_model_group is required when rewards are not precomputed");
* NaN as a reward makes every advantage of the group NaN, and with it the weights;
* with `--algo.dynamic_filtering_enable`, a group whose mean score is not strictly inside `--algo.dynamic_filtering_range` is dropped and
  replaced by another prompt. NaN is inside no range.

So an abstention is `rewards: None` and `scores: NaN`. With dynamic filtering the group is dropped before anything is learned from it; without it the
run stops. In neither case is there a number to learn from. For the same reason a mistake in the set-up (a wrong key, another specification) stops the run:
it raises, and the sample has no reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from preceptor.errors import DataError
from preceptor.exports.answers import LOG, Watch, answer_of, reward_of, split_response
from preceptor.exports.client import Client, Service
from preceptor.exports.labels import view_of
from preceptor.records import Abstention, Judgement

RewardFunc = Callable[[Sequence[str], Sequence[str], Sequence[str]], dict[str, Any]]


def reward_func_of(service: Service, ends: Sequence[str], max_abstention: float = 0.05) -> RewardFunc:
    """`reward_func` for one service. `ends` are the texts of the policy's end-of-turn tokens.

    It raises `StageFailed` when too many judgements are abstentions: every group would be dropped, and the run would draw prompts without end.
    """
    client, watch = Client(service), Watch(max_abstention)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        import torch

        answers = [_answer(query, prompt, ends) for query, prompt in zip(queries, prompts, strict=True)]
        views = [None if answer is None else view_of(label, answer) for answer, label in zip(answers, labels, strict=True)]
        coming = iter(client.judge_now([view for view in views if view is not None]) if any(views) else ())
        judgements: list[Judgement | None] = [None if view is None else next(coming) for view in views]
        watch.see(judgements)
        abstained = [isinstance(judgement, Abstention) for judgement in judgements]
        for judgement in judgements:
            if isinstance(judgement, Abstention):
                LOG.warning("the judge abstained (%s): the group is dropped, or the run stops without dynamic filtering", judgement.reason)
        rewards = [reward_of(judgement) for judgement in judgements]
        return {
            "rewards": None if any(abstained) else torch.tensor(rewards),
            "scores": torch.tensor([float("nan") if reward is None else reward for reward in rewards]),
            "extra_logs": {
                "judge_abstained": torch.tensor([float(one) for one in abstained]),
                "judge_floor": torch.tensor([float(judgement is None) for judgement in judgements]),
            },
        }

    return reward_func


def _answer(query: str, prompt: str, ends: Sequence[str]) -> str | None:
    """The answer inside `query`. A query that does not begin with its prompt cannot be taken apart, and that is not the policy's fault."""
    if not query.startswith(prompt):
        raise DataError(
            "the query does not begin with its prompt: it was cut to fit, or the tokenizer does not give it back",
            hint="raise --data.max_len",
        )
    return answer_of(split_response(prompt, query[len(prompt) :], ends))
