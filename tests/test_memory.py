# pyright: basic
"""The estimate against measured peaks, and the arithmetic of its parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import tiny
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from preceptor import memory
from preceptor.errors import DataError
from preceptor.rl import RlConfig
from preceptor.sft import SftConfig
from preceptor.trainer import LoraConfig

FACTOR = 1.5
"""What the estimate may be wrong by, either way."""

WATCHED = """
import resource, sys, os
from pathlib import Path
sys.path.insert(0, {tests!r})
import jobs, orjson, torch
from preceptor import rl, sft
torch.set_num_threads(1)
torch._dynamo  # loaded by the first training step
small, large, out, kind, changes = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], orjson.loads(sys.argv[5])

def train(start, out):
    if kind == "sft":
        rows = [jobs.example(number, reasoning="w1 " * 200, answer="w4 " * 40) for number in range(8)]
        values = dict(steps=2, batch_size=4, micro_batch=4, learning_rate=1e-4, capability_ratio=0)
        sft.train(start, rows, [], out, sft.SftConfig.model_validate(values | changes), spec_text=())
    else:
        values = dict(steps=2, prompts_per_step=4, samples_per_prompt=4, micro_batch=8, max_tokens=120, max_abstention=1.0)
        rl.train(start, jobs.PROMPTS, jobs.likes_w10, out, rl.RlConfig.model_validate(values | changes))

train(small, out / "small")
before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
train(large, out / "large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def qwen3(path: Path, **size: int) -> Path:
    torch.manual_seed(0)
    config = Qwen3Config(
        **{**tiny.COMMON, "vocab_size": 8000, "hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 2, **size},
        head_dim=64,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    tiny.word_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("models")
    small = qwen3(home / "small", hidden_size=32, num_hidden_layers=1, intermediate_size=32, vocab_size=96)
    return small, qwen3(home / "large", num_hidden_layers=8, intermediate_size=1536)


def measured(models: tuple[Path, Path], out: Path, kind: str, **changes: object) -> int:
    """Growth of the resident memory at its peak over what a small model left behind, in bytes."""
    code = WATCHED.format(tests=str(Path(__file__).parent))
    words = [sys.executable, "-c", code, *map(str, models), str(out), kind, orjson.dumps(changes).decode()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "changes"),
    [("sft", {}), ("sft", {"lora": {"rank": 8}}), ("sft", {"trainer": {"gradient_checkpointing": True}}), ("rl", {}), ("rl", {"lora": {"rank": 8}})],
)  # fmt: skip
def test_the_estimate_is_near_the_measured_peak(kind: str, changes: dict[str, object], models: tuple[Path, Path], tmp_path: Path) -> None:
    shape = memory.shape_of(models[1])
    if kind == "sft":
        config = SftConfig.model_validate({"steps": 2, "batch_size": 4, "micro_batch": 4, "capability_ratio": 0, **changes})
        estimate = memory.sft_memory(shape, config, gpu=torch.cuda.is_available(), tokens=251)
    else:
        values = {"steps": 2, "prompts_per_step": 4, "samples_per_prompt": 4, "micro_batch": 8, "max_tokens": 120}
        estimate = memory.rl_memory(shape, RlConfig.model_validate({**values, **changes}), gpu=torch.cuda.is_available(), prompt_tokens=5)
    found = measured(models, tmp_path, kind, **changes)
    ratio = estimate.peak / found
    if os.environ.get("PRECEPTOR_PRINT"):
        print(f"\n{kind} {changes}: estimate {estimate.peak / 2**20:.0f} MiB, measured {found / 2**20:.0f} MiB, ratio {ratio:.2f}")
    assert 1 / FACTOR < ratio < FACTOR, (estimate.to_row(), found)


def test_parameters_are_counted_exactly(models: tuple[Path, Path]) -> None:
    shape = memory.shape_of(models[1])
    assert shape.parameters == sum(parameter.numel() for parameter in Qwen3ForCausalLM.from_pretrained(models[1]).parameters())
    assert (shape.layers, shape.width, shape.queries, shape.keys, shape.inner, shape.vocabulary) == (8, 384, 384, 128, 1536, 8000)
    assert len(shape.linear) == 8 * 7


def test_adapters_are_counted_exactly(models: tuple[Path, Path]) -> None:
    import peft

    from preceptor.trainer import peft_config, without_deprecations

    lora = LoraConfig(rank=8)
    with without_deprecations():
        model = peft.get_peft_model(Qwen3ForCausalLM.from_pretrained(models[1]), peft_config(lora))
    shape, trained = memory.shape_of(models[1]), sum(p.numel() for p in model.parameters() if p.requires_grad)
    config = SftConfig(steps=1, lora=lora)
    assert memory.sft_memory(shape, config, gpu=False).gradients == 4 * trained


def test_parts_follow_the_settings(models: tuple[Path, Path]) -> None:
    shape = memory.shape_of(models[1])

    def sft(**changes: object) -> memory.Memory:
        config = SftConfig.model_validate({"steps": 1, "batch_size": 16, "micro_batch": 2, "max_length": 1000, **changes})
        return memory.sft_memory(shape, config, gpu=True, sharded=bool(changes.get("devices")))

    one, eight = sft(), sft(devices=8)
    assert (eight.gradients, eight.optimiser) == (one.gradients // 8, one.optimiser // 8)
    assert sft(max_length=2000).activations == 2 * one.activations
    assert sft(trainer={"gradient_checkpointing": False}).activations > 5 * one.activations
    assert sft(trainer={"optim": "adamw_8bit"}).optimiser == one.optimiser // 4
    rl = [memory.rl_memory(shape, RlConfig(steps=1, beta=beta), gpu=True, prompt_tokens=100) for beta in (0.0, 0.01)]
    assert [found.reference for found in rl] == [0, 4 * shape.parameters]
    longer = memory.rl_memory(shape, RlConfig(steps=1, max_tokens=50_000), gpu=True, prompt_tokens=100)
    assert longer.cache > 50 * rl[0].cache


def test_a_folder_without_a_configuration_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no configuration of a language model"):
        memory.shape_of(tmp_path)
