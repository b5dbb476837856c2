# pyright: basic
"""A long specification before short prompts: this project's engine against transformers' `generate` on the same weights, in one run.

Plain `generate` gets the whole prompts, padded on the left, as its users give them. Both decode greedily to the same limits, and the share of equal
outputs is printed (a tie to the last bit can fall either way). They take turns within each repetition, so that a busy machine slows both. Printed:
median and range of the ratio of their times. CPU time of the process where the device is a CPU, wall time otherwise, and always where a server is asked.

    python benchmarks/spec_prefix.py                                 random weights: Qwen3, 4 layers, width 192, 1.9 M parameters
    python benchmarks/spec_prefix.py --server PYTHON                 also a vLLM server run by that interpreter (see make test-vllm)
    python benchmarks/spec_prefix.py --checkpoint DIRECTORY --prefixes 1000
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from prefix_reuse import TEMPLATE, words
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from preceptor.models import Model, Request, complete
from preceptor.models.local import LocalModel
from preceptor.records import Message, Sampling

MARKERS = ("<unk>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>")


def random_model(batch_size: int) -> LocalModel:
    """Four layers of full attention, width 192, random weights."""
    vocabulary = {text: i for i, text in enumerate((*MARKERS, *(f"w{i}" for i in range(1000 - len(MARKERS)))))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", pad_token="<pad>", eos_token="<|end|>", extra_special_tokens=list(MARKERS),
        chat_template=TEMPLATE,
    )  # fmt: skip
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=1000, hidden_size=192, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
        intermediate_size=512, max_position_embeddings=8192, tie_word_embeddings=True, pad_token_id=1, bos_token_id=None, eos_token_id=5,
    )  # fmt: skip
    return LocalModel(Qwen3ForCausalLM(config).eval(), tokenizer, name="random", identity="random", batch_size=batch_size)


def requests(local: LocalModel, prefix: int, suffix: tuple[int, int], new: int, count: int, seed: int) -> list[Request]:
    """`count` prompts of `suffix` (from, to) tokens after one specification of `prefix` tokens, which is the same for every `seed`."""
    system, rng = Message(role="system", content=words(local, prefix, random.Random(0))), random.Random(seed)
    turns = [Message(role="user", content=words(local, rng.randint(*suffix), rng)) for _ in range(count)]
    return [Request((system, turn), Sampling(temperature=0.0, max_tokens=new)) for turn in turns]


def plain(local: LocalModel, some: list[Request]) -> list[list[int]]:
    """Transformers' `generate`: whole prompts, padded on the left. Returns the new tokens."""
    ids = [local.renderer.prompt_ids(request.messages) for request in some]
    longest = max(map(len, ids))
    padded = torch.tensor([[1] * (longest - len(row)) + row for row in ids], device=local.model.device)
    seen = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=local.model.device)
    with torch.inference_mode():
        out = local.model.generate(padded, attention_mask=seen, max_new_tokens=some[0].sampling.max_tokens, do_sample=False)  # pyright: ignore[reportCallIssue]
    return out[:, longest:].tolist()


def timed(ask: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds."""
    start = clock()
    ask()
    return clock() - start


def spread(values: list[float], unit: str = "") -> str:
    return f"{statistics.median(values):7.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


@contextlib.contextmanager
def served(local: LocalModel, python: str | None) -> Iterator[Model | None]:
    """The same weights behind a vLLM server run by the interpreter `python`; None without one."""
    if python is None:
        yield None
        return
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from vllm_server import NAME, vllm  # pyright: ignore[reportMissingImports]

    from preceptor.models.endpoint import Endpoint, EndpointConfig

    with tempfile.TemporaryDirectory() as folder:
        local.model.save_pretrained(folder)
        local.renderer.tokenizer.save_pretrained(folder)
        with vllm(python, Path(folder), Path(folder) / "log.txt", "--max-model-len", "4096", "--max-num-seqs", "64") as server:
            config = EndpointConfig(url=server.url, concurrency=64, reasoning="optional", extra={"ignore_eos": True})
            with Endpoint(NAME, config) as model:
                yield model


def measure(local: LocalModel, server: Model | None, name: str, draw: Callable[[int], list[Request]], repetitions: int) -> None:
    """One row of figures. Every repetition has prompts of its own, so that a server's cache holds the specification and no more."""
    some = draw(0)
    clock = time.process_time if local.model.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    outputs = plain(local, some), complete(local, some)
    equal = sum(local.renderer.decode(ids).split() == f"{mine.reasoning} {mine.answer}".split() for ids, mine in zip(*outputs, strict=True))
    if server:
        complete(server, some)  # the specification is in its cache, as in a long run; here it is computed in every repetition
    times: dict[str, list[float]] = {"ours": [], "plain": [], "ours, wall": [], "server": []}
    for repetition in range(1, repetitions + 1):
        some = draw(repetition)
        times["ours"].append(timed(partial(complete, local, some), clock))
        times["plain"].append(timed(partial(plain, local, some), clock))
        if server:
            times["ours, wall"].append(timed(partial(complete, local, some), time.perf_counter))
            times["server"].append(timed(partial(complete, server, some), time.perf_counter))
    ratios = [slow / fast for fast, slow in zip(times["ours"], times["plain"], strict=True)]
    line = f"{name}: ours {spread(times['ours'], ' s')}, generate {spread(times['plain'], ' s')}, ratio {spread(ratios)}; equal {equal}/{len(some)}"
    if server:
        against = [mine / theirs for mine, theirs in zip(times["ours, wall"], times["server"], strict=True)]
        line += f"; vLLM {spread(times['server'], ' s')} wall, ours / vLLM {spread(against)}"
    print(line, flush=True)


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", help="a checkpoint directory; default: random weights")
    parser.add_argument("--server", metavar="PYTHON", help="interpreter that has vLLM: the same requests are put to its server")
    parser.add_argument("--prefixes", type=int, nargs="+", default=[1000, 3000], help="tokens of the specification")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    local = LocalModel.load(options.checkpoint, batch_size=options.batch) if options.checkpoint else random_model(options.batch)
    local.end_ids, local.model.generation_config.eos_token_id = [], None  # both write to the limit
    size = sum(weight.numel() for weight in local.model.parameters()) / 1e6
    print(
        f"{local.name}, {size:.2f} M parameters, {local.way}, {local.model.device} ({platform.machine()}), {options.threads} thread(s), "
        f"batch {options.batch}; median (range) of {options.repetitions}"
    )
    with served(local, options.server) as server:
        for prefix in options.prefixes:
            for name, suffix, new in (("64 new tokens", (20, 40), 64), ("judging, 8 new tokens", (140, 160), 8)):
                draw = partial(requests, local, prefix, suffix, new, options.batch)
                measure(local, server, f"prefix {prefix}, {name}", draw, options.repetitions)


if __name__ == "__main__":
    main()
