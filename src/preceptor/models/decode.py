# pyright: basic, reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportAttributeAccessIssue=false, reportArgumentType=false
# (a cache layer's tensors are typed as optional and its kinds as one union; here they are allocated, and told apart by index)
"""Two ways to advance a batch of token sequences by one token, over the forward of any Hugging Face causal LM.

In: token ids per row.  Out: next-token logits per row. Which token is taken from them is decided in `local`.

`SharedPrefix` computes a common prefix once and keeps it once. Every row has its own place in one preallocated
cache: slot `i` of a row holds the `i`-th token after the prefix, so there is no padding anywhere, rows of different
lengths decode together, and a finished row's place is given to the next sequence at once. In attention layers the
queries of the whole batch meet the prefix in one matrix product and their own slots in another, under one softmax
(exact, not an approximation). In short-convolution layers each row starts from the prefix's state; a prompt is fed
padded on the right, where pads cannot reach real tokens, and the state is read at each row's true end.

`Plain` feeds prompts of equal length through the model's own cache and attention. It assumes nothing, and serves
every architecture for which the first way is not shown equal: `shared_prefix_reason` compares the two on the very
weights at hand. Layer types other than full attention and short convolution are refused without a trial, because
a sliding window forgets parts of the prefix and a recurrent state is not read at a chosen token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, LinearAttentionLayer

ATTENTION = "preceptor_shared_prefix"
SCORES_LIMIT = {"cpu": 2**22, "cuda": 2**26}
"""Attention scores held at once while prompts are fed. A CPU is fastest when they stay near its cache (measured: 155 ms
at 2**22, 192 ms at 2**26, 250 ms at 2**18); a GPU wants few large calls."""
FIRST_SLOTS = 128
"""Slots allocated at first; doubled when a row outgrows them."""


class View:
    """What an attention layer needs besides its own cache. `prefix[layer]`: keys and values (kv heads, P, D).
    `bias`: 0 or -inf, broadcast over scores (rows, kv heads, groups, queries, slots)."""

    def __init__(self, prefix: dict[int, tuple[Tensor, Tensor]], bias: Tensor):
        self.prefix, self.bias = prefix, bias


def shared_prefix_attention(
    module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    view: View,
    **kwargs,
) -> tuple[Tensor, None]:
    """Softmax attention over prefix and slots. query (R, H, Q, D), key and value (R, K, S, D), out (R, Q, H, D).

    Raises `ValueError` for attention that is more than this (windows, sinks, caps, position biases)."""
    extra = [name for name in ("sliding_window", "softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if extra or dropout:
        raise ValueError(f"attention with {', '.join(extra) or 'dropout'}")
    rows, heads, queries, width = query.shape
    kv_heads = key.shape[1]
    query = (query * scaling).reshape(rows, kv_heads, -1, width)  # heads of one group lie together
    own = torch.matmul(query, key.transpose(2, 3)).float()
    own = (own.view(rows, kv_heads, -1, queries, own.shape[-1]) + view.bias).view(own.shape)
    top = own.amax(-1, keepdim=True)
    prefix_keys, prefix_values = view.prefix[module.layer_idx]
    if not prefix_keys.shape[1]:
        weights = torch.exp(own - top)
        out = torch.matmul(weights.to(value.dtype), value) / weights.sum(-1, keepdim=True)
        return out.to(value.dtype).view(rows, heads, queries, width).transpose(1, 2).contiguous(), None
    folded = query.transpose(0, 1).reshape(kv_heads, -1, width)
    shared = torch.matmul(folded, prefix_keys.transpose(1, 2)).float()
    top_folded = torch.maximum(top.transpose(0, 1).reshape(kv_heads, -1, 1), shared.amax(-1, keepdim=True))
    shared = shared.sub_(top_folded).exp_()
    top = top_folded.view(kv_heads, rows, -1, 1).transpose(0, 1)
    own = own.sub_(top).exp_()
    total = own.sum(-1, keepdim=True) + shared.sum(-1, keepdim=True).view(kv_heads, rows, -1, 1).transpose(0, 1)
    out = torch.matmul(shared.to(value.dtype), prefix_values).view(kv_heads, rows, -1, width).transpose(0, 1)
    out = (torch.matmul(own.to(value.dtype), value) + out) / total
    return out.to(value.dtype).reshape(rows, heads, queries, width).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, shared_prefix_attention)


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
        raise NotImplementedError("allocated by SharedPrefix")

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


class SharedPrefix:
    """Decodes up to `rows` sequences that begin with the same `prefix`. See the module's head."""

    attention = ATTENTION

    def __init__(self, model: PreTrainedModel, prefix: Sequence[int], rows: int):
        self.model, self.rows, self.device = model, rows, model.device
        self.prefix_length = len(prefix)
        seed = DynamicCache(config=model.config)
        with borrowed(model, None):  # one token tells the shapes where there is no prefix
            ids = torch.tensor([list(prefix) or [0]], device=self.device)
            model(input_ids=ids, past_key_values=seed, use_cache=True, logits_to_keep=1)
        self._adopt(seed)

    def _adopt(self, seed: DynamicCache) -> None:
        """Take over the prefix's keys, values and convolution states, and allocate the rows."""
        self.prefix: dict[int, tuple[Tensor, Tensor]] = {}
        self.states: dict[int, Tensor] = {}
        self.cursor, layers = _Cursor(), []
        for index, layer in enumerate(seed.layers):
            if isinstance(layer, LinearAttentionLayer):
                state = layer.conv_states[0]
                self.states[index] = state if self.prefix_length else torch.zeros_like(state)
                layers.append(self._convolution(self.states[index].repeat(self.rows, 1, 1)))
            else:
                keys, values = layer.keys[0, :, : self.prefix_length], layer.values[0, :, : self.prefix_length]
                self.prefix[index] = (keys.contiguous(), values.contiguous())
                shape = (self.rows, keys.shape[0], FIRST_SLOTS, keys.shape[2])
                layers.append(_Slots(keys.new_zeros(shape), values.new_zeros((*shape[:3], values.shape[2])), self.cursor))
        self.cache = Cache(layers=layers)
        self.position = torch.zeros(self.rows, dtype=torch.long, device=self.device)

    def _convolution(self, state: Tensor, *, record: bool = False) -> LinearAttentionLayer:
        """A convolution layer's cache that goes on from `state` (R, width, kernel)."""
        layer = LinearAttentionLayer()
        layer.lazy_initialization(conv_states=state)
        layer.conv_states[0].copy_(state)
        layer.has_previous_state[0], layer.record_past = True, record
        return layer

    def admit(self, rows: Tensor, prompts: Sequence[Sequence[int]]) -> None:
        """Feed all but the last token of each prompt (what follows the prefix, at least one token) into `rows`.
        The last token is the first that `step` is given."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        while order:  # longest first: the score matrices are bounded by the longest prompt of a batch
            longest = len(prompts[order[-1]])
            heads = self.model.config.num_attention_heads
            count = max(1, SCORES_LIMIT.get(self.device.type, 2**24) // (heads * longest * (self.prefix_length + longest)))
            batch, order = order[-count:], order[:-count]
            self._feed(rows[torch.tensor(batch, device=rows.device)], [prompts[i] for i in batch])

    def _feed(self, rows: Tensor, prompts: Sequence[Sequence[int]]) -> None:
        lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        self.position[rows] = lengths
        width = int(lengths.max())
        if width == 0:
            for index, state in self.states.items():
                self.cache.layers[index].conv_states[0][rows] = state
            return
        ids = torch.tensor([list(prompt[:-1]) + [0] * (width + 1 - len(prompt)) for prompt in prompts], device=self.device)
        cache = DynamicCache(config=self.model.config)
        for index, state in self.states.items():
            cache.layers[index] = self._convolution(state.repeat(len(prompts), 1, 1), record=True)
        causal = torch.full((width, width), -torch.inf, device=self.device).triu_(1)
        places = torch.arange(width, device=self.device)
        self._forward(ids, (self.prefix_length + places)[None], cache, causal)
        self._reserve(width)
        for index, layer in enumerate(cache.layers):
            target = self.cache.layers[index]
            if index in self.states:  # a row that fed n tokens is left with entries n to n + kernel of state and inputs
                kernel = self.states[index].shape[-1]
                ends = (lengths[:, None] + torch.arange(kernel, device=self.device))[:, None, :]
                recorded = layer.conv_states[0]
                target.conv_states[0][rows] = recorded.gather(2, ends.expand(-1, recorded.shape[1], -1))
            else:
                target.keys[rows, :, :width], target.values[rows, :, :width] = layer.keys, layer.values

    def step(self, tokens: Tensor, active: Tensor) -> Tensor:
        """Feed one token per row and return the logits (R, vocabulary) after it. Rows that are not `active` stay put."""
        self.cursor.used = int(self.position.max()) + 1
        self._reserve(self.cursor.used)
        slots = torch.arange(self.cursor.used, device=self.device)
        bias = torch.where(slots <= self.position[:, None], 0.0, -torch.inf)[:, None, None, None]
        if self.prefix:
            _, heads, capacity, _ = self._attention_layer.keys.shape
            grid = torch.arange(len(self.position) * heads, device=self.device).view(-1, heads) * capacity
            self.cursor.flat = (grid + self.position[:, None]).view(-1)
        logits = self._forward(tokens[:, None], (self.prefix_length + self.position)[:, None], self.cache, bias)
        self.position += active
        return logits

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.position = self.position[rows]
        for layer in self.cache.layers:
            if isinstance(layer, _Slots):
                layer.keys, layer.values = layer.keys[rows], layer.values[rows]
            else:
                layer.conv_states[0] = layer.conv_states[0][rows]

    @property
    def _attention_layer(self) -> _Slots:
        layer = self.cache.layers[next(iter(self.prefix))]
        assert isinstance(layer, _Slots)
        return layer

    def _reserve(self, slots: int) -> None:
        """Double the capacity until `slots` fit."""
        for layer in (layer for layer in self.cache.layers if isinstance(layer, _Slots)):
            while layer.keys.shape[2] < slots:
                layer.keys = torch.cat([layer.keys, torch.zeros_like(layer.keys)], dim=2)
                layer.values = torch.cat([layer.values, torch.zeros_like(layer.values)], dim=2)

    def _forward(self, ids: Tensor, positions: Tensor, cache: Cache, bias: Tensor) -> Tensor:
        """The model's own forward; logits after the last token (R, vocabulary)."""
        view = View(self.prefix, bias)
        out = self.model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1, view=view)
        return out.logits[:, -1]


