# pyright: basic
"""Memory that training will take on one device, before it is tried.

In: the folder of a checkpoint (its `config.json`; the weights are not read) and the settings of a stage. Out: bytes by what they are for, and
the peak.

With P parameters (counted on a model without memory), T of them trained (all, or those of the adapters), n tokens of one forward pass and b
bytes per element of an activation (4, or 2 with `bf16`):

    weights      4 P, the type training keeps them in; 2 P more for the copies autocast makes
    gradients    4 T, twice where several processes average them (buckets)
    optimiser    8 T for AdamW (two moments); see OPTIMISER_BYTES for others
    activations  n b (L a + (layers - L) w) with a = 6 w + 5 q + 2 k + 4 m elements a token and layer: two norms and the residual stream, queries,
                 repeated keys and values and the attention's output, a gated feed-forward block. w: width; q, k: width of all queries, of
                 all keys; m: inner width (for experts, of those a token uses). L: all layers, or 1 with gradient checkpointing, where the
                 others keep their input alone. Attention is taken to keep no matrix of tokens by tokens (sdpa, flash).
    head         a tile of logits, min(n, 4,096) x min(V, 32,768): TRL computes them in tiles, once more for the gradient, and where there is no
                 Triton its plain torch operations hold about a dozen copies in float32; our own loss has 128 rows. The head's gradient, once more
    reference    4 P where RL has a KL penalty and trains all weights (an adapter's reference is the model without it)
    cache        keys and values of all completions a device samples at once, 2 k layers (prompt + new tokens) each, and their logits of one
                 token four times over
    judge        as large as its weights, in every process that trains

Gradients and activations are not there while completions are sampled, and the cache is not there while weights are trained: the peak is the
larger of the two. With sharding (FSDP) what belongs to parameters is divided by the number of devices. Checked against measured peaks of
small models in `tests/test_memory.py`. Not counted: the libraries themselves (about 0.5 GB), fragmentation, a vision tower's activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from preceptor.errors import DataError, require_extra
from preceptor.rl import RlConfig
from preceptor.sft import SftConfig
from preceptor.trainer import LoraConfig

OPTIMISER_BYTES: Mapping[str, float] = {
    "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "lion_32bit": 4, "lion_8bit": 1, "sgd": 0, "adafactor": 0.1,
}  # fmt: skip
"""Per trained parameter, where it is not the 8 of AdamW."""
ADAMW_BYTES = 8
TOKEN_TILE, VOCABULARY_TILE, LOSS_ROWS = 4_096, 32_768, 128
PLAIN_COPIES = 12
"""Of a tile, on a device without Triton: counted in TRL's code (9 with names) and fitted to a measured peak."""


@dataclass(frozen=True)
class Shape:
    """What a checkpoint's configuration says about its size."""

    parameters: int
    linear: tuple[tuple[int, int], ...]
    """(inputs, outputs) of every linear layer but the head: what adapters are put on."""
    layers: int
    width: int
    queries: int
    keys: int
    """Widths of all queries and of all keys of a token in one layer."""
    inner: int
    vocabulary: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    head: int
    reference: int = 0
    cache: int = 0
    judge: int = 0

    @property
    def training(self) -> int:
        """While weights are trained."""
        return self.weights + self.gradients + self.optimiser + self.activations + self.head + self.reference + self.judge

    @property
    def sampling(self) -> int:
        """While completions are sampled."""
        return self.weights + self.optimiser + self.cache + self.reference + self.judge

    @property
    def peak(self) -> int:
        """The larger of the two."""
        return max(self.training, self.sampling)

    def to_row(self) -> dict[str, int]:
        """Bytes by name, the peak last."""
        return {**asdict(self), "peak": self.peak}


def shape_of(checkpoint: Path | str) -> Shape:
    """Read a configuration and count its parameters, without weights. Raises `DataError` where there is none."""
    require_extra("train", "transformers")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise DataError(f"no configuration of a language model: {str(error).splitlines()[0]}", where=str(checkpoint)) from None
    head, text = model.get_output_embeddings(), config.get_text_config()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=tuple((module.in_features, module.out_features) for module in linear),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        queries=heads * size,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * size,
        inner=_inner(text),
        vocabulary=text.vocab_size,
    )


