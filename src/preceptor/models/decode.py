# pyright: basic, reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportAttributeAccessIssue=false, reportArgumentType=false
# (a cache layer's tensors are typed as optional and its kinds as one union; here they are allocated, and told apart by index)
"""Three ways to advance a batch of token sequences by one token, over the forward of any Hugging Face causal LM.

In: token ids per row.  Out: next-token logits per row. Which token is taken from them is decided in `local`.

`SharedPrefix` and `Expanded` compute a common prefix once. Every row has its own place in one preallocated cache, where slot `i` holds the row's
`i`-th token, so there is no padding anywhere, rows of different lengths and with different prefixes decode together, and a finished row's place is
given to the next sequence at once.

* `SharedPrefix` keeps a prefix once, however many rows follow it, and its slots begin after the prefix (`attention`: how the two are put together).
  In short-convolution layers each row starts from the prefix's state; a prompt is fed padded on the right, where pads cannot reach real
  tokens, and the state is read at each row's true end. For full attention and short convolution.
* `Expanded` copies the prefix into every row's slots and leaves attention to the model, sinks and caps included; windows are a mask over
  slots that never forget. For full and sliding-window attention.
* `Plain` feeds prompts of equal length through the model's own cache and attention. It assumes nothing, and serves every architecture for which
  neither of the others is shown equal, such as those with a recurrent state, which cannot be read at a chosen token.

`fastest` compares them on the very weights at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

from preceptor.models.attention import ATTENTION, Prefix, Sharing, View

Ids = Sequence[int]
SCORES_LIMIT = {"cpu": 2**22, "cuda": 2**26}
"""Attention scores held at once while prompts are fed. A CPU is fastest when they stay near its cache (measured: 155 ms
at 2**22, 192 ms at 2**26, 250 ms at 2**18); a GPU wants few large calls."""
FIRST_SLOTS = 128
"""Slots allocated at first; doubled when a row outgrows them."""
TRIAL_WINDOW = 5
"""Sliding windows are this narrow while a decoder is tried, so that a short text is longer than they are."""


@contextmanager
def borrowed(model: PreTrainedModel, attention: str | None) -> Iterator[None]:
    """Evaluation mode, no gradients and, if given, another attention function; all put back on leaving. Never held
    across a `yield` to a caller, who may be training the same model."""
    training, before = model.training, model.config._attn_implementation
    try:
        if training:
            model.eval()
        if attention is not None:
            model.config._attn_implementation = attention
        with torch.inference_mode():
            yield
    finally:
        model.config._attn_implementation = before
        if training:
            model.train()


class _Slots(CacheLayerMixin):
    """Keys and values (R, K, capacity, D) of one attention layer; `cursor` (shared by the layers) says where to write."""

    def __init__(self, keys: Tensor, values: Tensor, cursor: _Cursor):
        super().__init__()
        self.keys, self.values, self.cursor, self.is_initialized = keys, values, cursor, True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        for buffer, new in ((self.keys, key_states), (self.values, value_states)):
            buffer.view(-1, buffer.shape[-1]).index_copy_(0, self.cursor.flat, new.reshape(-1, new.shape[-1]))
        return self.keys[:, :, : self.cursor.used], self.values[:, :, : self.cursor.used]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise NotImplementedError("allocated by the decoder")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cursor.used, 0

    def get_seq_length(self) -> int:
        return self.cursor.used

    def get_max_length(self) -> int:
        return self.keys.shape[2]


class _Cursor:
    """Where the rows write: `flat` indexes (row, head, slot) flattened; `used` slots have been written by any row."""

    def __init__(self):
        self.flat, self.used = torch.empty(0, dtype=torch.long), 0

    def aim(self, slots: Tensor, heads: int, capacity: int) -> None:
        """Write the next tokens into `slots` (rows, tokens) of every head."""
        rows = len(slots)
        base = torch.arange(rows * heads, device=slots.device).view(rows, heads, 1) * capacity
        self.flat = (base + slots[:, None]).view(-1)


class Rowwise:
    """Up to `rows` sequences, each with its own place in one preallocated cache. `longest`: most tokens a row will hold, so that no
    more is allocated; `prefixes`: those that rows follow at the moment."""

    attention: str | None

    def __init__(self, model: PreTrainedModel, rows: int, longest: int = 2**30):
        self.model, self.rows, self.longest, self.device = model, rows, longest, model.device
        self._models_own = model.config._attn_implementation
        self.prefixes: dict[tuple[int, ...], Prefix] = {}
        self.owners: list[tuple[int, ...]] = [()] * rows
        self.position = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.cursor = _Cursor()
        nothing = self.prefixes[()] = self._computed(())
        self.cache = Cache(layers=[self._allocated(index, nothing) for index in sorted({**nothing.cached, **nothing.states})])
        self._arrange()

    def _seed(self) -> DynamicCache:
        """The cache that a prefix is computed in."""
        return DynamicCache(config=self.model.config)

    def _computed(self, prefix: tuple[int, ...]) -> Prefix:
        """One forward over `prefix`. Without one, over any token, which tells the shapes."""
        seed, found = self._seed(), Prefix(len(prefix))
        with borrowed(self.model, self._models_own):
            ids = torch.tensor([list(prefix) or [0]], device=self.device)
            self.model(input_ids=ids, past_key_values=seed, use_cache=True, logits_to_keep=1)
        for index, layer in enumerate(seed.layers):
            if isinstance(layer, LinearAttentionLayer):
                if layer.is_recurrent_states_initialized[0]:
                    raise ValueError("a recurrent state")
                found.states[index] = layer.conv_states[0][0] if prefix else torch.zeros_like(layer.conv_states[0][0])
            else:
                found.cached[index] = tuple(kept[0, :, : len(prefix)].contiguous() for kept in (layer.keys, layer.values))
        return found

    def _allocated(self, index: int, nothing: Prefix) -> CacheLayerMixin | LinearAttentionLayer:
        keys, values = nothing.cached[index]
        shape = (self.rows, keys.shape[0], min(FIRST_SLOTS, self.longest))
        return _Slots(keys.new_zeros((*shape, keys.shape[2])), values.new_zeros((*shape, values.shape[2])), self.cursor)

    def admit(self, rows: Tensor, prompts: Sequence[Ids], prefixes: Sequence[tuple[int, ...]]) -> None:
        """Feed all but the last token of each prompt (what follows its prefix, at least one token) into `rows`.
        The last token is the first that `step` is given."""
        for row, prefix in zip(rows.tolist(), prefixes, strict=True):
            self.owners[row] = prefix
        self.prefixes = {prefix: self.prefixes.get(prefix) or self._computed(prefix) for prefix in dict.fromkeys(self.owners)}
        self._arrange()
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(prefixes[i]))
        heads = self.model.config.num_attention_heads
        while order:  # longest first: the score matrices are bounded by the longest prompt of a batch
            longest = len(prompts[order[-1]])
            reach = longest + max(len(prefixes[i]) for i in order)
            count = max(1, SCORES_LIMIT.get(self.device.type, 2**24) // (heads * longest * reach))
            batch, order = sorted(order[-count:], key=lambda i: prefixes[i]), order[:-count]
            self._feed(rows[torch.tensor(batch, device=rows.device)], [prompts[i] for i in batch], [prefixes[i] for i in batch])

    def _feed(self, rows: Tensor, prompts: Sequence[Ids], prefixes: Sequence[tuple[int, ...]]) -> None:
        raise NotImplementedError

    def _padded(self, prompts: Sequence[Ids], width: int) -> Tensor:
        """All but the last token of each prompt, filled up on the right."""
        return torch.tensor([list(prompt[:-1]) + [0] * (width + 1 - len(prompt)) for prompt in prompts], device=self.device)

    def step(self, tokens: Tensor, active: Tensor) -> Tensor:
        """Feed one token per row and return the logits (R, vocabulary) after it. Rows that are not `active` stay put."""
        self.cursor.used = int(self.position.max()) + 1
        self._reserve(self.cursor.used)
        layer = next(layer for layer in self.cache.layers if isinstance(layer, _Slots))
        self.cursor.aim(self.position[:, None], layer.keys.shape[1], layer.keys.shape[2])
        logits = self._next(tokens)
        self.position += active
        return logits

    def _next(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.position = self.position[rows]
        self.owners = [self.owners[row] for row in rows.tolist()]
        self.prefixes = {prefix: self.prefixes[prefix] for prefix in dict.fromkeys(self.owners)}
        self._arrange()
        for layer in self.cache.layers:
            if isinstance(layer, _Slots):
                layer.keys, layer.values = layer.keys[rows], layer.values[rows]
            else:
                layer.conv_states[0] = layer.conv_states[0][rows]

    def _arrange(self) -> None:
        """Take note of which row follows which prefix."""

    def _reserve(self, slots: int) -> None:
        """Double the capacity until `slots` fit."""
        for layer in (layer for layer in self.cache.layers if isinstance(layer, _Slots)):
            capacity = layer.keys.shape[2]
            if capacity < slots:
                more = max(slots, min(self.longest, 2 * capacity)) - capacity
                layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, 0, more))
                layer.values = torch.nn.functional.pad(layer.values, (0, 0, 0, more))


class SharedPrefix(Rowwise):
    """Rows hold what follows their prefix; the prefix itself is kept once. See the module's head."""

    attention = ATTENTION

    def _allocated(self, index: int, nothing: Prefix) -> CacheLayerMixin | LinearAttentionLayer:
        if index in nothing.states:
            return self._convolution(nothing.states[index].repeat(self.rows, 1, 1))
        return super()._allocated(index, nothing)

    def _convolution(self, state: Tensor, *, record: bool = False) -> LinearAttentionLayer:
        """A convolution layer's cache that goes on from `state` (R, width, kernel)."""
        layer = LinearAttentionLayer()
        layer.lazy_initialization(conv_states=state)
        layer.conv_states[0].copy_(state)
        layer.has_previous_state[0], layer.record_past = True, record
        return layer

    def _arrange(self) -> None:
        self.sharing = Sharing(self.owners, self.prefixes, self.device)
        self.offset = torch.tensor([len(prefix) for prefix in self.owners], device=self.device)

    def _feed(self, rows: Tensor, prompts: Sequence[Ids], prefixes: Sequence[tuple[int, ...]]) -> None:
        lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        self.position[rows] = lengths
        width, layers = int(lengths.max()), self.prefixes[prefixes[0]].states
        states = {index: torch.stack([self.prefixes[prefix].states[index] for prefix in prefixes]) for index in layers}
        if width == 0:
            for index, state in states.items():
                self.cache.layers[index].conv_states[0][rows] = state
            return
        cache = DynamicCache(config=self.model.config)
        for index, state in states.items():
            cache.layers[index] = self._convolution(state, record=True)
        causal = torch.full((width, width), -torch.inf, device=self.device).triu_(1)
        positions = self.offset[rows][:, None] + torch.arange(width, device=self.device)
        self._forward(self._padded(prompts, width), positions, cache, View(Sharing(prefixes, self.prefixes, self.device), causal))
        self._reserve(width)
        for index, layer in enumerate(cache.layers):
            target = self.cache.layers[index]
            if index in states:  # a row that fed n tokens is left with entries n to n + kernel of state and inputs
                kernel = states[index].shape[-1]
                ends = (lengths[:, None] + torch.arange(kernel, device=self.device))[:, None, :]
                recorded = layer.conv_states[0]
                target.conv_states[0][rows] = recorded.gather(2, ends.expand(-1, recorded.shape[1], -1))
            else:
                target.keys[rows, :, :width], target.values[rows, :, :width] = layer.keys, layer.values

    def _next(self, tokens: Tensor) -> Tensor:
        slots = torch.arange(self.cursor.used, device=self.device)
        bias = torch.where(slots <= self.position[:, None], 0.0, -torch.inf)[:, None, None, None]
        return self._forward(tokens[:, None], (self.offset + self.position)[:, None], self.cache, View(self.sharing, bias))

    def _forward(self, ids: Tensor, positions: Tensor, cache: Cache, view: View) -> Tensor:
        """The model's own forward; logits after the last token (R, vocabulary)."""
        out = self.model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1, view=view)
        return out.logits[:, -1]