class Plain:
    """Decodes sequences of one length through the model's own cache; new ones only when all are done."""

    attention = None

    def __init__(self, model: PreTrainedModel):
        self.model, self.prefix_length = model, 0

    def admit(self, rows: Tensor, prompts: Sequence[Sequence[int]]) -> None:
        """Feed all but the last token of each prompt. All prompts have the same length."""
        self.cache = DynamicCache(config=self.model.config)
        if len(prompts[0]) > 1:
            ids = torch.tensor([list(prompt[:-1]) for prompt in prompts], device=self.model.device)
            self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def step(self, tokens: Tensor, active: Tensor) -> Tensor:
        """Feed one token per row and return the logits (R, vocabulary) after it."""
        return self.model(input_ids=tokens[:, None], past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.cache.reorder_cache(rows)


def shared_prefix_reason(model: PreTrainedModel) -> str:
    """Why `SharedPrefix` must not be used for this model; empty if it is shown equal to the plain forward.

    Shown means: on these weights, three rows of different lengths after a common prefix, decoded for two steps, have
    the logits of the model run over each whole sequence, to the rounding of its number type."""
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if not kinds <= {DynamicLayer, LinearAttentionLayer} or DynamicLayer not in kinds:
        return f"cache layers {', '.join(sorted(kind.__name__ for kind in kinds))}"
    try:
        error = _largest_error(model)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as failure:  # a trial that cannot run shows nothing
        return f"{type(failure).__name__}: {failure}"
    limit = 1e-3 if next(model.parameters()).dtype == torch.float32 else 5e-2
    return "" if error < limit else f"logits differ by {error:.1e} of their spread"


def _largest_error(model: PreTrainedModel) -> float:
    ids = [(7 * i + 3) % model.config.vocab_size for i in range(16)]
    prefix, suffixes = ids[:7], [ids[7:9], ids[8:14], ids[9:13]]
    decoder = SharedPrefix(model, prefix, rows=3)
    rows, active, worst = torch.arange(3, device=model.device), torch.ones(3, dtype=torch.long, device=model.device), 0.0
    if any(layer.is_recurrent_states_initialized[0] for layer in decoder.cache.layers if isinstance(layer, LinearAttentionLayer)):
        raise ValueError("a recurrent state")
    with borrowed(model, ATTENTION):
        decoder.admit(rows, [suffix[:-1] for suffix in suffixes])
        found = [decoder.step(torch.tensor([suffix[at] for suffix in suffixes], device=model.device), active) for at in (-2, -1)]
    with borrowed(model, None):
        for row, suffix in enumerate(suffixes):
            wanted = model(input_ids=torch.tensor([[*prefix, *suffix]], device=model.device), use_cache=False).logits[0, -2:].float()
            got = torch.stack([logits[row] for logits in found]).float()
            worst = max(worst, float((got - wanted).abs().max() / wanted.std().clamp(min=1e-6)))
    return worst
