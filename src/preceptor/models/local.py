# pyright: basic
"""A causal language model on this machine, behind the `Model` protocol.

In: requests.  Out: replies, split into reasoning and answer at this boundary, as they finish.

The one idea: requests with the same leading system message (here: the same routed view of a specification) form a
group, the system message is computed once per group, and a finished row's place goes to the next request of the
group. How a batch is advanced is in `decode`; here is which requests meet in a batch, which token is taken, when a
row ends and what is made of it.

Every token of a request is drawn by inverse CDF with one uniform number from a Philox stream keyed by the request's
own seed, so a reply depends on the request and not on the company it was computed in (but for the rounding of
floating point, which batch shapes can change). At the reasoning budget the closing tag is forced and the answer goes
on. Weights are read from safetensors only and code from a checkpoint is never run.

Not here: beam search, several devices, quantisation, adapters (merge them first).
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from preceptor.chat import Renderer
from preceptor.errors import DataError
from preceptor.models import Reply, Request
from preceptor.models.decode import Plain, SharedPrefix, borrowed, shared_prefix_reason
from preceptor.records import Sampling
from preceptor.template import DEFAULTS, TemplateArguments

STEPS_PER_TURN = 16
"""Decoding steps between two hand-overs of finished replies."""
SMALLEST_GROUP = 2
"""A system message that fewer requests share is not worth a batch of its own."""
CANDIDATES = 64
"""Most likely tokens looked at before a whole distribution is sorted for `top_p`."""
BROKEN = -1
"""Drawn where the logits are not numbers."""
IDENTITY_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*", "*.jinja")
"""What determines the output, as glob patterns within a checkpoint."""


@dataclass(frozen=True)
class Job:
    """One request, tokenised. `limit`: most new tokens."""

    index: int
    ids: list[int]
    prefix: tuple[int, ...]
    sampling: Sampling
    limit: int


class LocalModel:
    """Implements `Model.stream` with a Hugging Face causal LM and its fast tokenizer (which must have a chat template).

    `batch_size`: most rows decoded together. `prefix_cache`: compute a shared system message once (False: for every
    request, for comparison). `identity`: hash of what determines the output; computed from the weights in memory if
    not given, once, on first use. `arguments`: what the chat template is told (thinking on or off, ...).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        identity: str | None = None,
        batch_size: int = 256,
        prefix_cache: bool = True,
        arguments: TemplateArguments = DEFAULTS,
    ):
        self.model, self.renderer, self.name = model, Renderer(tokenizer, arguments), name
        self.batch_size, self.prefix_cache = batch_size, prefix_cache
        self._identity = identity
        ends = model.generation_config.eos_token_id
        self.end_ids: list[int] = sorted({*self.renderer.end_ids, *([ends] if isinstance(ends, int) else ends or [])})

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        device: str = "auto",
        dtype: str | None = None,
        name: str | None = None,
        batch_size: int = 256,
        prefix_cache: bool = True,
        arguments: TemplateArguments = DEFAULTS,
    ) -> LocalModel:
        """Load a checkpoint directory, or a Hub id (`owner/name`) when no such path exists.

        `device`: `auto` is the first GPU, else the CPU. `dtype`: a torch name (`float32`, `bfloat16`); None is the
        checkpoint's own. Raises `DataError` (one line) if something is missing, damaged, not safetensors, or would
        need code from the checkpoint.
        """
        path = checkpoint(path_or_id)
        place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        safe = {"local_files_only": True, "trust_remote_code": False}
        logging.disable_progress_bar()  # the caller shows progress
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, **safe)
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype or "auto", use_safetensors=True, **safe).eval()
            model.to(torch.device(place))  # pyright: ignore[reportArgumentType]  (a decorator hides the signature)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise DataError(
                f"cannot load the model: {_first_line(error)}", where=path, hint="expected config.json, *.safetensors and tokenizer.json"
            ) from None
        identity = files_identity(path, extra=f"{model.dtype}{arguments.identity}")
        return cls(
            model, tokenizer, name=name or path.name, identity=identity,
            batch_size=batch_size, prefix_cache=prefix_cache, arguments=arguments,
        )  # fmt: skip

    @property
    def identity(self) -> str:
        """Hash (16 hex digits) of weights, configuration, tokenizer and template."""
        if self._identity is None:
            self._identity = weights_identity(self.model, self.renderer.tokenizer, extra=self.renderer.arguments.identity)
        return self._identity

    @cached_property
    def plain_reason(self) -> str:
        """Why this model takes the plain path (equal lengths, no shared prefix); empty if it does not."""
        return shared_prefix_reason(self.model)

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield `(index, reply)` once per request as they finish. A request that cannot be rendered or does not fit
        the model's context is a reply with status `failed`."""
        groups: dict[object, list[Job]] = defaultdict(list)
        for index, request in enumerate(requests):
            job = self._job(index, request)
            if isinstance(job, Job):
                groups[len(job.ids) if self.plain_reason else job.prefix].append(job)
            else:
                yield index, job
        if self.plain_reason:
            batches = (jobs[at : at + self.batch_size] for jobs in groups.values() for at in range(0, len(jobs), self.batch_size))
            for jobs in batches:
                yield from self._run(Plain(self.model), jobs, len(jobs))
            return
        alone = groups.pop((), [])
        for prefix in [prefix for prefix, jobs in groups.items() if len(jobs) < SMALLEST_GROUP]:
            alone += groups.pop(prefix)
        for prefix, jobs in [*groups.items(), ((), alone)]:
            size = min(self.batch_size, len(jobs))
            if size:
                yield from self._run(SharedPrefix(self.model, prefix, size), jobs, size)

    def _job(self, index: int, request: Request) -> Job | Reply:
        try:
            ids, prefix = self.renderer.prompt_and_prefix(request.messages)
        except DataError as error:
            return Reply("", "", "failed", error.render())
        context = self.model.config.max_position_embeddings
        limit = min(request.sampling.max_tokens, context - len(ids))
        if limit < 1:
            return Reply("", "", "failed", f"a prompt of {len(ids)} tokens in a context of {context}", prompt_tokens=len(ids))
        return Job(index, ids, tuple(ids[:prefix]) if self.prefix_cache else (), request.sampling, limit)

    def _run(self, decoder: Plain | SharedPrefix, jobs: list[Job], size: int) -> Iterator[tuple[int, Reply]]:
        """All jobs of one group, at most `size` at a time."""
        queue = deque(sorted(jobs, key=lambda job: len(job.ids)))
        rows = Rows(size, max(job.limit for job in jobs), self.model.device)
        while queue or rows.jobs:
            with borrowed(self.model, decoder.attention):
                finished = [reply for _ in range(STEPS_PER_TURN) for reply in self._step(decoder, rows, queue)]
            yield from finished

    def _step(self, decoder: Plain | SharedPrefix, rows: Rows, queue: deque[Job]) -> list[tuple[int, Reply]]:
        """Fill free rows, draw one token for every row, and take out those that have ended."""
        self._fill(decoder, rows, queue)
        if not rows.jobs:
            return []
        logits = decoder.step(rows.last, rows.active)
        for row in rows.at_budget():
            self._close_reasoning(rows, row)
        rows.take(logits)
        return [self._reply(rows, row) for row in rows.ended(self.end_ids)]

    def _fill(self, decoder: Plain | SharedPrefix, rows: Rows, queue: deque[Job]) -> None:
        """Admit jobs once an eighth of the rows is free (feeding a few at a time wastes the forward); when none are
        left, shrink the batch once a quarter is free (shrinking copies the cache)."""
        free = rows.free()
        if queue and len(free) * 8 >= rows.size:
            jobs = [queue.popleft() for _ in range(min(len(free), len(queue)))]
            chosen = torch.tensor(free[: len(jobs)], device=rows.last.device)
            decoder.admit(chosen, [job.ids[decoder.prefix_length :] for job in jobs])
            rows.place(chosen, jobs, [self._budget(job.sampling) for job in jobs])
        elif not queue and rows.jobs and len(free) * 4 >= rows.size:
            decoder.keep(rows.compact())

    def _budget(self, sampling: Sampling) -> int:
        """New tokens after which an open reasoning block is closed; the opening tag is not counted. -1: never."""
        if sampling.reasoning_tokens is None:
            return -1
        return sampling.reasoning_tokens + len(self.renderer.open_ids)

    def _close_reasoning(self, rows: Rows, row: int) -> None:
        if self.renderer.in_reasoning(rows.written(row)):
            rows.force(row, self.renderer.close_ids)

    def _reply(self, rows: Rows, row: int) -> tuple[int, Reply]:
        job, ids = rows.remove(row)
        if ids[-1] == BROKEN:
            return job.index, Reply("", "", "failed", "the model's logits are not numbers", len(job.ids), len(ids) - 1)
        finished = ids[-1] in self.end_ids
        found = self.renderer.split_ids(ids, finished)  # a token that stops the model and does not end a turn is malformed
        return job.index, Reply(found.reasoning, found.answer, found.status, found.detail, len(job.ids), len(ids))