class Expanded(Rowwise):
    """Every row holds its prefix and what follows. See the module's head."""

    attention = None

    def _seed(self) -> DynamicCache:
        return DynamicCache()  # whatever the configuration says, nothing is forgotten

    def admit(self, rows: Tensor, prompts: Sequence[Ids], prefixes: Sequence[tuple[int, ...]]) -> None:
        """As `Rowwise.admit`, prefix by prefix."""
        for row, prefix in zip(rows.tolist(), prefixes, strict=True):
            self.owners[row] = prefix
        for prefix in dict.fromkeys(prefixes):
            mine = [i for i, other in enumerate(prefixes) if other == prefix]
            super().admit(rows[torch.tensor(mine, device=rows.device)], [prompts[i] for i in mine], [prefix] * len(mine))

    def _feed(self, rows: Tensor, prompts: Sequence[Ids], prefixes: Sequence[tuple[int, ...]]) -> None:
        prefix = self.prefixes[prefixes[0]]
        lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        self.position[rows] = prefix.length + lengths
        width = int(lengths.max())
        end, cursor = prefix.length + width, _Cursor()
        self._reserve(end)
        layers = []
        for index, target in enumerate(self.cache.layers):
            keys, values = prefix.cached[index]
            target.keys[rows, :, : prefix.length], target.values[rows, :, : prefix.length] = keys, values
            layers.append(_Slots(target.keys[rows, :, :end].contiguous(), target.values[rows, :, :end].contiguous(), cursor))
        if width == 0:
            return
        places = torch.arange(prefix.length, end, device=self.device).expand(len(prompts), -1)
        cursor.used = end
        cursor.aim(places, layers[0].keys.shape[1], end)
        self._forward(self._padded(prompts, width), places, Cache(layers=layers), end)
        for target, layer in zip(self.cache.layers, layers, strict=True):
            target.keys[rows, :, prefix.length : end] = layer.keys[:, :, prefix.length :]
            target.values[rows, :, prefix.length : end] = layer.values[:, :, prefix.length :]

    def _next(self, tokens: Tensor) -> Tensor:
        return self._forward(tokens[:, None], self.position[:, None], self.cache, self.cursor.used)

    def _forward(self, ids: Tensor, positions: Tensor, cache: Cache, used: int) -> Tensor:
        """The model's own forward; logits after the last token (R, vocabulary)."""
        masks = {kind: self._mask(positions, used, window) for kind, window in windows(self.model).items()}
        mask = masks if len(masks) > 1 else next(iter(masks.values()))
        out = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[:, -1]

    def _mask(self, positions: Tensor, used: int, window: int | None) -> Tensor:
        """0 where a query at `positions` (R, Q) may look, the lowest number elsewhere: (R, 1, Q, used)."""
        slots, here = torch.arange(used, device=self.device), positions[:, None, :, None]
        seen = slots <= here if window is None else (slots <= here) & (slots > here - window)
        return torch.zeros(seen.shape, dtype=self.model.dtype, device=self.device).masked_fill_(~seen, torch.finfo(self.model.dtype).min)


