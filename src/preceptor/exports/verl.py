# pyright: basic
"""The judge as the reward of verl (0.9): a reward manager, an advantage estimator beside it, and a plain reward function.

**Reward manager** (`reward.reward_manager.source=importlib`, `.module.path=reward.py`, `.name=PreceptorRewardManager`): verl hands it the
token ids of one response. It decodes them with their special tokens, splits, and asks the service. This is the route to take.

**Reward function** (`reward.custom_reward_function.path=reward.py`): `compute_score(data_source, solution_str, ground_truth, extra_info)`. verl
decodes without special tokens before it calls this, so an answer cut off at the token limit cannot be told from a whole one, and a family
whose tags or channel markers are special tokens (gpt-oss) gets the floor for everything. A finished turn is assumed.

An abstention has no value in verl. What happens to each candidate was read in the source of 0.9.1:

* an exception in the reward ends the training step and the run, under `naive` and under our manager. Under `rate_limited` it is the reward
  0.0: **never combine that manager with this file**;
* None: the batch has no `rm_scores`, and the run ends with a KeyError;
* NaN: group normalisation (`grpo`) makes every advantage of the group NaN, and with it the weights.

So by default an abstention raises `JudgeAbstained` and the run stops, with its checkpoints. To go on without such samples, set
`algorithm.adv_estimator=grpo_judged` and `VERL_USE_EXTERNAL_MODULES=preceptor.exports.verl_plugin`, which registers it: then, and only then, the manager
gives NaN, and `grpo_judged` leaves the sample out of its group's mean and standard deviation, gives it the advantage 0 and clears its
`response_mask`, so that no policy loss, no KL and no entropy comes from it. The manager reads the estimator's name in verl's configuration, so the
one cannot be on without the other. verl's own means of scores are then NaN in such a step; `judge_abstained` counts the samples. Not offered: the
group's mean as a stand-in, which is a score like any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from preceptor.chat import split
from preceptor.exports.answers import JudgeAbstained, Watch, answer_of, reward_of, split_response
from preceptor.exports.client import Client, Service
from preceptor.exports.labels import view_of
from preceptor.records import Abstention, Judgement

if TYPE_CHECKING:
    import torch

ESTIMATOR = "grpo_judged"
_HINT = (
    f"verl has no value for it: set algorithm.adv_estimator={ESTIMATOR} and VERL_USE_EXTERNAL_MODULES=preceptor.exports.verl_plugin "
    "to leave such samples out, or mend the judge"
)
_EPSILON = 1e-6
"""As in verl's `compute_grpo_outcome_advantage`."""


def compute_score_of(service: Service, *, prefilled: bool, max_abstention: float = 0.05) -> Callable[..., Any]:
    """`compute_score` for one service. `prefilled`: the policy's template opens the reasoning block itself.

    It is `async`, so that verl asks for many samples at a time, and gives `{"score", "judge_floor"}`. Raises `JudgeAbstained`.
    """
    client, watch = Client(service), Watch(max_abstention)

    async def compute_score(
        data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any], **_: Any
    ) -> dict[str, float]:
        answer = answer_of(split(solution_str, finished=True, prefilled=prefilled))
        judgement = await _judged(client, watch, answer, extra_info)
        return _scored(judgement, exclude=False)

    return compute_score


def reward_manager_of(service: Service, *, ends: Sequence[str] = (), max_abstention: float = 0.05) -> type:
    """A reward manager class for one service. `ends`: texts of end-of-turn tokens beside the tokenizer's own."""
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase  # type: ignore[import-not-found]

    client, watch = Client(service), Watch(max_abstention)

    class PreceptorRewardManager(RewardManagerBase):
        """Splits by token ids, asks the judge service, and gives NaN only to the estimator that knows what it means."""

        def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any):
            super().__init__(config, tokenizer, compute_score)
            self.exclude = config.algorithm.adv_estimator == ESTIMATOR

        async def run_single(self, data: Any) -> dict[str, Any]:
            """The reward of the last sequence of `data`, a `DataProto`."""
            row = data[-1:][0]
            answer = answer_of(split_response(*_texts(row, self.tokenizer), [self.tokenizer.eos_token, *ends]))
            scored = _scored(await _judged(client, watch, answer, row.non_tensor_batch["extra_info"]), exclude=self.exclude)
            return {"reward_score": scored.pop("score"), "reward_extra_info": scored}

    return PreceptorRewardManager


async def _judged(client: Client, watch: Watch, answer: str | None, extra_info: dict[str, Any]) -> Judgement | None:
    """The judgement; None where the floor is due."""
    judgement = None if answer is None else (await client.judge([view_of(extra_info["label"], answer)]))[0]
    watch.see([judgement])
    return judgement


def _scored(judgement: Judgement | None, *, exclude: bool) -> dict[str, float]:
    """The same keys for every sample: verl makes a column of each."""
    if isinstance(judgement, Abstention) and not exclude:
        raise JudgeAbstained(judgement, _HINT)
    reward = reward_of(judgement)
    abstained, floor = float(isinstance(judgement, Abstention)), float(judgement is None)
    return {"score": float("nan") if reward is None else reward, "judge_abstained": abstained, "judge_floor": floor}


def _texts(row: Any, tokenizer: Any) -> tuple[str, str]:
    """Prompt and response of one row, without padding, with special tokens. The prompt is padded in front, the response behind."""
    prompts, responses, mask = row.batch["prompts"], row.batch["responses"], row.batch["attention_mask"].bool()
    kept = prompts[mask[: prompts.shape[-1]]], responses[mask[-responses.shape[-1] :]]
    prompt, response = (tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in kept)
    return prompt, response


def grpo_judged(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Sequence[Any],
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """GRPO's advantages where NaN is an abstention. Rewards and mask are (samples, tokens), `index` names each sample's group.

    A group's mean and standard deviation are those of its judged samples; alone in its group, a sample has the advantage 0. The mask of an
    abstained sample is cleared in place. Returns advantages and returns, which are the same here, both (samples, tokens).
    """
    import torch

    with torch.no_grad():
        scores = token_level_rewards.sum(dim=-1)
        judged = ~scores.isnan()
        response_mask[~judged] = 0
        groups = defaultdict[Any, list[int]](list)
        for row in judged.nonzero().flatten().tolist():
            groups[index[row]].append(row)
        advantages = torch.zeros_like(scores)
        for rows in groups.values():
            if len(rows) > 1:
                spread = scores[rows].std() + _EPSILON if config is None or config.get("norm_adv_by_std_in_grpo", True) else 1.0
                advantages[rows] = (scores[rows] - scores[rows].mean()) / spread
        per_token = advantages.unsqueeze(-1) * response_mask
    return per_token, per_token
