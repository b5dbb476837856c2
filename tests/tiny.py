"""Tiny random-weight models and a word-level tokenizer: enough of each architecture to prove an engine on.

The weights are drawn wide (standard deviation 0.3), so that greedy outputs vary and a wrong cache shows at once.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

MARKERS = ("<unk>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>")
WORDS = tuple(f"w{i}" for i in range(88))

TEMPLATE = (
    "{%- for message in messages -%}<|{{ message.role }}|>"
    "{%- if message.role == 'assistant' and loop.last -%}<think>{{ message.reasoning_content }}</think>{%- endif -%}"
    "{{ message.content }}<|end|>{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)

QWEN_TEMPLATE = """{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.last and message.reasoning_content -%}
{{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- content + '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def word_tokenizer(template: str = TEMPLATE) -> PreTrainedTokenizerFast:
    """96 tokens: eight markers and the words w0 to w87, separated by white space."""
    vocabulary = {text: i for i, text in enumerate((*MARKERS, *WORDS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|end|>",
        additional_special_tokens=[m for m in MARKERS if m not in ("<unk>", "<pad>", "<|end|>")],
        chat_template=template,
    )


def byte_tokenizer(template: str = QWEN_TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level, Qwen-style markers; the think tags are added tokens but not special ones, as in Qwen3."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.add_tokens(["<think>", "</think>"])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template)


def _drawn(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(0.0, 0.3, generator=generator)
    return model.eval()


COMMON: dict[str, Any] = dict(
    vocab_size=96,
    hidden_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    pad_token_id=1,
    bos_token_id=None,
    eos_token_id=5,
)


def lfm2(seed: int = 0) -> PreTrainedModel:
    """Hybrid: short convolution, attention, convolution, attention; width 64."""
    kinds = ["conv", "full_attention", "conv", "full_attention"]
    config = Lfm2Config(
        **COMMON, num_hidden_layers=4, intermediate_size=96, block_auto_adjust_ff_dim=False, layer_types=kinds, conv_L_cache=3
    )
    return _drawn(Lfm2ForCausalLM(config), seed)


def llama(seed: int = 0) -> PreTrainedModel:
    """Two layers of plain grouped-query attention."""
    return _drawn(LlamaForCausalLM(LlamaConfig(**COMMON, num_hidden_layers=2, intermediate_size=96, tie_word_embeddings=True)), seed)


def qwen3(seed: int = 0) -> PreTrainedModel:
    """Two layers of attention with normalised queries and keys and a head width that is not width / heads."""
    return _drawn(
        Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=32, num_hidden_layers=2, intermediate_size=96, tie_word_embeddings=True)), seed
    )
