# pyright: basic
"""RL: the policy answers, the spec-aware judge rewards the answer, GRPO does the rest (paper, section 2.4).

In: a policy checkpoint, prompts without a specification, a reward that is a function.  Out: a checkpoint, `metrics.jsonl`
(one row a step), `rollouts.jsonl` (every rollout of every k-th step), and an `RlReport`.

Three rules hold here, and they are the reason this file exists beside TRL:

* The reward never sees the reasoning. Completions are split from their token ids by the strict splitter, and what is handed
  to the reward is an `AnswerView`, which has no field for it. TRL's own decoded text is not looked at.
* A judge that fails has no score. An `Abstention` (or an exception in the reward) masks the whole sample: it is left out
  of its group's mean and standard deviation, its advantage is exactly 0, and its tokens carry neither policy loss nor KL
  penalty. There is one reward function, so no other reward can step in for the one that is missing. Too many abstentions in a
  window of steps stop the run: otherwise a policy could learn to break its judge.
* What is the completion's own fault (no reasoning block, the token limit, no answer) gets the floor reward by plain
  code, and the judge is not asked.

Where this departs from plain GRPO: TRL's `dapo` normalisation (tokens of the whole batch) is the default loss. `probe` measures
(the oracle of the generated world, or a second judge) and is never a reward. Not here: what the judge is (the caller's
function), asynchronous rollouts. In a run over several processes the metrics are those of the first.
"""

from __future__ import annotations

import logging
import random
import shutil
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from preceptor.chat import Renderer, Split
from preceptor.errors import DataError, ModelError, StageFailed, require_extra
from preceptor.records import Abstention, AnswerView, Judgement, Prompt, Verdict
from preceptor.sft import (
    LoraConfig,
    Progress,
    Recorder,
    arguments_of,
    checkpoints_dir,
    common_arguments,
    load_policy,
    peft_config,
    quiet,
    save_policy,
    without_deprecations,
)

Reward = Callable[[Sequence[AnswerView]], Sequence[Judgement]]
"""Judges answers, in order. It may raise: its batch then counts as abstentions."""

Probe = Callable[[Sequence[tuple[Prompt, str, str]]], Sequence[float | None]]
"""Measures (prompt, reasoning, answer) triples against ground truth, in [0, 1]; None where there is none."""


class RlConfig(BaseModel):
    """Group-relative policy optimisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0)
    prompts_per_step: int = Field(default=24, gt=0)
    samples_per_prompt: int = Field(default=8, gt=1)
    """Group size; rewards are compared within a group."""
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=512, gt=0)
    """New tokens, reasoning and answer together."""
    learning_rate: float = Field(default=1e-6, gt=0)
    warmup_fraction: float = Field(default=0.0, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "constant"
    weight_decay: float = Field(default=0.0, ge=0)
    beta: float = Field(default=0.01, ge=0)
    """Weight of the KL penalty against the starting policy. 0 saves one forward pass a step, and the KL is then not known."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing."""
    epsilon: float = Field(default=0.2, gt=0)
    """Clipping of the probability ratio. Only felt with several updates per batch (`trainer.num_iterations`)."""
    epsilon_high: float | None = None
    max_abstention: float = Field(default=0.2, ge=0, le=1)
    """Share of judged answers without a verdict, over `abstention_window` steps, above which the run stops."""
    abstention_window: int = Field(default=5, gt=0)
    floor_reward: float = Field(default=0.0, le=0)
    """Reward of a malformed, truncated or empty completion. Verdicts lie in [0, 1], so this is never above the worst of them."""
    micro_batch: int | None = Field(default=None, gt=0)
    """Completions per forward and backward pass. None: four groups at most."""
    rollouts_every: int = Field(default=5, gt=0)
    """Rollouts of the first and of every k-th step are kept in `rollouts.jsonl`."""
    seed: int = 0
    save_every: int = Field(default=0, ge=0)
    """Steps between resumable checkpoints; 0: none."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraConfig | None = None
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Passed untouched to `trl.GRPOConfig`; wins over everything above."""

    def forward_rows(self) -> int:
        """Completions per forward pass: small passes are faster on a CPU and fit on a GPU."""
        if self.micro_batch:
            return self.micro_batch
        groups = next(n for n in (4, 3, 2, 1) if self.prompts_per_step % n == 0)
        return groups * self.samples_per_prompt


