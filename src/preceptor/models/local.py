# pyright: basic
"""A causal language model on this machine, behind the `Model` protocol.

In: requests.  Out: replies, split into reasoning and answer at this boundary, as they finish.

The one idea: requests stand in line by their leading system message (here: the routed view of a specification), which is
computed once for all that share it, and a finished row's place goes to the next request in the line, so that a batch holds
several system messages where one has few requests. How a batch is advanced is in `decode`; here is which requests meet in a
batch, which token is taken, when a row ends and what is made of it.

Every token of a request is drawn by inverse CDF with one uniform number from a Philox stream keyed by the request's
own seed, so a reply depends on the request and not on the company it was computed in (but for the rounding of
floating point, which batch shapes can change). At the reasoning budget the closing tag is forced and the answer goes
on. Weights are read from safetensors only and code from a checkpoint is never run.

Not here: beam search, several devices, quantisation, adapters (merge them first).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from preceptor.chat import Renderer
from preceptor.errors import DataError
from preceptor.models import Reply, Request
from preceptor.models.checkpoint import checkpoint
from preceptor.models.decode import Plain, Rowwise, SharedPrefix, borrowed, fastest
from preceptor.models.drawing import BROKEN, draw, uniforms
from preceptor.models.memory import (
    MEMORY_SHARE,
    Cost,
    device_of,
    free_bytes,
    is_out_of_memory,
    number_type_of,
    refuse_too_large,
    release,
    running_out,
    too_large,
)
from preceptor.records import Sampling
from preceptor.template import DEFAULTS, TemplateArguments

LOG = logging.getLogger(__name__)
STEPS_PER_TURN = 16
"""Decoding steps between two hand-overs of finished replies."""
SMALLEST_GROUP = 4
"""A system message that fewer requests share is not computed apart."""
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
    thought: tuple[int, ...] = ()
    """The last of `ids`, where a reasoning block was written for the model."""


class LocalModel:
    """Implements `Model.stream` with a Hugging Face causal LM and its fast tokenizer (which must have a chat template).

    `batch_size`: most rows decoded together; fewer where memory is short. `memory_share`: the part of the device's free
    memory that may be used for them. `prefix_cache`: compute a shared system message once (False: for every request, for
    comparison). `identity`: hash of what determines the output; computed from the weights in memory if not given, once,
    on first use. `arguments`: what the chat template is told (thinking on or off, ...).
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
        memory_share: float = MEMORY_SHARE,
        arguments: TemplateArguments = DEFAULTS,
    ):
        self.model, self.renderer, self.name = model, Renderer(tokenizer, arguments), name
        self.batch_size, self.prefix_cache, self.memory_share = batch_size, prefix_cache, memory_share
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
        memory_share: float = MEMORY_SHARE,
        arguments: TemplateArguments = DEFAULTS,
    ) -> LocalModel:
        """Load a checkpoint directory, or a Hub id (`owner/name`) when no such path exists.

        `device`: `auto` is the first GPU, else the CPU. `dtype`: a torch name (`float32`, `bfloat16`); None is the
        checkpoint's own. Raises `UsageError` for a device or number type that is not there, and `DataError` (one line) if
        something is missing, damaged, not safetensors, too large for the device, or would need code from the checkpoint.
        """
        place, number_type = device_of(device), number_type_of(dtype)
        path = checkpoint(path_or_id)
        refuse_too_large(path, place, number_type)
        safe = {"local_files_only": True, "trust_remote_code": False}
        transformers_logging.disable_progress_bar()  # the caller shows progress
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, **safe)
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype or "auto", use_safetensors=True, **safe).eval()
            model.to(place)  # pyright: ignore[reportArgumentType]  (a decorator hides the signature)
        except (OSError, ValueError, KeyError, RuntimeError, MemoryError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise too_large(path, place, number_type) from None
            raise DataError(
                f"cannot load the model: {_first_line(error)}", where=path, hint="expected config.json, *.safetensors and tokenizer.json"
            ) from None
        identity = files_identity(path, extra=f"{model.dtype}{arguments.identity}")
        return cls(
            model, tokenizer, name=name or path.name, identity=identity,
            batch_size=batch_size, prefix_cache=prefix_cache, memory_share=memory_share, arguments=arguments,
        )  # fmt: skip

    @property
    def identity(self) -> str:
        """Hash (16 hex digits) of weights, configuration, tokenizer and template."""
        if self._identity is None:
            self._identity = weights_identity(self.model, self.renderer.tokenizer, extra=self.renderer.arguments.identity)
        return self._identity

    @cached_property
    def _fastest(self) -> tuple[type[Rowwise] | None, str]:
        return fastest(self.model)

    @cached_property
    def _cost(self) -> Cost:
        with borrowed(self.model, None):
            return Cost.of(self.model)

    @property
    def way(self) -> str:
        """`SharedPrefix`, `Expanded` or `Plain`: how batches of this model are advanced (see `decode`)."""
        return self._fastest[0].__name__ if self._fastest[0] else Plain.__name__

    @property
    def plain_reason(self) -> str:
        """Why this model takes the plain path (equal lengths, no shared prefix); empty if it does not."""
        return self._fastest[1] if self._fastest[0] is None else ""

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield `(index, reply)` once per request as they finish. A request that cannot be rendered or does not fit
        the model's context is a reply with status `failed`."""
        jobs: list[Job] = []
        for index, request in enumerate(requests):
            job = self._job(index, request)
            if isinstance(job, Job):
                jobs.append(job)
            else:
                yield index, job
        if self._fastest[0]:
            for line in lines(jobs, self.batch_size):
                yield from self._run(line)
            return
        lengths: dict[int, list[Job]] = defaultdict(list)
        for job in jobs:
            lengths[len(job.ids)].append(job)
        for equal in lengths.values():
            yield from self._run(deque(equal))

    def _job(self, index: int, request: Request) -> Job | Reply:
        if any(message.images for message in request.messages):
            return _unsupported("the prompt has images, which models on this machine do not take; use one behind a server")
        try:
            ids, prefix = self.renderer.prompt_and_prefix(request.messages)
            thought = () if request.thought is None else tuple(self.renderer.thought_ids(ids, request.thought))
        except DataError as error:
            return _unsupported(error.render())
        ids = [*ids, *thought]
        context = self.model.config.max_position_embeddings
        limit = min(request.sampling.max_tokens, context - len(ids))
        if limit < 1:
            reason = f"a prompt of {len(ids)} tokens in a context of {context}"
            return Reply("", "", "failed", reason, prompt_tokens=len(ids), too_long=True)
        return Job(index, ids, tuple(ids[:prefix]) if self.prefix_cache else (), request.sampling, limit, thought)

    def _run(self, queue: deque[Job]) -> Iterator[tuple[int, Reply]]:
        """All jobs in line, as many at a time as memory bears. Where it runs out all the same, what was under way begins
        again among half as many; a job that fails alone is a failed reply."""
        while queue:
            size = min(self.batch_size, len(queue), self._affordable(queue))
            line = deque(queue.popleft() for _ in range(len(queue) if self._fastest[0] else size))
            rows, decoder, short = Rows(size, max(job.limit for job in line), self.model.device), None, []
            with running_out(short):
                decoder = self._decoder(size, line)
            while decoder and not short and (line or rows.jobs):
                finished: list[tuple[int, Reply]] = []
                with running_out(short), borrowed(self.model, decoder.attention):
                    for _ in range(STEPS_PER_TURN):
                        finished += self._step(decoder, rows, line)
                yield from finished
            queue.extendleft(reversed([*rows.jobs.values(), *line]))
            if short:
                decoder = None
                release(self.model.device)
                yield from self._fewer(rows.size, queue, short[0])

    def _decoder(self, size: int, line: Sequence[Job]) -> Plain | Rowwise:
        kind = self._fastest[0]
        return kind(self.model, size, max(self._held(job) for job in line)) if kind else Plain(self.model)

    def _held(self, job: Job) -> int:
        """Tokens that the row of `job` may come to hold."""
        return len(job.ids) + job.limit - (len(job.prefix) if self._fastest[0] is SharedPrefix else 0)

    def _affordable(self, jobs: Sequence[Job]) -> int:
        """How many rows fit into our share of the memory that is free."""
        prefixes = sum(map(len, {job.prefix for job in jobs})) / len(jobs) if self._fastest[0] is SharedPrefix else 0.0
        seen = max(len(job.ids) + job.limit for job in jobs)
        return self._cost.rows(self.memory_share * free_bytes(self.model.device), max(map(self._held, jobs)), seen, prefixes)

    def _fewer(self, rows: int, queue: deque[Job], reason: str) -> Iterator[tuple[int, Reply]]:
        """After memory ran out with `rows` rows: half as many from now on, or the end of a job that was alone."""
        if rows > 1:
            self.batch_size = rows // 2
            LOG.warning("out of memory with %d rows decoded together, going on with %d: %s", rows, self.batch_size, reason)
        else:
            job = queue.popleft()
            yield job.index, Reply("", "", "failed", f"out of memory: {reason}", len(job.ids))

    def _step(self, decoder: Plain | Rowwise, rows: Rows, line: deque[Job]) -> list[tuple[int, Reply]]:
        """Fill free rows, draw one token for every row, and take out those that have ended."""
        self._fill(decoder, rows, line)
        if not rows.jobs:
            return []
        logits = decoder.step(rows.last, rows.active)
        for row in rows.at_budget():
            self._close_reasoning(rows, row)
        rows.take(logits)
        return [self._reply(rows, row) for row in rows.ended(self.end_ids)]

    def _fill(self, decoder: Plain | Rowwise, rows: Rows, line: deque[Job]) -> None:
        """Admit jobs once an eighth of the rows is free (feeding a few at a time wastes the forward); when none are
        left, shrink the batch once a quarter is free (shrinking copies the cache)."""
        free = rows.free()
        if line and len(free) * 8 >= rows.size:
            jobs = [line.popleft() for _ in range(min(len(free), len(line)))]
            chosen = torch.tensor(free[: len(jobs)], device=rows.last.device)
            rows.place(chosen, jobs, [-1 if job.thought else self._budget(job.sampling) for job in jobs])
            decoder.admit(chosen, [job.ids[len(job.prefix) :] for job in jobs], [job.prefix for job in jobs])
        elif not line and rows.jobs and len(free) * 4 >= rows.size:
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
        found = self.renderer.split_ids([*job.thought, *ids], finished)  # a token that stops the model and does not end a turn is malformed
        return job.index, Reply(found.reasoning, found.answer, found.status, found.detail, len(job.ids), len(ids))


def lines(jobs: Sequence[Job], rows: int) -> list[deque[Job]]:
    """What is decoded together: jobs of one prefix side by side, short ones first, and as many prefixes to a line as fill `rows`. A prefix that
    too few jobs share is a part of each.

    Lines begin afresh, so that rows are of about equal length while they decode: with all jobs in one line, 12 prefixes of 83 jobs
    were 1.1 times slower than one after the other, as every row's cache was read to the length of the longest."""
    sharers = Counter(job.prefix for job in jobs)
    groups: dict[tuple[int, ...], list[Job]] = defaultdict(list)
    for job in jobs:
        shared = job if sharers[job.prefix] >= SMALLEST_GROUP else replace(job, prefix=())
        groups[shared.prefix].append(shared)
    found: list[deque[Job]] = []
    for group in groups.values():
        group.sort(key=lambda job: len(job.ids))
        if found and len(found[-1]) + len(group) <= rows:
            found[-1].extend(group)
        else:
            found.append(deque(group))
    return found


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


def _unsupported(reason: str) -> Reply:
    return Reply("", "", "failed", reason, unsupported=True)