class Rows:
    """The sampling state of a batch: R rows, most of it as tensors of length R, so that a step costs no Python per row."""

    def __init__(self, size: int, limit: int, device: torch.device):
        self.size = size
        self.jobs: dict[int, Job] = {}
        self._forced: dict[int, deque[int]] = {}
        counters = torch.zeros(6, size, dtype=torch.long, device=device)
        self.last, self.active, self._taken, self._count, self._limit, self._budget = counters
        self._temperature, self._top_p = torch.ones(2, size, device=device)
        self._uniforms = torch.zeros(size, limit, device=device)
        self._out = torch.zeros(size, limit, dtype=torch.long, device=device)
        self._index = torch.arange(size, device=device)

    def free(self) -> list[int]:
        """Rows without a job."""
        return [row for row in range(self.size) if row not in self.jobs] if len(self.jobs) < self.size else []

    def place(self, rows: Tensor, jobs: Sequence[Job], budgets: Sequence[int]) -> None:
        """Put `jobs` into `rows`, each with its own stream of uniform numbers."""
        self.jobs.update(zip(rows.tolist(), jobs, strict=True))
        device = rows.device
        self.last[rows] = torch.tensor([job.ids[-1] for job in jobs], device=device)
        self.active[rows], self._count[rows] = 1, 0
        self._limit[rows] = torch.tensor([job.limit for job in jobs], device=device)
        self._budget[rows] = torch.tensor(budgets, device=device)
        self._temperature[rows] = torch.tensor([job.sampling.temperature for job in jobs], device=device)
        self._top_p[rows] = torch.tensor([job.sampling.top_p for job in jobs], device=device)
        for row, job in zip(rows.tolist(), jobs, strict=True):
            if job.sampling.temperature > 0:
                self._uniforms[row, : job.limit] = torch.from_numpy(uniforms(job.sampling.seed, job.limit)).to(device)
        self._note_kinds()

    def _note_kinds(self) -> None:
        kinds = [job.sampling for job in self.jobs.values()]
        self._greedy = any(kind.temperature == 0 for kind in kinds)
        self._sampled = any(kind.temperature > 0 for kind in kinds)
        self._nucleus = any(kind.temperature > 0 and kind.top_p < 1 for kind in kinds)
        self._budgeted = any(kind.reasoning_tokens is not None for kind in kinds)

    def at_budget(self) -> list[int]:
        """Rows whose reasoning budget is used up by the tokens taken so far."""
        return torch.nonzero((self._count == self._budget) & (self.active > 0)).flatten().tolist() if self._budgeted else []

    def force(self, row: int, ids: Sequence[int]) -> None:
        """The next tokens of `row` are `ids`, whatever its logits."""
        self._forced[row] = deque(ids)

    def take(self, logits: Tensor) -> None:
        """Draw a token for every row from `logits` (R, vocabulary) and write it down."""
        at = self._count.clamp(max=self._out.shape[1] - 1)
        temperature = self._temperature if self._sampled else None
        uniform = self._uniforms[self._index, at]
        self._taken = draw(logits, temperature, self._top_p if self._nucleus else None, uniform, greedy=self._greedy)
        for row in list(self._forced):
            self._taken[row] = self._forced[row].popleft()
            if not self._forced[row]:
                del self._forced[row]
        self._out[self._index, at] = self._taken
        self._count += self.active
        self.last = self._taken.clamp(min=0)

    def ended(self, end_ids: Sequence[int]) -> list[int]:
        """Rows that have just taken an end token, their last allowed token or a broken one."""
        over = (self._count >= self._limit) | (self._taken == BROKEN)
        for end_id in end_ids:
            over |= self._taken == end_id
        return torch.nonzero(over & (self.active > 0)).flatten().tolist()

    def written(self, row: int) -> list[int]:
        """The tokens of `row` so far."""
        return self._out[row, : int(self._count[row])].tolist()

    def remove(self, row: int) -> tuple[Job, list[int]]:
        """Take out `row`: its job and its tokens."""
        self.active[row] = 0
        self._forced.pop(row, None)
        return self.jobs.pop(row), self.written(row)

    def compact(self) -> Tensor:
        """Drop the free rows; returns the indices of those kept."""
        kept = torch.nonzero(self.active).flatten()
        new = {old: row for row, old in enumerate(kept.tolist())}
        self.jobs = {new[row]: job for row, job in self.jobs.items()}
        self._forced = {new[row]: ids for row, ids in self._forced.items()}
        self.last, self.active, self._taken = self.last[kept], self.active[kept], self._taken[kept]
        self._count, self._limit, self._budget = self._count[kept], self._limit[kept], self._budget[kept]
        self._temperature, self._top_p = self._temperature[kept], self._top_p[kept]
        self._uniforms, self._out = self._uniforms[kept], self._out[kept]
        self.size = len(new)
        self._index = self._index[: self.size]
        self._note_kinds()
        return kept


