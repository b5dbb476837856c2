# pyright: basic, reportArgumentType=false
"""A real vLLM server over a tiny model, for the lane of its own (`make test-vllm`).

The model is small enough to be made here: four layers and a vocabulary learnt from the very texts, trained until it says by heart what it was
shown. So its replies are replies (reasoning, answers, verdicts), with margins that no rounding turns.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
from tiny import QWEN_TEMPLATE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from preceptor.chat import Renderer
from preceptor.records import Message

NAME = "tiny"
START_SECONDS = 300
Lesson = tuple[tuple[Message, ...], str, str]
"""Messages, reasoning, answer."""


def tokenizer_for(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level, 400 tokens learnt from `texts`, with Qwen's markers."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.add_tokens(["<think>", "</think>"])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=QWEN_TEMPLATE)


def pupil(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Four layers, width 192, random weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=192, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
        intermediate_size=512, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"), pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def memorise(model, tokenizer: PreTrainedTokenizerFast, lessons: Sequence[Lesson], rate: float, steps: int = 300) -> None:
    """Train until every token of every lesson's reply is the likeliest by far. Fails when that takes more than `steps`."""
    renderer = Renderer(tokenizer)
    prompts = [renderer.prompt_ids(messages) for messages, _, _ in lessons]
    replies = [tokenizer.encode(f"<think>\n{thought}\n</think>\n\n{answer}<|im_end|>") for _, thought, answer in lessons]
    rows = [torch.tensor(prompt + reply) for prompt, reply in zip(prompts, replies, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = torch.full_like(ids, -100)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        labels[row, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=rate, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        if loss.item() < 0.005:
            model.eval()
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    raise AssertionError(f"not learnt by heart in {steps} steps: loss {loss.item():.3f}")


@dataclass
class Vllm:
    """A server that answers. `url` is what a client is given."""

    url: str
    log: Path

    def post(self, path: str, **body: object) -> httpx.Response:
        """A call below `url`."""
        return httpx.post(f"{self.url}{path}", json=body, timeout=60)

    def metric(self, name: str) -> float:
        """Sum of a counter over its labels."""
        text = httpx.get(self.url.removesuffix("/v1") + "/metrics", timeout=10).text
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:_total)?(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@contextmanager
def vllm(python: str, checkpoint: Path, log: Path, *options: str) -> Iterator[Vllm]:
    """Serve `checkpoint` with the vLLM of the interpreter `python`; its output goes to `log`. The server and its children end with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint), "--served-model-name", NAME, "--host", "127.0.0.1",
        "--port", str(port), "--max-model-len", "2048", "--dtype", "float32", "--enforce-eager", *options,
    ]  # fmt: skip
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    try:
        _wait(process, port, log)
        yield Vllm(f"http://127.0.0.1:{port}/v1", log)
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    ended = "ended" if process.poll() is not None else f"did not answer in {START_SECONDS} s"
    raise AssertionError(f"the vLLM server {ended}; the end of its log:\n{log.read_text(errors='replace')[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server's engine is a process of its own: the whole group is ended."""
    for sent, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sent)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
