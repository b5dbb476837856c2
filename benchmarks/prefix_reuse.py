# pyright: basic
"""What computing a shared system message once is worth: prompts per second with and without, in one run.

Both sides use the same engine, weights, requests and seeds; the only difference is `prefix_cache`. They take turns
within each repetition, so that a busy machine slows both. Printed: median and range over the repetitions of the
ratio, the prompts per second and the new tokens per second. CPU time of the process is used where the device is a
CPU, wall time otherwise.

    python benchmarks/prefix_reuse.py                       # random weights: short convolution and attention, 1.4 M parameters
    python benchmarks/prefix_reuse.py --checkpoint DIRECTORY

The directory is any checkpoint with a chat template, for instance the one of the generated world.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast

from preceptor.models import Request, complete
from preceptor.models.local import LocalModel
from preceptor.records import Message, Sampling

TEMPLATE = (
    "{%- for message in messages -%}<|{{ message.role }}|>{{ message.content }}<|end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
MARKERS = ("<unk>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>")
VOCABULARY = 6000


def random_model(batch_size: int) -> LocalModel:
    """Four layers (convolution, attention, convolution, attention), width 128, random weights."""
    vocabulary = {text: i for i, text in enumerate((*MARKERS, *(f"w{i}" for i in range(VOCABULARY - len(MARKERS)))))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|end|>",
        extra_special_tokens=list(MARKERS),
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4, intermediate_size=256,
        block_auto_adjust_ff_dim=False, layer_types=["conv", "full_attention"] * 2, pad_token_id=1, bos_token_id=None, eos_token_id=5,
        max_position_embeddings=4096,
    )  # fmt: skip
    return LocalModel(Lfm2ForCausalLM(config).eval(), tokenizer, name="random", identity="random", batch_size=batch_size)


def words(local: LocalModel, count: int, rng: random.Random) -> str:
    """About `count` tokens of words from the tokenizer's own vocabulary."""
    vocabulary = sorted(word for word in local.renderer.tokenizer.get_vocab() if word.isalnum())
    return " ".join(rng.choice(vocabulary) for _ in range(count))


def requests(local: LocalModel, options: argparse.Namespace) -> list[Request]:
    """One system message for all, user turns around `--suffix` tokens, limits around `--new` tokens."""
    rng = random.Random(0)
    system = Message(role="system", content=words(local, options.prefix, rng))
    return [
        Request(
            (system, Message(role="user", content=words(local, rng.randint(options.suffix // 2, 3 * options.suffix // 2), rng))),
            Sampling(max_tokens=rng.randint(options.new // 2, 3 * options.new // 2), seed=seed),
        )
        for seed in range(options.prompts)
    ]


def timed(local: LocalModel, some: list[Request], *, reuse: bool) -> tuple[float, float]:
    """Prompts and new tokens per second."""
    local.prefix_cache = reuse
    clock = time.process_time if local.model.device.type == "cpu" else time.perf_counter
    start = clock()
    replies = complete(local, some)
    seconds = clock() - start
    return len(replies) / seconds, sum(reply.completion_tokens for reply in replies) / seconds


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):9.1f}   ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", help="a checkpoint directory; default: random weights")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--prefix", type=int, default=250, help="tokens of the shared system message")
    parser.add_argument("--suffix", type=int, default=25, help="mean tokens of a user turn")
    parser.add_argument("--new", type=int, default=65, help="mean limit of new tokens")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    local = LocalModel.load(options.checkpoint, batch_size=options.batch) if options.checkpoint else random_model(options.batch)
    if local.plain_reason:
        raise SystemExit(f"this model takes the plain path: {local.plain_reason}")
    some = requests(local, options)
    timed(local, some[:8], reuse=True)  # warm up
    pairs = [(timed(local, some, reuse=True), timed(local, some, reuse=False)) for _ in range(options.repetitions)]
    print(
        f"{local.name}, {local.model.device}, {options.threads} thread(s), {options.prompts} prompts in batches of {options.batch}:",
        end=" ",
    )
    print(f"prefix {options.prefix}, suffix about {options.suffix}, new about {options.new}; median (range) of {options.repetitions}")
    print(f"prompts/s with reuse       {spread([reused[0] for reused, _ in pairs])}")
    print(f"prompts/s without          {spread([whole[0] for _, whole in pairs])}")
    print(f"new tokens/s with reuse    {spread([reused[1] for reused, _ in pairs])}")
    print(f"new tokens/s without       {spread([whole[1] for _, whole in pairs])}")
    print(f"ratio                      {spread([reused[0] / whole[0] for reused, whole in pairs])}")


if __name__ == "__main__":
    main()
