# pyright: basic
"""Real model families in small: their own chat templates (of TRL and tests/families), special tokens and end tokens as they declare them, a
byte-level vocabulary of a few hundred tokens, and their own architecture with random weights.

What `special` is and is not follows each family's tokenizer files as far as they are known (SmolLM3's from memory): the roles of DeepSeek and all think tags are plain added tokens,
OLMo has no token for `<think>` at all (and merges `>` with a following new line), SmolLM3 pads with its end-of-turn token, and the
first Llama 3 names a token as `eos_token` that does not end a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "families"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How the vocabularies of all these families split a text before merging: punctuation keeps the new lines after it."""
TEXT = [
    "<think>\nWhy not?</think>\n\nYes, of course.",
    "First I look at the rule. Then I answer, briefly and in plain words.",
    "analysis final assistant",
] * 8
SMALL: dict[str, Any] = dict(
    hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=48, max_position_embeddings=1024,
    head_dim=8,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Family:
    """`special` and `plain`: added tokens by kind. `ends`: what the checkpoint's generation config names, the tokens that stop it."""

    name: str
    template: str
    architecture: str
    special: tuple[str, ...]
    plain: tuple[str, ...]
    eos: str
    pad: str
    bos: str | None
    ends: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    nfc: bool = False

    def __str__(self) -> str:
        return self.name


THINK = ("<think>", "</think>")
TOOLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
DEEPSEEK_END = "<｜end▁of▁sentence｜>"

QWEN3 = Family(
    "qwen3", "qwen3", "Qwen3", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (*TOOLS, *THINK),
    eos="<|im_end|>", pad="<|endoftext|>", bos=None, ends=("<|im_end|>", "<|endoftext|>"), nfc=True,
)  # fmt: skip
DEEPSEEK_R1 = Family(
    "deepseek-r1-distill", "deepseek_r1_distill", "Qwen2", (DEEPSEEK_END, "<｜begin▁of▁sentence｜>"),
    ("<｜User｜>", "<｜Assistant｜>", "<|EOT|>", *THINK),
    eos=DEEPSEEK_END, pad=DEEPSEEK_END, bos="<｜begin▁of▁sentence｜>", ends=(DEEPSEEK_END,),
)  # fmt: skip
GPT_OSS = Family(
    "gpt-oss", "gpt_oss", "GptOss",
    ("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>"), (),
    eos="<|return|>", pad="<|endoftext|>", bos="<|startoftext|>", ends=("<|return|>", "<|endoftext|>", "<|call|>"),
    settings=dict(
        num_local_experts=4, num_experts_per_tok=2, sliding_window=8,
        rope_parameters=dict(rope_type="yarn", rope_theta=150000.0, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                             original_max_position_embeddings=32),
    ),
)  # fmt: skip
OLMO3 = Family(
    "olmo3-think", "olmo3_think", "Olmo3", ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"), (),
    eos="<|endoftext|>", pad="<|pad|>", bos="<|endoftext|>", ends=("<|im_end|>", "<|endoftext|>"),
    settings=dict(sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
)  # fmt: skip
SMOLLM3 = Family(
    "smollm3", "smollm3", "SmolLM3", ("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"), (*THINK, *TOOLS),
    eos="<|im_end|>", pad="<|im_end|>", bos=None, ends=("<|im_end|>",), settings=dict(no_rope_layers=[1, 0]),
)  # fmt: skip
LLAMA3 = Family(
    "llama3", "llama3", "Llama",
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>"),
    (), eos="<|end_of_text|>", pad="<|finetune_right_pad_id|>", bos="<|begin_of_text|>", ends=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
)  # fmt: skip
FAMILIES = (QWEN3, DEEPSEEK_R1, GPT_OSS, OLMO3, SMOLLM3, LLAMA3)


def template(name: str) -> str:
    """A chat template: of tests/families, else one that TRL brings."""
    bundled = {"gpt_oss": "gptoss"}.get(name, name)
    own, theirs = FOLDER / f"{name}.jinja", Path(trl.__file__).parent / "chat_templates" / f"{bundled}.jinja"
    return (own if own.exists() else theirs).read_text(encoding="utf-8")


@cache
def _core(family: Family) -> str:
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC() if family.nfc else None  # type: ignore[assignment]
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )  # type: ignore[assignment]
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [*TEXT, template(family.template)], trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    )
    core.add_special_tokens(list(family.special))
    core.add_tokens(list(family.plain))
    return core.to_str()


def tokenizer(family: Family, source: str | None = None) -> PreTrainedTokenizerFast:
    """The family's tokenizer; `source`: another chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_core(family)), chat_template=source or template(family.template),
        eos_token=family.eos, pad_token=family.pad, bos_token=family.bos, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def model(family: Family, seed: int = 0, spread: float = 0.3) -> PreTrainedModel:
    """Two layers of the family's architecture; weights are drawn wide, so that greedy outputs vary."""
    words = tokenizer(family)
    ids = [words.convert_tokens_to_ids(token) for token in family.ends]
    tokens = dict(vocab_size=len(words), eos_token_id=ids, pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id)
    config = getattr(transformers, f"{family.architecture}Config")(**{**SMALL, **tokens, **family.settings})
    build: Callable[[Any], PreTrainedModel] = getattr(transformers, f"{family.architecture}ForCausalLM")
    made = build(config)
    made.generation_config.eos_token_id = ids
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in made.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(0.0, spread, generator=generator)
    return made.eval()
