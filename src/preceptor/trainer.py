# pyright: basic
"""What SFT and RL must agree on: how a policy is loaded, adapted, saved, resumed and recorded, and how settings become TRL's.

In: a checkpoint folder and settings. Out: the parts of a trainer, resumable states, `metrics.jsonl`, a whole checkpoint.

The one idea: if the two stages did one of these things differently, a result would be silently wrong, so each is written once.
Not here: what is learned (`sft`, `rl`), where a training process runs (`training`).
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from preceptor.errors import RecipeError, require_extra
from preceptor.records import content_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after every logged step with the step, the number of steps, and the row of `metrics.jsonl`."""


class LoraConfig(BaseModel):
    """Low-rank adapters; they are merged into the weights when training ends, so a checkpoint is always a whole model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    target_modules: str | tuple[str, ...] = "all-linear"


def load_policy(path: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint in float32, from safetensors only and without code of its own, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # the caller shows progress
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    return model, tokenizer


def save_policy(model: Any, tokenizer: PreTrainedTokenizerBase, out_dir: Path, dtype: str) -> None:
    """Write safetensors and tokenizer; adapters are merged first."""
    import torch
    from peft import PeftModel

    whole = model.merge_and_unload() if isinstance(model, PeftModel) else model
    whole.to({"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]).save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def common_arguments(work: Path, steps: int, warmup: float, batch: int, micro: int | None, save_every: int, seed: int) -> dict[str, Any]:
    """Arguments of any trainer here: the device, no reports, no hub, resumable states. On a CPU no gradient checkpointing (it
    costs a second forward pass and memory is not short) and float32 (bfloat16 saves little on a small model, and the sampler's
    probabilities would differ from the trainer's). On a GPU TRL's own defaults stand."""
    import torch
    from accelerate import PartialState
    from transformers import TrainingArguments

    cpu = not torch.cuda.is_available()
    # transformers 5.23 renamed the argument and warns about the old name
    old, new = "gradient_checkpointing", "activation_checkpointing"
    checkpointing = new if new in TrainingArguments.__dataclass_fields__ else old
    share, odd = divmod(batch, PartialState(cpu=cpu).num_processes)
    micro = micro or max(size for size in range(1, min(share, 8) + 1) if share % size == 0)
    if odd or share % micro:
        raise RecipeError(
            f"a batch of {batch} rows does not divide into equal shares of {micro} rows per forward pass",
            hint="change batch_size or micro_batch",
        )
    device = {"use_cpu": True, "bf16": False, checkpointing: False} if cpu else {}
    return {
        **device,
        "output_dir": str(work),
        "max_steps": steps,
        "warmup_steps": round(warmup * steps),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
        "save_strategy": "steps" if save_every else "no",
        "save_steps": save_every or steps,
        "save_total_limit": 1,
        "dataloader_pin_memory": not cpu,
    }


def arguments_of(kind: type, ours: dict[str, Any], theirs: dict[str, Any]) -> Any:
    """`kind(**ours, **theirs)` where `theirs` wins. Raises `RecipeError` for an argument that `kind` does not know."""
    unknown = sorted(set(theirs) - set(kind.__dataclass_fields__))  # pyright: ignore[reportAttributeAccessIssue]
    if unknown:
        raise RecipeError(f"trainer.{unknown[0]} is not an argument of trl.{kind.__name__}", hint="see TRL's documentation for the names")
    return kind(**{**ours, **theirs})


def peft_config(lora: LoraConfig | None) -> Any:
    """The adapters' configuration for TRL; None without adapters."""
    if lora is None:
        return None
    require_extra("train", "peft")
    import peft

    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=modules, task_type="CAUSAL_LM")


@contextmanager
def without_deprecations() -> Iterator[None]:
    """TRL 1.16 and PEFT still use a name that transformers 5.23 has deprecated; nobody here can mend that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing. is deprecated", category=FutureWarning)
        yield


def quiet(trainer: Any) -> None:
    """No printed dictionaries: the recorder and the caller's progress show what there is to see."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def checkpoints_dir(out_dir: Path, *identity: Any) -> Path:
    """Where resumable states of exactly this work lie. Other inputs give another folder, so a run never takes up foreign states;
    such left-overs are removed."""
    mine = out_dir / f"checkpoints-{content_id(identity)}"
    for other in out_dir.glob("checkpoints-*"):
        if other != mine:
            shutil.rmtree(other)
    return mine


class Recorder:
    """Writes `metrics.jsonl`, one row per logged step, and tells `progress`. `details` adds what the trainer does not know.

    Rows hold `step`, `loss`, `learning_rate`, `tokens` (real tokens so far) and `seconds` (training time so far, over interruptions).
    """

    def __init__(
        self, out_dir: Path, steps: int, progress: Progress | None, details: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ):
        out_dir.mkdir(parents=True, exist_ok=True)
        self.path, self.steps, self.progress, self.details = out_dir / "metrics.jsonl", steps, progress, details
        self.rows: list[dict[str, Any]] = []
        self.resumed_from = 0
        self.step_started = self._started = time.perf_counter()
        self._before = 0.0

    def resume(self, work: Path) -> Path | None:
        """The newest complete state under `work`, if any; rows after it are forgotten, as their steps are done again."""
        # The trainer's own state is written last: a folder that has it is whole.
        states = sorted((int(state.parent.name.rsplit("-", 1)[1]), state.parent) for state in work.glob("checkpoint-*/trainer_state.json"))
        self.resumed_from, last = states[-1] if states else (0, None)
        lines = self.path.read_bytes().splitlines() if last and self.path.exists() else []
        # The last line may be torn; it is then newer than the state, or the state would not be complete.
        self.rows = [row for line in lines if line.endswith(b"}") and (row := orjson.loads(line))["step"] <= self.resumed_from]
        self._before = self.rows[-1]["seconds"] if self.rows else 0.0
        self.path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in self.rows))
        return last

    def write(self, step: int, tokens: int, logs: dict[str, Any]) -> None:
        """Append the row of `step`."""
        seconds = round(self._before + time.perf_counter() - self._started, 3)
        row = {"step": step, "loss": logs["loss"], "learning_rate": logs["learning_rate"], "tokens": tokens, "seconds": seconds}
        row |= self.details(logs) if self.details else {}
        self.rows.append(row)
        with self.path.open("ab") as file:
            file.write(orjson.dumps(row) + b"\n")
        if self.progress:
            self.progress(step, self.steps, row)

    def callback(self) -> TrainerCallback:
        """The hook by which a trainer calls `write`."""
        from transformers import TrainerCallback

        recorder = self

        class Hook(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                recorder._started = time.perf_counter()

            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                recorder.step_started = time.perf_counter()

            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
                if logs and "loss" in logs and state.is_world_process_zero:
                    recorder.write(state.global_step, int(state.num_input_tokens_seen), logs)

        return Hook()