def uniforms(seed: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of the Philox stream keyed by `seed`."""
    return np.random.Generator(np.random.Philox(key=seed % 2**64)).random(count, dtype=np.float32)


def draw(logits: Tensor, temperature: Tensor | None, top_p: Tensor | None, uniform: Tensor, *, greedy: bool) -> Tensor:
    """One token per row of `logits` (R, V): by inverse CDF at `uniform` where `temperature` > 0, else the largest.

    `temperature` None: all greedy. `greedy`: whether any row is. `top_p` None: no row has one below 1. Rows whose
    logits are not numbers give `BROKEN`."""
    logits = logits.float()
    if temperature is None:
        best, tokens = logits.max(-1)
        return tokens.masked_fill(~best.isfinite(), BROKEN)
    if not bool((temperature == 1).all()):
        logits = logits / temperature.where(temperature > 0, 1.0)[:, None]  # greedy rows keep their order
    chances = torch.softmax(logits, -1)
    cumulative = chances.cumsum(-1)
    tokens = _invert(cumulative, uniform)
    if top_p is not None:
        narrow = torch.nonzero(top_p < 1).flatten()
        tokens[narrow] = _nucleus(chances[narrow], top_p[narrow], uniform[narrow])
    if greedy:
        tokens = tokens.where(temperature > 0, logits.argmax(-1))
    return tokens.masked_fill(~cumulative[:, -1].isfinite(), BROKEN)


def _invert(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """First index whose cumulative weight exceeds `uniform` times the total; never one of weight zero."""
    total = cumulative[:, -1:]
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).flatten().clamp(max=cumulative.shape[1] - 1)


def _nucleus(chances: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Inverse CDF over the fewest most likely tokens that hold `top_p` of the mass. Nearly always a few candidates
    hold it; only rows where they do not are sorted whole (measured: 6 ms against 90 ms for 256 rows of 6000)."""
    ordered, ids = chances.topk(min(CANDIDATES, chances.shape[1]), -1)
    tokens = _narrowed(ordered, ids, top_p, uniform)
    flat = torch.nonzero(ordered.sum(-1) < top_p).flatten()
    if len(flat):
        ordered, ids = chances[flat].sort(dim=-1, descending=True, stable=True)
        tokens[flat] = _narrowed(ordered, ids, top_p[flat], uniform[flat])
    return tokens


def _narrowed(ordered: Tensor, ids: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= top_p[:, None], 0.0)
    return ids.gather(1, _invert(kept.cumsum(-1), uniform)[:, None]).flatten()


def checkpoint(path_or_id: str | Path) -> Path:
    """The checkpoint's directory; a Hub id is fetched first (weights as safetensors, configuration, tokenizer).
    Raises `DataError`."""
    path = Path(path_or_id)
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(path_or_id)) and not str(path_or_id).startswith("."):
        path = _fetched(str(path_or_id))
    if not path.is_dir():
        raise DataError(
            "no such model directory", where=path_or_id, hint="give a directory with config.json and *.safetensors, or a Hub id"
        )
    for pattern in ("config.json", "*.safetensors", "tokenizer.json"):
        if not any(path.glob(pattern)):
            raise DataError(
                f"no {pattern} in the model directory", where=path, hint="only safetensors checkpoints with a fast tokenizer are read"
            )
    return path


def _fetched(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=["*.safetensors", "*.json", "*.jinja"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"neither a directory nor a model that can be fetched: {_first_line(error)}",
            where=repository,
            hint="check the path or the network",
        ) from None


def files_identity(path: Path, *, extra: str = "") -> str:
    """Hash over the checkpoint's files that determine the output, and `extra` (the number type, the template's arguments)."""
    digest = hashlib.blake2b(extra.encode(), digest_size=8)
    files = sorted({file for pattern in IDENTITY_FILES for file in path.glob(pattern) if file.is_file()})
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "blake2b").digest())
    return digest.hexdigest()


def weights_identity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, extra: str = "") -> str:
    """Hash over the weights in memory, the configuration, the vocabulary, the chat template and `extra` (its arguments)."""
    digest = hashlib.blake2b(model.config.to_json_string().encode(), digest_size=8)
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(repr(sorted(tokenizer.get_vocab().items())).encode() + str(tokenizer.chat_template).encode() + extra.encode())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