@dataclass(frozen=True)
class Rollout:
    """One completion with everything that was found out about it. `reward` is None exactly when the judge abstained."""

    prompt: Prompt
    sample: int
    split: Split
    tokens: int
    judgement: Judgement | None
    reward: float | None
    oracle: float | None

    def to_row(self, step: int, advantage: float) -> dict[str, Any]:
        """The row of `rollouts.jsonl`."""
        judged = self.judgement
        return {
            "step": step, "prompt_id": self.prompt.id, "category": self.prompt.category, "sample": self.sample,
            "reasoning": self.split.reasoning, "answer": self.split.answer, "status": self.split.status,
            "judgement": judged.kind if judged else None, "judgement_id": judged.id if judged else None,
            "reason": judged.reason if isinstance(judged, Abstention) else None,
            "score": judged.score if isinstance(judged, Verdict) else None,
            "oracle": self.oracle, "reward": self.reward, "advantage": advantage, "tokens": self.tokens,
        }  # fmt: skip


@dataclass(frozen=True)
class RlReport:
    """What was trained. The seconds are of this process alone."""

    checkpoint: str
    steps: int
    rollouts: int
    first_reward: float | None
    last_reward: float | None
    asked: int
    """Answers the judge was asked about."""
    abstentions: dict[str, int]
    """By reason."""
    generation_seconds: float
    reward_seconds: float
    training_seconds: float
    resumed_from: int

    def to_row(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


@dataclass
class Seconds:
    """Time of the step at work, in seconds; what is neither is training."""

    generation: float = 0.0
    reward: float = 0.0


@dataclass
class Referee:
    """From token ids to rewards, without a tensor: split, floor, ask the judge, probe, count."""

    prompts: Sequence[Prompt]
    renderer: Renderer
    reward: Reward
    probe: Probe | None
    config: RlConfig
    rollouts: list[Rollout] = field(default_factory=list)
    """Of the step at work."""
    recent: deque[tuple[int, int]] = field(default_factory=deque)
    """(asked, abstained) of the last steps."""
    asked: int = 0
    abstentions: Counter[str] = field(default_factory=Counter)

    def score(self, which: Sequence[int], completion_ids: Sequence[Sequence[int]]) -> list[float | None]:
        """Rewards of one step's completions, where `which` are the numbers of their prompts; None: masked.

        Raises `StageFailed` when abstentions exceed the limit and when the reward breaks its contract.
        """
        prompts = [self.prompts[index] for index in which]
        splits = [self.renderer.split_ids(list(ids), finished=ids[-1] == self.renderer.end_id) for ids in completion_ids]
        good = [index for index, split in enumerate(splits) if split.status == "ok"]
        judged = dict(zip(good, self._judge([self._view(prompts[index], splits[index]) for index in good]), strict=True))
        probed = dict(zip(good, self._measure([(prompts[i], splits[i].reasoning, splits[i].answer) for i in good]), strict=True))
        seen: Counter[int] = Counter()
        self.rollouts = []
        for index, (number, split) in enumerate(zip(which, splits, strict=True)):
            judgement, size = judged.get(index), len(completion_ids[index])
            value = self._value(judgement)
            self.rollouts.append(Rollout(prompts[index], seen[number], split, size, judgement, value, probed.get(index)))
            seen[number] += 1
        self._count(list(judged.values()))
        return [rollout.reward for rollout in self.rollouts]

    @staticmethod
    def _view(prompt: Prompt, split: Split) -> AnswerView:
        return AnswerView(messages=prompt.messages, category=prompt.category, also=prompt.also, answer=split.answer)

    def _judge(self, views: Sequence[AnswerView]) -> Sequence[Judgement]:
        if not views:
            return []
        try:
            judgements = self.reward(views)
        except (ModelError, OSError) as error:  # a judge or its server that is gone is not worth the run; a mistake in the code is
            return [_unreachable(view, error) for view in views]
        if len(judgements) != len(views):
            raise StageFailed(f"rl: the reward returned {len(judgements)} judgements for {len(views)} answers")
        return judgements

    def _measure(self, triples: Sequence[tuple[Prompt, str, str]]) -> Sequence[float | None]:
        return self.probe(triples) if self.probe and triples else [None] * len(triples)

    def _value(self, judgement: Judgement | None) -> float | None:
        """The floor for a completion that was not judged, None for an abstention, else the verdict's score."""
        if judgement is None:
            return self.config.floor_reward
        if judgement.view != "answer":
            raise StageFailed(f"rl: the reward judged {judgement.view!r}; it may only judge the answer")
        if isinstance(judgement, Abstention):
            return None
        if not 0 <= judgement.score <= 1:
            raise StageFailed(f"rl: a verdict with score {judgement.score!r}, expected a value in [0, 1]")
        return judgement.score

    def _count(self, judgements: Sequence[Judgement]) -> None:
        reasons = Counter(judgement.reason for judgement in judgements if isinstance(judgement, Abstention))
        self.asked += len(judgements)
        self.abstentions.update(reasons)
        self.recent.append((len(judgements), reasons.total()))
        window = min(self.config.abstention_window, self.config.steps)
        if len(self.recent) > window:
            self.recent.popleft()
        asked, abstained = (sum(column) for column in zip(*self.recent, strict=True))
        if len(self.recent) == window and abstained > self.config.max_abstention * asked:
            raise StageFailed(
                f"rl: the judge abstained on {abstained} of {asked} answers in {window} steps (limit {self.config.max_abstention:.0%}); "
                f"reasons so far: {dict(self.abstentions)}"
            )


def _unreachable(view: AnswerView, error: Exception) -> Abstention:
    detail = f"{type(error).__name__}: {error}"[:500]
    return Abstention(completion_id=view.id, judge="", spec_hash="", view="answer", reason="transport", detail=detail)


def step_figures(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """What a step's rollouts say, as fields of a `metrics.jsonl` row; None where nothing was measured.

    `gap` is judge mean minus oracle mean over the rollouts that have both, so that it compares like with like: a judge that is
    being over-optimised shows as a rising gap. Rates of faults are shares of all rollouts, `abstention_rate` of those judged.
    """
    statuses = Counter(rollout.split.status for rollout in rollouts)
    judged = [rollout for rollout in rollouts if rollout.judgement is not None]
    scored = [(r.judgement.score, r.oracle) for r in judged if isinstance(r.judgement, Verdict)]
    both = [(score, oracle) for score, oracle in scored if oracle is not None]
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    return {
        "reward_mean": _mean(rewards),
        "reward_std": statistics.stdev(rewards) if len(rewards) > 1 else None,
        "judge_mean": _mean(score for score, _ in scored),
        "oracle_mean": _mean(rollout.oracle for rollout in rollouts if rollout.oracle is not None),
        "gap": _mean(score - oracle for score, oracle in both),
        "completion_tokens": _mean(rollout.tokens for rollout in rollouts),
        "truncated_rate": statuses["truncated"] / len(rollouts),
        "malformed_rate": statuses["malformed"] / len(rollouts),
        "empty_rate": statuses["empty"] / len(rollouts),
        "abstention_rate": 1 - len(scored) / len(judged) if judged else None,
    }


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return statistics.fmean(listed) if listed else None


def train(
    policy: Path | str,
    prompts: Sequence[Prompt],
    reward: Reward,
    out_dir: Path,
    config: RlConfig,
    *,
    probe: Probe | None = None,
    progress: Progress | None = None,
) -> RlReport:
    """Train `policy` on `prompts` and save it under `out_dir`.

    Raises `DataError` when there are fewer prompts than a step takes, `StageFailed` when the judge abstains too often,
    `RecipeError` for an unknown key in `trainer`. An interrupted run with `save_every` is resumed.
    """
    require_extra("train", "trl")
    if len(prompts) < config.prompts_per_step:
        raise DataError(
            f"rl: {len(prompts)} prompts, but a step takes {config.prompts_per_step}", hint="add prompts or lower prompts_per_step"
        )
    model, tokenizer = load_policy(policy)
    referee = Referee(prompts, Renderer(tokenizer), reward, probe, config)
    seconds = Seconds()

    def details(logs: dict[str, Any]) -> dict[str, Any]:
        rest = time.perf_counter() - recorder.step_started - seconds.generation - seconds.reward
        spent = {"generation_seconds": seconds.generation, "reward_seconds": seconds.reward, "training_seconds": rest}
        return step_figures(referee.rollouts) | {key: logs.get(key) for key in ("kl", "entropy", "grad_norm")} | spent

    recorder = Recorder(out_dir, config.steps, progress, details)
    work = checkpoints_dir(out_dir, str(policy), config.model_dump(mode="json"), [prompt.id for prompt in prompts])
    first = recorder.resume(work)
    rollouts = RolloutLog(out_dir / "rollouts.jsonl", config.rollouts_every, recorder.resumed_from)
    with without_deprecations(), _without_row_dumps():
        trainer = _trainer(model, tokenizer, referee, work, config, recorder, rollouts, seconds)
        trainer.train(resume_from_checkpoint=str(first) if first else None)
    save_policy(trainer.model, tokenizer, out_dir, config.save_dtype)
    shutil.rmtree(work, ignore_errors=True)
    rows = recorder.rows
    return RlReport(
        checkpoint=str(out_dir), steps=config.steps, rollouts=config.steps * config.prompts_per_step * config.samples_per_prompt,
        first_reward=rows[0]["reward_mean"], last_reward=rows[-1]["reward_mean"],
        asked=referee.asked, abstentions=dict(referee.abstentions),
        generation_seconds=sum(row["generation_seconds"] for row in rows), reward_seconds=sum(row["reward_seconds"] for row in rows),
        training_seconds=sum(row["training_seconds"] for row in rows), resumed_from=recorder.resumed_from,
    )  # fmt: skip


class RolloutLog:
    """`rollouts.jsonl`: all rollouts of the first and of every k-th step. Those after a resumed step are forgotten, as they are made again."""

    def __init__(self, path: Path, every: int, resumed_from: int):
        self.path, self.every = path, every
        lines = path.read_bytes().splitlines(keepends=True) if resumed_from and path.exists() else []
        kept = [line for line in lines if line.endswith(b"}\n") and orjson.loads(line)["step"] <= resumed_from]
        path.write_bytes(b"".join(kept))

    def write(self, step: int, rollouts: Sequence[Rollout], advantages: Sequence[float]) -> None:
        """Append the rollouts of `step` if it is one that is kept."""
        if (step - 1) % self.every == 0:
            with self.path.open("ab") as file:
                for rollout, advantage in zip(rollouts, advantages, strict=True):
                    file.write(orjson.dumps(rollout.to_row(step, advantage)) + b"\n")


def _trainer(
    model: Any, tokenizer: Any, referee: Referee, work: Path, config: RlConfig, recorder: Recorder, rollouts: RolloutLog, seconds: Seconds
) -> Any:
    """A GRPOTrainer whose prompts are numbers of our prompts, tokenised by us, and whose only reward is the referee."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    prompt_ids = [referee.renderer.prompt_ids(prompt.messages) for prompt in referee.prompts]

    class Trainer(GRPOTrainer):
        """Our tokens in, whole-sample masks out; no messages to its makers, no model card."""

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [prompt_ids[int(number)] for number in prompts], None, {}

        def _generate(self, prompts: list[str]) -> Any:
            started = time.perf_counter()
            generated = super()._generate(prompts)
            seconds.generation = time.perf_counter() - started
            return generated

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            batch: Any = dict(super()._generate_and_score_completions(inputs))
            mask_abstained(batch, [rollout.reward is None for rollout in referee.rollouts])
            tokens: Any = self.accelerator.gather(batch["tool_mask"].sum())
            batch["num_items_in_batch"] = tokens.sum()
            if self.accelerator.is_main_process:
                rollouts.write(self.state.global_step + 1, referee.rollouts, batch["advantages"].tolist())
            return batch

        def _send_telemetry(self) -> None:
            """Nothing leaves the machine."""

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """The run has a card of its own."""

    def judge_reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        started = time.perf_counter()
        rewards = referee.score([int(number) for number in prompts], completion_ids)
        seconds.reward = time.perf_counter() - started
        return rewards

    trainer = Trainer(
        model=model,
        reward_funcs=judge_reward,
        args=arguments_of(GRPOConfig, _arguments(work, config), config.trainer),
        train_dataset=Dataset.from_dict({"prompt": [str(number) for number in order_prompts(len(prompt_ids), config)]}),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora),
        callbacks=[recorder.callback()],
    )
    quiet(trainer)
    return trainer


def order_prompts(prompts: int, config: RlConfig) -> list[int]:
    """Prompt numbers for all steps, pass after pass over a new shuffle: a function of the seed, so a resumed run goes on where it stood."""
    rng, total, order = random.Random(config.seed), config.steps * config.prompts_per_step, []
    while len(order) < total:
        order += rng.sample(range(prompts), prompts)
    return order[:total]


def _arguments(work: Path, config: RlConfig) -> dict[str, Any]:
    """Our settings in TRL's words."""
    batch = config.prompts_per_step * config.samples_per_prompt
    return {
        **common_arguments(work, config.steps, config.warmup_fraction, batch, config.forward_rows(), config.save_every, config.seed),
        "logging_steps": 1,
        "shuffle_dataset": False,
        "num_generations": config.samples_per_prompt,
        "max_completion_length": config.max_tokens,
        "temperature": config.temperature,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "weight_decay": config.weight_decay,
        "beta": config.beta,
        "loss_type": config.loss_type,
        "scale_rewards": config.scale_rewards,
        "epsilon": config.epsilon,
        "epsilon_high": config.epsilon_high,
    }


def mask_abstained(batch: dict[str, Any], abstained: Sequence[bool]) -> None:
    """Take abstained samples out of the loss: no policy gradient, no KL penalty, no share of the token count. TRL has left
    them out of their group's statistics already; by itself it would still pull them towards the starting policy.
    Shapes: `completion_mask` (B, T); sets `tool_mask` (B, T), the mask TRL multiplies into every term of the loss."""
    import torch

    mask = batch["completion_mask"]
    kept = torch.tensor([not one for one in abstained], dtype=mask.dtype, device=mask.device)
    batch["tool_mask"] = mask * kept.unsqueeze(1)
    assert not batch["advantages"][kept == 0].any(), "an abstained sample has an advantage"


class _RowDump(logging.Filter):
    """TRL prints the whole row, model text included, for a sample without reward. Abstentions are counted here instead."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "All reward functions returned None" not in record.getMessage()


@contextmanager
def _without_row_dumps() -> Iterator[None]:
    logger, row_dump = logging.getLogger("trl.trainer.grpo_trainer"), _RowDump()
    logger.addFilter(row_dump)
    try:
        yield
    finally:
        logger.removeFilter(row_dump)