def windows(model: PreTrainedModel) -> dict[str, int | None]:
    """How far back each kind of attention layer of `model` looks; None: to the beginning."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"]
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}


class Plain:
    """Decodes sequences of one length through the model's own cache; new ones only when all are done."""

    attention = None

    def __init__(self, model: PreTrainedModel):
        self.model = model

    def admit(self, rows: Tensor, prompts: Sequence[Ids], prefixes: Sequence[tuple[int, ...]]) -> None:
        """Feed each prefix and all but the last token of each prompt. All have the same length together."""
        self.cache = DynamicCache(config=self.model.config)
        whole = [[*prefix, *prompt[:-1]] for prefix, prompt in zip(prefixes, prompts, strict=True)]
        if whole[0]:
            ids = torch.tensor(whole, device=self.model.device)
            self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def step(self, tokens: Tensor, active: Tensor) -> Tensor:
        """Feed one token per row and return the logits (R, vocabulary) after it."""
        return self.model(input_ids=tokens[:, None], past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.cache.reorder_cache(rows)


def fastest(model: PreTrainedModel) -> tuple[type[Rowwise] | None, str]:
    """The fastest decoder that is shown equal to the plain forward of this model, and why no faster one is; None: `Plain`."""
    reasons = []
    for decoder, reason in ((SharedPrefix, shared_prefix_reason), (Expanded, expanded_reason)):
        found = reason(model)
        if not found:
            return decoder, "; ".join(reasons)
        reasons.append(f"{decoder.__name__}: {found}")
    return None, "; ".join(reasons)


def shared_prefix_reason(model: PreTrainedModel) -> str:
    """Why `SharedPrefix` must not be used for this model; empty if it is shown equal to the plain forward.

    Shown means: on these weights, three rows of different lengths after two prefixes, decoded for two steps, have
    the logits of the model run over each whole sequence, to the rounding of its number type."""
    return _layers_reason(model, {DynamicLayer, LinearAttentionLayer}) or _trial_reason(SharedPrefix, model)


def expanded_reason(model: PreTrainedModel) -> str:
    """The same for `Expanded`, with windows narrowed to `TRIAL_WINDOW` on both sides of the comparison."""
    unknown = set(windows(model)) - {"full_attention", "sliding_attention"}
    reason = _layers_reason(model, {DynamicLayer, DynamicSlidingWindowLayer}) or ", ".join(sorted(unknown))
    if reason:
        return reason
    config = model.config.get_text_config()
    before = getattr(config, "sliding_window", None)
    try:
        if before is not None:
            config.sliding_window = TRIAL_WINDOW
        return _trial_reason(Expanded, model)
    finally:
        if before is not None:
            config.sliding_window = before


def _layers_reason(model: PreTrainedModel, known: set[type]) -> str:
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if kinds <= known and kinds != {LinearAttentionLayer}:
        return ""
    return f"cache layers {', '.join(sorted(kind.__name__ for kind in kinds))}"


def _trial_reason(kind: type[Rowwise], model: PreTrainedModel) -> str:
    try:
        error = _largest_error(kind, model)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as failure:  # a trial that cannot run shows nothing
        return f"{type(failure).__name__}: {failure}"
    limit = 1e-3 if next(model.parameters()).dtype == torch.float32 else 5e-2
    return "" if error < limit else f"logits differ by {error:.1e} of their spread"


def _largest_error(kind: type[Rowwise], model: PreTrainedModel) -> float:
    ids = [(7 * i + 3) % model.config.vocab_size for i in range(16)]
    prefixes, suffixes = [tuple(ids[:7]), tuple(ids[3:6]), tuple(ids[:7])], [ids[7:9], ids[8:14], ids[9:13]]
    decoder = kind(model, rows=3)
    rows, active, worst = torch.arange(3, device=model.device), torch.ones(3, dtype=torch.long, device=model.device), 0.0
    with borrowed(model, decoder.attention):
        decoder.admit(rows, [suffix[:-1] for suffix in suffixes], prefixes)
        found = [decoder.step(torch.tensor([suffix[at] for suffix in suffixes], device=model.device), active) for at in (-2, -1)]
    with borrowed(model, None):
        for row, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
            wanted = model(input_ids=torch.tensor([[*prefix, *suffix]], device=model.device), use_cache=False).logits[0, -2:].float()
            got = torch.stack([logits[row] for logits in found]).float()
            worst = max(worst, float((got - wanted).abs().max() / wanted.std().clamp(min=1e-6)))
    return worst
