# pyright: basic
"""Small training jobs, the same in a test's own process, in one that is killed, and in two that train together.

python tests/jobs.py sft OUT --policy BASE [--lora] [--kill-after STEP]
torchrun --nproc-per-node 2 tests/jobs.py rl OUT --policy POLICY --devices 2
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

import tiny
import torch

from preceptor import rl, sft, trainee
from preceptor.records import AnswerView, Example, Judgement, Message, Prompt, Verdict
from preceptor.rl import RlConfig
from preceptor.sft import SftConfig

PROMPTS = [Prompt(messages=(Message(role="user", content=f"w{number} w{number + 20}"),), category="c", split="rl") for number in range(8)]
CANARY = "w66"


def example(
    number: int, *, user: str | None = None, system: str | None = None, reasoning: str = "w1 w2 w3", answer: str = "w4 w5"
) -> Example:
    turns = [Message(role="user", content=user or f"w{number % 80} w{(7 * number) % 80} w9")]
    if system:
        turns.insert(0, Message(role="system", content=system))
    empty = dict.fromkeys(("prompt_id", "completion_id", "judgement_id", "spec_hash"), "")
    return Example(messages=tuple(turns), category="c", reasoning=reasoning, answer=answer, **empty)


SAFETY = [example(number) for number in range(12)]
CAPABILITY = [example(number, system="w70 w71", reasoning="w6", answer="w7 w8 " * (1 + number % 3)) for number in range(12)]


def make_base(path: Path) -> Path:
    """Random weights, small enough to learn quickly."""
    model = tiny.lfm2()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.mul_(0.2)
    model.save_pretrained(path)
    tiny.word_tokenizer().save_pretrained(path)
    return path


def make_policy(path: Path) -> Path:
    """A model that has learned the format: it thinks `w66 w1` or `w66 w2` and answers `w10` or `w11`, about equally often."""
    raw = make_base(path / "raw")
    empty = dict.fromkeys(("prompt_id", "completion_id", "judgement_id", "spec_hash"), "")
    rows = [
        Example(messages=prompt.messages, category="c", reasoning=f"{CANARY} {word}", answer=answer, **empty)
        for prompt in PROMPTS
        for word in ("w1", "w2")
        for answer in ("w10", "w11")
    ]
    config = SftConfig(steps=60, batch_size=16, learning_rate=1e-2, capability_ratio=0)
    report = sft.train(raw, rows, [], path / "learned", config, spec_text=())
    assert report.last_loss < 0.7, "the fixture did not learn the format"
    return path / "learned"


def verdict(of: AnswerView, score: float, **changes: Any) -> Verdict:
    values = {"completion_id": of.id, "judge": "test", "spec_hash": "s", "view": "answer", "score": score, "votes": ()}
    return Verdict(**{**values, **changes})


def likes_w10(views: Sequence[AnswerView]) -> list[Judgement]:
    return [verdict(view, float("w10" in view.answer.split())) for view in views]


def sft_config(**changes: object) -> SftConfig:
    values = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "warmup_fraction": 0.0, "schedule": "cosine", "save_every": 2}
    return SftConfig.model_validate({**values, **changes})


def rl_config(**changes: object) -> RlConfig:
    values = {"steps": 5, "prompts_per_step": 4, "samples_per_prompt": 4, "max_tokens": 10, "learning_rate": 1e-3, "max_abstention": 1.0}
    return RlConfig.model_validate({**values, "save_every": 2, "rollouts_every": 1, **changes})


def run_sft(start: Path, out: Path, progress: sft.Progress | None = None, **changes: object) -> sft.SftReport:
    return sft.train(start, SAFETY, CAPABILITY, out, sft_config(**changes), spec_text=(), progress=progress)


def run_rl(start: Path, out: Path, progress: sft.Progress | None = None, **changes: object) -> rl.RlReport:
    return rl.train(start, PROMPTS, likes_w10, out, rl_config(**changes), progress=progress)


@contextmanager
def same_draws_everywhere(group: int) -> Iterator[None]:
    """Within it, the token drawn for a completion depends on its place in its group and its own probabilities alone, so that runs over any number
    of processes sample the same. (By itself each process has random numbers of its own.)"""
    multinomial = torch.multinomial

    def drawn(probabilities: torch.Tensor, num_samples: int, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert num_samples == 1
        places = [torch.Generator().manual_seed(row % group) for row in range(len(probabilities))]
        uniform = torch.stack([torch.rand(probabilities.shape[1], generator=place) for place in places])
        return (probabilities.log() - (-uniform.log()).log()).argmax(1, keepdim=True)

    torch.multinomial = drawn
    try:
        yield
    finally:
        torch.multinomial = multinomial


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("sft", "rl"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--kill-after", type=int, default=0)
    parser.add_argument("--same-draws", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def progress(step: int, steps: int, row: dict[str, Any]) -> None:
        if step == options.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    changes: dict[str, object] = {"lora": {"rank": 4, "alpha": 8}} if options.lora else {}
    run = run_sft if options.kind == "sft" else run_rl
    with same_draws_everywhere(group=4) if options.same_draws else nullcontext():
        report = run(options.policy, options.out, progress, devices=options.devices, **changes)
    assert report.processes == options.devices, f"{report.processes} processes, {report.distributed}"
    trainee.leave()


if __name__ == "__main__":
    main()
