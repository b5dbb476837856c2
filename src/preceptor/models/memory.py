# pyright: basic
"""Which devices there are, how much memory they have left, whether a model fits and how many rows of a batch do.

In: names of devices and number types, a model, the lengths of what is to be decoded.  Out: bytes and rows. What a token costs is measured on the model at hand (one forward
over one token), so that grouped heads, windows, recurrent states and number types need no table.

Not here: what to do when it runs out all the same (`local`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import orjson
import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionLayer

from preceptor.errors import DataError, UsageError

MEMORY_SHARE = 0.8
"""The rest is for the forward's own intermediate results and for whoever shares the machine."""
NUMBER_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPARE = 1.25
"""Share by which the slots of a batch may exceed what they hold: a layer is copied when it grows and when rows are dropped."""
SCORES = 6
"""Copies of the logits in float32 that drawing a token makes at most."""
CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on `device`; for a CPU also within the limit of its container."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(psutil.virtual_memory().available, _container_bytes(CGROUP))


def _container_bytes(group: Path) -> int:
    """What the limit of a container leaves; files that are only kept in memory do not count."""
    try:
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 2**62
    return max(0, limit - used + int(stat.get("inactive_file", 0)))


@dataclass(frozen=True)
class Cost:
    """What decoding takes, in bytes: `token` of cache for each token of a row, `row` for each row whatever its length, and `score` for each
    token that a row looks at while a layer is computed."""

    token: int
    row: int
    score: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Cost:
        """Measured by a forward over one token."""
        cache, config = DynamicCache(config=model.config), model.config.get_text_config()
        with torch.inference_mode():
            model(input_ids=torch.tensor([[0]], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = row = 0
        for layer in cache.layers:
            if isinstance(layer, LinearAttentionLayer):
                row += sum(
                    state.nbytes for states in (layer.conv_states, layer.recurrent_states) for state in states.values() if state is not None
                )
            token += sum(kept.nbytes for kept in (getattr(layer, "keys", None), getattr(layer, "values", None)) if kept is not None)
        return cls(token, row + 4 * SCORES * config.vocab_size, 8 * config.num_attention_heads)

    def rows(self, free: float, held: int, seen: int, shared: float) -> int:
        """Rows that fit into `free` bytes (1 at least): each holds `held` tokens, looks at `seen`, and has a part of `shared` tokens in
        prefixes that are kept once."""
        return max(1, int(free / (self.token * (SPARE * held + shared) + self.row + self.score * seen)))


@contextmanager
def running_out(reasons: list[str]) -> Iterator[None]:
    """Take a failed allocation as something that happens: its first line is added to `reasons`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reasons.append((str(error).strip() or "out of memory").splitlines()[0])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation, of Python, of a GPU or of torch's CPU allocator (which has no class of its own)."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def release(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def weights_bytes(path: Path, dtype: torch.dtype | None) -> int:
    """What the weights of a checkpoint take in memory as `dtype` (None: as they are stored), from the heads of its files."""
    index = path / "model.safetensors.index.json"
    files = sorted(set(orjson.loads(index.read_bytes())["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    return sum(_file_bytes(path / name, dtype) for name in files if (path / name).is_file())


def _file_bytes(file: Path, dtype: torch.dtype | None) -> int:
    if dtype is None:
        return file.stat().st_size
    with safe_open(file, framework="pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys()) * dtype.itemsize  # noqa: SIM118


def gigabytes(count: float) -> str:
    """For people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"


def device_of(name: str) -> torch.device:
    """`auto` (the first GPU, else the CPU) or a torch name such as `cuda:1`. Raises `UsageError` if it is not on this machine."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count())), *["mps"] * torch.backends.mps.is_available()]
    if name not in here and not (name == "cuda" and "cuda:0" in here):
        raise UsageError(f"no device {name!r} on this machine", hint=f"choose auto or {', '.join(here)}")
    return torch.device(name)


def number_type_of(name: str | None) -> torch.dtype | None:
    """The torch type called `name`; None for None. Raises `UsageError`."""
    if name is not None and name not in NUMBER_TYPES:
        raise UsageError(f"no number type {name!r} for weights", hint=f"choose {', '.join(NUMBER_TYPES)}")
    return NUMBER_TYPES[name] if name else None


def refuse_too_large(path: Path, place: torch.device, number_type: torch.dtype | None) -> None:
    """Raises `DataError` for weights that are larger than the memory that is free, before any of it is taken."""
    try:
        needed = weights_bytes(path, number_type)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError):
        return  # damaged: loading says so, and how
    if needed > free_bytes(place):
        raise too_large(path, place, number_type)


def too_large(path: Path, place: torch.device, number_type: torch.dtype | None) -> DataError:
    """The error that says what is needed and what there is."""
    needed, free = (gigabytes(count) for count in (weights_bytes(path, number_type), free_bytes(place)))
    return DataError(
        f"the model does not fit: its weights take {needed} as {str(number_type or 'stored').removeprefix('torch.')}, {free} are free on {place}",
        where=path,
        hint="load it as bfloat16, choose another device, or serve it and give its endpoint",
    )