def _inner(text: Any) -> int:
    """Inner width of a feed-forward block that one token passes through."""
    experts = getattr(text, "num_experts_per_tok", None)
    one = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    return experts * one if experts else text.intermediate_size


def sft_memory(shape: Shape, config: SftConfig, *, gpu: bool, sharded: bool = False, tokens: int | None = None) -> Memory:
    """Of fine-tuning. `tokens`: length of the longest row, where it is known; else `max_length`. `sharded`: with FSDP."""
    share = max(1, config.batch_size // config.devices)
    rows = config.micro_batch or next(size for size in range(min(share, 8), 0, -1) if share % size == 0)
    lean = not gpu and config.lora is None and config.devices == 1
    return _training(shape, rows * (tokens or config.max_length), config, gpu=gpu, sharded=sharded, lean=lean)


def rl_memory(shape: Shape, config: RlConfig, *, gpu: bool, prompt_tokens: int, sharded: bool = False, judge: int = 0) -> Memory:
    """Of reinforcement. `prompt_tokens`: of the longest prompt; `judge`: bytes of the judge's weights where it is a local model."""
    length = prompt_tokens + config.max_tokens
    trained = _training(shape, config.forward_rows() * length, config, gpu=gpu, sharded=sharded, lean=False)
    samples = max(1, config.prompts_per_step * config.samples_per_prompt // config.devices)
    width = 2 if _half(config.trainer, gpu) else 4
    keys = 2 * shape.keys * shape.layers * length * width
    reference = 4 * shape.parameters // (config.devices if sharded else 1) if config.beta and config.lora is None else 0
    sampled = samples * (keys + 4 * 4 * shape.vocabulary)
    return Memory(**{**asdict(trained), "reference": reference, "cache": sampled, "judge": judge})


def _training(shape: Shape, tokens: int, config: SftConfig | RlConfig, *, gpu: bool, sharded: bool, lean: bool) -> Memory:
    settings = config.trainer
    half = _half(settings, gpu)
    trained = shape.parameters if config.lora is None else _adapters(shape, config.lora)
    whole = shape.parameters + (trained if config.lora else 0)
    parts = config.devices if sharded else 1
    averaged = 2 if config.devices > 1 and not sharded else 1
    optimiser = OPTIMISER_BYTES.get(str(settings.get("optim", "adamw")), ADAMW_BYTES)
    tile = min(tokens, TOKEN_TILE) * min(shape.vocabulary, VOCABULARY_TILE) * ((2 if half else 4) if gpu else 4 * PLAIN_COPIES)
    logits = LOSS_ROWS * shape.vocabulary * 4 * 2 if lean else tile
    return Memory(
        weights=4 * whole // parts + (2 * shape.parameters if half else 0),
        gradients=4 * trained * averaged // parts,
        optimiser=int(optimiser * trained) // parts,
        activations=_activations(shape, tokens, 2 if half else 4, _checkpointing(settings, gpu)),
        head=logits + (shape.vocabulary * shape.width * 4 if config.lora is None else 0),
    )


def _activations(shape: Shape, tokens: int, width: int, checkpointing: bool) -> int:
    layer = 6 * shape.width + 5 * shape.queries + 2 * shape.keys + 4 * shape.inner
    kept = layer + (shape.layers - 1) * shape.width if checkpointing else shape.layers * layer
    return tokens * width * kept


def _adapters(shape: Shape, lora: LoraConfig) -> int:
    """Parameters of adapters on every linear layer: an upper bound where `target_modules` names some of them."""
    return sum(lora.rank * (inputs + outputs) for inputs, outputs in shape.linear)


def _half(settings: Mapping[str, Any], gpu: bool) -> bool:
    """Whether products are taken in bfloat16: TRL's default on a GPU, off on a CPU."""
    return bool(settings.get("bf16", gpu))


def _checkpointing(settings: Mapping[str, Any], gpu: bool) -> bool:
    """TRL's default on a GPU, off on a CPU; under its old and its new name."""
    return bool(settings.get("gradient_checkpointing", settings.get("activation_checkpointing", gpu)))
